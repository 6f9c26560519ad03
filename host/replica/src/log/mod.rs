//! The write-ahead log of a replica: Raft's entries and its term, vote and commit.
//!
//! What an acknowledged write survives rests on this code. It knows nothing of Raft's rules beyond
//! "entries have an index and a term": it keeps what it is given, in order, durable after
//! [`Log::sync`], and says honestly at [`Log::open`] what is there.
//!
//! A log is a row of segment files (`segment.rs`) full of checksummed, chained records (`record.rs`),
//! and a mark that says how far they were durable (`mark.rs`). Nothing is ever overwritten: a
//! conflicting tail is cut by a record, trimming is a record, and whole segments are dropped when
//! nothing in them is needed. All calls block; one owner thread uses a log.
//!
//! Invariants:
//! * Everything buffered before a `sync` that returned `Ok` survives power loss.
//! * After a crash the log is what had been buffered up to some point at or after the last `sync`
//!   that returned: never an entry without those before it, never one that had been cut.
//! * A segment is begun only when all before it is durable, and dropped only when the record that
//!   made it needless is durable.
//! * After a failed write or sync every call fails, until the log is opened again.

mod disk;
mod error;
mod index;
mod mark;
mod open;
mod pool;
mod read;
mod record;
mod recovery;
mod segment;
mod sim;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use tracing::{debug, error};

use index::{Index, Place};
use mark::{Mark, MarkFile};
use pool::Pool;
use record::{Batch, Key, Kind};
use segment::{LogState, SECTOR, Segment, SegmentHeader};

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{Broken, Damage, LogError, Mismatch};
pub use sim::{SimDisk, SimFile, SimRng};

/// One entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// Raft's entry type, as a number; the log does not look at it.
    pub kind: u8,
    /// The payload.
    pub data: Bytes,
    /// Raft's context bytes.
    pub context: Bytes,
}

/// What Raft must remember besides entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term this server has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// The highest index known to be committed.
    pub commit: u64,
}

/// An index and the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The index.
    pub index: u64,
    /// The term.
    pub term: u64,
}

/// The last snapshot that replaced the log, and the bytes its installer left with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The log restarted after this position.
    pub at: Position,
    /// What the installer wrote, such as the name of the staged state.
    pub bytes: Bytes,
    /// The segment that holds the newest copy of the record.
    segment: u32,
}

impl Marker {
    fn new(at: Position, bytes: &[u8], segment: u32) -> Self {
        Self { at, bytes: Bytes::copy_from_slice(bytes), segment }
    }
}

/// A planted bug, for the tests that show that the tests find it. Never set in a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// `sync` writes but does not sync.
    SkipSync,
    /// The mark is written before what it speaks of is durable.
    MarkBeforeSync,
    /// Segments are dropped before the trim that allows it is durable.
    DropBeforeSync,
}

/// How a log uses its disk and memory.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a segment in bytes, from 4 KiB to 1 GiB. A longer batch gets a longer segment.
    pub segment_bytes: u64,
    /// How many spare segment files are kept at most.
    pub recycle_max: usize,
    /// Memory for recent entries, in bytes; entries not yet synced are kept beyond it.
    pub memory_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, recycle_max: 2, memory_bytes_max: 8 << 20 }
    }
}

/// A cut tail: the trace of a crash during a sync that had not returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub segment: u64,
    /// Where the log was cut, in bytes from the beginning of the segment.
    pub offset: u64,
}

/// What opening a log found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The log's id, given at its creation.
    pub log_id: u64,
    /// Records read and verified.
    pub records: u64,
    /// Segments read.
    pub segments: usize,
    /// Where a torn tail was cut, if there was one.
    pub torn: Option<Torn>,
    /// Files of no more use that were removed or made spare.
    pub leftovers: usize,
}

/// Sizes, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segment files of the log.
    pub segments: usize,
    /// Spare files.
    pub spares: usize,
    /// Disk space of all these, in bytes.
    pub disk_bytes: u64,
    /// Entries in the log.
    pub entries: u64,
    /// Memory used by recent entries, in bytes.
    pub memory_bytes: u64,
    /// Bytes buffered for the next sync.
    pub buffered_bytes: u64,
}

/// A write-ahead log on a disk `D`.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    options: Options,
    log_id: u64,
    pool: Pool<D::File>,
    /// All segments, the one in use last.
    segments: BTreeMap<u64, Segment<D::File>>,
    mark: MarkFile<D::File>,
    /// Where the next record goes in the segment in use, in bytes.
    end: u64,
    /// The last record's checksum.
    chain: u32,
    /// The last sync's number.
    sync: u64,
    index: Index,
    hard_state: HardState,
    marker: Option<Marker>,
    /// The state as of the last sync, which a new segment begins with.
    written: LogState,
    batch: Batch,
    /// The first entry whose record is in the batch; past the last one if none is.
    pending_from: u64,
    /// Whether segments may have become needless by what is in the batch.
    drop_pending: bool,
    broken: Option<Broken>,
    around_sync: Option<AroundSync>,
    /// A planted bug; `None` outside tests.
    mutant: Option<Mutant>,
}

type Around = dyn FnMut(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()> + Send;

/// Runs syncs, so that they can be timed; gives what each gave.
pub struct AroundSync(Box<Around>);

impl AroundSync {
    /// Has them run by `around`.
    pub fn new(
        around: impl FnMut(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()> + Send + 'static,
    ) -> Self {
        Self(Box::new(around))
    }
}

impl std::fmt::Debug for AroundSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AroundSync")
    }
}

/// A marker longer than this is a mistake: it names a snapshot, it does not hold one.
const MARKER_BYTES_MAX: usize = 64 << 10;
/// A segment's offsets are 32 bits; this leaves room for one batch of any legal size.
const BATCH_BYTES_MAX: usize = 2 << 30;

impl<D: Disk> Log<D> {
    /// The id given at creation.
    pub fn log_id(&self) -> u64 {
        self.log_id
    }

    /// Term, vote and commit, with what is buffered.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The last snapshot that replaced the log, with what is buffered.
    pub fn marker(&self) -> Option<&Marker> {
        self.marker.as_ref()
    }

    /// Buffers entries. They are readable at once and durable after [`Log::sync`]. If the log has an
    /// entry at the first one's index, that and all behind it are cut first.
    ///
    /// # Panics
    /// If the entries do not follow each other, leave a gap, or would cut what is committed or
    /// trimmed; or if more than 2 GiB are buffered.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let (index, last) = (first.index, self.index.last());
        assert!(index <= last + 1, "entry {index} leaves a gap: the log ends at {last}");
        if index <= last {
            let commit = self.hard_state.commit;
            assert!(index > commit, "entry {index} would cut the log, committed up to {commit}");
            self.batch.truncate_from(index);
            self.index.truncate_from(index);
            self.pending_from = self.pending_from.min(index);
        }
        for entry in entries {
            let (offset, bytes) = self.batch.entry(entry);
            assert!(offset + bytes <= BATCH_BYTES_MAX, "more than 2 GiB of entries are buffered");
            let place = Place {
                term: entry.term,
                segment: Place::PENDING,
                offset: offset as u32,
                bytes: bytes as u32,
            };
            self.index.push(place, entry.clone());
        }
    }

    /// Buffers term, vote and commit; nothing if they are as before.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        if hard_state != self.hard_state {
            self.hard_state = hard_state;
            self.batch.hard_state(hard_state);
        }
    }

    /// Forgets entries up to `index`, durably, with all that is buffered, and drops the segments in
    /// which nothing is needed any more. Nothing happens if they are trimmed already.
    ///
    /// Blocks on a [`Log::sync`].
    ///
    /// # Errors
    /// [`LogError::Broken`], for good.
    ///
    /// # Panics
    /// If `index` is past the last entry.
    pub fn trim(&mut self, index: u64) -> Result<(), LogError> {
        self.check_broken()?;
        let (trimmed, last) = (self.index.trimmed().index, self.index.last());
        assert!(index <= last, "trimming to {index}: the log ends at {last}");
        if index <= trimmed {
            return Ok(());
        }
        let term = self.index.place(index).expect("an index in (trimmed, last]").term;
        let to = Position { index, term };
        self.batch.trimmed_to(to);
        self.index.trim(to);
        self.pending_from = self.pending_from.max(index + 1);
        self.raise_commit(index);
        self.drop_pending = true;
        self.sync()
    }

    /// Makes durable that a snapshot at `(index, term)` replaces the log: all entries are void, and
    /// it goes on behind `index`. The commit index is raised to `index`. `marker` is kept, and given
    /// back by [`Log::marker`], until the next install.
    ///
    /// Blocks on a [`Log::sync`], which covers all that is buffered as well.
    ///
    /// # Errors
    /// [`LogError::Broken`], for good.
    ///
    /// # Panics
    /// If `marker` is longer than 64 KiB.
    pub fn install(&mut self, index: u64, term: u64, marker: &[u8]) -> Result<(), LogError> {
        self.check_broken()?;
        assert!(marker.len() <= MARKER_BYTES_MAX, "a marker of {} bytes", marker.len());
        let at = Position { index, term };
        self.batch.marker(Kind::Installed, at, marker);
        self.index = Index::new(at);
        self.marker = Some(Marker::new(at, marker, Place::PENDING));
        self.pending_from = index + 1;
        self.raise_commit(index);
        self.drop_pending = true;
        self.sync()
    }

    /// Buffers another `marker`, while the entries stay: as [`Log::marker`], it is kept until the next one,
    /// or the next install. `at` is where it was put, for whoever reads it.
    ///
    /// # Panics
    /// If the log has no such position, or `marker` is longer than 64 KiB.
    pub fn set_marker(&mut self, at: Position, marker: &[u8]) {
        assert!(marker.len() <= MARKER_BYTES_MAX, "a marker of {} bytes", marker.len());
        assert_eq!(self.term(at.index), Some(at.term), "the log goes on from {at:?}");
        self.batch.marker(Kind::Carried, at, marker);
        self.marker = Some(Marker::new(at, marker, Place::PENDING));
    }

    /// Makes everything buffered durable: one write, one sync, then the mark. Nothing is done if
    /// nothing is buffered.
    ///
    /// Blocks. About once per segment it also begins a new one, and in the second half of a segment
    /// it now and then prepares a part of the next one's file.
    ///
    /// # Errors
    /// [`LogError::Broken`], for good: what the disk holds is then unknown.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check_broken()?;
        if self.batch.is_empty() {
            return Ok(());
        }
        self.sync_batch().map_err(|broken| {
            error!(%broken, "the log failed");
            self.broken = Some(broken.clone());
            LogError::Broken(broken)
        })
    }

    /// Sizes, for metrics.
    pub fn stats(&self) -> Stats {
        let spares = self.pool.spares();
        let capacity = self.segments.values().map(|segment| segment.capacity).sum::<u64>();
        Stats {
            segments: self.segments.len(),
            spares,
            disk_bytes: capacity + spares as u64 * self.options.segment_bytes,
            entries: self.index.entries(),
            memory_bytes: self.index.recent_bytes(),
            buffered_bytes: self.batch.bytes().len() as u64,
        }
    }

    /// Plants a bug, for the tests that show that the tests find it. Never called in a server.
    pub fn plant(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
    }

    /// The disk space of the log's segments in bytes, the last one counted up to its last record.
    /// Spare files are not counted.
    pub fn bytes(&self) -> u64 {
        let full = self.segments.values().rev().skip(1).map(|segment| segment.capacity);
        full.sum::<u64>() + self.end
    }

    /// Has syncs of what is appended run by `around`.
    pub fn around_syncs(&mut self, around: AroundSync) {
        self.around_sync = Some(around);
    }

    /// The entry up to which the log can be trimmed with whole segments of at least so many bytes
    /// left.
    pub fn before_last(&self, bytes: u64) -> u64 {
        let (mut first, _) = self.active();
        let mut kept = self.end;
        for (id, segment) in self.segments.iter().rev().skip(1) {
            if kept >= bytes {
                break;
            }
            (first, kept) = (*id, kept + segment.capacity);
        }
        self.index.last_before(u32::try_from(first).expect("fewer than 2^32 segments"))
    }

    fn sync_batch(&mut self) -> Result<(), Broken> {
        let mut base = 0;
        let rotated = self.end + self.batch.bytes().len() as u64 > self.active().1.capacity;
        if rotated {
            base = self.carry_marker();
            self.rotate(self.batch.bytes().len() as u64)?;
        }
        if self.mutant == Some(Mutant::DropBeforeSync) {
            self.drop_segments()?;
        }
        let (id, _) = self.active();
        let sync = self.sync + 1;
        let chain = self.batch.seal(Key::new(self.log_id, id), self.chain, sync);
        let start = self.end;
        (self.chain, self.sync) = (chain, sync);
        self.end = start + self.batch.bytes().len() as u64;
        if self.mutant == Some(Mutant::MarkBeforeSync) {
            self.write_mark()?;
        }
        let mut around_sync = self.around_sync.take();
        let file = &self.active().1.file;
        file.write_at(start, self.batch.bytes()).map_err(Broken::io(what("writing", id)))?;
        if self.mutant != Some(Mutant::SkipSync) {
            let sync = &mut || file.sync_data();
            let synced = match &mut around_sync {
                Some(AroundSync(around)) => around(sync),
                None => sync(),
            };
            self.around_sync = around_sync;
            synced.map_err(Broken::io(what("syncing", id)))?;
        }
        self.write_mark()?;

        let segment = u32::try_from(id).expect("fewer than 2^32 segments");
        let written_at = u32::try_from(start).expect("a segment under 4 GiB") + base;
        self.index.written(self.pending_from, segment, written_at);
        self.pending_from = self.index.last() + 1;
        if let Some(marker) = &mut self.marker
            && (marker.segment == Place::PENDING || base > 0)
        {
            marker.segment = segment;
        }
        self.batch.clear();
        self.written = self.state();
        self.index.evict(self.options.memory_bytes_max as u64);
        if self.drop_pending || rotated {
            self.drop_segments()?;
            self.drop_pending = false;
        }
        let capacity = self.active().1.capacity;
        self.pool.prepare(&self.disk, self.end, capacity)
    }

    /// Before a new segment: puts a copy of the marker, if one is written, in front of the batch, so
    /// that the segment that holds it can go. Returns by how much the batch moved.
    fn carry_marker(&mut self) -> u32 {
        let Some(marker) = self.marker.as_ref().filter(|marker| marker.segment != Place::PENDING)
        else {
            return 0;
        };
        let mut carried = Batch::default();
        carried.marker(Kind::Carried, marker.at, &marker.bytes);
        let moved = carried.bytes().len() as u32;
        carried.append(&self.batch);
        self.batch = carried;
        moved
    }

    /// What is trimmed or in a snapshot had been committed.
    fn raise_commit(&mut self, index: u64) {
        if self.hard_state.commit < index {
            self.set_hard_state(HardState { commit: index, ..self.hard_state });
        }
    }

    /// Begins a new segment with room for `bytes`; it is durable, and empty, when this returns.
    fn rotate(&mut self, bytes: u64) -> Result<(), Broken> {
        let id = self.segments.keys().next_back().map_or(1, |id| id + 1);
        let taken = self.pool.take(&self.disk, id, SECTOR as u64 + bytes)?;
        let header = SegmentHeader {
            log_id: self.log_id,
            segment: id,
            sync: self.sync,
            prev_end: self.end,
            prev_crc: self.chain,
            state: self.written,
        };
        let (sector, crc) = header.encode();
        // Before the name: a spare file may hold the header of an earlier try to begin this segment,
        // with which another end of the one before it would pass for the right one.
        taken.file.write_at(0, &sector).map_err(Broken::io(what("writing", id)))?;
        taken.file.sync_data().map_err(Broken::io(what("syncing", id)))?;
        let segment = Pool::name(&self.disk, id, taken)?;
        self.disk.sync_dir().map_err(Broken::io("syncing the log's directory"))?;
        self.segments.insert(id, segment);
        self.end = SECTOR as u64;
        self.chain = crc;
        Ok(())
    }

    /// Gives up the segments in which nothing is needed any more.
    fn drop_segments(&mut self) -> Result<(), Broken> {
        let active = self.active().0;
        let first = self.index.first_place().map_or(Place::PENDING, |place| place.segment);
        let marker = self.marker.as_ref().map_or(Place::PENDING, |marker| marker.segment);
        let needed = u64::from(first.min(marker)).min(active);
        while let Some(entry) = self.segments.first_entry().filter(|entry| *entry.key() < needed) {
            let (id, segment) = entry.remove_entry();
            drop(segment.file);
            self.pool.release(&self.disk, id, segment.capacity)?;
            debug!(segment = id, "the log dropped a segment");
        }
        Ok(())
    }

    fn write_mark(&mut self) -> Result<(), Broken> {
        let mark = Mark {
            log_id: self.log_id,
            sync: self.sync,
            segment: self.active().0,
            offset: self.end,
            chain: self.chain,
        };
        self.mark.write(&mark).map_err(Broken::io(format!("writing {}", mark::NAME)))
    }

    fn active(&self) -> (u64, &Segment<D::File>) {
        let (id, segment) = self.segments.last_key_value().expect("a log has a segment");
        (*id, segment)
    }

    fn state(&self) -> LogState {
        LogState {
            trimmed: self.index.trimmed(),
            last_index: self.index.last(),
            hard_state: self.hard_state,
        }
    }

    fn check_broken(&self) -> Result<(), LogError> {
        self.broken.clone().map_or(Ok(()), |broken| Err(broken.into()))
    }
}

impl Options {
    fn check(&self) {
        let bytes = self.segment_bytes;
        assert!((4 << 10..=1 << 30).contains(&bytes), "segments of {bytes} bytes");
    }
}

fn what(step: &str, segment: u64) -> String {
    format!("{step} {}", segment::name(segment))
}
