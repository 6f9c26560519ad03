//! Times requests, and names those in the log that took too long.
//!
//! What arrives together is timed together, by its first request, and named by it: naming costs a look
//! at its path, whether it turns out slow or not. With one request at a time the name is exact. Each
//! operation is counted as what it is.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::OpCode;
use smallvec::SmallVec;

use crate::stats::op_slot;

/// Longer paths are cut in the log.
const PATH_BYTES_MAX: usize = 200;

/// How many requests of which operation, by [`op_slot`].
type Counts = SmallVec<[(u8, u32); 4]>;

/// Requests that arrived together.
struct Group {
    /// How many packets had come from the client with the last of them.
    upto: u64,
    counts: Counts,
    at: Instant,
    op: Option<OpCode>,
    path: Option<Box<str>>,
}

/// The requests of one connection that are not answered yet.
pub(crate) struct Waiting {
    groups: VecDeque<Group>,
    /// How many of which operation are in the group that is arriving.
    counts: Counts,
    /// The first request of the group that is arriving.
    first: Option<(Option<OpCode>, Option<Box<str>>)>,
    /// From when on a request is slow; `None`: none is.
    slow: Option<Duration>,
}

impl Waiting {
    /// `slow` is zero if no request is to be named.
    pub(crate) fn new(slow: Duration) -> Self {
        let slow = (!slow.is_zero()).then_some(slow);
        Self { groups: VecDeque::new(), counts: Counts::new(), first: None, slow }
    }

    /// A request arrives. A connection's first packet has no opcode.
    pub(crate) fn arrives(&mut self, payload: &[u8], is_first_packet: bool) {
        let op = if is_first_packet { None } else { opcode(payload) };
        let slot = op_slot(op) as u8;
        match self.counts.iter_mut().find(|(counted, _)| *counted == slot) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((slot, 1)),
        }
        if self.slow.is_some() && self.first.is_none() {
            self.first = Some((op, op.and_then(|op| path(op, payload))));
        }
    }

    /// All that arrived together is there; the last was the client's packet number `upto`.
    pub(crate) fn arrived(&mut self, upto: u64) {
        let (op, path) = self.first.take().unwrap_or_default();
        let counts = std::mem::take(&mut self.counts);
        self.groups.push_back(Group { upto, counts, at: Instant::now(), op, path });
    }

    /// Packets up to number `answered` are answered: gives `each`, for each operation of a group, its
    /// slot, how many it was and the microseconds that it took, and names slow ones in the log.
    pub(crate) fn answered(
        &mut self,
        answered: u64,
        (remote, session): (SocketAddr, i64),
        mut each: impl FnMut(usize, u64, u64),
    ) {
        while let Some(group) = self.groups.front()
            && group.upto <= answered
        {
            let took = group.at.elapsed();
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            for (slot, count) in &group.counts {
                each(usize::from(*slot), u64::from(*count), us);
            }
            if self.slow.is_some_and(|slow| took > slow) {
                let op = group.op.map_or("connect", OpCode::name);
                let (path, took_ms) = (group.path.as_deref(), us / 1000);
                let session = format_args!("{session:#x}");
                tracing::warn!(%remote, session, op, path, took_ms, "a slow request");
            }
            self.groups.pop_front();
        }
    }
}

fn int(payload: &[u8], at: usize) -> Option<i32> {
    payload.get(at..)?.first_chunk::<4>().map(|four| i32::from_be_bytes(*four))
}

/// The operation of an encoded request.
fn opcode(payload: &[u8]) -> Option<OpCode> {
    int(payload, 4).and_then(OpCode::from_i32)
}

/// The path of an encoded request, if it begins with one.
fn path(op: OpCode, payload: &[u8]) -> Option<Box<str>> {
    let without = [
        OpCode::Ping,
        OpCode::CloseSession,
        OpCode::Auth,
        OpCode::Sasl,
        OpCode::Multi,
        OpCode::MultiRead,
        OpCode::SetWatches,
        OpCode::SetWatches2,
        OpCode::WhoAmI,
        OpCode::Reconfig,
    ];
    if without.contains(&op) {
        return None;
    }
    let bytes = usize::try_from(int(payload, 8)?).ok()?;
    let path = payload.get(12..)?.get(..bytes)?;
    Some(String::from_utf8_lossy(&path[..bytes.min(PATH_BYTES_MAX)]).into())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proto::Request;

    use super::*;

    fn name(payload: &[u8]) -> (Option<OpCode>, Option<Box<str>>) {
        let op = opcode(payload);
        (op, op.and_then(|op| path(op, payload)))
    }

    fn encoded(request: &Request) -> BytesMut {
        let mut out = BytesMut::new();
        request.encode(1, &mut out);
        out.split_off(4)
    }

    #[test]
    fn requests_are_named_by_operation_and_path() {
        let get = Request::GetData { path: "/a/b".to_owned(), watch: false };
        assert_eq!(name(&encoded(&get)), (Some(OpCode::GetData), Some("/a/b".into())));
        assert_eq!(name(&encoded(&Request::Ping)), (Some(OpCode::Ping), None));
        let long = Request::Delete { path: "/é".repeat(500), version: -1 };
        let (_, path) = name(&encoded(&long));
        assert!(path.is_some_and(|path| path.len() <= PATH_BYTES_MAX + 3));
        for length in 0..16 {
            assert_eq!(name(&encoded(&get)[..length]).1, None, "cut at {length}");
        }
    }

    #[test]
    fn groups_are_answered_in_order() {
        let mut waiting = Waiting::new(Duration::from_secs(9));
        waiting.arrives(b"", true);
        waiting.arrived(1);
        let get = encoded(&Request::GetData { path: "/a".to_owned(), watch: false });
        for request in [&get, &encoded(&Request::Ping), &get, &get] {
            waiting.arrives(request, false);
        }
        waiting.arrived(5);
        let remote = "127.0.0.1:1".parse().expect("an address");
        let mut seen = Vec::new();
        for answered in [0, 1, 4, 5] {
            let mut each = |slot, count| seen.push((answered, slot, count));
            waiting.answered(answered, (remote, 0), |slot, count, _| each(slot, count));
        }
        let [connect, get, ping] = [None, Some(OpCode::GetData), Some(OpCode::Ping)].map(op_slot);
        assert_eq!(seen, [(1, connect, 1), (5, get, 3), (5, ping, 1)]);
    }
}
