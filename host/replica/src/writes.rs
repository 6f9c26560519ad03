//! Turns a client's request into what stands in the log.
//!
//! The log's encoding is not the client's: each may change without the other.

use proto::request::Create;
use proto::{Acl, ErrorCode, MultiOp, OpCode, Request};
use state::Op;
use state::command::CreateKind;

/// A request, by the way that it goes.
pub(crate) enum Sorted {
    /// Through the log.
    Write(Op),
    /// Answered by the connection.
    Other(Request),
}

/// The write that a request asks for, or the request itself if it is not a write.
pub(crate) fn sort(request: Request, reconfig_enabled: bool) -> Sorted {
    Sorted::Write(match request {
        Request::Create(new) => create(new),
        Request::Delete { path, version } => Op::Delete { path, version },
        Request::SetData { path, data, version } => Op::SetData { path, data, version },
        Request::SetAcl { path, acl: list, version } => {
            Op::SetAcl { path, acl: acl(list), version }
        }
        Request::Multi(ops) => Op::Multi(ops.into_iter().map(multi).collect()),
        // One server cannot be reconfigured; ZooKeeper says so in two ways.
        Request::Reconfig { .. } if reconfig_enabled => {
            Op::Refused(ErrorCode::Unimplemented.code())
        }
        Request::Reconfig { .. } => Op::Refused(ErrorCode::ReconfigDisabled.code()),
        other => return Sorted::Other(other),
    })
}

fn multi(op: MultiOp) -> Op {
    match op {
        MultiOp::Create(new) => create(new),
        MultiOp::Delete { path, version } => Op::Delete { path, version },
        MultiOp::SetData { path, data, version } => Op::SetData { path, data, version },
        MultiOp::Check { path, version } => Op::Check { path, version },
    }
}

fn create(new: Create) -> Op {
    Op::Create {
        kind: match new.op {
            OpCode::Create2 => CreateKind::Create2,
            OpCode::CreateContainer => CreateKind::Container,
            OpCode::CreateTtl => CreateKind::Ttl,
            _ => CreateKind::Create,
        },
        path: new.path,
        data: new.data,
        acl: acl(new.acl),
        flags: new.flags,
        ttl_ms: new.ttl_ms,
    }
}

fn acl(list: Vec<Acl>) -> Vec<(i32, String, String)> {
    list.into_iter().map(|acl| (acl.perms, acl.id.scheme, acl.id.id)).collect()
}
