//! `delete`, and deletion by the server itself.

use proto::{ErrorCode, OpCode, Perms, Reply};

use crate::change::Change;
use crate::fault::Fault;
use crate::hooks::Cause;
use crate::keys::{self, Keyspace};
use crate::ops::{About, By, Context, Stop, Wanted, check_version, is_shown, observe, raw_parent};
use crate::quota::{self, QuotaPaths};
use crate::txn::{self, Txn};
use crate::znode::{Data, Owner};

/// Znodes that stay (`ZKDatabase.isSpecialPath`).
const SPECIAL: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

pub(crate) fn delete(
    txn: &mut Txn<'_>,
    cx: &mut Context<'_>,
    path: &str,
    version: i32,
) -> Result<Reply, Stop> {
    let parent_path = raw_parent(path)?;
    if SPECIAL.contains(&path) || is_shown(txn, path) {
        return Err(ErrorCode::BadArguments.into());
    }
    let parent = txn.node(parent_path)?.ok_or(ErrorCode::NoNode)?;
    cx.may(txn, &parent, Perms::DELETE, About(OpCode::Delete, path, parent_path))?;
    let node = txn.node(path)?.ok_or(ErrorCode::NoNode)?;
    check_version(node.version, version)?;
    if node.children > 0 {
        return Err(ErrorCode::NotEmpty.into());
    }
    let (owner, before) = (node.owner, Some(node.as_ref()));
    let wanted = Wanted { data: None, acl: &[], owner, version, before };
    cx.guard(txn, (OpCode::Delete, path), wanted)?;
    let by = By { cause: Cause::Client, identities: cx.identities };
    remove(txn, cx.quotas, by, path)?;
    Ok(Reply::Empty)
}

/// Deletes a container or TTL node that the leader found due, if it still is.
pub(crate) fn reap(txn: &mut Txn<'_>, quotas: &mut QuotaPaths, path: &str) -> Result<bool, Fault> {
    match txn.node(path)? {
        Some(node) if txn::may_reap(&node, txn.time_ms) => remove(txn, quotas, By::DUE, path),
        _ => Ok(false),
    }
}

/// Deletes a znode without children, whoever wants it gone; false if there is none.
pub(crate) fn remove(
    txn: &mut Txn<'_>,
    quotas: &mut QuotaPaths,
    by: By<'_>,
    path: &str,
) -> Result<bool, Fault> {
    let Some(node) = txn.node(path)? else { return Ok(false) };
    let Some((parent_path, _)) = proto::path::split(path) else { return Ok(false) };
    let (shared, _) = txn.put_node(path, None)?;
    if let Data::Large(_) = node.data {
        txn.put_data(path, None);
    }
    if let Owner::Session(session) = node.owner {
        txn.put_row(Keyspace::Ephemerals, keys::number_path(session, path), None)?;
    }
    let parent = txn.node(parent_path)?;
    let parent_acl = parent.as_ref().map_or_else(|| node.acl.clone(), |p| p.acl.clone());
    if let Some(parent) = parent {
        let mut parent = (*parent).clone();
        parent.children = parent.children.saturating_sub(1);
        parent.pzxid = txn.zxid;
        txn.put_node(parent_path, Some(parent))?;
    }
    quotas.deleted(path);
    quota::add(txn, quotas, path, -i64::from(node.data_bytes()), -1)?;
    observe(txn, by, (OpCode::Delete, path), None, (Some(&node), None))?;
    txn.changes.push(Change::Deleted { path: shared, acl: node.acl.clone(), parent_acl });
    Ok(true)
}
