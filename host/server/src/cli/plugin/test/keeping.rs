//! Hooks that keep an instance for longer than a server would.

use std::sync::Arc;

use plugin::Guests;
use state::hooks::{Hooks, Scope};

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
    fn inner(&self) -> Option<&dyn Hooks> {
        Some(&*self.guests)
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
}
