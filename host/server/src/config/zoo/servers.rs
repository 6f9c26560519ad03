//! `server.N=host:port:port[:role][;[address:]clientPort]`, with `|` between several addresses.

use crate::config::address::{Address, parse_port};
use crate::config::sections::{EnsembleServer, Role};

/// Parses the value of `server.N`.
///
/// # Errors
/// What is wrong with it, to be joined to the form that was expected ([`FORM`]).
pub(super) fn parse(id: u8, value: &str) -> Result<EnsembleServer, String> {
    let mut parts = value.split(';');
    let (peers, client) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err("there is more than one `;`".into());
    }
    let mut server = EnsembleServer {
        id,
        peer: vec![],
        election: vec![],
        client: None,
        role: Role::Participant,
    };
    if let Some(client) = client.map(str::trim).filter(|c| !c.is_empty()) {
        server.client = Some(match client.rsplit_once(':') {
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
        server.peer.push(address(host, peer)?);
        server.election.push(address(host, election)?);
        let role = match role.map(|r| r.to_lowercase()).as_deref() {
            None => server.role,
            Some("participant") => Role::Participant,
            Some("observer") => Role::Observer,
            Some(other) => {
                return Err(format!("the role `{other}` is neither participant nor observer"));
            }
        };
        if index > 0 && role != server.role {
            return Err("its addresses have different roles".into());
        }
        server.role = role;
    }
    Ok(server)
}

/// The form that [`parse`] takes.
pub(super) const FORM: &str =
    "host:peerPort:electionPort[:participant|observer][;[address:]clientPort]";

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
    fn every_form() {
        let one = parse(1, "zk1:2888:3888").unwrap();
        assert_eq!(
            (one.peer[0].to_string(), one.election[0].to_string()),
            ("zk1:2888".into(), "zk1:3888".into())
        );
        assert_eq!((one.role, one.client), (Role::Participant, None));
        let two = parse(2, "[2001:db8::2]:2888:3888:observer;[::1]:2181").unwrap();
        assert_eq!(two.peer[0].to_string(), "[2001:db8::2]:2888");
        assert_eq!(two.client.unwrap().to_string(), "[::1]:2181");
        assert_eq!(two.role, Role::Observer);
        let three = parse(3, "a:1:2:observer|b:3:4:observer;2181").unwrap();
        assert_eq!(three.peer.len(), 2);
        assert_eq!(three.election[1], Address::new("b", 4));
        assert_eq!(three.client, Some(Address::new("0.0.0.0", 2181)));
    }

    #[test]
    fn every_mistake() {
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
            let error = parse(1, value).unwrap_err();
            assert!(error.contains(why), "{value}: {error}");
        }
    }
}
