//! What operators ask of a running server, over an operation of our own on the client port.
//!
//! A request is a name and JSON, a reply is JSON; both carry the number of their format, which is
//! none of the client protocol's, the log's or the disk's. A server answers a request that it does
//! not know with a refusal, so that an older server meets a newer tool with words. The one reply that
//! is no JSON is a record of a snapshot.
//!
//! Invariants:
//! * Only who has the `super` identity is answered at all.
//! * What changes the cluster becomes one command in the log; nothing here acts on one server.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::{ErrorCode, Reply};
use serde::{Deserialize, Serialize};
use state::{Command, Members, Reconfig, Settings};
use thiserror::Error;

use crate::roster::{self, Listed};
use crate::saving::SnapshotHeader;
use crate::settings;

/// The format of requests and replies.
pub const FORMAT: u32 = 1;
/// The scheme by which an operator on the server's own machine authenticates.
pub const SCHEME: &str = "vivarium-operator";

/// What an operator asks for. The name of a variant, in kebab case, is its name on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorRequest {
    /// The cluster's settings.
    ShowSettings {},
    /// New values for some settings: all of them, or none if one is wrong.
    ChangeSettings {
        /// Name and value.
        set: BTreeMap<String, String>,
    },
    /// The servers of the ensemble.
    ShowMembers {},
    /// Other servers are to take part, or as others (`reconfig`).
    ChangeMembers {
        /// `server.ID=SPEC`, with commas between them: those that come, or whose spec is another.
        joining: String,
        /// Ids, with commas between them: those that go.
        leaving: String,
        /// The version of what is to be changed, as [`OperatorReply::Members`] shows it; or -1.
        version: i64,
    },
    /// Begins to save a snapshot, over this connection.
    SaveSnapshot {
        /// The first entry that it must have: 0 first, then that of
        /// [`OperatorReply::SnapshotNotYet`].
        from: u64,
    },
    /// The next record of the snapshot that was begun.
    NextRecord {},
}

/// What an operator is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorReply {
    /// All settings.
    Settings {
        /// Name and value.
        settings: BTreeMap<String, String>,
    },
    /// Settings were changed.
    SettingsChanged {
        /// All of them as they were.
        before: BTreeMap<String, String>,
        /// All of them as they are.
        after: BTreeMap<String, String>,
    },
    /// The servers of the ensemble.
    Members {
        /// The version of what they are to be.
        version: i64,
        /// Each of them.
        servers: Vec<Listed>,
        /// How many that were removed are still counted.
        leaving: usize,
    },
    /// Other servers are to take part from now on.
    MembersChanged {
        /// What `/zookeeper/config` says now.
        config: String,
    },
    /// A snapshot is begun.
    SnapshotBegun {
        /// What it is of.
        header: SnapshotHeader,
    },
    /// What this server had applied when it was asked first is not in its store yet: ask again.
    SnapshotNotYet {
        /// The entry that is waited for.
        from: u64,
    },
    /// A record of the snapshot.
    #[serde(skip)]
    Record(Bytes),
    /// There are no more records.
    SnapshotEnd {},
    /// Nothing was done.
    Refused {
        /// Why, and what would be right.
        why: String,
    },
}

/// What came is not a request, or not a reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OperatorError {
    /// It is of a later format.
    #[error("format {found} of operators' requests is newer than {FORMAT}, the newest known here")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// It cannot be decoded.
    #[error("an operator's request or reply that cannot be read: {0}")]
    Malformed(String),
}

/// What a reply that is a record begins with, as no JSON does.
const RECORD: u8 = 0;

#[derive(Serialize, Deserialize)]
struct Numbered {
    format: u32,
    #[serde(flatten)]
    body: serde_json::Value,
}

fn encode(body: serde_json::Value) -> Vec<u8> {
    let numbered = Numbered { format: FORMAT, body };
    serde_json::to_vec(&numbered).expect("maps of text can always be encoded")
}

fn decode(bytes: &[u8]) -> Result<serde_json::Value, OperatorError> {
    let malformed = |e: serde_json::Error| OperatorError::Malformed(e.to_string());
    let Numbered { format: found, body } = serde_json::from_slice(bytes).map_err(malformed)?;
    if found > FORMAT {
        return Err(OperatorError::Newer { found });
    }
    Ok(body)
}

impl OperatorRequest {
    /// Its name on the wire, and its body.
    pub fn encode(&self) -> (String, Vec<u8>) {
        let tagged = serde_json::to_value(self).expect("maps of text can always be encoded");
        let one = tagged.as_object().and_then(|object| object.iter().next());
        let (name, body) = one.expect("a variant with fields is an object of one entry");
        (name.clone(), encode(body.clone()))
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`OperatorError`] if it is of a later format, of an unknown name, or malformed.
    pub fn decode(name: &str, body: &[u8]) -> Result<Self, OperatorError> {
        let tagged = BTreeMap::from([(name, decode(body)?)]);
        let tagged = serde_json::to_value(tagged);
        tagged.and_then(serde_json::from_value).map_err(|e| OperatorError::Malformed(e.to_string()))
    }
}

impl OperatorReply {
    /// The bytes that go to the operator.
    pub fn encode(&self) -> Vec<u8> {
        if let Self::Record(record) = self {
            return [&[RECORD], &record[..]].concat();
        }
        encode(serde_json::to_value(self).expect("maps of text can always be encoded"))
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// [`OperatorError`] if it is of a later format, or malformed.
    pub fn decode(bytes: &Bytes) -> Result<Self, OperatorError> {
        if bytes.first() == Some(&RECORD) {
            return Ok(Self::Record(bytes.slice(1..)));
        }
        let body = decode(bytes)?;
        serde_json::from_value(body).map_err(|e| OperatorError::Malformed(e.to_string()))
    }

    /// The answer to a change of the servers that is in the log.
    pub(crate) fn reconfigured(result: Result<Reply, ErrorCode>) -> Self {
        match result {
            Ok(Reply::Data(config, _)) => {
                let config = config.unwrap_or_default();
                Self::MembersChanged { config: String::from_utf8_lossy(&config).into_owned() }
            }
            Ok(other) => Self::Refused { why: format!("an answer of another kind: {other:?}") },
            Err(code) => Self::Refused { why: roster::why(code) },
        }
    }

    /// The answer to a change of the apply version that cannot be.
    pub(crate) fn version_refused(now: u32, supported: u32) -> Self {
        let why = match supported {
            0 => format!(
                "apply-version stays {now}: it is not known of every voter what it supports; start \
                 those that are down (`vivarium member list`), and ask again"
            ),
            _ => format!(
                "apply-version stays {now}: expected {now} to {}, which every voter supports; to go \
                 further, start newer programs on all of them, one after the other; it never goes back",
                supported.max(now)
            ),
        };
        Self::Refused { why }
    }

    /// The answer to a change that is in the log.
    pub(crate) fn changed(before: &Settings, after: &Settings) -> Self {
        let (before, after) = (settings::shown(before), settings::shown(after));
        Self::SettingsChanged { before, after }
    }
}

/// What becomes of a request.
pub(crate) enum Decision {
    /// It is answered at once.
    Reply(OperatorReply),
    /// It is a command; its answer comes from the log.
    Command(Command),
    /// A snapshot is saved that has this entry.
    SaveSnapshot(u64),
    /// It is given the next record.
    NextRecord,
}

/// Decides what becomes of a request of somebody with the right.
pub(crate) fn decide(
    request: Result<OperatorRequest, OperatorError>,
    current: &Settings,
    members: &Members,
) -> Decision {
    let refused = |why: String| Decision::Reply(OperatorReply::Refused { why });
    match request {
        Err(error) => refused(error.to_string()),
        Ok(OperatorRequest::ShowSettings {}) => {
            Decision::Reply(OperatorReply::Settings { settings: settings::shown(current) })
        }
        Ok(OperatorRequest::ChangeSettings { set }) => {
            let changes = set.iter().map(|(name, value)| settings::parse(name, value));
            match changes.collect::<Result<Vec<_>, _>>() {
                Err(error) => refused(error.to_string()),
                Ok(changes) if changes.is_empty() => {
                    refused("expected at least one NAME=VALUE, got none".to_owned())
                }
                Ok(changes) => Decision::Command(Command::ChangeSettings(changes)),
            }
        }
        Ok(OperatorRequest::ShowMembers {}) => {
            let (version, servers) = (members.version, roster::list(members));
            let leaving = roster::leaving(members);
            Decision::Reply(OperatorReply::Members { version, servers, leaving })
        }
        Ok(OperatorRequest::ChangeMembers { .. }) if members.version == 0 => refused(
            "this server is on its own: give it an `[[ensemble.servers]]` that names itself, with the \
             address where others reach it, and start it again"
                .to_owned(),
        ),
        Ok(OperatorRequest::ChangeMembers { joining, leaving, version }) => {
            let servers = String::new();
            Decision::Command(Command::Reconfig(Reconfig { joining, leaving, servers, version }))
        }
        Ok(OperatorRequest::SaveSnapshot { from }) => Decision::SaveSnapshot(from),
        Ok(OperatorRequest::NextRecord {}) => Decision::NextRecord,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_survive_the_wire() {
        let set = BTreeMap::from([("skip-acl".to_owned(), "true".to_owned())]);
        for request in [
            OperatorRequest::ShowSettings {},
            OperatorRequest::ChangeSettings { set: set.clone() },
            OperatorRequest::SaveSnapshot { from: u64::MAX },
            OperatorRequest::NextRecord {},
        ] {
            let (name, body) = request.encode();
            assert_eq!(OperatorRequest::decode(&name, &body), Ok(request));
        }
        let (name, body) = OperatorRequest::ChangeSettings { set: set.clone() }.encode();
        assert_eq!(name, "change-settings");
        assert_eq!(body, br#"{"format":1,"set":{"skip-acl":"true"}}"#);
        for reply in [
            OperatorReply::Settings { settings: set.clone() },
            OperatorReply::SettingsChanged { before: set.clone(), after: set },
            OperatorReply::SnapshotNotYet { from: 7 },
            OperatorReply::Record(Bytes::from_static(b"\x00{}")),
            OperatorReply::SnapshotEnd {},
            OperatorReply::Refused { why: "because".to_owned() },
        ] {
            assert_eq!(OperatorReply::decode(&reply.encode().into()), Ok(reply));
        }
    }

    #[test]
    fn what_is_unknown_is_refused_with_words() {
        let (settings, members) = (Settings::default(), Members::default());
        let decided = |name: &str, body: &[u8]| {
            decide(OperatorRequest::decode(name, body), &settings, &members)
        };
        let why = |name: &str, body: &[u8]| match decided(name, body) {
            Decision::Reply(OperatorReply::Refused { why }) => why,
            Decision::Reply(other) => panic!("{other:?}"),
            Decision::Command(command) => panic!("{command:?}"),
            Decision::SaveSnapshot(_) | Decision::NextRecord => panic!("a snapshot"),
        };
        assert!(why("show-settings", br#"{"format":2}"#).contains("newer than 1"));
        assert!(why("eat-the-data", br#"{"format":1}"#).contains("eat-the-data"));
        assert!(why("show-settings", b"{").contains("cannot be read"));
        assert!(why("change-settings", br#"{"format":1}"#).contains("missing field `set`"));
        assert!(why("change-settings", br#"{"format":1,"set":{}}"#).contains("at least one"));
        let alone = br#"{"format":1,"joining":"","leaving":"2","version":-1}"#;
        assert!(why("change-members", alone).contains("on its own"));
        let two = br#"{"format":1,"set":{"skip-acl":"true","tll-nodes":"true"}}"#;
        assert!(why("change-settings", two).contains("did you mean ttl-nodes?"));
    }
}
