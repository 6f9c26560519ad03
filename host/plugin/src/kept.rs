//! Instances that are kept between calls: on reads, of stateless modules.
//!
//! There are at most as many of a binding as threads call it at a time. A fault drops an instance, and so does
//! another generation of its binding, or its [`CALLS_MAX`]th call.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use state::plugins::Plugin;

use crate::module::Live;

/// Calls of one instance.
const CALLS_MAX: u32 = 1024;

/// Instances of all bindings. The pool of the engine has room for more (`engine.rs`).
const INSTANCES_MAX: usize = 256;

/// The kept instances, by binding.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    bindings: BTreeMap<Key, Vec<Used>>,
    instances: usize,
}

/// The ids of bindings are unique within an ensemble; a process may have several states only in tests, whose
/// modules differ.
type Key = (u32, state::plugins::ModuleHash);

/// An instance, and what it was used for.
pub(crate) struct Used {
    pub(crate) live: Live,
    generation: u64,
    calls: u32,
}

impl Used {
    pub(crate) fn new(live: Live, plugin: &Plugin) -> Self {
        Self { live, generation: plugin.generation, calls: 0 }
    }
}

impl Kept {
    /// An instance that may be used again.
    pub(crate) fn take(&self, plugin: &Plugin) -> Option<Used> {
        let mut inner = self.0.lock();
        let used = inner.bindings.get_mut(&(plugin.id, plugin.module))?.pop()?;
        inner.instances -= 1;
        drop(inner);
        (used.generation == plugin.generation).then_some(used)
    }

    /// Gives one back after a call without a fault.
    pub(crate) fn give(&self, mut used: Used, plugin: &Plugin) {
        used.calls += 1;
        if used.calls >= CALLS_MAX {
            return;
        }
        let mut inner = self.0.lock();
        if inner.instances < INSTANCES_MAX {
            inner.instances += 1;
            inner.bindings.entry((plugin.id, plugin.module)).or_default().push(used);
        }
    }
}
