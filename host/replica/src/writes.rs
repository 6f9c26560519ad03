//! Turns a client's request into what stands in the log.
//!
//! The log's encoding is not the client's: each may change without the other.

use proto::request::Create;
use proto::{Acl, CreateMode, ErrorCode, Id, MultiOp, OpCode, Request};
use state::command::CreateKind;
use state::plugins::is_native_scheme;
use state::{Op, Reconfig};

use crate::connection::Policy;

/// A request, by the way that it goes.
pub(crate) enum Sorted {
    /// Through the log.
    Write(Op),
    /// Answered by the connection.
    Other(Request),
    /// It cannot be decoded.
    Malformed,
    /// There is no such operation for clients.
    Unknown,
}

/// The write that a request asks for, or the request itself if it is not a write.
pub(crate) fn sort(request: Request, policy: &Policy) -> Sorted {
    Sorted::Write(match request {
        Request::Create(new) => create(new, policy),
        Request::Delete { path, version } => Op::Delete { path, version },
        Request::SetData { path, data, version } => Op::SetData { path, data, version },
        Request::SetAcl { path, acl: list, version } => {
            Op::SetAcl { path, acl: acl(list, policy), version }
        }
        Request::Multi(ops) if ops.iter().any(is_malformed) => {
            Op::Refused(ErrorCode::MarshallingError.code())
        }
        Request::Multi(ops) => Op::Multi(ops.into_iter().map(|op| multi(op, policy)).collect()),
        Request::Reconfig { .. } if !policy.reconfig_enabled => {
            Op::Refused(ErrorCode::ReconfigDisabled.code())
        }
        Request::Reconfig { joining, leaving, new_members, config_id } if policy.ensemble => {
            Op::Reconfig(Reconfig { joining, leaving, servers: new_members, version: config_id })
        }
        // A server that is alone cannot be reconfigured.
        Request::Reconfig { .. } => Op::Refused(ErrorCode::Unimplemented.code()),
        other => return Sorted::Other(other),
    })
}

/// What becomes of a request that cannot be decoded: a multi takes a zxid all the same.
pub(crate) fn malformed(op: OpCode) -> Sorted {
    match op {
        OpCode::Multi => Sorted::Write(Op::Refused(ErrorCode::MarshallingError.code())),
        _ => Sorted::Malformed,
    }
}

/// ZooKeeper looks at the flags of these while it decodes a multi, which then fails as a whole
/// (`MultiOperationRecord`).
fn is_malformed(op: &MultiOp) -> bool {
    let MultiOp::Create(new) = op else { return false };
    new.op != OpCode::CreateTtl && CreateMode::from_flags(new.flags).is_none_or(CreateMode::is_ttl)
}

/// A create of a multi, whose flags choose which of the four it is (`Op.Create.getOpcode`).
fn multi_create(new: Create) -> Create {
    match CreateMode::from_flags(new.flags) {
        Some(CreateMode::Container) => Create { op: OpCode::CreateContainer, ttl_ms: -1, ..new },
        Some(mode) if mode.is_ttl() => new,
        _ if new.op == OpCode::CreateTtl => Create { op: OpCode::Create, ttl_ms: -1, ..new },
        _ => new,
    }
}

fn multi(op: MultiOp, policy: &Policy) -> Op {
    match op {
        MultiOp::Create(new) => create(multi_create(new), policy),
        MultiOp::Delete { path, version } => Op::Delete { path, version },
        MultiOp::SetData { path, data, version } => Op::SetData { path, data, version },
        MultiOp::Check { path, version } => Op::Check { path, version },
    }
}

fn create(new: Create, policy: &Policy) -> Op {
    Op::Create {
        kind: match new.op {
            OpCode::Create2 => CreateKind::Create2,
            OpCode::CreateContainer => CreateKind::Container,
            OpCode::CreateTtl => CreateKind::Ttl,
            _ => CreateKind::Create,
        },
        path: new.path,
        data: new.data,
        acl: acl(new.acl, policy),
        flags: new.flags,
        ttl_ms: new.ttl_ms,
    }
}

/// An ACL as the client gave it. Which of the schemes that are built in there are is this server's
/// configuration, and is settled before the log: one that there is not has no name there, and is refused
/// when it is applied, in its turn among the other checks. Whether a plugin decides another one is known
/// there only.
fn acl(list: Vec<Acl>, policy: &Policy) -> Vec<(i32, String, String)> {
    let known = |scheme: &String| {
        let is_built_in = is_native_scheme(scheme);
        !is_built_in
            || matches!(scheme.as_str(), "world" | "auth")
            || policy.acl_schemes.contains(scheme)
    };
    list.into_iter()
        .map(|Acl { perms, id: Id { scheme, id } }| {
            let scheme = if known(&scheme) { scheme } else { String::new() };
            (perms, scheme, id)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proto::Request;

    use super::*;

    fn sorted(op: OpCode, flags: i32, ttl_ms: i64, scheme: &str) -> Op {
        let acl = vec![Acl { perms: 31, id: Id::new(scheme, "x") }];
        let new = Create { op, path: "/a".into(), data: None, acl, flags, ttl_ms };
        let policy = Policy {
            timeout_ms_min: 1,
            timeout_ms_max: 1,
            required_schemes: Vec::new(),
            sasl_failures_allowed: false,
            ensemble: false,
            local_sessions: false,
            upgrades_sessions: false,
            linearizable: false,
            reconfig_enabled: false,
            acl_schemes: vec!["digest".into()],
        };
        match sort(Request::Multi(vec![MultiOp::Create(new)]), &policy) {
            Sorted::Write(Op::Multi(mut ops)) => ops.remove(0),
            Sorted::Write(op) => op,
            Sorted::Other(_) | Sorted::Malformed | Sorted::Unknown => panic!("not a write"),
        }
    }

    #[test]
    fn flags_decide_what_a_create_in_a_multi_is() {
        let kind = |op, flags, ttl_ms| match sorted(op, flags, ttl_ms, "digest") {
            Op::Create { kind, ttl_ms, .. } => Ok((kind, ttl_ms)),
            Op::Refused(code) => Err(code),
            other => panic!("not a create: {other:?}"),
        };
        assert_eq!(kind(OpCode::Create2, 0, -1), Ok((CreateKind::Create2, -1)));
        assert_eq!(kind(OpCode::Create, 4, -1), Ok((CreateKind::Container, -1)));
        assert_eq!(kind(OpCode::CreateTtl, 0, 5), Ok((CreateKind::Create, -1)));
        assert_eq!(kind(OpCode::CreateTtl, 5, 0), Ok((CreateKind::Ttl, 0)));
        for flags in [5, 6, 7, -1] {
            assert_eq!(kind(OpCode::Create, flags, -1), Err(ErrorCode::MarshallingError.code()));
        }
    }

    #[test]
    fn an_acl_names_only_schemes_that_there_are() {
        for (scheme, kept) in [
            ("digest", "digest"),
            ("auth", "auth"),
            ("x509", ""),
            ("sasl", ""),
            // It may be a plugin's.
            ("token", "token"),
        ] {
            let Op::Create { acl, .. } = sorted(OpCode::Create, 0, -1, scheme) else {
                panic!("not a create");
            };
            assert_eq!(acl, [(31, kept.to_owned(), "x".to_owned())]);
        }
    }
}
