//! What raft-rs reads of our log.

use std::cell::RefCell;

use raft::prelude::{ConfState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::messages::{SnapshotAt, to_raft, to_snapshot};
use crate::log::{Disk, HardState, Log, LogError};
use crate::snapshots::Offers;

pub(super) struct LogStorage<D: Disk> {
    pub(super) log: Log<D>,
    /// Whom raft counts when it starts.
    pub(super) conf: ConfState,
    pub(super) offers: RefCell<Offers>,
}

fn read_error(error: LogError) -> raft::Error {
    match error {
        LogError::Compacted { .. } => StorageError::Compacted.into(),
        LogError::Unavailable { .. } => StorageError::Unavailable.into(),
        other => StorageError::Other(Box::new(other)).into(),
    }
}

impl<D: Disk> Storage for LogStorage<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let HardState { term, vote, commit } = self.log.hard_state();
        let mut hard_state = raft::prelude::HardState::default();
        hard_state.set_term(term);
        hard_state.set_vote(vote);
        hard_state.set_commit(commit);
        Ok(RaftState { hard_state, conf_state: self.conf.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        bytes_max: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<raft::prelude::Entry>> {
        let bytes_max = bytes_max.into().unwrap_or(u64::MAX);
        let entries = self.log.entries(low, high, bytes_max).map_err(read_error)?;
        Ok(entries.into_iter().map(to_raft).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.log.term(index).ok_or_else(|| match index < self.log.first_index() {
            true => StorageError::Compacted.into(),
            false => StorageError::Unavailable.into(),
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let first = self.log.first_index().max(request_index + 1);
        let source = self.offers.borrow_mut().offer(to, first);
        let source = source.ok_or(StorageError::SnapshotTemporarilyUnavailable)?;
        Ok(to_snapshot(&SnapshotAt::of(source.meta())))
    }
}
