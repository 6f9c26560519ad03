//! How a server stands, for those who watch over it.

use super::Node;
use crate::log::Disk;

/// How a server stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// Its id for raft.
    pub raft_id: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Who leads, by the id for raft, 0 if nobody is known to.
    pub leader: u64,
    /// The term.
    pub term: u64,
    /// For how long no leader has been heard of, in milliseconds.
    pub silent_ms: i64,
    /// The first and the last entry of its log.
    pub log: (u64, u64),
    /// How long its log is, in bytes.
    pub log_bytes: u64,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The last entry of which all is in its store, durably.
    pub durable: u64,
    /// Whether its state is in quarantine.
    pub is_quarantined: bool,
    /// Whether what is to be applied next is for a newer program.
    pub waits_for_newer: bool,
    /// Whether servers have different states, and nobody has a majority: nothing is proposed.
    pub is_in_doubt: bool,
    /// Whether the ensemble goes on without it.
    pub is_removed: bool,
    /// How many of this server's commands are neither applied nor refused.
    pub in_hand: u64,
    /// Those whom raft counts, this server included, by their ids for raft.
    pub peers: Vec<PeerStatus>,
}

/// What a server knows of one that raft counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its id for raft.
    pub raft_id: u64,
    /// Whether there is a link to it.
    pub is_linked: bool,
    /// The last entry that it has in its log, as far as the leader knows; `None` if this server does not
    /// lead.
    pub matched: Option<u64>,
    /// The newest apply version that it knows, if it said so.
    pub knows: Option<u32>,
}

impl<D: Disk> Node<D> {
    /// How this server stands.
    pub fn status(&self) -> NodeStatus {
        let (me, leads, log) = (self.config.raft_id, self.leads(), self.raft.log());
        let last = self.raft.last_index();
        let peer = |(raft_id, matched): (u64, u64)| {
            let is_me = raft_id == me;
            PeerStatus {
                raft_id,
                is_linked: is_me || self.linked.contains(&raft_id),
                matched: if is_me { Some(last) } else { leads.then_some(matched) },
                knows: match is_me {
                    true => Some(self.config.knows),
                    false => self.knows.get(&raft_id).copied(),
                },
            }
        };
        let mut peers: Vec<_> = self.raft.matched().into_iter().map(peer).collect();
        peers.sort_by_key(|peer| peer.raft_id);
        let (leader, term) = self.leader();
        NodeStatus {
            raft_id: me,
            leads,
            leader,
            term,
            silent_ms: self.reach().silent_ms,
            log: (log.first_index(), last),
            log_bytes: log.bytes(),
            committed: self.committed,
            applied: self.applied,
            durable: self.durable,
            is_quarantined: self.is_quarantined(),
            waits_for_newer: self.health.waits,
            is_in_doubt: self.is_in_doubt(),
            is_removed: self.is_removed(),
            in_hand: self.queue.len() as u64 + self.proposals.commands(),
            peers,
        }
    }

    /// The last entry of its log, and the last that it knows to be committed.
    pub fn last_and_committed(&self) -> (u64, u64) {
        (self.raft.last_index(), self.committed)
    }
}
