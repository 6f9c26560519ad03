//! What takes long is done in steps, each an entry of its own: an observer's store is built from the
//! znodes that are there, and what a plugin has kept is deleted.
//!
//! A build empties the store, then walks the keys at which matching znodes may be, in order. Changes behind
//! it are told to the observer as they happen; what is ahead it meets on its way.

use proto::OpCode;

use crate::fault::Fault;
use crate::hooks::{Cause, Changed};
use crate::keys::{self, Keyspace};
use crate::plugins::registry::{Live, is_system, store_range};
use crate::plugins::{Build, Point, points};
use crate::txn::Txn;

/// How many rows a step goes over, at most.
const STEP_ROWS: usize = 250;

/// Does the next step, if there is one.
pub(crate) fn step(txn: &mut Txn<'_>) -> Result<(), Fault> {
    txn.fuel_up(STEP_ROWS as u64);
    if let Some(id) = txn.plugins.registry.garbage() {
        if clear(txn, id)? {
            txn.plugins.store_is_gone(id);
        }
        return Ok(());
    }
    let builds =
        txn.plugins.registry.rows().find(|(_, row)| row.is_evaluated() && row.build != Build::Done);
    let Some((name, row)) = builds.map(|(name, row)| (name.to_owned(), row.clone())) else {
        return Ok(());
    };
    match row.build {
        Build::Done => {}
        Build::Clear => {
            if clear(txn, row.id)? {
                txn.put_store_bytes(row.id, 0);
                txn.plugins.registry_mut().set_build(&name, Build::Walk(Vec::new()));
            }
        }
        Build::Walk(from) => {
            let Some(live) = txn.plugins.registry.live_named(&name).cloned() else {
                return Ok(());
            };
            if let Some(upto) = walk(txn, &live, from)? {
                txn.plugins.registry_mut().set_build(&name, Build::Walk(upto));
            } else if txn
                .plugins
                .registry
                .live_named(&name)
                .is_some_and(|l| l.build != Build::Clear)
            {
                txn.plugins.change(&name).change(&name, |row| {
                    (row.build, row.failed_builds) = (Build::Done, 0);
                });
            }
        }
    }
    Ok(())
}

/// Deletes rows of a private store; true once there are none.
fn clear(txn: &mut Txn<'_>, id: u32) -> Result<bool, Fault> {
    let (from, to) = store_range(id);
    let rows = txn.rows_now(Keyspace::Plugins, &from, &to, STEP_ROWS)?;
    for (key, _) in &rows {
        txn.put_row(Keyspace::Plugins, key.to_vec(), None)?;
    }
    Ok(rows.len() < STEP_ROWS)
}

/// Tells an observer of what is at the next keys from `from` on. Gives how far that went; `None` if it came
/// to the end, or was a fault, of which the binding has taken notice.
fn walk(txn: &mut Txn<'_>, live: &Live, from: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
    let fuel_max = live.plugin.limits.fuel(Point::Observer);
    let mut left = STEP_ROWS;
    for (first, last) in live.ranges() {
        let mut at = first.max(from.clone());
        while at < last {
            if left == 0 {
                return Ok(Some(at));
            }
            let found = txn.node_keys(&at, &last, left)?;
            let is_all = found.len() < left;
            for key in found {
                // One is told of in any case, so that there is an end.
                if left < STEP_ROWS && txn.fuel_left() < fuel_max {
                    return Ok(Some(key));
                }
                left -= 1;
                at = [&key[..], b"\0"].concat();
                if !meet(txn, live, &key)? {
                    return Ok(None);
                }
            }
            if is_all {
                break;
            }
        }
    }
    Ok(None)
}

/// Tells an observer of what is there; false if that was a fault.
fn meet(txn: &mut Txn<'_>, live: &Live, key: &[u8]) -> Result<bool, Fault> {
    let path = keys::path_of(key).filter(|path| live.matches(path) && !is_system(path));
    let Some(path) = path else { return Ok(true) };
    let Some(node) = txn.peek(&path)? else { return Ok(true) };
    let (data, stat) = (txn.data(&path, &node)?, node.stat());
    let changed = Changed {
        operation: OpCode::Create as u16,
        cause: Cause::Build,
        path: &path,
        data: data.as_deref(),
        owner: node.owner.into(),
        before: None,
        after: Some(&stat),
        identities: &[],
    };
    points::tell(txn, live, &changed)
}
