//! A second state, which applies what is committed: the digests that every server must have, and what plugins
//! said, of which the model is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::{ErrorCode, Stat};
use state::command::PluginCommand;
use state::plugins::{Build, Decision, Effect, Point, Said};
use state::view::Listing;
use state::{
    Answer, Applied, Batch, Command, Fault, Members, MemoryStore, PluginDone, State, View,
};

use super::counts::Counts;
use super::mutants::Planted;
use super::plugins::{Seen, SimHooks, gate_enforces};

/// Where bindings are shown.
const SHOWN: &str = "/zookeeper/plugins";

/// A write that a plugin had refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What was written down of it.
    pub decision: Decision,
    /// What the client is to be told.
    pub code: ErrorCode,
    /// Which operation of its multi it was, where a guard refused it.
    pub at: u32,
}

/// A znode of the system's that shows a binding, or is above those: path, data, stat, how many children it had.
pub type Shown = (String, Option<Bytes>, Stat, i32);

/// What came of plugins in an entry.
#[derive(Debug, Clone, Default)]
pub struct Plugged {
    /// By zxid: a transaction ends with the first refusal.
    pub refusals: BTreeMap<i64, Refusal>,
    /// The zxids of what failed for its ACL.
    pub invalid_acls: BTreeSet<i64>,
    /// What is shown of bindings after it.
    pub shown: Vec<Shown>,
    /// Whether the gate decides after it who gets in.
    pub gate: bool,
}

/// The second state, and its digests so far.
pub struct Reference {
    second: State,
    digests: BTreeMap<u64, (u128, u128)>,
    clock_ms: Arc<AtomicI64>,
    seen: Arc<Mutex<Seen>>,
    next_decision: u64,
    /// The view before the last entry.
    before: Arc<View>,
    /// What plugins said in it, but for what let things pass.
    decisions: Vec<Decision>,
}

impl Reference {
    /// That of an ensemble of these servers.
    pub fn new(planted: &Planted, ids: &[u64]) -> Self {
        let store = Box::new(MemoryStore::default());
        let founders = Members::founders(ids);
        let (seen, clock_ms) = (Arc::default(), Arc::default());
        let hooks = SimHooks::of_reference(Arc::clone(&seen), Arc::clone(&clock_ms), planted.hooks);
        let second = State::open_or_found(store, Box::new(hooks), 1 << 20, &founders);
        let second = second.expect("memory does not fail");
        // A bug of apply is in every replica: it must be found by what it does, not by comparing.
        let second = second.with_mutants(planted.state);
        let meta = second.meta();
        let digests = BTreeMap::from([(meta.applied, (meta.digest, meta.history))]);
        let before = second.view();
        let (next_decision, decisions) = (0, Vec::new());
        Self { second, digests, clock_ms, seen, next_decision, before, decisions }
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// [`Fault`] if it cannot be applied.
    pub fn apply(
        &mut self,
        (index, term): (u64, u64),
        payload: &[u8],
        now_ms: i64,
        counts: &mut Counts,
    ) -> Result<Plugged, Fault> {
        self.clock_ms.store(now_ms, Ordering::Relaxed);
        self.before = self.second.view();
        let applied = self.second.apply(index, term, payload)?;
        let meta = self.second.meta();
        self.digests.insert(index, (meta.digest, meta.history));
        let view = self.second.view();
        self.count(payload, &applied, &view, counts)?;
        self.decisions = view.decisions.since(self.next_decision, usize::MAX);
        if let Some(last) = self.decisions.last() {
            self.next_decision = last.number + 1;
        }
        let failed_acl = |answer: &Answer| match answer {
            Answer::Reply(Err(code)) => *code == ErrorCode::InvalidAcl,
            _ => false,
        };
        let failed = applied.outcomes.iter().filter(|outcome| failed_acl(&outcome.answer));
        Ok(Plugged {
            refusals: self.refused(),
            invalid_acls: failed.map(|outcome| outcome.zxid).collect(),
            shown: shown(&view)?,
            gate: gate_enforces(&view),
        })
    }

    /// What was refused in the last entry.
    fn refused(&self) -> BTreeMap<i64, Refusal> {
        let guarded = std::mem::take(&mut self.seen.lock().guarded);
        let refused = self.decisions.iter().filter(|said| said.effect == Effect::Refused);
        let refusal = |decision: &Decision| {
            let decision = decision.clone();
            let code = match (decision.said, decision.point) {
                (Said::Deny(code), _) => code,
                (_, Point::Authorizer) => ErrorCode::NoAuth,
                (_, _) => ErrorCode::SystemError,
            };
            let at = guarded.get(&decision.zxid).copied().unwrap_or(0);
            (decision.zxid, Refusal { decision, code, at })
        };
        refused.map(refusal).collect()
    }

    fn count(
        &self,
        payload: &[u8],
        applied: &Applied,
        view: &View,
        counts: &mut Counts,
    ) -> Result<(), Fault> {
        let batch = if payload.is_empty() { Batch::default() } else { Batch::decode(payload)? };
        let commands = batch.groups.into_iter().flat_map(|group| group.commands);
        for (command, outcome) in commands.zip(&applied.outcomes) {
            let Command::Plugin(command) = command else { continue };
            match (command, &outcome.answer) {
                (PluginCommand::Activate { .. }, Answer::Plugin(Ok(PluginDone::Active(n)))) => {
                    counts.activations += 1;
                    counts.upgrades_of_plugins += u64::from(*n > 1);
                }
                (PluginCommand::Activate { .. }, Answer::Plugin(Err(_))) => {
                    counts.activations_refused += 1;
                }
                (PluginCommand::Rollback { .. }, Answer::Plugin(Ok(_))) => counts.rollbacks += 1,
                (PluginCommand::Remove { .. }, Answer::Plugin(Ok(_))) => {
                    counts.plugins_removed += 1
                }
                (PluginCommand::SetMode { .. }, Answer::Plugin(Ok(_))) => counts.modes_set += 1,
                (PluginCommand::Upload { .. }, Answer::Plugin(Err(_))) => {
                    counts.uploads_refused += 1;
                }
                (PluginCommand::Report { result: Err(_), .. }, Answer::Plugin(Ok(_))) => {
                    counts.cannot_run += 1;
                }
                _ => {}
            }
        }
        for (name, row) in view.plugins.rows() {
            let before = self.before.plugins.row(name);
            let was_quarantined = before.is_some_and(|row| row.quarantine.is_some());
            counts.tripped += u64::from(row.quarantine.is_some() && !was_quarantined);
            let was_built = before.is_none_or(|row| row.build == Build::Done);
            let is_built = row.is_evaluated() && row.build == Build::Done;
            counts.builds += u64::from(is_built && !was_built);
        }
        let seen = self.seen.lock();
        (counts.plugin_calls, counts.plugin_denials) = (seen.calls, seen.denials);
        let [_, trap, fuel, memory, bad_return, not_granted, limit] = seen.faults;
        (counts.faults_trap, counts.faults_fuel, counts.faults_memory) = (trap, fuel, memory);
        (counts.faults_return, counts.faults_grant) = (bad_return, not_granted);
        counts.faults_limit = limit;
        Ok(())
    }

    /// The digests of state and history after an entry.
    pub fn at(&self, index: u64) -> Option<(u128, u128)> {
        self.digests.get(&index).copied()
    }

    /// What was so before the last entry, and after it.
    pub fn views(&self) -> (&View, Arc<View>) {
        (&self.before, self.second.view())
    }

    /// What plugins said in it, but for what let things pass.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }
}

/// What is shown of bindings.
fn shown(view: &View) -> Result<Vec<Shown>, Fault> {
    let mut all = Vec::new();
    if view.node(SHOWN)?.is_none() {
        return Ok(all);
    }
    let names = view.list(Listing::children(SHOWN))?;
    let paths = names.iter().map(|name| format!("{SHOWN}/{name}"));
    for path in ["/zookeeper".to_owned(), SHOWN.to_owned()].into_iter().chain(paths) {
        let Some(node) = view.node(&path)? else { continue };
        let data = view.data(&path, &node)?;
        let children = node.children as i32;
        all.push((path, data, node.stat(), children));
    }
    Ok(all)
}
