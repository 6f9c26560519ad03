//! `create`, `create2`, `createContainer`, `createTTL`.

use bytes::Bytes;
use proto::{CreateMode, ErrorCode, OpCode, Perms, Reply};

use crate::access;
use crate::change::Change;
use crate::command::CreateKind;
use crate::keys::{self, Keyspace};
use crate::ops::{About, Context, Stop, Wanted, is_shown, observe, raw_parent};
use crate::quota;
use crate::txn::Txn;
use crate::znode::{Data, Hash128, Owner, RowHash, Znode};

/// What a create was given.
pub(crate) struct New {
    pub(crate) kind: CreateKind,
    pub(crate) path: String,
    pub(crate) data: Option<Bytes>,
    pub(crate) acl: Vec<(i32, String, String)>,
    pub(crate) flags: i32,
    pub(crate) ttl_ms: i64,
}

pub(crate) fn create(txn: &mut Txn<'_>, cx: &mut Context<'_>, new: New) -> Result<Reply, Stop> {
    let mode = CreateMode::from_flags(new.flags).ok_or(ErrorCode::BadArguments)?;
    if mode.is_ttl() && !txn.settings.ttl_nodes {
        return Err(ErrorCode::Unimplemented.into());
    }
    if (mode.is_ttl() && !CreateMode::ttl_fits(new.ttl_ms)) || (!mode.is_ttl() && new.ttl_ms >= 0) {
        return Err(ErrorCode::BadArguments.into());
    }
    if cx.is_local && mode.is_ephemeral() {
        return Err(ErrorCode::EphemeralOnLocalSession.into());
    }
    let parent_bytes = raw_parent(&new.path)?.len();
    let acl = match access::is_open(&new.acl) {
        true => None,
        false => {
            let knows = |scheme: &str| txn.plugins.registry.has_scheme(scheme);
            Some(access::resolve(&new.acl, cx.identities, knows)?)
        }
    };
    let mut parent = (*txn.node(&new.path[..parent_bytes])?.ok_or(ErrorCode::NoNode)?).clone();
    let about = About(OpCode::Create, &new.path, &new.path[..parent_bytes]);
    cx.may(txn, &parent, Perms::CREATE, about)?;
    let path = if mode.is_sequential() {
        let number = match txn.mutants.reuse_sequence_numbers {
            false => parent.creates,
            true => parent.children as i32,
        };
        format!("{}{number:010}", new.path)
    } else {
        new.path
    };
    proto::path::validate(&path).map_err(|_| ErrorCode::BadArguments)?;
    if is_shown(txn, &path) {
        return Err(ErrorCode::BadArguments.into());
    }
    if txn.node(&path)?.is_some() {
        return Err(ErrorCode::NodeExists.into());
    }
    if matches!(parent.owner, Owner::Session(_)) {
        return Err(ErrorCode::NoChildrenForEphemerals.into());
    }
    let bytes = new.data.as_ref().map_or(0, |data| data.len() as i64);
    quota::check(txn, cx.quotas, &path, bytes, 1)?;
    let owner = match new.kind {
        CreateKind::Container => Owner::Container,
        CreateKind::Ttl if mode.is_ttl() => Owner::Ttl(new.ttl_ms),
        _ if mode.is_ephemeral() => Owner::Session(cx.session),
        _ if mode.is_ttl() => Owner::Ttl(new.ttl_ms),
        _ => Owner::Persistent,
    };
    let (data, version, before) = (new.data.as_deref(), -1, None);
    let open = txn.open_acl().1;
    let given = acl.as_deref().unwrap_or(&open);
    let wanted = Wanted { data, acl: given, owner, version, before };
    cx.guard(txn, (OpCode::Create, &path), wanted)?;

    let (acl_id, acl) = match acl {
        None => txn.open_acl(),
        Some(acl) => txn.intern(acl)?,
    };
    let mut node = Znode {
        czxid: txn.zxid,
        mzxid: txn.zxid,
        pzxid: txn.zxid,
        ctime: txn.time_ms,
        mtime: txn.time_ms,
        version: 0,
        creates: 0,
        aversion: 0,
        children: 0,
        owner,
        acl_id,
        acl: acl.clone(),
        data: Data::Inline(None),
        data_hash: Hash128::default(),
        row_hash: RowHash::default(),
    };
    let long = node.set_data(new.data);
    if long.is_some() {
        txn.put_data(&path, long.clone());
    }
    let stat = node.stat();
    let (shared, node) = txn.put_node(&path, Some(node))?;
    parent.creates = parent.creates.wrapping_add(1);
    parent.children += 1;
    parent.pzxid = txn.zxid;
    let parent_acl = parent.acl.clone();
    txn.put_node(&path[..parent_bytes], Some(parent))?;
    if let Owner::Session(session) = owner {
        let key = keys::number_path(session, &path);
        txn.put_row(Keyspace::Ephemerals, key, Some(Bytes::new()))?;
    }
    cx.quotas.created(&path);
    quota::recount(txn, &path)?;
    quota::add(txn, cx.quotas, &path, bytes, 1)?;
    let data = long.as_deref().or_else(|| node.as_ref()?.inline_data());
    observe(txn, cx.by(), (OpCode::Create, &path), data, (None, node.as_deref()))?;
    txn.changes.push(Change::Created { path: shared, acl, parent_acl });
    Ok(match new.kind {
        CreateKind::Create => Reply::Path(path),
        CreateKind::Create2 | CreateKind::Container | CreateKind::Ttl => {
            Reply::PathStat(path, stat)
        }
    })
}
