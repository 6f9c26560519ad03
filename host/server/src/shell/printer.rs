//! Tells of events while somebody may be typing.
//!
//! On a terminal, a thread of its own hands each message to the line editor, which puts it above the
//! line being edited: a session's task must not wait for an editor that may itself wait for an
//! answer. Elsewhere messages go straight to standard output, so that an event stands before the
//! output of the command that was answered after it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustyline::ExternalPrinter;

use super::{READ_ONLY, watching};
use crate::remote::{Notice, Target};

/// How many messages may wait for the terminal; more are only counted.
const WAITING_MAX: usize = 10_000;

/// Where messages go.
pub(super) struct Printer {
    to: Option<SyncSender<String>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    watches: AtomicBool,
    dropped: AtomicBool,
}

impl Printer {
    /// Messages go to standard output.
    pub(super) fn plain() -> Self {
        Self {
            to: None,
            thread: Mutex::new(None),
            watches: AtomicBool::new(true),
            dropped: AtomicBool::new(false),
        }
    }

    /// Messages go to the terminal, around the line being edited.
    pub(super) fn terminal(mut editor: impl ExternalPrinter + Send + 'static) -> Self {
        let (to, from) = sync_channel::<String>(WAITING_MAX);
        let body = move || {
            for message in from {
                if editor.print(message).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::spawn(body);
        let mut printer = Self::plain();
        printer.to = Some(to);
        printer.thread = Mutex::new(Some(thread));
        printer
    }

    /// Whether events are told.
    pub(super) fn watches(&self) -> bool {
        self.watches.load(Ordering::Relaxed)
    }

    pub(super) fn set_watches(&self, on: bool) {
        self.watches.store(on, Ordering::Relaxed);
    }

    /// Tells what a session said by itself.
    pub(super) fn notice(&self, notice: &Notice, target: &Target) {
        match notice {
            Notice::Event(event) if self.watches() => self.say(watching::shown(event, target)),
            Notice::Event(_) => {}
            Notice::Connected { server, session, read_only } => {
                self.say(format!("Connected to {server}, session {session:#x}\n"));
                if *read_only {
                    self.say(format!("{READ_ONLY}\n"));
                }
            }
            Notice::Waiting(why) => self.say(format!("{why}; trying again\n")),
            Notice::Lost(why) => self.say(format!("Disconnected: {why}; trying again\n")),
            Notice::Expired => self.say(
                "The session has expired: its ephemerals and watches are gone; a new one begins\n"
                    .to_owned(),
            ),
            Notice::AuthFailed => self.say(
                "The credentials were refused, and the session has ended; `connect` begins another\n"
                    .to_owned(),
            ),
        }
    }

    fn say(&self, message: String) {
        let Some(to) = &self.to else {
            let mut out = std::io::stdout();
            // Nobody listens any more.
            let _ = out.write_all(message.as_bytes()).and_then(|()| out.flush());
            return;
        };
        if to.try_send(message).is_err() {
            self.dropped.store(true, Ordering::Relaxed);
        }
    }

    /// Whether messages were dropped since the last call.
    pub(super) fn dropped(&self) -> bool {
        self.dropped.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.lock().take() {
            // What it still has to say is said before the shell ends.
            let _ = thread.join();
        }
    }
}
