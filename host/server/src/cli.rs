//! The command line.

mod config_args;
mod connect_args;
mod member;
mod operator_args;
mod plugin;
mod recover;
mod repair;
mod settings;
mod shell;
mod snapshot;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::bench;
use crate::local_ensemble::{self, LocalEnsembleArgs};
use crate::serve;
use crate::tls;

use self::config_args::ConfigArgs;
use self::member::MemberArgs;
use self::plugin::PluginArgs;
use self::recover::RecoverArgs;
use self::repair::RepairArgs;
use self::settings::SettingsArgs;
use self::shell::ShellArgs;
use self::snapshot::SnapshotArgs;

/// A coordination server that ZooKeeper clients use unchanged.
#[derive(Debug, Parser)]
#[command(name = "vivarium", version, about, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it:
  vivarium serve                        a server, data in ./vivarium-data, clients on 127.0.0.1:2181
  vivarium shell create /greeting hello
  vivarium shell                        the interactive shell
  vivarium status                       how the server is
  vivarium serve --zoo-cfg zoo.cfg      in place of a ZooKeeper, with its configuration
  vivarium local-ensemble               three servers on this machine, of which any one may die";

const SERVE_EXAMPLES: &str = "\
Later layers win: defaults, then the file, then VIVARIUM_* variables (limits.max-frame-bytes is
VIVARIUM_LIMITS__MAX_FRAME_BYTES), then flags. config/single.toml shows every key with its unit and
default; an unknown key is refused. A zoo.cfg is read as ZooKeeper reads it, and data goes to
<dataDir>/vivarium.

Exit codes: 0 after SIGTERM or SIGINT, 1 if it cannot start, 70 if it broke (start it again: it
replays its log).

Examples:
  vivarium serve
  vivarium serve --config config/single.toml --listen 0.0.0.0:2181
  vivarium serve --data-dir /var/lib/vivarium --set limits.max-frame-bytes=4MiB
  vivarium serve --zoo-cfg zoo.cfg --java-property jute.maxbuffer=4194304";

const LOCAL_ENSEMBLE_EXAMPLES: &str = "\
Once all servers serve, it is printed how to connect. Their logs go to standard error, each line with
the server's name before it. Ctrl-C or SIGTERM stops all; the next start goes on with their data. Exit
codes: 0 after that, 1 if a server ends before all have served, or if none is left.

Examples:
  vivarium local-ensemble
  vivarium local-ensemble --servers 5 --dir /tmp/five --client-port 2281
  kill -9 PID                           of one of them: clients of the others stay connected";

const CHECK_EXAMPLES: &str = "\
Examples:
  vivarium check-config --config config/single.toml
  vivarium check-config --zoo-cfg /etc/zookeeper/conf/zoo.cfg > vivarium.toml

What is printed is TOML that --config takes, with every secret replaced by (hidden). Settings without
effect are told on standard error. Exit code 1 if something is wrong.";

const BENCH_EXAMPLES: &str = "\
Each connection keeps exactly --outstanding requests in flight (a closed loop). Latencies are in
microseconds, CPU time is per operation and of all threads of --pid.

Examples:
  vivarium bench --op get --pid $(pidof vivarium)
  vivarium bench --servers zoo1:2181,zoo2:2181 --op mixed --reads 90 --size 1000 --seconds 30
  vivarium bench --op set --connections 1 --outstanding 1 --json";

const STATUS_EXAMPLES: &str = "\
A server answers these words to its own machine only, unless four-letter-words.allow-from says
otherwise. Exit code 1 if it does not answer within 10 s.

Examples:
  vivarium status
  vivarium status --word mntr
  vivarium status --server zoo1:2181 --word cons";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server. Without any configuration: data in ./vivarium-data, clients on 127.0.0.1:2181.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve {
        #[command(flatten)]
        config: ConfigArgs,
        /// Stop when the process with this id, which started this one, has ended.
        #[arg(long, value_name = "PID", hide = true)]
        end_with: Option<i32>,
    },
    /// Run several servers on this machine as one ensemble, to try it out.
    #[command(after_help = LOCAL_ENSEMBLE_EXAMPLES)]
    LocalEnsemble(LocalEnsembleArgs),
    /// Read the configuration, say what is wrong with it, and print what would hold.
    #[command(after_help = CHECK_EXAMPLES)]
    CheckConfig(ConfigArgs),
    /// Measure a server: throughput, latency, and with --pid its CPU time and memory. It speaks the
    /// ZooKeeper protocol, so it measures a ZooKeeper too.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(bench::BenchArgs),
    /// Look at znodes and change them, with the verbs of zkCli; on any server that speaks
    /// ZooKeeper's protocol.
    #[command(after_help = shell::help())]
    Shell(ShellArgs),
    /// Show or change the settings that the cluster has agreed on.
    #[command(after_help = settings::EXAMPLES)]
    Settings(SettingsArgs),
    /// Show the servers of an ensemble, or change which ones take part.
    #[command(after_help = member::EXAMPLES)]
    Member(MemberArgs),
    /// Write plugins, bring them in, switch them, and look at what they do.
    #[command(after_help = plugin::EXAMPLES)]
    Plugin(PluginArgs),
    /// Save the state of a running server to a file, check such a file, or begin with one anew.
    #[command(after_help = snapshot::EXAMPLES)]
    Snapshot(SnapshotArgs),
    /// Go on with one server of an ensemble that has lost its majority for good.
    #[command(after_help = recover::EXAMPLES)]
    Recover(RecoverArgs),
    /// Have an entry applied without a plugin that no server can run.
    #[command(after_help = repair::EXAMPLES)]
    Repair(RepairArgs),
    /// Ask a running server how it is (the four-letter word `srvr`).
    #[command(after_help = STATUS_EXAMPLES)]
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
        Command::Serve { config, end_with } => {
            end_with.map_or(Ok(()), serve::end_with)?;
            let (config, warnings) = config.load()?;
            config.require_supported()?;
            serve::run(&config, &warnings)
        }
        Command::LocalEnsemble(args) => local_ensemble::run(&args),
        Command::CheckConfig(args) => {
            let (config, warnings) = args.load()?;
            config.require_supported()?;
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
        Command::Shell(args) => args.run(),
        Command::Settings(args) => {
            args.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Member(args) => {
            args.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Plugin(args) => {
            args.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Snapshot(args) => {
            args.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Recover(args) => {
            args.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Repair(args) => {
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

/// Asks whether to go on, unless that was said already.
///
/// # Errors
/// If the answer is not yes.
fn confirm(out: &mut impl Write, is_sure: bool) -> anyhow::Result<()> {
    if is_sure {
        return Ok(());
    }
    write!(out, "Type yes to go on: ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    anyhow::ensure!(answer.trim() == "yes", "nothing was changed");
    Ok(())
}
