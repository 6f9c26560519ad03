//! The closed loops: what is sent next, what came back, and when.
//!
//! Replies come in the order of requests, so the requests in flight are a queue, and a reply whose
//! xid is not that of its front is a broken server. One clock reading serves a whole batch.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use hdrhistogram::Histogram;
use proto::{ConnectRequest, ConnectResponse, OpCode};
use tokio::io::Interest;

use super::wire::{self, Keys, int_at};
use super::{BenchArgs, Op};

/// How long a server may stay silent before the bench gives up on it.
const PATIENCE: Duration = Duration::from_secs(30);
const SESSION_TIMEOUT_MS: i32 = 30_000;
const REPLY_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 64 << 10;
const NODE_EXISTS: i32 = -110;
const NO_NODE: i32 = -101;

/// The time that is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: Instant,
    pub(super) end: Instant,
}

/// What was counted.
#[derive(Debug)]
pub(super) struct Tally {
    /// Requests that succeeded within the span.
    pub(super) ops: u64,
    /// Watch events within the span.
    pub(super) events: u64,
    /// Replies within the span that said an error, by its number: they are no operations.
    pub(super) errors: BTreeMap<i32, u64>,
    /// Requests that were never answered.
    pub(super) unanswered: u64,
    /// What `create` made, and did not delete: a parent and how many children it had.
    pub(super) made: Vec<(String, u64)>,
    /// Microseconds from the write of a request to the read of its reply; operations only.
    pub(super) latency_us: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latency_us = Histogram::new(3).expect("three digits are allowed");
        let (errors, made) = (BTreeMap::new(), Vec::new());
        Self { ops: 0, events: 0, errors, unanswered: 0, made, latency_us }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.events += other.events;
        self.unanswered += other.unanswered;
        for (code, count) in &other.errors {
            *self.errors.entry(*code).or_default() += count;
        }
        self.made.extend_from_slice(&other.made);
        self.latency_us.add(&other.latency_us).expect("the histogram grows by itself");
    }

    fn reply(&mut self, sent: Instant, now: Instant, error: i32) {
        if error != 0 {
            *self.errors.entry(error).or_default() += 1;
            return;
        }
        self.ops += 1;
        let us = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
        self.latency_us.record(us.max(1)).expect("the histogram grows by itself");
    }
}

/// Opens a session. The stream blocks, and gives up after [`PATIENCE`].
fn open(server: &str) -> anyhow::Result<(TcpStream, i64)> {
    let mut stream = TcpStream::connect(server)
        .with_context(|| format!("no server answers at {server}; is one running there?"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut out = BytesMut::new();
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: SESSION_TIMEOUT_MS,
        session_id: 0,
        password: Bytes::from_static(&[0; proto::connect::PASSWORD_BYTES]),
        read_only: Some(false),
    };
    request.encode(&mut out);
    stream.write_all(&out)?;
    let payload = read_frame(&mut stream)
        .with_context(|| format!("{server} did not open a session; does it serve clients?"))?;
    let response = ConnectResponse::decode(payload.into())?;
    ensure!(response.session_id != 0, "{server} refused to open a session");
    Ok((stream, response.session_id))
}

fn read_frame(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut payload = vec![0; frame_bytes(i32::from_be_bytes(prefix))?];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

fn frame_bytes(len: i32) -> anyhow::Result<usize> {
    match usize::try_from(len) {
        Ok(bytes) if bytes <= REPLY_BYTES_MAX => Ok(bytes),
        _ => bail!("a reply of {len} bytes; expected 0 to {REPLY_BYTES_MAX}: not a ZooKeeper?"),
    }
}

/// Creates the keys that are not there yet.
pub(super) fn prepare(server: &str, keys: &Keys) -> anyhow::Result<()> {
    let (mut stream, _) = open(server)?;
    let mut path = String::new();
    create_all(&mut stream, 1, &[], |_| "/bench".to_owned())?;
    create_all(&mut stream, 1, &[], |_| keys.root())?;
    create_all(&mut stream, keys.dirs(), &[], |dir| {
        keys.dir(&mut path, dir);
        path.clone()
    })?;
    for dir in 0..keys.dirs() {
        let first = dir * wire::KEYS_PER_DIR;
        let count = wire::KEYS_PER_DIR.min(keys.count - first);
        keys.dir(&mut path, dir);
        // A create that fails is a write as well: what an earlier run left is only looked at.
        if children(&mut stream, &path)? >= i64::from(count) {
            continue;
        }
        create_all(&mut stream, count, &keys.data, |key| {
            keys.key(&mut path, first + key);
            path.clone()
        })?;
    }
    close(&mut stream)
}

/// How many children a znode has.
fn children(stream: &mut TcpStream, path: &str) -> anyhow::Result<i64> {
    /// Behind the reply's header and the rest of the Stat.
    const NUM_CHILDREN_AT: usize = 16 + 56;
    let mut out = BytesMut::new();
    wire::read(&mut out, 1, OpCode::Exists, path, false);
    stream.write_all(&out)?;
    let reply = read_frame(stream).context("the server hung up on looking for the keys")?;
    let count = int_at(&reply, NUM_CHILDREN_AT);
    count.map(i64::from).with_context(|| format!("{path} was created and is not there"))
}

/// Deletes what `create` made: the next run, and the next server's turn, start from the same tree.
pub(super) fn clean(server: &str, made: &[(String, u64)]) -> anyhow::Result<()> {
    let (mut stream, _) = open(server)?;
    for (parent, count) in made {
        let child = |i| format!("{parent}/{}", i + 1);
        windows(&mut stream, *count, NO_NODE, |out, i| wire::delete(out, 1, &child(i)))?;
        windows(&mut stream, 1, NO_NODE, |out, _| wire::delete(out, 1, parent))?;
    }
    close(&mut stream)
}

fn create_all(
    stream: &mut TcpStream,
    count: u32,
    data: &[u8],
    mut path: impl FnMut(u32) -> String,
) -> anyhow::Result<()> {
    windows(stream, u64::from(count), NODE_EXISTS, |out, i| {
        wire::create(out, 1, &path(u32::try_from(i).expect("below count")), data);
    })
}

/// Sends `count` requests, a window at a time; replies to a window fit in the socket's buffers, so
/// writing it whole before reading cannot lock up. An error other than `harmless` ends it.
fn windows(
    stream: &mut TcpStream,
    count: u64,
    harmless: i32,
    mut request: impl FnMut(&mut BytesMut, u64),
) -> anyhow::Result<()> {
    const WINDOW: u64 = 500;
    let mut out = BytesMut::new();
    for start in (0..count).step_by(WINDOW as usize) {
        let window = start..count.min(start + WINDOW);
        out.clear();
        window.clone().for_each(|i| request(&mut out, i));
        stream.write_all(&out)?;
        for _ in window {
            let reply = read_frame(stream).context("the server hung up on making the keys")?;
            let error = int_at(&reply, 12).context("a reply shorter than its header")?;
            if error != 0 && error != harmless {
                bail!("creating or deleting a key failed: {}", super::report::code_name(error));
            }
        }
    }
    Ok(())
}

fn close(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut out = BytesMut::new();
    wire::request(&mut out, 1, OpCode::CloseSession, |_| {});
    stream.write_all(&out)?;
    read_frame(stream).context("the server did not answer closeSession")?;
    Ok(())
}

/// Opens and closes sessions until the span ends.
pub(super) fn connect_loop(server: &str, span: Span) -> anyhow::Result<Tally> {
    let mut tally = Tally::new();
    loop {
        let sent = Instant::now();
        if sent >= span.end {
            return Ok(tally);
        }
        let (mut stream, _) = open(server)?;
        close(&mut stream)?;
        let now = Instant::now();
        if now >= span.start && now < span.end {
            tally.reply(sent, now, 0);
        }
    }
}

/// Runs the loops on this thread until the span ends and what is in flight is answered.
pub(super) fn drive(loops: Vec<Loop>, span: Span) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = loops.into_iter().map(|item| tokio::spawn(item.run(span))).collect::<Vec<_>>();
        let mut tally = Tally::new();
        for task in tasks {
            tally.add(&task.await.context("a connection's task panicked")??);
        }
        Ok(tally)
    })
}

/// One session and its requests.
#[derive(Debug)]
pub(super) struct Loop {
    server: String,
    stream: TcpStream,
    next: Next,
    outstanding: usize,
    /// The last xid that was sent, and when each request in flight was.
    xid: i32,
    in_flight: VecDeque<Instant>,
    tally: Tally,
}

/// Chooses the requests.
#[derive(Debug)]
struct Next {
    op: Op,
    keys: Keys,
    reads: u32,
    multi_size: u32,
    random: u64,
    /// Where this session's own znodes are, for create and delete.
    own: String,
    made: u64,
    /// The second half of a pair is due.
    pair: bool,
    path: String,
}

impl Loop {
    /// Opens a session for the load.
    pub(super) fn open(
        server: &str,
        index: u32,
        args: &BenchArgs,
        keys: &Keys,
    ) -> anyhow::Result<Self> {
        let (mut stream, session) = open(server)?;
        let own = format!("/bench/own-{session:x}");
        if matches!(args.op, Op::Create | Op::Delete) {
            create_all(&mut stream, 1, &[], |_| own.clone())?;
        }
        stream.set_nonblocking(true)?;
        let next = Next {
            op: args.op,
            keys: keys.clone(),
            reads: args.reads,
            multi_size: args.multi_size,
            random: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(index) + 1),
            own,
            made: 0,
            pair: false,
            path: String::new(),
        };
        Ok(Self {
            server: server.to_owned(),
            stream,
            next,
            outstanding: args.outstanding as usize,
            xid: 0,
            in_flight: VecDeque::new(),
            tally: Tally::new(),
        })
    }

    async fn run(mut self, span: Span) -> anyhow::Result<Tally> {
        let stream = tokio::net::TcpStream::from_std(self.stream.try_clone()?)?;
        let patience = tokio::time::Instant::from_std(span.end + PATIENCE);
        match tokio::time::timeout_at(patience, self.exchange(&stream, span)).await {
            Ok(result) => result.with_context(|| format!("server {}", self.server))?,
            Err(_) => self.tally.unanswered = self.in_flight.len() as u64,
        }
        // Best effort: a server that does not close the session lets it expire.
        let mut out = BytesMut::new();
        wire::request(&mut out, self.next_xid(), OpCode::CloseSession, |_| {});
        let _ = stream.try_write(&out);
        if matches!(self.next.op, Op::Create | Op::Delete) {
            self.tally.made.push((self.next.own, self.next.made));
        }
        Ok(self.tally)
    }

    async fn exchange(&mut self, stream: &tokio::net::TcpStream, span: Span) -> anyhow::Result<()> {
        let mut out = BytesMut::with_capacity(READ_BYTES);
        let mut buf = vec![0; READ_BYTES];
        let mut filled = 0;
        let mut now = Instant::now();
        loop {
            while now < span.end && self.in_flight.len() < self.outstanding {
                let xid = self.next_xid();
                self.next.request(xid, &mut out);
                self.in_flight.push_back(now);
            }
            if self.in_flight.is_empty() {
                return Ok(());
            }
            while !out.is_empty() {
                match stream.try_write(&out) {
                    Ok(written) => out.advance(written),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("writing requests"),
                }
            }
            let interest = match out.is_empty() {
                true => Interest::READABLE,
                false => Interest::READABLE | Interest::WRITABLE,
            };
            stream.ready(interest).await?;
            match stream.try_read(&mut buf[filled..]) {
                Ok(0) => bail!("it hung up with {} requests in flight", self.in_flight.len()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("reading replies"),
            }
            now = Instant::now();
            let used = self.replies(&buf[..filled], now, span)?;
            buf.copy_within(used..filled, 0);
            filled -= used;
            if filled == buf.len() {
                buf.resize(filled * 2, 0);
            }
        }
    }

    /// Takes the whole replies at the start of `bytes`; returns how many bytes they were.
    fn replies(&mut self, bytes: &[u8], now: Instant, span: Span) -> anyhow::Result<usize> {
        let counted = now >= span.start && now < span.end;
        let mut at = 0;
        while let Some(len) = int_at(bytes, at) {
            let len = frame_bytes(len)?;
            let Some(payload) = bytes.get(at + 4..at + 4 + len) else { break };
            at += 4 + len;
            let (Some(xid), Some(mut error)) = (int_at(payload, 0), int_at(payload, 12)) else {
                bail!("a reply of {len} bytes, shorter than its header: not a ZooKeeper?");
            };
            if xid == proto::header::XID_EVENT {
                self.tally.events += u64::from(counted);
                continue;
            }
            let in_flight = i32::try_from(self.in_flight.len()).unwrap_or(i32::MAX);
            let expected = wrap(self.xid - in_flight + 1);
            let Some(sent) = self.in_flight.pop_front() else {
                bail!("a reply (xid {xid}) to no request");
            };
            ensure!(xid == expected, "a reply out of order: expected xid {expected}, got {xid}");
            if error == 0 && self.next.op == Op::Multi {
                error = wire::multi_error(payload);
            }
            if counted {
                self.tally.reply(sent, now, error);
            }
        }
        Ok(at)
    }

    fn next_xid(&mut self) -> i32 {
        self.xid = wrap(self.xid.wrapping_add(1));
        self.xid
    }
}

/// xids stay positive: negative ones have meanings of their own.
fn wrap(xid: i32) -> i32 {
    match xid {
        1.. => xid,
        i32::MIN => 1,
        _ => xid + i32::MAX,
    }
}

impl Next {
    fn request(&mut self, xid: i32, out: &mut BytesMut) {
        let second = std::mem::replace(&mut self.pair, false);
        match self.op {
            Op::Get => self.read(xid, OpCode::GetData, out),
            Op::Exists => self.read(xid, OpCode::Exists, out),
            Op::Set => self.set(xid, out),
            Op::Mixed => match self.below(100) < self.reads {
                true => self.read(xid, OpCode::GetData, out),
                false => self.set(xid, out),
            },
            Op::Ls => {
                let dir = self.below(self.keys.dirs());
                self.keys.dir(&mut self.path, dir);
                wire::read(out, xid, OpCode::GetChildren, &self.path, false);
            }
            Op::Sync => {
                self.pick();
                wire::request(out, xid, OpCode::Sync, |w| w.string(&self.path));
            }
            Op::Multi => wire::request(out, xid, OpCode::Multi, |w| {
                for _ in 0..self.multi_size {
                    self.pick();
                    wire::multi_set(w, &self.path, &self.keys.data);
                }
                wire::multi_end(w);
            }),
            Op::Watch if second => wire::set(out, xid, &self.path, &self.keys.data),
            Op::Watch => {
                self.pick();
                wire::read(out, xid, OpCode::GetData, &self.path, true);
                self.pair = true;
            }
            Op::Delete if second => wire::delete(out, xid, &self.path),
            Op::Create | Op::Delete => {
                self.made += 1;
                self.path.clear();
                write!(self.path, "{}/{}", self.own, self.made).expect("a string takes any text");
                wire::create(out, xid, &self.path, &self.keys.data);
                self.pair = self.op == Op::Delete;
            }
            Op::Connect => unreachable!("sessions are opened by connect_loop"),
        }
    }

    fn read(&mut self, xid: i32, op: OpCode, out: &mut BytesMut) {
        self.pick();
        wire::read(out, xid, op, &self.path, false);
    }

    fn set(&mut self, xid: i32, out: &mut BytesMut) {
        self.pick();
        wire::set(out, xid, &self.path, &self.keys.data);
    }

    fn pick(&mut self) {
        let key = self.below(self.keys.count);
        self.keys.key(&mut self.path, key);
    }

    /// A number below `bound`, by xorshift: cheap, repeatable, and even enough for a load.
    fn below(&mut self, bound: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let high = self.random >> 32;
        u32::try_from((high * u64::from(bound)) >> 32).expect("the product is below the bound")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xids_go_around_within_the_positive_ones() {
        assert_eq!(wrap(i32::MAX.wrapping_add(1)), 1);
        assert_eq!(wrap(1 - 2 + 1), i32::MAX);
        assert_eq!(wrap(1 - 3 + 1), i32::MAX - 1);
        assert_eq!(wrap(5), 5);
    }
}
