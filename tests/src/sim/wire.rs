//! One client's network connection: bytes on their way, in order, and its two ends.

use bytes::BytesMut;

/// How many bytes may be under way to a client that does not read.
pub const DOWN_BYTES_MAX: usize = 2 << 10;

/// A connection's bytes under way.
#[derive(Debug, Default)]
pub struct Wire {
    /// The server at its other end.
    pub server: u64,
    /// From the client.
    pub up: BytesMut,
    /// The client sends no more; the server hears of it when it has read all.
    pub up_closed: bool,
    /// To the client.
    pub down: BytesMut,
    /// The server sends no more.
    pub down_closed: bool,
}
