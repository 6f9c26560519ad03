//! A znode's `Stat`, as clients see it.

use crate::codec::{Reader, Writer};
use crate::error::DecodeError;

/// What ZooKeeper tells of a znode. 68 bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// The zxid that created it.
    pub czxid: i64,
    /// The zxid that last set its data.
    pub mzxid: i64,
    /// When it was created, in milliseconds since the epoch.
    pub ctime: i64,
    /// When its data was last set, in milliseconds since the epoch.
    pub mtime: i64,
    /// How often its data was set.
    pub version: i32,
    /// How often a child was created or deleted.
    pub cversion: i32,
    /// How often its ACL was set.
    pub aversion: i32,
    /// The session of an ephemeral znode; 0 for all others, containers and TTL nodes included.
    pub ephemeral_owner: i64,
    /// The length of its data in bytes; 0 for null.
    pub data_length: i32,
    /// How many children it has.
    pub num_children: i32,
    /// The zxid that last created or deleted a child.
    pub pzxid: i64,
}

impl Stat {
    /// Reads a stat.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: r.long()?,
            mzxid: r.long()?,
            ctime: r.long()?,
            mtime: r.long()?,
            version: r.int()?,
            cversion: r.int()?,
            aversion: r.int()?,
            ephemeral_owner: r.long()?,
            data_length: r.int()?,
            num_children: r.int()?,
            pzxid: r.long()?,
        })
    }

    /// Writes the stat.
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.long(self.czxid);
        w.long(self.mzxid);
        w.long(self.ctime);
        w.long(self.mtime);
        w.int(self.version);
        w.int(self.cversion);
        w.int(self.aversion);
        w.long(self.ephemeral_owner);
        w.int(self.data_length);
        w.int(self.num_children);
        w.long(self.pzxid);
    }
}
