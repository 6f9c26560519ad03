//! Watch events: what a server says without being asked.

use bytes::BytesMut;

use crate::codec::{Reader, frame};
use crate::error::DecodeError;
use crate::header::{ReplyHeader, XID_EVENT};

/// What happened to a znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum EventType {
    /// It was created.
    NodeCreated = 1,
    /// It was deleted.
    NodeDeleted = 2,
    /// Its data was set.
    NodeDataChanged = 3,
    /// A child of it was created or deleted.
    NodeChildrenChanged = 4,
}

/// The only state that a server ever sends with an event.
pub const STATE_SYNC_CONNECTED: i32 = 3;

/// One event for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventType,
    /// Where.
    pub path: String,
    /// The zxid of the change (since ZooKeeper 3.9), or -1 for what `setWatches` catches up on.
    pub zxid: i64,
}

impl WatchEvent {
    /// Appends the event as a whole frame.
    pub fn encode(kind: EventType, path: &str, zxid: i64, out: &mut BytesMut) {
        frame(out, |w| {
            ReplyHeader { xid: XID_EVENT, zxid, err: 0 }.encode(w);
            w.int(kind as i32);
            w.int(STATE_SYNC_CONNECTED);
            w.string(path);
        });
    }

    /// Reads the body that follows a header with xid -1.
    ///
    /// # Errors
    /// [`DecodeError`] if it is truncated, or of an unknown type.
    pub fn decode(header: ReplyHeader, r: &mut Reader) -> Result<Self, DecodeError> {
        let kind = match r.int()? {
            1 => EventType::NodeCreated,
            2 => EventType::NodeDeleted,
            3 => EventType::NodeDataChanged,
            4 => EventType::NodeChildrenChanged,
            number => return Err(DecodeError::Unknown { what: "event type", number }),
        };
        let _state = r.int()?;
        Ok(Self { kind, path: r.string()?, zxid: header.zxid })
    }
}
