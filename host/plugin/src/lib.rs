//! Runs plugins.
mod bindings;
