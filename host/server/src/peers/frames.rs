//! What passes over a link: frames, each its length, its checksum (crc32c), and so many bytes. The
//! first of each side begins with its format, and nothing else of it is read before that is known.

use std::io::{self, Read};

use replica::peer::PEER_FORMAT;
use serde::{Deserialize, Serialize};

/// No message is longer: a round of entries, and what is around it.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// What the first frame of each side begins with; the number of its format follows.
const MAGIC: [u8; 4] = *b"vvrm";

/// A frame around a payload.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Whether there is a whole frame at the beginning, or what is none.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let payload = bytes.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
    payload.is_some_and(|payload| bytes.len() >= 8 + payload || payload > FRAME_BYTES_MAX)
}

/// The payload of the next frame.
///
/// # Errors
/// What the operating system answered, or that it is no frame, or a damaged one.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 8];
    from.read_exact(&mut head)?;
    let [a, b, c, d, rest @ ..] = head;
    let (bytes, crc) = (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes(rest));
    if bytes > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!(
            "expected a frame of at most {FRAME_BYTES_MAX} bytes, got {bytes}: no server of an ensemble"
        )));
    }
    let mut payload = vec![0; bytes];
    from.read_exact(&mut payload)?;
    let got = crc32c::crc32c(&payload);
    if got != crc {
        return Err(io::Error::other(format!("a frame's checksum is {got:#x}, not {crc:#x}")));
    }
    Ok(payload)
}

/// The payload of a first frame.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = [&MAGIC[..], &PEER_FORMAT.to_be_bytes()].concat();
    out.extend(rmp_serde::to_vec(value).expect("a greeting can always be encoded"));
    out
}

/// What the payload of a first frame holds.
///
/// # Errors
/// That it is of somebody else, or of another version.
pub(super) fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> io::Result<T> {
    let (format, rest) = bytes
        .strip_prefix(&MAGIC)
        .and_then(|rest| rest.split_first_chunk())
        .ok_or_else(|| io::Error::other("expected a server of an ensemble, got somebody else"))?;
    let format = u32::from_be_bytes(*format);
    if format != PEER_FORMAT {
        return Err(io::Error::other(format!(
            "expected format {PEER_FORMAT} of messages, got {format}: it is of another version"
        )));
    }
    rmp_serde::from_slice(rest).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_frame_is_refused() {
        let whole = frame(b"what is said");
        assert_eq!(read_frame(&mut &whole[..]).expect("it is whole"), b"what is said");
        assert!(is_whole(&whole));
        for at in 0..whole.len() {
            assert!(!is_whole(&whole[..at]), "cut at {at}");
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(read_frame(&mut &damaged[..]).is_err(), "byte {at}");
            assert!(read_frame(&mut &whole[..at]).is_err(), "cut at {at}");
        }
    }
}
