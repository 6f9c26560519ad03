//! Plugins on this server: how they come from an operator's files, and what it takes to run them.

mod bundle;
mod directory;
mod meters;
mod reconcile;
mod runner;

pub(crate) use bundle::Bundle;
pub(crate) use directory::Directory;
pub(crate) use meters::{Meter, Metered, Meters};
pub(crate) use runner::{Runner, prepare, runtime};
