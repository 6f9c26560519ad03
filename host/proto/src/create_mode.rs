//! What kind of znode a `create` asks for.

/// The flags of a create: a choice of seven, not free bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum CreateMode {
    /// Stays until it is deleted.
    Persistent = 0,
    /// Deleted with its session.
    Ephemeral = 1,
    /// Persistent, with a number appended to its name.
    PersistentSequential = 2,
    /// Ephemeral, with a number appended to its name.
    EphemeralSequential = 3,
    /// Deleted by the server some time after its last child.
    Container = 4,
    /// Deleted by the server when it was not set for its time to live, and has no children.
    PersistentTtl = 5,
    /// With a time to live, and a number appended to its name.
    PersistentSequentialTtl = 6,
}

impl CreateMode {
    /// The mode with this number, if there is one.
    pub fn from_flags(flags: i32) -> Option<Self> {
        Some(match flags {
            0 => Self::Persistent,
            1 => Self::Ephemeral,
            2 => Self::PersistentSequential,
            3 => Self::EphemeralSequential,
            4 => Self::Container,
            5 => Self::PersistentTtl,
            6 => Self::PersistentSequentialTtl,
            _ => return None,
        })
    }

    /// Its number on the wire.
    pub fn flags(self) -> i32 {
        self as i32
    }

    /// Whether it is deleted with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    /// Whether a number is appended to its name.
    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            Self::PersistentSequential | Self::EphemeralSequential | Self::PersistentSequentialTtl
        )
    }

    /// Whether a time to live, in milliseconds, may be asked for: 40 bits (`EphemeralType.TTL`).
    pub fn ttl_fits(ttl_ms: i64) -> bool {
        (1..1 << 40).contains(&ttl_ms)
    }

    /// Whether it has a time to live.
    pub fn is_ttl(self) -> bool {
        matches!(self, Self::PersistentTtl | Self::PersistentSequentialTtl)
    }
}
