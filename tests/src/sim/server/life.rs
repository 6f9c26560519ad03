//! One run of a server's process: the values of crate `replica`, and the queues between them.
//!
//! It does what crate `server` does with threads and sockets, one step at a time: every step is a
//! method, and whoever calls them decides the order. A connection's step follows the loop of
//! `server/src/client.rs` (`tasks.rs`), the Node's and the Machine's those of `server/src/threads.rs`.
//!
//! Invariants:
//! * A connection advances and drains only when it was woken, or had something to read or write, as
//!   its task does: a wake-up that is forgotten is a stall here.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::{Bytes, BytesMut};
use proto::Id;
use replica::log::{SimDisk, SimRng};
use replica::mutants::ConnectionMutants;
use replica::snapshots::SnapshotJob;
use replica::{
    Authenticator, BigReads, Connection, Input, Machine, Node, Now, Outbox, PeerMessage, Policy,
    Published, Quarantine, Read, Work,
};
use state::{Fault, Flush, Store};

use crate::sim::plugins::{Ailment, Runner};
use crate::sim::store::SimStore;
use crate::sim::wire::{DOWN_BYTES_MAX, Wire};

/// How often the Node ticks, in milliseconds.
pub(super) const TICK_MS: i64 = 50;
/// How often containers and TTL nodes are looked for.
pub(super) const REAP_MS: i64 = 1000;
/// How long an entry takes to apply at most that takes long.
const SLOW_ENTRY_MS: u64 = 200;
/// How often an entry is tried again that waits for a module.
const TRY_MS: i64 = 20;
/// How likely it is, in percent, at each look after the plugins, that a call in one of the next entries cannot be
/// made, and after how many at most.
const AILING: u64 = 3;
const AILING_CALLS: u64 = 20;
/// Bytes that may wait for a client before nothing more is read from it.
pub(super) const OUT_BYTES_MAX: usize = 4 << 10;
/// Requests of a connection in hand before nothing more is read from it.
pub(super) const OUTSTANDING_MAX: usize = 16;

/// One run of the process.
pub(super) struct Life {
    pub(super) node: Node<SimDisk>,
    pub(super) machine: Machine,
    pub(super) published: Arc<Published>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) policy: Arc<Policy>,
    pub(super) inbox: VecDeque<Input>,
    pub(super) work: VecDeque<Work>,
    /// The Machine's clock, and until when it is busy with the last entry.
    pub(super) clock: ApplyClock,
    /// Work on stores for snapshots on their way.
    pub(super) jobs: VecDeque<SnapshotJob>,
    pub(super) flush_due: bool,
    pub(super) big_reads: BigReads,
    pub(super) connections: BTreeMap<u64, Client>,
    pub(super) started_ms: i64,
    pub(super) next_tick_ms: i64,
    pub(super) next_reap_ms: i64,
    pub(super) next_flush_ms: i64,
    /// The term in which it leads, if it does.
    pub(super) leads: Option<u64>,
    /// For how many ticks it has known a leader.
    pub(super) led_ticks: u32,
    /// What is to be written to the store, and whether it was, but may not be durable.
    pub(super) flushes: VecDeque<(Arc<Flush>, bool)>,
    /// What looks after the plugins, if there are any.
    pub(super) runner: Option<Runner>,
    pub(super) ailment: Arc<Ailment>,
    /// When an entry is tried again that waits for a module.
    pub(super) next_try_ms: i64,
    /// Whether the Node knows that the state is of no use, and whether the door is shut for that.
    pub(super) is_quarantined: bool,
    pub(super) is_shut: bool,
}

/// What the Machine sees pass while it applies an entry; nothing passes within a step.
#[derive(Default)]
pub(super) struct ApplyClock {
    now_ms: Arc<AtomicI64>,
    ends_ms: i64,
    takes_ms: Arc<AtomicI64>,
}

impl ApplyClock {
    /// What the Machine is given, in microseconds: an entry begins with the first look and ends with the second.
    pub(super) fn reader(&self) -> impl FnMut() -> i64 + Send + 'static {
        let (now_ms, takes_ms) = (Arc::clone(&self.now_ms), Arc::clone(&self.takes_ms));
        move || 1000 * now_ms.fetch_add(takes_ms.load(Ordering::Relaxed), Ordering::Relaxed)
    }

    /// The next entry takes so long.
    fn begin(&mut self, now_ms: i64, takes_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
        self.takes_ms.store(takes_ms, Ordering::Relaxed);
        self.ends_ms = now_ms + takes_ms;
    }
}

/// One client's task.
pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) woken: Arc<AtomicBool>,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    pub(super) inputs: Vec<Input>,
    pub(super) outstanding: usize,
    pub(super) advance_due: bool,
    pub(super) drain_due: bool,
    /// A read that has taken its view.
    pub(super) reading: Option<Read>,
    /// How many writes of a session went out that only this server knows.
    pub(super) local_writes: usize,
    /// When the client last took a byte, or there was none to take.
    pub(super) stalled_since_ms: i64,
    pub(super) told: bool,
    /// Whether it was woken while no leader was heard of, and has not drained since.
    pub(super) woken_cut_off: bool,
}

/// What the server can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Take bytes from a connection.
    Receive(u64),
    /// Go through a connection's requests.
    Advance(u64),
    /// Run the read that a connection has begun.
    Read(u64),
    /// Give a big read its turn.
    BigRead,
    /// Give a connection's replies and events out.
    Drain(u64),
    /// Move bytes into the network.
    Send(u64),
    /// End with a client that takes no bytes.
    Stalled(u64),
    /// Let the Node take inputs.
    Take,
    /// Tick the Node's clock.
    Tick,
    /// Look for containers and TTL nodes.
    Reap,
    /// Propose, sync the log, give out what is committed.
    Flush,
    /// Apply and publish one entry.
    Apply,
    /// Try the entry again that waits for a module.
    TryAgain,
    /// Look after the plugins.
    Look,
    /// Begin to write to the store what was changed.
    BeginFlush,
    /// Write it.
    WriteFlush,
    /// Make it durable.
    SyncStore,
    /// Read a chunk of a snapshot, or stage one.
    Snapshot,
}

/// What a step did that somebody may want to know.
#[allow(missing_docs, reason = "the fields are named by what they are")]
pub enum Did {
    /// A connection has its session.
    Attached { conn: u64, session: i64, generation: u32 },
    /// The same; only this server knows the session.
    AttachedLocally { conn: u64, session: i64, generation: u32 },
    /// All servers are to know it, with the writes that come after so many.
    Upgraded { conn: u64, session: i64, generation: u32, local_writes: usize },
    /// A connection has its session, and may only read.
    Reads { conn: u64, session: i64 },
    /// It was said something, though the server knows a leader.
    ReadsOn { conn: u64 },
    /// A packet was taken from a connection.
    Heard { conn: u64 },
    /// A connection was told to end.
    HungUp { conn: u64, cut_off: bool },
    /// The Node ticked.
    Ticked,
    /// The Node was told by another server whom that has heard from: sessions and generations.
    Told(Vec<(i64, u32)>),
    /// It leads from now on, in this term; or in none any more.
    Leads(Option<u64>),
    /// A vote left, for another server or for itself.
    Voted { term: u64, voter: u64, candidate: u64 },
    /// Entries were given out as committed: index, term, payload.
    Committed(Vec<(u64, u64, Bytes)>),
    /// The Machine goes on from a snapshot.
    Installed,
    /// The Node knows that the state is of no use.
    Quarantined,
    /// Somebody is served all the same.
    Served { conn: u64 },
    /// Guards in the shadow were asked about so many writes.
    AskedShadows(u64),
    /// An entry waits for a module; or a call in the middle of it could not be made.
    Held { within: bool },
    /// An entry was published, or the state of a snapshot up to it.
    Applied(u64),
}

/// Why a step, or a start, ended the process.
pub enum End {
    /// The disk or the store failed, as it was told to; the process must be started again.
    Broken(String),
    /// That must not happen.
    Wrong(String),
}

/// What outlives the process, and the time: monotonic, and by the wall.
pub(super) struct Around<'k> {
    pub(super) now_ms: i64,
    pub(super) clock_ms: i64,
    pub(super) stores: &'k mut BTreeMap<u64, SimStore>,
    pub(super) next_session: &'k mut i64,
    pub(super) quarantine: &'k mut Option<Quarantine>,
    pub(super) flush_ms: i64,
    /// How likely an entry takes long to apply, in percent.
    pub(super) slow_entries: u64,
}

impl Life {
    /// Takes notice of whether the Node leads, and what it thinks of the state.
    fn take_leadership(&mut self, did: &mut Vec<Did>) {
        let is_quarantined = self.node.is_quarantined();
        if is_quarantined && !std::mem::replace(&mut self.is_quarantined, is_quarantined) {
            did.push(Did::Quarantined);
        }
        let leads = self.node.leads().then(|| self.node.leader().1);
        if leads != std::mem::replace(&mut self.leads, leads) {
            did.push(Did::Leads(leads));
        }
    }

    /// Has the Machine apply what can be applied by now.
    fn apply(&mut self, work: Work, did: &mut Vec<Did>) -> Result<(), End> {
        let installs = work.install.is_some();
        let (before, was_held_up) =
            (self.machine.state().meta().applied, self.machine.is_held_up());
        let failed = self.ailment.failed.load(Ordering::Relaxed);
        let reports = self.machine.apply(work).map_err(|fault| End::Broken(fault.to_string()))?;
        self.inbox.extend(reports.into_iter().map(Input::Report));
        self.take_flush(false)?;
        let applied = self.machine.state().meta().applied;
        if applied != before && !installs {
            did.push(Did::Applied(applied));
        }
        if self.machine.is_held_up() && !was_held_up {
            let within = self.ailment.failed.load(Ordering::Relaxed) != failed;
            did.push(Did::Held { within });
        }
        Ok(())
    }

    /// Asks guards that are in the shadow about what was written, where they are compiled.
    fn ask_the_shadows(&self, did: &mut Vec<Did>) {
        while let Some((before, shadowed)) = self.published.shadows().take() {
            let asked = shadowed.iter().take_while(|operation| before.shadow(operation).is_ok());
            did.push(Did::AskedShadows(asked.count() as u64));
        }
    }

    fn take_flush(&mut self, begin: bool) -> Result<(), End> {
        let flush = self.machine.take_flush(begin);
        let flush = self.ask(flush)?.flatten();
        self.flushes.extend(flush.map(|flush| (flush, false)));
        Ok(())
    }

    /// What the store answered: damage is for the Node.
    fn ask<T>(&mut self, answer: Result<T, Fault>) -> Result<Option<T>, End> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(fault @ Fault::Damaged { .. }) => {
                self.inbox.push_back(Input::Damaged(fault.to_string()));
                Ok(None)
            }
            Err(fault) => Err(End::Broken(fault.to_string())),
        }
    }

    /// A client came.
    pub(super) fn accept(&mut self, conn: u64, mutants: ConnectionMutants) {
        let woken = Arc::new(AtomicBool::new(false));
        let wake = Arc::clone(&woken);
        let outbox = Outbox::new(conn, Box::new(move || wake.store(true, Ordering::Relaxed)));
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let connection = Connection::new(
            Arc::clone(&self.published),
            outbox,
            Arc::clone(&self.authenticator),
            Arc::clone(&self.policy),
            ip,
            vec![Id::new("ip", ip.to_string())],
        );
        let client = Client {
            connection: connection.with_mutants(mutants),
            woken,
            input: BytesMut::new(),
            output: BytesMut::new(),
            inputs: Vec::new(),
            outstanding: 0,
            advance_due: false,
            drain_due: false,
            reading: None,
            local_writes: 0,
            stalled_since_ms: 0,
            told: false,
            woken_cut_off: false,
        };
        self.connections.insert(conn, client);
    }

    /// What could be done now. Threads that are paused do nothing.
    pub(super) fn steps(
        &mut self,
        now_ms: i64,
        wires: &BTreeMap<u64, Wire>,
        paused: &Paused,
        steps: &mut Vec<Step>,
    ) {
        if !paused.connections {
            for (conn, client) in &mut self.connections {
                let Some(wire) = wires.get(conn) else { continue };
                if client.woken.swap(false, Ordering::Relaxed) {
                    client.advance_due = true;
                }
                if client.has_room() && (!wire.up.is_empty() || wire.up_closed) {
                    steps.push(Step::Receive(*conn));
                }
                if client.reading.is_some() {
                    steps.push(Step::Read(*conn));
                } else if client.advance_due {
                    steps.push(Step::Advance(*conn));
                } else if client.drain_due {
                    steps.push(Step::Drain(*conn));
                }
                if client.output.is_empty() {
                    client.stalled_since_ms = now_ms;
                } else if now_ms > client.stalled_since_ms + client.patience_ms() {
                    steps.push(Step::Stalled(*conn));
                }
                if !client.output.is_empty() && wire.down.len() < DOWN_BYTES_MAX {
                    steps.push(Step::Send(*conn));
                }
            }
            if !self.big_reads.is_empty() {
                steps.push(Step::BigRead);
            }
        }
        if !paused.node {
            if !self.inbox.is_empty() {
                steps.push(Step::Take);
            }
            if now_ms >= self.next_tick_ms {
                steps.push(Step::Tick);
            }
            if now_ms >= self.next_reap_ms {
                steps.push(Step::Reap);
            }
            if self.flush_due {
                steps.push(Step::Flush);
            }
        }
        if !paused.machine && now_ms >= self.clock.ends_ms && !self.work.is_empty() {
            steps.push(Step::Apply);
        }
        if !paused.machine && self.machine.is_held_up() && now_ms >= self.next_try_ms {
            steps.push(Step::TryAgain);
        }
        if self.runner.as_ref().is_some_and(|runner| now_ms >= runner.next_look_ms()) {
            steps.push(Step::Look);
        }
        if !paused.sync {
            match self.flushes.front() {
                Some((_, false)) => steps.push(Step::WriteFlush),
                Some((_, true)) => steps.push(Step::SyncStore),
                None => {}
            }
            if now_ms >= self.next_flush_ms {
                steps.push(Step::BeginFlush);
            }
            if !self.jobs.is_empty() {
                steps.push(Step::Snapshot);
            }
        }
    }

    /// When the server next has something to do by its clocks.
    pub(super) fn next_timer_ms(&self) -> i64 {
        let look_ms = self.runner.as_ref().map_or(i64::MAX, Runner::next_look_ms);
        let try_ms = if self.machine.is_held_up() { self.next_try_ms } else { i64::MAX };
        let timers = self.next_tick_ms.min(self.next_reap_ms).min(self.next_flush_ms);
        timers.min(look_ms).min(try_ms)
    }

    /// Does one step.
    ///
    /// # Errors
    /// [`End`]: the process must end.
    pub(super) fn run(
        &mut self,
        step: Step,
        around: Around<'_>,
        wires: &mut BTreeMap<u64, Wire>,
        rng: &mut SimRng,
        did: &mut Vec<Did>,
        sent: &mut Vec<(u64, PeerMessage)>,
    ) -> Result<(), End> {
        let Around { now_ms, clock_ms, stores, next_session, quarantine, flush_ms, slow_entries } =
            around;
        self.take_leadership(did);
        match step {
            Step::Receive(conn) => {
                self.receive(conn, wires, rng, next_session, did);
            }
            Step::Advance(conn) => self.advance(conn, did),
            Step::Read(conn) => self.read(conn),
            Step::BigRead => {
                self.big_reads.turn();
            }
            Step::Stalled(conn) => self.end(conn, wires),
            Step::Drain(conn) => self.drain(conn, wires, did),
            Step::Send(conn) => self.send(conn, wires, rng, now_ms),
            Step::Take => {
                for _ in 0..1 + rng.below(4) {
                    let Some(input) = self.inbox.pop_front() else { break };
                    if let Input::Peer { message: PeerMessage::Heard(sessions), .. } = &input {
                        did.push(Did::Told(sessions.clone()));
                    }
                    self.node.step(input);
                }
                self.take_leadership(did);
                self.flush_due = true;
            }
            Step::Tick => {
                self.next_tick_ms = now_ms + TICK_MS;
                let damage = self.published.take_damage().map(Input::Damaged);
                damage.into_iter().for_each(|damage| self.node.step(damage));
                self.node
                    .tick(now_ms - self.started_ms)
                    .map_err(|error| End::Broken(error.to_string()))?;
                self.published.look(now_ms - self.started_ms, self.node.reach());
                self.flush_due = true;
                self.led_ticks = if self.node.hears_leader() { self.led_ticks + 1 } else { 0 };
                let is_cut_off = self.is_cut_off();
                for client in self.connections.values_mut() {
                    client.woken_cut_off |= is_cut_off && client.is_due();
                }
                did.push(Did::Ticked);
                self.take_leadership(did);
            }
            Step::Reap => {
                self.next_reap_ms = now_ms + REAP_MS;
                let view = self.published.view();
                let reaped = self.node.reap(&view, 20);
                self.ask(reaped)?;
                self.flush_due = true;
            }
            Step::Flush => {
                self.flush_due = false;
                let now = Now { steady_ms: now_ms - self.started_ms, wall_ms: clock_ms };
                let mut work = self
                    .node
                    .flush(now, &mut |messages| sent.extend(messages))
                    .map_err(|error| End::Broken(error.to_string()))?;
                did.extend(sent.iter().filter_map(|(_, message)| voted(message)));
                self.take_leadership(did);
                self.jobs.extend(work.snapshots.drain(..));
                if let Some(news) = &work.quarantine {
                    *quarantine = Some(news.clone());
                    self.published.shut_down(&news.why);
                    self.is_shut = true;
                }
                if work.is_empty() {
                    return Ok(());
                }
                did.push(Did::Committed(work.entries.clone()));
                self.work.push_back(work);
            }
            Step::Apply => {
                // One entry at a time, so that anything may happen between two of them.
                let Some(mut work) = self.work.pop_front() else { return Ok(()) };
                let installs = work.install.is_some();
                let at_once = if installs { 0 } else { 1 };
                let rest = work.entries.split_off(work.entries.len().min(at_once));
                let applies = installs || !work.entries.is_empty();
                let slow = applies && rng.chance(slow_entries);
                let takes_ms = if slow { rng.below(SLOW_ENTRY_MS) as i64 } else { 0 };
                self.clock.begin(now_ms, takes_ms);
                self.apply(work, did)?;
                if !rest.is_empty() {
                    self.work.push_front(Work { entries: rest, ..Work::default() });
                }
                if installs {
                    *quarantine = None;
                    (self.is_shut, self.is_quarantined) = (false, false);
                    did.push(Did::Installed);
                    did.push(Did::Applied(self.machine.state().meta().applied));
                }
            }
            Step::TryAgain => {
                self.next_try_ms = now_ms + TRY_MS;
                self.clock.begin(now_ms, 0);
                self.apply(Work::default(), did)?;
            }
            Step::Look => {
                let view = self.published.view();
                let runner = self.runner.as_mut().expect("it has something to do");
                let looked = runner.look(&view, now_ms, rng);
                let inputs = self.ask(looked)?.unwrap_or_default();
                self.inbox.extend(inputs);
                self.ask_the_shadows(did);
                if rng.chance(AILING) {
                    let calls = 1 + rng.below(AILING_CALLS);
                    self.ailment.fails_after.store(calls, Ordering::Relaxed);
                }
            }
            Step::BeginFlush => {
                self.next_flush_ms = now_ms + flush_ms;
                self.take_flush(true)?;
            }
            Step::WriteFlush => {
                let Some((flush, _)) = self.flushes.front() else { return Ok(()) };
                let written = flush.run();
                match self.ask(written)? {
                    Some(()) => self.flushes.front_mut().expect("it is there").1 = true,
                    None => drop(self.flushes.pop_front()),
                }
            }
            Step::SyncStore => {
                let Some((flush, _)) = self.flushes.pop_front() else { return Ok(()) };
                flush.sync().map_err(|fault| End::Broken(fault.to_string()))?;
                let source = flush.source();
                self.inbox.extend(source.map(|source| Input::Durable(Arc::new(source))));
            }
            Step::Snapshot => {
                let Some(job) = self.jobs.pop_front() else { return Ok(()) };
                let make = &mut |generation| {
                    let store = SimStore::default();
                    stores.insert(generation, store.clone());
                    Ok(Box::new(store) as Box<dyn Store>)
                };
                let done = job.run(make);
                let done = self.ask(done)?;
                self.inbox.extend(done);
            }
        }
        Ok(())
    }

    /// Whether a connection has nothing left to do, or to send.
    pub(super) fn has_said_all(&self, conn: u64) -> bool {
        self.connections.get(&conn).is_some_and(|client| {
            !client.is_due() && client.reading.is_none() && client.output.is_empty()
        })
    }

    /// How many commands wait: nothing does when all is quiet.
    pub(super) fn is_idle(&self) -> bool {
        self.inbox.is_empty()
            && self.work.is_empty()
            && !self.machine.is_held_up()
            && self.node.is_idle()
    }
}

/// The vote in a message, if there is one.
fn voted(message: &PeerMessage) -> Option<Did> {
    // As raft-rs numbers them.
    const REQUEST_VOTE: i32 = 5;
    const REQUEST_VOTE_RESPONSE: i32 = 6;
    let PeerMessage::Raft { message, .. } = message else { return None };
    let (term, voter) = (message.term, message.from);
    match message.kind {
        REQUEST_VOTE => Some(Did::Voted { term, voter, candidate: voter }),
        REQUEST_VOTE_RESPONSE if !message.reject => {
            Some(Did::Voted { term, voter, candidate: message.to })
        }
        _ => None,
    }
}

/// Which threads do nothing for a while.
#[derive(Debug, Clone, Copy, Default)]
pub struct Paused {
    /// The connections' tasks.
    pub connections: bool,
    /// The Node's thread.
    pub node: bool,
    /// The Machine's thread.
    pub machine: bool,
    /// The thread that makes the store durable.
    pub sync: bool,
}
