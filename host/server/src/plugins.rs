//! Plugins on this server: how they come from an operator's files.

mod bundle;

pub(crate) use bundle::Bundle;
