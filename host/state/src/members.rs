//! Who is in the ensemble: the servers that are to be, each with its id for raft, and those that raft
//! counts at the moment. The leader brings the second in line with the first, one step after the other
//! (`replica/src/membership.rs`).
//!
//! Invariants:
//! * An id for raft is given once, and never again: a server that lost its data gets a new one, so that
//!   nobody counts on what the old one had promised.

use std::collections::BTreeMap;
use std::fmt::Write;

use proto::{Role, ServerSpec};
use serde::{Deserialize, Serialize};

/// The first id for raft that is not a founder's: a server's id, at most 255, plus one.
const FIRST_FREE: u64 = 257;
/// How many ids for raft are left out when one server goes on without the others.
const IDS_LEFT_OUT: u64 = 1 << 20;

/// A server of the ensemble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id for raft; 0 for one that was added and has not asked to be let in yet.
    pub raft_id: u64,
    /// The random number that it asked to be admitted with; 0 for a founder.
    pub nonce: u64,
    /// Where it is found, if that is known, and whether it is to vote.
    pub spec: ServerSpec,
}

impl Member {
    /// Whether it is to vote.
    pub fn votes(&self) -> bool {
        self.spec.role == Role::Participant
    }

    /// Whether it is known where it is.
    pub fn is_located(&self) -> bool {
        !self.spec.peer.is_empty()
    }
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
    /// The zxid of the last change of `servers`: the version of what `/zookeeper/config` says.
    pub version: i64,
    next_raft_id: u64,
}

impl Members {
    /// Those that found an ensemble, by their ids for raft; with nobody among them, a server that has
    /// nothing yet.
    pub fn founders(voters: &[u64]) -> Self {
        let member = |raft_id: &u64| {
            let server = raft_id.saturating_sub(1) as u32;
            (server, Member { raft_id: *raft_id, nonce: 0, spec: ServerSpec::default() })
        };
        Self {
            servers: voters.iter().map(member).collect(),
            voters: voters.to_vec(),
            learners: Vec::new(),
            version: 0,
            next_raft_id: FIRST_FREE,
        }
    }

    /// Whether this id for raft is counted.
    pub fn counts(&self, raft_id: u64) -> bool {
        self.voters.contains(&raft_id) || self.learners.contains(&raft_id)
    }

    /// Whether a server, with this id for raft, is one of these, or still counted.
    pub fn knows(&self, server: u32, raft_id: u64) -> bool {
        self.servers.contains_key(&server) || self.counts(raft_id)
    }

    /// The same with further servers, which get their ids for raft when they ask to be let in.
    #[must_use]
    pub fn with_observers(mut self, observers: &[u32]) -> Self {
        let spec = ServerSpec { role: Role::Observer, ..ServerSpec::default() };
        let member = |id: &u32| (*id, Member { raft_id: 0, nonce: 0, spec: spec.clone() });
        self.servers.extend(observers.iter().map(member));
        self
    }

    /// Where each is found, and what it is to be.
    pub(crate) fn specs(&self) -> BTreeMap<u32, ServerSpec> {
        self.servers.iter().map(|(server, member)| (*server, member.spec.clone())).collect()
    }

    /// What `/zookeeper/config` says (`QuorumMaj.toString`); nothing for a server that is alone.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.version == 0 {
            return text;
        }
        for (server, member) in &self.servers {
            writeln!(text, "server.{server}={}", member.spec).expect("text takes any text");
        }
        write!(text, "version={:x}", self.version).expect("text takes any text");
        text
    }

    /// Others are to take part from now on: those that stay keep their ids for raft, and those that
    /// are new get one when they ask to be let in.
    pub(crate) fn reconfigure(&mut self, servers: BTreeMap<u32, ServerSpec>, version: i64) {
        let mut before = std::mem::take(&mut self.servers);
        let member = |(server, spec)| {
            let (raft_id, nonce) =
                before.remove(&server).map_or((0, 0), |known: Member| (known.raft_id, known.nonce));
            (server, Member { raft_id, nonce, spec })
        };
        self.servers = servers.into_iter().map(member).collect();
        self.version = version;
    }

    /// The same servers, of which only the one with this id for raft has the data, and votes. The others
    /// may come without any; what they had is of no use, nor are the ids that they may have been given
    /// without this one knowing. `None` if nobody has this id.
    pub fn only(&self, raft_id: u64) -> Option<Self> {
        let me = self.server_of(raft_id)?;
        let mut alone = Self { voters: vec![raft_id], learners: Vec::new(), ..self.clone() };
        alone.next_raft_id += IDS_LEFT_OUT;
        for (server, member) in &mut alone.servers {
            if *server == me {
                member.spec.role = Role::Participant;
            } else {
                (member.raft_id, member.nonce) = (0, 0);
            }
        }
        Some(alone)
    }

    /// The server with this id for raft.
    pub fn server_of(&self, raft_id: u64) -> Option<u32> {
        let mut servers = self.servers.iter();
        servers.find(|(_, m)| m.raft_id == raft_id && raft_id != 0).map(|(server, _)| *server)
    }

    /// A server without data takes part: it is new, or lost what it had. False if it does already, or
    /// is not of the ensemble.
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
        assert_eq!((alone.servers[&1].raft_id, alone.servers[&3].raft_id), (0, 0));
        assert!(alone.admit(1, 5), "it may come without data");
        assert!(alone.servers[&1].raft_id > 257 + 1000);
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

    #[test]
    fn who_stays_keeps_its_id_for_raft() {
        let spec = |text: &str| text.parse::<ServerSpec>().expect("a server");
        let mut members = Members::founders(&[2, 3]);
        assert_eq!(members.text(), "", "nobody said where they are");
        let servers = [(1, spec("a:1:2;9")), (7, spec("c:1:2:observer;9"))];
        members.reconfigure(servers.into(), 0x10a);
        assert_eq!(
            members.text(),
            "server.1=a:1:2:participant;0.0.0.0:9\nserver.7=c:1:2:observer;0.0.0.0:9\nversion=10a"
        );
        let ids =
            |members: &Members| members.servers.values().map(|m| m.raft_id).collect::<Vec<_>>();
        assert_eq!((ids(&members), members.server_of(0)), (vec![2, 0], None));
        assert!(
            members.admit(7, 77) && members.servers[&1].votes() && !members.servers[&7].votes()
        );
        assert_eq!(ids(&members), [2, 257]);
        // What was removed comes back as another.
        members.reconfigure([(1, spec("a:1:2;9"))].into(), 0x10b);
        members.reconfigure([(1, spec("a:1:2;9")), (7, spec("c:1:2;9"))].into(), 0x10c);
        assert!(members.admit(7, 77));
        assert_eq!(ids(&members), [2, 258]);
    }
}
