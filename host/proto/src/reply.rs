//! Replies: one variant per form of body.

use bytes::{Bytes, BytesMut};

use crate::acl::{Acl, Id};
use crate::codec::{Reader, Writer, frame};
use crate::error::DecodeError;
use crate::header::ReplyHeader;
use crate::multi::{MultiResult, ReadResult};
use crate::opcode::OpCode;
use crate::stat::Stat;

/// One identity of a connection, as `whoAmI` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// How it authenticated.
    pub scheme: String,
    /// As whom, without any secret.
    pub user: String,
}

/// The body of a successful reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// No body: `delete`, `ping`, `auth`, `setWatches`, `removeWatches`, `closeSession`.
    Empty,
    /// `create`, `sync`.
    Path(String),
    /// `create2`, `createContainer`, `createTTL`.
    PathStat(String, Stat),
    /// `exists`, `setData`, `setACL`.
    Stat(Stat),
    /// `getData`, `reconfig`.
    Data(Option<Bytes>, Stat),
    /// `getChildren`, `getEphemerals`.
    Children(Vec<String>),
    /// `getChildren2`.
    ChildrenStat(Vec<String>, Stat),
    /// `getACL`.
    Acl(Vec<Acl>, Stat),
    /// `getAllChildrenNumber`.
    Count(i32),
    /// `multi`, whether it failed or not.
    Multi(Vec<MultiResult>),
    /// `multiRead`.
    MultiRead(Vec<ReadResult>),
    /// `whoAmI`.
    WhoAmI(Vec<ClientInfo>),
    /// `addWatch`: an error number that is always 0.
    AddWatch(i32),
    /// `sasl`.
    Sasl(Option<Bytes>),
    /// `operator`: JSON.
    Operator(Bytes),
}

impl Reply {
    /// Appends a successful reply as a whole frame.
    pub fn encode(&self, header: ReplyHeader, out: &mut BytesMut) {
        frame(out, |w| {
            header.encode(w);
            self.encode_body(w);
        });
    }

    /// Appends a reply that is an error: a header alone.
    pub fn encode_error(header: ReplyHeader, out: &mut BytesMut) {
        frame(out, |w| header.encode(w));
    }

    fn encode_body(&self, w: &mut Writer<'_>) {
        match self {
            Self::Empty => {}
            Self::Path(path) => w.string(path),
            Self::PathStat(path, stat) => {
                w.string(path);
                stat.encode(w);
            }
            Self::Stat(stat) => stat.encode(w),
            Self::Data(data, stat) => {
                w.buffer(data.as_deref());
                stat.encode(w);
            }
            Self::Children(names) => w.strings(names),
            Self::ChildrenStat(names, stat) => {
                w.strings(names);
                stat.encode(w);
            }
            Self::Acl(acl, stat) => {
                Acl::encode_all(acl, w);
                stat.encode(w);
            }
            Self::Count(count) => w.int(*count),
            Self::Multi(results) => MultiResult::encode_all(results, w),
            Self::MultiRead(results) => ReadResult::encode_all(results, w),
            Self::WhoAmI(infos) => {
                w.count(infos.len());
                for info in infos {
                    w.string(&info.scheme);
                    w.string(&info.user);
                }
            }
            Self::AddWatch(err) => w.int(*err),
            Self::Sasl(token) => w.buffer(token.as_deref()),
            Self::Operator(json) => w.buffer(Some(json)),
        }
    }

    /// Reads the body of a successful reply to `op`.
    ///
    /// # Errors
    /// [`DecodeError`] if it is truncated or malformed.
    pub fn decode(op: OpCode, r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create | OpCode::Sync => Self::Path(r.string()?),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::PathStat(r.string()?, Stat::decode(r)?)
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Self::Stat(Stat::decode(r)?),
            OpCode::GetData | OpCode::Reconfig => Self::Data(r.buffer()?, Stat::decode(r)?),
            OpCode::GetChildren | OpCode::GetEphemerals => Self::Children(r.strings()?),
            OpCode::GetChildren2 => Self::ChildrenStat(r.strings()?, Stat::decode(r)?),
            OpCode::GetAcl => Self::Acl(Acl::decode_all(r)?, Stat::decode(r)?),
            OpCode::GetAllChildrenNumber => Self::Count(r.int()?),
            OpCode::Multi => Self::Multi(MultiResult::decode_all(r)?),
            OpCode::MultiRead => Self::MultiRead(ReadResult::decode_all(r)?),
            OpCode::WhoAmI => {
                let count = r.count(8)?;
                let infos = (0..count).map(|_| {
                    let Id { scheme, id: user } = Id { scheme: r.string()?, id: r.string()? };
                    Ok(ClientInfo { scheme, user })
                });
                Self::WhoAmI(infos.collect::<Result<_, DecodeError>>()?)
            }
            OpCode::AddWatch => Self::AddWatch(r.int()?),
            OpCode::Sasl => Self::Sasl(r.buffer()?),
            OpCode::Operator => Self::Operator(r.buffer()?.unwrap_or_default()),
            OpCode::Delete
            | OpCode::Ping
            | OpCode::Check
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::DeleteContainer
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CreateSession
            | OpCode::CloseSession => Self::Empty,
        })
    }
}
