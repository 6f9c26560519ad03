//! The servers of an ensemble as operators are shown them: what each is to be, and what it is by now.

use proto::{ErrorCode, Role};
use serde::{Deserialize, Serialize};
use state::{Member, Members};

/// A server, as an operator is shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub id: u32,
    /// Where it is found and what it is to be, as `/zookeeper/config` writes it.
    pub spec: String,
    /// What it is by now.
    pub part: Standing,
}

/// What a server is by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It votes.
    Votes,
    /// It has the data, and does not vote.
    Observes,
    /// It is to vote once it has the data.
    CatchesUp,
    /// It votes still, and soon will not.
    StillVotes,
    /// It is let in once it asks: it has not been started yet, or cannot reach the others.
    NotThereYet,
}

impl Standing {
    fn of(member: &Member, members: &Members) -> Self {
        let votes = members.voters.contains(&member.raft_id);
        let follows = members.learners.contains(&member.raft_id);
        match (votes, follows, member.votes()) {
            (true, _, true) => Self::Votes,
            (true, _, false) => Self::StillVotes,
            (false, true, true) => Self::CatchesUp,
            (false, true, false) => Self::Observes,
            (false, false, _) => Self::NotThereYet,
        }
    }

    /// Whether it is what it is to be.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Votes | Self::Observes)
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Votes => "votes",
            Self::Observes => "observes",
            Self::CatchesUp => "catches up, to vote then",
            Self::StillVotes => "votes still, to observe soon",
            Self::NotThereYet => "has not come yet: start it with an empty data directory",
        }
    }
}

/// All servers, in the order of their ids.
pub fn list(members: &Members) -> Vec<Listed> {
    let listed = |(id, member): (&u32, &Member)| Listed {
        id: *id,
        spec: if member.is_located() { member.spec.to_string() } else { role(member) },
        part: Standing::of(member, members),
    };
    members.servers.iter().map(listed).collect()
}

/// How many servers that were removed raft still counts.
pub(crate) fn leaving(members: &Members) -> usize {
    let counted = members.voters.iter().chain(&members.learners);
    counted.filter(|id| members.server_of(**id).is_none()).count()
}

fn role(member: &Member) -> String {
    match member.spec.role {
        Role::Participant => "participant".to_owned(),
        Role::Observer => "observer".to_owned(),
    }
}

/// Why `reconfig` refuses, for an operator.
pub(crate) fn why(code: ErrorCode) -> String {
    match code {
        ErrorCode::BadVersion => {
            "the servers were changed by somebody else meanwhile: look at them, and ask again"
        }
        ErrorCode::BadArguments => {
            "expected ids within 0 to 254, at least one server that votes, addresses that no other \
             server has, and of each new server those for servers and for clients"
        }
        ErrorCode::NewConfigNoQuorum => {
            "of the servers that would vote, no majority can be reached: start them first (new ones \
             with empty data directories), and let them reach this ensemble"
        }
        other => return format!("the change was refused: {}", other.name()),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_standing() {
        let mut members = Members::founders(&[2, 3]).with_observers(&[7]);
        let standings = |members: &Members| -> Vec<Standing> {
            list(members).into_iter().map(|listed| listed.part).collect()
        };
        use Standing::{CatchesUp, NotThereYet, Observes, StillVotes, Votes};
        assert_eq!(standings(&members), [Votes, Votes, NotThereYet]);
        for (id, raft_id, role) in [(7, 257, Role::Observer), (2, 3, Role::Observer)] {
            let member = members.servers.get_mut(&id).expect("a member");
            (member.raft_id, member.spec.role) = (raft_id, role);
        }
        members.learners = vec![257];
        assert_eq!(standings(&members), [Votes, StillVotes, Observes]);
        members.servers.get_mut(&7).expect("a member").spec.role = Role::Participant;
        assert_eq!(standings(&members), [Votes, StillVotes, CatchesUp]);
        assert_eq!(leaving(&members), 0);
        members.servers.remove(&2);
        assert_eq!(leaving(&members), 1);
    }
}
