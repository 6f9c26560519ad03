//! One function per operation. Each reads top to bottom in ZooKeeper's order of checks
//! (`PrepRequestProcessor`): arguments, ACL, versions, limits; then it changes the tree and records
//! the change.

mod create;
mod delete;
mod multi;
mod plugin;
mod reconfig;
pub(crate) mod session;
mod set;

use std::sync::Arc;

use proto::{Acl, ErrorCode, Id, OpCode, Reply};

use crate::command::Op;
use crate::fault::Fault;
use crate::hooks::{Cause, Changed, Check, Operation};
use crate::plugins::points;
use crate::quota::QuotaPaths;
use crate::txn::Txn;
use crate::znode::{Owner, Znode};

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
}

/// What an ACL is consulted for: the operation and the path that it is about, and whose ACL it is.
struct About<'a>(OpCode, &'a str, &'a str);

impl Context<'_> {
    fn may(
        &self,
        txn: &mut Txn<'_>,
        node: &Znode,
        permission: i32,
        About(operation, path, consulted): About<'_>,
    ) -> Result<(), Stop> {
        let (operation, identities, entry) = (operation as u16, self.identities, None);
        let check = Check { operation, path, consulted, permission, entry, identities };
        match txn.settings.skip_acl || points::may(txn, &node.acl, &check)? {
            true => Ok(()),
            false => Err(ErrorCode::NoAuth.into()),
        }
    }

    /// Asks the guards whether a change may be made.
    fn guard(
        &self,
        txn: &mut Txn<'_>,
        (operation, path): (OpCode, &str),
        Wanted { data, acl, owner, version, before }: Wanted<'_>,
    ) -> Result<(), Stop> {
        if txn.plugins.registry.is_empty() {
            return Ok(());
        }
        let (index, of_multi) = txn.plugins.operation;
        let before = before.map(Znode::stat);
        let operation = Operation {
            operation: operation as u16,
            path,
            data,
            acl,
            owner: owner.into(),
            version,
            before: before.as_ref(),
            identities: self.identities,
            index,
            of_multi,
        };
        points::guard(txn, &operation)
    }

    fn by(&self) -> By<'_> {
        By { cause: Cause::Client, identities: self.identities }
    }
}

/// What is to become of a znode, for guards.
struct Wanted<'a> {
    data: Option<&'a [u8]>,
    acl: &'a [Acl],
    owner: Owner,
    version: i32,
    before: Option<&'a Znode>,
}

/// Tells the observers what became of a znode: what it was, and what it is now.
fn observe(
    txn: &mut Txn<'_>,
    by: By<'_>,
    (operation, path): (OpCode, &str),
    data: Option<&[u8]>,
    (before, after): (Option<&Znode>, Option<&Znode>),
) -> Result<(), Fault> {
    if txn.plugins.registry.is_empty() {
        return Ok(());
    }
    let owner = after.or(before).map_or(Owner::Persistent, |node| node.owner);
    let (before, after) = (before.map(Znode::stat), after.map(Znode::stat));
    let changed = Changed {
        operation: operation as u16,
        cause: by.cause,
        path,
        data,
        owner: owner.into(),
        before: before.as_ref(),
        after: after.as_ref(),
        identities: by.identities,
    };
    points::observe(txn, &changed)
}

/// On whose account something is deleted.
#[derive(Clone, Copy)]
pub(crate) struct By<'a> {
    pub(crate) cause: Cause,
    pub(crate) identities: &'a [Id],
}

impl By<'_> {
    /// That of a session that ended.
    pub(crate) const SESSION_END: Self = Self { cause: Cause::SessionEnd, identities: &[] };
    /// That of a container or a TTL node that is due.
    pub(crate) const DUE: Self = Self { cause: Cause::Due, identities: &[] };
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
pub(crate) use plugin::plugin;
pub(crate) use reconfig::{locate, reconfig};

/// Whether clients cannot change this znode because the system shows its plugins there.
fn is_shown(txn: &Txn<'_>, path: &str) -> bool {
    txn.settings.has_plugins() && crate::plugins::znodes::is_shown(path)
}

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
