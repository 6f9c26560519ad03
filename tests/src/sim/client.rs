//! A client: a session over one connection after the other, as a client library keeps it.
//!
//! It remembers its watches and sets them again after a reconnect, tells the last zxid it has seen,
//! pings when idle, and gives a silent server up. What it sees becomes [`Event`]s; it judges nothing.
//!
//! Its troubles are those of real ones: it leaves in the middle of a request, loses its network
//! without a word, moves to a new connection while requests of the old one are under way, does not
//! read, falls silent until its session expires, sends what is not the protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use proto::codec::Reader;
use proto::frame::next_frame;
use proto::header::{XID_AUTH, XID_EVENT, XID_PING, XID_SET_WATCHES};
use proto::request::SetWatches;
use proto::{
    ConnectRequest, ConnectResponse, ErrorCode, EventType, MultiResult, Reply, ReplyHeader,
    Request, WatchEvent,
};
use replica::log::SimRng;

use super::counts::Counts;
use super::history::{Asked, Connection, Connections, Event};
use super::wire::Wire;
use super::workload::{Knows, Workload};

/// How many requests may be unanswered before a client waits.
const UNANSWERED_MAX: usize = 14;
/// How many multis of ephemerals make a crowd.
const CROWD_MULTIS: u32 = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Away { until_ms: i64 },
    Connecting,
    Connected,
}

/// What a client can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Open a connection.
    Connect,
    /// Read what has come.
    Read,
    /// Ask for something, or get into trouble.
    Act,
    /// Ping.
    Ping,
    /// Give the connection up: nothing has come for too long.
    GiveUp,
}

#[derive(Debug, Default)]
struct Watches {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

/// One client.
pub struct Client {
    /// Its number.
    pub id: usize,
    /// Whether it authenticates as one who may read what is private.
    reader: bool,
    /// Whether it makes very many ephemerals once.
    crowd_left: u32,
    crowd_from_ms: i64,
    conn: Option<u64>,
    phase: Phase,
    session: i64,
    password: [u8; 16],
    timeout_ms: i64,
    last_zxid: i64,
    xid: i32,
    input: BytesMut,
    unanswered: VecDeque<usize>,
    pings: u32,
    watches: Watches,
    knows: Knows,
    begun: bool,
    closing: bool,
    next_act_ms: i64,
    last_sent_ms: i64,
    last_heard_ms: i64,
    deaf_until_ms: i64,
    silent_until_ms: i64,
    pace_ms: u64,
}

/// What a client works with.
pub struct World<'a> {
    /// Now, by the clock that never jumps.
    pub now_ms: i64,
    /// The network.
    pub wires: &'a mut BTreeMap<u64, Wire>,
    /// What was sent on each connection.
    pub connections: &'a mut Connections,
    /// Randomness.
    pub rng: &'a mut SimRng,
    /// What is asked for.
    pub workload: &'a mut Workload,
    /// What happened.
    pub events: &'a mut Vec<Event>,
    /// How often what happened.
    pub counts: &'a mut Counts,
    /// Whether clients get into trouble.
    pub trouble: bool,
    /// Whether clients still ask for something new.
    pub busy: bool,
    /// The servers, and whether each takes connections.
    pub servers: &'a [(u64, bool)],
    /// The next connection's number.
    pub next_conn: &'a mut u64,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(id: usize, rng: &mut SimRng) -> Self {
        Self {
            id,
            reader: id.is_multiple_of(2),
            crowd_left: if id == 1 && rng.chance(15) { CROWD_MULTIS } else { 0 },
            // Often so late that no restart ends what is wrong with its end.
            crowd_from_ms: rng.below(58_000) as i64,
            conn: None,
            phase: Phase::Away { until_ms: rng.below(300) as i64 },
            session: 0,
            password: [0; 16],
            timeout_ms: 2000,
            last_zxid: 0,
            xid: 0,
            input: BytesMut::new(),
            unanswered: VecDeque::new(),
            pings: 0,
            watches: Watches::default(),
            knows: Knows::default(),
            begun: false,
            closing: false,
            next_act_ms: 0,
            last_sent_ms: 0,
            last_heard_ms: 0,
            deaf_until_ms: 0,
            silent_until_ms: 0,
            pace_ms: 150 + rng.below(500),
        }
    }

    /// What it could do now.
    pub fn moves(&self, world_now_ms: i64, wires: &BTreeMap<u64, Wire>, busy: bool) -> Vec<Move> {
        let now_ms = world_now_ms;
        let mut moves = Vec::new();
        if let Phase::Away { until_ms } = self.phase {
            if now_ms >= until_ms {
                moves.push(Move::Connect);
            }
            return moves;
        }
        let Some(wire) = self.conn.and_then(|conn| wires.get(&conn)) else { return moves };
        if now_ms >= self.deaf_until_ms && (!wire.down.is_empty() || wire.down_closed) {
            moves.push(Move::Read);
        }
        if self.phase == Phase::Connected && now_ms >= self.silent_until_ms {
            let room = self.unanswered.len() < UNANSWERED_MAX && !self.closing;
            if room && busy && now_ms >= self.next_act_ms {
                moves.push(Move::Act);
            }
            if !self.closing && now_ms >= self.last_sent_ms + self.timeout_ms / 3 {
                moves.push(Move::Ping);
            }
        }
        let waits =
            !self.unanswered.is_empty() || self.pings > 0 || self.phase == Phase::Connecting;
        if waits && now_ms >= self.deaf_until_ms && now_ms > self.last_heard_ms + self.patience_ms()
        {
            moves.push(Move::GiveUp);
        }
        moves
    }

    fn patience_ms(&self) -> i64 {
        self.timeout_ms * 2 / 3
    }

    /// When it next has something to do by its clocks.
    pub fn next_timer_ms(&self, busy: bool) -> i64 {
        match self.phase {
            Phase::Away { until_ms } => until_ms,
            Phase::Connecting => self.last_heard_ms + self.patience_ms() + 1,
            Phase::Connected => {
                let act = if busy { self.next_act_ms } else { i64::MAX };
                let ping = self.last_sent_ms + self.timeout_ms / 3;
                act.min(ping).max(self.silent_until_ms)
            }
        }
    }

    /// Whether it is connected and everything it asked was answered.
    pub fn is_content(&self) -> bool {
        self.phase == Phase::Connected && self.unanswered.is_empty()
    }

    /// What it waits for, for a report.
    pub fn state(&self) -> String {
        let (phase, waits) = (self.phase, self.unanswered.len());
        format!("client {}: {phase:?}, {waits} requests unanswered", self.id)
    }

    /// No more trouble.
    pub fn calm(&mut self) {
        (self.deaf_until_ms, self.silent_until_ms) = (0, 0);
    }

    /// The connection that it uses.
    pub fn conn(&self) -> Option<u64> {
        self.conn
    }

    /// Does one thing.
    pub fn run(&mut self, what: Move, world: &mut World<'_>) {
        match what {
            Move::Connect => self.connect(world),
            Move::Read => self.read(world),
            Move::Act => self.act(world),
            Move::Ping => {
                self.pings += 1;
                self.put(world, |_| (), &Request::Ping, XID_PING);
            }
            Move::GiveUp => {
                world.counts.given_up += 1;
                self.leave(world, true);
            }
        }
    }

    fn connect(&mut self, world: &mut World<'_>) {
        let (server, up) = world.servers[world.rng.below(world.servers.len() as u64) as usize];
        self.connect_to(server, up, world);
    }

    fn connect_to(&mut self, server: u64, up: bool, world: &mut World<'_>) {
        if !up {
            self.phase = Phase::Away { until_ms: world.now_ms + 50 + world.rng.below(200) as i64 };
            return;
        }
        *world.next_conn += 1;
        let conn = *world.next_conn;
        (self.conn, self.phase) = (Some(conn), Phase::Connecting);
        self.input.clear();
        self.unanswered.clear();
        self.pings = 0;
        self.closing = false;
        self.deaf_until_ms = 0;
        self.last_heard_ms = world.now_ms;
        self.last_sent_ms = world.now_ms;
        let accepts = self.id % 3 == 1;
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: 1000 + world.rng.below(3500) as i32,
            session_id: self.session,
            password: Bytes::copy_from_slice(&self.password),
            // Some are of the time before there were servers that are read-only.
            read_only: (!self.id.is_multiple_of(3)).then_some(accepts),
        };
        let mut wire = Wire { server, ..Wire::default() };
        request.encode(&mut wire.up);
        world.wires.insert(conn, wire);
        let (client, session, reader) = (self.id, self.session, self.reader);
        let known =
            Connection { client, server, session, reader, accepts, ..Connection::default() };
        world.connections.all.insert(conn, known);
        world.events.push(Event::Opened { conn, client, server, session });
        if self.session == 0 {
            if self.reader {
                self.authenticate(world);
            }
            if self.begun && world.busy && world.rng.chance(30) {
                // Some clients do not wait for the session before they ask.
                self.burst(world);
            }
        }
    }

    fn authenticate(&mut self, world: &mut World<'_>) {
        let auth = Bytes::from_static(b"reader:secret");
        self.ask(world, Request::Auth { scheme: "digest".to_owned(), auth }, XID_AUTH);
    }

    /// Ends with this connection; the session stays. With `fin` the server is told.
    fn leave(&mut self, world: &mut World<'_>, fin: bool) {
        if let Some(conn) = self.conn.take() {
            if fin && let Some(wire) = world.wires.get_mut(&conn) {
                wire.up_closed = true;
            }
            world.connections.get_mut(conn).ended = true;
            world.events.push(Event::Ended { conn });
        }
        self.phase = Phase::Away { until_ms: world.now_ms + world.rng.below(150) as i64 };
    }

    fn ask(&mut self, world: &mut World<'_>, request: Request, xid: i32) {
        let Some(conn) = self.conn else { return };
        let is_write = matches!(
            request,
            Request::Create(_)
                | Request::Delete { .. }
                | Request::SetData { .. }
                | Request::SetAcl { .. }
                | Request::Multi(_)
        );
        self.put(world, |_| (), &request, xid);
        let known = world.connections.get_mut(conn);
        let number = known.sent.len();
        known.sent.push(Asked { xid, request, writes_before: known.writes, is_write });
        known.writes += usize::from(is_write);
        self.unanswered.push_back(number);
        world.counts.requests += 1;
        world.events.push(Event::Sent { conn, number });
    }

    fn put(
        &mut self,
        world: &mut World<'_>,
        spoil: impl FnOnce(&mut BytesMut),
        request: &Request,
        xid: i32,
    ) {
        let Some(wire) = self.conn.and_then(|conn| world.wires.get_mut(&conn)) else { return };
        self.last_sent_ms = world.now_ms;
        let mut frame = BytesMut::new();
        request.encode(xid, &mut frame);
        spoil(&mut frame);
        wire.up.extend_from_slice(&frame);
    }

    fn next_xid(&mut self) -> i32 {
        self.xid += 1;
        self.xid
    }

    fn has_crowd_to_make(&self, now_ms: i64) -> bool {
        self.crowd_left > 0 && now_ms >= self.crowd_from_ms
    }

    fn burst(&mut self, world: &mut World<'_>) {
        let burst = if !self.begun {
            self.begun = true;
            world.workload.first(world.rng)
        } else if self.has_crowd_to_make(world.now_ms) {
            self.crowd_left -= 1;
            vec![world.workload.crowd(world.rng)]
        } else {
            world.workload.burst(world.rng, &mut self.knows)
        };
        for request in burst {
            let xid = self.next_xid();
            self.ask(world, request, xid);
        }
    }

    fn act(&mut self, world: &mut World<'_>) {
        self.next_act_ms = world.now_ms + world.rng.below(2 * self.pace_ms) as i64;
        let crowd = self.has_crowd_to_make(world.now_ms);
        self.burst(world);
        if crowd && self.crowd_left == 0 {
            // All of them are there: now they die together.
            return self.end_session(world);
        }
        if !world.trouble || crowd {
            return;
        }
        let now_ms = world.now_ms;
        match world.rng.below(100) {
            0..=1 => {
                world.counts.disconnects += 1;
                let spoil = |frame: &mut BytesMut| frame.truncate(frame.len() / 2);
                let request = world.workload.read(world.rng);
                self.put(world, spoil, &request, self.xid);
                self.leave(world, true);
            }
            2 => {
                world.counts.cuts += 1;
                self.leave(world, false);
            }
            3..=5 => {
                world.counts.moves_begun += 1;
                // What was just sent is under way on the old connection; as often as not to the server
                // that it comes back to.
                let before = self.conn.and_then(|conn| world.wires.get(&conn)).map(|w| w.server);
                let same = world.servers.iter().find(|(id, _)| Some(*id) == before).copied();
                self.leave(world, false);
                match same.filter(|_| world.rng.chance(50)) {
                    Some((server, up)) => self.connect_to(server, up, world),
                    None => self.connect(world),
                }
            }
            6 => {
                world.counts.deaf += 1;
                self.deaf_until_ms = now_ms + 200 + world.rng.below(2500) as i64;
            }
            7 => {
                world.counts.silences += 1;
                let silence_ms = self.timeout_ms + 500 + world.rng.below(1500) as i64;
                self.silent_until_ms = now_ms + silence_ms;
            }
            8 => self.end_session(world),
            9 if world.rng.chance(30) => {
                world.counts.garbage += 1;
                let spoil = |frame: &mut BytesMut| frame[0] = 0xff;
                self.put(world, spoil, &Request::Ping, XID_PING);
            }
            10 if world.rng.chance(30) => {
                // It forgets its session, which must die of silence.
                world.counts.forgotten += 1;
                self.leave(world, true);
                self.forget_session();
            }
            _ => {}
        }
    }

    fn end_session(&mut self, world: &mut World<'_>) {
        world.counts.closes += 1;
        self.closing = true;
        let xid = self.next_xid();
        self.ask(world, Request::CloseSession, xid);
    }

    fn forget_session(&mut self) {
        (self.session, self.password) = (0, [0; 16]);
        self.watches = Watches::default();
        self.knows.sequential.clear();
    }

    fn read(&mut self, world: &mut World<'_>) {
        let Some(conn) = self.conn else { return };
        let Some(wire) = world.wires.get_mut(&conn) else { return };
        let most =
            if world.rng.chance(60) { wire.down.len() as u64 } else { 1 + world.rng.below(90) };
        let bytes = (most as usize).min(wire.down.len());
        self.input.extend_from_slice(&wire.down.split_to(bytes));
        let closed = wire.down_closed && wire.down.is_empty();
        self.last_heard_ms = world.now_ms;
        while self.conn == Some(conn) {
            match next_frame(&mut self.input, 64 << 20) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Err(what) = self.frame(conn, frame, world) {
                        world.events.push(Event::Misplaced { conn, what });
                        return self.leave(world, true);
                    }
                }
                Err(error) => {
                    let what = error.to_string();
                    world.events.push(Event::Misplaced { conn, what });
                    return self.leave(world, true);
                }
            }
        }
        if closed && self.conn == Some(conn) {
            self.leave(world, true);
        }
    }

    fn frame(&mut self, conn: u64, frame: Bytes, world: &mut World<'_>) -> Result<(), String> {
        let text = |error: proto::DecodeError| error.to_string();
        if self.phase == Phase::Connecting {
            let response = ConnectResponse::decode(frame).map_err(text)?;
            return self.connected(conn, &response, world);
        }
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).map_err(text)?;
        let ReplyHeader { xid, zxid, err } = header;
        if xid == XID_EVENT {
            let event = WatchEvent::decode(header, &mut reader).map_err(text)?;
            self.notified(&event);
            world.events.push(Event::Notified { conn, event });
            return Ok(());
        }
        if xid == XID_PING {
            self.pings = self.pings.saturating_sub(1);
            self.last_zxid = self.last_zxid.max(zxid);
            world.events.push(Event::Ponged { conn, zxid });
            return Ok(());
        }
        let number = self.unanswered.pop_front();
        let number = number.ok_or_else(|| format!("a reply with xid {xid}, nothing was asked"))?;
        let asked = world.connections.get(conn).sent[number].clone();
        if asked.xid != xid {
            return Err(format!("a reply with xid {xid}, the next one must be {}", asked.xid));
        }
        let result = match err {
            0 => Ok(Reply::decode(asked.request.opcode(), &mut reader).map_err(text)?),
            _ => {
                let code = ErrorCode::from_i32(err);
                Err(code.ok_or_else(|| format!("a reply with the unknown error {err}"))?)
            }
        };
        if reader.remaining() > 0 {
            return Err(format!("a reply to {:?} with bytes behind it", asked.request.opcode()));
        }
        self.last_zxid = self.last_zxid.max(zxid);
        world.connections.get_mut(conn).answered += 1;
        self.learn(&asked.request, &result);
        world.events.push(Event::Replied { conn, number, zxid, result });
        if asked.request == Request::CloseSession {
            self.leave(world, true);
            self.forget_session();
        }
        Ok(())
    }

    fn connected(
        &mut self,
        conn: u64,
        response: &ConnectResponse,
        world: &mut World<'_>,
    ) -> Result<(), String> {
        let (timeout_ms, session) = (response.timeout_ms, response.session_id);
        if timeout_ms == 0 {
            let session = self.session;
            world.events.push(Event::Refused { conn, session });
            self.leave(world, true);
            self.forget_session();
            return Ok(());
        }
        if self.session != 0 && self.session != session {
            return Err(format!("asked for session {:#x}, got {session:#x}", self.session));
        }
        let again = self.session != 0;
        self.phase = Phase::Connected;
        (self.session, self.password) = (session, response.password);
        self.timeout_ms = i64::from(timeout_ms);
        world.events.push(Event::Connected { conn, session });
        if again {
            if self.reader {
                self.authenticate(world);
            }
            self.set_watches_again(world);
        }
        Ok(())
    }

    fn set_watches_again(&mut self, world: &mut World<'_>) {
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        let Watches { data, exist, child, persistent, recursive } = &self.watches;
        let old = persistent.is_empty() && recursive.is_empty();
        if old && data.is_empty() && exist.is_empty() && child.is_empty() {
            return;
        }
        let set = SetWatches {
            relative_zxid: self.last_zxid,
            data: list(data),
            exist: list(exist),
            child: list(child),
            persistent: list(persistent),
            recursive: list(recursive),
        };
        let request = if old { Request::SetWatches(set) } else { Request::SetWatches2(set) };
        self.ask(world, request, XID_SET_WATCHES);
    }

    /// Drops the one-shot watches that an event used up.
    fn notified(&mut self, event: &WatchEvent) {
        let Watches { data, exist, child, .. } = &mut self.watches;
        if event.kind == EventType::NodeChildrenChanged {
            child.remove(&event.path);
            return;
        }
        data.remove(&event.path);
        exist.remove(&event.path);
        if event.kind == EventType::NodeDeleted {
            child.remove(&event.path);
        }
    }

    /// Takes notice of what a reply means for later requests.
    fn learn(&mut self, request: &Request, result: &Result<Reply, ErrorCode>) {
        let Watches { data, exist, child, persistent, recursive } = &mut self.watches;
        match (request, result) {
            (Request::Exists { path, watch: true }, Err(ErrorCode::NoNode)) => {
                exist.insert(path.clone());
            }
            (
                Request::Exists { path, watch: true } | Request::GetData { path, watch: true },
                Ok(_),
            ) => {
                data.insert(path.clone());
            }
            (
                Request::GetChildren { path, watch: true }
                | Request::GetChildren2 { path, watch: true },
                Ok(_),
            ) => {
                child.insert(path.clone());
            }
            (Request::AddWatch { path, mode }, Ok(_)) => {
                if *mode == 0 { persistent } else { recursive }.insert(path.clone());
            }
            (Request::RemoveWatches { path, kind }, Ok(_)) => {
                let all = *kind == 3;
                if all || *kind == 1 {
                    child.remove(path);
                }
                if all || *kind == 2 {
                    data.remove(path);
                    exist.remove(path);
                }
                if all || *kind == 4 {
                    persistent.remove(path);
                }
                if all || *kind == 5 {
                    recursive.remove(path);
                }
            }
            (Request::Create(new), Ok(Reply::Path(path) | Reply::PathStat(path, _)))
                if *path != new.path =>
            {
                self.knows.sequential.push(path.clone());
            }
            (Request::Multi(_), Ok(Reply::Multi(results))) => {
                let made = results.iter().filter_map(|result| match result {
                    MultiResult::Create(path) | MultiResult::Create2(path, _) => Some(path),
                    _ => None,
                });
                let made = made.filter(|path| path.contains("-0"));
                self.knows.sequential.extend(made.cloned());
            }
            _ => {}
        }
        if let (
            Request::GetData { path, .. } | Request::SetData { path, .. },
            Ok(Reply::Data(_, stat) | Reply::Stat(stat)),
        ) = (request, result)
        {
            self.knows.versions.insert(path.clone(), stat.version);
        }
    }
}
