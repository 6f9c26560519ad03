//! How far the Machine is behind, and how much the Node may propose and give it meanwhile.
//!
//! Invariants:
//! * The Machine has no more than [`BACKLOG_ENTRIES_MAX`] entries in hand. The others wait in the log,
//!   so that the Node never waits for the Machine, however long it takes.
//! * A leader proposes nothing more while the Machine has had an entry for longer than
//!   [`BACKLOG_MS_MAX`], nor more than it applies within that time, as far as the last entry tells.

use std::collections::VecDeque;

use crate::node::BATCH_OPERATIONS_MAX;

/// How many entries may wait to be applied before nothing more is proposed.
pub(crate) const BACKLOG_ENTRIES_MAX: u64 = 64;
/// How long they may have waited, in milliseconds.
pub(crate) const BACKLOG_MS_MAX: i64 = 250;
/// An entry that takes longer than this to apply, in milliseconds, was too large.
const ENTRY_MS_MAX: i64 = 50;

/// What the Machine has in hand, and how fast it is.
pub(crate) struct Backlog {
    /// Up to which entry it has been given any.
    given: u64,
    applied: u64,
    /// Up to which entry it was given at which time, by the steady clock, as far as it has not applied
    /// them.
    waiting: VecDeque<(u64, i64)>,
    /// How long the last entry took.
    entry_ms: i64,
    operations_max: usize,
}

impl Backlog {
    /// All is applied up to this index.
    pub(crate) fn new(applied: u64) -> Self {
        let (waiting, operations_max) = (VecDeque::new(), BATCH_OPERATIONS_MAX);
        Self { given: applied, applied, waiting, entry_ms: 0, operations_max }
    }

    /// The Machine goes on with a state that has applied up to this index.
    pub(crate) fn install(&mut self, index: u64) {
        *self = Self {
            entry_ms: self.entry_ms,
            operations_max: self.operations_max,
            ..Self::new(index)
        };
    }

    /// Up to which entry the Machine has been given any, and up to which it may be.
    pub(crate) fn gives(&self) -> (u64, u64) {
        (self.given, self.applied + BACKLOG_ENTRIES_MAX)
    }

    /// It was given those up to this index.
    pub(crate) fn give(&mut self, index: u64, now_ms: i64) {
        self.given = index;
        self.waiting.push_back((index, now_ms));
    }

    /// It has applied the entry at this index, with so many operations, in so many milliseconds.
    pub(crate) fn applied(&mut self, index: u64, operations: usize, took_ms: i64) {
        self.applied = self.applied.max(index);
        while self.waiting.front().is_some_and(|(given, _)| *given <= index) {
            self.waiting.pop_front();
        }
        self.entry_ms = took_ms;
        if took_ms > ENTRY_MS_MAX {
            self.operations_max = (self.operations_max / 2).max(1);
        } else if took_ms * 2 <= ENTRY_MS_MAX && operations * 2 >= self.operations_max {
            self.operations_max = (self.operations_max * 2).min(BATCH_OPERATIONS_MAX);
        }
    }

    /// How many entries more may be proposed, if `last` is the last one.
    pub(crate) fn room(&self, last: u64, now_ms: i64) -> u64 {
        let late = self.waiting.front().is_some_and(|(_, at_ms)| now_ms - at_ms > BACKLOG_MS_MAX);
        // One at least, whatever it takes.
        let in_time =
            BACKLOG_MS_MAX.checked_div(self.entry_ms).map_or(u64::MAX, |n| n.max(1) as u64);
        let most = if late { 0 } else { in_time.min(BACKLOG_ENTRIES_MAX) };
        most.saturating_sub(last.saturating_sub(self.applied))
    }

    /// How many operations an entry may have: fewer, the longer they take.
    pub(crate) fn operations_max(&self) -> usize {
        self.operations_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_proposed_while_too_much_waits_or_for_too_long() {
        let mut backlog = Backlog::new(10);
        assert_eq!(backlog.room(10, 0), BACKLOG_ENTRIES_MAX);
        assert_eq!(backlog.room(10 + BACKLOG_ENTRIES_MAX - 1, 0), 1);
        assert_eq!(backlog.room(10 + BACKLOG_ENTRIES_MAX + 5, 0), 0);
        backlog.give(12, 1000);
        backlog.give(14, 1200);
        assert_eq!(backlog.room(14, 1000 + BACKLOG_MS_MAX), BACKLOG_ENTRIES_MAX - 4);
        assert_eq!(backlog.room(14, 1001 + BACKLOG_MS_MAX), 0);
        backlog.applied(11, 1, 0);
        assert_eq!(backlog.room(14, 1001 + BACKLOG_MS_MAX), 0, "12 waits");
        backlog.applied(12, 1, 0);
        assert_eq!(backlog.room(14, 1001 + BACKLOG_MS_MAX), BACKLOG_ENTRIES_MAX - 2);
    }

    #[test]
    fn slow_entries_are_not_proposed_ahead() {
        let mut backlog = Backlog::new(0);
        backlog.applied(1, 1, 50);
        assert_eq!(backlog.room(1, 0), 5);
        backlog.applied(2, 1, 10_000);
        assert_eq!((backlog.room(2, 0), backlog.room(3, 0)), (1, 0));
    }

    #[test]
    fn entries_shrink_while_they_take_too_long_and_grow_again() {
        let mut backlog = Backlog::new(0);
        let mut sizes = |ms_per_operation: f64, entries: u64| -> usize {
            for _ in 0..entries {
                let operations = backlog.operations_max();
                let took_ms = operations as f64 * ms_per_operation;
                backlog.applied(backlog.applied + 1, operations, took_ms as i64);
            }
            backlog.operations_max()
        };
        assert_eq!(sizes(0.01, 5), BATCH_OPERATIONS_MAX);
        assert_eq!(sizes(1.0, 20), 32);
        assert_eq!(sizes(60.0, 20), 1);
        assert_eq!(sizes(5.0, 20), 8);
        assert_eq!(sizes(0.01, 20), BATCH_OPERATIONS_MAX);
        // Small ones say little of large ones.
        backlog.applied(backlog.applied + 1, 1000, 60);
        backlog.applied(backlog.applied + 1, 10, 0);
        assert_eq!(backlog.operations_max(), BATCH_OPERATIONS_MAX / 2);
    }
}
