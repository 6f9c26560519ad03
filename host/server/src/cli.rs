//! The command line.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::bench;
use crate::config::{Config, Overrides, from_zoo_cfg};
use crate::serve;
use crate::tls;

/// A coordination server that ZooKeeper clients use unchanged.
#[derive(Debug, Parser)]
#[command(name = "vivarium", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server. Without any configuration: data in ./vivarium-data, clients on 127.0.0.1:2181.
    Serve(ConfigArgs),
    /// Read the configuration, say what is wrong with it, and print what would hold.
    CheckConfig(ConfigArgs),
    /// Measure a server: throughput, latency, and with --pid its CPU time and memory. It speaks the
    /// ZooKeeper protocol, so it measures a ZooKeeper too.
    Bench(bench::BenchArgs),
    /// Ask a running server how it is (the four-letter word `srvr`).
    Status {
        /// The server's client address.
        #[arg(long, default_value = "127.0.0.1:2181", value_name = "HOST:PORT")]
        server: String,
        /// Another four-letter word: ruok, stat, mntr, cons, conf, envi, wchs, dump, ...
        #[arg(long, default_value = "srvr", value_name = "WORD")]
        word: String,
    },
}

/// Where the configuration comes from. Flags win over VIVARIUM_* variables, those over the file.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// A TOML file; `config/single.toml` shows every key.
    #[arg(long, value_name = "FILE", conflicts_with = "zoo_cfg")]
    config: Option<PathBuf>,
    /// ZooKeeper's own configuration file, with myid beside its data.
    #[arg(long, value_name = "FILE")]
    zoo_cfg: Option<PathBuf>,
    /// A Java system property, as a ZooKeeper's start script would set it. Repeatable.
    #[arg(long = "java-property", value_name = "KEY=VALUE", requires = "zoo_cfg")]
    java_properties: Vec<String>,
    /// Where the server keeps everything.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where clients connect.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Any other key of the configuration, such as limits.max-frame-bytes=4MiB. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    fn load(&self) -> anyhow::Result<(Config, Vec<String>)> {
        let mut overrides = Overrides::default();
        if let Some(dir) = &self.data_dir {
            overrides.set("--data-dir", "data-dir", dir);
        }
        if let Some(listen) = &self.listen {
            overrides.set("--listen", "listen.client", listen);
        }
        for pair in &self.set {
            let (key, value) = pair.split_once('=').with_context(|| {
                format!(
                    "--set expects KEY=VALUE, got {pair:?}; for example --set tick-time-ms=1000"
                )
            })?;
            overrides.set("--set", key, value);
        }
        let environment = std::env::vars();
        let Some(zoo_cfg) = &self.zoo_cfg else {
            let config = Config::load(self.config.as_deref(), environment, &overrides)?;
            let warnings = config.without_effect();
            return Ok((config, warnings.iter().map(ToString::to_string).collect()));
        };
        let properties = self
            .java_properties
            .iter()
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (key.to_owned(), value.to_owned())
            })
            .collect::<Vec<_>>();
        let (file, mut warnings) = from_zoo_cfg(zoo_cfg, &properties)?;
        let config = file.clone().overlaid(environment, &overrides)?;
        // What the file sets is named by its keys there; the rest came over it.
        let known = file.without_effect();
        warnings.extend(config.without_effect().into_iter().filter(|w| !known.contains(w)));
        Ok((config, warnings.iter().map(ToString::to_string).collect()))
    }
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let mut out = std::io::stderr();
            // Nothing can be said of a closed standard error.
            let _ = writeln!(out, "vivarium: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => {
            let (config, warnings) = args.load()?;
            config.require_single()?;
            serve::run(&config, &warnings)
        }
        Command::CheckConfig(args) => {
            let (config, warnings) = args.load()?;
            config.require_single()?;
            for warning in warnings {
                writeln!(std::io::stderr(), "warning: {warning}")?;
            }
            if config.listen.client_tls.is_some() {
                tls::server_config(&config.tls)?;
            }
            write!(std::io::stdout(), "{}", config.effective_toml())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(args) => {
            bench::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status { server, word } => {
            write!(std::io::stdout(), "{}", ask(&server, &word)?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn ask(server: &str, word: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(server)
        .with_context(|| format!("no server answers at {server}; is one running there?"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("{server} did not answer {word:?} within 10 s"))?;
    anyhow::ensure!(!answer.is_empty(), "{server} hung up on {word:?}: not a four-letter word?");
    Ok(answer)
}
