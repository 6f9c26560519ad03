//! Where a server of an ensemble is found and whether it votes, as ZooKeeper's dynamic configuration
//! writes it (`QuorumPeer.QuorumServer`):
//!
//! ```text
//! host:peerPort:electionPort[:participant|observer][;[address:]clientPort]
//! ```
//!
//! with `|` between the addresses of a server that has several.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{Address, parse_port};

/// The form of a [`ServerSpec`], in words for errors.
pub const FORM: &str = "host:peerPort:electionPort[:participant|observer][;[address:]clientPort]";

/// A server's part in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It votes.
    #[default]
    Participant,
    /// It follows without a vote.
    Observer,
}

/// Where a server is found, and whether it votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Where it listens for other servers; several if it has several networks.
    pub peer: Vec<Address>,
    /// Its election addresses, one for each of `peer`, or none: then they are the same.
    pub election: Vec<Address>,
    /// Where it listens for clients, if that is known.
    pub client: Option<Address>,
    /// Whether it votes.
    pub role: Role,
}

impl ServerSpec {
    /// Whether two servers name an address that can only be of one: neither one of this machine nor
    /// that of all its networks (`QuorumServer.checkAddressDuplicate`).
    pub fn shares_address(&self, other: &Self) -> bool {
        self.addresses().any(|ours| other.addresses().any(|theirs| ours == theirs))
    }

    fn addresses(&self) -> impl Iterator<Item = &Address> {
        let all = self.peer.iter().chain(&self.election).chain(&self.client);
        all.filter(|address| {
            let ip = address.host.parse::<std::net::IpAddr>();
            address.host != "localhost"
                && !ip.is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback())
        })
    }
}

impl FromStr for ServerSpec {
    type Err = String;

    /// Reads the form above.
    ///
    /// # Errors
    /// What is wrong with it, to be joined to the form that was expected ([`FORM`]).
    fn from_str(value: &str) -> Result<Self, String> {
        let mut parts = value.split(';');
        let (peers, client) = (parts.next().unwrap_or_default(), parts.next());
        if parts.next().is_some() {
            return Err("there is more than one `;`".into());
        }
        let mut spec = Self::default();
        if let Some(client) = client.map(str::trim).filter(|c| !c.is_empty()) {
            spec.client = Some(match client.rsplit_once(':') {
                Some((host, port)) => address(host, port)?,
                None => Address::new("0.0.0.0", parse_port(client)?),
            });
        }
        for (index, one) in peers.split('|').enumerate() {
            let fields = fields(one.trim())?;
            let (host, peer, election, role) = match fields.as_slice() {
                [host, peer, election] => (host, peer, election, None),
                [host, peer, election, role] => (host, peer, election, Some(role)),
                _ => return Err(format!("`{one}` has {} of them", fields.len())),
            };
            spec.peer.push(address(host, peer)?);
            spec.election.push(address(host, election)?);
            let role = match role.map(|r| r.to_lowercase()).as_deref() {
                None => spec.role,
                Some("participant") => Role::Participant,
                Some("observer") => Role::Observer,
                Some(other) => {
                    return Err(format!("the role `{other}` is neither participant nor observer"));
                }
            };
            if index > 0 && role != spec.role {
                return Err("its addresses have different roles".into());
            }
            spec.role = role;
        }
        Ok(spec)
    }
}

impl fmt::Display for ServerSpec {
    /// As [`FromStr`] reads it; a server without election addresses shows those for peers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, peer) in self.peer.iter().enumerate() {
            let election = self.election.get(index).unwrap_or(peer);
            let between = if index == 0 { "" } else { "|" };
            write!(f, "{between}{peer}:{}", election.port)?;
        }
        f.write_str(match self.role {
            Role::Participant => ":participant",
            Role::Observer => ":observer",
        })?;
        self.client.as_ref().map_or(Ok(()), |client| write!(f, ";{client}"))
    }
}

/// Reads `server.ID=SPEC` lines, with commas or ends of lines between them, and others such as
/// `version=...` among them, which are left out.
///
/// # Errors
/// What is wrong with which.
pub fn parse_servers(text: &str) -> Result<BTreeMap<u32, ServerSpec>, String> {
    let mut servers = BTreeMap::new();
    for line in text.split([',', '\n']).map(str::trim).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once('=').ok_or(format!("`{line}` has no `=`"))?;
        let Some(id) = key.trim().strip_prefix("server.") else { continue };
        let id = id.parse().map_err(|_| format!("`{id}` is no server's id"))?;
        let spec = value.trim().parse().map_err(|why| format!("server.{id}: {why}"))?;
        if servers.insert(id, spec).is_some() {
            return Err(format!("server.{id} stands there twice"));
        }
    }
    Ok(servers)
}

fn address(host: &str, port: &str) -> Result<Address, String> {
    if host.is_empty() {
        return Err("the host is empty".into());
    }
    Ok(Address::new(host, parse_port(port)?))
}

/// Splits at colons, except within brackets.
fn fields(text: &str) -> Result<Vec<&str>, String> {
    let Some(rest) = text.strip_prefix('[') else { return Ok(text.split(':').collect()) };
    let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
    let rest = rest.strip_prefix(':').ok_or("there is no port after the bracket")?;
    Ok(std::iter::once(host).chain(rest.split(':')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written() {
        for (text, written) in [
            ("zk1:2888:3888", "zk1:2888:3888:participant"),
            (
                "[2001:db8::2]:2888:3888:observer;[::1]:2181",
                "[2001:db8::2]:2888:3888:observer;[::1]:2181",
            ),
            ("a:1:2:observer|b:3:4:observer;2181", "a:1:2|b:3:4:observer;0.0.0.0:2181"),
        ] {
            let spec: ServerSpec = text.parse().expect("a server");
            assert_eq!(spec.to_string(), written);
        }
        let spec: ServerSpec = "a:1:2|b:3:4;2181".parse().expect("a server");
        assert_eq!((spec.peer.len(), &spec.election[1]), (2, &Address::new("b", 4)));
        assert_eq!(spec.role, Role::Participant);
    }

    #[test]
    fn every_mistake_is_named() {
        for (value, why) in [
            ("zk1:2888", "has 2"),
            ("zk1:2888:3888:leader", "neither"),
            ("zk1:2888:x", "not a number"),
            ("zk1:2888:70000", "70000 is not within"),
            ("zk1:1:2;3;4", "more than one"),
            ("[::1:1:2", "not closed"),
            (":1:2", "host is empty"),
            ("a:1:2|b:1:2:observer", "different roles"),
        ] {
            let error = value.parse::<ServerSpec>().expect_err("a mistake");
            assert!(error.contains(why), "{value}: {error}");
        }
    }

    #[test]
    fn lists_have_commas_or_lines() {
        let text = "server.1=a:1:2:participant;3\nserver.20=b:1:2:observer;3\nversion=1f";
        let servers = parse_servers(text).expect("two servers");
        assert_eq!(servers.keys().copied().collect::<Vec<_>>(), [1, 20]);
        let commas = "server.1=a:1:2;3,server.20=b:1:2:observer;3";
        assert_eq!(parse_servers(commas).as_ref(), Ok(&servers));
        for (text, why) in [
            ("some thing", "no `=`"),
            ("server.x=a:1:2", "no server's id"),
            ("server.1=a:1", "server.1: "),
            ("server.1=a:1:2,server.1=b:1:2", "twice"),
        ] {
            let error = parse_servers(text).expect_err("a mistake");
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_is_of_one_server() {
        let of = |text: &str| text.parse::<ServerSpec>().expect("a server");
        assert!(of("a:1:2;3").shares_address(&of("a:2:4;5")));
        assert!(!of("a:1:2;3").shares_address(&of("b:1:2;3")));
        assert!(!of("a:1:2;2181").shares_address(&of("b:1:2;2181")), "each has its own 0.0.0.0");
        assert!(!of("localhost:1:2").shares_address(&of("localhost:1:2")), "as in ZooKeeper");
    }
}
