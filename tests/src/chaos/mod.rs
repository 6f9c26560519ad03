//! Chaos on real processes: three servers, clients that write, read and watch through all of them,
//! and faults, drawn from a seed: `kill -9` of one, two or all, SIGSTOP, SIGTERM, a network between
//! the servers that is cut, in one direction or both, and a server that loses its data, or whose log is
//! damaged, while the others have theirs.
//!
//! What is checked, always:
//! * Each acknowledged write was carried out, once; of one without an answer it is found out by the
//!   same session whether it was, and then it stays so (`register.rs`, `counter.rs`).
//! * A session sees its own writes, and never an older state than before, on whichever server; a read
//!   after `sync` sees what any client was acknowledged before (`counter.rs`).
//! * No watch is lost, and each event comes before what it tells of can be read (`watcher.rs`).
//! * No session is lost while a client speaks for it; ephemerals go with their sessions, and only then
//!   (`ephemerals.rs`).
//! * No server ends by itself, and at the end all have the same tree, stats included (`tree.rs`).

mod context;
mod counter;
mod ephemerals;
mod faults;
mod register;
mod tree;
mod watcher;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::CreateMode;

use crate::random::Random;
use crate::real::ensemble::{Ensemble, Program};
use crate::real::requests::create;
use context::{Client, Context};

const SERVERS: usize = 3;
/// What a client does until it is told to stop; clients of a kind are numbered.
type Kind = (&'static str, fn(&Context, usize));

const KINDS: [Kind; 4] = [
    ("register", register::run),
    ("counter", counter::run),
    ("watcher", watcher::run),
    ("ephemerals", ephemerals::run),
];
/// How many clients of each kind there are.
const CLIENTS: usize = 3;
/// How long all is calm before the first fault, and after the last.
const CALM: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `vivarium` binary.
    pub vivarium: PathBuf,
    /// Which faults, and when.
    pub seed: u64,
    /// For how long there are faults.
    pub duration: Duration,
}

/// Runs it, and gives all that was found to be wrong.
///
/// # Errors
/// If the servers cannot be started at all.
pub fn run(options: &Options) -> std::io::Result<Vec<String>> {
    let program = Program::Vivarium(options.vivarium.clone());
    let mut ensemble = Ensemble::lay_out(program, SERVERS, true)?;
    for at in 0..SERVERS {
        ensemble.start(at)?;
    }
    ensemble.wait()?;
    let context = Arc::new(Context::new(&ensemble.clients));
    lay_out(&context);
    let mut threads = Vec::new();
    for (name, run) in KINDS {
        for number in 0..CLIENTS {
            let (context, name) = (Arc::clone(&context), format!("{name} {number}"));
            let thread = std::thread::Builder::new().name(name);
            threads.push(thread.spawn(move || run(&context, number))?);
        }
    }
    std::thread::sleep(CALM);
    let mut random = Random::new(options.seed);
    let deadline = Instant::now() + options.duration;
    while Instant::now() < deadline && context.failures().is_empty() {
        if let Err(error) = faults::one(&mut ensemble, &mut random, &context) {
            context.fail(&error.to_string());
        }
    }
    std::thread::sleep(CALM);
    context.stop();
    for thread in threads {
        if thread.join().is_err() {
            context.fail("a client panicked");
        }
    }
    finish(&ensemble.clients, &context);
    println!("chaos: {}", context.counts());
    if !context.failures().is_empty() {
        for at in 0..SERVERS {
            println!("chaos: the end of server {}'s log:\n{}", at + 1, ensemble.log_end(at));
        }
    }
    Ok(context.failures())
}

/// Makes what the clients share.
fn lay_out(context: &Context) {
    let mut client = Client::new(context, "setup", 0);
    for path in ["/registers", "/counters", "/ephemerals", "/alive", "/sequence", "/multi"] {
        client.must(&create(path, "", CreateMode::Persistent));
    }
    counter::lay_out(&mut client);
    (0..CLIENTS).for_each(|number| register::lay_out(&mut client, number));
    client.close();
}

/// Checks what only the end shows.
fn finish(servers: &[SocketAddr], context: &Context) {
    counter::check(context);
    register::check(context);
    ephemerals::check(context);
    tree::compare(servers, context);
}
