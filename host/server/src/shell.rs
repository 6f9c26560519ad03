//! `vivarium shell`: zkCli's verbs, one at a time or interactively, for any server that speaks
//! ZooKeeper's protocol.
//!
//! Invariants:
//! * What a server holds reaches the terminal only through `text`.
//! * Credentials are neither printed nor kept.
//! * Memory is bounded by the longest list of children, not by the tree.

mod acl;
mod command;
mod complete;
mod ensemble;
mod history;
mod interactive;
mod lists;
mod nodes;
mod printer;
mod problem;
mod quota;
mod text;
mod tree;
mod verbs;
mod watching;
mod words;

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use proto::Acl;
use tokio::runtime::Runtime;

use self::command::Command;
use self::problem::Problem;
use crate::remote::{Notice, Options, Session};

pub(crate) use self::verbs::overview;

/// What is said of a server that is read-only.
const READ_ONLY: &str =
    "the server is read-only: it has no leader, takes no changes, and may not have the latest ones";

/// How long leaving may take; a session that was not closed ends by its timeout.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// Reads an ACL as the shell's commands take it: `SCHEME:ID:PERMISSIONS,...`.
///
/// # Errors
/// What does not have that form.
pub(crate) fn parse_acl(given: &str) -> anyhow::Result<Vec<Acl>> {
    acl::parse(given).map_err(|problem| anyhow::anyhow!("{problem}"))
}

/// Runs one command, or, without words, reads commands from standard input.
///
/// # Errors
/// Only what keeps the shell from starting; a command that fails is told, and gives an exit code.
pub(crate) fn run(options: Options, words: &[String]) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if words.is_empty() {
        return interactive::run(&runtime, options);
    }
    Ok(match once(&runtime, options, words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            told(&problem);
            ExitCode::FAILURE
        }
    })
}

fn once(runtime: &Runtime, options: Options, words: &[String]) -> Result<(), Problem> {
    let (verb, parsed) = command::parse(words)?;
    if local(verb.name, &parsed)? {
        return Ok(());
    }
    if matches!(verb.name, "close" | "connect" | "history" | "printwatches" | "redo") {
        return Err(format!("{} is a verb of the interactive shell", verb.name).into());
    }
    if matches!(verb.name, "quit" | "exit") {
        return Ok(());
    }
    let target = options.target.clone();
    runtime.block_on(async {
        let accepts = options.read_only;
        let waiting = move |notice| match notice {
            Notice::Waiting(why) if accepts => {
                command::note(&format!("{why} Trying until --timeout is over"));
            }
            Notice::Waiting(why) => command::note(&format!(
                "{why} Trying until --timeout is over; --read-only is content with a server that has \
                 no leader, if it is set to serve then"
            )),
            Notice::Connected { read_only: true, .. } => command::note(READ_ONLY),
            _ => {}
        };
        let session = Session::open(options, Box::new(waiting)).await?;
        let mut out = BufWriter::new(std::io::stdout());
        let mut cx = Command { session: &session, target: &target, out: &mut out, stays: false };
        let done = cx.run(verb, &parsed).await;
        let flushed = out.flush();
        // What was done is done: a server that does not answer any more changes nothing.
        let _ = tokio::time::timeout(CLOSE_MAX, session.close()).await;
        done?;
        Ok(flushed?)
    })
}

/// Verbs that need no server; false if this is none of them.
fn local(verb: &str, words: &words::Words) -> Result<bool, Problem> {
    let mut out = std::io::stdout();
    match verb {
        "version" => writeln!(out, "Vivarium CLI version: {}", env!("CARGO_PKG_VERSION"))?,
        "help" => match words.optional(0) {
            None => {
                write!(out, "{}\n`help VERB` tells of one.\n", overview())?;
            }
            Some(name) => {
                let verb = verbs::find(name).ok_or_else(|| {
                    let name = text::line(name);
                    Problem::Told(format!("no verb is called {name}; `help` lists them"))
                })?;
                write!(out, "{}", verb.help())?;
            }
        },
        _ => return Ok(false),
    }
    Ok(true)
}

/// Says why a command failed, unless nobody listens.
fn told(problem: &Problem) {
    if !matches!(problem, Problem::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    {
        // Nothing can be said of a closed standard error.
        let _ = writeln!(std::io::stderr(), "{problem}");
    }
}
