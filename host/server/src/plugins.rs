//! Plugins on this server: how they come from an operator's files, and what it takes to run them.

mod bundle;
mod directory;
mod reconcile;
mod runner;

pub(crate) use bundle::Bundle;
pub(crate) use directory::Directory;
pub use runner::{Found, found};
pub(crate) use runner::{Runner, prepare, runtime};
