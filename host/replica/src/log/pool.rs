//! Files for the segments to come: spare ones, allocated and written over once.
//!
//! A sync of a file whose blocks exist carries no metadata, which halves its cost. So a segment's
//! file is filled with zeros before its first use, a step after each sync while the segment in use
//! fills up, and what trimming frees is used again.
//!
//! Invariants:
//! * A `.spare` file has exactly the length of a segment and all its blocks written and synced.
//! * A spare's content means nothing: the header of its next use ends its earlier life, and is durable before it is renamed.

use std::collections::VecDeque;

use super::disk::{Disk, DiskFile};
use super::error::Broken;
use super::segment::{Segment, name, parse_spare_name, spare_name};

/// A file that is being filled with zeros.
const FILLING: &str = "filling.tmp";
/// Zeros written at once to a file that is being filled: a few milliseconds of stall.
const STEP_BYTES: u64 = 1 << 20;

/// The spare files of a log.
#[derive(Debug)]
pub(super) struct Pool<F> {
    segment_bytes: u64,
    recycle_max: usize,
    spares: VecDeque<u64>,
    next_spare: u64,
    filling: Option<(F, u64)>,
}

/// A file for a segment.
pub(super) struct Taken<F> {
    pub(super) file: F,
    /// Its length.
    bytes: u64,
    /// The name that it has, if it has not the segment's: a new one has, and holds no older header.
    from: Option<String>,
}

impl<F: DiskFile> Pool<F> {
    pub(super) fn new(segment_bytes: u64, recycle_max: usize) -> Self {
        Self { segment_bytes, recycle_max, spares: VecDeque::new(), next_spare: 1, filling: None }
    }

    /// How many spare files there are.
    pub(super) fn spares(&self) -> usize {
        self.spares.len()
    }

    /// Takes over the spare files found at open, and removes those of no use.
    pub(super) fn adopt<D>(&mut self, disk: &D, names: &[String]) -> Result<(), Broken>
    where
        D: Disk<File = F>,
    {
        for found in names {
            if found == FILLING {
                disk.remove(found).map_err(Broken::io(format!("removing {found}")))?;
                continue;
            }
            let Some(number) = parse_spare_name(found) else { continue };
            self.next_spare = self.next_spare.max(number + 1);
            let fits = disk
                .open(found)
                .and_then(|file| file.bytes())
                .map_err(Broken::io(format!("opening {found}")))?
                == self.segment_bytes;
            if fits && self.spares.len() < self.recycle_max {
                self.spares.push_back(number);
            } else {
                disk.remove(found).map_err(Broken::io(format!("removing {found}")))?;
            }
        }
        Ok(())
    }

    /// Gives up a segment's file: it becomes a spare one, or is removed.
    pub(super) fn release<D>(&mut self, disk: &D, segment: u64, bytes: u64) -> Result<(), Broken>
    where
        D: Disk<File = F>,
    {
        let from = name(segment);
        if bytes == self.segment_bytes && self.spares.len() < self.recycle_max {
            let number = self.next_spare;
            let to = spare_name(number);
            disk.rename(&from, &to).map_err(Broken::io(format!("renaming {from} to {to}")))?;
            self.next_spare += 1;
            self.spares.push_back(number);
            Ok(())
        } else {
            disk.remove(&from).map_err(Broken::io(format!("removing {from}")))
        }
    }

    /// Provides a file of at least `bytes` for `segment`, and its length. The caller fills its header and
    /// makes that durable; then [`Self::name`] gives it its name.
    pub(super) fn take<D>(&mut self, disk: &D, segment: u64, bytes: u64) -> Result<Taken<F>, Broken>
    where
        D: Disk<File = F>,
    {
        if bytes > self.segment_bytes {
            let to = name(segment);
            // One write will fill nearly all of it: zeros before that would only double the work.
            let file = disk.create(&to).map_err(Broken::io(format!("creating {to}")))?;
            file.preallocate(bytes).map_err(Broken::io(format!("allocating {to}")))?;
            return Ok(Taken { file, bytes, from: None });
        }
        if self.spares.is_empty() {
            self.fill(disk, self.segment_bytes)?;
        }
        let from = spare_name(self.spares.pop_front().expect("a spare file was just filled"));
        let file = disk.open(&from).map_err(Broken::io(format!("opening {from}")))?;
        Ok(Taken { file, bytes: self.segment_bytes, from: Some(from) })
    }

    /// Gives the file taken for `segment` its name, which is not synced yet.
    pub(super) fn name<D>(disk: &D, segment: u64, taken: Taken<F>) -> Result<Segment<F>, Broken>
    where
        D: Disk<File = F>,
    {
        let Taken { file, bytes, from } = taken;
        if let Some(from) = from {
            let to = name(segment);
            disk.rename(&from, &to).map_err(Broken::io(format!("renaming {from} to {to}")))?;
        }
        Ok(Segment { file, capacity: bytes })
    }

    /// After a sync: prepares the next file in step with the use of the current one, so that it is
    /// ready when that is full and no sync waits for all of it.
    pub(super) fn prepare<D>(&mut self, disk: &D, used: u64, capacity: u64) -> Result<(), Broken>
    where
        D: Disk<File = F>,
    {
        let half = capacity / 2;
        if !self.spares.is_empty() || used <= half {
            return Ok(());
        }
        let share = u128::from(used - half) * u128::from(self.segment_bytes) / u128::from(half);
        let target = u64::try_from(share).unwrap_or(u64::MAX).next_multiple_of(STEP_BYTES);
        self.fill(disk, target.min(self.segment_bytes))
    }

    /// Fills the file in preparation with zeros up to `target`; a complete one becomes a spare.
    fn fill<D>(&mut self, disk: &D, target: u64) -> Result<(), Broken>
    where
        D: Disk<File = F>,
    {
        if self.filling.is_none() {
            let file = disk.create(FILLING).map_err(Broken::io("creating a segment's file"))?;
            // All the space at once: it is contiguous, and a lack of it shows now.
            file.preallocate(self.segment_bytes)
                .map_err(Broken::io("allocating a segment's file"))?;
            self.filling = Some((file, 0));
        }
        let Some((file, filled)) = &mut self.filling else { return Ok(()) };
        let mut filled_now = false;
        while *filled < target {
            let zeros = vec![0; STEP_BYTES.min(self.segment_bytes - *filled) as usize];
            file.write_at(*filled, &zeros).map_err(Broken::io("filling a segment's file"))?;
            *filled += zeros.len() as u64;
            filled_now = true;
        }
        if filled_now {
            file.sync_data().map_err(Broken::io("syncing a segment's file"))?;
        }
        if *filled == self.segment_bytes {
            let number = self.next_spare;
            let to = spare_name(number);
            disk.rename(FILLING, &to).map_err(Broken::io(format!("naming {to}")))?;
            self.next_spare += 1;
            self.filling = None;
            self.spares.push_back(number);
        }
        Ok(())
    }
}
