//! One function per operation. Each reads top to bottom in ZooKeeper's order of checks
//! (`PrepRequestProcessor`): arguments, ACL, versions, limits; then it changes the tree and records
//! the change.

mod create;
mod delete;
mod multi;
mod reconfig;
pub(crate) mod session;
mod set;

use std::sync::Arc;

use proto::{ErrorCode, Id, Reply};

use crate::access;
use crate::command::Op;
use crate::fault::Fault;
use crate::hooks::Hooks;
use crate::quota::QuotaPaths;
use crate::txn::Txn;
use crate::znode::Znode;

/// Why an operation did not happen: a rejection, which is data, or a fault, which stops the server.
#[derive(Debug)]
pub(crate) enum Stop {
    Rejected(ErrorCode),
    Fault(Fault),
}

impl From<ErrorCode> for Stop {
    fn from(code: ErrorCode) -> Self {
        Self::Rejected(code)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Who asks, and what the operation works on besides the transaction.
pub(crate) struct Context<'a> {
    pub(crate) session: i64,
    /// Whether the session is one that cannot have ephemerals.
    pub(crate) is_local: bool,
    pub(crate) identities: &'a [Id],
    pub(crate) quotas: &'a mut QuotaPaths,
    pub(crate) hooks: &'a dyn Hooks,
}

impl Context<'_> {
    fn may(&self, txn: &Txn<'_>, node: &Znode, perms: i32) -> Result<(), ErrorCode> {
        if txn.settings.skip_acl || access::allowed(&node.acl, perms, self.identities) {
            return Ok(());
        }
        Err(ErrorCode::NoAuth)
    }
}

/// Runs a client's write. On a rejection nothing of it is left in the transaction.
pub(crate) fn run(txn: &mut Txn<'_>, cx: &mut Context<'_>, op: Op) -> Result<Reply, Stop> {
    let op = match op {
        Op::Multi(ops) => return multi::multi(txn, cx, ops),
        single => single,
    };
    let mark = txn.mark();
    let result = single(txn, cx, op);
    if result.is_err() {
        txn.rollback(&mark);
        cx.quotas.rollback();
    }
    result
}

fn single(txn: &mut Txn<'_>, cx: &mut Context<'_>, op: Op) -> Result<Reply, Stop> {
    match op {
        Op::Create { kind, path, data, acl, flags, ttl_ms } => {
            create::create(txn, cx, create::New { kind, path, data, acl, flags, ttl_ms })
        }
        Op::Delete { path, version } => delete::delete(txn, cx, &path, version),
        Op::SetData { path, data, version } => set::data(txn, cx, &path, data, version),
        Op::SetAcl { path, acl, version } => set::acl(txn, cx, &path, &acl, version),
        Op::Check { path, version } => set::check(txn, cx, &path, version),
        Op::Refused(code) => {
            Err(ErrorCode::from_i32(code).unwrap_or(ErrorCode::SystemError).into())
        }
        // Neither stands in a multi, and this is not reached otherwise.
        Op::Multi(_) | Op::Reconfig(_) => Err(ErrorCode::MarshallingError.into()),
    }
}

pub(crate) use delete::{reap, remove};
pub(crate) use reconfig::{locate, reconfig};

/// The znode at a path that a client gave, which must be valid.
fn existing(txn: &mut Txn<'_>, path: &str) -> Result<Arc<Znode>, Stop> {
    proto::path::validate(path).map_err(|_| ErrorCode::BadArguments)?;
    Ok(txn.node(path)?.ok_or(ErrorCode::NoNode)?)
}

fn check_version(current: i32, expected: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == current { Ok(()) } else { Err(ErrorCode::BadVersion) }
}

/// The parent of a path that has not been validated yet, as ZooKeeper finds it: all before the
/// last slash, the empty path being the root.
fn raw_parent(path: &str) -> Result<&str, ErrorCode> {
    if path.contains('\0') || path.len() > proto::path::PATH_BYTES_MAX {
        return Err(ErrorCode::BadArguments);
    }
    match path.rsplit_once('/') {
        None => Err(ErrorCode::BadArguments),
        Some(("", _)) => Ok("/"),
        Some((parent, _)) => Ok(parent),
    }
}
