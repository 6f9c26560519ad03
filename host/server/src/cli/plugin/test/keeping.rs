//! Hooks that keep an instance for longer than a server would.

use std::sync::Arc;

use plugin::Guests;
use state::hooks::{
    Call, Changed, Check, Credentials, Decision, Env, Hooks, Operation, Outcome, Scope, Verdict,
};
use state::plugins::Plugin;

/// Hooks that, if told so, never say that a transaction or an entry is over: one instance gets all calls
/// of a binding, through several runs of a case. A plugin that is stateless cannot tell the difference.
pub(super) struct Keeping {
    guests: Arc<Guests>,
    keeps: bool,
}

impl Keeping {
    pub(super) fn new(guests: Arc<Guests>, keeps: bool) -> Self {
        Self { guests, keeps }
    }
}

impl Hooks for Keeping {
    fn is_ready(&self, plugin: &Plugin) -> bool {
        self.guests.is_ready(plugin)
    }

    fn transaction_begins(&self, scope: Scope) {
        if !self.keeps {
            self.guests.transaction_begins(scope);
        }
    }

    fn entry_ends(&self) {
        if !self.keeps {
            self.guests.entry_ends();
        }
    }

    fn configure(&self, call: &Call<'_>) -> Outcome<Result<(), String>> {
        self.guests.configure(call)
    }

    fn authenticate(
        &self,
        call: &Call<'_>,
        credentials: &Credentials<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Result<Vec<String>, String>> {
        self.guests.authenticate(call, credentials, env)
    }

    fn check(&self, call: &Call<'_>, check: &Check<'_>, env: &mut dyn Env) -> Outcome<Decision> {
        self.guests.check(call, check, env)
    }

    fn guard(
        &self,
        call: &Call<'_>,
        operation: &Operation<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Verdict> {
        self.guests.guard(call, operation, env)
    }

    fn observe(&self, call: &Call<'_>, change: &Changed<'_>, env: &mut dyn Env) -> Outcome<()> {
        self.guests.observe(call, change, env)
    }
}
