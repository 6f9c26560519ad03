//! Where each entry is: a place on disk for all of them, the entry itself for recent ones.
//!
//! Invariants:
//! * `places` covers `(trimmed, last]` without a gap; `recent` is a suffix of it, or empty.
//! * Places rise with the index: the first live entry is in the oldest segment that is needed.
//! * An entry that is not yet written is always in `recent`, whatever the bound.

use std::collections::VecDeque;

use super::{Entry, Position};

/// Memory an entry in `recent` takes besides its bytes, roughly.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// The place of one entry's record. 24 bytes, since there can be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) term: u64,
    /// The segment, [`Place::LOST`] or [`Place::PENDING`].
    pub(super) segment: u32,
    /// Where the record begins, in bytes; of a pending one, in the batch.
    pub(super) offset: u32,
    /// The record's length with header and padding.
    pub(super) bytes: u32,
}

impl Place {
    /// In a segment that is not there any more. Only while opening, until the trim that allowed it.
    pub(super) const LOST: u32 = 0;
    /// In the batch, not written yet.
    pub(super) const PENDING: u32 = u32::MAX;

    pub(super) fn lost() -> Self {
        Self { term: 0, segment: Self::LOST, offset: 0, bytes: 0 }
    }
}

/// The index of a log.
#[derive(Debug)]
pub(super) struct Index {
    trimmed: Position,
    places: VecDeque<Place>,
    recent: VecDeque<Entry>,
    recent_bytes: u64,
}

impl Index {
    /// An empty index that begins after `trimmed`.
    pub(super) fn new(trimmed: Position) -> Self {
        Self { trimmed, places: VecDeque::new(), recent: VecDeque::new(), recent_bytes: 0 }
    }

    pub(super) fn trimmed(&self) -> Position {
        self.trimmed
    }

    pub(super) fn last(&self) -> u64 {
        self.trimmed.index + self.places.len() as u64
    }

    /// The number of entries.
    pub(super) fn entries(&self) -> u64 {
        self.places.len() as u64
    }

    /// The memory that recent entries take, in bytes.
    pub(super) fn recent_bytes(&self) -> u64 {
        self.recent_bytes
    }

    /// The place of an entry in `(trimmed, last]`.
    pub(super) fn place(&self, index: u64) -> Option<&Place> {
        self.places.get(usize::try_from(index.checked_sub(self.trimmed.index + 1)?).ok()?)
    }

    /// The place of the first entry.
    pub(super) fn first_place(&self) -> Option<&Place> {
        self.places.front()
    }

    /// The last entry that is in a segment before this one; what is trimmed counts as such.
    pub(super) fn last_before(&self, segment: u32) -> u64 {
        self.trimmed.index + self.places.partition_point(|place| place.segment < segment) as u64
    }

    /// The first index whose entry is in memory, `last + 1` if none is.
    pub(super) fn recent_first(&self) -> u64 {
        self.last() + 1 - self.recent.len() as u64
    }

    /// An entry, if it is in memory.
    pub(super) fn recent(&self, index: u64) -> Option<&Entry> {
        self.recent.get(usize::try_from(index.checked_sub(self.recent_first())?).ok()?)
    }

    /// Adds the next entry's place without the entry; only when none is in memory.
    pub(super) fn push_place(&mut self, place: Place) {
        assert!(self.recent.is_empty(), "a gap in the entries in memory");
        self.places.push_back(place);
    }

    /// Adds the next entry.
    pub(super) fn push(&mut self, place: Place, entry: Entry) {
        assert_eq!(entry.index, self.last() + 1, "entries follow each other");
        self.recent_bytes += memory_bytes(&entry);
        self.places.push_back(place);
        self.recent.push_back(entry);
    }

    /// Forgets the entries from `index` on.
    pub(super) fn truncate_from(&mut self, index: u64) {
        assert!(index > self.trimmed.index, "truncating from {index} cuts what was trimmed");
        let keep = index - 1 - self.trimmed.index;
        self.places.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        while self.recent.back().is_some_and(|entry| entry.index >= index) {
            self.forget(VecDeque::pop_back);
        }
    }

    /// Forgets the entries up to `to`.
    pub(super) fn trim(&mut self, to: Position) {
        assert!(to.index >= self.trimmed.index, "trimming goes back to {}", to.index);
        let count = (to.index - self.trimmed.index).min(self.entries());
        self.places.drain(..usize::try_from(count).unwrap_or(usize::MAX));
        self.trimmed = to;
        while self.recent.front().is_some_and(|entry| entry.index <= to.index) {
            self.forget(VecDeque::pop_front);
        }
    }

    /// Gives the pending entries from `first` on their place.
    pub(super) fn written(&mut self, first: u64, segment: u32, base: u32) {
        let skip = usize::try_from(first - self.trimmed.index - 1).unwrap_or(usize::MAX);
        for place in self.places.iter_mut().skip(skip) {
            assert_eq!(place.segment, Place::PENDING, "an entry was written twice");
            place.segment = segment;
            place.offset += base;
        }
    }

    /// Drops the oldest entries from memory until at most `bytes_max` are used. All are written.
    pub(super) fn evict(&mut self, bytes_max: u64) {
        while self.recent_bytes > bytes_max && !self.recent.is_empty() {
            self.forget(VecDeque::pop_front);
        }
    }

    fn forget(&mut self, pop: fn(&mut VecDeque<Entry>) -> Option<Entry>) {
        if let Some(entry) = pop(&mut self.recent) {
            self.recent_bytes -= memory_bytes(&entry);
        }
    }
}

fn memory_bytes(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len()) as u64 + ENTRY_OVERHEAD_BYTES
}
