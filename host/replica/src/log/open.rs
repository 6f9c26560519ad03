//! How a log begins: created, or opened.
//!
//! Invariants:
//! * Creation is all or nothing: the segment, which makes a log of the directory, gets its name last.
//! * What [`Log::open`] returns is durable: what was read back, which may have been in memory only,
//!   is written and synced again before anything is built on it.

use std::collections::BTreeMap;

use tracing::warn;

use super::disk::{Disk, DiskFile as _};
use super::error::{Broken, LogError};
use super::index::{Index, Place};
use super::mark::{self, Mark, MarkFile};
use super::pool::Pool;
use super::record::Batch;
use super::segment::{self, LogState};
use super::{HardState, Log, Options, Position, Recovered, Torn, recovery, what};

impl<D: Disk> Log<D> {
    /// Opens the log in `disk`, verifying every record.
    ///
    /// A torn tail is cut. What is then there is made durable before this returns.
    ///
    /// # Errors
    /// [`LogError::Missing`] if there is none, [`LogError::NewerVersion`] (nothing is touched),
    /// [`LogError::Damaged`] (nothing is touched; the server must not vote with it), and
    /// [`LogError::Io`].
    pub fn open(disk: D, options: Options) -> Result<(Self, Recovered), LogError> {
        options.check();
        let names = disk.list().map_err(LogError::io("listing the log's directory"))?;
        let found = recovery::recover(&disk, &names)?;
        let mut pool = Pool::new(options.segment_bytes, options.recycle_max);
        pool.adopt(&disk, &names)?;
        for (segment, bytes) in &found.leftovers {
            pool.release(&disk, *segment, *bytes)?;
        }
        let recovered = Recovered {
            log_id: found.log_id,
            records: found.records,
            segments: found.segments.len(),
            torn: found.torn,
            leftovers: found.leftovers.len(),
        };
        let written = LogState {
            trimmed: found.index.trimmed(),
            last_index: found.index.last(),
            hard_state: found.hard_state,
        };
        let mut log = Self {
            disk,
            options,
            log_id: found.log_id,
            pool,
            segments: found.segments,
            mark: found.mark_file,
            end: found.end,
            chain: found.chain,
            sync: found.sync,
            pending_from: written.last_index + 1,
            index: found.index,
            hard_state: found.hard_state,
            marker: found.marker,
            written,
            batch: Batch::default(),
            drop_pending: true,
            broken: None,
            around_sync: None,
            mutant: None,
        };
        log.harden(&found.mark)?;
        if let Some(Torn { segment, offset }) = found.torn {
            warn!(segment, offset, "the log had a torn tail, as after a crash; it was cut");
            // The torn bytes stay in the old segment, behind the end that the new one states.
            log.rotate(0)?;
            // Every segment repeats the marker, so that the ones before it can go.
            if log.carry_marker() > 0
                && let Some(marker) = &mut log.marker
            {
                marker.segment = Place::PENDING;
            }
        }
        log.write_mark()?;
        // A slot that an earlier life wrote half must be over, or this one may spoil the other.
        log.mark.sync().map_err(Broken::io(format!("syncing {}", mark::NAME)))?;
        // What is trimmed had been committed, also where a crash fell between the two records.
        log.raise_commit(log.index.trimmed().index);
        Ok((log, recovered))
    }

    /// Creates a log that begins after `(index, term)`, with that term and commit and no vote, and
    /// makes it durable.
    ///
    /// A crash before this returns leaves no log ([`LogError::Missing`]) or a whole one.
    ///
    /// # Errors
    /// [`LogError::Exists`] if there is a log, and [`LogError::Io`].
    pub fn create(disk: D, options: Options, index: u64, term: u64) -> Result<Self, LogError> {
        let after = Position { index, term };
        options.check();
        let names = disk.list().map_err(LogError::io("listing the log's directory"))?;
        let unborn = || names.iter().filter(|name| segment::parse_name(name).is_some());
        if let Some(found) = unborn().next() {
            // A crash while a log was created may have left a file that is not a log yet.
            match recovery::recover(&disk, &names) {
                Err(LogError::Missing) => {}
                Ok(_) | Err(LogError::Damaged(_) | LogError::Exists { .. }) => {
                    return Err(LogError::Exists { found: found.clone() });
                }
                Err(error) => return Err(error),
            }
        }
        for name in unborn() {
            disk.remove(name).map_err(LogError::io(format!("removing {name}")))?;
        }
        disk.sync_dir().map_err(LogError::io("syncing the log's directory"))?;
        let log_id = disk.random().map_err(LogError::io("reading random bytes"))?;
        let hard_state = HardState { term: after.term, vote: 0, commit: after.index };
        let written = LogState { trimmed: after, last_index: after.index, hard_state };
        // The mark comes first, and the segment gets its name last, when both are durable: a log
        // without a good mark would be a damaged one.
        let mark = Mark { log_id, ..Mark::default() };
        let mark = MarkFile::create(&disk, &mark)
            .map_err(LogError::io(format!("writing {}", mark::NAME)))?;
        disk.sync_dir().map_err(LogError::io("syncing the log's directory"))?;
        let mut pool = Pool::new(options.segment_bytes, options.recycle_max);
        pool.adopt(&disk, &names)?;
        let mut log = Self {
            disk,
            options,
            log_id,
            pool,
            segments: BTreeMap::new(),
            mark,
            end: 0,
            chain: 0,
            sync: 0,
            index: Index::new(after),
            hard_state,
            marker: None,
            written,
            batch: Batch::default(),
            pending_from: after.index + 1,
            drop_pending: false,
            broken: None,
            around_sync: None,
            mutant: None,
        };
        log.rotate(0)?;
        log.write_mark()?;
        Ok(log)
    }

    /// At open: makes durable what was read. It may be in memory only, even where the system calls it
    /// clean, if an earlier process ended on a failed sync; so it is written again first.
    fn harden(&mut self, mark: &Mark) -> Result<(), Broken> {
        let (id, segment) = self.active();
        let from = if mark.segment == id { mark.offset.min(self.end) } else { 0 };
        let mut bytes = vec![0; (self.end - from) as usize];
        segment.file.read_at(from, &mut bytes).map_err(Broken::io(what("reading", id)))?;
        segment.file.write_at(from, &bytes).map_err(Broken::io(what("writing", id)))?;
        segment.file.sync_data().map_err(Broken::io(what("syncing", id)))?;
        self.disk.sync_dir().map_err(Broken::io("syncing the log's directory"))
    }
}
