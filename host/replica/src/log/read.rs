//! Reading the log: indexes, terms and entries, and whether the state store fits it.
//!
//! Invariants:
//! * What comes from disk was verified against its checksum, index and term on this very read.
//! * Reading never changes the log, and needs no sync: buffered entries are read from memory.

use bytes::Bytes;

use super::disk::{Disk, DiskFile as _};
use super::error::{Broken, Damage, LogError, Mismatch};
use super::record::{Header, Key, Record};
use super::{Entry, HardState, Log, Position, what};

impl<D: Disk> Log<D> {
    /// The index of the first entry, or where it will be: one past what was trimmed.
    pub fn first_index(&self) -> u64 {
        self.index.trimmed().index + 1
    }

    /// The index of the last entry, with what is buffered; `first_index() - 1` if there is none.
    pub fn last_index(&self) -> u64 {
        self.index.last()
    }

    /// Where the log begins: the last index that was trimmed away or covered by a snapshot.
    pub fn trimmed(&self) -> Position {
        self.index.trimmed()
    }

    /// The term of the entry at `index`, in `[first_index - 1, last_index]`; `None` outside of that
    /// range. Does not block.
    pub fn term(&self, index: u64) -> Option<u64> {
        let trimmed = self.index.trimmed();
        if index == trimmed.index {
            return Some(trimmed.term);
        }
        self.index.place(index).map(|place| place.term)
    }

    /// The entries in `[low, high)`, at least one if that is not empty, then as many as fit in
    /// `bytes_max` (of records, a little more than their payload). Old ones are read from disk.
    ///
    /// # Errors
    /// [`LogError::Compacted`], [`LogError::Unavailable`] if an entry is not in the log;
    /// [`LogError::Damaged`] and [`LogError::Broken`] if the disk fails: the process should end,
    /// and open the log again.
    pub fn entries(&self, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>, LogError> {
        self.check_broken()?;
        if low >= high {
            return Ok(Vec::new());
        }
        let (first, last) = (self.first_index(), self.last_index());
        if low < first {
            return Err(LogError::Compacted { index: low, first });
        }
        if high > last + 1 {
            return Err(LogError::Unavailable { index: high - 1, last });
        }
        let stop = self.fit(low, high, bytes_max);
        let recent_first = self.index.recent_first();
        let mut entries = Vec::with_capacity((stop - low) as usize);
        let mut index = low;
        while index < stop.min(recent_first) {
            index = self.read_run(index, stop.min(recent_first), &mut entries)?;
        }
        entries.extend((index..stop).filter_map(|index| self.index.recent(index).cloned()));
        assert_eq!(entries.len() as u64, stop - low, "every entry is in memory or on disk");
        Ok(entries)
    }

    /// Checks that a state which has applied up to `applied` belongs to this log, and raises the
    /// commit index to it: what is applied had been committed. The raise is buffered.
    ///
    /// # Errors
    /// [`LogError::Mismatch`] unless `first_index - 1 <= applied.index <= last_index`, the terms are the same,
    /// and the commit index is not past the end. That is damage: something is lost, here or there.
    pub fn reconcile(&mut self, applied: Position) -> Result<(), LogError> {
        let HardState { commit, .. } = self.hard_state;
        let found_term = self.term(applied.index);
        if found_term != Some(applied.term) || commit > self.last_index() {
            return Err(LogError::from(Mismatch {
                applied_index: applied.index,
                applied_term: applied.term,
                trimmed_index: self.index.trimmed().index,
                last_index: self.last_index(),
                commit,
                found_term,
            }));
        }
        if commit < applied.index {
            self.set_hard_state(HardState { commit: applied.index, ..self.hard_state });
        }
        Ok(())
    }

    /// The end of the entries from `low` that fit in `bytes_max`; at least one does.
    fn fit(&self, low: u64, high: u64, bytes_max: u64) -> u64 {
        let mut bytes = 0;
        let mut stop = low;
        while stop < high
            && let Some(place) = self.index.place(stop)
        {
            bytes += u64::from(place.bytes);
            if bytes > bytes_max && stop > low {
                break;
            }
            stop += 1;
        }
        stop
    }

    /// Reads entries from `low` on whose records stand side by side, with one read; returns the
    /// index after the last.
    fn read_run(&self, low: u64, stop: u64, entries: &mut Vec<Entry>) -> Result<u64, LogError> {
        let first = *self.index.place(low).expect("an index in (trimmed, last]");
        let mut end = first.offset + first.bytes;
        let mut next = low + 1;
        while next < stop
            && let Some(place) = self.index.place(next)
            && (place.segment, place.offset) == (first.segment, end)
        {
            end += place.bytes;
            next += 1;
        }
        let id = u64::from(first.segment);
        let file = &self.segments.get(&id).expect("the segment of a live entry").file;
        let mut buffer = vec![0; (end - first.offset) as usize];
        file.read_at(u64::from(first.offset), &mut buffer)
            .map_err(Broken::io(what("reading", id)))?;
        let buffer = Bytes::from(buffer);
        let key = Key::new(self.log_id, id);
        for index in low..next {
            let place = self.index.place(index).expect("an index in (trimmed, last]");
            let start = (place.offset - first.offset) as usize;
            let record = &buffer[start..start + place.bytes as usize];
            let entry = Header::parse(record, key)
                .filter(|header| header.verify(record, key))
                .and_then(|header| Record::decode(header.kind, header.payload(record)));
            match entry {
                Some(Record::Entry(entry)) if (entry.index, entry.term) == (index, place.term) => {
                    entries.push(entry.share(&buffer));
                }
                _ => {
                    let offset = u64::from(place.offset);
                    let reason = format!("entry {index}, whole before, does not verify any more");
                    let damage = Damage { segment: id, offset, reason };
                    tracing::error!(%damage, "the log is damaged");
                    return Err(LogError::Damaged(Box::new(damage)));
                }
            }
        }
        Ok(next)
    }
}
