//! Plugins on this server: how they come from an operator's files, and what it takes to run them.

mod bundle;
mod directory;
mod meters;
mod reconcile;
mod runner;

use std::io;

use plugin::{Runtime, THREAD_STACK_BYTES};
use state::Hooks;

pub(crate) use bundle::Bundle;
pub(crate) use directory::Directory;
pub(crate) use meters::{Meter, Metered, Meters};
pub use runner::{Found, found};
pub(crate) use runner::{Runner, compile, prepare, runtime};

/// What runs the plugins of the states that are opened.
pub(crate) struct Host<'a> {
    pub(crate) runtime: &'a Runtime,
    /// Makes the hooks of a state.
    pub(crate) make: &'a (dyn Fn() -> Box<dyn Hooks> + Sync),
}

impl Host<'_> {
    /// The hooks of a state.
    pub(crate) fn hooks(&self) -> Box<dyn Hooks> {
        (self.make)()
    }
}

/// Does something on a thread with the stack that guests need, and waits for it.
///
/// # Errors
/// If there are no threads left.
///
/// # Panics
/// If `work` does.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES);
        let done = thread.spawn_scoped(scope, work)?.join();
        done.map_err(|panic| std::panic::resume_unwind(panic))
    })
}
