//! A segment: a file of records behind one header sector, and the names of such files.
//!
//! The header is durable before the file has its name, and the name before the first record is
//! written. It says where and with which checksum the segment before it ends (so what a cut left
//! behind that place is never read again), and the log's state at that moment (so that any older
//! segment can go).
//!
//! Invariants:
//! * A header is one sector: it is there whole, or not at all.
//! * Magic, version and checksum stay at their places in every version of the format, so that a newer
//!   one is recognised and refused.
//! * Ids begin at 1, rise by one, and are never reused for records.

use super::record::{u32_at, u64_at};
use super::{HardState, Position};

/// Bytes of a segment's header: one sector, the unit a disk writes whole.
pub(super) const SECTOR: usize = 512;
/// The format written, and the newest one read.
pub(super) const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"vivarlog";
const SUFFIX: &str = ".segment";
const SPARE_SUFFIX: &str = ".spare";

/// The state of the log at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogState {
    /// Entries up to here are no longer needed.
    pub(super) trimmed: Position,
    /// The last entry's index.
    pub(super) last_index: u64,
    /// Term, vote and commit.
    pub(super) hard_state: HardState,
}

/// What a segment's first sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The log's id, the same in all its segments.
    pub(super) log_id: u64,
    /// The segment's id.
    pub(super) segment: u64,
    /// The number of the last sync before this segment; its first one is the next.
    pub(super) sync: u64,
    /// Where the segment before it ends, in bytes; 0 in the log's first segment.
    pub(super) prev_end: u64,
    /// The checksum of the last record before it.
    pub(super) prev_crc: u32,
    /// The log's state at the beginning of the segment.
    pub(super) state: LogState,
}

/// Why a first sector is not a header of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// Not a header, or a torn or damaged one.
    Invalid,
    /// A good header of a newer version.
    Newer(u32),
}

impl SegmentHeader {
    /// The sector, and its checksum, from which the chain of records starts.
    pub(super) fn encode(&self) -> ([u8; SECTOR], u32) {
        let mut sector = [0; SECTOR];
        sector[..8].copy_from_slice(MAGIC);
        sector[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let words = [self.log_id, self.segment, self.sync, self.prev_end].map(u64::to_le_bytes);
        sector[16..48].copy_from_slice(words.as_flattened());
        sector[48..52].copy_from_slice(&self.prev_crc.to_le_bytes());
        let LogState { trimmed, last_index, hard_state } = self.state;
        let HardState { term, vote, commit } = hard_state;
        let words = [trimmed.index, trimmed.term, last_index, term, vote, commit];
        sector[56..104].copy_from_slice(words.map(u64::to_le_bytes).as_flattened());
        let crc = checksum(&sector);
        sector[12..16].copy_from_slice(&crc.to_le_bytes());
        (sector, crc)
    }

    /// Reads a sector; with the header comes its checksum.
    pub(super) fn decode(sector: &[u8]) -> Result<(Self, u32), HeaderError> {
        let sector = sector.get(..SECTOR).ok_or(HeaderError::Invalid)?;
        let crc = u32_at(sector, 12);
        if sector[..8] != *MAGIC || checksum(sector) != crc {
            return Err(HeaderError::Invalid);
        }
        match u32_at(sector, 8) {
            VERSION => {}
            0 => return Err(HeaderError::Invalid),
            newer => return Err(HeaderError::Newer(newer)),
        }
        let header = Self {
            log_id: u64_at(sector, 16),
            segment: u64_at(sector, 24),
            sync: u64_at(sector, 32),
            prev_end: u64_at(sector, 40),
            prev_crc: u32_at(sector, 48),
            state: LogState {
                trimmed: Position { index: u64_at(sector, 56), term: u64_at(sector, 64) },
                last_index: u64_at(sector, 72),
                hard_state: HardState {
                    term: u64_at(sector, 80),
                    vote: u64_at(sector, 88),
                    commit: u64_at(sector, 96),
                },
            },
        };
        Ok((header, crc))
    }
}

/// Covers the whole sector but the checksum itself.
fn checksum(sector: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sector[..12]), &sector[16..])
}

/// A segment that is part of the log.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) file: F,
    /// The file's length in bytes.
    pub(super) capacity: u64,
}

/// The file name of a segment.
pub(super) fn name(segment: u64) -> String {
    format!("{segment:010}{SUFFIX}")
}

/// The segment with that file name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    parse(name, SUFFIX).filter(|segment| *segment > 0)
}

/// The file name of a spare file.
pub(super) fn spare_name(number: u64) -> String {
    format!("{number:010}{SPARE_SUFFIX}")
}

/// The number of the spare file with that name.
pub(super) fn parse_spare_name(name: &str) -> Option<u64> {
    parse(name, SPARE_SUFFIX)
}

fn parse(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let plain = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}
