//! Plugins on this server: how they come from an operator's files.

mod bundle;
mod directory;
mod reconcile;

pub(crate) use bundle::Bundle;
