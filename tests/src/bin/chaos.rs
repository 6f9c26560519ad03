//! Chaos on real processes; see `tests/src/chaos/mod.rs`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::chaos::{self, Options};

/// Three servers, clients that write, read and watch, and faults; everything that clients see checked.
#[derive(Debug, Parser)]
struct Cli {
    /// For how long there are faults, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Which faults, and when. The processes themselves keep their own time: a seed is no replay.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The vivarium binary.
    #[arg(long, env = "TEST_SERVER_BIN")]
    vivarium: PathBuf,
}

fn main() -> ExitCode {
    let Cli { seconds, seed, vivarium } = Cli::parse();
    let options = Options { vivarium, seed, duration: Duration::from_secs(seconds) };
    let wrong = match chaos::run(&options) {
        Ok(wrong) => wrong,
        Err(error) => vec![error.to_string()],
    };
    wrong.iter().for_each(|text| println!("chaos: {text}"));
    println!("{} passed, {} failed", usize::from(wrong.is_empty()), usize::from(!wrong.is_empty()));
    ExitCode::from(u8::from(!wrong.is_empty()))
}
