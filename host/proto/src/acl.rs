//! Access control lists and identities.

use crate::codec::{Reader, Writer};
use crate::error::DecodeError;

/// Permission bits, as ZooKeeper numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Perms;

impl Perms {
    /// Read data and children.
    pub const READ: i32 = 1;
    /// Set data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the ACL.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

/// Who somebody is: a scheme, and an id within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// `world`, `digest`, `ip`, `sasl`, `x509`, `super`, or a plugin's.
    pub scheme: String,
    /// What the scheme says.
    pub id: String,
}

impl Id {
    /// An identity.
    pub fn new(scheme: impl Into<String>, id: impl Into<String>) -> Self {
        Self { scheme: scheme.into(), id: id.into() }
    }
}

/// One entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// [`Perms`], or-ed.
    pub perms: i32,
    /// Whom it is for.
    pub id: Id,
}

impl Acl {
    /// `world:anyone` with these permissions.
    pub fn world(perms: i32) -> Self {
        Self { perms, id: Id::new("world", "anyone") }
    }

    /// Reads a vector of entries; null is empty.
    ///
    /// # Errors
    /// [`DecodeError`] if it is truncated.
    pub fn decode_all(r: &mut Reader) -> Result<Vec<Self>, DecodeError> {
        let count = r.count(12)?;
        (0..count)
            .map(|_| Ok(Self { perms: r.int()?, id: Id { scheme: r.string()?, id: r.string()? } }))
            .collect()
    }

    /// Writes a vector of entries.
    pub fn encode_all(acls: &[Self], w: &mut Writer<'_>) {
        w.count(acls.len());
        for acl in acls {
            w.int(acl.perms);
            w.string(&acl.id.scheme);
            w.string(&acl.id.id);
        }
    }
}
