//! Names for the numbers of the boundary. A plugin must have an answer for numbers that have none here.

use crate::Denial;

/// What is done or asked.
pub mod op {
    /// Create, of whatever kind.
    pub const CREATE: u16 = 1;
    /// Delete, of whatever cause.
    pub const DELETE: u16 = 2;
    /// Whether it exists; authorizers only.
    pub const EXISTS: u16 = 3;
    /// Get data; authorizers only.
    pub const GET_DATA: u16 = 4;
    /// Set data.
    pub const SET_DATA: u16 = 5;
    /// Get the ACL; authorizers only.
    pub const GET_ACL: u16 = 6;
    /// Set the ACL.
    pub const SET_ACL: u16 = 7;
    /// Get children; authorizers only.
    pub const GET_CHILDREN: u16 = 8;
    /// Check a version.
    pub const CHECK: u16 = 13;
}

/// Why something changes or has changed.
pub mod cause {
    /// A client asked for it.
    pub const CLIENT: u16 = 0;
    /// A session has ended.
    pub const SESSION_END: u16 = 1;
    /// A TTL or an empty container came to its end.
    pub const DUE: u16 = 2;
    /// A trigger returned it.
    pub const TRIGGER: u16 = 3;
    /// Nothing changed: it was there before.
    pub const BUILD: u16 = 4;
}

/// Kinds of znodes.
pub mod mode {
    /// Stays until it is deleted.
    pub const PERSISTENT: u16 = 0;
    /// Dies with its session.
    pub const EPHEMERAL: u16 = 1;
    /// Persistent, with a number behind its name; in what a trigger returns.
    pub const PERSISTENT_SEQUENTIAL: u16 = 2;
    /// Ephemeral, with a number behind its name; in what a trigger returns.
    pub const EPHEMERAL_SEQUENTIAL: u16 = 3;
    /// Deleted by the server once its last child is gone.
    pub const CONTAINER: u16 = 4;
    /// Deleted by the server when it was not changed for so long.
    pub const TTL: u16 = 5;
    /// The same, with a number behind its name; in what a trigger returns.
    pub const TTL_SEQUENTIAL: u16 = 6;
}

/// What an ACL gives, and a question is about.
pub mod perm {
    /// Get data and children.
    pub const READ: u32 = 1;
    /// Set data.
    pub const WRITE: u32 = 2;
    /// Create a child.
    pub const CREATE: u32 = 4;
    /// Delete a child.
    pub const DELETE: u32 = 8;
    /// Set the ACL.
    pub const ADMIN: u32 = 16;
}

/// What a client may be told. Any other code is a fault of the plugin.
pub mod code {
    /// Nobody does that here.
    pub const UNIMPLEMENTED: i32 = -6;
    /// The request makes no sense.
    pub const BAD_ARGUMENTS: i32 = -8;
    /// There is no such znode.
    pub const NO_NODE: i32 = -101;
    /// They may not.
    pub const NO_AUTH: i32 = -102;
    /// It has another version.
    pub const BAD_VERSION: i32 = -103;
    /// An ephemeral znode has no children.
    pub const NO_CHILDREN_FOR_EPHEMERALS: i32 = -108;
    /// It is there already.
    pub const NODE_EXISTS: i32 = -110;
    /// It has children.
    pub const NOT_EMPTY: i32 = -111;
    /// The ACL makes no sense.
    pub const INVALID_ACL: i32 = -114;
    /// It is more than what they are given.
    pub const QUOTA_EXCEEDED: i32 = -125;
    /// It is too often.
    pub const THROTTLED: i32 = -127;
}

/// Refuses: with one of [`code`], which the client gets, and a reason, which the operator finds in the
/// decision log.
///
/// # Errors
/// Always: that is its purpose.
pub fn deny<T>(code: i32, reason: impl Into<String>) -> Result<T, Denial> {
    Err(Denial { code, reason: reason.into() })
}

/// The parent of a path; `None` of the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}
