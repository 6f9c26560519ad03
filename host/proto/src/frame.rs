//! Splits a byte stream into frames.
//!
//! Invariants:
//! * A frame longer than `frame_bytes_max`, or of negative length, is an error before a byte of it
//!   is buffered; the connection must be closed, because the stream cannot be followed any more.
//! * Never more than one frame beyond what has been read is reserved.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::DecodeError;

/// ZooKeeper's default for `jute.maxbuffer`, in bytes: 1 MiB less one.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 0xf_ffff;

/// The next whole frame at the start of `buf`, without its length prefix; `None` if it is not all
/// there yet, in which case room for it has been reserved.
///
/// # Errors
/// [`DecodeError::Frame`] if its length is negative or above `frame_bytes_max`.
pub fn next_frame(
    buf: &mut BytesMut,
    frame_bytes_max: usize,
) -> Result<Option<Bytes>, DecodeError> {
    let Some(prefix) = buf.first_chunk::<4>() else { return Ok(None) };
    let len = i32::from_be_bytes(*prefix);
    let max = frame_bytes_max;
    let bytes = match usize::try_from(len) {
        Ok(bytes) if bytes <= max => bytes,
        _ => return Err(DecodeError::Frame { len, max }),
    };
    if buf.len() < 4 + bytes {
        buf.reserve(4 + bytes - buf.len());
        return Ok(None);
    }
    buf.advance(4);
    Ok(Some(buf.split_to(bytes).freeze()))
}
