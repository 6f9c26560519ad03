//! The command line.

mod config_args;
mod connect_args;
mod settings;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::bench;
use crate::serve;
use crate::tls;

use self::config_args::ConfigArgs;
use self::settings::SettingsArgs;

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
    /// Show or change the settings that the cluster has agreed on.
    #[command(after_help = settings::EXAMPLES)]
    Settings(SettingsArgs),
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
        Command::Settings(args) => {
            args.run()?;
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
