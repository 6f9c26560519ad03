//! Reads that touch many rows: one low-priority thread gives each a turn after the other, so that a
//! scan of a million znodes holds up neither the small reads nor another scan.
//!
//! Invariants:
//! * At most [`ACTIVE_MAX`] are under way; the others wait in the order in which they came.
//! * A new one starts only while the answers, begun or not sent yet, take less than
//!   [`BYTES_MAX`]; one that has started ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::reads::Read;

/// How many big reads take turns.
pub const ACTIVE_MAX: usize = 8;
/// How many bytes of their answers may be in memory when another one starts.
pub const BYTES_MAX: usize = 32 << 20;

/// Bytes of memory that are given back when this is dropped.
#[derive(Debug)]
pub struct Charge {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Charge {
    fn new(used: &Arc<AtomicUsize>) -> Self {
        Self { used: Arc::clone(used), bytes: 0 }
    }

    fn set(&mut self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The big reads of a server.
#[derive(Default)]
pub struct BigReads {
    active: VecDeque<Read>,
    waiting: VecDeque<Read>,
    used: Arc<AtomicUsize>,
}

impl BigReads {
    /// Takes a read that did not end in its first turn.
    pub fn push(&mut self, read: Read) {
        self.waiting.push_back(read);
    }

    /// Whether nothing is under way and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }

    /// Gives the next read a turn. False if there is nothing that may go on now: ask again when a
    /// read comes, or after a while, when clients have taken what was answered.
    pub fn turn(&mut self) -> bool {
        let room = self.active.len() < ACTIVE_MAX && self.used.load(Ordering::Relaxed) < BYTES_MAX;
        if room && let Some(mut next) = self.waiting.pop_front() {
            next.charge = Some(Charge::new(&self.used));
            self.active.push_back(next);
        }
        let Some(mut read) = self.active.pop_front() else { return false };
        let outbox = Arc::clone(read.outbox());
        let bytes = read.bytes();
        if let Some(charge) = &mut read.charge {
            charge.set(bytes);
        }
        match read.run() {
            Some(read) => self.active.push_back(read),
            None => outbox.wake(),
        }
        true
    }
}
