//! What a state of the simulator calls: the runtime's hooks. Whether a module is compiled is simulated, and
//! bugs may be planted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use plugin::Guests;
use state::hooks::{
    Call, Changed, Check, Decision, Env, FaultKind, Operation, Outcome, PluginFault, Scope, Verdict,
};
use state::plugins::{ModuleHash, Plugin};
use state::{Fault, Hooks};

use super::runtime;

/// Bugs of what runs plugins.
#[derive(Debug, Clone, Copy, Default)]
pub struct HookMutants {
    /// The time that guests are told is that of the server's clock.
    pub read_clock: bool,
    /// Instances outlive their transactions and entries.
    pub keep_instances: bool,
    /// On one of the servers a module that is not compiled is a fault of the plugin.
    pub lone_fault: bool,
}

/// Which modules are compiled on a server, as far as that knows.
pub type Ready = Arc<Mutex<BTreeSet<ModuleHash>>>;

/// When a server is to fail in the middle of an entry, as one does that has no memory left for an instance.
#[derive(Debug, Default)]
pub struct Ailment {
    /// After so many calls; never if 0.
    pub fails_after: AtomicU64,
    /// How often it did.
    pub failed: AtomicU64,
}

impl Ailment {
    fn strikes(&self) -> bool {
        let left = self.fails_after.load(Ordering::Relaxed);
        self.fails_after.store(left.saturating_sub(1), Ordering::Relaxed);
        self.failed.fetch_add(u64::from(left == 1), Ordering::Relaxed);
        left == 1
    }
}

/// What calls came to.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By zxid: which operation of its multi a guard was asked about last.
    pub guarded: BTreeMap<i64, u32>,
    /// How many calls there were.
    pub calls: u64,
    /// Of guards and authorizers, how many said no.
    pub denials: u64,
    /// How many were faults, by [`FaultKind`]'s number.
    pub faults: [u64; 7],
}

/// The hooks of one state.
pub struct SimHooks {
    guests: Guests,
    /// Whose they are; 0 for the reference.
    server: u64,
    /// What is compiled; everything if nobody says.
    ready: Option<Ready>,
    clock_ms: Arc<AtomicI64>,
    ailment: Arc<Ailment>,
    seen: Arc<Mutex<Seen>>,
    bugs: HookMutants,
}

impl SimHooks {
    /// Hooks of a server, with its clock.
    pub fn of_server(
        server: u64,
        ready: Ready,
        (clock_ms, ailment): (Arc<AtomicI64>, Arc<Ailment>),
        bugs: HookMutants,
    ) -> Self {
        let (guests, seen) = (Guests::new(runtime(server)), Arc::default());
        Self { guests, server, ready: Some(ready), clock_ms, ailment, seen, bugs }
    }

    /// Hooks of a state of which somebody wants to know what calls come to. There everything is compiled.
    pub fn of_reference(
        seen: Arc<Mutex<Seen>>,
        clock_ms: Arc<AtomicI64>,
        bugs: HookMutants,
    ) -> Self {
        let (guests, ailment) = (Guests::new(runtime(0)), Arc::default());
        Self { guests, server: 0, ready: None, clock_ms, ailment, seen, bugs }
    }

    fn is_compiled(&self, plugin: &Plugin) -> bool {
        self.ready.as_ref().is_none_or(|ready| ready.lock().contains(&plugin.module))
    }

    fn is_odd(&self) -> bool {
        self.bugs.lone_fault && self.server == 2
    }

    /// Has a hook called, unless a bug is in its way.
    fn call<T>(
        &self,
        call: &Call<'_>,
        is_no: impl Fn(&T) -> bool,
        hook: impl FnOnce(&Call<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        if self.is_odd() && !self.is_compiled(call.plugin) {
            return Ok(Err(PluginFault::new(FaultKind::Trap, "it is not compiled")));
        }
        if matches!(call.scope, Scope::Apply { .. }) && self.ailment.strikes() {
            return Err(Fault::Waiting("simulated failure".to_owned()));
        }
        let mut called = *call;
        if self.bugs.read_clock {
            called.time_ms = self.clock_ms.load(Ordering::Relaxed);
        }
        let outcome = hook(&called);
        if let (Scope::Apply { .. }, Ok(came)) = (call.scope, &outcome) {
            let mut seen = self.seen.lock();
            seen.calls += 1;
            match came {
                Ok(said) => seen.denials += u64::from(is_no(said)),
                Err(fault) => seen.faults[fault.kind as usize] += 1,
            }
        }
        outcome
    }
}

impl Hooks for SimHooks {
    fn inner(&self) -> Option<&dyn Hooks> {
        Some(&self.guests)
    }

    fn is_ready(&self, plugin: &Plugin) -> bool {
        self.is_odd() || self.is_compiled(plugin) && self.guests.is_ready(plugin)
    }

    fn transaction_begins(&self, scope: Scope) {
        if !self.bugs.keep_instances {
            self.guests.transaction_begins(scope);
        }
    }

    fn entry_ends(&self) {
        if !self.bugs.keep_instances {
            self.guests.entry_ends();
        }
    }

    fn check(&self, call: &Call<'_>, check: &Check<'_>, env: &mut dyn Env) -> Outcome<Decision> {
        let is_no = |said: &Decision| *said == Decision::Deny;
        self.call(call, is_no, |call| self.guests.check(call, check, env))
    }

    fn guard(
        &self,
        call: &Call<'_>,
        operation: &Operation<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Verdict> {
        if self.ready.is_none() {
            self.seen.lock().guarded.insert(call.zxid, operation.index);
        }
        let is_no = |said: &Verdict| *said != Verdict::Allow;
        self.call(call, is_no, |call| self.guests.guard(call, operation, env))
    }

    fn observe(&self, call: &Call<'_>, change: &Changed<'_>, env: &mut dyn Env) -> Outcome<()> {
        self.call(call, |()| false, |call| self.guests.observe(call, change, env))
    }
}
