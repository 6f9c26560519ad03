//! What a server told a client, decoded, and in a form in which two servers can be compared.
//!
//! What is compared as a set, because ZooKeeper's own order is that of a hash table: the names of
//! children, the paths of `getEphemerals`, the identities of `whoAmI`, the entries of an ACL (where
//! `auth` stood), and the events of one closed session, whose ephemerals go in any order.

use bytes::Bytes;
use proto::codec::Reader;
use proto::header::XID_EVENT;
use proto::{
    ConnectResponse, EventType, MultiResult, OpCode, ReadResult, Reply, ReplyHeader, WatchEvent,
};

use super::mapping::{Mapping, Side};

/// One thing that a server told on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// A reply; `body` is there where the error is 0.
    Reply { xid: i32, zxid: i64, err: i32, body: Option<Reply>, rest: Bytes },
    /// A watch event.
    Event { kind: EventType, path: String, zxid: i64 },
    /// The answer to a connect, its session's id mapped: timeout, id, `readOnly`.
    Connected { timeout_ms: i32, session: i64, read_only: Option<bool> },
    /// The connection was closed.
    Closed,
    /// Nothing came in time.
    Silence,
    /// Something that breaks the format, or a time that cannot be.
    Broken(String),
}

impl Told {
    /// Decodes a frame. `waiting` are the requests that are not answered yet, in order.
    pub(super) fn decode(frame: Bytes, opcode: Option<OpCode>) -> Self {
        let mut r = Reader::new(frame.clone());
        if opcode == Some(OpCode::CreateSession)
            && let Ok(response) = ConnectResponse::decode(frame)
        {
            let ConnectResponse { timeout_ms, session_id: session, read_only, .. } = response;
            return Self::Connected { timeout_ms, session, read_only };
        }
        let header = match ReplyHeader::decode(&mut r) {
            Ok(header) => header,
            Err(error) => return Self::Broken(error.to_string()),
        };
        let ReplyHeader { xid, zxid, err } = header;
        if xid == XID_EVENT {
            return match WatchEvent::decode(header, &mut r) {
                Ok(WatchEvent { kind, path, zxid }) if r.remaining() == 0 => {
                    Self::Event { kind, path, zxid }
                }
                Ok(event) => Self::Broken(format!("bytes after the event {event:?}")),
                Err(error) => Self::Broken(error.to_string()),
            };
        }
        let body = match (err, opcode) {
            (0, Some(op)) => match Reply::decode(op, &mut r) {
                Ok(body) => Some(body),
                Err(error) => return Self::Broken(format!("the reply {header:?}: {error}")),
            },
            _ => None,
        };
        Self::Reply { xid, zxid, err, body, rest: r.rest() }
    }

    /// Whether it is an event.
    pub(super) fn is_event(&self) -> bool {
        matches!(self, Self::Event { .. })
    }

    /// Whether it is an answer after which the connection must be closed: an unknown operation, a
    /// failed authentication, a closed session.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Reply { zxid, err, .. } => {
                (*err == -6 && *zxid == -1) || *err == -115 || *err == -124
            }
            _ => false,
        }
    }

    /// The same in ZooKeeper's numbers and in one order.
    pub(super) fn mapped(self, side: Side, mapping: &mut Mapping) -> Self {
        match self {
            Self::Reply { xid, zxid, err, body, rest } => {
                mapping.heard(side, zxid);
                let zxid = mapping.header_zxid(side, zxid);
                match body.map(|body| map_reply(body, side, mapping)).transpose() {
                    Ok(body) => Self::Reply { xid, zxid, err, body, rest },
                    Err(why) => Self::Broken(why),
                }
            }
            Self::Event { kind, path, zxid } => {
                Self::Event { kind, path, zxid: mapping.zxid(side, zxid) }
            }
            other => other,
        }
    }

    /// A few characters that name the outcome: an error's number, `closed`, `silence`; for a multi
    /// that failed, the number of the operation's error in brackets. An error with a body says so.
    pub(super) fn outcome(&self) -> String {
        match self {
            Self::Reply { err: 0, body: Some(Reply::Multi(results)), .. } => {
                let failed = |result: &MultiResult| match result {
                    MultiResult::Error(code) if *code != 0 => Some(*code),
                    _ => None,
                };
                results.iter().find_map(failed).map_or("0".into(), |code| format!("[{code}]"))
            }
            Self::Reply { err, rest, .. } if rest.is_empty() => err.to_string(),
            Self::Reply { err, .. } => format!("{err}+body"),
            Self::Event { .. } => "event".into(),
            Self::Connected { timeout_ms: 0, .. } => "refused".into(),
            Self::Connected { .. } => "connected".into(),
            Self::Closed => "closed".into(),
            Self::Silence => "silence".into(),
            Self::Broken(_) => "broken".into(),
        }
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply { xid, zxid, err, body, rest } => {
                write!(f, "reply xid {xid} zxid {zxid:#x} err {err}")?;
                if let Some(body) = body {
                    write!(f, " {body:?}")?;
                }
                if rest.is_empty() { Ok(()) } else { write!(f, " then {rest:?}") }
            }
            Self::Event { kind, path, zxid } => write!(f, "event {kind:?} {path} zxid {zxid:#x}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Puts the events of one zxid into one order, where they come from a session's end.
pub(super) fn sort_events(told: &mut [Told]) {
    let key = |told: &Told| match told {
        Told::Event { kind, path, zxid } => Some((*zxid, *kind as i32, path.clone())),
        _ => None,
    };
    for run in told.chunk_by_mut(|a, b| a.is_event() && b.is_event()) {
        run.sort_by_key(key);
    }
}

fn map_reply(reply: Reply, side: Side, mapping: &mut Mapping) -> Result<Reply, String> {
    Ok(match reply {
        Reply::PathStat(path, stat) => Reply::PathStat(path, mapping.stat(side, &stat)?),
        Reply::Stat(stat) => Reply::Stat(mapping.stat(side, &stat)?),
        Reply::Data(data, stat) => Reply::Data(data, mapping.stat(side, &stat)?),
        Reply::Children(mut names) => {
            names.sort();
            Reply::Children(names)
        }
        Reply::ChildrenStat(mut names, stat) => {
            names.sort();
            Reply::ChildrenStat(names, mapping.stat(side, &stat)?)
        }
        Reply::Acl(mut acl, stat) => {
            acl.sort();
            Reply::Acl(acl, mapping.stat(side, &stat)?)
        }
        Reply::Multi(results) => {
            let map = |result| {
                Ok(match result {
                    MultiResult::Create2(path, stat) => {
                        MultiResult::Create2(path, mapping.stat(side, &stat)?)
                    }
                    MultiResult::SetData(stat) => MultiResult::SetData(mapping.stat(side, &stat)?),
                    other => other,
                })
            };
            Reply::Multi(results.into_iter().map(map).collect::<Result<_, String>>()?)
        }
        Reply::MultiRead(results) => {
            let map = |result| {
                Ok(match result {
                    ReadResult::Data(data, stat) => {
                        ReadResult::Data(data, mapping.stat(side, &stat)?)
                    }
                    ReadResult::Children(mut names) => {
                        names.sort();
                        ReadResult::Children(names)
                    }
                    ReadResult::Error(code) => ReadResult::Error(code),
                })
            };
            Reply::MultiRead(results.into_iter().map(map).collect::<Result<_, String>>()?)
        }
        Reply::WhoAmI(mut infos) => {
            infos.sort_by(|a, b| (&a.scheme, &a.user).cmp(&(&b.scheme, &b.user)));
            Reply::WhoAmI(infos)
        }
        Reply::Sasl(Some(token)) => Reply::Sasl(Some(without_nonce(&token))),
        other => other,
    })
}

/// A DIGEST-MD5 challenge with its nonce, which is random, made the same for all.
fn without_nonce(token: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(token);
    let fields = text.split(',').map(|field| match field.split_once('=') {
        Some(("nonce", nonce)) if nonce.len() > 16 => "nonce=...",
        _ => field,
    });
    Bytes::from(fields.collect::<Vec<_>>().join(","))
}
