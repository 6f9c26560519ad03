//! Three servers as values in one thread, from a seed: their messages are lost, doubled, delayed and
//! overtaken, links are cut or break, servers stand still, hand over or lose power, and clients move
//! from one to another with requests under way.
//!
//! What is claimed: a write that was acknowledged is there, none is applied twice, no session ends,
//! the replicas agree, a linearizable read, or one after a `sync`, shows what anybody was told before it
//! was asked for, and when the trouble is over everybody goes on. Bugs that are planted are found.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::codec::Reader;
use proto::frame::next_frame;
use proto::{Acl, ConnectRequest, ConnectResponse, OpCode, ReplyHeader, Request};
use replica::connection::Drained;
use replica::log::{Log, LogError, Options, SimDisk, SimRng};
use replica::mutants::{MachineMutants, NodeMutants};
use replica::snapshots::SnapshotJob;
use replica::{
    Connection, Input, Machine, Node, NodeConfig, Outbox, PeerMessage, Policy, Report, Work,
};
use state::{MemoryStore, NoHooks, Settings, State, Store};

use common::{Nobody, policy};

const SEEDS: u64 = 12;
/// A planted bug is found within so many seeds.
const MUTANT_SEEDS: u64 = 300;
const SERVERS: u64 = 3;
const CLIENTS: usize = 5;
/// How long there is trouble, and how long everybody has to come to rest after it.
const TROUBLE_MS: i64 = 20_000;
const HEALING_MS: i64 = 20_000;
/// The codes of `OK`, `NODEEXISTS` and `NONODE`.
const OK: i32 = 0;
const NODE_EXISTS: i32 = -110;
const NO_NODE: i32 = -101;

/// One run of a server's process.
struct Life {
    node: Node<SimDisk>,
    machine: Machine,
    inbox: VecDeque<Input>,
    work: VecDeque<Work>,
    jobs: VecDeque<SnapshotJob>,
    next_tick_ms: i64,
    /// It stands still until then.
    stands_ms: i64,
    /// Its Machine does until then.
    lags_ms: i64,
}

struct Server {
    disk: SimDisk,
    /// The store of each generation of the state.
    stores: BTreeMap<u64, MemoryStore>,
    boot: u64,
    life: Option<Life>,
    back_ms: i64,
    /// Its id for raft; none while it has lost its data and asks to take part anew.
    raft_id: Option<u64>,
    /// The random number that it asks with.
    nonce: u64,
}

/// The process of a server, if it is up.
fn life(servers: &mut BTreeMap<u64, Server>, id: u64) -> Option<&mut Life> {
    servers.get_mut(&id)?.life.as_mut()
}

/// A message on its way.
struct Flight {
    at_ms: i64,
    from: u64,
    to: u64,
    message: PeerMessage,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// To create the znode that has the xid in its name.
    Create,
    /// That its server catches up.
    Sync,
    /// Whether this znode exists, which it does.
    Exists(u64),
}

/// The bugs that are planted.
#[derive(Clone, Copy, Default)]
struct Planted {
    node: NodeMutants,
    machine: MachineMutants,
}

struct Client {
    session: i64,
    connection: Option<Connection>,
    server: u64,
    connected: bool,
    /// Whether it has its server catch up before it reads.
    syncs: bool,
    out: BytesMut,
    /// What was asked for on this connection and not answered, by xid.
    asked: VecDeque<(u64, Asked)>,
    /// Those whose connections ended before an answer: they are there or not.
    unknown: Vec<u64>,
    acknowledged: Vec<u64>,
    connects_ms: i64,
}

struct Cluster {
    seed: u64,
    planted: Planted,
    rng: SimRng,
    now_ms: i64,
    servers: BTreeMap<u64, Server>,
    flights: Vec<Flight>,
    /// Links that are cut, one way each.
    cut: Vec<(u64, u64)>,
    clients: Vec<Client>,
    tokens: u64,
    /// The last znode that some client was told is there.
    told: Option<u64>,
    connections: u64,
    trouble: bool,
    leaders: Vec<(u64, u64)>,
    crashes: u64,
    installs: usize,
    rejoins: u64,
    moves: u64,
    reads: u64,
}

/// What the seeds have in all, so that a run that tests nothing is seen.
#[derive(Default)]
struct Counts {
    acknowledged: usize,
    unknown: usize,
    elections: usize,
    crashes: u64,
    installs: usize,
    rejoins: u64,
    moves: u64,
    reads: u64,
}

impl Cluster {
    fn new(seed: u64, planted: Planted) -> Self {
        let servers = (1..=SERVERS).map(|id| {
            let (disk, stores) = (SimDisk::new(), BTreeMap::new());
            let raft_id = Some(id);
            (id, Server { disk, stores, boot: 0, life: None, back_ms: 0, raft_id, nonce: 0 })
        });
        let client = |at: usize| Client {
            session: 0,
            connection: None,
            server: 1 + at as u64 % SERVERS,
            connected: false,
            syncs: false,
            out: BytesMut::new(),
            asked: VecDeque::new(),
            unknown: Vec::new(),
            acknowledged: Vec::new(),
            connects_ms: 0,
        };
        Self {
            seed,
            planted,
            rng: SimRng::new(seed),
            now_ms: 0,
            servers: servers.collect(),
            flights: Vec::new(),
            cut: Vec::new(),
            clients: (0..CLIENTS).map(client).collect(),
            tokens: 0,
            told: None,
            connections: 0,
            trouble: true,
            leaders: Vec::new(),
            crashes: 0,
            installs: 0,
            rejoins: 0,
            moves: 0,
            reads: 0,
        }
    }

    /// A server that has lost its data asks to take part anew; its number in the ensemble, once it is
    /// let in.
    fn join(&mut self, id: u64) -> Option<u64> {
        let now_ms = self.now_ms;
        let server = self.servers.get_mut(&id).expect("it is one of them");
        server.back_ms = now_ms + 200;
        let (number, nonce) = (id as u32 - 1, server.nonce);
        let mut let_in = None;
        for other in self.servers.values_mut().filter_map(|server| server.life.as_mut()) {
            let member = &other.machine.state().meta().members.servers[&number];
            let_in = let_in.or((member.nonce == nonce).then_some(member.raft_id));
            other.inbox.push_back(Input::Join { server: number, nonce });
        }
        let_in
    }

    fn start(&mut self, id: u64) {
        let now_ms = self.now_ms;
        if self.servers[&id].raft_id.is_none() {
            let Some(raft_id) = self.join(id) else { return };
            self.servers.get_mut(&id).expect("it is one of them").raft_id = Some(raft_id);
            self.rejoins += 1;
        }
        let server = self.servers.get_mut(&id).expect("it is one of them");
        server.boot += 1;
        let voters: Vec<u64> = if server.nonce == 0 { (1..=SERVERS).collect() } else { Vec::new() };
        let raft_id = server.raft_id.expect("it is let in");
        let options = Options { segment_bytes: 16 << 10, ..Options::default() };
        let log = match Log::open(server.disk.clone(), options.clone()) {
            Ok((log, _)) => log,
            Err(LogError::Missing) => {
                let (index, term) = if server.nonce == 0 { state::apply::BIRTH } else { (0, 0) };
                Log::create(server.disk.clone(), options, index, term).expect("the disk is empty")
            }
            Err(error) => panic!("seed {}: the log does not open: {error}", self.seed),
        };
        // What the log does not name is of no use.
        let generation = replica::node::generation(&log);
        server.stores.retain(|known, _| *known == generation);
        let store = Box::new(server.stores.entry(generation).or_default().clone());
        let state = State::open_or_found(store, Box::new(NoHooks), 1 << 20, &voters);
        let state = state.expect("memory does not fail").with_gather_bytes(2000);
        let config = NodeConfig {
            server: id as u32 - 1,
            raft_id,
            election_ticks: (8 + 3 * id as usize, 9 + 3 * id as usize),
            boot: self.seed << 32 | id << 24 | server.boot,
            cluster_id: 1 + id,
            settings: Settings::default(),
            log_keep_bytes: 40 << 10,
        };
        let me = (config.server, config.boot);
        let sessions = state.view().sessions().expect("rows are sound");
        let node = Node::new(log, state.meta(), sessions, config).expect("log and state match");
        let node = node.with_mutants(self.planted.node);
        let machine = Machine::new(state, me).with_mutants(self.planted.machine);
        let next_tick_ms = now_ms + self.rng.below(50) as i64;
        let source = machine.source().expect("memory does not fail");
        let inbox = VecDeque::from([Input::Durable(Arc::new(source))]);
        let (work, jobs, stands_ms, lags_ms) = (VecDeque::new(), VecDeque::new(), 0, 0);
        server.life =
            Some(Life { node, machine, inbox, work, jobs, next_tick_ms, stands_ms, lags_ms });
        self.relink(id, true);
    }

    /// Its neighbours, and it, find that their links are there or gone.
    fn relink(&mut self, id: u64, there: bool) {
        let up: Vec<u64> =
            self.servers.iter().filter(|(_, s)| s.life.is_some()).map(|(id, _)| *id).collect();
        for other in up.into_iter().filter(|other| *other != id) {
            let told = |peer| if there { Input::Linked(peer) } else { Input::Unlinked(peer) };
            for (to, peer) in [(id, other), (other, id)] {
                let peer = self.servers[&peer].raft_id;
                if let (Some(peer), Some(life)) = (peer, life(&mut self.servers, to)) {
                    life.inbox.push_back(told(peer));
                }
            }
        }
    }

    fn crash(&mut self, id: u64) {
        self.crashes += 1;
        let seed = self.rng.next_u64();
        // Some are away for long.
        let away_ms = if self.rng.chance(25) { 8000 } else { 3000 };
        let back_ms = self.now_ms + 100 + self.rng.below(away_ms) as i64;
        let server = self.servers.get_mut(&id).expect("it is one of them");
        server.life = None;
        server.back_ms = back_ms;
        server.disk.crash(seed);
        server.stores.values_mut().for_each(|store| *store = store.crashed());
        self.flights.retain(|flight| flight.from != id && flight.to != id);
        self.relink(id, false);
        for client in &mut self.clients {
            if client.server == id {
                client.lose(self.now_ms + self.rng.below(300) as i64);
            }
        }
    }

    fn send(&mut self, from: u64, to: u64, message: PeerMessage) {
        let Some(to) = self.servers.iter().find(|(_, s)| s.raft_id == Some(to)).map(|(id, _)| *id)
        else {
            return;
        };
        if self.cut.contains(&(from, to)) {
            return;
        }
        let lost = self.trouble && self.rng.chance(3);
        let copies = if lost { 0 } else { 1 + u64::from(self.trouble && self.rng.chance(3)) };
        for _ in 0..copies {
            let slow = self.trouble && self.rng.chance(5);
            let slowest_ms = if self.rng.chance(20) { 3000 } else { 400 };
            let delay_ms = if slow { self.rng.below(slowest_ms) } else { 1 + self.rng.below(4) };
            let at_ms = self.now_ms + delay_ms as i64;
            // It goes over the wire as bytes.
            let message = PeerMessage::decode(&message.encode()).expect("it can be decoded");
            self.flights.push(Flight { at_ms, from, to, message });
        }
    }

    /// A millisecond.
    fn step(&mut self) {
        self.now_ms += 1;
        if self.trouble {
            self.harm();
        }
        let now_ms = self.now_ms;
        let (due, later) =
            std::mem::take(&mut self.flights).into_iter().partition(|f| f.at_ms <= now_ms);
        self.flights = later;
        for Flight { from, to, message, .. } in due {
            let Some(from) = self.servers[&from].raft_id else { continue };
            if let Some(life) = life(&mut self.servers, to) {
                life.inbox.push_back(Input::Peer { from, message });
            }
        }
        for id in 1..=SERVERS {
            let server = self.servers.get_mut(&id).expect("it is one of them");
            match &mut server.life {
                None if now_ms >= server.back_ms => self.start(id),
                None => {}
                Some(_) => self.serve(id),
            }
        }
        for at in 0..self.clients.len() {
            self.act(at);
        }
    }

    fn harm(&mut self) {
        match self.rng.below(40_000) {
            0..=19 => {
                let id = 1 + self.rng.below(SERVERS);
                if self.servers[&id].life.is_some() {
                    self.crash(id);
                }
            }
            20..=39 => {
                let (from, to) = (1 + self.rng.below(SERVERS), 1 + self.rng.below(SERVERS));
                self.cut.push((from, to));
                if self.rng.chance(50) {
                    self.cut.push((to, from));
                }
            }
            40..=79 => self.cut.clear(),
            // All of them at once.
            80..=81 => (1..=SERVERS).for_each(|id| self.crash(id)),
            // A server stands still, and what comes for it waits.
            82..=101 => {
                let (id, ms) = (1 + self.rng.below(SERVERS), self.rng.below(3000) as i64);
                let stands_ms = self.now_ms + ms;
                if let Some(life) = life(&mut self.servers, id) {
                    life.stands_ms = stands_ms;
                }
            }
            // Its Machine does.
            122..=161 => {
                let (id, ms) = (1 + self.rng.below(SERVERS), self.rng.below(500) as i64);
                let lags_ms = self.now_ms + ms;
                if let Some(life) = life(&mut self.servers, id) {
                    life.lags_ms = lags_ms;
                }
            }
            // Its links break, and are there again.
            102..=121 => {
                let id = 1 + self.rng.below(SERVERS);
                if self.servers[&id].life.is_some() {
                    self.relink(id, false);
                    self.relink(id, true);
                }
            }
            // A leader hands over.
            162..=191 => {
                let id = 1 + self.rng.below(SERVERS);
                if let Some(life) = life(&mut self.servers, id) {
                    life.inbox.push_back(Input::HandOver);
                }
            }
            192..=195 => self.wipe(),
            _ => {}
        }
    }

    /// A server loses its data, unless another one is on its way back from that.
    fn wipe(&mut self) {
        let id = 1 + self.rng.below(SERVERS);
        let votes = |life: &Life| {
            let members = &life.machine.state().meta().members;
            let wanted: Vec<u64> = members.servers.values().map(|member| member.raft_id).collect();
            members.voters.iter().all(|voter| wanted.contains(voter)) && members.voters.len() == 3
        };
        let lives: Vec<&Life> = self.servers.values().filter_map(|s| s.life.as_ref()).collect();
        let raft_ids: Option<Vec<u64>> = self.servers.values().map(|s| s.raft_id).collect();
        let is_known = lives.iter().all(|life| {
            let members = &life.machine.state().meta().members;
            raft_ids.as_ref().is_some_and(|ids| ids.iter().all(|id| members.voters.contains(id)))
        });
        if lives.len() < 3 || !is_known || !lives.iter().all(|life| votes(life)) {
            return;
        }
        self.crash(id);
        let nonce = self.rng.next_u64();
        let server = self.servers.get_mut(&id).expect("it is one of them");
        (server.disk, server.stores) = (SimDisk::new(), BTreeMap::new());
        (server.raft_id, server.nonce) = (None, nonce);
    }

    fn serve(&mut self, id: u64) {
        let clock_ms = 1_700_000_000_000 + self.now_ms;
        let mut sent = Vec::new();
        let slow = self.trouble && self.rng.chance(30);
        let begin_flush = self.rng.chance(2);
        let server = self.servers.get_mut(&id).expect("it is one of them");
        let life = server.life.as_mut().expect("it is up");
        if self.now_ms < life.stands_ms {
            return;
        }
        life.inbox.drain(..).for_each(|input| life.node.step(input));
        if self.now_ms >= life.next_tick_ms {
            life.next_tick_ms = self.now_ms + 50;
            life.node.tick(self.now_ms).expect("the log works");
        }
        let work = life.node.flush(clock_ms, &mut |to, message| sent.push((to, message)));
        let mut work = work.expect("the log works");
        life.jobs.extend(work.snapshots.drain(..));
        if !work.is_empty() {
            life.work.push_back(work);
        }
        // The Machine may lag.
        let slow = slow || self.now_ms < life.lags_ms;
        while let Some(work) = if slow { None } else { life.work.pop_front() } {
            let reports = life.machine.apply(work).expect("it applies");
            let installed = |report: &&Report| matches!(report, Report::Installed { .. });
            self.installs += reports.iter().filter(installed).count();
            life.inbox.extend(reports.into_iter().map(Input::Report));
        }
        // So may what writes to the store.
        if !slow && let Some(flush) = life.machine.take_flush(begin_flush).expect("it works") {
            flush.run().and_then(|()| flush.sync()).expect("memory does not fail");
            let source = flush.source().expect("it is written");
            life.inbox.push_back(Input::Durable(Arc::new(source)));
        }
        while let Some(job) = if slow { None } else { life.jobs.pop_front() } {
            let make = &mut |generation| {
                let store = MemoryStore::default();
                server.stores.insert(generation, store.clone());
                Ok(Box::new(store) as Box<dyn Store>)
            };
            life.inbox.push_back(job.run(make).expect("memory does not fail"));
        }
        if let (true, at) = (life.node.leads(), life.node.leader())
            && self.leaders.last() != Some(&at)
        {
            let clash = self.leaders.iter().any(|(other, term)| *term == at.1 && *other != at.0);
            assert!(!clash, "seed {}: two leaders in term {}", self.seed, at.1);
            self.leaders.push(at);
        }
        sent.into_iter().for_each(|(to, message)| self.send(id, to, message));
    }

    fn act(&mut self, at: usize) {
        let (now_ms, rng) = (self.now_ms, &mut self.rng);
        let client = &mut self.clients[at];
        let Some(connection) = &mut client.connection else {
            if now_ms < client.connects_ms {
                return;
            }
            // It goes to any server that is up.
            client.server = 1 + rng.below(SERVERS);
            let Some(life) = life(&mut self.servers, client.server) else {
                client.connects_ms = now_ms + 50;
                return;
            };
            self.connections += 1;
            let linearizable = rng.chance(50);
            let policy = Policy { ensemble: true, linearizable, ..policy(120_000) };
            let mut connection = Connection::new(
                Arc::clone(life.machine.published()),
                Outbox::new(self.connections, Box::new(|| {})),
                Arc::new(Nobody),
                Arc::new(policy),
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                Vec::new(),
            );
            let request = ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: 0,
                timeout_ms: 100_000,
                session_id: client.session,
                password: Bytes::from_static(&[7; 16]),
                read_only: Some(false),
            };
            let mut frame = BytesMut::new();
            request.encode(&mut frame);
            let payload = next_frame(&mut frame, 1 << 20).expect("whole").expect("whole");
            let (mut inputs, id) = (Vec::new(), self.connections as i64);
            connection.connect(payload, || (id, [7; 16]), &mut inputs).expect("it decodes");
            life.inbox.extend(inputs);
            client.connection = Some(connection);
            client.connected = false;
            // One that is not answered goes elsewhere.
            client.connects_ms = now_ms + 3000;
            client.syncs = !linearizable;
            return;
        };
        connection.outbox().hear();
        let drained = connection.drain(&mut client.out, usize::MAX);
        let mut gone = drained == Drained::Close;
        while let Some(payload) = next_frame(&mut client.out, 1 << 20).expect("frames are whole") {
            if !client.connected {
                let response = ConnectResponse::decode(payload).expect("a connect response");
                let seed = self.seed;
                assert!(response.session_id != 0, "seed {seed}: a session ended");
                let moved = client.session != 0;
                self.moves += u64::from(moved);
                client.session = response.session_id;
                client.connected = true;
                continue;
            }
            let header = ReplyHeader::decode(&mut Reader::new(payload)).expect("a header");
            let (path, asked) = client.asked.pop_front().expect("a reply to what was asked");
            assert_eq!(header.xid as u64, path, "seed {}: replies come in order", self.seed);
            match (asked, header.err) {
                (Asked::Create, OK) => {
                    client.acknowledged.push(path);
                    self.told = Some(path);
                }
                (Asked::Create, NODE_EXISTS) => {
                    panic!("seed {}: /w{path} was made twice", self.seed)
                }
                (Asked::Sync, OK) => {}
                (Asked::Exists(_), OK) => self.reads += 1,
                (Asked::Exists(path), NO_NODE) => {
                    panic!("seed {}: a read came after /w{path} and did not show it", self.seed)
                }
                // It was fenced: its session had moved on.
                (Asked::Create, _) => {
                    client.unknown.push(path);
                    gone = true;
                }
                (asked, code) => panic!("seed {}: {asked:?} failed with {code}", self.seed),
            }
        }
        let stuck = !client.connected && now_ms > client.connects_ms;
        let leaves = self.trouble && client.connected && rng.below(3000) == 0;
        if gone || stuck || leaves {
            connection.disconnect();
            return client.lose(now_ms + rng.below(200) as i64);
        }
        if client.connected && client.asked.len() < 12 && self.trouble && rng.chance(20) {
            for _ in 0..1 + rng.below(4) {
                let wanted = match self.told.filter(|_| rng.chance(40)) {
                    None => vec![Asked::Create],
                    Some(path) if client.syncs => vec![Asked::Sync, Asked::Exists(path)],
                    Some(path) => vec![Asked::Exists(path)],
                };
                for asked in wanted {
                    self.tokens += 1;
                    let mut frame = BytesMut::new();
                    request(asked, self.tokens).encode(self.tokens as i32, &mut frame);
                    let payload = next_frame(&mut frame, 1 << 20).expect("whole").expect("whole");
                    connection.receive(payload).expect("it decodes");
                    client.asked.push_back((self.tokens, asked));
                }
            }
        }
        let mut inputs = Vec::new();
        while let Some(read) = connection.advance(&mut inputs) {
            assert!(read.run().is_none(), "it is one row");
        }
        if let Some(life) = life(&mut self.servers, client.server) {
            life.inbox.extend(inputs);
        }
    }

    fn is_at_rest(&self) -> bool {
        let content = |client: &Client| client.connected && client.asked.is_empty();
        let lives: Vec<_> = self.servers.values().filter_map(|s| s.life.as_ref()).collect();
        let applied = |life: &&Life| life.machine.state().meta().applied;
        let first = lives.first().map(applied);
        self.clients.iter().all(content)
            && lives.len() == SERVERS as usize
            && lives.iter().all(|life| life.machine.state().meta().members.learners.is_empty())
            && lives.iter().all(|life| life.machine.state().meta().members.voters.len() == 3)
            && lives.iter().all(|life| life.node.is_idle() && Some(applied(life)) == first)
    }

    fn run(mut self, counts: &mut Counts) {
        while self.now_ms < TROUBLE_MS {
            self.step();
        }
        self.trouble = false;
        self.cut.clear();
        let end_ms = self.now_ms + HEALING_MS;
        while !self.is_at_rest() {
            assert!(self.now_ms < end_ms, "seed {}: no rest: {}", self.seed, self.state());
            self.step();
        }
        let states: Vec<&State> =
            self.servers.values().filter_map(|s| Some(s.life.as_ref()?.machine.state())).collect();
        let first = states[0].meta();
        for state in &states {
            let meta = state.meta();
            assert_eq!((meta.digest, meta.history), (first.digest, first.history), "{}", self.seed);
            assert_eq!(state.recomputed_digest(), Ok(meta.digest), "seed {}", self.seed);
            let view = state.view();
            for client in &self.clients {
                for path in &client.acknowledged {
                    let node = view.node(&format!("/w{path}")).expect("memory does not fail");
                    assert!(node.is_some(), "seed {}: /w{path} was lost", self.seed);
                }
            }
        }
        for client in &self.clients {
            counts.acknowledged += client.acknowledged.len();
            counts.unknown += client.unknown.len();
        }
        counts.elections += self.leaders.len();
        counts.crashes += self.crashes;
        counts.installs += self.installs;
        counts.rejoins += self.rejoins;
        counts.moves += self.moves;
        counts.reads += self.reads;
    }

    fn state(&self) -> String {
        let servers = self.servers.iter().map(|(id, server)| match &server.life {
            None => format!("{id} down"),
            Some(life) => {
                let applied = life.machine.state().meta().applied;
                let (idle, led) = (life.node.is_idle(), life.node.leader());
                let members = &life.machine.state().meta().members;
                let (voters, learners) = (&members.voters, &members.learners);
                format!(
                    "{id} applied {applied}, idle {idle}, led by {} in {}, voters {voters:?}, learners \
                     {learners:?}",
                    led.0, led.1
                )
            }
        });
        let clients = self.clients.iter().map(|client| {
            format!("client at {}: {}, asks {:?}", client.server, client.connected, client.asked)
        });
        servers.chain(clients).collect::<Vec<_>>().join("; ")
    }
}

impl Client {
    fn lose(&mut self, connects_ms: i64) {
        self.connection = None;
        self.connected = false;
        self.out.clear();
        let creates = self.asked.drain(..).filter(|(_, asked)| matches!(asked, Asked::Create));
        self.unknown.extend(creates.map(|(path, _)| path));
        self.connects_ms = connects_ms;
    }
}

fn request(asked: Asked, xid: u64) -> Request {
    match asked {
        Asked::Create => Request::Create(proto::request::Create {
            op: OpCode::Create,
            path: format!("/w{xid}"),
            data: Some(Bytes::new()),
            acl: vec![Acl::world(31)],
            flags: 0,
            ttl_ms: -1,
        }),
        Asked::Sync => Request::Sync { path: "/".to_owned() },
        Asked::Exists(path) => Request::Exists { path: format!("/w{path}"), watch: false },
    }
}

#[test]
fn three_servers_are_one() {
    let seeds = std::env::var("TEST_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let mut counts = Counts::default();
    let from = std::env::var("TEST_FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let planted = Planted::default();
    (from..from + seeds).for_each(|seed| Cluster::new(seed, planted).run(&mut counts));
    let Counts { acknowledged, unknown, elections, crashes, installs, rejoins, moves, reads } =
        counts;
    println!(
        "{seeds} seeds: {acknowledged} writes acknowledged, {unknown} unknown, {reads} reads, \
         {elections} elections, {crashes} crashes, {installs} snapshots, \
         {rejoins} servers back without data, {moves} sessions moved"
    );
    assert!(acknowledged > 1000 && reads > 1000 && unknown > 0, "clients get on");
    assert!(
        elections as u64 > seeds && crashes > 0 && installs > 0 && moves > 0 && rejoins > 0,
        "there is trouble"
    );
}

/// How many seeds it takes to find what is planted.
fn found(planted: Planted) -> Option<u64> {
    (0..MUTANT_SEEDS).find(|seed| {
        let run = || Cluster::new(*seed, planted).run(&mut Counts::default());
        catch_unwind(AssertUnwindSafe(run)).is_err()
    })
}

#[test]
fn planted_bugs_are_found() {
    let node = |plant: fn(&mut NodeMutants)| {
        let mut planted = Planted::default();
        plant(&mut planted.node);
        planted
    };
    let machine = MachineMutants { read_unapplied: true, ..MachineMutants::default() };
    let all = [
        ("repeat_read_index", node(|mutants| mutants.repeat_read_index = true)),
        ("read_unapplied", Planted { machine, ..Planted::default() }),
    ];
    for (name, planted) in all {
        let seeds = found(planted).unwrap_or_else(|| panic!("{name} was not found"));
        println!("{name}: found by seed {seeds}");
    }
}
