//! Reading a log back: which segments count, where it ends, and whether that end is honest.
//!
//! Every record is verified. The log ends at the first one that fails. That is a *torn tail*, the
//! normal trace of a crash, only if it can have been in the one sync that had not finished;
//! otherwise it is *damage*: the mark speaks of a later sync, or a whole record of a later sync
//! stands behind it, or it is not in the newest segment (a segment is begun only when everything
//! before it is durable).
//!
//! Invariants:
//! * Nothing is changed here. The caller cuts, removes and syncs; what is damaged stays as it is.
//! * Whatever the bytes are, there is no panic, and no entry that was not appended.

use std::collections::BTreeMap;

use tracing::warn;

use super::disk::{Disk, DiskFile};
use super::error::{Damage, LogError};
use super::index::{Index, Place};
use super::mark::{self, Mark, MarkFile};
use super::record::{ALIGN, HEADER_BYTES, Header, Key, Record};
use super::segment::{self, HeaderError, LogState, SECTOR, Segment, SegmentHeader, VERSION};
use super::{HardState, Marker, Torn};

/// A log as found on disk, verified.
#[derive(Debug)]
pub(super) struct Found<F> {
    pub(super) log_id: u64,
    /// The segments of the log, without a gap; the last one is in use.
    pub(super) segments: BTreeMap<u64, Segment<F>>,
    pub(super) index: Index,
    pub(super) hard_state: HardState,
    pub(super) marker: Option<Marker>,
    /// Where the last segment's records end, in bytes.
    pub(super) end: u64,
    /// The checksum of the last record.
    pub(super) chain: u32,
    /// The last sync's number; with a torn tail, the number of the torn one.
    pub(super) sync: u64,
    pub(super) torn: Option<Torn>,
    /// Segments that are no longer part of the log, with their length in bytes.
    pub(super) leftovers: Vec<(u64, u64)>,
    pub(super) mark_file: MarkFile<F>,
    pub(super) mark: Mark,
    pub(super) records: u64,
}

/// A file with a segment's name.
struct Candidate<F> {
    file: F,
    capacity: u64,
    /// `None` if it is torn, damaged, or of another segment or log.
    header: Option<(SegmentHeader, u32)>,
}

/// Where damage is, and what it is.
struct Bad {
    segment: u64,
    offset: u64,
    reason: String,
}

/// Why recovery stopped.
enum Stop {
    Bad(Bad),
    Io(LogError),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Io(error)
    }
}

fn bad(segment: u64, offset: u64, reason: impl Into<String>) -> Stop {
    Stop::Bad(Bad { segment, offset, reason: reason.into() })
}

/// Reads and verifies the log whose directory holds the files `names`.
pub(super) fn recover<D: Disk>(disk: &D, names: &[String]) -> Result<Found<D::File>, LogError> {
    let mut files = candidates(disk, names)?;
    let opened = MarkFile::open(disk).map_err(LogError::io(format!("reading {}", mark::NAME)))?;
    if files.is_empty() && opened.as_ref().is_none_or(|(_, mark)| mark.segment == 0) {
        return Err(LogError::Missing);
    }
    verify(&mut files, opened).map_err(|stop| match stop {
        Stop::Io(error) => error,
        Stop::Bad(Bad { segment, offset, reason }) => {
            LogError::Damaged(Box::new(Damage { segment, offset, reason }))
        }
    })
}

/// Opens every file with a segment's name and reads its header.
fn candidates<D: Disk>(
    disk: &D,
    names: &[String],
) -> Result<BTreeMap<u64, Candidate<D::File>>, LogError> {
    let mut files = BTreeMap::new();
    for name in names {
        let Some(id) = segment::parse_name(name) else { continue };
        let file = disk.open(name).map_err(LogError::io(format!("opening {name}")))?;
        let capacity = file.bytes().map_err(LogError::io(format!("reading {name}")))?;
        let mut sector = vec![0; capacity.min(SECTOR as u64) as usize];
        file.read_at(0, &mut sector).map_err(LogError::io(format!("reading {name}")))?;
        let header = match SegmentHeader::decode(&sector) {
            Ok((header, crc)) => (header.segment == id).then_some((header, crc)),
            Err(HeaderError::Invalid) => None,
            Err(HeaderError::Newer(found)) => {
                return Err(LogError::NewerVersion { file: name.clone(), found, known: VERSION });
            }
        };
        files.insert(id, Candidate { file, capacity, header });
    }
    Ok(files)
}

/// Verifies the whole log.
fn verify<F: DiskFile>(
    files: &mut BTreeMap<u64, Candidate<F>>,
    opened: Option<(MarkFile<F>, Mark)>,
) -> Result<Found<F>, Stop> {
    let newest = files.keys().next_back().copied();
    let Some((mark_file, mark)) = opened else {
        let reason = format!("{} is gone, or neither of its slots is good", mark::NAME);
        return Err(bad(newest.unwrap_or(0), 0, reason));
    };
    let Some(newest) = newest else {
        return Err(bad(mark.segment, 0, "the mark names this segment, but there is none at all"));
    };
    for candidate in files.values_mut() {
        candidate.header = candidate.header.filter(|(header, _)| header.log_id == mark.log_id);
    }
    let mut leftovers = Vec::new();
    drop_unborn(files, newest, &mark, &mut leftovers)?;
    if files.is_empty() && mark.segment == 0 {
        return Err(LogError::Missing.into());
    }
    let run = take_run(files, &mut leftovers)?;

    let mut replay = Replay::begin(&run[0].1.0, mark);
    let mut bytes = Vec::new();
    for (at, (id, header, file)) in run.iter().enumerate() {
        replay.enter(*id, header)?;
        let limit = run.get(at + 1).map(|(_, (next, _), _)| next.prev_end);
        if let Some(limit) = limit.filter(|limit| *limit > file.capacity) {
            let reason = format!("the file ends here; the next segment follows at byte {limit}");
            return Err(bad(*id, file.capacity, reason));
        }
        bytes.resize(limit.unwrap_or(file.capacity) as usize, 0);
        let what = || format!("reading {}", segment::name(*id));
        file.file.read_at(0, &mut bytes).map_err(|error| LogError::io(what())(error))?;
        replay.walk(&bytes)?;
        match limit {
            Some(limit) if replay.offset < limit => {
                let reason = format!("a record does not verify; the segment goes on to {limit}");
                return Err(bad(*id, replay.offset, reason));
            }
            Some(_) => {}
            None => replay.finish(&bytes)?,
        }
    }
    if replay.index.first_place().is_some_and(|place| place.segment == Place::LOST) {
        let first = replay.index.trimmed().index + 1;
        let reason = format!("this segment is missing; entries from {first} on were in it");
        return Err(bad(run[0].0 - 1, 0, reason));
    }
    Ok(Found {
        log_id: mark.log_id,
        segments: run.into_iter().map(|(id, _, segment)| (id, segment)).collect(),
        index: replay.index,
        hard_state: replay.hard_state,
        marker: replay.marker,
        end: replay.offset,
        chain: replay.chain,
        sync: replay.sync,
        torn: replay.torn,
        leftovers,
        mark_file,
        mark,
        records: replay.records,
    })
}

/// Sets the newest file aside if a crash cut its creation short: its header is not there, and
/// nothing shows that it ever was.
fn drop_unborn<F: DiskFile>(
    files: &mut BTreeMap<u64, Candidate<F>>,
    newest: u64,
    mark: &Mark,
    leftovers: &mut Vec<(u64, u64)>,
) -> Result<(), Stop> {
    let unborn = match files.get(&newest) {
        Some(candidate) if candidate.header.is_none() => candidate,
        Some(_) | None => return Ok(()),
    };
    let what = || format!("reading {}", segment::name(newest));
    let mut bytes = vec![0; unborn.capacity as usize];
    unborn.file.read_at(0, &mut bytes).map_err(|error| LogError::io(what())(error))?;
    let behind = scan(&bytes, SECTOR, Key::new(mark.log_id, newest), 0);
    if mark.segment >= newest || behind.newest.is_some() {
        return Err(bad(newest, 0, "the header does not verify, but records followed it"));
    }
    warn!(segment = newest, "a crash cut the creation of this segment short; it is not used");
    leftovers.push((newest, unborn.capacity));
    files.remove(&newest);
    Ok(())
}

/// A segment of the log: id, header with checksum, file.
type Member<F> = (u64, (SegmentHeader, u32), Segment<F>);

/// Takes the segments that follow each other without a gap up to the newest, oldest first. What is
/// below a gap was trimmed, if the log can do without it.
fn take_run<F>(
    files: &mut BTreeMap<u64, Candidate<F>>,
    leftovers: &mut Vec<(u64, u64)>,
) -> Result<Vec<Member<F>>, Stop> {
    let mut run: Vec<Member<F>> = Vec::new();
    while let Some((id, candidate)) = files.pop_last() {
        let follows = run.last().is_none_or(|(above, _, _)| id + 1 == *above);
        match candidate.header.filter(|_| follows && leftovers.iter().all(|(old, _)| *old > id)) {
            Some(header) => {
                let Candidate { file, capacity, .. } = candidate;
                run.push((id, header, Segment { file, capacity }));
            }
            None if run.is_empty() => {
                return Err(bad(id, 0, "the header of the newest segment does not verify"));
            }
            None => leftovers.push((id, candidate.capacity)),
        }
    }
    run.reverse();
    if run.is_empty() {
        return Err(bad(1, 0, "no segment of the log is there"));
    }
    Ok(run)
}

/// The log up to some record, while it is read.
struct Replay {
    mark: Mark,
    index: Index,
    hard_state: HardState,
    marker: Option<Marker>,
    segment: u64,
    key: Key,
    offset: u64,
    chain: u32,
    sync: u64,
    /// Whether the last record was the last of its sync.
    complete: bool,
    torn: Option<Torn>,
    records: u64,
}

impl Replay {
    /// The state that the oldest segment begins with. What its entries were is not known any more.
    fn begin(header: &SegmentHeader, mark: Mark) -> Self {
        let LogState { trimmed, last_index, hard_state } = header.state;
        let mut index = Index::new(trimmed);
        for _ in trimmed.index..last_index {
            index.push_place(Place::lost());
        }
        Self {
            mark,
            index,
            hard_state,
            marker: None,
            segment: header.segment - 1,
            key: Key::new(header.log_id, header.segment),
            offset: header.prev_end,
            chain: header.prev_crc,
            sync: header.sync,
            complete: true,
            torn: None,
            records: 0,
        }
    }

    fn state(&self) -> LogState {
        LogState {
            trimmed: self.index.trimmed(),
            last_index: self.index.last(),
            hard_state: self.hard_state,
        }
    }

    /// Goes on to the next segment, whose header must speak of exactly what was read so far.
    fn enter(&mut self, id: u64, (header, crc): &(SegmentHeader, u32)) -> Result<(), Stop> {
        let read = (self.segment + 1, self.offset, self.chain, self.state());
        let told = (header.segment, header.prev_end, header.prev_crc, header.state);
        if read != told || header.sync < self.sync {
            let reason = format!("the header follows {told:?}, but what was read is {read:?}");
            return Err(bad(id, 0, reason));
        }
        self.segment = id;
        self.key = Key::new(header.log_id, id);
        self.offset = SECTOR as u64;
        self.chain = *crc;
        self.sync = header.sync;
        self.complete = true;
        Ok(())
    }

    /// Reads records up to the first that fails, or to the end of `bytes`.
    fn walk(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        while let Some(rest) = bytes.get(self.offset as usize..)
            && let Some(header) = Header::parse(rest, self.key)
        {
            let sync = if self.complete { self.sync + 1 } else { self.sync };
            let chained = header.prev == self.chain && header.sync == sync;
            if !chained || !header.verify(rest, self.key) {
                break;
            }
            let place = Place {
                term: 0,
                segment: self.segment as u32,
                offset: self.offset as u32,
                bytes: header.record_bytes() as u32,
            };
            Record::decode(header.kind, header.payload(rest))
                .ok_or_else(|| format!("a record is no {:?}", header.kind))
                .and_then(|record| self.apply(record, place))
                .map_err(|reason| bad(self.segment, self.offset, reason))?;
            self.offset += header.record_bytes() as u64;
            self.chain = header.crc;
            self.sync = sync;
            self.complete = header.last;
            self.records += 1;
            let here = (self.segment, self.offset) == (self.mark.segment, self.mark.offset);
            if here && self.chain != self.mark.chain {
                return Err(bad(self.segment, self.offset, "the mark has another checksum here"));
            }
        }
        Ok(())
    }

    fn apply(&mut self, record: Record<'_>, place: Place) -> Result<(), String> {
        let (trimmed, last) = (self.index.trimmed().index, self.index.last());
        match record {
            Record::Entry(entry) if entry.index == last + 1 => {
                self.index.push_place(Place { term: entry.term, ..place });
            }
            Record::Entry(entry) => {
                return Err(format!("entry {} follows entry {last}", entry.index));
            }
            Record::HardState(hard_state) => self.hard_state = hard_state,
            Record::TruncateFrom(from) if from > trimmed && from <= last => {
                self.index.truncate_from(from);
            }
            Record::TruncateFrom(from) => {
                return Err(format!("a cut from {from} in a log of ({trimmed}, {last}]"));
            }
            Record::TrimmedTo(to) if to.index >= trimmed && to.index <= last => {
                self.index.trim(to);
            }
            Record::TrimmedTo(to) => {
                return Err(format!("a trim to {} in a log of ({trimmed}, {last}]", to.index));
            }
            Record::Installed(at, bytes) => {
                self.index = Index::new(at);
                self.marker = Some(Marker::new(at, bytes, place.segment));
            }
            Record::Carried(at, bytes) => {
                self.marker = Some(Marker::new(at, bytes, place.segment));
            }
        }
        Ok(())
    }

    /// Judges the end of the newest segment, whose bytes these are.
    fn finish(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let finished = if self.complete { self.sync } else { self.sync - 1 };
        let failing = finished + 1;
        if finished < self.mark.sync {
            let reason = format!(
                "a record does not verify; it was durable: the mark has sync {} at byte {} of \
                 segment {}, and sync {finished} is the last whole one here",
                self.mark.sync, self.mark.offset, self.mark.segment
            );
            return Err(bad(self.segment, self.offset, reason));
        }
        let behind = scan(bytes, self.offset as usize, self.key, failing);
        if let Some(newest) = behind.newest.filter(|newest| *newest > failing) {
            let reason = format!(
                "a record of sync {failing} does not verify; it was durable: a whole record of \
                 sync {newest} is behind it"
            );
            return Err(bad(self.segment, self.offset, reason));
        }
        if !self.complete || behind.plausible {
            // The next segment's first sync must not have the number of the torn one.
            self.sync = failing;
            self.torn = Some(Torn { segment: self.segment, offset: self.offset });
        }
        Ok(())
    }
}

/// What stands behind the end of a log.
#[derive(Debug, Default)]
struct Behind {
    /// The newest sync of which there is a whole record.
    newest: Option<u64>,
    /// Whether anything looks like a record of this segment, whole or not.
    plausible: bool,
}

/// Looks for records at every place where one can be, from sync `sync_min` on.
fn scan(bytes: &[u8], from: usize, key: Key, sync_min: u64) -> Behind {
    let mut behind = Behind::default();
    let mut at = from.next_multiple_of(ALIGN);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        let mut step = ALIGN;
        if let Some(header) = Header::parse(rest, key).filter(|header| header.sync >= sync_min) {
            behind.plausible = true;
            if header.verify(rest, key) {
                behind.newest = behind.newest.max(Some(header.sync));
                step = header.record_bytes();
            }
        }
        at += step;
    }
    behind
}
