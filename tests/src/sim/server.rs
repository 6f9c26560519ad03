//! A server: its disk, its stores, and its process, which starts from them and ends in any way
//! (`life.rs`).
//!
//! Invariants:
//! * After an error of the log or the store nothing is done but to end the process.

mod life;
mod tasks;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use proto::Id;
use replica::log::{Entry, Log, LogError, Options, Position, SimDisk, SimRng};
use replica::raft::payload;
use replica::{
    Authenticator, BigReads, Input, Machine, Marked, Node, NodeConfig, PeerMessage, Policy,
    Quarantine, Sasl,
};
use state::{Fault, Members, Settings, State};

use self::life::{ApplyClock, Around, Life, REAP_MS, TICK_MS};
use super::membership;
use super::model::READER;
use super::mutants::Planted;
use super::plugins::{Ailment, Ready, Runner, SimHooks, compile};
use super::store::SimStore;
use super::wire::Wire;

pub use self::life::{Did, End, Paused, Step};

/// Every so many entries digests are compared.
const COMPARED_EVERY: u64 = 16;
/// How many times opening may be cut short by another loss of power.
const CUTS_MAX: u32 = 3;

struct Digests;

impl Authenticator for Digests {
    fn authenticate(&self, scheme: &str, auth: &[u8], _remote: IpAddr) -> Option<Vec<Id>> {
        (scheme == "digest" && auth == b"reader:secret").then(|| vec![Id::new("digest", READER)])
    }

    fn sasl(&self) -> Option<Box<dyn Sasl>> {
        None
    }
}

/// Whether the reads of a server's clients are linearizable; servers are configured apart. Most are:
/// what such a read must not show is rare.
pub fn reads_are_linearizable(server: u64) -> bool {
    !server.is_multiple_of(2)
}

/// What the outside world keeps when the process ends.
pub struct Server {
    /// The log's disk.
    pub disk: SimDisk,
    /// The store of each generation of the state: snapshots begin new ones.
    stores: BTreeMap<u64, SimStore>,
    id: u64,
    voters: Vec<u64>,
    planted: Planted,
    sizes: Sizes,
    boots: u64,
    next_session: i64,
    /// Whether it ever took part: then its log must be there.
    took_part: bool,
    /// Its id for raft; none while it has lost its data and may not take part yet.
    raft_id: Option<u64>,
    /// The random number that it asks with to take part anew; 0 for a founder.
    nonce: u64,
    /// What is written down of a state that is of no use.
    quarantine: Option<Quarantine>,
    /// Whether somebody brings in plugins.
    plugins: bool,
    /// What its wall clock shows.
    clock_ms: Arc<AtomicI64>,
    /// What ails what runs its plugins.
    ailment: Arc<Ailment>,
    life: Option<Life>,
}

/// What a server's configuration says; it differs from server to server.
struct Sizes {
    log: Options,
    log_keep_bytes: u64,
    gather_bytes_max: usize,
    cache_bytes: usize,
    flush_ms: i64,
    timeouts_ms: (i32, i32),
    election_ticks: usize,
    /// After how long without a leader it is read-only, if ever.
    read_only_after_ms: Option<i64>,
    /// Whether new sessions are known here only, and whether all are to know those that need it.
    local_sessions: (bool, bool),
    /// How likely an entry takes long to apply, in percent.
    slow_entries: u64,
}

impl Sizes {
    fn draw(id: u64, rng: &mut SimRng) -> Self {
        let segment_bytes = 8192 << rng.below(3);
        let memory_bytes_max = 2048 << rng.below(5);
        let recycle_max = rng.below(3) as usize;
        Self {
            log: Options { segment_bytes, recycle_max, memory_bytes_max },
            log_keep_bytes: 2048 << rng.below(5),
            gather_bytes_max: [0, 512, 4096, 64 << 10][rng.below(4) as usize],
            cache_bytes: (4 << 10) << rng.below(4),
            flush_ms: 500 + rng.below(2000) as i64,
            timeouts_ms: (1000, 3000 + rng.below(1500) as i32),
            // No two are the same, so that they do not ask for votes together for ever.
            election_ticks: 8 + 3 * id as usize + rng.below(3) as usize,
            slow_entries: [0, 0, 1, 10][rng.below(4) as usize],
            read_only_after_ms: [None, Some(500), Some(2000)][rng.below(3) as usize],
            local_sessions: (rng.chance(40), rng.chance(60)),
        }
    }
}

/// What a start found.
pub struct Started {
    /// Entries that the log has as committed and the store had not; they are applied now.
    pub replayed: Vec<(u64, u64, Bytes)>,
    /// The log's first entry.
    pub first: u64,
    /// The log's last entry.
    pub last: u64,
    /// The term that its log knows of, and its vote in that.
    pub vote: (u64, u64),
    /// What is applied.
    pub applied: u64,
    /// Whether a torn tail was cut.
    pub torn: bool,
    /// How often power was lost again on the way.
    pub cuts: u32,
    /// Damaged copies of the disk that were tried: refused, and opened without harm.
    pub flips: (u32, u32),
    /// Whether its state is known to be of no use.
    pub quarantined: bool,
}

impl Server {
    /// The server with this id for raft, its disk empty, not started yet. The seed decides its sizes.
    pub fn new(id: u64, voters: &[u64], rng: &mut SimRng, planted: Planted, plugins: bool) -> Self {
        Self {
            disk: SimDisk::new(),
            stores: BTreeMap::from([(0, SimStore::default())]),
            id,
            voters: voters.to_vec(),
            planted,
            sizes: Sizes::draw(id, rng),
            boots: 0,
            // As `server/src/serve.rs` makes them: the server in the high byte.
            next_session: ((id as i64) << 56) + 0x100_0000,
            took_part: false,
            raft_id: Some(id),
            nonce: 0,
            quarantine: None,
            plugins,
            clock_ms: Arc::default(),
            ailment: Arc::default(),
            life: None,
        }
    }

    /// Its id for raft; none while it has lost its data and may not take part yet.
    pub fn raft_id(&self) -> Option<u64> {
        self.raft_id
    }

    /// The random number that it asks with to take part anew.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// It has lost its data, or gives it up because its log is damaged; the process does not run.
    pub fn wipe(&mut self, nonce: u64) {
        let keeps_id = match self.has_damaged_log() {
            true => self.planted.vote_with_damaged_log,
            false => self.planted.vote_without_data,
        };
        (self.disk, self.stores) = (SimDisk::new(), BTreeMap::from([(0, SimStore::default())]));
        (self.took_part, self.quarantine) = (false, None);
        if !keeps_id {
            (self.raft_id, self.nonce) = (None, nonce);
        }
    }

    /// It takes part anew, with this id for raft.
    pub fn admitted(&mut self, raft_id: u64) {
        self.raft_id = Some(raft_id);
    }

    /// Whether the process runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Starts the process: opens the store and the log, whose disk may lose power on the way.
    ///
    /// # Errors
    /// [`End::Wrong`]: whatever the crash, a server starts again.
    pub fn start(&mut self, now_ms: i64, rng: &mut SimRng) -> Result<Started, End> {
        let mut cuts = 0;
        let flips = self.flip(rng);
        let (log, recovered) = loop {
            if cuts < CUTS_MAX && rng.chance(25) {
                self.disk.fail_from(rng.below(10));
            }
            match self.open_log() {
                Ok(opened) => break opened,
                Err(LogError::Io { .. } | LogError::Broken(_)) if cuts < CUTS_MAX => {
                    cuts += 1;
                    self.lose_power(rng);
                }
                Err(error) => return Err(End::Wrong(format!("the log does not open: {error}"))),
            }
        };
        if self.took_part && recovered.is_none() {
            return Err(End::Wrong("it took part, and its log is gone".to_owned()));
        }
        self.took_part = true;
        self.boots += u64::from(self.boots == 0 || !self.planted.reuse_boot);
        let mut log = log;
        log.plant(self.planted.log);
        let generation = Marked::of(&log).generation;
        self.quarantine.take_if(|quarantine| quarantine.generation != generation);
        let quarantine = self.quarantine.clone().filter(|_| !self.planted.forget_quarantine);
        // What the log does not name is of no use.
        self.stores.retain(|known, _| *known == generation);
        let (ready, compiles) = (Ready::default(), rng.chance(70));
        let opened = match &quarantine {
            None => self.open_and_replay(generation, &mut log, (&ready, compiles))?,
            Some(_) => None,
        };
        let mut quarantine = quarantine;
        if quarantine.is_none() && opened.is_none() {
            let why = "simulated damage".to_owned();
            quarantine = Some(Quarantine { generation, why });
            self.quarantine.clone_from(&quarantine);
        }
        let (state, replayed) = match opened {
            Some(opened) => opened,
            None => (self.no_state(&ready)?, Vec::new()),
        };
        let wrong = |what: &dyn std::fmt::Display| End::Wrong(format!("no start: {what}"));
        let sessions = state.view().sessions().map_err(|fault| wrong(&fault))?;
        let ticks = self.sizes.election_ticks;
        let config = NodeConfig {
            server: self.id as u32 - 1,
            raft_id: self.raft_id.ok_or_else(|| wrong(&"it may not take part yet"))?,
            // With one number in the range, nothing is random.
            election_ticks: (ticks, ticks + 1),
            boot: self.id << 32 | self.boots,
            cluster_id: 7 + self.id,
            settings: Settings::default(),
            servers: membership::located(&self.voters),
            read_only_after_ms: self.sizes.read_only_after_ms,
            log_keep_bytes: self.sizes.log_keep_bytes,
            knows: state::APPLY_VERSION,
        };
        let me = (config.server, config.boot);
        let (first, last, applied) = (log.first_index(), log.last_index(), state.meta().applied);
        let vote = (log.hard_state().term, log.hard_state().vote);
        let node = match &quarantine {
            None => Node::new(log, state.meta(), sessions, config),
            Some(why) => Node::without_state(log, state.meta(), config, &why.why),
        };
        let node = match node {
            Ok(node) => node.with_mutants(self.planted.node),
            Err(error) => return Err(wrong(&error)),
        };
        if compiles {
            compile(self.id, &ready, &state.view());
        }
        let runner = self.plugins.then(|| Runner::new(self.id, ready, now_ms));
        let clock = ApplyClock::default();
        let machine = Machine::new(state, me).with_mutants(self.planted.machine);
        let machine = machine.with_clock(clock.reader()).with_comparisons(COMPARED_EVERY);
        let published = Arc::clone(machine.published());
        let is_quarantined = quarantine.is_some();
        if let Some(Quarantine { why, .. }) = quarantine {
            published.shut_down(&why);
        }
        let source = machine.source().map_err(|fault| wrong(&fault))?;
        let (timeout_ms_min, timeout_ms_max) = self.sizes.timeouts_ms;
        let policy = Policy {
            timeout_ms_min,
            timeout_ms_max,
            required_schemes: Vec::new(),
            sasl_failures_allowed: true,
            ensemble: self.voters.len() > 1,
            local_sessions: self.voters.len() > 1 && self.sizes.local_sessions.0,
            upgrades_sessions: self.sizes.local_sessions.1,
            linearizable: reads_are_linearizable(self.id),
            reconfig_enabled: false,
            acl_schemes: vec!["digest".to_owned(), "ip".to_owned()],
        };
        self.life = Some(Life {
            node,
            machine,
            published,
            authenticator: Arc::new(Digests),
            policy: Arc::new(policy),
            inbox: VecDeque::from([Input::Durable(Arc::new(source))]),
            work: VecDeque::new(),
            jobs: VecDeque::new(),
            flush_due: true,
            big_reads: BigReads::default(),
            connections: BTreeMap::new(),
            started_ms: now_ms,
            next_tick_ms: now_ms + rng.below(TICK_MS as u64) as i64,
            next_reap_ms: now_ms + REAP_MS,
            next_flush_ms: now_ms + self.sizes.flush_ms,
            clock,
            leads: None,
            led_ticks: 0,
            flushes: VecDeque::new(),
            runner,
            ailment: Arc::clone(&self.ailment),
            next_try_ms: now_ms,
            is_quarantined,
            is_shut: is_quarantined,
        });
        let torn = recovered == Some(true);
        Ok(Started {
            replayed,
            first,
            last,
            vote,
            applied,
            torn,
            cuts,
            flips,
            quarantined: is_quarantined,
        })
    }

    /// The state that goes with a log, with all that is committed applied; `None` if it is damaged.
    fn open_and_replay(
        &mut self,
        generation: u64,
        log: &mut Log<SimDisk>,
        (ready, compiles): (&Ready, bool),
    ) -> Result<Option<(State, Entries)>, End> {
        self.served(true);
        let opened = (|| {
            let Some(mut state) = self.open_state(generation, ready)? else { return Ok(None) };
            let compile = |state: &State| {
                if compiles {
                    compile(self.id, ready, &state.view());
                }
                compiles
            };
            let replayed = replay_committed(&mut state, log, &compile)?;
            Ok(replayed.map(|replayed| (state, replayed)))
        })();
        self.served(false);
        opened
    }

    /// Whether it is the server that reads its stores.
    fn served(&self, is_served: bool) {
        self.stores.values().for_each(|store| store.served(is_served));
    }

    /// A row of its state cannot be read any more; false if there is none.
    pub fn damage_store(&self, rng: &mut SimRng) -> bool {
        self.stores.last_key_value().is_some_and(|(_, store)| store.damage(rng))
    }

    /// Whether a row of its state cannot be read.
    pub fn has_damaged_store(&self) -> bool {
        self.stores.values().any(SimStore::is_damaged)
    }

    /// Another state took the place of the one that could not be read; or it can be read again.
    pub fn mend_stores(&self) {
        self.stores.values().for_each(SimStore::mend);
    }

    /// It goes on from another state: what was wrong with its stores is of no account any more.
    pub fn forget_damage(&self) {
        self.stores.values().for_each(SimStore::forget_damage);
    }

    /// A bit of its log is another, where that is found; the process does not run. False if no such bit
    /// was found.
    pub fn damage_log(&mut self, rng: &mut SimRng) -> bool {
        let names = replica::log::Disk::list(&self.disk).unwrap_or_default();
        for _ in 0..20 {
            let Some(name) = names.get(rng.below(names.len() as u64) as usize) else { break };
            let bytes = self.disk.content(name).map_or(0, |content| content.len() as u64);
            let (at, bit) = (rng.below(bytes.clamp(1, 4096)), rng.below(8) as u8);
            let copy = self.disk.fork();
            copy.flip_bit(name, at, bit);
            if let Err(LogError::Damaged(_)) = Log::open(copy, self.sizes.log.clone()) {
                self.disk.flip_bit(name, at, bit);
                return true;
            }
        }
        false
    }

    /// Whether its log is known to be damaged: its process finds that when it starts.
    pub fn has_damaged_log(&self) -> bool {
        matches!(self.open_log_again(), Err(LogError::Damaged(_)))
    }

    fn open_log_again(&self) -> Result<(), LogError> {
        Log::open(self.disk.fork(), self.sizes.log.clone()).map(|_| ())
    }

    /// What stands in for a state of no use.
    fn no_state(&self, ready: &Ready) -> Result<State, End> {
        let hooks = self.hooks(ready);
        let (store, hooks) = (Box::new(SimStore::default()), Box::new(hooks));
        let none = Members::founders(&[]);
        let state = State::open_or_found(store, hooks, self.sizes.cache_bytes, &none);
        state.map_err(|fault| End::Wrong(format!("no state: {fault}")))
    }

    fn open_state(&mut self, generation: u64, ready: &Ready) -> Result<Option<State>, End> {
        let store = self.stores.get(&generation);
        let store = store.ok_or_else(|| End::Wrong(format!("no generation {generation}")))?;
        let hooks = self.hooks(ready);
        let (store, hooks) = (Box::new(store.clone()), Box::new(hooks));
        // One that is new to the ensemble has nothing yet.
        let voters = if self.nonce == 0 { &self.voters[..] } else { &[] };
        let state =
            State::open_or_found(store, hooks, self.sizes.cache_bytes, &Members::founders(voters));
        let state = match state {
            Ok(state) => state.with_gather_bytes(self.sizes.gather_bytes_max),
            Err(Fault::Damaged { .. }) => return Ok(None),
            Err(fault) => return Err(End::Wrong(format!("the store does not open: {fault}"))),
        };
        Ok(Some(state.with_mutants(self.planted.state)))
    }

    fn hooks(&self, ready: &Ready) -> SimHooks {
        let outside = (Arc::clone(&self.clock_ms), Arc::clone(&self.ailment));
        SimHooks::of_server(self.id, Arc::clone(ready), outside, self.planted.hooks)
    }

    fn open_log(&self) -> Result<(Log<SimDisk>, Option<bool>), LogError> {
        match Log::open(self.disk.clone(), self.sizes.log.clone()) {
            Ok((log, recovered)) => Ok((log, Some(recovered.torn.is_some()))),
            Err(LogError::Missing) => {
                let (index, term) = if self.nonce == 0 { state::apply::BIRTH } else { (0, 0) };
                let log = Log::create(self.disk.clone(), self.sizes.log.clone(), index, term)?;
                Ok((log, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens copies of the disk in which one bit is another: each is refused, or holds a first part
    /// of what the whole one does, and before that perhaps some of what was trimmed last. The disk itself
    /// stays as it is.
    fn flip(&mut self, rng: &mut SimRng) -> (u32, u32) {
        let mut found = (0, 0);
        if !rng.chance(20) {
            return found;
        }
        let all = |log: &Log<SimDisk>| {
            log.entries(log.first_index(), log.last_index() + 1, u64::MAX).unwrap_or_default()
        };
        let Ok((whole, _)) = Log::open(self.disk.fork(), self.sizes.log.clone()) else {
            return found;
        };
        let (first, whole) = (whole.first_index(), all(&whole));
        for _ in 0..2 {
            let copy = self.disk.fork();
            let names = replica::log::Disk::list(&copy).unwrap_or_default();
            let Some(name) = names.get(rng.below(names.len() as u64) as usize) else { continue };
            let bytes = copy.content(name).map_or(0, |content| content.len() as u64);
            // Most of a segment is not written yet; its first part is.
            copy.flip_bit(name, rng.below(bytes.min(4096)), rng.below(8) as u8);
            match Log::open(copy, self.sizes.log.clone()) {
                Err(_) => found.0 += 1,
                Ok((log, _)) => {
                    let left = all(&log);
                    let mut kept = left.iter().filter(|entry| entry.index >= first);
                    let same = whole.iter().zip(&mut kept).all(|(whole, left)| whole == left)
                        && kept.next().is_none();
                    assert!(
                        same,
                        "a log with a flipped bit in {name} holds what was never written"
                    );
                    found.1 += 1;
                }
            }
        }
        found
    }

    /// The process ends. With `power` unsynced writes are lost too.
    pub fn crash(&mut self, power: bool, rng: &mut SimRng) {
        self.life = None;
        self.disk.limit_space(None);
        if power {
            self.lose_power(rng);
        } else {
            self.disk.restart();
            self.stores.values().for_each(SimStore::restart);
        }
    }

    fn lose_power(&self, rng: &mut SimRng) {
        self.disk.crash(rng.next_u64());
        self.stores.values().for_each(|store| store.crash(rng));
    }

    /// One of the next commits to a store fails.
    pub fn fail_commit(&self, n: u64) {
        self.stores.values().for_each(|store| store.fail_commit(n));
    }

    /// The process ends in order: connections first, then what is committed is applied, then the
    /// store is made durable.
    ///
    /// # Errors
    /// [`End::Broken`] if the store failed meanwhile.
    pub fn stop(&mut self) -> Result<(), End> {
        let Some(mut life) = self.life.take() else { return Ok(()) };
        self.disk.restart();
        life.connections.clear();
        for work in life.work {
            life.machine.apply(work).map_err(|fault| End::Broken(fault.to_string()))?;
        }
        life.machine.sync().map_err(|fault| End::Broken(fault.to_string()))?;
        self.stores.values().for_each(SimStore::restart);
        Ok(())
    }

    /// Something for the Node: from the network.
    pub fn tell(&mut self, input: Input) {
        if let Some(life) = &mut self.life {
            life.inbox.push_back(input);
        }
    }

    /// The raft id of the leader and the term, as this server has them.
    pub fn leader(&self) -> Option<(u64, u64)> {
        self.life.as_ref().map(|life| life.node.leader())
    }

    /// Whether it knew a leader at its last tick.
    pub fn hears_leader(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.led_ticks > 0)
    }

    /// The term in which it leads, if it does.
    pub fn leads(&self) -> Option<u64> {
        self.life.as_ref().and_then(|life| life.leads)
    }

    /// Whether its state is known to be of no use.
    pub fn is_quarantined(&self) -> bool {
        self.quarantine.is_some()
    }

    /// Its state goes bad with the next change.
    pub fn misapply_once(&mut self) {
        if let Some(life) = &mut self.life {
            life.machine.misapply_once();
        }
    }

    /// The published view, and the digests of the state behind it.
    pub fn state(&self) -> Option<&State> {
        self.life.as_ref().map(|life| life.machine.state())
    }

    /// A client came.
    pub fn accept(&mut self, conn: u64) {
        let mutants = self.planted.connection;
        if let Some(life) = &mut self.life {
            life.accept(conn, mutants);
        }
    }

    /// What could be done now. Threads that are paused do nothing.
    pub fn steps(
        &mut self,
        now_ms: i64,
        wires: &BTreeMap<u64, Wire>,
        paused: &Paused,
        steps: &mut Vec<Step>,
    ) {
        if let Some(life) = &mut self.life {
            life.steps(now_ms, wires, paused, steps);
        }
    }

    /// When the server next has something to do by its clocks.
    pub fn next_timer_ms(&self) -> Option<i64> {
        self.life.as_ref().map(Life::next_timer_ms)
    }

    /// Does one step, if the process runs.
    ///
    /// # Errors
    /// [`End`]: the process must end.
    pub fn run(
        &mut self,
        step: Step,
        (now_ms, clock_ms): (i64, i64),
        wires: &mut BTreeMap<u64, Wire>,
        rng: &mut SimRng,
        did: &mut Vec<Did>,
        sent: &mut Vec<(u64, PeerMessage)>,
    ) -> Result<(), End> {
        self.clock_ms.store(clock_ms, Ordering::Relaxed);
        if self.life.is_some() {
            self.served(true);
        }
        let Some(life) = &mut self.life else { return Ok(()) };
        let around = Around {
            now_ms,
            clock_ms,
            stores: &mut self.stores,
            next_session: &mut self.next_session,
            quarantine: &mut self.quarantine,
            flush_ms: self.sizes.flush_ms,
            slow_entries: self.sizes.slow_entries,
        };
        let done = life.run(step, around, wires, rng, did, sent);
        self.served(false);
        done
    }

    /// Whether a connection has nothing left to do, or to send.
    pub fn has_said_all(&self, conn: u64) -> bool {
        self.life.as_ref().is_some_and(|life| life.has_said_all(conn))
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.life.as_ref().is_some_and(Life::is_idle)
    }
}

/// Committed entries: index, term, payload.
type Entries = Vec<(u64, u64, Bytes)>;

/// Applies what is known to be committed and is not in the store, as a server does before it talks to
/// others (`server/src/found.rs`); `None` where the state is damaged. Where an entry waits for a module, and
/// all can be compiled, it is tried once more.
fn replay_committed(
    state: &mut State,
    log: &mut Log<SimDisk>,
    compile: &dyn Fn(&State) -> bool,
) -> Result<Option<Entries>, End> {
    let wrong = |what: &dyn std::fmt::Display| End::Wrong(format!("no replay: {what}"));
    let at = Position { index: state.meta().applied, term: state.meta().term };
    log.reconcile(at).map_err(|error| wrong(&error))?;
    let (next, commit) = (at.index + 1, log.hard_state().commit);
    if commit < next {
        return Ok(Some(Vec::new()));
    }
    let mut entries = log.entries(next, commit + 1, u64::MAX).map_err(|error| wrong(&error))?;
    for (at, entry) in entries.iter().enumerate() {
        let mut applied = state.apply(entry.index, entry.term, payload(entry));
        if matches!(applied, Err(Fault::Waiting(_))) && compile(state) {
            applied = state.apply(entry.index, entry.term, payload(entry));
        }
        match applied {
            Ok(_) => {}
            Err(Fault::Damaged { .. }) => return Ok(None),
            // The Machine meets it again, and waits.
            Err(Fault::Waiting(_)) => {
                entries.truncate(at);
                break;
            }
            Err(fault) => return Err(wrong(&fault)),
        }
    }
    let committed = |entry: &Entry| (entry.index, entry.term, payload(entry).clone());
    Ok(Some(entries.iter().map(committed).collect()))
}
