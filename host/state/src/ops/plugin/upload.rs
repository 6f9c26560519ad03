//! Modules: taken in by parts, and deleted once nothing refers to them.

use bytes::Bytes;

use super::{Refused, Told};
use crate::change::PluginDone;
use crate::fault::Fault;
use crate::keys::Keyspace;
use crate::plugins::registry::{part_key, parts_range};
use crate::plugins::{Module, ModuleHash, PART_BYTES_MAX, PluginLimit, Registry};
use crate::txn::Txn;

/// After so long without another part, or a binding, a module that no binding ever referred to is deleted
/// with the next step in the life of any plugin.
const UNUSED_MS_MAX: i64 = 3_600_000;

/// Takes the next part of a module; one that came before is left.
pub(super) fn upload(
    txn: &mut Txn<'_>,
    hash: ModuleHash,
    (bytes, offset): (u64, u64),
    part: Bytes,
) -> Told {
    let settings = &txn.settings.plugins;
    let (most, most_in_all) =
        (settings.limit(PluginLimit::ModuleBytes), settings.limit(PluginLimit::ModulesBytes));
    let length = part.len() as u64;
    if bytes == 0 || bytes > most {
        return refuse(format!(
            "the module has {bytes} bytes: expected 1 to {most} (plugin-module-bytes)"
        ));
    }
    if part.is_empty() || part.len() > PART_BYTES_MAX || offset.saturating_add(length) > bytes {
        return refuse(format!(
            "a part of {length} bytes at {offset} of {bytes}: expected 1 to {PART_BYTES_MAX} bytes, none \
             of them behind the end"
        ));
    }
    let known = txn.plugins.registry.modules().get(&hash).copied();
    if known.is_none() {
        collect(txn)?;
        let in_all: u64 = txn.plugins.registry.modules().values().map(|module| module.bytes).sum();
        if in_all.saturating_add(bytes) > most_in_all {
            return refuse(format!(
                "modules take {in_all} bytes, and this one {bytes}; at most {most_in_all} are allowed \
                 (plugin-modules-bytes): remove bindings that are not needed any more"
            ));
        }
    }
    let touched_ms = txn.time_ms;
    let new = Module { bytes, received: 0, touched_ms, was_used: false };
    let mut module = known.unwrap_or(new);
    if module.bytes != bytes {
        return refuse(format!(
            "the module {hash} was begun with {} bytes in whole, not {bytes}",
            module.bytes
        ));
    }
    if offset > module.received {
        return refuse(format!(
            "{} bytes of the module {hash} are here, and the part begins at {offset}: send what comes \
             next",
            module.received
        ));
    }
    if offset.saturating_add(length) <= module.received {
        return Ok(PluginDone::Received(module.received));
    }
    if offset != module.received {
        return refuse(format!(
            "a part at {offset} overlaps what is here up to {}",
            module.received
        ));
    }
    module.received += length;
    module.touched_ms = touched_ms;
    txn.put_row(Keyspace::Modules, part_key(hash, offset), Some(part))?;
    if module.is_whole() {
        let found = hash_of(txn, hash)?;
        if found != hash {
            delete(txn, hash)?;
            return refuse(format!(
                "what was uploaded has the hash {found}, not {hash}: upload it again"
            ));
        }
    }
    txn.plugins.module(hash, Some(module));
    Ok(PluginDone::Received(module.received))
}

fn refuse(why: String) -> Told {
    Err(Refused::Because(why))
}

fn hash_of(txn: &Txn<'_>, hash: ModuleHash) -> Result<ModuleHash, Fault> {
    let (from, to) = parts_range(hash);
    let parts = txn.rows_now(Keyspace::Modules, &from, &to, usize::MAX >> 1)?;
    Ok(ModuleHash::of_parts(parts.iter().map(|(_, part)| &part[..])))
}

fn delete(txn: &mut Txn<'_>, hash: ModuleHash) -> Result<(), Fault> {
    let (from, to) = parts_range(hash);
    for (key, _) in txn.rows_now(Keyspace::Modules, &from, &to, usize::MAX >> 1)? {
        txn.put_row(Keyspace::Modules, key.to_vec(), None)?;
    }
    txn.plugins.module(hash, None);
    Ok(())
}

/// Remembers of the modules that bindings refer to that they were used.
pub(super) fn use_modules(registry: &mut Registry) {
    let used: Vec<_> = registry.wanted().iter().map(|plugin| plugin.module).collect();
    for hash in used {
        if let Some(module) = registry.modules().get(&hash).filter(|module| !module.was_used) {
            let module = Module { was_used: true, ..*module };
            registry.set_module(hash, Some(module));
        }
    }
}

/// Deletes the modules that nothing refers to any more, and those that nothing has referred to for long.
pub(super) fn collect(txn: &mut Txn<'_>) -> Result<(), Fault> {
    let registry = &txn.plugins.registry;
    let used: Vec<_> = registry.wanted().iter().map(|plugin| plugin.module).collect();
    let is_old = |module: &Module| txn.time_ms.saturating_sub(module.touched_ms) > UNUSED_MS_MAX;
    let modules = registry.modules().iter();
    let gone: Vec<ModuleHash> = modules
        .filter(|(hash, module)| !used.contains(hash) && (module.was_used || is_old(module)))
        .map(|(hash, _)| *hash)
        .collect();
    gone.into_iter().try_for_each(|hash| delete(txn, hash))
}
