//! `setData`, `setACL`, and `check`.

use bytes::Bytes;
use proto::{ErrorCode, Perms, Reply};

use crate::access;
use crate::change::Change;
use crate::ops::{Context, Stop, check_version, existing};
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
    cx.may(txn, &before, Perms::WRITE)?;
    let bytes = data.as_ref().map_or(0, |d| d.len() as i64) - i64::from(before.data_bytes());
    quota::check(txn, cx.quotas, path, bytes, 0)?;
    check_version(before.version, version)?;

    let mut node = before.without_data();
    node.version = node.version.wrapping_add(1);
    node.mzxid = txn.zxid;
    node.mtime = txn.time_ms;
    let long = node.set_data(data);
    if long.is_some() || matches!(before.data, Data::Large(_)) {
        txn.put_data(path, long.clone());
    }
    let stat = node.stat();
    let (shared, _) = txn.put_node(path, Some(node))?;
    quota::add(txn, cx.quotas, path, bytes, 0)?;
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
    let acl = access::resolve(acl, cx.identities)?;
    let before = existing(txn, path)?;
    cx.may(txn, &before, Perms::ADMIN)?;
    check_version(before.aversion, version)?;

    let mut node = (*before).clone();
    node.aversion = node.aversion.wrapping_add(1);
    (node.acl_id, node.acl) = txn.intern(acl)?;
    let stat = node.stat();
    txn.put_node(path, Some(node))?;
    Ok(Reply::Stat(stat))
}

pub(crate) fn check(
    txn: &mut Txn<'_>,
    cx: &mut Context<'_>,
    path: &str,
    version: i32,
) -> Result<Reply, Stop> {
    let node = existing(txn, path)?;
    cx.may(txn, &node, Perms::READ)?;
    check_version(node.version, version)?;
    Ok(Reply::Empty)
}
