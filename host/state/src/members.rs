//! Who is in the ensemble: the servers that are to be, each with its id for raft, and those that raft
//! counts at the moment. The leader brings the second in line with the first, one step after the other
//! (`replica/src/membership.rs`).
//!
//! Invariants:
//! * An id for raft is given once, and never again: a server that lost its data gets a new one, so that
//!   nobody counts on what the old one had promised.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The first id for raft that is not a founder's: a server's id, at most 255, plus one.
const FIRST_FREE: u64 = 257;
/// How many ids for raft are left out when one server goes on without the others.
const IDS_LEFT_OUT: u64 = 1 << 20;

/// A server of the ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id for raft.
    pub raft_id: u64,
    /// The random number that it asked to be admitted with; 0 for a founder.
    pub nonce: u64,
    /// Whether it is to vote.
    pub votes: bool,
}

/// A change of those that raft counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfStep {
    /// It votes, by its id for raft.
    Voter(u64),
    /// It gets the log and does not vote.
    Learner(u64),
    /// It is not counted any more.
    Remove(u64),
}

/// The servers of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Members {
    /// Those that are to be, by their ids.
    pub servers: BTreeMap<u32, Member>,
    /// Who votes, by the ids for raft, in order.
    pub voters: Vec<u64>,
    /// Who gets the log and does not vote, by the ids for raft, in order.
    pub learners: Vec<u64>,
    next_raft_id: u64,
}

impl Members {
    /// Those that found an ensemble, by their ids for raft; with nobody among them, a server that has
    /// nothing yet.
    pub fn founders(voters: &[u64]) -> Self {
        let member = |raft_id: &u64| {
            let server = raft_id.saturating_sub(1) as u32;
            (server, Member { raft_id: *raft_id, nonce: 0, votes: true })
        };
        Self {
            servers: voters.iter().map(member).collect(),
            voters: voters.to_vec(),
            learners: Vec::new(),
            next_raft_id: FIRST_FREE,
        }
    }

    /// The same servers, of which only the one with this id for raft has the data, and votes. The others
    /// may come without any; what they had is of no use, nor are the ids that they may have been given
    /// without this one knowing. `None` if nobody has this id.
    pub fn only(&self, raft_id: u64) -> Option<Self> {
        let me = self.server_of(raft_id)?;
        let mut next_raft_id = self.next_raft_id + IDS_LEFT_OUT;
        let mut servers = self.servers.clone();
        for (server, member) in &mut servers {
            if *server == me {
                member.votes = true;
            } else {
                (member.raft_id, member.nonce) = (next_raft_id, 0);
                next_raft_id += 1;
            }
        }
        Some(Self { servers, voters: vec![raft_id], learners: Vec::new(), next_raft_id })
    }

    /// The server with this id for raft.
    pub fn server_of(&self, raft_id: u64) -> Option<u32> {
        self.servers.iter().find(|(_, m)| m.raft_id == raft_id).map(|(server, _)| *server)
    }

    /// A server that lost its data takes part anew; false if it does already, or is not of the
    /// ensemble.
    pub(crate) fn admit(&mut self, server: u32, nonce: u64) -> bool {
        match self.servers.get_mut(&server) {
            Some(member) if member.nonce != nonce => {
                (member.raft_id, member.nonce) = (self.next_raft_id, nonce);
                self.next_raft_id += 1;
                true
            }
            _ => false,
        }
    }

    /// Raft counts others.
    pub(crate) fn change(&mut self, step: ConfStep) {
        let (ConfStep::Voter(id) | ConfStep::Learner(id) | ConfStep::Remove(id)) = step;
        self.voters.retain(|known| *known != id);
        self.learners.retain(|known| *known != id);
        match step {
            ConfStep::Voter(_) => self.voters.push(id),
            ConfStep::Learner(_) => self.learners.push(id),
            ConfStep::Remove(_) => {}
        }
        self.voters.sort_unstable();
        self.learners.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_for_raft_are_given_once() {
        let mut members = Members::founders(&[2, 3, 4]);
        assert!(members.admit(1, 77));
        assert!(!members.admit(1, 77), "it is admitted already");
        assert!(!members.admit(9, 78), "it is not of the ensemble");
        assert!(members.admit(1, 79));
        assert!(members.admit(3, 80));
        let ids: Vec<u64> = members.servers.values().map(|member| member.raft_id).collect();
        assert_eq!(ids, [258, 3, 259]);
        assert_eq!(members.server_of(259), Some(3));
        assert_eq!(members.server_of(2), None);
        assert_eq!(members.voters, [2, 3, 4], "raft counts whom it did");
    }

    #[test]
    fn one_goes_on_and_the_others_come_with_new_ids() {
        let mut members = Members::founders(&[2, 3, 4]);
        assert!(members.admit(2, 77));
        members.change(ConfStep::Remove(3));
        assert_eq!(members.only(3), None, "it has another id by now");
        let mut alone = members.only(257).expect("server 2");
        assert_eq!((&alone.voters[..], alone.server_of(257)), (&[257][..], Some(2)));
        let ids: Vec<u64> = alone.servers.values().map(|member| member.raft_id).collect();
        assert!(ids[0] > 257 + 1000 && ids[2] > ids[0], "{ids:?}");
        assert!(alone.admit(1, 5), "it may come without data");
        assert!(alone.servers[&1].raft_id > ids[2]);
    }

    #[test]
    fn raft_counts_one_more_or_less() {
        let mut members = Members::founders(&[2, 3, 4]);
        members.change(ConfStep::Learner(257));
        members.change(ConfStep::Remove(3));
        assert_eq!((&members.voters[..], &members.learners[..]), (&[2, 4][..], &[257][..]));
        members.change(ConfStep::Voter(257));
        members.change(ConfStep::Learner(2));
        assert_eq!((&members.voters[..], &members.learners[..]), (&[4, 257][..], &[2][..]));
    }
}
