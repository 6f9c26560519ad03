//! The headers of requests and replies, and the xids with a meaning of their own.

use crate::codec::{Reader, Writer};
use crate::error::DecodeError;

/// A watch event from the server.
pub const XID_EVENT: i32 = -1;
/// A ping and its reply.
pub const XID_PING: i32 = -2;
/// An auth packet and its reply.
pub const XID_AUTH: i32 = -4;
/// `setWatches` or `setWatches2` and its reply.
pub const XID_SET_WATCHES: i32 = -8;

/// What every request starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// The client's own count, echoed in the reply; negative ones have a meaning of their own.
    pub xid: i32,
    /// An [`OpCode`](crate::OpCode)'s number, or anything at all.
    pub opcode: i32,
}

impl RequestHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { xid: r.int()?, opcode: r.int()? })
    }

    /// Writes the header.
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.int(self.xid);
        w.int(self.opcode);
    }
}

/// What every reply starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's xid.
    pub xid: i32,
    /// The last zxid that the server had processed.
    pub zxid: i64,
    /// An [`ErrorCode`](crate::ErrorCode)'s number; 0 is success.
    pub err: i32,
}

impl ReplyHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { xid: r.int()?, zxid: r.long()?, err: r.int()? })
    }

    /// Writes the header.
    pub fn encode(&self, w: &mut Writer<'_>) {
        w.int(self.xid);
        w.long(self.zxid);
        w.int(self.err);
    }
}
