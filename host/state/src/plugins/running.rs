//! What of plugins is under way in an entry: who is called, what that came to, what is left.
//!
//! Invariants:
//! * What is counted here is counted by the log: an operation that is undone takes back what its calls
//!   wrote to their stores, but not that they were made.
//! * The registry in here is the one that holds at this point of the entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::binding::Point;
use super::decisions::{Decision, Effect, Said};
use super::env::{Ground, PluginEnv};
use super::reading::Shadowed;
use super::registry::{Live, Registry, counters_key, encode};
use super::row::{Build, Counters, Plugin};
use super::{Module, ModuleHash, PluginLimit};
use crate::fault::Fault;
use crate::hooks::{
    Call, Env, EnvError, FaultKind, Hooks, OpNumber, Operation, Outcome, PluginFault, Scope,
};
use crate::keys::{self, Keyspace};
use crate::txn::Txn;
use crate::view::View;
use crate::znode::Znode;

/// How many operations of an entry guards in the shadow are asked about, at most.
const SHADOWED_MAX: usize = 1000;
/// How many times in a row an observer's store may end with a fault before it is given up.
const FAILED_BUILDS_MAX: u32 = 3;

pub(crate) struct Running<'a> {
    hooks: &'a dyn Hooks,
    pub(crate) registry: Arc<Registry>,
    before: &'a BTreeMap<u32, Counters>,
    counters: BTreeMap<u32, Counters>,
    /// The private stores that are gone, with their counters.
    gone: Vec<u32>,
    /// What the calls so far came to.
    outcomes: Option<Box<Xxh3>>,
    calls: u64,
    pub(crate) decisions: Vec<Decision>,
    shadowed: Vec<Shadowed>,
    /// The bindings whose state has changed, by name.
    changed: BTreeSet<String>,
    /// Those that a repair keeps from being called in this entry.
    skipped: BTreeSet<String>,
    fuel_left: u64,
    scope: Scope,
    history: u128,
    /// Whose command it is; 0 for the server itself.
    pub(crate) session: i64,
    /// Which operation of its multi is under way, and how many it has.
    pub(crate) operation: (u32, u32),
}

/// What is left of it once the entry is over.
pub(crate) struct Ran {
    pub(crate) registry: Arc<Registry>,
    /// Those that changed, and whose are gone.
    pub(crate) counters: BTreeMap<u32, Counters>,
    pub(crate) gone: Vec<u32>,
    /// A digest of what the calls came to, if there were any.
    pub(crate) outcomes: Option<u128>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) shadowed: Vec<Shadowed>,
}

/// What a call was about.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) point: Point,
    pub(super) operation: OpNumber,
    pub(super) path: &'a str,
}

impl<'a> Running<'a> {
    pub(crate) fn new(base: &'a View, index: u64, history: u128) -> Self {
        Self {
            hooks: base.hooks.as_ref(),
            registry: Arc::clone(&base.plugins),
            before: &base.counters,
            counters: BTreeMap::new(),
            gone: Vec::new(),
            outcomes: None,
            calls: 0,
            decisions: Vec::new(),
            shadowed: Vec::new(),
            changed: BTreeSet::new(),
            skipped: BTreeSet::new(),
            fuel_left: 0,
            scope: Scope::Apply { index, transaction: 0 },
            history,
            session: 0,
            operation: (0, 1),
        }
    }

    /// A command begins, of so many operations.
    pub(crate) fn begin(&mut self, transaction: u32, session: i64) {
        self.session = session;
        self.operation = (0, 1);
        if let Scope::Apply { transaction: number, .. } = &mut self.scope {
            *number = transaction;
        }
        self.hooks.transaction_begins(self.scope);
    }

    pub(crate) fn counters(&mut self, id: u32) -> &mut Counters {
        let before = self.before;
        self.counters.entry(id).or_insert_with(|| before.get(&id).copied().unwrap_or_default())
    }

    /// A private store that nobody has is empty: its counters go too.
    pub(crate) fn store_is_gone(&mut self, id: u32) {
        self.counters.remove(&id);
        self.gone.push(id);
        self.registry_mut().garbage_is_gone();
    }

    /// The counters as of now.
    pub(crate) fn counters_of(&self, id: u32) -> Counters {
        let changed = self.counters.get(&id).or_else(|| self.before.get(&id));
        changed.copied().unwrap_or_default()
    }

    /// Keeps an operation for the guards in the shadow, unless there are very many.
    pub(super) fn shadow(&mut self, operation: &Operation<'_>) {
        if self.shadowed.len() < SHADOWED_MAX {
            self.shadowed.push(Shadowed::of(operation, self.session));
        }
    }

    /// The registry, to be changed; the binding's state is published with the command.
    pub(crate) fn change(&mut self, name: &str) -> &mut Registry {
        self.changed.insert(name.to_owned());
        Arc::make_mut(&mut self.registry)
    }

    /// The registry, to be changed in a way that is not shown.
    pub(crate) fn registry_mut(&mut self) -> &mut Registry {
        Arc::make_mut(&mut self.registry)
    }

    /// What is known of a module is this, or nothing any more.
    pub(crate) fn module(&mut self, hash: ModuleHash, module: Option<Module>) {
        self.registry_mut().set_module(hash, module);
    }

    /// Nothing in this entry is to switch this binding on.
    pub(crate) fn skip(&mut self, name: String) {
        self.skipped.insert(name);
    }

    /// What can only be done where this is compiled waits until it is; it is refused if a repair has the
    /// binding skipped.
    pub(crate) fn needs(&self, plugin: &Plugin) -> Result<Result<(), String>, Fault> {
        let name = &plugin.binding.name;
        if self.skipped.contains(name) {
            return Ok(Err(format!("\"{name}\" is skipped at this entry, by a repair: ask again")));
        }
        needs(self.hooks, plugin).map(Ok)
    }

    /// Those whose state changed since this was asked last.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// Whether one that was called when an operation began still is.
    pub(super) fn calls_still(&self, before: &Arc<Registry>, live: &Live) -> bool {
        Arc::ptr_eq(before, &self.registry) || self.registry.live_named(live.name()).is_some()
    }

    /// Has a call of the binding enter the digest of outcomes and its counters.
    fn count(&mut self, live: &Live, point: Point, (said, detail): (u8, i32)) {
        let plugin = &live.plugin;
        let outcomes = self.outcomes.get_or_insert_default();
        let mut row = [0; 54];
        row[..4].copy_from_slice(&plugin.id.to_be_bytes());
        row[4..12].copy_from_slice(&plugin.generation.to_be_bytes());
        row[12..44].copy_from_slice(&plugin.module.0);
        (row[44], row[45]) = (point as u8, said);
        row[46..50].copy_from_slice(&detail.to_be_bytes());
        outcomes.update(&row);
        let counters = self.counters(plugin.id);
        counters.calls += 1;
        counters.denials += u64::from(said == SAID_NO);
        counters.faults += u64::from(said == SAID_NOTHING);
        counters.recent = counters.recent << 1 | u64::from(said == SAID_NOTHING);
    }

    pub(crate) fn end(self) -> Ran {
        Ran {
            registry: self.registry,
            counters: self.counters,
            gone: self.gone,
            outcomes: self.outcomes.map(|outcomes| outcomes.digest128()),
            decisions: self.decisions,
            shadowed: self.shadowed,
        }
    }
}

/// What the digest of outcomes calls the ways in which a call may end.
const SAID_YES: u8 = 0;
const SAID_NO: u8 = 1;
const SAID_NOTHING: u8 = 2;
const SAID_NEITHER: u8 = 3;

/// What a call came to, for the digest of outcomes.
#[derive(Clone, Copy)]
pub(super) enum Came {
    Yes,
    No(i32),
    Neither,
}

/// What can only be done where this is compiled waits until it is.
pub(crate) fn needs(hooks: &dyn Hooks, plugin: &Plugin) -> Result<(), Fault> {
    if hooks.is_ready(plugin) {
        return Ok(());
    }
    Err(Fault::Waiting(format!(
        "the module of plugin \"{}\", generation {}, is not compiled here yet",
        plugin.binding.name, plugin.generation
    )))
}

/// Calls a hook of a binding. What a call that is a fault wrote is undone, and the fault is counted;
/// what any other came to is for the caller to [`settle`].
pub(super) fn call<T>(
    txn: &mut Txn<'_>,
    live: &Live,
    about: About<'_>,
    hook: impl FnOnce(&dyn Hooks, &Call<'_>, &mut dyn Env) -> Outcome<T>,
) -> Result<Result<T, PluginFault>, Fault> {
    let running = &mut txn.plugins;
    let (hooks, scope, session) = (running.hooks, running.scope, running.session);
    let mut seed = [0; 28];
    seed[..16].copy_from_slice(&running.history.to_be_bytes());
    seed[16..24].copy_from_slice(&running.calls.to_be_bytes());
    seed[24..].copy_from_slice(&live.plugin.id.to_be_bytes());
    let seed = xxh3_64(&seed);
    running.calls += 1;
    let fuel_max = live.plugin.limits.fuel(about.point).min(running.fuel_left);
    let (mark, zxid, time_ms) = (txn.mark(), txn.zxid, txn.time_ms);
    let called = Call { plugin: &live.plugin, scope, zxid, time_ms, session, seed, fuel_max };
    let mut env = PluginEnv::new(txn, live, about.point, about.path);
    let outcome = match fuel_max {
        0 => Ok(Err(PluginFault::new(FaultKind::Fuel, "the transaction has no fuel left"))),
        _ => hook(hooks, &called, &mut env),
    };
    let ended = env.end();
    let outcome = match ended.failed {
        Some(EnvError::Host(fault)) => Err(fault),
        Some(EnvError::Plugin(fault)) => outcome.map(|_| Err(fault)),
        None => outcome,
    }?;
    let lines = ended.lines.into_iter();
    txn.plugins.decisions.extend(lines.map(|line| {
        let kept = (Said::Line, Effect::Passed, line);
        decision(live, about, (zxid, time_ms, session), kept)
    }));
    let fuel = match &outcome {
        Ok(_) => ended.fuel.unwrap_or(0).min(fuel_max),
        Err(_) => fuel_max,
    };
    txn.plugins.fuel_left -= fuel;
    if let Err(fault) = &outcome {
        txn.rollback(&mark);
        txn.plugins.count(live, about.point, (SAID_NOTHING, fault.kind as i32));
        trip(txn, live);
    }
    Ok(outcome)
}

/// Counts what a call came to that was no fault.
pub(super) fn settle(txn: &mut Txn<'_>, live: &Live, point: Point, came: Came) {
    let came = match came {
        Came::Yes => (SAID_YES, 0),
        Came::No(code) => (SAID_NO, code),
        Came::Neither => (SAID_NEITHER, 0),
    };
    txn.plugins.count(live, point, came);
}

/// Writes down what a plugin said, and what came of it.
pub(super) fn note(
    txn: &mut Txn<'_>,
    live: &Live,
    about: About<'_>,
    said: Said,
    effect: Effect,
    reason: String,
) {
    let when = (txn.zxid, txn.time_ms, txn.plugins.session);
    txn.plugins.decisions.push(decision(live, about, when, (said, effect, reason)));
}

pub(super) fn decision(
    live: &Live,
    about: About<'_>,
    (zxid, time_ms, session): (i64, i64, i64),
    (said, effect, reason): (Said, Effect, String),
) -> Decision {
    Decision {
        number: 0,
        zxid,
        time_ms,
        name: live.name().to_owned(),
        generation: live.plugin.generation,
        module: live.plugin.module,
        point: about.point,
        operation: about.operation,
        path: about.path.to_owned(),
        session,
        said,
        effect,
        reason,
    }
}

/// Puts a binding into quarantine if too many of its last calls were faults.
fn trip(txn: &mut Txn<'_>, live: &Live) {
    let settings = &txn.settings.plugins;
    let (most, of) =
        (settings.limit(PluginLimit::BreakerFaults), settings.limit(PluginLimit::BreakerCalls));
    let seen = u64::MAX >> (64 - of.clamp(1, 64));
    let recent = txn.plugins.counters(live.plugin.id).recent & seen;
    if u64::from(recent.count_ones()) >= most {
        let faults = recent.count_ones();
        quarantine(txn, live, &format!("{faults} of its last {of} calls were faults"));
    }
}

fn quarantine(txn: &mut Txn<'_>, live: &Live, why: &str) {
    txn.plugins.counters(live.plugin.id).recent = 0;
    let why = format!(
        "{why}; see its decision log, then `vivarium plugin mode {} warn`, roll back, or install another",
        live.name()
    );
    txn.plugins.change(live.name()).change(live.name(), |row| row.quarantine = Some(why));
}

/// What an observer has in its store no longer follows from the tree: it is built anew, unless that has
/// ended with a fault too often.
pub(super) fn make_stale(txn: &mut Txn<'_>, live: &Live) {
    let mut failed = 0;
    txn.plugins.change(live.name()).change(live.name(), |row| {
        row.build = Build::Clear;
        row.failed_builds += 1;
        failed = row.failed_builds;
    });
    if failed > FAILED_BUILDS_MAX && txn.plugins.registry.live_named(live.name()).is_some() {
        quarantine(txn, live, &format!("building its store ended with a fault {failed} times"));
    }
}

impl Txn<'_> {
    /// What plugins may take is as the settings say, which were changed.
    pub(crate) fn settings_changed(&mut self) {
        let settings = &self.settings.plugins;
        Arc::make_mut(&mut self.plugins.registry).set_limits(settings);
    }

    /// The fuel of a transaction of so many operations.
    pub(crate) fn fuel_up(&mut self, operations: u64) {
        let settings = &self.settings.plugins;
        let each = settings.limit(PluginLimit::OperationFuel).saturating_mul(operations);
        self.plugins.fuel_left = settings.limit(PluginLimit::TransactionFuel).max(each);
    }

    /// How much of it is left.
    pub(crate) fn fuel_left(&self) -> u64 {
        self.plugins.fuel_left
    }

    /// Puts what plugins changed beside their stores into rows, once the entry is over.
    pub(crate) fn put_plugin_rows(&mut self) -> Result<(), Fault> {
        if self.plugins.registry.is_dirty() {
            let rows = Arc::make_mut(&mut self.plugins.registry).take_dirty();
            for (key, row) in rows {
                self.put_row(Keyspace::Plugins, key, row)?;
            }
        }
        let counters: Vec<_> =
            self.plugins.counters.iter().map(|(id, row)| (*id, encode(row))).collect();
        for (id, row) in counters {
            self.put_row(Keyspace::Plugins, counters_key(id), Some(row))?;
        }
        for id in self.plugins.gone.clone() {
            self.put_row(Keyspace::Plugins, counters_key(id), None)?;
        }
        Ok(())
    }
}

impl Ground for Txn<'_> {
    fn node(&mut self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        Self::node(self, path)
    }

    fn data(&mut self, path: &str, node: &Znode) -> Result<Option<Bytes>, Fault> {
        Self::data(self, path, node)
    }

    fn children(&mut self, path: &str, after: &str, most: usize) -> Result<Vec<String>, Fault> {
        let (from, to) = children_after(path, after);
        let keys = self.node_keys(&from, &to, most)?;
        Ok(keys.iter().filter_map(|key| keys::name_of(key)).map(str::to_owned).collect())
    }

    fn row(&mut self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.private_row(key)
    }

    fn rows(&mut self, from: &[u8], to: &[u8], most: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        self.rows_now(Keyspace::Plugins, from, to, most)
    }

    fn store_bytes(&mut self, id: u32) -> u64 {
        self.plugins.counters(id).store_bytes
    }

    fn put(
        &mut self,
        id: u32,
        key: Vec<u8>,
        value: Option<Bytes>,
        store_bytes: u64,
    ) -> Result<(), Fault> {
        self.put_store_bytes(id, store_bytes);
        self.put_row(Keyspace::Plugins, key, value)
    }
}

/// `[from, to)` of the keys of the children whose names come after one.
pub(super) fn children_after(path: &str, after: &str) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = keys::children(path);
    match after {
        "" => (from, to),
        // A name has no NUL: this is the first key behind that name's.
        _ => ([&from[..], after.as_bytes(), b"\0"].concat(), to),
    }
}
