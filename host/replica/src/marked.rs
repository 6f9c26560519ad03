//! What the log's marker says of what goes with it: which state, of which ensemble, and whom raft counts.
//! With that raft starts though there is no state of use: the log, and this server's vote, stay.
//!
//! Invariants:
//! * Every change of whom raft counts that came after `at` is an entry of the log: the marker is put
//!   before anything behind it is trimmed.

use serde::{Deserialize, Serialize};
use state::Members;
use state::apply::Meta;

use crate::log::{Disk, Log, Position};

/// What the marker says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marked {
    /// The generation of the state: how many others it took the place of.
    pub generation: u64,
    /// The rest, once there is a state.
    pub known: Option<Known>,
}

/// Whom raft counts, of which ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Which ensemble; 0 before its first command.
    pub cluster_id: u64,
    /// As of which entry.
    pub at: u64,
    /// Who votes, by the ids for raft.
    pub voters: Vec<u64>,
    /// Who gets the log and does not vote, by the ids for raft.
    pub learners: Vec<u64>,
}

impl Known {
    /// Those of a state; none where a server waits for its first.
    pub(crate) fn of(meta: &Meta) -> Option<Self> {
        let Members { voters, learners, .. } = &*meta.members;
        (meta.applied > 0).then(|| Self {
            cluster_id: meta.cluster_id,
            at: meta.applied,
            voters: voters.clone(),
            learners: learners.clone(),
        })
    }
}

impl Marked {
    /// What a log's marker says; one without any goes with the first state.
    pub fn of<D: Disk>(log: &Log<D>) -> Self {
        let Some(marker) = log.marker() else { return Self::default() };
        let Some((generation, known)) = marker.bytes.split_first_chunk::<8>() else {
            return Self::default();
        };
        let generation = u64::from_be_bytes(*generation);
        Self { generation, known: rmp_serde::from_slice(known).ok() }
    }

    /// The marker that says it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.generation.to_be_bytes().to_vec();
        if let Some(known) = &self.known {
            bytes.extend(rmp_serde::to_vec(known).expect("numbers can always be encoded"));
        }
        bytes
    }

    /// From where on raft can begin without a state, with those that are counted there; `None` if the log
    /// does not say whom.
    pub(crate) fn beginning<D: Disk>(&self, log: &Log<D>) -> Option<(Position, &Known)> {
        let known = self.known.as_ref()?;
        let index = known.at.max(log.trimmed().index);
        Some((Position { index, term: log.term(index)? }, known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Entry, Options, SimDisk};

    #[test]
    fn what_was_marked_is_read_and_raft_begins_where_the_log_does() {
        let mut log = Log::create(SimDisk::new(), Options::default(), 1, 1).expect("a new log");
        assert_eq!(Marked::of(&log), Marked::default());
        let known = Known { cluster_id: 7, at: 2, voters: vec![2, 258], learners: vec![4] };
        let marked = Marked { generation: 3, known: Some(known) };
        let entry = |index| {
            let (data, context) = Default::default();
            Entry { index, term: 5, kind: 0, data, context }
        };
        log.append(&(2..9).map(entry).collect::<Vec<_>>());
        log.set_marker(Position { index: 2, term: 5 }, &marked.encode());
        assert_eq!(Marked::of(&log), marked);
        let begins = |log: &Log<SimDisk>| marked.beginning(log).map(|(at, _)| at.index);
        assert_eq!(begins(&log), Some(2));
        log.trim(6).expect("it is there");
        assert_eq!(begins(&log), Some(6));
        // Of a log from before there was more.
        log.set_marker(Position { index: 6, term: 5 }, &4_u64.to_be_bytes());
        assert_eq!(Marked::of(&log), Marked { generation: 4, known: None });
    }
}
