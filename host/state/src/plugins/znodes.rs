//! `/zookeeper/plugins/NAME`: what a binding is and does, for all to read. Never its settings, which may
//! be secret.
//!
//! What changes with a step in its life is a change like any other, with a version and an event. The
//! counters are brought up to date with the first entry of a second, in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::binding::Point;
use super::row::{Build, Counters, Plugin, Row};
use crate::acls;
use crate::change::Change;
use crate::fault::Fault;
use crate::txn::Txn;
use crate::znode::{Data, Hash128, Owner, RowHash, Znode};

const ROOT: &str = "/zookeeper/plugins";

/// Whether a path is where bindings are shown, which clients cannot change.
pub(crate) fn is_shown(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Shows the bindings whose state was changed by the command that is over.
pub(crate) fn show_changed(txn: &mut Txn<'_>) -> Result<(), Fault> {
    for name in txn.plugins.take_changed() {
        let registry = Arc::clone(&txn.plugins.registry);
        let path = format!("{ROOT}/{name}");
        match registry.row(&name).filter(|row| row.is_there()) {
            None => remove(txn, &path)?,
            Some(row) => {
                let text = text(row, &txn.plugins.counters_of(row.id));
                put(txn, ROOT, None)?;
                put(txn, &path, Some(text))?;
            }
        }
    }
    Ok(())
}

/// Brings the counters up to date.
pub(crate) fn show_counters(txn: &mut Txn<'_>) -> Result<(), Fault> {
    let registry = Arc::clone(&txn.plugins.registry);
    for (name, row) in registry.rows().filter(|(_, row)| row.active.is_some()) {
        let path = format!("{ROOT}/{name}");
        let Some(node) = txn.node(&path)? else { continue };
        let text = text(row, &txn.plugins.counters_of(row.id));
        if txn.data(&path, &node)?.as_ref() == Some(&text) {
            continue;
        }
        let mut node = (*node).clone();
        set_data(txn, &path, &mut node, Some(text));
        txn.put_node(&path, Some(node))?;
    }
    Ok(())
}

fn text(row: &Row, counters: &Counters) -> Bytes {
    let build = match row.build {
        Build::Done => "done",
        Build::Clear | Build::Walk(_) if row.is_evaluated() => "building",
        Build::Clear | Build::Walk(_) => "to be built",
    };
    let generation = |plugin: &Plugin| Generation {
        generation: plugin.generation,
        module: plugin.module.to_string(),
        points: plugin.points(),
    };
    let staged = row.staged.as_ref().map(|staged| ShownStaged {
        generation: staged.plugin.generation,
        module: staged.plugin.module.to_string(),
        reports: staged
            .reports
            .iter()
            .map(|(server, report)| {
                (*server, report.as_ref().err().map_or("ready", String::as_str))
            })
            .collect(),
    });
    let shown = Shown {
        state: match row.quarantine {
            Some(_) => "quarantine".to_owned(),
            None => row.mode.to_string(),
        },
        why: row.quarantine.as_deref(),
        active: row.active.as_ref().map(generation),
        previous: row.previous.as_ref().map(generation),
        staged,
        build,
        calls: counters.calls,
        denials: counters.denials,
        faults: counters.faults,
        store_bytes: counters.store_bytes,
    };
    Bytes::from(serde_json::to_string(&shown).expect("it is text and numbers"))
}

/// What the data of a binding's znode says, as JSON, in this order.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown<'a> {
    state: String,
    why: Option<&'a str>,
    active: Option<Generation>,
    previous: Option<Generation>,
    staged: Option<ShownStaged<'a>>,
    build: &'static str,
    calls: u64,
    denials: u64,
    faults: u64,
    store_bytes: u64,
}

#[derive(Serialize)]
struct Generation {
    generation: u64,
    module: String,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct ShownStaged<'a> {
    generation: u64,
    module: String,
    reports: BTreeMap<u32, &'a str>,
}

/// Makes or changes a znode of the system's.
fn put(txn: &mut Txn<'_>, path: &str, data: Option<Bytes>) -> Result<(), Fault> {
    let (parent_path, _) = proto::path::split(path).expect("it is below the root");
    let acl = txn.fixed_acl(acls::READ_ONLY);
    if let Some(before) = txn.node(path)? {
        if data.is_none() || txn.data(path, &before)? == data {
            return Ok(());
        }
        let mut node = (*before).clone();
        node.version = node.version.wrapping_add(1);
        (node.mzxid, node.mtime) = (txn.zxid, txn.time_ms);
        (node.acl_id, node.acl) = (acls::READ_ONLY, Arc::clone(&acl));
        set_data(txn, path, &mut node, data);
        let (path, _) = txn.put_node(path, Some(node))?;
        txn.changes.push(Change::DataSet { path, acl });
        return Ok(());
    }
    let Some(parent) = txn.node(parent_path)? else { return Ok(()) };
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
        owner: Owner::Persistent,
        acl_id: acls::READ_ONLY,
        acl: Arc::clone(&acl),
        data: Data::Inline(None),
        data_hash: Hash128::default(),
        row_hash: RowHash::default(),
    };
    set_data(txn, path, &mut node, data);
    let (path, _) = txn.put_node(path, Some(node))?;
    let mut parent = (*parent).clone();
    parent.creates = parent.creates.wrapping_add(1);
    parent.children += 1;
    parent.pzxid = txn.zxid;
    let parent_acl = Arc::clone(&parent.acl);
    txn.put_node(parent_path, Some(parent))?;
    txn.changes.push(Change::Created { path, acl, parent_acl });
    Ok(())
}

fn remove(txn: &mut Txn<'_>, path: &str) -> Result<(), Fault> {
    let mut quotas = crate::quota::QuotaPaths::default();
    // Nobody is told: it is the system's.
    crate::ops::remove(txn, &mut quotas, crate::ops::By::DUE, path)?;
    Ok(())
}

fn set_data(txn: &mut Txn<'_>, path: &str, node: &mut Znode, data: Option<Bytes>) {
    let was_large = matches!(node.data, Data::Large(_));
    let long = node.set_data(data);
    if long.is_some() || was_large {
        txn.put_data(path, long);
    }
}
