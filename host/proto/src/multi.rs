//! `multi` and `multiRead`: several operations in one request.
//!
//! Body and reply are the same shape: a header (type, done, error) before each item, and a last
//! header with `done` set. A multi holds creates, deletes, sets and checks only, a multiRead holds
//! getData and getChildren only; anything else fails the whole request (MARSHALLINGERROR).

use bytes::Bytes;

use crate::acl::Acl;
use crate::codec::{Reader, Writer};
use crate::error::DecodeError;
use crate::opcode::OpCode;
use crate::request::Create;
use crate::stat::Stat;

/// One operation of a multi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiOp {
    /// Any of the four creates.
    Create(Create),
    /// `delete`.
    Delete {
        /// Which znode.
        path: String,
        /// Its data version, or -1 for any.
        version: i32,
    },
    /// `setData`.
    SetData {
        /// Which znode.
        path: String,
        /// The new data.
        data: Option<Bytes>,
        /// Its data version, or -1 for any.
        version: i32,
    },
    /// `check`.
    Check {
        /// Which znode.
        path: String,
        /// Its data version, or -1 for any.
        version: i32,
    },
}

/// One operation of a multiRead. Watch flags are ignored there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOp {
    /// `getData`.
    GetData(String),
    /// `getChildren`.
    GetChildren(String),
}

/// What one operation of a multi did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiResult {
    /// A `create`.
    Create(String),
    /// A `create2`, `createContainer` or `createTTL`.
    Create2(String, Stat),
    /// A `delete`.
    Delete,
    /// A `setData`.
    SetData(Stat),
    /// A `check`.
    Check,
    /// The error of an operation of a failed multi: 0 before the one that failed,
    /// RUNTIMEINCONSISTENCY after it.
    Error(i32),
}

/// What one operation of a multiRead found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadResult {
    /// A `getData`.
    Data(Option<Bytes>, Stat),
    /// A `getChildren`.
    Children(Vec<String>),
    /// Its error; the others are not touched by it.
    Error(i32),
}

struct Header {
    kind: i32,
    done: bool,
}

fn header(r: &mut Reader) -> Result<Header, DecodeError> {
    let header = Header { kind: r.int()?, done: r.boolean()? };
    let _err = r.int()?;
    Ok(header)
}

fn put_header(w: &mut Writer<'_>, kind: i32, done: bool, err: i32) {
    w.int(kind);
    w.boolean(done);
    w.int(err);
}

impl MultiOp {
    /// Reads all operations of a multi.
    ///
    /// # Errors
    /// [`DecodeError`] if one is truncated or of a type that a multi may not hold.
    pub fn decode_all(r: &mut Reader) -> Result<Vec<Self>, DecodeError> {
        let mut ops = Vec::new();
        loop {
            let h = header(r)?;
            if h.done {
                return Ok(ops);
            }
            ops.push(match OpCode::from_i32(h.kind) {
                Some(
                    op @ (OpCode::Create
                    | OpCode::Create2
                    | OpCode::CreateContainer
                    | OpCode::CreateTtl),
                ) => Self::Create(Create::decode(op, r)?),
                Some(OpCode::Delete) => Self::Delete { path: r.string()?, version: r.int()? },
                Some(OpCode::SetData) => {
                    Self::SetData { path: r.string()?, data: r.buffer()?, version: r.int()? }
                }
                Some(OpCode::Check) => Self::Check { path: r.string()?, version: r.int()? },
                _ => {
                    return Err(DecodeError::Unknown { what: "multi operation", number: h.kind });
                }
            });
        }
    }

    /// Writes all operations of a multi.
    pub fn encode_all(ops: &[Self], w: &mut Writer<'_>) {
        for op in ops {
            match op {
                Self::Create(create) => {
                    put_header(w, create.op as i32, false, -1);
                    create.encode(w);
                }
                Self::Delete { path, version } => {
                    put_header(w, OpCode::Delete as i32, false, -1);
                    w.string(path);
                    w.int(*version);
                }
                Self::SetData { path, data, version } => {
                    put_header(w, OpCode::SetData as i32, false, -1);
                    w.string(path);
                    w.buffer(data.as_deref());
                    w.int(*version);
                }
                Self::Check { path, version } => {
                    put_header(w, OpCode::Check as i32, false, -1);
                    w.string(path);
                    w.int(*version);
                }
            }
        }
        put_header(w, -1, true, -1);
    }
}

impl ReadOp {
    /// Reads all operations of a multiRead.
    ///
    /// # Errors
    /// [`DecodeError`] if one is truncated or of a type that a multiRead may not hold.
    pub fn decode_all(r: &mut Reader) -> Result<Vec<Self>, DecodeError> {
        let mut ops = Vec::new();
        loop {
            let h = header(r)?;
            if h.done {
                return Ok(ops);
            }
            let path = match OpCode::from_i32(h.kind) {
                Some(OpCode::GetData | OpCode::GetChildren) => r.string()?,
                _ => {
                    return Err(DecodeError::Unknown {
                        what: "multiRead operation",
                        number: h.kind,
                    });
                }
            };
            let _watch = r.boolean()?;
            ops.push(if h.kind == OpCode::GetData as i32 {
                Self::GetData(path)
            } else {
                Self::GetChildren(path)
            });
        }
    }

    /// Writes all operations of a multiRead.
    pub fn encode_all(ops: &[Self], w: &mut Writer<'_>) {
        for op in ops {
            let (kind, path) = match op {
                Self::GetData(path) => (OpCode::GetData, path),
                Self::GetChildren(path) => (OpCode::GetChildren, path),
            };
            put_header(w, kind as i32, false, -1);
            w.string(path);
            w.boolean(false);
        }
        put_header(w, -1, true, -1);
    }
}

impl MultiResult {
    /// Reads all results of a multi.
    ///
    /// # Errors
    /// [`DecodeError`] if one is truncated or of an unknown type.
    pub fn decode_all(r: &mut Reader) -> Result<Vec<Self>, DecodeError> {
        let mut results = Vec::new();
        loop {
            let h = header(r)?;
            if h.done {
                return Ok(results);
            }
            results.push(match (h.kind, OpCode::from_i32(h.kind)) {
                (-1, _) => Self::Error(r.int()?),
                (_, Some(OpCode::Create)) => Self::Create(r.string()?),
                (_, Some(OpCode::Create2)) => Self::Create2(r.string()?, Stat::decode(r)?),
                (_, Some(OpCode::Delete)) => Self::Delete,
                (_, Some(OpCode::SetData)) => Self::SetData(Stat::decode(r)?),
                (_, Some(OpCode::Check)) => Self::Check,
                (number, _) => return Err(DecodeError::Unknown { what: "multi result", number }),
            });
        }
    }

    /// Writes all results of a multi.
    pub fn encode_all(results: &[Self], w: &mut Writer<'_>) {
        for result in results {
            match result {
                Self::Create(path) => {
                    put_header(w, OpCode::Create as i32, false, 0);
                    w.string(path);
                }
                Self::Create2(path, stat) => {
                    put_header(w, OpCode::Create2 as i32, false, 0);
                    w.string(path);
                    stat.encode(w);
                }
                Self::Delete => put_header(w, OpCode::Delete as i32, false, 0),
                Self::SetData(stat) => {
                    put_header(w, OpCode::SetData as i32, false, 0);
                    stat.encode(w);
                }
                Self::Check => put_header(w, OpCode::Check as i32, false, 0),
                Self::Error(code) => {
                    put_header(w, -1, false, *code);
                    w.int(*code);
                }
            }
        }
        put_header(w, -1, true, -1);
    }
}

impl ReadResult {
    /// Reads all results of a multiRead.
    ///
    /// # Errors
    /// [`DecodeError`] if one is truncated or of an unknown type.
    pub fn decode_all(r: &mut Reader) -> Result<Vec<Self>, DecodeError> {
        let mut results = Vec::new();
        loop {
            let h = header(r)?;
            if h.done {
                return Ok(results);
            }
            results.push(match (h.kind, OpCode::from_i32(h.kind)) {
                (-1, _) => Self::Error(r.int()?),
                (_, Some(OpCode::GetData)) => Self::Data(r.buffer()?, Stat::decode(r)?),
                (_, Some(OpCode::GetChildren)) => Self::Children(r.strings()?),
                (number, _) => return Err(DecodeError::Unknown { what: "read result", number }),
            });
        }
    }

    /// Writes all results of a multiRead.
    pub fn encode_all(results: &[Self], w: &mut Writer<'_>) {
        for result in results {
            match result {
                Self::Data(data, stat) => {
                    put_header(w, OpCode::GetData as i32, false, 0);
                    w.buffer(data.as_deref());
                    stat.encode(w);
                }
                Self::Children(names) => {
                    put_header(w, OpCode::GetChildren as i32, false, 0);
                    w.strings(names);
                }
                Self::Error(code) => {
                    put_header(w, -1, false, *code);
                    w.int(*code);
                }
            }
        }
        put_header(w, -1, true, -1);
    }
}

impl Create {
    /// Reads the body of a create of this kind.
    ///
    /// # Errors
    /// [`DecodeError`] if it is truncated.
    pub fn decode(op: OpCode, r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            op,
            path: r.string()?,
            data: r.buffer()?,
            acl: Acl::decode_all(r)?,
            flags: r.int()?,
            ttl_ms: if op == OpCode::CreateTtl { r.long()? } else { -1 },
        })
    }

    /// Writes the body.
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.string(&self.path);
        w.buffer(self.data.as_deref());
        Acl::encode_all(&self.acl, w);
        w.int(self.flags);
        if self.op == OpCode::CreateTtl {
            w.long(self.ttl_ms);
        }
    }
}
