//! What calls of plugins take on this server: how long, and how much fuel. Nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::RwLock;
use state::hooks::{
    Call, Changed, Check, Credentials, Decision, Env, EnvError, Hooks, Node, Operation, Outcome,
    Pairs, Verdict,
};
use state::plugins::Plugin;

use crate::histogram::Histogram;

/// Of one binding.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Calls, whatever they came to.
    pub(crate) took: Histogram,
    fuel: AtomicU64,
}

impl Meter {
    /// How much fuel all of them took.
    pub(crate) fn fuel(&self) -> u64 {
        self.fuel.load(Ordering::Relaxed)
    }
}

/// Of all bindings that were called since the start, by the ids of their stores.
#[derive(Debug, Default)]
pub(crate) struct Meters(RwLock<BTreeMap<u32, Arc<Meter>>>);

impl Meters {
    /// As they are now.
    pub(crate) fn all(&self) -> BTreeMap<u32, Arc<Meter>> {
        self.0.read().clone()
    }

    fn of(&self, plugin: &Plugin) -> Arc<Meter> {
        if let Some(meter) = self.0.read().get(&plugin.id) {
            return Arc::clone(meter);
        }
        Arc::clone(self.0.write().entry(plugin.id).or_default())
    }
}

/// Hooks whose calls are measured.
pub(crate) struct Metered {
    pub(crate) hooks: Box<dyn Hooks>,
    pub(crate) meters: Arc<Meters>,
}

impl Metered {
    fn measure<T>(
        &self,
        call: &Call<'_>,
        env: &mut dyn Env,
        hook: impl FnOnce(&dyn Hooks, &mut dyn Env) -> Outcome<T>,
    ) -> Outcome<T> {
        let meter = self.meters.of(call.plugin);
        let mut env = Spending { env, fuel: 0 };
        let began = Instant::now();
        let outcome = hook(self.hooks.as_ref(), &mut env);
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let fuel = match &outcome {
            Ok(Ok(_)) => env.fuel,
            Ok(Err(_)) => call.fuel_max,
            // It was not the plugin's.
            Err(_) => return outcome,
        };
        meter.took.add(1, us);
        meter.fuel.fetch_add(fuel, Ordering::Relaxed);
        outcome
    }
}

impl Hooks for Metered {
    fn inner(&self) -> Option<&dyn Hooks> {
        Some(&*self.hooks)
    }

    fn authenticate(
        &self,
        call: &Call<'_>,
        credentials: &Credentials<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Result<Vec<String>, String>> {
        self.measure(call, env, |hooks, env| hooks.authenticate(call, credentials, env))
    }

    fn check(&self, call: &Call<'_>, check: &Check<'_>, env: &mut dyn Env) -> Outcome<Decision> {
        self.measure(call, env, |hooks, env| hooks.check(call, check, env))
    }

    fn guard(
        &self,
        call: &Call<'_>,
        operation: &Operation<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Verdict> {
        self.measure(call, env, |hooks, env| hooks.guard(call, operation, env))
    }

    fn observe(&self, call: &Call<'_>, change: &Changed<'_>, env: &mut dyn Env) -> Outcome<()> {
        self.measure(call, env, |hooks, env| hooks.observe(call, change, env))
    }
}

/// What a call has around it, and what it takes.
struct Spending<'e> {
    env: &'e mut dyn Env,
    fuel: u64,
}

impl Env for Spending<'_> {
    fn node(&mut self, path: &str) -> Result<Option<Node>, EnvError> {
        self.env.node(path)
    }

    fn stat(&mut self, path: &str) -> Result<Option<proto::Stat>, EnvError> {
        self.env.stat(path)
    }

    fn children(
        &mut self,
        path: &str,
        after: &str,
        most: usize,
    ) -> Result<Option<Vec<String>>, EnvError> {
        self.env.children(path, after, most)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, EnvError> {
        self.env.get(key)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EnvError> {
        self.env.put(key, value)
    }

    fn add(&mut self, key: &[u8], delta: i64) -> Result<i64, EnvError> {
        self.env.add(key, delta)
    }

    fn scan(&mut self, start: &[u8], end: &[u8], most: usize) -> Result<Pairs, EnvError> {
        self.env.scan(start, end, most)
    }

    fn log(&mut self, line: &str) {
        self.env.log(line);
    }

    fn spent(&mut self, fuel: u64) {
        self.fuel = fuel;
        self.env.spent(fuel);
    }
}
