//! Operations to ask a guard about.

use crate::{Operation, mode, op};

/// Creates a persistent znode.
pub fn create(path: &str, data: impl AsRef<[u8]>) -> Operation {
    Operation {
        op: op::CREATE,
        path: path.into(),
        data: Some(data.as_ref().to_vec()),
        mode: mode::PERSISTENT,
        version: -1,
        ..Operation::default()
    }
}

/// Creates one that dies with the session that asks.
pub fn create_ephemeral(path: &str, data: impl AsRef<[u8]>) -> Operation {
    Operation { mode: mode::EPHEMERAL, ..create(path, data) }
}

/// Sets data.
pub fn set(path: &str, data: impl AsRef<[u8]>) -> Operation {
    Operation { op: op::SET_DATA, ..create(path, data) }
}

/// Deletes.
pub fn delete(path: &str) -> Operation {
    Operation { op: op::DELETE, path: path.into(), version: -1, ..Operation::default() }
}
