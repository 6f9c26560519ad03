//! Compares Vivarium with a real ZooKeeper 3.9.5; see `tests/src/differential/mod.rs`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tests::differential::{self, Options};

/// Send the same to a real ZooKeeper and to Vivarium, and compare all that they say.
#[derive(Debug, Parser)]
struct Cli {
    /// How many seeds to run.
    #[arg(long, default_value_t = 12)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many random operations, all seeds together.
    #[arg(long, default_value_t = 12_000)]
    operations: usize,
    /// The vivarium binary.
    #[arg(long, env = "TEST_SERVER_BIN")]
    vivarium: PathBuf,
    /// The Java class path of a real ZooKeeper; tests/setup/zookeeper prints one.
    #[arg(long, env = "REAL_ZOOKEEPER_CLASSPATH")]
    zookeeper_classpath: String,
}

fn main() -> ExitCode {
    let Cli { seeds, seed, operations, vivarium, zookeeper_classpath } = Cli::parse();
    let options = Options { seeds, seed, operations, vivarium, zookeeper_classpath };
    match differential::run(&options) {
        Ok(outcome) => {
            println!("{} passed, {} failed", outcome.passed, outcome.failed);
            ExitCode::from(u8::from(outcome.failed > 0))
        }
        Err(error) => {
            println!("differential: {error}");
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}
