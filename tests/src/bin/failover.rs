//! How long clients wait when the leader is killed; see `tests/src/failover/mod.rs`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::failover::{self, Kill};
use tests::real::ensemble::Program;

/// What must hold of Vivarium, over all kills.
const MEDIAN_MAX: Duration = Duration::from_millis(300);
const WORST_MAX: Duration = Duration::from_millis(800);

/// Kill the leader of three servers again and again while clients write, and tell what they saw.
///
/// Exit code 1 if the median of the longest gaps is 300 ms or more with Vivarium, the worst one 800 ms
/// or more, if a session was lost, or a connection to a server that was not killed.
#[derive(Debug, Parser)]
struct Cli {
    /// How many kills.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// How many clients, spread over the servers.
    #[arg(long, default_value_t = 48)]
    clients: usize,
    /// The vivarium binary.
    #[arg(long, env = "TEST_SERVER_BIN")]
    vivarium: Option<PathBuf>,
    /// The Java class path of a real ZooKeeper, to measure it beside; tests/setup/zookeeper prints one.
    #[arg(long, env = "REAL_ZOOKEEPER_CLASSPATH")]
    zookeeper_classpath: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let programs = [
        ("ZooKeeper", cli.zookeeper_classpath.map(Program::ZooKeeper)),
        ("Vivarium", cli.vivarium.map(Program::Vivarium)),
    ];
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (name, program) in programs {
        let Some(program) = program else { continue };
        eprintln!("{name}: {} kills, {} clients", cli.kills, cli.clients);
        match failover::run(program, cli.clients, cli.kills) {
            Ok(kills) => {
                rows.push(row(name, &kills));
                if name == "Vivarium" && !good(&kills) {
                    failed.push("Vivarium: not within the bounds".to_owned());
                }
            }
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    println!(
        "{:9} | kills | longest gap of any client, ms: median, worst | clients of others, ms: median, \
         worst | sessions lost | connections to others dropped",
        ""
    );
    rows.iter().for_each(|row| println!("{row}"));
    failed.iter().for_each(|why| println!("failover: {why}"));
    let passed = rows.len().saturating_sub(failed.len());
    println!("{passed} passed, {} failed", failed.len());
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn row(name: &str, kills: &[Kill]) -> String {
    let sum = |of: fn(&Kill) -> usize| kills.iter().map(of).sum::<usize>();
    let (gap, others) = (spread(kills, Kill::gap), spread(kills, |kill| kill.others));
    format!(
        "{name:9} | {:5} | {:5} {:5} | {:5} {:5} | {} | {}",
        kills.len(),
        gap.0.as_millis(),
        gap.1.as_millis(),
        others.0.as_millis(),
        others.1.as_millis(),
        sum(|kill| kill.expired),
        sum(|kill| kill.dropped)
    )
}

/// The median and the worst.
fn spread(kills: &[Kill], of: impl Fn(&Kill) -> Duration) -> (Duration, Duration) {
    let mut all: Vec<_> = kills.iter().map(of).collect();
    all.sort_unstable();
    let median = all.get(all.len() / 2).copied().unwrap_or_default();
    (median, all.last().copied().unwrap_or_default())
}

fn good(kills: &[Kill]) -> bool {
    let (median, worst) = spread(kills, Kill::gap);
    let clean = kills.iter().all(|kill| kill.expired == 0 && kill.dropped == 0);
    clean && median < MEDIAN_MAX && worst < WORST_MAX
}
