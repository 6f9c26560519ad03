//! The life of a plugin: uploaded, staged, activated at one index, switched, rolled back, removed.
//!
//! Each command checks all that there is to check, in words that say what to do, and then changes the
//! registry; its rows are written once the entry is over. What concerns only this server (a module that
//! is not compiled here) is a fault before anything was changed, never an answer.

mod build;
mod upload;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::change::PluginDone;
use crate::command::PluginCommand;
use crate::fault::Fault;
use crate::members::Members;
use crate::plugins::{Binding, Exports, Mode, ModuleHash, Plugin, PluginLimit, Registry, Staged};
use crate::txn::Txn;

pub(crate) use build::step;

/// How long a server's reason may be, in bytes.
const REASON_BYTES_MAX: usize = 4 << 10;
/// How many bindings that were removed are remembered, so that no server with an old file brings them
/// back.
const REMOVED_MAX: usize = 1024;

/// Why a command was not carried out; or a fault.
pub(crate) enum Refused {
    Because(String),
    Fault(Fault),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Because(why)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

type Told = Result<PluginDone, Refused>;

/// Carries out a command. `present` are the servers that the leader reached.
pub(crate) fn plugin(
    txn: &mut Txn<'_>,
    members: &Members,
    present: &[u32],
    command: PluginCommand,
) -> Result<Result<PluginDone, String>, Fault> {
    if !txn.settings.has_plugins() {
        let version = txn.settings.apply_version;
        return Ok(Err(format!(
            "the ensemble's apply-version is {version}, and plugins take {}: once all servers run this \
             version, raise it (`vivarium settings apply-version={}`)",
            crate::command::WITH_PLUGINS,
            crate::command::WITH_PLUGINS
        )));
    }
    let told = match command {
        PluginCommand::Upload { module, bytes, offset, part } => {
            upload::upload(txn, module, (bytes, offset), part)
        }
        PluginCommand::Stage { binding, module, after, if_unseen } => {
            stage(txn, binding, module, after, if_unseen)
        }
        PluginCommand::Report { server, name, generation, result } => {
            Ok(report(txn, server, &name, generation, result))
        }
        PluginCommand::Activate { name, generation, wait_all } => {
            activate(txn, members, present, &name, generation, wait_all)
        }
        PluginCommand::SetMode { name, mode } => set_mode(txn, &name, mode),
        PluginCommand::Rollback { name } => roll_back(txn, &name),
        PluginCommand::Remove { name, generation } => remove(txn, &name, generation),
        PluginCommand::Step => step(txn)
            .map(|()| PluginDone::Stepped(txn.plugins.registry.has_steps()))
            .map_err(Refused::Fault),
    };
    match told {
        Ok(done) => Ok(Ok(done)),
        Err(Refused::Because(why)) => Ok(Err(why)),
        Err(Refused::Fault(fault)) => Err(fault),
    }
}

fn stage(
    txn: &mut Txn<'_>,
    binding: Binding,
    module: ModuleHash,
    after: Option<u64>,
    if_unseen: bool,
) -> Told {
    let grants = txn.settings.plugins.grants();
    binding.check(grants).map_err(|why| format!("binding \"{}\": {why}", binding.name))?;
    let registry = &txn.plugins.registry;
    if !registry.modules().get(&module).is_some_and(crate::plugins::Module::is_whole) {
        return Err(format!("the module {module} is not uploaded: upload it first").into());
    }
    let row = registry.row(&binding.name);
    if if_unseen && row.is_some_and(|row| row.has_seen(&binding, module)) {
        return Ok(PluginDone::Staged(None));
    }
    let there = row.filter(|row| row.is_there());
    let newest = there.map_or(0, |row| row.plugins().map(|p| p.generation).max().unwrap_or(0));
    if let Some(after) = after.filter(|after| *after != newest) {
        return Err(match (after, newest) {
            (0, _) => format!(
                "there is a binding \"{}\" already, at generation {newest}: two cannot have one name; \
                 give this one another, or upgrade that one",
                binding.name
            ),
            (_, 0) => format!("there is no binding \"{}\" any more", binding.name),
            _ => format!(
                "\"{}\" is at generation {newest}, not {after}: somebody else has changed it; look again",
                binding.name
            ),
        }
        .into());
    }
    let most = txn.settings.plugins.limit(PluginLimit::Bindings);
    let count = registry.rows().filter(|(_, row)| row.is_there()).count() as u64;
    if there.is_none() && count >= most {
        return Err(format!(
            "there are {count} bindings, which is the most that are allowed (plugin-bindings): remove one"
        )
        .into());
    }
    let name = binding.name.clone();
    let mut generation = 0;
    let registry = txn.plugins.change(&name);
    registry.change(&name, |row| {
        row.generations += 1;
        generation = row.generations;
        row.see(&binding, module);
        let plugin = Plugin {
            id: row.id,
            generation,
            module,
            binding: Arc::new(binding),
            exports: Exports::default(),
            limits: crate::plugins::CallLimits::default(),
        };
        row.staged = Some(Staged { plugin, reports: std::collections::BTreeMap::new() });
    });
    upload::use_modules(registry);
    upload::collect(txn)?;
    Ok(PluginDone::Staged(Some(generation)))
}

fn report(
    txn: &mut Txn<'_>,
    server: u32,
    name: &str,
    generation: u64,
    result: Result<Exports, String>,
) -> PluginDone {
    let staged = txn.plugins.registry.row(name).and_then(|row| row.staged.as_ref());
    if staged.is_some_and(|staged| staged.plugin.generation == generation) {
        let result = result.map_err(|why| why.chars().take(REASON_BYTES_MAX / 4).collect());
        txn.plugins.change(name).change(name, |row| {
            if let Some(staged) = &mut row.staged {
                staged.reports.insert(server, result);
            }
        });
    }
    PluginDone::Done
}

fn activate(
    txn: &mut Txn<'_>,
    members: &Members,
    present: &[u32],
    name: &str,
    generation: u64,
    wait_all: bool,
) -> Told {
    let registry = &txn.plugins.registry;
    let staged = registry.row(name).and_then(|row| row.staged.as_ref());
    let staged = staged.filter(|staged| staged.plugin.generation == generation);
    let Some(staged) = staged else {
        return Err(format!(
            "\"{name}\" has no generation {generation} that is staged: it is active already, or another \
             one was staged since"
        )
        .into());
    };
    let voters: BTreeSet<u32> =
        members.voters.iter().filter_map(|id| members.server_of(*id)).collect();
    let exports = judge(staged, &voters, present, wait_all)?;
    let binding = Arc::clone(&staged.plugin.binding);
    binding.check_exports(&exports).map_err(|why| format!("binding \"{name}\": {why}"))?;
    check_schemes(registry, &binding)?;
    let plugin = Plugin { exports, ..staged.plugin.clone() };
    if binding.mode != Mode::Off {
        txn.plugins.needs(&plugin)??;
    }
    let registry = txn.plugins.change(name);
    registry.change(name, |row| {
        row.staged = None;
        row.activate(plugin, binding.mode);
    });
    upload::collect(txn)?;
    Ok(PluginDone::Active(generation))
}

/// What the servers found, if enough of them have, and all found the same.
fn judge(
    staged: &Staged,
    voters: &BTreeSet<u32>,
    present: &[u32],
    wait_all: bool,
) -> Result<Exports, String> {
    let name = &staged.plugin.binding.name;
    for (server, report) in &staged.reports {
        if let Err(why) = report
            && voters.contains(server)
        {
            return Err(format!("\"{name}\" cannot run on server {server}: {why}"));
        }
    }
    let is_ready = |server: &&u32| staged.reports.contains_key(server);
    let ready = voters.iter().filter(is_ready).count();
    let waited_for = |server: &&u32| wait_all || present.contains(server);
    let missing: Vec<String> = voters
        .iter()
        .filter(waited_for)
        .filter(|server| !is_ready(server))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "\"{name}\" is not ready yet on server {}: wait, or look at that server's log",
            missing.join(", ")
        ));
    }
    if ready * 2 <= voters.len() {
        return Err(format!(
            "\"{name}\" is ready on {ready} of {} voters, and a majority is needed",
            voters.len()
        ));
    }
    let mut found = staged.reports.values().filter_map(|report| report.as_ref().ok());
    let first = found.next().cloned().unwrap_or_default();
    if let Some(other) = found.find(|other| **other != first) {
        return Err(format!(
            "servers disagree about what \"{name}\" exports, {first:?} and {other:?}: they must run the \
             same version"
        ));
    }
    Ok(first)
}

/// A scheme is decided by one binding.
fn check_schemes(registry: &Registry, binding: &Binding) -> Result<(), String> {
    for (name, row) in registry.rows().filter(|(name, _)| *name != binding.name) {
        let theirs = row.active.iter().flat_map(|plugin| &plugin.binding.schemes);
        if let Some(scheme) = theirs.clone().find(|scheme| binding.schemes.contains(scheme)) {
            return Err(format!(
                "the scheme \"{scheme}\" is decided by the binding \"{name}\" already: remove that one, or \
                 take the scheme out of this one"
            ));
        }
    }
    Ok(())
}

/// The active generation of a binding, and the one before.
fn active<'r>(registry: &'r Registry, name: &str) -> Result<&'r Plugin, String> {
    let row = registry.row(name).filter(|row| row.is_there());
    let row = row.ok_or_else(|| format!("there is no binding \"{name}\""))?;
    row.active.as_ref().ok_or_else(|| {
        format!("\"{name}\" is not active yet: it is staged, and waits for the servers to be ready")
    })
}

fn set_mode(txn: &mut Txn<'_>, name: &str, mode: Mode) -> Told {
    let plugin = active(&txn.plugins.registry, name)?.clone();
    // To switch it off, nobody needs to be able to run it.
    if matches!(mode, Mode::Warn | Mode::Enforce) {
        txn.plugins.needs(&plugin)??;
    }
    txn.plugins.change(name).change(name, |row| row.set_mode(mode));
    Ok(PluginDone::Active(plugin.generation))
}

fn roll_back(txn: &mut Txn<'_>, name: &str) -> Told {
    active(&txn.plugins.registry, name)?;
    let previous = txn.plugins.registry.row(name).and_then(|row| row.previous.clone());
    let Some(previous) = previous else {
        return Err(format!("\"{name}\" has no generation before this one to go back to").into());
    };
    check_schemes(&txn.plugins.registry, &previous.binding)?;
    txn.plugins.needs(&previous)??;
    let generation = previous.generation;
    txn.plugins.change(name).change(name, |row| row.roll_back(previous));
    Ok(PluginDone::Active(generation))
}

fn remove(txn: &mut Txn<'_>, name: &str, generation: Option<u64>) -> Told {
    let row = txn.plugins.registry.row(name).filter(|row| row.is_there());
    let row = row.ok_or_else(|| format!("there is no binding \"{name}\""))?;
    let newest = row.plugins().map(|plugin| plugin.generation).max().unwrap_or(0);
    if let Some(meant) = generation.filter(|meant| *meant != newest) {
        return Err(format!(
            "\"{name}\" is at generation {newest}, not {meant}: somebody else has changed it; look again"
        )
        .into());
    }
    let registry = txn.plugins.change(name);
    registry.change(name, |row| {
        (row.active, row.previous, row.staged) = (None, None, None);
        row.set_mode(Mode::Off);
    });
    registry.leave_store(name);
    registry.forget_old(REMOVED_MAX);
    upload::collect(txn)?;
    Ok(PluginDone::Done)
}
