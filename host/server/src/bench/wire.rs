//! Requests as bytes, without building a `proto::Request` for each; and the head of a reply.
//!
//! Paths are written into one string that is kept, and data is one shared buffer.

use std::fmt::Write as _;

use bytes::BytesMut;
use proto::codec::{Writer, frame};
use proto::{Acl, OpCode, Perms, RequestHeader};

/// How many keys are in a directory, so that listing one is a fixed amount of work.
pub(super) const KEYS_PER_DIR: u32 = 100;

/// The znodes that the load works on. Their size is part of the path, so that keys which an
/// earlier run left are always of the size that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) count: u32,
    pub(super) data: Vec<u8>,
}

impl Keys {
    pub(super) fn new(count: u32, size: u32) -> Self {
        Self { count, data: vec![b'v'; size as usize] }
    }

    pub(super) fn root(&self) -> String {
        format!("/bench/s{}", self.data.len())
    }

    pub(super) fn dirs(&self) -> u32 {
        self.count.div_ceil(KEYS_PER_DIR)
    }

    pub(super) fn dir(&self, path: &mut String, dir: u32) {
        path.clear();
        write!(path, "/bench/s{}/d{dir}", self.data.len()).expect("a string takes any text");
    }

    pub(super) fn key(&self, path: &mut String, key: u32) {
        self.dir(path, key / KEYS_PER_DIR);
        write!(path, "/k{}", key % KEYS_PER_DIR).expect("a string takes any text");
    }
}

/// Appends a request whose body `body` writes.
pub(super) fn request(
    out: &mut BytesMut,
    xid: i32,
    op: OpCode,
    body: impl FnOnce(&mut Writer<'_>),
) {
    frame(out, |w| {
        RequestHeader { xid, opcode: op as i32 }.encode(w);
        body(w);
    });
}

/// Appends getData, exists or getChildren.
pub(super) fn read(out: &mut BytesMut, xid: i32, op: OpCode, path: &str, watch: bool) {
    request(out, xid, op, |w| {
        w.string(path);
        w.boolean(watch);
    });
}

/// Appends a setData of any version.
pub(super) fn set(out: &mut BytesMut, xid: i32, path: &str, data: &[u8]) {
    request(out, xid, OpCode::SetData, |w| {
        w.string(path);
        w.buffer(Some(data));
        w.int(-1);
    });
}

/// Appends a create of a persistent znode that everyone may use.
pub(super) fn create(out: &mut BytesMut, xid: i32, path: &str, data: &[u8]) {
    request(out, xid, OpCode::Create, |w| {
        w.string(path);
        w.buffer(Some(data));
        Acl::encode_all(&[Acl::world(Perms::ALL)], w);
        w.int(0);
    });
}

/// Appends a delete of any version.
pub(super) fn delete(out: &mut BytesMut, xid: i32, path: &str) {
    request(out, xid, OpCode::Delete, |w| {
        w.string(path);
        w.int(-1);
    });
}

/// One setData inside a multi.
pub(super) fn multi_set(w: &mut Writer<'_>, path: &str, data: &[u8]) {
    w.int(OpCode::SetData as i32);
    w.boolean(false);
    w.int(-1);
    w.string(path);
    w.buffer(Some(data));
    w.int(-1);
}

/// The end of a multi.
pub(super) fn multi_end(w: &mut Writer<'_>) {
    w.int(-1);
    w.boolean(true);
    w.int(-1);
}

/// The big-endian integer at `at`, if the bytes reach so far.
pub(super) fn int_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk::<4>().map(|four| i32::from_be_bytes(*four))
}

/// Why a multi failed: 0 if it did not. `payload` is a whole reply whose header says success; a
/// failed multi is a list of errors only, of which the decisive one is neither 0 nor -2.
pub(super) fn multi_error(payload: &[u8]) -> i32 {
    const ITEM_BYTES: usize = 4 + 1 + 4 + 4;
    const HEADER_BYTES: usize = 16;
    let mut at = HEADER_BYTES;
    while int_at(payload, at) == Some(-1) && payload.get(at + 4) == Some(&0) {
        match int_at(payload, at + 9) {
            Some(0 | -2) => at += ITEM_BYTES,
            Some(code) => return code,
            None => return 0,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::codec::Reader;
    use proto::{MultiOp, Request};

    use super::*;

    #[test]
    fn requests_are_those_of_proto() {
        let mut ours = BytesMut::new();
        set(&mut ours, 7, "/bench/a", b"v");
        read(&mut ours, 8, OpCode::GetData, "/bench/a", true);
        delete(&mut ours, 9, "/bench/a");
        let mut theirs = BytesMut::new();
        let path = "/bench/a".to_owned();
        let data = Some(Bytes::from_static(b"v"));
        Request::SetData { path: path.clone(), data, version: -1 }.encode(7, &mut theirs);
        Request::GetData { path: path.clone(), watch: true }.encode(8, &mut theirs);
        Request::Delete { path, version: -1 }.encode(9, &mut theirs);
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_multi_decodes() {
        let mut out = BytesMut::new();
        let mut w = Writer::new(&mut out);
        multi_set(&mut w, "/a", b"1");
        multi_set(&mut w, "/b", b"2");
        multi_end(&mut w);
        let ops = MultiOp::decode_all(&mut Reader::new(out.freeze())).expect("well-formed");
        assert_eq!(ops.len(), 2);
        assert!(matches!(&ops[1], MultiOp::SetData { path, .. } if path == "/b"));
    }

    #[test]
    fn the_decisive_error_of_a_multi_is_found() {
        let mut out = BytesMut::from(&[0; 16][..]);
        let mut w = Writer::new(&mut out);
        for code in [0, -101, -2] {
            w.int(-1);
            w.boolean(false);
            w.int(code);
            w.int(code);
        }
        multi_end(&mut w);
        assert_eq!(multi_error(&out), -101);
    }
}
