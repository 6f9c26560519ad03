//! `log.mark`: how far the log was durable, so that a torn tail can be told from damage.
//!
//! Invariants:
//! * The mark is written after the sync it speaks of, so it never promises what the log lacks. It is
//!   synced when the log is opened, and not with each write: after power loss it may be old, which only
//!   weakens what it can detect.
//! * Two slots in different sectors, written in turn: a write that fails half way, which ends the process,
//!   spoils only the one being written, so at least one is good at any time, and none being good is damage.

use std::io;

use super::disk::{Disk, DiskFile};
use super::record::{u32_at, u64_at};

/// The mark's file name.
pub(super) const NAME: &str = "log.mark";
const SLOT_BYTES: usize = 64;
const SLOT_DISTANCE: usize = 512;
const FILE_BYTES: usize = 2 * SLOT_DISTANCE;
const MAGIC: u32 = u32::from_le_bytes(*b"vmrk");

/// A place in the log up to which everything was durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The id of the log, random, the same in all its files.
    pub(super) log_id: u64,
    /// The number of the sync that reached it.
    pub(super) sync: u64,
    /// The segment.
    pub(super) segment: u64,
    /// The end of the last record of that sync, in bytes.
    pub(super) offset: u64,
    /// The checksum of that record.
    pub(super) chain: u32,
}

impl Mark {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[4..8].copy_from_slice(&MAGIC.to_le_bytes());
        slot[8..16].copy_from_slice(&self.log_id.to_le_bytes());
        slot[16..24].copy_from_slice(&self.sync.to_le_bytes());
        slot[24..32].copy_from_slice(&self.segment.to_le_bytes());
        slot[32..40].copy_from_slice(&self.offset.to_le_bytes());
        slot[40..44].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&slot[4..]);
        slot[..4].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let good = u32_at(slot, 4) == MAGIC && u32_at(slot, 0) == crc32c::crc32c(&slot[4..]);
        good.then(|| Self {
            log_id: u64_at(slot, 8),
            sync: u64_at(slot, 16),
            segment: u64_at(slot, 24),
            offset: u64_at(slot, 32),
            chain: u32_at(slot, 40),
        })
    }
}

/// The open mark file.
#[derive(Debug)]
pub(super) struct MarkFile<F> {
    file: F,
    next_slot: usize,
}

impl<F: DiskFile> MarkFile<F> {
    /// Creates the file with one good slot and syncs it, not its name.
    pub(super) fn create<D: Disk<File = F>>(disk: &D, mark: &Mark) -> io::Result<Self> {
        let file = disk.create(NAME)?;
        let mut bytes = [0; FILE_BYTES];
        bytes[..SLOT_BYTES].copy_from_slice(&mark.encode());
        file.write_at(0, &bytes)?;
        file.sync_data()?;
        Ok(Self { file, next_slot: 1 })
    }

    /// Opens the file and reads the newer of its good slots. `None` without file or good slot.
    pub(super) fn open<D: Disk<File = F>>(disk: &D) -> io::Result<Option<(Self, Mark)>> {
        let file = match disk.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // A file cut short still has what is before the cut.
        let mut bytes = [0; FILE_BYTES];
        let there = file.bytes()?.min(FILE_BYTES as u64) as usize;
        file.read_at(0, &mut bytes[..there])?;
        let best = (0..2)
            .filter_map(|slot| {
                let start = slot * SLOT_DISTANCE;
                Some((slot, Mark::decode(&bytes[start..start + SLOT_BYTES])?))
            })
            .max_by_key(|(_, mark)| mark.sync);
        Ok(best.map(|(slot, mark)| (Self { file, next_slot: 1 - slot }, mark)))
    }

    /// Overwrites the older slot. Not synced.
    pub(super) fn write(&mut self, mark: &Mark) -> io::Result<()> {
        self.file.write_at((self.next_slot * SLOT_DISTANCE) as u64, &mark.encode())?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// Makes both slots durable as they are.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
