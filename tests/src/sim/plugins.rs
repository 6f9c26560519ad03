//! Plugins in the simulator: real modules, run by the runtime that servers have.
//!
//! * `modules.rs` are the guests, made once for all seeds, and the engines that run them: servers of a seed
//!   have engines that are tuned apart, which must make no difference.
//! * `hooks.rs` is what a state calls: the runtime's own, and around it what compiling takes.
//! * `runner.rs` does what a server does beside applying, `operator.rs` what operators ask for.

#[path = "../../../host/plugin/tests/it/guest.rs"]
#[allow(dead_code, reason = "the runtime's own tests use all of it")]
mod guest;
mod hooks;
mod modules;
mod operator;
mod runner;

pub use hooks::{Ailment, HookMutants, Ready, Seen, SimHooks};
pub use modules::{DENIES, QUOTA, WALL, gate_enforces, most, runtime};
pub use operator::Operator;
pub use runner::{Runner, compile};
