//! Requests: one variant per operation.

use bytes::{Bytes, BytesMut};

use crate::acl::Acl;
use crate::codec::{Reader, Writer, frame};
use crate::error::DecodeError;
use crate::header::RequestHeader;
use crate::multi::{MultiOp, ReadOp};
use crate::opcode::OpCode;

/// The body of `create`, `create2`, `createContainer` and `createTTL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Which of the four it is; decides the form of the reply.
    pub op: OpCode,
    /// The path, without the suffix of a sequential one.
    pub path: String,
    /// The data; null is legal, and not the same as empty.
    pub data: Option<Bytes>,
    /// The ACL as given.
    pub acl: Vec<Acl>,
    /// A [`CreateMode`](crate::CreateMode)'s number, or anything at all.
    pub flags: i32,
    /// The time to live in milliseconds; -1 for all but `createTTL`.
    pub ttl_ms: i64,
}

/// The paths that a client had watches on, sent after a reconnect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetWatches {
    /// Changes after this zxid have not been seen.
    pub relative_zxid: i64,
    /// Data watches, set on znodes that were there.
    pub data: Vec<String>,
    /// Exist watches, set on znodes that were not there.
    pub exist: Vec<String>,
    /// Child watches.
    pub child: Vec<String>,
    /// Persistent watches (`setWatches2` only).
    pub persistent: Vec<String>,
    /// Persistent recursive watches (`setWatches2` only).
    pub recursive: Vec<String>,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are ZooKeeper's own, told of in its documentation")]
pub enum Request {
    Create(Create),
    Delete { path: String, version: i32 },
    Exists { path: String, watch: bool },
    GetData { path: String, watch: bool },
    SetData { path: String, data: Option<Bytes>, version: i32 },
    GetAcl { path: String },
    SetAcl { path: String, acl: Vec<Acl>, version: i32 },
    GetChildren { path: String, watch: bool },
    GetChildren2 { path: String, watch: bool },
    Sync { path: String },
    Ping,
    Check { path: String, version: i32 },
    Multi(Vec<MultiOp>),
    MultiRead(Vec<ReadOp>),
    Reconfig { joining: String, leaving: String, new_members: String, config_id: i64 },
    CheckWatches { path: String, kind: i32 },
    RemoveWatches { path: String, kind: i32 },
    DeleteContainer { path: String },
    Auth { scheme: String, auth: Bytes },
    SetWatches(SetWatches),
    SetWatches2(SetWatches),
    Sasl { token: Bytes },
    GetEphemerals { prefix: String },
    GetAllChildrenNumber { path: String },
    AddWatch { path: String, mode: i32 },
    WhoAmI,
    Operator { name: String, body: Bytes },
    CreateSession,
    CloseSession,
}

impl Request {
    /// Reads the body of an operation.
    ///
    /// # Errors
    /// [`DecodeError`] if it is truncated or malformed. Bytes after it are ignored, as ZooKeeper
    /// ignores them.
    pub fn decode(op: OpCode, r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::Create(Create::decode(op, r)?)
            }
            OpCode::Delete => Self::Delete { path: r.string()?, version: r.int()? },
            OpCode::Exists => Self::Exists { path: r.string()?, watch: r.boolean()? },
            OpCode::GetData => Self::GetData { path: r.string()?, watch: r.boolean()? },
            OpCode::SetData => {
                Self::SetData { path: r.string()?, data: r.buffer()?, version: r.int()? }
            }
            OpCode::GetAcl => Self::GetAcl { path: r.string()? },
            OpCode::SetAcl => {
                Self::SetAcl { path: r.string()?, acl: Acl::decode_all(r)?, version: r.int()? }
            }
            OpCode::GetChildren => Self::GetChildren { path: r.string()?, watch: r.boolean()? },
            OpCode::GetChildren2 => Self::GetChildren2 { path: r.string()?, watch: r.boolean()? },
            OpCode::Sync => Self::Sync { path: r.string()? },
            OpCode::Ping => Self::Ping,
            OpCode::Check => Self::Check { path: r.string()?, version: r.int()? },
            OpCode::Multi => Self::Multi(MultiOp::decode_all(r)?),
            OpCode::MultiRead => Self::MultiRead(ReadOp::decode_all(r)?),
            OpCode::Reconfig => Self::Reconfig {
                joining: r.string()?,
                leaving: r.string()?,
                new_members: r.string()?,
                config_id: r.long()?,
            },
            OpCode::CheckWatches => Self::CheckWatches { path: r.string()?, kind: r.int()? },
            OpCode::RemoveWatches => Self::RemoveWatches { path: r.string()?, kind: r.int()? },
            OpCode::DeleteContainer => Self::DeleteContainer { path: r.string()? },
            OpCode::Auth => {
                let _type = r.int()?;
                Self::Auth { scheme: r.string()?, auth: r.buffer()?.unwrap_or_default() }
            }
            OpCode::SetWatches | OpCode::SetWatches2 => {
                let mut watches = SetWatches {
                    relative_zxid: r.long()?,
                    data: r.strings()?,
                    exist: r.strings()?,
                    child: r.strings()?,
                    ..SetWatches::default()
                };
                if op == OpCode::SetWatches {
                    return Ok(Self::SetWatches(watches));
                }
                watches.persistent = r.strings()?;
                watches.recursive = r.strings()?;
                Self::SetWatches2(watches)
            }
            OpCode::Sasl => Self::Sasl { token: r.buffer()?.unwrap_or_default() },
            OpCode::GetEphemerals => Self::GetEphemerals { prefix: r.string()? },
            OpCode::GetAllChildrenNumber => Self::GetAllChildrenNumber { path: r.string()? },
            OpCode::AddWatch => Self::AddWatch { path: r.string()?, mode: r.int()? },
            OpCode::WhoAmI => Self::WhoAmI,
            OpCode::Operator => {
                Self::Operator { name: r.string()?, body: r.buffer()?.unwrap_or_default() }
            }
            OpCode::CreateSession => Self::CreateSession,
            OpCode::CloseSession => Self::CloseSession,
        })
    }

    /// Which operation it is.
    pub fn opcode(&self) -> OpCode {
        match self {
            Self::Create(create) => create.op,
            Self::Delete { .. } => OpCode::Delete,
            Self::Exists { .. } => OpCode::Exists,
            Self::GetData { .. } => OpCode::GetData,
            Self::SetData { .. } => OpCode::SetData,
            Self::GetAcl { .. } => OpCode::GetAcl,
            Self::SetAcl { .. } => OpCode::SetAcl,
            Self::GetChildren { .. } => OpCode::GetChildren,
            Self::GetChildren2 { .. } => OpCode::GetChildren2,
            Self::Sync { .. } => OpCode::Sync,
            Self::Ping => OpCode::Ping,
            Self::Check { .. } => OpCode::Check,
            Self::Multi(_) => OpCode::Multi,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::Reconfig { .. } => OpCode::Reconfig,
            Self::CheckWatches { .. } => OpCode::CheckWatches,
            Self::RemoveWatches { .. } => OpCode::RemoveWatches,
            Self::DeleteContainer { .. } => OpCode::DeleteContainer,
            Self::Auth { .. } => OpCode::Auth,
            Self::SetWatches(_) => OpCode::SetWatches,
            Self::SetWatches2(_) => OpCode::SetWatches2,
            Self::Sasl { .. } => OpCode::Sasl,
            Self::GetEphemerals { .. } => OpCode::GetEphemerals,
            Self::GetAllChildrenNumber { .. } => OpCode::GetAllChildrenNumber,
            Self::AddWatch { .. } => OpCode::AddWatch,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::Operator { .. } => OpCode::Operator,
            Self::CreateSession => OpCode::CreateSession,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    /// Appends the request as a whole frame, as a client sends it.
    pub fn encode(&self, xid: i32, out: &mut BytesMut) {
        frame(out, |w| {
            RequestHeader { xid, opcode: self.opcode() as i32 }.encode(w);
            self.encode_body(w);
        });
    }

    fn encode_body(&self, w: &mut Writer<'_>) {
        match self {
            Self::Create(create) => create.encode(w),
            Self::Exists { path, watch }
            | Self::GetData { path, watch }
            | Self::GetChildren { path, watch }
            | Self::GetChildren2 { path, watch } => {
                w.string(path);
                w.boolean(*watch);
            }
            Self::SetData { path, data, version } => {
                w.string(path);
                w.buffer(data.as_deref());
                w.int(*version);
            }
            Self::SetAcl { path, acl, version } => {
                w.string(path);
                Acl::encode_all(acl, w);
                w.int(*version);
            }
            Self::GetAcl { path }
            | Self::Sync { path }
            | Self::DeleteContainer { path }
            | Self::GetAllChildrenNumber { path }
            | Self::GetEphemerals { prefix: path } => w.string(path),
            Self::Delete { path, version: number }
            | Self::Check { path, version: number }
            | Self::CheckWatches { path, kind: number }
            | Self::RemoveWatches { path, kind: number }
            | Self::AddWatch { path, mode: number } => {
                w.string(path);
                w.int(*number);
            }
            Self::Multi(ops) => MultiOp::encode_all(ops, w),
            Self::MultiRead(ops) => ReadOp::encode_all(ops, w),
            Self::Reconfig { joining, leaving, new_members, config_id } => {
                w.string(joining);
                w.string(leaving);
                w.string(new_members);
                w.long(*config_id);
            }
            Self::Auth { scheme, auth } => {
                w.int(0);
                w.string(scheme);
                w.buffer(Some(auth));
            }
            Self::SetWatches(watches) => watches.encode(w),
            Self::SetWatches2(watches) => {
                watches.encode(w);
                w.strings(&watches.persistent);
                w.strings(&watches.recursive);
            }
            Self::Sasl { token } => w.buffer(Some(token)),
            Self::Operator { name, body } => {
                w.string(name);
                w.buffer(Some(body));
            }
            Self::Ping | Self::WhoAmI | Self::CreateSession | Self::CloseSession => {}
        }
    }
}

impl SetWatches {
    fn encode(&self, w: &mut Writer<'_>) {
        w.long(self.relative_zxid);
        w.strings(&self.data);
        w.strings(&self.exist);
        w.strings(&self.child);
    }
}
