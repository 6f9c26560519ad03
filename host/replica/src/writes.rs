//! Turns a client's request into what stands in the log.
//!
//! The log's encoding is not the client's: each may change without the other.

use proto::request::Create;
use proto::{Acl, ErrorCode, MultiOp, OpCode, Request};
use state::Op;
use state::command::CreateKind;

/// The write that a request asks for; `None` if it is not a write.
pub(crate) fn op(request: &Request, reconfig_enabled: bool) -> Option<Op> {
    Some(match request {
        Request::Create(new) => create(new),
        Request::Delete { path, version } => Op::Delete { path: path.clone(), version: *version },
        Request::SetData { path, data, version } => {
            Op::SetData { path: path.clone(), data: data.clone(), version: *version }
        }
        Request::SetAcl { path, acl: list, version } => {
            Op::SetAcl { path: path.clone(), acl: acl(list), version: *version }
        }
        Request::Multi(ops) => Op::Multi(ops.iter().map(multi).collect()),
        // One server cannot be reconfigured; ZooKeeper says so in two ways.
        Request::Reconfig { .. } if reconfig_enabled => {
            Op::Refused(ErrorCode::Unimplemented.code())
        }
        Request::Reconfig { .. } => Op::Refused(ErrorCode::ReconfigDisabled.code()),
        _ => return None,
    })
}

fn multi(op: &MultiOp) -> Op {
    match op {
        MultiOp::Create(new) => create(new),
        MultiOp::Delete { path, version } => Op::Delete { path: path.clone(), version: *version },
        MultiOp::SetData { path, data, version } => {
            Op::SetData { path: path.clone(), data: data.clone(), version: *version }
        }
        MultiOp::Check { path, version } => Op::Check { path: path.clone(), version: *version },
    }
}

fn create(new: &Create) -> Op {
    Op::Create {
        kind: match new.op {
            OpCode::Create2 => CreateKind::Create2,
            OpCode::CreateContainer => CreateKind::Container,
            OpCode::CreateTtl => CreateKind::Ttl,
            _ => CreateKind::Create,
        },
        path: new.path.clone(),
        data: new.data.clone(),
        acl: acl(&new.acl),
        flags: new.flags,
        ttl_ms: new.ttl_ms,
    }
}

fn acl(list: &[Acl]) -> Vec<(i32, String, String)> {
    list.iter().map(|acl| (acl.perms, acl.id.scheme.clone(), acl.id.id.clone())).collect()
}
