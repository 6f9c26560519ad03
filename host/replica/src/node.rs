//! The Node: raft, the log, proposals, the liveness of sessions. A value that is stepped and
//! flushed; its thread only moves inputs, messages and work.
//!
//! Invariants:
//! * Commands of this server are numbered without a gap, in the order in which they are to be applied
//!   (`proposals.rs`). Whoever leads, they go the same way.
//! * The leader packs all commands in hand, its own and the other servers', into as few entries as
//!   their order allows, up to [`BATCH_OPERATIONS_MAX`] and [`BATCH_BYTES_MAX`] each (`lines.rs`).
//! * One sync covers all of them, up to [`ROUND_BYTES_MAX`].
//! * Nothing more is proposed while too much waits to be applied (`backlog.rs`).
//! * An entry's time is that of a majority's clocks (`clocks.rs`).
//! * Only the leader decides: that a session has expired, that a close goes on, that a znode is due.
//! * What is wrong with this server's state is found out, and mended, in `node/health.rs`.

mod health;
mod hearing;
mod members;
mod proposing;
mod snapshots;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proto::ServerSpec;
use state::apply::SessionRow;
use state::snapshot::Staged;
use state::{Command, Members, Settings};
use thiserror::Error;

use self::health::Health;
use self::members::Asking;
pub use self::status::{NodeStatus, PeerStatus};
use crate::backlog::Backlog;
use crate::clocks::{Astray, Clocks, Now};
use crate::compiled::Compiled;
use crate::cut_off::CutOff;
use crate::input::{Input, Report, Wants, Work};
use crate::lines::Lines;
use crate::liveness::Liveness;
use crate::log::{Disk, Entry, Log, LogError, Position};
use crate::marked::{self, Marked};
use crate::mutants::NodeMutants;
use crate::own_sessions::Reach;
use crate::packing::{Item, Queued};
use crate::peer::PeerMessage;
use crate::proposals::Proposals;
use crate::raft::{Raft, RaftMessage, payload};
use crate::read_index::ReadIndex;
use crate::snapshots::{Receiver, SnapshotJob, SnapshotMessage};

/// How many operations one entry holds; one multi may have more. What so many of them touch, about a
/// kilobyte each, is still in a processor's own cache when the entry is finished and the next one frees
/// what it replaced.
pub const BATCH_OPERATIONS_MAX: usize = 128;
/// How many bytes of payload one entry holds; one command may be longer.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// How many bytes of payload go out with one sync; one command may be longer.
pub const ROUND_BYTES_MAX: usize = 4 << 20;
/// How many bytes of what waits in the log the Machine is given at once; one entry may be longer.
const GIVEN_BYTES_MAX: u64 = 16 << 20;
/// Every so many ticks a follower tells the leader whom it has heard from.
const HEARD_TICKS: u32 = 10;
/// A log that is kept for a snapshot on its way grows to at most so many times its usual length.
const LOG_HELD_MAX: u64 = 8;
/// After so many ticks without any of its commands being applied, a server sends them again.
const STALLED_TICKS: u32 = 20;

/// Who this server is, and its share of the configuration.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The server's id, 0 to 255.
    pub server: u32,
    /// Its id for raft; 1 for a server that is alone.
    pub raft_id: u64,
    /// After how many ticks without a word of the leader it asks for votes: drawn from this range, its
    /// end excluded. With one number in it, nothing is random.
    pub election_ticks: (usize, usize),
    /// A random number of this start.
    pub boot: u64,
    /// A random number that names the ensemble if this start founds it.
    pub cluster_id: u64,
    /// The cluster settings to found the ensemble with.
    pub settings: Settings,
    /// For how long no leader may be heard of before the server is read-only, in milliseconds; `None` if
    /// it never is.
    pub read_only_after_ms: Option<i64>,
    /// Where the servers are found, as far as the configuration says.
    pub servers: BTreeMap<u32, ServerSpec>,
    /// The log is trimmed when it is longer than this, in bytes.
    pub log_keep_bytes: u64,
    /// The newest apply version that this program knows, [`state::APPLY_VERSION`]; tests say others.
    pub knows: u32,
}

/// Why a Node cannot go on.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The log failed; it must be reopened.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The state is of no use, and there is no other server to get another from.
    #[error(
        "its state is damaged ({0}), and there is no other server that it could get it from: restore \
         the data directory from a backup"
    )]
    State(String),
    /// Raft refused to start.
    #[error("raft cannot start: {0}")]
    Raft(String),
    /// There is no state of use, and the log does not say whom raft counts.
    #[error("the log does not say whom raft counts, and there is no state that would")]
    NothingKnown,
}

/// One server's part in the ensemble.
pub struct Node<D: Disk> {
    raft: Raft<D>,
    config: NodeConfig,
    liveness: Liveness,
    /// What came and has no number yet.
    queue: VecDeque<Item>,
    proposals: Proposals,
    /// What the servers want, while this one leads.
    lines: Lines,
    reads: ReadIndex,
    cut_off: CutOff,
    reach: Reach,
    clocks: Clocks,
    backlog: Backlog,
    /// The leader and the term when it was last looked at.
    led: (u64, u64),
    /// Sessions whose close takes further entries.
    closing: BTreeSet<i64>,
    /// Whether the next entry cannot be applied here for now: another server is to lead.
    is_held_up: bool,
    /// What plugins want of the leader.
    wants: Wants,
    /// Whether a step for plugins is on its way, that this server decided as the leader.
    steps: bool,
    /// The servers, as of what is applied.
    members: Arc<Members>,
    /// Those with a link, by their ids for raft.
    linked: BTreeSet<u64>,
    /// The newest apply version that each of them knows, as it said.
    knows: BTreeMap<u64, u32>,
    /// What of plugins is compiled where.
    compiled: Compiled,
    asking: Asking,
    receiver: Receiver,
    health: Health,
    /// The state of a snapshot that raft takes now, and its generation.
    staged: Option<(Staged, u64)>,
    /// Whether the Machine is given another state: what it says until it takes that is of the old one.
    installs: bool,
    /// Work on stores, not given out yet.
    jobs: Vec<SnapshotJob>,
    /// Messages for other servers, not given out yet.
    outgoing: Vec<(u64, PeerMessage)>,
    ticks: u32,
    /// At which tick it asks for votes, having lost the leader.
    campaigns: Option<u32>,
    /// The tick at which something of this server was last applied, or sent again.
    moved: u32,
    committed: u64,
    applied: u64,
    durable: u64,
    mutants: NodeMutants,
}

impl<D: Disk> Node<D> {
    /// A node over a log and the state that goes with it (its view and its meta row).
    ///
    /// # Errors
    /// [`NodeError::Log`] if the state is not of this log.
    pub fn new(
        mut log: Log<D>,
        meta: &state::apply::Meta,
        sessions: Vec<(i64, SessionRow)>,
        config: NodeConfig,
    ) -> Result<Self, NodeError> {
        let at = Position { index: meta.applied, term: meta.term };
        log.reconcile(at)?;
        let conf = (&meta.members.voters[..], &meta.members.learners[..]);
        let mut new = Self::begin(log, meta, conf, meta.applied, config)?;
        new.raft.mark(meta);
        new.know_sessions(sessions);
        Ok(new)
    }

    /// A node over a log whose state is of no use, as `why` says: it is in quarantine. `meta` is that of a
    /// state without anything.
    ///
    /// # Errors
    /// [`NodeError::NothingKnown`] if the log has to be given up too; [`NodeError::Log`] if it is damaged.
    pub fn without_state(
        mut log: Log<D>,
        meta: &state::apply::Meta,
        config: NodeConfig,
        why: &str,
    ) -> Result<Self, NodeError> {
        let marked = Marked::of(&log);
        let (at, known) = marked.beginning(&log).ok_or(NodeError::NothingKnown)?;
        log.reconcile(at)?;
        let conf = (&known.voters[..], &known.learners[..]);
        let mut new = Self::begin(log, meta, conf, at.index, config)?;
        new.quarantine(why.to_owned(), Vec::new());
        Ok(new)
    }

    /// A node of which everything up to `applied` counts as applied.
    fn begin(
        log: Log<D>,
        meta: &state::apply::Meta,
        conf: (&[u64], &[u64]),
        applied: u64,
        config: NodeConfig,
    ) -> Result<Self, NodeError> {
        let raft = Raft::new(log, config.raft_id, conf, applied, config.election_ticks);
        let raft = raft.map_err(|e| NodeError::Raft(e.to_string()))?;
        // The first commands of a start: who numbers them, and, once ever, who the ensemble is.
        let (cluster_id, settings) = (config.cluster_id, config.settings.clone());
        let bootstrap = Command::Bootstrap { cluster_id, settings };
        let origin = Command::Origin { replaces: meta.boot_of(config.server) };
        let unlocated = |id: &u32| meta.members.servers.get(id).is_some_and(|m| !m.is_located());
        let locate = config.servers.keys().any(unlocated);
        let locate = locate.then(|| Command::Locate(config.servers.clone()));
        let first = [Some(origin), (meta.cluster_id == 0).then_some(bootstrap), locate];
        let first = first.into_iter().flatten().collect();
        let mut new = Self {
            raft,
            liveness: Liveness::default(),
            queue: VecDeque::new(),
            proposals: Proposals::new((config.server, config.boot), first),
            lines: Lines::default(),
            reads: ReadIndex::new((config.server, config.boot)),
            cut_off: CutOff::default(),
            reach: Reach::default(),
            clocks: Clocks::default(),
            backlog: Backlog::new(applied),
            led: (0, 0),
            closing: BTreeSet::new(),
            is_held_up: false,
            wants: Wants::default(),
            steps: false,
            members: Arc::clone(&meta.members),
            linked: BTreeSet::new(),
            knows: BTreeMap::new(),
            compiled: Compiled::default(),
            asking: Asking::default(),
            receiver: Receiver::default(),
            health: Health::default(),
            staged: None,
            installs: false,
            jobs: Vec::new(),
            outgoing: Vec::new(),
            ticks: 0,
            campaigns: None,
            moved: 0,
            config,
            committed: applied,
            applied,
            durable: 0,
            mutants: NodeMutants::default(),
        };
        new.clocks.reached(meta.time_ms);
        Ok(new)
    }

    /// These are all the sessions there are. After a start every one has its full timeout.
    fn know_sessions(&mut self, sessions: Vec<(i64, SessionRow)>) {
        self.liveness = Liveness::default();
        self.closing.clear();
        for (session, row) in sessions {
            if row.closing {
                self.closing.insert(session);
            } else {
                self.liveness.attached(session, row.generation, row.timeout_ms, None);
            }
        }
    }

    /// Plants bugs, for the tests that show that the tests find them. Never called in a server.
    pub fn with_mutants(mut self, mutants: NodeMutants) -> Self {
        self.raft.sync_late = mutants.acknowledge_before_sync;
        self.raft.forget_vote = mutants.forget_vote;
        self.lines.accept_gaps = mutants.accept_gap;
        self.proposals.never_again = mutants.never_send_again;
        self.reads.repeats = mutants.repeat_read_index;
        self.clocks.own_only = mutants.trust_own_clock;
        self.mutants = mutants;
        self
    }

    /// Takes one input.
    pub fn step(&mut self, input: Input) {
        match input {
            Input::Write { ticket, .. } | Input::Reads(ticket) if self.lets_go(Some(&ticket)) => {}
            Input::Command { ticket, .. } if self.lets_go(ticket.as_ref()) => {}
            Input::Write { session, generation, is_local, identities, op, mut ticket } => {
                ticket.after_read &= !self.mutants.pack_past_reads;
                let write = Queued::Write { session, generation, is_local, identities, op };
                self.queue.push_back((write, Some(ticket)));
            }
            Input::Command { command, ticket } => {
                self.queue.push_back((Queued::Command(command), ticket));
            }
            Input::Reads(ticket) => self.reads.wait(ticket),
            Input::HandOver => self.hand_over(),
            // Of a state that is about to be left for another.
            Input::Damaged(_) if self.installs => {}
            Input::Damaged(why) => self.quarantine(why, Vec::new()),
            // Of a state that nobody is to have.
            Input::Durable(_) if self.is_quarantined() => {}
            Input::Durable(source) => {
                self.durable = self.durable.max(source.meta().applied);
                self.raft.offers().put(source);
            }
            Input::ChunkRead { to, of, chunk } => {
                let is_confirmed = self.raft.offers().is_confirmed(of.0);
                let message = SnapshotMessage::Chunk { of, chunk, is_confirmed };
                self.outgoing.push((to, PeerMessage::Snapshot(message)));
            }
            Input::Staged(done) => self.staged(done),
            Input::Report(report) => self.report(report),
            Input::Peer { from, message } => self.hear(from, message),
            Input::Join { server, nonce } => self.join(server, nonce),
            Input::Linked(peer) => {
                self.linked.insert(peer);
                // What it was sent before may be lost.
                if peer == self.led.0 {
                    self.proposals.send_afresh();
                }
                self.receiver.ask_now(self.ticks);
                self.say_again();
            }
            Input::Unlinked(peer) => {
                self.linked.remove(&peer);
                self.knows.remove(&peer);
                self.compiled.lost(peer);
                self.lost(peer);
            }
            Input::HungUp(peer) => self.lost(peer),
            Input::Compiled { wanted, is_compiled } => {
                if let Some(word) = self.compiled.look(wanted, is_compiled) {
                    self.outgoing.extend(self.linked.iter().map(|to| (*to, word.clone())));
                }
            }
        }
    }

    /// A server may be gone.
    fn lost(&mut self, peer: u64) {
        self.raft.unreachable(peer);
        if peer == self.raft.leader().0 && !self.leads() && !self.is_out() {
            // It is not waited for: the voters ask for votes one after the other.
            self.raft.forget_leader();
            self.campaigns = Some(self.ticks.wrapping_add(1 + self.raft.rank(peer)));
        }
    }

    /// Whether it has heard of a leader within an election timeout, or leads.
    pub fn hears_leader(&self) -> bool {
        self.raft.hears_leader()
    }

    /// How this server stands to its ensemble: as of the last tick, but that a leader who was heard of
    /// since then ends the silence at once.
    pub fn reach(&self) -> Reach {
        let hears_again = self.reach.silent_ms > 0 && !self.is_removed() && self.hears_leader();
        if hears_again { Reach::default() } else { self.reach }
    }

    /// Whether this server leads.
    pub fn leads(&self) -> bool {
        self.raft.is_leader()
    }

    /// The raft id of the leader, 0 if none is known, and the term.
    pub fn leader(&self) -> (u64, u64) {
        self.raft.leader()
    }

    fn decide(&mut self, command: Command) {
        self.queue.push_back((Queued::Command(command), None));
    }

    fn report(&mut self, report: Report) {
        if self.installs && !matches!(report, Report::LeftState) {
            return;
        }
        match report {
            Report::LeftState => self.installs = false,
            Report::Applied { index, own, time_ms, operations, took_us } => {
                self.applied = index;
                self.clocks.reached(time_ms);
                self.backlog.applied(index, operations, took_us / 1000);
                self.raft.applied(index);
                if let Some(own) = own {
                    self.proposals.applied(own);
                    self.moved = self.ticks;
                }
            }
            Report::Members(meta) => {
                let was_removed = self.is_removed();
                self.raft.mark(&meta);
                self.members = Arc::clone(&meta.members);
                if self.is_removed() && !was_removed {
                    tracing::warn!(
                        "this server was removed from the ensemble; it serves nobody, and can be stopped"
                    );
                }
            }
            Report::Digests { index, digests } => self.compare(index, digests),
            Report::Damaged(why) => self.quarantine(why, Vec::new()),
            Report::Waits(why) => self.wait_for_newer(&why),
            Report::Replaces(boot) => self.proposals.replace(boot),
            Report::Installed { meta, sessions } => {
                self.members = Arc::clone(&meta.members);
                self.applied = meta.applied;
                self.durable = self.durable.max(meta.applied);
                self.raft.applied(meta.applied);
                let number = meta.taken_from((self.config.server, self.config.boot));
                number.into_iter().for_each(|number| self.proposals.applied(number));
                self.moved = self.ticks;
                self.clocks.reached(meta.time_ms);
                // Their connections have ended, and who was heard from on them is known no longer.
                self.tell_heard();
                self.know_sessions(sessions);
                if self.decides() {
                    self.take_over();
                }
            }
            Report::Attached { session, generation, timeout_ms, outbox } => {
                let early = self.mutants.expire_early;
                let timeout_ms = if early { timeout_ms / 2 } else { timeout_ms };
                self.liveness.attached(session, generation, timeout_ms, outbox);
            }
            Report::Closed(session) => {
                self.liveness.closed(session);
                self.closing.remove(&session);
            }
            Report::HeldUp(is_held_up) => self.is_held_up = is_held_up,
            Report::Wants(wants) => {
                self.wants = wants;
                self.go_on_with_steps();
            }
            Report::Stepped => {
                self.steps = false;
                self.go_on_with_steps();
            }
            Report::Closing(session) => {
                self.liveness.closed(session);
                self.closing.insert(session);
                if self.decides() && !self.mutants.forget_to_go_on_closing {
                    self.decide(Command::ContinueClose { session });
                }
            }
        }
    }

    /// A tick of raft and of the sessions, every 50 ms. `now_ms` is the clock that is never set.
    ///
    /// # Errors
    /// [`NodeError::Log`]: stop the server.
    pub fn tick(&mut self, now_ms: i64) -> Result<(), NodeError> {
        self.raft.tick()?;
        self.ticks = self.ticks.wrapping_add(1);
        if self.campaigns == Some(self.ticks) {
            self.campaigns = None;
            if self.raft.leader().0 == 0 {
                self.raft.campaign();
            }
        }
        let mut silent_ms = self.cut_off.silent_ms(now_ms, self.raft.hears_leader());
        let mut read_only = self.config.read_only_after_ms.is_some_and(|ms| silent_ms > ms);
        if self.is_removed() {
            // It will never hear of one, and its state is no state of the ensemble.
            (silent_ms, read_only) = (i64::MAX / 3, false);
        }
        self.reach = Reach { silent_ms, read_only: read_only && !self.is_quarantined() };
        for outbox in self.liveness.cut_off(self.reach) {
            tracing::info!(silent_ms, "no leader is heard of: a client is let go, to move");
            outbox.kill();
        }
        self.go_on_with_steps();
        if self.decides() {
            self.tell_astray();
            let at_ms = if self.mutants.expire_never { i64::MIN } else { now_ms };
            for (session, generation) in self.liveness.expired(at_ms) {
                tracing::info!(session = format_args!("{session:#x}"), "a session expired");
                // If it was attached again, and only the report of that is still on its way, it lives.
                let generation = Some(generation);
                self.decide(Command::CloseSession { session, generation });
            }
        } else if self.ticks.is_multiple_of(HEARD_TICKS) {
            self.tell_heard();
        }
        // What a leader has proposed cannot be lost while it leads.
        let stalled = self.ticks.wrapping_sub(self.moved) >= STALLED_TICKS;
        if stalled && !self.leads() && !self.proposals.is_empty() {
            self.proposals.send_afresh();
            self.moved = self.ticks;
        }
        self.change_members();
        self.tick_health();
        self.outgoing.extend(self.receiver.tick(self.raft.committed(), self.ticks));
        self.trim()
    }

    /// Tells another server that leads whom this one has heard from since it last did.
    fn tell_heard(&mut self) {
        if self.led.0 == 0 || self.leads() {
            return;
        }
        let mut heard = self.liveness.take_heard();
        if self.mutants.forget_to_report {
            heard.clear();
        }
        self.outgoing.push((self.led.0, PeerMessage::Heard(heard)));
    }

    /// Forgets the log's beginning, when more than enough is kept: never what the store might lose, or
    /// what follows on what another server could be given, nor, up to a bound, what goes on from a snapshot that is on its way to another server.
    fn trim(&mut self) -> Result<(), NodeError> {
        if self.is_quarantined() {
            return Ok(());
        }
        let keep = self.config.log_keep_bytes;
        let mut index = match self.mutants.trim_past_durable {
            false => self.durable.min(self.applied).min(self.raft.offers().newest()),
            true => self.applied,
        };
        let log = self.raft.log();
        let (first, bytes) = (log.first_index(), log.bytes());
        index = index.min(log.before_last(keep));
        if bytes < keep.saturating_mul(LOG_HELD_MAX) {
            index = index.min(self.raft.offers().oldest().unwrap_or(u64::MAX));
        }
        if index > first { Ok(self.raft.trim(index)?) } else { Ok(()) }
    }

    /// How many sessions are alive.
    pub fn sessions(&self) -> usize {
        self.liveness.count()
    }

    /// Whether everything that was taken in is committed and applied.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.proposals.is_empty()
            && self.reads.is_empty()
            && self.applied == self.committed
    }

    /// Says whose clock is far off, and whose is right again.
    fn tell_astray(&mut self) {
        for Astray { server, ahead_ms } in self.clocks.astray() {
            let server = self.server(server);
            match ahead_ms {
                Some(ahead_ms) => tracing::warn!(
                    server,
                    ahead_s = ahead_ms / 1000,
                    "the clock of a server is far off; set it (time is what a majority's clocks show)"
                ),
                None => tracing::info!(server, "the clock of a server is right again"),
            }
        }
    }

    /// Sends what is in hand to the leader, or proposes it, syncs the log once for up to
    /// [`ROUND_BYTES_MAX`], and gives what is committed, as far as the Machine has room for it. `send`
    /// takes messages for other servers, by raft id: all that there are, before the disk is waited for.
    ///
    /// # Errors
    /// [`NodeError::Log`]: stop the server; nothing is retried on a file whose state is unknown.
    pub fn flush(
        &mut self,
        now: Now,
        send: &mut dyn FnMut(Vec<(u64, PeerMessage)>),
    ) -> Result<Work, NodeError> {
        self.clocks.look(now, self.config.raft_id, &self.raft.voters());
        let mut work = Work::default();
        loop {
            self.follow();
            self.number(&mut work.expect);
            let proposes = self.propose(now.steady_ms);
            self.ask();
            let (outgoing, wall_ms) = (&mut self.outgoing, now.wall_ms);
            let raft = &mut |messages: Vec<RaftMessage>| {
                let to_peer =
                    |message: RaftMessage| (message.to, PeerMessage::Raft { message, wall_ms });
                outgoing.extend(messages.into_iter().map(to_peer));
                if !outgoing.is_empty() {
                    send(std::mem::take(outgoing));
                }
            };
            // One that raft does not take is of no use: it has gone beyond it.
            let staged = self.staged.take();
            let marked = staged.as_ref().map(|(staged, generation)| Marked {
                generation: *generation,
                known: marked::Known::of(staged.meta()),
            });
            let flushed = self.raft.flush(marked.as_ref(), raft)?;
            if let Some(index) = flushed.installed {
                work.entries.clear();
                work.install = staged.map(|(staged, _)| staged);
                self.backlog.install(index);
                self.end_quarantine();
            }
            self.committed = self.raft.committed();
            self.give(flushed.entries, now.steady_ms, &mut work.entries)?;
            for (index, question) in flushed.read_indexes {
                work.reads.push((index, self.reads.answered(&question)));
            }
            if !proposes {
                work.snapshots.append(&mut self.jobs);
                self.heal(&mut work)?;
                self.installs |= work.install.is_some();
                return Ok(work);
            }
        }
    }

    /// Gives the Machine the next of what is committed, as far as it has room: mostly what has been
    /// committed just now. Otherwise it is read from the log, where it waits.
    fn give(
        &mut self,
        committed: Vec<(u64, u64, Bytes)>,
        now_ms: i64,
        entries: &mut Vec<(u64, u64, Bytes)>,
    ) -> Result<(), NodeError> {
        if self.is_out() {
            return Ok(());
        }
        let (given, most) = self.backlog.gives();
        let upto = self.committed.min(most);
        if upto <= given {
            return Ok(());
        }
        if committed.first().is_some_and(|(index, ..)| *index == given + 1) {
            entries.extend(committed.into_iter().take_while(|(index, ..)| *index <= upto));
        } else {
            let waiting = self.raft.log().entries(given + 1, upto + 1, GIVEN_BYTES_MAX)?;
            let entry = |entry: &Entry| (entry.index, entry.term, payload(entry).clone());
            entries.extend(waiting.iter().map(entry));
        }
        let last = entries.last().map_or(given, |(index, ..)| *index);
        self.backlog.give(last, now_ms);
        Ok(())
    }

    /// Takes notice of who leads.
    fn follow(&mut self) {
        let (led, now) = (self.led, self.raft.leader());
        if led == now {
            return;
        }
        let me = self.config.raft_id;
        if !self.raft.is_alone() {
            match now {
                (0, term) => tracing::info!(term, "no leader is known"),
                (leader, term) if leader == me => tracing::info!(term, "this server leads"),
                (leader, term) => tracing::info!(raft_id = leader, term, "another server leads"),
            }
        }
        self.led = now;
        self.moved = self.ticks;
        self.lines.clear();
        if led.0 == me && !self.mutants.keep_decisions {
            // What it had decided is for the next leader to decide.
            self.proposals.drop_decisions();
            self.queue.retain(|(_, ticket)| ticket.is_some());
        }
        self.proposals.send_afresh();
        self.reads.ask_again();
        if now.0 == me {
            self.clocks.forget_astray();
        }
        if self.decides() {
            self.take_over();
        }
    }

    /// Asks the leader on behalf of the reads in hand, once it can answer.
    fn ask(&mut self) {
        if self.raft.answers_reads()
            && let Some(question) = self.reads.question(self.ticks)
        {
            self.raft.read_index(question);
        }
    }
}
