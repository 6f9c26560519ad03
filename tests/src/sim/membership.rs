//! Who is to take part, as the model has it, and what operators ask to have changed.

use std::collections::BTreeMap;
use std::fmt::Write;

use proto::server_spec::parse_servers;
use proto::{ErrorCode, Role, ServerSpec};
use state::Reconfig;

/// Where `/zookeeper/config` is.
pub const CONFIG: &str = "/zookeeper/config";

/// A server's line. The simulator's servers count from 1, their numbers from 0.
pub fn line(id: u64, role: Role) -> String {
    let role = if role == Role::Observer { "observer" } else { "participant" };
    format!("server.{}=s{id}:1:1:{role};s{id}:2", id - 1)
}

/// The lines of all servers, as those that vote.
pub fn all(ids: &[u64]) -> String {
    ids.iter().map(|id| line(*id, Role::Participant)).collect::<Vec<_>>().join(",")
}

/// Where the servers are found, as each one's configuration says.
pub fn located(ids: &[u64]) -> BTreeMap<u32, ServerSpec> {
    parse_servers(&all(ids)).expect("the lines are well formed")
}

/// Who is to take part.
#[derive(Debug, Default)]
pub struct Membership {
    servers: BTreeMap<u32, ServerSpec>,
    /// The zxid of the last change.
    version: i64,
    /// How many times it was changed.
    pub changes: u64,
}

impl Membership {
    /// What the first configuration says; it counts once. Whether it did.
    pub fn locate(&mut self, specs: &BTreeMap<u32, ServerSpec>, zxid: i64) -> bool {
        let counts = self.version == 0;
        if counts {
            (self.servers, self.version) = (specs.clone(), zxid);
        }
        counts
    }

    /// Changes it, where `present` could be reached.
    ///
    /// # Errors
    /// As `reconfig`.
    pub fn reconfigure(
        &mut self,
        asked: &Reconfig,
        present: &[u32],
        zxid: i64,
    ) -> Result<(), ErrorCode> {
        let parse = |text: &str| parse_servers(text).map_err(|_| ErrorCode::BadArguments);
        let mut servers = self.servers.clone();
        if asked.servers.is_empty() {
            let gone: Vec<u32> =
                asked.leaving.split(',').filter_map(|id| id.parse().ok()).collect();
            servers.retain(|id, _| !gone.contains(id));
            servers.extend(parse(&asked.joining)?);
        } else {
            servers = parse(&asked.servers)?;
        }
        let votes = |id: &u32| servers.get(id).is_some_and(|spec| spec.role == Role::Participant);
        let voters = servers.keys().filter(|id| votes(id)).count();
        if present.iter().filter(|id| votes(id)).count() <= voters / 2 {
            return Err(ErrorCode::NewConfigNoQuorum);
        }
        (self.servers, self.version) = (servers, zxid);
        self.changes += 1;
        Ok(())
    }

    /// What `/zookeeper/config` says of it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (id, spec) in &self.servers {
            writeln!(text, "server.{id}={spec}").expect("text takes any text");
        }
        write!(text, "version={:x}", self.version).expect("text takes any text");
        text
    }
}
