//! Records: what a segment is filled with, as bytes.
//!
//! ```text
//!  0 crc   u32   crc32c of all that follows, padding too, seeded by the segment's key
//!  4 prev  u32   crc of the record before it, or of the segment's header
//!  8 bytes u32   length of the payload, without padding
//! 12 kind  u8
//! 13 flags u8    1: the last record of its sync
//! 14 tag   u16   from the segment's key
//! 16 sync  u64   number of the sync that made it durable
//! 24 payload, padded with zeros to a multiple of 8
//! ```
//!
//! Invariants:
//! * `prev` is covered by `crc`, so the records of a segment form a chain. It is stored as well, so
//!   that one record can be verified without its predecessor: for reading one entry back, and for
//!   finding what is behind a bad one.
//! * The key depends on the log's random id and the segment's id, neither ever used twice, so that
//!   nothing an earlier life left in a recycled file passes, nor anything a client could craft.
//! * `sync` rises by one per sync. All records of a sync are one write, and it begins after the one
//!   before it was durable: a whole record of a later sync proves that an earlier one was durable.

use bytes::Bytes;

use super::{Entry, HardState, Position};

/// Bytes before a record's payload.
pub(super) const HEADER_BYTES: usize = 24;
/// Bytes of an entry's payload before its data.
const ENTRY_BYTES: usize = 24;
/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Flag: the last record of its sync.
const LAST: u8 = 1;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry, following the last one.
    Entry = 1,
    /// Term, vote and commit.
    HardState = 2,
    /// Entries from this index on are void.
    TruncateFrom = 3,
    /// Entries up to this index are no longer needed.
    TrimmedTo = 4,
    /// A snapshot replaced the log; it restarts after the snapshot's index.
    Installed = 5,
    /// The marker, repeated so that its segment can go, or another one that leaves the entries.
    Carried = 6,
}

impl Kind {
    fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Entry,
            2 => Self::HardState,
            3 => Self::TruncateFrom,
            4 => Self::TrimmedTo,
            5 => Self::Installed,
            6 => Self::Carried,
            _ => return None,
        })
    }
}

/// What makes a segment's checksums its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    seed: u32,
}

impl Key {
    pub(super) fn new(log_id: u64, segment: u64) -> Self {
        let seed = crc32c::crc32c(&log_id.to_le_bytes());
        Self { seed: crc32c::crc32c_append(seed, &segment.to_le_bytes()) }
    }

    fn tag(self) -> u16 {
        ((self.seed >> 16) ^ self.seed) as u16
    }
}

/// A record's first bytes, plausible but not verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) crc: u32,
    pub(super) prev: u32,
    pub(super) kind: Kind,
    /// Whether it is the last record of its sync.
    pub(super) last: bool,
    pub(super) sync: u64,
    payload_bytes: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`, if it can be one of the segment with `key` and its
    /// record ends within `bytes`.
    pub(super) fn parse(bytes: &[u8], key: Key) -> Option<Self> {
        let head = bytes.get(..HEADER_BYTES)?;
        let payload_bytes = u32_at(head, 8) as usize;
        let header = Self {
            crc: u32_at(head, 0),
            prev: u32_at(head, 4),
            kind: Kind::from_u8(head[12])?,
            last: head[13] == LAST,
            sync: u64_at(head, 16),
            payload_bytes,
        };
        let fits = header.record_bytes() <= bytes.len();
        let own = head[13] <= LAST && head[14..16] == key.tag().to_le_bytes();
        (fits && own).then_some(header)
    }

    /// The record's length with header and padding.
    pub(super) fn record_bytes(&self) -> usize {
        (HEADER_BYTES + self.payload_bytes).next_multiple_of(ALIGN)
    }

    /// Whether the checksum of the record, which begins at the start of `bytes`, is right.
    pub(super) fn verify(&self, bytes: &[u8], key: Key) -> bool {
        crc32c::crc32c_append(key.seed, &bytes[4..self.record_bytes()]) == self.crc
    }

    /// The record's payload; `bytes` begins with the record.
    pub(super) fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[HEADER_BYTES..HEADER_BYTES + self.payload_bytes]
    }
}

/// A record's content, borrowed from its bytes.
#[derive(Debug)]
pub(super) enum Record<'a> {
    Entry(EntryRef<'a>),
    HardState(HardState),
    TruncateFrom(u64),
    TrimmedTo(Position),
    Installed(Position, &'a [u8]),
    Carried(Position, &'a [u8]),
}

/// An entry, borrowed from its record.
#[derive(Debug)]
pub(super) struct EntryRef<'a> {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) kind: u8,
    data: &'a [u8],
    context: &'a [u8],
}

impl EntryRef<'_> {
    /// The entry, sharing `buffer`, which this was decoded from.
    pub(super) fn share(&self, buffer: &Bytes) -> Entry {
        Entry {
            index: self.index,
            term: self.term,
            kind: self.kind,
            data: buffer.slice_ref(self.data),
            context: buffer.slice_ref(self.context),
        }
    }
}

impl<'a> Record<'a> {
    /// Reads a payload; `None` if it is not one of that kind.
    pub(super) fn decode(kind: Kind, payload: &'a [u8]) -> Option<Self> {
        let position = |bytes: &[u8]| Position { index: u64_at(bytes, 0), term: u64_at(bytes, 8) };
        Some(match kind {
            Kind::Entry => {
                let (head, rest) = payload.split_at_checked(ENTRY_BYTES)?;
                let data_bytes = rest.len().checked_sub(u32_at(head, 20) as usize)?;
                let (data, context) = rest.split_at(data_bytes);
                let (index, term) = (u64_at(head, 0), u64_at(head, 8));
                Self::Entry(EntryRef { index, term, kind: head[16], data, context })
            }
            Kind::HardState if payload.len() == 24 => Self::HardState(HardState {
                term: u64_at(payload, 0),
                vote: u64_at(payload, 8),
                commit: u64_at(payload, 16),
            }),
            Kind::TruncateFrom if payload.len() == 8 => Self::TruncateFrom(u64_at(payload, 0)),
            Kind::TrimmedTo if payload.len() == 16 => Self::TrimmedTo(position(payload)),
            Kind::Installed | Kind::Carried => {
                let (head, marker) = payload.split_at_checked(16)?;
                match kind {
                    Kind::Installed => Self::Installed(position(head), marker),
                    _ => Self::Carried(position(head), marker),
                }
            }
            Kind::HardState | Kind::TruncateFrom | Kind::TrimmedTo => return None,
        })
    }
}

/// Records gathered for one sync. Checksums come last, when the segment is known.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    last_start: usize,
}

impl Batch {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Empties the batch, keeping its memory unless it grew beyond the ordinary.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BATCH_BYTES_KEPT);
        self.last_start = 0;
    }

    /// Adds an entry and returns where its record begins and its length, in bytes.
    ///
    /// # Panics
    /// If the entry is longer than a record can be (4 GiB).
    pub(super) fn entry(&mut self, entry: &Entry) -> (usize, usize) {
        let mut head = [0; ENTRY_BYTES];
        head[..8].copy_from_slice(&entry.index.to_le_bytes());
        head[8..16].copy_from_slice(&entry.term.to_le_bytes());
        head[16] = entry.kind;
        let context_bytes = u32::try_from(entry.context.len()).expect("a context under 4 GiB");
        head[20..].copy_from_slice(&context_bytes.to_le_bytes());
        self.push(Kind::Entry, &[&head, &entry.data, &entry.context])
    }

    pub(super) fn hard_state(&mut self, state: HardState) {
        let words = [state.term, state.vote, state.commit].map(u64::to_le_bytes);
        self.push(Kind::HardState, &[words.as_flattened()]);
    }

    pub(super) fn truncate_from(&mut self, index: u64) {
        self.push(Kind::TruncateFrom, &[&index.to_le_bytes()]);
    }

    pub(super) fn trimmed_to(&mut self, at: Position) {
        self.push(Kind::TrimmedTo, &[[at.index, at.term].map(u64::to_le_bytes).as_flattened()]);
    }

    /// Adds a marker, one that restarts the log (`Installed`) or one that does not (`Carried`).
    pub(super) fn marker(&mut self, kind: Kind, at: Position, marker: &[u8]) {
        let words = [at.index, at.term].map(u64::to_le_bytes);
        self.push(kind, &[words.as_flattened(), marker]);
    }

    /// Puts the records of `other` behind the ones here.
    pub(super) fn append(&mut self, other: &Self) {
        self.last_start = self.bytes.len() + other.last_start;
        self.bytes.extend_from_slice(&other.bytes);
    }

    fn push(&mut self, kind: Kind, parts: &[&[u8]]) -> (usize, usize) {
        let start = self.bytes.len();
        let payload_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let stored = u32::try_from(payload_bytes).expect("a payload under 4 GiB");
        let record_bytes = (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN);
        self.bytes.reserve(record_bytes);
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&stored.to_le_bytes());
        self.bytes.extend_from_slice(&[kind as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.resize(start + record_bytes, 0);
        self.last_start = start;
        (start, record_bytes)
    }

    /// Fills in tag, sync number and the chain of checksums, and returns the last one.
    pub(super) fn seal(&mut self, key: Key, mut prev: u32, sync: u64) -> u32 {
        let mut start = 0;
        while start < self.bytes.len() {
            let payload_bytes = u32_at(&self.bytes, start + 8) as usize;
            let end = start + (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN);
            let record = &mut self.bytes[start..end];
            record[4..8].copy_from_slice(&prev.to_le_bytes());
            record[13] = if start == self.last_start { LAST } else { 0 };
            record[14..16].copy_from_slice(&key.tag().to_le_bytes());
            record[16..24].copy_from_slice(&sync.to_le_bytes());
            prev = crc32c::crc32c_append(key.seed, &record[4..]);
            record[..4].copy_from_slice(&prev.to_le_bytes());
            start = end;
        }
        prev
    }
}

/// A batch that grew beyond this gives the memory back.
const BATCH_BYTES_KEPT: usize = 4 << 20;

/// The little-endian number at `at`.
///
/// # Panics
/// If `bytes` is too short: callers checked the length.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian number at `at`.
///
/// # Panics
/// If `bytes` is too short: callers checked the length.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
