//! The differential test: the same requests of several sessions to a real ZooKeeper 3.9.5 and to
//! Vivarium, and everything that each of them says compared.
//!
//! What is asserted, for every connection: the same replies, stats, errors and watch events in the
//! same order, and the same end of the connection. Numbers that differ by nature are mapped
//! (`mapping.rs` says how strictly), orders that ZooKeeper leaves to a hash table are not compared
//! (`told.rs` lists them). What else differs must be listed in `tests/differential/differences.toml`
//! with its reason.
//!
//! Each seed has a subtree of its own, so that all of them share one start of the servers; servers
//! that came to differ are started afresh for the next seed.

mod differences;
mod generate;
mod mapping;
mod request;
mod run;
mod scenarios;
mod seed;
mod servers;
mod session;
mod tally;
mod told;
mod values;

use std::path::PathBuf;
use std::time::Instant;

use differences::Differences;
use mapping::Mapping;
use run::Run;
use seed::Seed;
use servers::{Profile, Programs, Servers};
use tally::Tally;

/// The list of intended differences.
const DIFFERENCES: &str = include_str!("../../differential/differences.toml");

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many seeds.
    pub seeds: u64,
    /// The first of them.
    pub seed: u64,
    /// How many random operations, all seeds together.
    pub operations: usize,
    /// The `vivarium` binary.
    pub vivarium: PathBuf,
    /// The class path of a real ZooKeeper.
    pub zookeeper_classpath: String,
}

/// What came of it. Each seed is a test, and so is the coverage of a full run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
}

/// Runs the seeds, printing what there is to know.
///
/// # Errors
/// What keeps the test from running at all: a server that does not start, a malformed list.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let programs = Programs {
        vivarium: options.vivarium.clone(),
        zookeeper_classpath: options.zookeeper_classpath.clone(),
    };
    let mut differences = Differences::parse(DIFFERENCES)
        .map_err(|error| format!("tests/differential/differences.toml: {error}"))?;
    let mut tally = Tally::default();
    let mut outcome = Outcome { passed: 0, failed: 0 };
    for profile in [Profile::Full, Profile::Strict] {
        let mut pair: Option<(Servers, Mapping)> = None;
        // One in four is strict.
        let strict = |seed: &u64| (seed % 4 == 3) == (profile == Profile::Strict);
        for number in (options.seed..options.seed + options.seeds).filter(strict) {
            let (servers, mut mapping) = match pair.take() {
                Some(pair) => pair,
                None => {
                    let servers = Servers::start(&programs, profile).map_err(|e| e.to_string())?;
                    (servers, Mapping::default())
                }
            };
            let started = Instant::now();
            let operations = options.operations / usize::try_from(options.seeds).unwrap_or(1);
            let seed = Seed { number, profile, operations };
            let mut run = Run::new(servers.addresses(), &mut mapping, &mut differences, &mut tally);
            match seed.run(&mut run) {
                Ok(()) => {
                    let took = started.elapsed();
                    println!("seed {number} ({profile:?}): the same, {:.1} s", took.as_secs_f64());
                    outcome.passed += 1;
                    pair = Some((servers, mapping));
                }
                Err(mismatch) => {
                    println!("seed {number} ({profile:?}): DIFFERENT\n{}", mismatch.0);
                    if mismatch.0.contains("cannot be reached") {
                        println!("what the servers logged last\n{}", servers.logs());
                    }
                    println!(
                        "run it again: differential --seed {number} --seeds 1 --operations {operations}"
                    );
                    outcome.failed += 1;
                }
            }
        }
    }
    println!("{tally}");
    for (name, seen) in differences.seen() {
        println!("  intended difference {name}: {seen} times");
    }
    if options.operations >= tally::FULL && outcome.failed == 0 {
        let mut missing = tally.missing();
        let never = differences.seen().filter(|(_, seen)| *seen == 0);
        missing.extend(never.map(|(name, _)| format!("the difference {name} did not occur")));
        if missing.is_empty() {
            outcome.passed += 1;
        } else {
            println!("a full run must see everything:\n  {}", missing.join("\n  "));
            outcome.failed += 1;
        }
    }
    Ok(outcome)
}
