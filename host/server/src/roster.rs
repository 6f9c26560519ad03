//! The servers of an ensemble as operators change them, over the command line and over HTTP.

use anyhow::Context;
use proto::{Address, Role, ServerSpec};
use replica::operator::{OperatorReply, OperatorRequest};
use replica::roster::Listed;

/// The servers as they were last looked at.
pub(crate) struct Roster {
    pub(crate) version: i64,
    pub(crate) servers: Vec<Listed>,
    pub(crate) leaving: usize,
}

/// What is to become of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// One takes part, or is found elsewhere.
    Add { id: u32, peer: Vec<Address>, client: Address, observer: bool },
    /// They take part no more, all at once.
    Remove { ids: Vec<u32> },
    /// An observer is to vote.
    Promote { id: u32 },
    /// One is to vote no more, and goes on as an observer.
    Demote { id: u32 },
}

impl Roster {
    /// What the answer to a look at the servers says.
    pub(crate) fn of(reply: OperatorReply) -> anyhow::Result<Self> {
        match reply {
            OperatorReply::Members { version, servers, leaving } => {
                Ok(Self { version, servers, leaving })
            }
            OperatorReply::Refused { why } => anyhow::bail!("{why}"),
            other => {
                anyhow::bail!("the server gave another reply than the one asked for: {other:?}")
            }
        }
    }

    /// The request for a change of what was looked at, and of nothing that somebody else has made of it
    /// since.
    ///
    /// # Errors
    /// If it names a server that there is not.
    pub(crate) fn request(&self, change: &MemberChange) -> anyhow::Result<OperatorRequest> {
        let (mut joining, mut leaving) = (String::new(), String::new());
        match change {
            MemberChange::Add { id, peer, client, observer } => {
                let role = if *observer { Role::Observer } else { Role::Participant };
                let (peer, client) = (peer.clone(), Some(client.clone()));
                let spec = ServerSpec { peer, election: Vec::new(), client, role };
                joining = format!("server.{id}={spec}");
            }
            MemberChange::Remove { ids } => {
                for id in ids {
                    self.get(*id)?;
                }
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                leaving = ids.join(",");
            }
            MemberChange::Promote { id } => joining = self.with_role(*id, Role::Participant)?,
            MemberChange::Demote { id } => joining = self.with_role(*id, Role::Observer)?,
        }
        Ok(OperatorRequest::ChangeMembers { joining, leaving, version: self.version })
    }

    fn get(&self, id: u32) -> anyhow::Result<&Listed> {
        let ids: Vec<u32> = self.servers.iter().map(|listed| listed.id).collect();
        let found = self.servers.iter().find(|listed| listed.id == id);
        found.with_context(|| format!("expected one of the servers {ids:?}, got {id}"))
    }

    /// The line of a server, with another role.
    fn with_role(&self, id: u32, role: Role) -> anyhow::Result<String> {
        let spec: Result<ServerSpec, String> = self.get(id)?.spec.parse();
        let spec =
            spec.map_err(|why| anyhow::anyhow!("it is not known where server {id} is: {why}"))?;
        Ok(format!("server.{id}={}", ServerSpec { role, ..spec }))
    }

    /// Whether all are what they are to be.
    pub(crate) fn is_settled(&self) -> bool {
        self.leaving == 0 && self.servers.iter().all(|listed| listed.part.is_settled())
    }
}
