//! Runs plugins: WebAssembly components of `vivarium:plugin`, whose manual is `wit/`.
//!
//! A module comes in by [`Runtime::load`]: the whole of it is inspected ([`inspect()`]), then compiled, or taken
//! from the cache, and tried. [`Compiler`] does that on a thread of its own. [`Guests`] is what a state calls
//! ([`state::Hooks`]): it makes an instance or takes one that may be used again, gives it fuel, lends it what it
//! may read and write, and sorts what comes of it.
//!
//! Invariants:
//! * A guest sees only what is the same on every server: see `engine.rs`, the execution profile.
//! * What goes wrong is the plugin's, and an outcome, or this server's, and none: `FAULTS.md` says which.
//! * Compiled code is a local cache. It is checked before it is loaded, and no outcome depends on it.

mod bindings;

mod cost;
mod engine;
mod error;
mod inspect;

mod cache;
mod module;
mod runtime;

mod compiler;

mod convert;
mod guest;
mod guests;
mod host;
mod kept;
mod sort;

pub use compiler::Compiler;
pub use engine::{
    AUTHENTICATE_FUEL_MAX, DEPTH_MAX, FRAME_BYTES_MAX, FUEL_PER_CALL_MAX, MEMORY_BYTES_MAX,
    PROFILE, THREAD_STACK_BYTES, Tuning, WASM_STACK_BYTES,
};
pub use error::Refused;
pub use guests::Guests;
pub use inspect::inspect;
pub use runtime::{Loaded, Runtime};
pub use sort::kind as kind_of_trap;
