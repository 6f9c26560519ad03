//! `setData`, `setACL`, and `check`.

use bytes::Bytes;
use proto::{ErrorCode, OpCode, Perms, Reply};

use crate::access;
use crate::change::Change;
use crate::ops::{About, Context, Stop, Wanted, check_version, existing, is_shown, observe};
use crate::quota;
use crate::txn::Txn;
use crate::znode::Data;

pub(crate) fn data(
    txn: &mut Txn<'_>,
    cx: &mut Context<'_>,
    path: &str,
    data: Option<Bytes>,
    version: i32,
) -> Result<Reply, Stop> {
    let before = existing(txn, path)?;
    if is_shown(txn, path) {
        return Err(ErrorCode::BadArguments.into());
    }
    cx.may(txn, &before, Perms::WRITE, About(OpCode::SetData, path, path))?;
    let bytes = data.as_ref().map_or(0, |d| d.len() as i64) - i64::from(before.data_bytes());
    quota::check(txn, cx.quotas, path, bytes, 0)?;
    check_version(before.version, version)?;
    let (owner, known) = (before.owner, Some(before.as_ref()));
    let wanted = Wanted { data: data.as_deref(), acl: &[], owner, version, before: known };
    cx.guard(txn, (OpCode::SetData, path), wanted)?;

    let mut node = before.without_data();
    node.version = node.version.wrapping_add(1);
    node.mzxid = txn.zxid;
    node.mtime = txn.time_ms;
    let long = node.set_data(data);
    if long.is_some() || matches!(before.data, Data::Large(_)) {
        txn.put_data(path, long.clone());
    }
    let stat = node.stat();
    let (shared, node) = txn.put_node(path, Some(node))?;
    quota::add(txn, cx.quotas, path, bytes, 0)?;
    let data = long.as_deref().or_else(|| node.as_ref()?.inline_data());
    observe(txn, cx.by(), (OpCode::SetData, path), data, (Some(&before), node.as_deref()))?;
    txn.changes.push(Change::DataSet { path: shared, acl: before.acl.clone() });
    Ok(Reply::Stat(stat))
}

pub(crate) fn acl(
    txn: &mut Txn<'_>,
    cx: &mut Context<'_>,
    path: &str,
    acl: &[(i32, String, String)],
    version: i32,
) -> Result<Reply, Stop> {
    proto::path::validate(path).map_err(|_| ErrorCode::BadArguments)?;
    let acl =
        access::resolve(acl, cx.identities, |scheme| txn.plugins.registry.has_scheme(scheme))?;
    let before = existing(txn, path)?;
    if is_shown(txn, path) {
        return Err(ErrorCode::BadArguments.into());
    }
    cx.may(txn, &before, Perms::ADMIN, About(OpCode::SetAcl, path, path))?;
    check_version(before.aversion, version)?;
    let (owner, known) = (before.owner, Some(before.as_ref()));
    let wanted = Wanted { data: None, acl: &acl, owner, version, before: known };
    cx.guard(txn, (OpCode::SetAcl, path), wanted)?;

    let mut node = (*before).clone();
    node.aversion = node.aversion.wrapping_add(1);
    (node.acl_id, node.acl) = txn.intern(acl)?;
    let stat = node.stat();
    let (_, node) = txn.put_node(path, Some(node))?;
    observe(txn, cx.by(), (OpCode::SetAcl, path), None, (Some(&before), node.as_deref()))?;
    Ok(Reply::Stat(stat))
}

pub(crate) fn check(
    txn: &mut Txn<'_>,
    cx: &mut Context<'_>,
    path: &str,
    version: i32,
) -> Result<Reply, Stop> {
    let node = existing(txn, path)?;
    cx.may(txn, &node, Perms::READ, About(OpCode::Check, path, path))?;
    check_version(node.version, version)?;
    Ok(Reply::Empty)
}
