//! The replicated registry of plugins: which module takes part where.

mod binding;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::binding::{Binding, Instance, Mode, OnFault, OpKind, Point};

/// The SHA-256 of a module's bytes, as they were uploaded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleHash(pub [u8; 32]);

impl std::fmt::Display for ModuleHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ModuleHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What a module is found to be when it is staged: a function of its bytes, the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exports {
    /// At which points it can take part.
    pub points: Vec<Point>,
    /// Whether it says of itself that it keeps nothing between calls.
    pub is_stateless: bool,
}

/// A generation of a binding: what is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plugin {
    /// Names its private store: the same through all generations.
    pub id: u32,
    /// Counts what was staged under this name.
    pub generation: u64,
    /// The module.
    pub module: ModuleHash,
    /// What the operator wrote.
    pub binding: Arc<Binding>,
    /// [`Binding::settings`] as the plugin gets them: JSON.
    pub settings: String,
    /// What the module was found to be; nothing before it is active.
    pub exports: Exports,
    /// How long an instance lives.
    pub instance: Instance,
    /// What its calls may take.
    pub limits: CallLimits,
}

/// What one call may take, beside what [`crate::hooks::Call`] says. Part of the replicated settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLimits {
    /// The linear memory, in bytes.
    pub memory_bytes: u64,
    /// Lines of the log.
    pub log_lines: u32,
    /// The length of each, in bytes.
    pub log_line_bytes: u32,
}
