//! Instances that are kept between reads, of stateless modules.
//!
//! There are at most as many of a binding as threads call it at a time. A fault drops an instance, and so does
//! another generation of its binding, or its [`CALLS_MAX`]th call.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use state::plugins::{Instance, Plugin};

use crate::module::Live;

/// Calls of one instance.
const CALLS_MAX: u32 = 1024;

/// Instances of all bindings. The pool of the engine has room for more (`engine.rs`).
const INSTANCES_MAX: usize = 256;

/// The kept instances of one state.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// By binding.
    bindings: BTreeMap<u32, Vec<Used>>,
    instances: usize,
}

/// An instance, and whose it is.
pub(crate) struct Used {
    /// Boxed: it goes in and out of lists with every call.
    pub(crate) live: Box<Live>,
    /// The binding's.
    pub(crate) id: u32,
    generation: u64,
    pub(crate) instance: Instance,
    calls: u32,
}

impl Used {
    pub(crate) fn new(live: Live, plugin: &Plugin) -> Self {
        let (id, generation, instance) = (plugin.id, plugin.generation, plugin.instance());
        let live = Box::new(live);
        Self { live, id, generation, instance, calls: 0 }
    }

    /// Whether it is an instance of this generation.
    pub(crate) fn is_of(&self, plugin: &Plugin) -> bool {
        self.generation == plugin.generation
    }
}

impl Kept {
    /// An instance that may be used again.
    pub(crate) fn take(&self, plugin: &Plugin) -> Option<Used> {
        let mut inner = self.0.lock();
        let of_binding = inner.bindings.get_mut(&plugin.id)?;
        let used = of_binding.pop()?;
        inner.instances -= 1;
        if used.is_of(plugin) {
            return Some(used);
        }
        // Those behind it are as old.
        let old = inner.bindings.remove(&plugin.id);
        inner.instances -= old.map_or(0, |old| old.len());
        None
    }

    /// Gives one back after a call without a fault.
    pub(crate) fn give(&self, mut used: Used, plugin: &Plugin) {
        used.calls += 1;
        if used.calls >= CALLS_MAX {
            return;
        }
        let mut inner = self.0.lock();
        if inner.instances == INSTANCES_MAX {
            // Most are of bindings that are called no more, or by fewer threads.
            *inner = Inner::default();
        }
        inner.instances += 1;
        inner.bindings.entry(plugin.id).or_default().push(used);
    }
}
