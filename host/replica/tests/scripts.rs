//! Runs the goldenscripts in `testscripts/`: sessions over one Node and one Machine, step by step.
//!
//! The prefix of a command says who does it. Nothing happens by itself:
//!
//! * `connect [timeout=MS] [auth] [linearizable]`, `attach SESSION` open a connection and give its packet to the
//!   server; `leave` ends it. Both take `local [upgrades]` (new sessions are local there), `accepts` (a
//!   server that is read-only), `wrong` (password).
//! * Requests go out and are taken by the server: `create PATH [DATA] [mode=e|s|es] [acl=private]`,
//!   `set`, `delete`, `get PATH [watch]`, `exists`, `ls`, `addwatch PATH [recursive]`, `setwatches`,
//!   `sync`, `ping`, `close`, `multi "..." "..."`, `many PREFIX COUNT` (that many ephemerals).
//! * `run` runs the read that a session has begun, where `hold` kept it from running at once.
//! * `commit` lets the Node make entries of what it has, with one sync; `apply` lets the Machine take
//!   the next.
//! * `drain` shows what a session is told. `go` is commit, apply and drain of all, until nothing
//!   moves.
//! * `cut-off MS [read-only]` has the server believe that it has heard of no leader for so long; `reach`
//!   ends that.
//! * `tick MS` moves the Node's clock on, and ticks. `restart` loses power: what is not synced is gone.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::codec::Reader;
use proto::frame::next_frame;
use proto::header::{XID_AUTH, XID_EVENT, XID_PING, XID_SET_WATCHES};
use proto::request::{Create, SetWatches};
use proto::{
    Acl, ConnectRequest, ConnectResponse, ErrorCode, Id, MultiOp, MultiResult, OpCode, Reply,
    ReplyHeader, Request, WatchEvent,
};
use replica::connection::Drained;
use replica::log::{Log, LogError, Options, SimDisk};
use replica::{
    Authenticator, Connection, Input, Machine, Node, NodeConfig, Now, Outbox, Policy, Reach, Read,
    Sasl, Work,
};
use state::{MemoryStore, NoHooks, Settings, State};

type Failure = Box<dyn Error>;

const READER: &str = "reader:hash";

struct Digests;

impl Authenticator for Digests {
    fn authenticate(&self, _scheme: &str, _auth: &[u8], _remote: IpAddr) -> Option<Vec<Id>> {
        Some(vec![Id::new("digest", READER)])
    }

    fn sasl(&self) -> Option<Box<dyn Sasl>> {
        None
    }
}

/// One connection, and the client at its other end.
struct Client {
    connection: Connection,
    session: i64,
    password: [u8; 16],
    last_zxid: i64,
    xid: i32,
    asked: VecDeque<(i32, OpCode)>,
    connecting: bool,
    hold: bool,
    reading: Option<Read>,
}

struct Runner {
    disk: SimDisk,
    store: MemoryStore,
    boot: u64,
    node: Node<SimDisk>,
    machine: Machine,
    work: VecDeque<Work>,
    clients: BTreeMap<String, Client>,
    connections: u64,
    sessions: i64,
    now_ms: i64,
    reach: Reach,
}

fn start(disk: &SimDisk, store: &MemoryStore, boot: u64) -> (Node<SimDisk>, Machine) {
    let state = State::open(Box::new(store.clone()), Box::new(NoHooks), 1 << 20);
    let state = state.expect("memory does not fail");
    let options = Options { segment_bytes: 1 << 20, ..Options::default() };
    let log = match Log::open(disk.clone(), options.clone()) {
        Ok((log, _)) => log,
        Err(LogError::Missing) => {
            let (index, term) = state::apply::BIRTH;
            Log::create(disk.clone(), options, index, term).expect("the disk is empty")
        }
        Err(error) => panic!("the log does not open: {error}"),
    };
    let settings = Settings::default();
    let config = NodeConfig {
        server: 1,
        raft_id: 1,
        election_ticks: (10, 11),
        boot,
        cluster_id: 1,
        settings,
        servers: BTreeMap::new(),
        read_only_after_ms: None,
        log_keep_bytes: 1 << 30,
        knows: state::APPLY_VERSION,
    };
    let sessions = state.view().sessions().expect("rows are sound");
    let node = Node::new(log, state.meta(), sessions, config).expect("log and state match");
    (node, Machine::new(state, (1, boot)))
}

fn acl(private: bool) -> Vec<Acl> {
    match private {
        false => vec![Acl::world(31)],
        true => vec![Acl::world(30), Acl { perms: 1, id: Id::new("digest", READER) }],
    }
}

fn zxid(zxid: i64) -> String {
    if zxid < 0 { zxid.to_string() } else { format!("{}.{}", zxid >> 32, zxid & 0xffff_ffff) }
}

/// A request's words, taken one by one.
struct Words {
    name: String,
    positional: VecDeque<String>,
    keys: BTreeMap<String, String>,
}

impl Words {
    fn of(command: &goldenscript::Command) -> Self {
        let mut words =
            Self { name: command.name.clone(), positional: VecDeque::new(), keys: BTreeMap::new() };
        for argument in &command.args {
            match argument {
                goldenscript::Argument::Positional(value) => {
                    words.positional.push_back(value.clone());
                }
                goldenscript::Argument::KeyValue(key, value) => {
                    words.keys.insert(key.clone(), value.clone());
                }
                other => unreachable!("goldenscript knows no {other:?}"),
            }
        }
        words
    }

    fn parse(text: &str) -> Self {
        let mut all = text.split_whitespace().map(str::to_owned);
        let name = all.next().unwrap_or_default();
        let (keys, positional) = all.partition::<Vec<_>, _>(|word| word.contains('='));
        let pair = |word: String| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Self {
            name,
            positional: positional.into(),
            keys: keys.into_iter().filter_map(pair).collect(),
        }
    }

    fn next(&mut self) -> Result<String, Failure> {
        let name = &self.name;
        self.positional.pop_front().ok_or_else(|| format!("{name}: too few words").into())
    }

    fn flag(&mut self, flag: &str) -> bool {
        let at = self.positional.iter().position(|word| word == flag);
        at.is_some_and(|at| self.positional.remove(at).is_some())
    }

    fn key(&mut self, key: &str) -> Option<String> {
        self.keys.remove(key)
    }

    fn list(&mut self, key: &str) -> Vec<String> {
        let list = self.key(key).unwrap_or_default();
        list.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect()
    }

    fn done(&self) -> Result<(), Failure> {
        if self.positional.is_empty() && self.keys.is_empty() {
            return Ok(());
        }
        Err(format!("{}: unknown words {:?} {:?}", self.name, self.positional, self.keys).into())
    }
}

fn create(words: &mut Words) -> Result<Create, Failure> {
    let flags = match words.key("mode").as_deref() {
        None => 0,
        Some("e") => 1,
        Some("s") => 2,
        Some("es") => 3,
        Some(other) => return Err(format!("mode={other} is none of e, s, es").into()),
    };
    let private = words.key("acl").as_deref() == Some("private");
    let path = words.next()?;
    let data = Some(Bytes::from(words.positional.pop_front().unwrap_or_default()));
    Ok(Create { op: OpCode::Create, path, data, acl: acl(private), flags, ttl_ms: -1 })
}

/// The request that a command means, if it is one.
fn request(words: &mut Words, last_zxid: i64) -> Result<Option<Request>, Failure> {
    let watch = words.flag("watch");
    Ok(Some(match words.name.as_str() {
        "create" => Request::Create(create(words)?),
        "set" => {
            let (path, data) = (words.next()?, Some(Bytes::from(words.next()?)));
            Request::SetData { path, data, version: -1 }
        }
        "delete" => Request::Delete { path: words.next()?, version: -1 },
        "multi" => {
            let mut ops = Vec::new();
            while let Some(text) = words.positional.pop_front() {
                let words = &mut Words::parse(&text);
                ops.push(match words.name.as_str() {
                    "create" => MultiOp::Create(create(words)?),
                    "delete" => MultiOp::Delete { path: words.next()?, version: -1 },
                    "set" => {
                        let (path, data) = (words.next()?, Some(Bytes::from(words.next()?)));
                        MultiOp::SetData { path, data, version: -1 }
                    }
                    other => return Err(format!("'{other}' is not for a multi").into()),
                });
                words.done()?;
            }
            Request::Multi(ops)
        }
        "get" => Request::GetData { path: words.next()?, watch },
        "exists" => Request::Exists { path: words.next()?, watch },
        "ls" => Request::GetChildren { path: words.next()?, watch },
        "sync" => Request::Sync { path: words.next()? },
        "ping" => Request::Ping,
        "close" => Request::CloseSession,
        "addwatch" => {
            let mode = i32::from(words.flag("recursive"));
            Request::AddWatch { path: words.next()?, mode }
        }
        "removewatches" => Request::RemoveWatches { path: words.next()?, kind: 3 },
        "setwatches" => Request::SetWatches2(SetWatches {
            relative_zxid: last_zxid,
            data: words.list("data"),
            exist: words.list("exist"),
            child: words.list("child"),
            persistent: words.list("persistent"),
            recursive: words.list("recursive"),
        }),
        _ => return Ok(None),
    }))
}

fn show(reply: &Reply) -> String {
    let text = |data: &Option<Bytes>| {
        data.as_ref().map_or("null".to_owned(), |data| String::from_utf8_lossy(data).into_owned())
    };
    match reply {
        Reply::Empty | Reply::AddWatch(_) => "ok".to_owned(),
        Reply::Path(path) => path.clone(),
        Reply::Stat(stat) => format!("version {}", stat.version),
        Reply::Data(data, stat) => format!("{:?} version {}", text(data), stat.version),
        Reply::Children(names) => format!("[{}]", names.join(" ")),
        Reply::Multi(results) => {
            let one = |result: &MultiResult| match result {
                MultiResult::Create(path) => format!("created {path}"),
                MultiResult::Delete => "deleted".to_owned(),
                MultiResult::SetData(stat) => format!("version {}", stat.version),
                MultiResult::Error(0) => "not done".to_owned(),
                MultiResult::Error(code) => name(*code),
                other => format!("{other:?}"),
            };
            format!("[{}]", results.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn name(code: i32) -> String {
    ErrorCode::from_i32(code).map_or(code.to_string(), |code| code.name().to_owned())
}

impl Runner {
    fn new() -> Self {
        let (disk, store) = (SimDisk::new(), MemoryStore::default());
        let (node, machine) = start(&disk, &store, 1);
        let mut runner = Self {
            disk,
            store,
            boot: 1,
            node,
            machine,
            work: VecDeque::new(),
            clients: BTreeMap::new(),
            connections: 0,
            sessions: 0,
            now_ms: 0,
            reach: Reach::default(),
        };
        runner.settle().expect("a new server starts");
        runner
    }

    /// Lets the Node make entries of what it has; how many were committed.
    fn commit(&mut self) -> Result<usize, Failure> {
        let now = Now { steady_ms: self.now_ms, wall_ms: 1000 };
        let work = self.node.flush(now, &mut |_| {})?;
        let entries = work.entries.len();
        if !work.is_empty() {
            self.work.push_back(work);
        }
        Ok(entries)
    }

    /// Applies and publishes the next of what was committed.
    fn apply(&mut self) -> Result<bool, Failure> {
        let Some(mut work) = self.work.pop_front() else { return Ok(false) };
        let rest = work.entries.split_off(work.entries.len().min(1));
        if !rest.is_empty() {
            self.work.push_front(Work { entries: rest, ..Work::default() });
        }
        for report in self.machine.apply(work)? {
            self.node.step(Input::Report(report));
        }
        // Whoever waited for this is woken.
        let names: Vec<String> = self.clients.keys().cloned().collect();
        names.iter().for_each(|name| self.advance(name));
        Ok(true)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        while self.commit()? > 0 || !self.work.is_empty() {
            self.apply()?;
        }
        Ok(())
    }

    fn advance(&mut self, name: &str) {
        let Some(client) = self.clients.get_mut(name) else { return };
        let mut inputs = Vec::new();
        // While a read is under way no other one is given out, but writes pass it.
        while let Some(read) = client.connection.advance(&mut inputs) {
            client.reading = if client.hold { Some(read) } else { read.run() };
        }
        inputs.into_iter().for_each(|input| self.node.step(input));
    }

    fn connect(&mut self, name: &str, session: i64, words: &mut Words) -> Result<(), Failure> {
        let before = self.clients.values().find(|client| client.session == session && session != 0);
        // As they are made below.
        let mut password = [session as u8; 16];
        if words.flag("wrong") {
            password[0] ^= 1;
        }
        let last_zxid = before.map_or(0, |client| client.last_zxid);
        self.connections += 1;
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let linearizable = words.flag("linearizable");
        let policy = Policy {
            timeout_ms_min: 1,
            timeout_ms_max: 60_000,
            required_schemes: Vec::new(),
            sasl_failures_allowed: false,
            ensemble: linearizable,
            local_sessions: words.flag("local"),
            upgrades_sessions: words.flag("upgrades"),
            linearizable,
            reconfig_enabled: false,
            acl_schemes: vec!["digest".to_owned(), "ip".to_owned()],
        };
        let mut connection = Connection::new(
            Arc::clone(self.machine.published()),
            Outbox::new(self.connections, Box::new(|| {})),
            Arc::new(Digests),
            Arc::new(policy),
            ip,
            vec![Id::new("ip", ip.to_string())],
        );
        let timeout_ms = words.key("timeout").map_or(Ok(10_000), |ms| ms.parse())?;
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: last_zxid,
            timeout_ms,
            session_id: session,
            password: Bytes::copy_from_slice(&password),
            read_only: Some(words.flag("accepts")),
        };
        let mut frame = BytesMut::new();
        request.encode(&mut frame);
        let payload = next_frame(&mut frame, 1 << 20)?.ok_or("a whole frame")?;
        let next = self.sessions + 1;
        let mut inputs = Vec::new();
        let new = || {
            self.sessions = next;
            (next, [next as u8; 16])
        };
        connection.connect(payload, new, &mut inputs)?;
        inputs.into_iter().for_each(|input| self.node.step(input));
        let client = Client {
            connection,
            session,
            password,
            last_zxid,
            xid: 0,
            asked: VecDeque::new(),
            connecting: true,
            hold: false,
            reading: None,
        };
        self.clients.insert(name.to_owned(), client);
        if words.flag("auth") {
            let auth = Bytes::from_static(b"reader:secret");
            let request = Request::Auth { scheme: "digest".to_owned(), auth };
            self.send(name, &request)?;
        }
        Ok(())
    }

    fn send(&mut self, name: &str, request: &Request) -> Result<(), Failure> {
        let client = self.client(name)?;
        let xid = match request {
            Request::Ping => XID_PING,
            Request::Auth { .. } => XID_AUTH,
            Request::SetWatches2(_) => XID_SET_WATCHES,
            _ => {
                client.xid += 1;
                client.xid
            }
        };
        client.asked.push_back((xid, request.opcode()));
        let mut frame = BytesMut::new();
        request.encode(xid, &mut frame);
        let payload = next_frame(&mut frame, 1 << 24)?.ok_or("a whole frame")?;
        client.connection.receive(payload)?;
        client.connection.outbox().hear();
        self.advance(name);
        Ok(())
    }

    fn client(&mut self, name: &str) -> Result<&mut Client, Failure> {
        self.clients.get_mut(name).ok_or_else(|| format!("{name} is not connected").into())
    }

    /// What a client is told, a line for each.
    fn drain(&mut self, name: &str) -> Result<String, Failure> {
        let client = self.client(name)?;
        let mut bytes = BytesMut::new();
        let drained = client.connection.drain(&mut bytes, usize::MAX);
        let mut out = String::new();
        while let Some(frame) = next_frame(&mut bytes, 1 << 24)? {
            if std::mem::take(&mut client.connecting) {
                let ConnectResponse { timeout_ms, session_id, password, read_only } =
                    ConnectResponse::decode(frame)?;
                let read_only = if read_only == Some(true) { ", read-only" } else { "" };
                if timeout_ms == 0 {
                    writeln!(out, "no such session{read_only}")?;
                    continue;
                }
                (client.session, client.password) = (session_id, password);
                writeln!(out, "session {session_id}, {timeout_ms} ms{read_only}")?;
                continue;
            }
            let mut reader = Reader::new(frame);
            let header = ReplyHeader::decode(&mut reader)?;
            let at = zxid(header.zxid);
            if header.xid == XID_EVENT {
                let event = WatchEvent::decode(header, &mut reader)?;
                writeln!(out, "{at} event {:?} {}", event.kind, event.path)?;
                continue;
            }
            let (xid, op) = client.asked.pop_front().ok_or("a reply that nobody asked for")?;
            assert_eq!(header.xid, xid, "replies come in the order of requests");
            client.last_zxid = client.last_zxid.max(header.zxid);
            let what = match header.err {
                0 => show(&Reply::decode(op, &mut reader)?),
                code => self::name(code),
            };
            writeln!(out, "{at} {} {what}", op.name())?;
        }
        if drained == Drained::Close {
            client.connection.disconnect();
            self.clients.remove(name);
            writeln!(out, "connection closed")?;
        }
        Ok(out)
    }

    fn drain_all(&mut self) -> Result<String, Failure> {
        let names: Vec<String> = self.clients.keys().cloned().collect();
        let mut out = String::new();
        for name in names {
            for line in self.drain(&name)?.lines() {
                writeln!(out, "{name}: {line}")?;
            }
        }
        Ok(out)
    }

    fn run_command(&mut self, who: Option<&str>, words: &mut Words) -> Result<String, Failure> {
        let last_zxid = who.and_then(|name| self.clients.get(name)).map_or(0, |c| c.last_zxid);
        if let Some(request) = request(words, last_zxid)? {
            self.send(who.ok_or("whose request?")?, &request)?;
            return Ok(String::new());
        }
        let whose = || who.ok_or("a session's command needs its name");
        match words.name.as_str() {
            "connect" => self.connect(whose()?, 0, words)?,
            "attach" => {
                let session = words.next()?.parse()?;
                self.connect(whose()?, session, words)?;
            }
            "leave" => {
                self.client(whose()?)?.connection.disconnect();
                // It stays known, for its password; nobody reads from it any more.
            }
            "hold" => self.client(whose()?)?.hold = true,
            "run" => {
                let client = self.client(whose()?)?;
                client.hold = false;
                let read = client.reading.take().ok_or("no read is under way")?;
                client.reading = read.run();
                self.advance(whose()?);
            }
            "many" => {
                let (prefix, count) = (words.next()?, words.next()?.parse::<u32>()?);
                let op = |number| {
                    let path = format!("{prefix}{number:05}");
                    let (data, acl) = (None, acl(false));
                    let op = OpCode::Create;
                    MultiOp::Create(Create { op, path, data, acl, flags: 1, ttl_ms: -1 })
                };
                self.send(whose()?, &Request::Multi((0..count).map(op).collect()))?;
                self.settle()?;
                self.drain(whose()?)?;
            }
            "commit" => {
                let before = self.disk.syncs();
                let entries = self.commit()?;
                let syncs = self.disk.syncs() - before;
                let plural = if syncs == 1 { "" } else { "s" };
                return Ok(format!("{entries} committed, {syncs} sync{plural}\n"));
            }
            "apply" => {
                if !self.apply()? {
                    return Err("nothing is committed".into());
                }
            }
            "drain" => {
                return match who {
                    Some(name) => self.drain(name),
                    None => self.drain_all(),
                };
            }
            "go" => {
                self.settle()?;
                return self.drain_all();
            }
            "tick" => {
                // So many milliseconds pass, with a tick every 50 and one at the end.
                let end_ms = self.now_ms + words.next()?.parse::<i64>()?;
                loop {
                    self.now_ms = end_ms.min(self.now_ms + 50);
                    self.node.tick(self.now_ms)?;
                    self.machine.published().look(self.now_ms, self.reach);
                    if self.now_ms == end_ms {
                        break;
                    }
                }
            }
            "cut-off" => {
                let silent_ms = words.next()?.parse()?;
                self.reach = Reach { silent_ms, read_only: words.flag("read-only") };
                self.machine.published().look(self.now_ms, self.reach);
            }
            "reach" => {
                self.reach = Reach::default();
                self.machine.published().look(self.now_ms, self.reach);
            }
            "restart" => {
                self.disk.crash(1);
                self.store = self.store.crashed();
                self.boot += 1;
                (self.node, self.machine) = start(&self.disk, &self.store, self.boot);
                self.work.clear();
                let applied = self.machine.state().meta().applied;
                let mut out = format!("the store has applied {applied}\n");
                self.node.tick(self.now_ms)?;
                let committed = self.commit()?;
                writeln!(out, "{committed} entries to apply")?;
                self.settle()?;
                return Ok(out);
            }
            "sync-store" => self.machine.sync()?,
            "state" => {
                let view = self.machine.state().view();
                let sessions = view.sessions()?;
                let sessions: Vec<String> = sessions
                    .iter()
                    .map(|(session, row)| {
                        let closing = if row.closing { ", closing" } else { "" };
                        format!("{session} generation {}{closing}", row.generation)
                    })
                    .collect();
                let ephemerals = view.counts.ephemerals;
                return Ok(format!("sessions: {sessions:?}\nephemerals: {ephemerals}\n"));
            }
            "watches" => {
                let counts = self.machine.published().watches().counts();
                return Ok(format!("{} watches\n", counts.watches));
            }
            other => return Err(format!("unknown command '{other}'").into()),
        }
        Ok(String::new())
    }
}

impl goldenscript::Runner for Runner {
    type Command = goldenscript::Command;

    fn run(
        &mut self,
        command: &goldenscript::Command,
        context: &goldenscript::Context,
    ) -> Result<String, Failure> {
        let mut words = Words::of(command);
        let out = self.run_command(context.prefix.as_deref(), &mut words)?;
        words.done()?;
        Ok(out)
    }
}

/// Runs every script of a directory, each on a server of its own.
fn run_all(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts").join(name);
    let mut found = 0;
    for file in std::fs::read_dir(&dir).expect("the scripts' directory can be read") {
        let path = file.expect("it can be listed").path();
        goldenscript::run(&mut Runner::new(), &path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        found += 1;
    }
    assert!(found > 0, "no script in {}", dir.display());
}

#[test]
fn writes() {
    run_all("writes");
}

#[test]
fn reads() {
    run_all("reads");
}

#[test]
fn watches() {
    run_all("watches");
}

#[test]
fn sessions() {
    run_all("sessions");
}

#[test]
fn restart() {
    run_all("restart");
}
