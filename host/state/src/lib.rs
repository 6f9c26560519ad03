//! The replicated state machine: the znode tree, its sessions and settings, over an ordered store.
//!
//! Deterministic: the state after log index *i* is a function of the log up to *i*. This crate
//! knows no clock, no randomness, no raft, no sockets and no configuration; time, passwords and
//! identities arrive inside the commands.
//!
//! Read [`apply`] first ([`State::apply`] is the only code that changes replicated state), then
//! one file in `ops`.

pub mod command;

pub mod apply;
mod ops;
mod txn;

pub mod access;
mod quota;
pub mod znode;

pub mod change;
pub mod hooks;
pub mod plugins;
pub mod view;

mod acls;
mod alive;
mod cache;
pub mod flush;
pub mod keys;
mod known;
pub mod members;
mod recent;
pub mod snapshot;
mod spare;
pub mod store;

pub mod fault;
pub mod mutants;

pub use apply::{Applied, State};
pub use change::{Answer, Change, Outcome, PluginDone};
pub use command::{APPLY_VERSION, Batch, Command, Group, Op, Reconfig, SettingChange, Settings};
pub use fault::Fault;
pub use flush::Flush;
pub use hooks::{Hooks, NoHooks};
pub use members::{ConfStep, Member, Members};
pub use store::{FjallStore, MemoryStore, Store, StoreOptions, TornTail};
pub use view::View;
pub use znode::Znode;
