//! What all clients of a run share, and a client that goes on through the loss of servers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::{Reply, Request};

use crate::real::session::{Answer, Session, Trouble};

/// Long enough for every fault: no session may expire.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a silent server is waited for before another one is tried.
pub(super) const PATIENCE: Duration = Duration::from_millis(700);
/// No client may be without a server for so long, whatever happens.
const OUTAGE_MAX: Duration = Duration::from_secs(25);

/// What all share.
pub(super) struct Context {
    pub(super) servers: Vec<SocketAddr>,
    stopped: AtomicBool,
    failures: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<String, u64>>,
    /// What the clients leave for the check at the end.
    pub(super) left: Mutex<Left>,
}

/// What was acknowledged, for the check at the end.
#[derive(Default)]
pub(super) struct Left {
    /// For each counter's version the client that made it.
    pub(super) counter_versions: BTreeMap<(String, i32), usize>,
    /// For each counter how many increments had no answer.
    pub(super) counter_unknown: BTreeMap<String, i32>,
    /// What must be there: paths and their data.
    pub(super) there: BTreeMap<String, String>,
    /// What must not be there.
    pub(super) gone: Vec<String>,
    /// Of sequential znodes: the data of those that are there, and of those that may be.
    pub(super) sequence: BTreeMap<String, String>,
    pub(super) sequence_unknown: Vec<String>,
    /// Sessions that live, with their ephemerals.
    pub(super) alive: Vec<Session>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        Self {
            servers: servers.to_vec(),
            stopped: AtomicBool::new(false),
            failures: Mutex::default(),
            counts: Mutex::default(),
            left: Mutex::default(),
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether clients are to go on.
    pub(super) fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed) && lock(&self.failures).is_empty()
    }

    /// Something is wrong.
    pub(super) fn fail(&self, text: &str) {
        let thread = std::thread::current();
        let who = thread.name().unwrap_or("?");
        println!("chaos: WRONG: {who}: {text}");
        lock(&self.failures).push(format!("{who}: {text}"));
    }

    pub(super) fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    pub(super) fn count(&self, what: &str) {
        *lock(&self.counts).entry(what.to_owned()).or_default() += 1;
    }

    pub(super) fn left(&self) -> MutexGuard<'_, Left> {
        lock(&self.left)
    }

    /// What was done, and how often.
    pub(super) fn counts(&self) -> String {
        let counts = lock(&self.counts);
        let mut text = String::new();
        for (what, count) in counts.iter() {
            let separator = if text.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{count} {what}");
        }
        text
    }
}

/// A client with a session that must not be lost.
pub(super) struct Client<'a> {
    pub(super) context: &'a Context,
    pub(super) session: Session,
    what: &'static str,
}

impl<'a> Client<'a> {
    /// A session that begins at one of the servers.
    pub(super) fn new(context: &'a Context, what: &'static str, at: usize) -> Self {
        let at = at % context.servers.len();
        let session = Session::new(&context.servers, at, SESSION_TIMEOUT, PATIENCE);
        let mut client = Self { context, session, what };
        client.find_server();
        client
    }

    /// Attaches the session to another server; false if that failed, which is told.
    pub(super) fn attach(&mut self) -> bool {
        self.session.leave();
        self.find_server()
    }

    fn find_server(&mut self) -> bool {
        match self.session.attach(Instant::now() + OUTAGE_MAX) {
            Ok(_) => {
                self.context.count("attaches");
                true
            }
            Err(trouble) => {
                self.context.fail(&format!("session {:#x}: {trouble:?}", self.session.id()));
                false
            }
        }
    }

    /// Asks once. `None` if there is no answer: then the session is attached again.
    pub(super) fn ask(&mut self, request: &Request) -> Option<Answer> {
        match self.session.ask(request) {
            Ok(answer) => {
                self.context.count(&format!("{} answers", self.what));
                Some(answer)
            }
            Err(Trouble::Lost) => {
                self.context.count(&format!("{} requests without an answer", self.what));
                self.attach();
                None
            }
            Err(trouble) => {
                let (id, server) = (self.session.id(), self.session.server());
                self.context.fail(&format!(
                    "session {id:#x} at server {server:?}: {trouble:?} to {request:?}"
                ));
                None
            }
        }
    }

    /// Asks until there is an answer without an error; for what may be done twice.
    pub(super) fn must(&mut self, request: &Request) -> Option<Reply> {
        loop {
            match self.ask(request) {
                Some((header, Some(reply))) if header.err == 0 => return Some(reply),
                Some((header, _)) => {
                    self.context.fail(&format!("error {} to {request:?}", header.err));
                    return None;
                }
                None if !self.context.failures().is_empty() => return None,
                None => {}
            }
        }
    }

    /// Ends the session.
    pub(super) fn close(mut self) {
        // It expires where this has no answer.
        let _ = self.session.ask(&Request::CloseSession);
    }
}
