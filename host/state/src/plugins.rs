//! Plugins, as the state has them: which module takes part where, what it may take, what it has said.
//!
//! Which plugins run is replicated state. Every step of a binding's life is a command of the log
//! (`ops/plugin.rs`), so that from one index on it does the same on every replica. What runs them is
//! behind [`crate::Hooks`].

mod binding;
mod decisions;
mod env;
mod limits;
mod matcher;
mod pattern;
pub(crate) mod points;
mod reading;
pub(crate) mod registry;
mod row;
mod running;
pub(crate) mod znodes;

use serde::{Deserialize, Serialize};

pub use self::binding::{Binding, Instance, Mode, OnFault, OpKind, Point, is_native_scheme};
pub use self::decisions::{Decision, Decisions, Effect, Said};
pub use self::limits::{CallLimits, PluginLimit, PluginSettings, check_grants};
pub use self::pattern::Pattern;
pub use self::reading::Shadowed;
pub use self::registry::{Module, Registry, is_system};
pub use self::row::{Build, Counters, Plugin, Row, Staged};

pub(crate) use self::running::{Ran, Running, needs};

/// How large a part of a module may be, as it is uploaded, in bytes.
pub const PART_BYTES_MAX: usize = 512 << 10;

/// The SHA-256 of a module's bytes, as they were uploaded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl ModuleHash {
    /// The hash of a module.
    pub fn of(module: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(module).into())
    }

    /// The same of one that comes in parts.
    pub(crate) fn of_parts<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        use sha2::Digest;
        let mut hasher = sha2::Sha256::new();
        parts.for_each(|part| hasher.update(part));
        Self(hasher.finalize().into())
    }
}

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
    /// At which points it can take part, in the order of [`Point`].
    pub points: Vec<Point>,
    /// Whether it says of itself that it keeps nothing between calls.
    pub is_stateless: bool,
}
