//! Cursors over jute records: [`Reader`] and [`Writer`], with the primitives of ZooKeeper's format.
//!
//! Invariants:
//! * A reader never allocates more than the bytes that are really there: a vector's count is
//!   checked against what is left before anything is reserved.
//! * Buffers are slices of the frame that they came in; nothing is copied.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::DecodeError;

/// Reads jute primitives from a frame, front to back.
#[derive(Debug, Clone)]
pub struct Reader {
    bytes: Bytes,
}

impl Reader {
    /// A reader over the whole of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn need(&self, n: usize, what: &'static str) -> Result<(), DecodeError> {
        if self.bytes.len() < n {
            return Err(DecodeError::Truncated { what, needed: n, left: self.bytes.len() });
        }
        Ok(())
    }

    /// One byte; anything but 0 is true.
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        self.need(1, "boolean")?;
        Ok(self.bytes.get_u8() != 0)
    }

    /// A big-endian 32-bit integer.
    pub fn int(&mut self) -> Result<i32, DecodeError> {
        self.need(4, "int")?;
        Ok(self.bytes.get_i32())
    }

    /// A big-endian 64-bit integer.
    pub fn long(&mut self) -> Result<i64, DecodeError> {
        self.need(8, "long")?;
        Ok(self.bytes.get_i64())
    }

    /// A length-prefixed buffer; `None` for length -1, which is distinct from an empty one.
    pub fn buffer(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let len = self.int()?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| DecodeError::Length { what: "buffer", len })?;
        self.need(len, "buffer")?;
        Ok(Some(self.bytes.split_to(len)))
    }

    /// A string; null (length -1) becomes the empty string, which no rule tells apart from it.
    ///
    /// Bytes that are not UTF-8 become U+FFFD, as Java's decoder does it: one for each surrogate.
    pub fn string(&mut self) -> Result<String, DecodeError> {
        let bytes = self.buffer()?.unwrap_or_default();
        Ok(match std::str::from_utf8(&bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(&without_surrogates(&bytes)).into_owned(),
        })
    }

    /// The count of a vector whose items take at least `item_bytes_min` bytes; null is 0.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = self.int()?;
        if count == -1 {
            return Ok(0);
        }
        let count = usize::try_from(count)
            .map_err(|_| DecodeError::Length { what: "vector", len: count })?;
        self.need(count.saturating_mul(item_bytes_min), "vector")?;
        Ok(count)
    }

    /// A vector of strings.
    pub fn strings(&mut self) -> Result<Vec<String>, DecodeError> {
        let count = self.count(4)?;
        (0..count).map(|_| self.string()).collect()
    }

    /// Everything that is left.
    pub fn rest(self) -> Bytes {
        self.bytes
    }
}

/// The bytes with U+FFFD in place of surrogates, which UTF-8 does not allow.
fn without_surrogates(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, more)) = rest.split_first() {
        if let [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] = rest {
            out.extend_from_slice("\u{fffd}".as_bytes());
            rest = after;
        } else {
            out.push(first);
            rest = more;
        }
    }
    out
}

/// Writes jute primitives to the end of a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut BytesMut,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// One byte, 0 or 1.
    pub fn boolean(&mut self, value: bool) {
        self.out.put_u8(u8::from(value));
    }

    /// A big-endian 32-bit integer.
    pub fn int(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    /// A big-endian 64-bit integer.
    pub fn long(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    /// A length-prefixed buffer; `None` is length -1.
    ///
    /// # Panics
    /// If the buffer is longer than `i32::MAX` bytes; frames are far smaller.
    pub fn buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.int(-1),
            Some(bytes) => {
                self.int(i32::try_from(bytes.len()).expect("a buffer is shorter than 2 GiB"));
                self.out.put_slice(bytes);
            }
        }
    }

    /// A string. Characters beyond the basic plane are written as two surrogates of three bytes
    /// each (CESU-8), as Java's writer does it.
    pub fn string(&mut self, value: &str) {
        if value.bytes().all(|b| b < 0xf0) {
            return self.buffer(Some(value.as_bytes()));
        }
        let mut bytes = Vec::with_capacity(value.len() + 8);
        for unit in value.encode_utf16() {
            // A lone unit below the surrogates is at most three bytes of plain UTF-8.
            match unit {
                0..=0x7f => bytes.push(unit.to_le_bytes()[0]),
                0x80..=0x7ff => bytes.extend([lead(unit, 6, 0xc0), tail(unit, 0)]),
                _ => bytes.extend([lead(unit, 12, 0xe0), tail(unit, 6), tail(unit, 0)]),
            }
        }
        self.buffer(Some(&bytes));
    }

    /// A vector's count.
    ///
    /// # Panics
    /// If there are more than `i32::MAX` items.
    pub fn count(&mut self, count: usize) {
        self.int(i32::try_from(count).expect("a vector has fewer than 2^31 items"));
    }

    /// A vector of strings.
    pub fn strings<S: AsRef<str>>(&mut self, values: &[S]) {
        self.count(values.len());
        for value in values {
            self.string(value.as_ref());
        }
    }
}

fn lead(unit: u16, shift: u32, mark: u8) -> u8 {
    mark | ((unit >> shift) & 0x1f).to_le_bytes()[0]
}

fn tail(unit: u16, shift: u32) -> u8 {
    0x80 | ((unit >> shift) & 0x3f).to_le_bytes()[0]
}

/// Appends one whole frame: the length, then what `body` writes.
///
/// # Panics
/// If the body is longer than `i32::MAX` bytes.
pub fn frame(out: &mut BytesMut, body: impl FnOnce(&mut Writer<'_>)) {
    let at = out.len();
    out.put_i32(0);
    body(&mut Writer::new(out));
    let len = i32::try_from(out.len() - at - 4).expect("a frame is shorter than 2 GiB");
    let (_, frame) = out.split_at_mut(at);
    let (prefix, _) = frame.split_at_mut(4);
    prefix.copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surrogate_is_one_replacement() {
        let mut out = BytesMut::new();
        Writer::new(&mut out).string("a\u{1f600}b");
        let read = Reader::new(out.freeze()).string();
        assert_eq!(read, Ok("a\u{fffd}\u{fffd}b".to_owned()));
    }
}
