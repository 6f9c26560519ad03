//! The points where plugins take part in a transaction: a contract, no Wasm.
//!
//! Every implementation must be deterministic: the same calls in the same order give the same
//! answers on every replica.

use proto::{ErrorCode, Id};

use crate::command::APPLY_VERSION;

/// One change that is about to be made, or was made, to a znode.
#[derive(Debug, Clone, Copy)]
pub struct Touch<'a> {
    /// [`proto::OpCode`]'s number.
    pub opcode: i32,
    /// The final path, with its sequence suffix.
    pub path: &'a str,
    /// The new data, if it has any.
    pub data: Option<&'a [u8]>,
    /// Who asks for it; empty for the server itself.
    pub identities: &'a [Id],
    /// The session that asks for it; 0 for the server itself.
    pub session: i64,
}

/// Where plugins take part. The defaults do nothing.
pub trait Hooks: Send {
    /// Whether an ACL entry of a scheme that is not built in matches; `None` abstains.
    fn authorize(&mut self, _entry: &Id, _perms: i32, _touch: &Touch<'_>) -> Option<bool> {
        None
    }

    /// Asked once all of ZooKeeper's own checks have passed, just before the change.
    ///
    /// # Errors
    /// The code that the client is to see.
    fn guard(&mut self, _touch: &Touch<'_>) -> Result<(), ErrorCode> {
        Ok(())
    }

    /// Told of every change, whatever its cause.
    fn observe(&mut self, _touch: &Touch<'_>) {}

    /// The newest apply version that the program knows which they are part of. Tests alone say others.
    fn apply_version(&self) -> u32 {
        APPLY_VERSION
    }

    /// The operation failed after all: what it left in private stores is to be undone.
    fn rolled_back(&mut self) {}
}

/// No plugins.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {}
