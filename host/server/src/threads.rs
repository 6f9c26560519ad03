//! The Node's thread, the Machine's thread, the one that writes to the store, the one on which
//! snapshots are read and staged, and the one on which big reads take turns.
//!
//! Between Node and Machine there is a queue of committed entries, as many as the Node gives at a
//! time: a long apply never keeps the Node from its ticks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use replica::log::{Log, RealDisk};
use replica::node::NodeError;
use replica::snapshots::SnapshotJob;
use replica::{
    BigReads, Input, Machine, Node, NodeConfig, Now, Published, Reach, Read, Report, Work,
};
use state::{Fault, Flush, Members, State};

use crate::mailbox::Mailbox;
use crate::peers::Peers;
use crate::plugins::{Directory, Runner};
use crate::stores::Stores;
use crate::watched::{Proposed, Watched};

/// How often raft and the sessions tick.
const TICK: Duration = Duration::from_millis(50);
/// How long changes are gathered before they are written to the store, unless there are too many. What
/// is not in the store is replayed from the log at the next start, faster than it came in.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether somebody waits for what is gathered, and after how long without
/// anything to apply it is written.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often an entry is tried again that waits for something of this server's own.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked whether an old state can be removed.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Every so many applied entries the Node is woken, so that it goes on when it waits for them.
const WAKE_ENTRIES: u64 = 16;
/// It is woken after one that took this long, in microseconds.
const WAKE_US: i64 = 10_000;
/// How much less of the processor big reads get than all else, of 19.
const BIG_READS_NICE: i32 = 10;
/// How long a server that stops waits for another one to lead.
const HAND_OVER_MAX: Duration = Duration::from_millis(500);
/// The exit code of a server that is broken: start it again, it replays its log.
pub(crate) const EXIT_BROKEN: i32 = 70;

/// The wall clock, in milliseconds since the epoch.
pub(crate) fn clock_ms() -> i64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// In whole milliseconds.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// How containers and TTL nodes are looked through.
pub(crate) struct Reaping {
    pub(crate) every: Duration,
    pub(crate) per_minute: u32,
}

/// A server's part in its ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    /// It is alone.
    Standalone,
    /// It knows no leader.
    Looking,
    /// It has known none for long, and serves those who are content with that.
    ReadOnly,
    /// It follows one.
    Follower,
    /// It follows one, and does not vote.
    Observer,
    /// It was removed from the ensemble.
    Removed,
    /// It leads.
    Leader,
}

impl Part {
    fn in_ensemble(node: &Node<RealDisk>) -> Self {
        match (node.leads(), node.leader().0) {
            _ if node.is_removed() => Self::Removed,
            _ if node.reach().read_only => Self::ReadOnly,
            (true, _) => Self::Leader,
            (false, 0) => Self::Looking,
            (false, _) if node.observes() => Self::Observer,
            (false, _) => Self::Follower,
        }
    }

    /// Whether a server serves clients at all.
    pub(crate) fn serves(part: &AtomicU8) -> bool {
        part.load(Ordering::Relaxed) != Self::Removed as u8
    }

    /// What it takes from its clients, as the word `isro` says it: everything, reads, or nothing.
    pub(crate) fn takes(part: &AtomicU8) -> &'static str {
        match Self::of(part) {
            "read-only" => "ro",
            "looking" | "removed" => "null",
            _ => "rw",
        }
    }

    /// What ZooKeeper calls it.
    pub(crate) fn of(part: &AtomicU8) -> &'static str {
        match part.load(Ordering::Relaxed) {
            part if part == Self::Standalone as u8 => "standalone",
            part if part == Self::Leader as u8 => "leader",
            part if part == Self::Follower as u8 => "follower",
            part if part == Self::Observer as u8 => "observer",
            part if part == Self::ReadOnly as u8 => "read-only",
            part if part == Self::Removed as u8 => "removed",
            _ => "looking",
        }
    }
}

/// A running server without its sockets.
pub(crate) struct Replica {
    /// Bounded by the limits on requests in flight.
    pub(crate) inputs: Arc<Mailbox<Input>>,
    /// Bounded by the connections: each waits for its own.
    pub(crate) big_reads: Arc<Mailbox<Read>>,
    pub(crate) published: Arc<Published>,
    /// Its [`Part`] at the moment.
    pub(crate) part: Arc<AtomicU8>,
    pub(crate) watched: Arc<Watched>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Logs what broke and ends the process; reopening replays the log.
fn broken(what: &str, why: &dyn std::fmt::Display) -> ! {
    tracing::error!(%why, "{what} failed; the server stops, start it again");
    std::process::exit(EXIT_BROKEN)
}

fn node_broken(error: &NodeError) -> ! {
    match error {
        NodeError::Log(_) | NodeError::Raft(_) | NodeError::NothingKnown => {
            broken("the log", error)
        }
        NodeError::State(_) => {
            tracing::error!(%error, "the server stops");
            std::process::exit(EXIT_BROKEN)
        }
    }
}

/// A thread without which there is no server: where it panics, nobody must wait for it, and be served what
/// gets older and older.
fn spawn(name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    // Reserved, not used: what calls plugins needs it (see the crate `plugin`).
    let thread = thread.stack_size(plugin::THREAD_STACK_BYTES);
    thread.spawn(move || {
        let _vital = Vital;
        body();
    })
}

/// Ends the process where a panic goes past it.
struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            broken("a thread of the server", &thread.name().unwrap_or("one without a name"));
        }
    }
}

/// What the store answered: damage is for the Node, which has another server heal it.
fn ask<T>(answer: Result<T, Fault>, inputs: &Mailbox<Input>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(fault @ Fault::Damaged { .. }) => {
            inputs.put([Input::Damaged(fault.to_string())]);
            None
        }
        Err(fault) => broken("the store", &fault),
    }
}

impl Replica {
    /// Starts the threads over an open log and state.
    pub(crate) fn start(
        mut log: Log<RealDisk>,
        state: State,
        config: NodeConfig,
        reaping: Reaping,
        inputs: Arc<Mailbox<Input>>,
        peers: Option<Peers>,
        stores: Arc<Stores>,
    ) -> anyhow::Result<Self> {
        let sessions = state.view().sessions()?;
        let me = (config.server, config.boot);
        let members = Arc::clone(&state.meta().members);
        let watched = Watched::new();
        log.around_syncs(Arc::clone(&watched).around_syncs());
        let node = match stores.quarantine() {
            None => Node::new(log, state.meta(), sessions, config)?,
            Some(quarantine) => Node::without_state(log, state.meta(), config, &quarantine.why)?,
        };
        let started = Instant::now();
        let machine = Machine::new(state, me)
            .with_clock(move || i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX));
        let published = Arc::clone(machine.published());
        if let Some(quarantine) = stores.quarantine() {
            published.shut_down(&quarantine.why);
        }
        let part = Arc::new(AtomicU8::new(match peers {
            None => Part::Standalone as u8,
            Some(_) => Part::Looking as u8,
        }));
        let peers = peers.unwrap_or_else(Peers::none);
        let source = Arc::new(machine.source()?);
        published.put_durable(Arc::clone(&source));
        inputs.put([Input::Durable(source)]);
        // Bounded by what the Node gives.
        let work = Arc::new(Mailbox::new(usize::MAX));
        // Bounded by the servers: each asks for one chunk.
        let snapshots = Arc::new(Mailbox::new(usize::MAX));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        {
            let started = Instant::now();
            let rounds = NodeRounds {
                next_tick: started,
                next_reap: started + reaping.every,
                started,
                inputs: Vec::new(),
                reach: node.reach(),
                proposed: Proposed::default(),
                node,
                inbox: Arc::clone(&inputs),
                work: Arc::clone(&work),
                snapshots: Arc::clone(&snapshots),
                stores: Arc::clone(&stores),
                reaping,
                published: Arc::clone(&published),
                peers,
                members,
                part: Arc::clone(&part),
                watched: Arc::clone(&watched),
            };
            let (inbox, stop) = (Arc::clone(&inputs), Arc::clone(&stop));
            let (work, snapshots) = (Arc::clone(&work), Arc::clone(&snapshots));
            let body = move || {
                run_node(rounds, &inbox, &stop);
                work.close();
                snapshots.close();
            };
            threads.push(spawn("node", Box::new(body))?);
        }
        let flushes = Arc::new(Mailbox::new(1));
        {
            let (inputs, flushes) = (Arc::clone(&inputs), Arc::clone(&flushes));
            let watched = Arc::clone(&watched);
            let body = move || {
                run_machine(machine, &work, &inputs, &flushes, &watched);
                flushes.close();
            };
            threads.push(spawn("machine", Box::new(body))?);
        }
        {
            let (inputs, published) = (Arc::clone(&inputs), Arc::clone(&published));
            let body = move || run_store(&flushes, &inputs, &published);
            threads.push(spawn("store", Box::new(body))?);
        }
        {
            let inputs = Arc::clone(&inputs);
            let body = move || run_snapshots(&stores, &snapshots, &inputs);
            threads.push(spawn("snapshots", Box::new(body))?);
        }
        let big_reads = Arc::new(Mailbox::new(usize::MAX));
        {
            let (stop, arriving) = (Arc::clone(&stop), Arc::clone(&big_reads));
            threads.push(spawn("big-reads", Box::new(move || run_big_reads(&arriving, &stop)))?);
        }
        Ok(Self { inputs, big_reads, published, part, watched, stop, threads })
    }

    /// Starts the thread that looks after the plugins; it ends when the others are told to stop.
    pub(crate) fn run_plugins(
        &self,
        server: u32,
        runtime: Arc<plugin::Runtime>,
        directory: Option<Directory>,
    ) -> anyhow::Result<JoinHandle<()>> {
        let part = Arc::clone(&self.part);
        let leads = move || {
            let part = part.load(Ordering::Relaxed);
            part == Part::Leader as u8 || part == Part::Standalone as u8
        };
        let runner = Runner {
            server,
            runtime,
            published: Arc::clone(&self.published),
            inputs: Arc::clone(&self.inputs),
            directory,
            leads: Box::new(leads),
            stop: Arc::clone(&self.stop),
        };
        let body = move || {
            if let Err(fault) = runner.run() {
                tracing::error!(%fault, "plugins are not looked after: none can be brought in here");
            }
        };
        let thread = std::thread::Builder::new().name("plugins".to_owned());
        Ok(thread.stack_size(plugin::THREAD_STACK_BYTES).spawn(body)?)
    }

    /// Lets another server lead, if this one does, so that nobody misses it when it stops. Waits until
    /// that is so, but not for long: there may be no other server.
    pub(crate) async fn hand_over(&self) {
        self.inputs.put([Input::HandOver]);
        let patience = Instant::now() + HAND_OVER_MAX;
        while self.part.load(Ordering::Relaxed) == Part::Leader as u8 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Applies what is committed, makes the store durable, and ends the threads.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread panicked");
            }
        }
    }
}

/// Has rounds of the Node done: by this thread, which sees to it that the clock is heard, and by those
/// that hear other servers, for which it would else have to be woken each time.
fn run_node(mut rounds: NodeRounds, inbox: &Mailbox<Input>, stop: &AtomicBool) {
    inbox.lend(Box::new(move || {
        let _vital = Vital;
        rounds.next()
    }));
    let mut wait = Duration::ZERO;
    while !stop.load(Ordering::SeqCst) {
        wait = inbox.work(wait).unwrap_or(TICK);
    }
    inbox.take_back();
    inbox.close();
}

/// The Node, and what a round of it takes.
struct NodeRounds {
    node: Node<RealDisk>,
    inbox: Arc<Mailbox<Input>>,
    work: Arc<Mailbox<Work>>,
    snapshots: Arc<Mailbox<SnapshotJob>>,
    stores: Arc<Stores>,
    reaping: Reaping,
    published: Arc<Published>,
    peers: Peers,
    /// The servers, as the links to them know them.
    members: Arc<Members>,
    part: Arc<AtomicU8>,
    watched: Arc<Watched>,
    started: Instant,
    next_tick: Instant,
    next_reap: Instant,
    /// Memory for what is taken out of the inbox.
    inputs: Vec<Input>,
    /// What it could reach after the last round.
    reach: Reach,
    proposed: Proposed,
}

impl NodeRounds {
    /// A round: what came is taken, and everything done that follows from it. Gives the time to the next
    /// tick.
    fn next(&mut self) -> Duration {
        self.inbox.take(&mut self.inputs, Duration::ZERO);
        self.inputs.drain(..).for_each(|input| self.node.step(input));
        let now = Instant::now();
        let now_ms = milliseconds(now - self.started);
        let ticks = now >= self.next_tick;
        if ticks {
            self.next_tick = now + TICK;
            let damage = self.published.take_damage().map(Input::Damaged);
            damage.into_iter().for_each(|damage| self.node.step(damage));
            self.node.tick(now_ms).unwrap_or_else(|error| node_broken(&error));
            self.watched.put(self.node.status());
        }
        let before = std::mem::replace(&mut self.reach, self.node.reach());
        if ticks || self.reach != before {
            self.published.look(now_ms, self.reach);
        }
        if now >= self.next_reap {
            self.next_reap = now + self.reaping.every;
            self.reap();
        }
        let peers = &self.peers;
        let began = Instant::now();
        let now = Now { steady_ms: milliseconds(began - self.started), wall_ms: clock_ms() };
        let mut todo = self
            .node
            .flush(now, &mut |messages| peers.send(messages))
            .unwrap_or_else(|error| node_broken(&error));
        let (leader, leads) = (self.node.leader().0, self.node.leads());
        let marks = self.node.last_and_committed();
        self.proposed.round(&self.watched, marks, (leader, leads), began);
        if let Some(quarantine) = &todo.quarantine {
            // At once: the Machine may have work in hand.
            self.published.shut_down(&quarantine.why);
            let written = self.stores.put_in_quarantine(quarantine);
            written.unwrap_or_else(|error| broken("the data directory", &error));
        }
        if !Arc::ptr_eq(&self.members, self.node.members()) {
            self.members = Arc::clone(self.node.members());
            let cluster = self.published.view().cluster_id;
            let updated = self.peers.update(&self.members, cluster);
            updated.unwrap_or_else(|error| broken("a link", &error));
        }
        if self.part.load(Ordering::Relaxed) != Part::Standalone as u8 {
            self.part.store(Part::in_ensemble(&self.node) as u8, Ordering::Relaxed);
        }
        if todo.install.is_some() {
            self.stores.named(self.node.generation());
        }
        if !todo.snapshots.is_empty() {
            self.snapshots.put(todo.snapshots.drain(..));
        }
        if !todo.is_empty() {
            self.work.put([todo]);
        }
        self.next_tick.saturating_duration_since(Instant::now())
    }

    fn reap(&mut self) {
        let per_second = f64::from(self.reaping.per_minute) / 60.0;
        let most = ((per_second * self.reaping.every.as_secs_f64()) as usize).max(1);
        let reaped = self.node.reap(&self.published.view(), most);
        ask(reaped, &self.inbox);
    }
}

fn run_machine(
    mut machine: Machine,
    todo: &Mailbox<Work>,
    inputs: &Mailbox<Input>,
    flushes: &Mailbox<Arc<Flush>>,
    watched: &Watched,
) {
    let mut works = Vec::new();
    let mut next_flush = Instant::now() + FLUSH_EVERY;
    loop {
        // Ends when the Node's thread has ended and all its work is done.
        let wait = next_flush.saturating_duration_since(Instant::now());
        let wait = wait.min(if machine.is_held_up() { TRY_EVERY } else { LOOK_EVERY });
        let open = todo.take(&mut works, wait);
        // Then it costs nobody anything, and a start has nothing to replay.
        let has_time = works.is_empty() && machine.is_written();
        if works.is_empty() && machine.is_held_up() {
            works.push(Work::default());
        }
        for work in works.drain(..) {
            let reports = machine.apply(work).unwrap_or_else(|fault| broken("the store", &fault));
            for report in reports {
                if let Report::Applied { took_us, .. } = report {
                    watched.apply.add(1, u64::try_from(took_us).unwrap_or_default());
                }
                if matches!(report, Report::Installed { .. })
                    && let Some(source) = ask(machine.source(), inputs)
                {
                    machine.published().put_durable(Arc::new(source));
                }
                match report {
                    Report::Applied { index, took_us, .. }
                        if index % WAKE_ENTRIES != 0 && took_us < WAKE_US =>
                    {
                        inputs.put_quietly(Input::Report(report));
                    }
                    _ => {
                        inputs.put([Input::Report(report)]);
                    }
                }
            }
            flush(&mut machine, false, flushes, inputs);
        }
        if has_time || Instant::now() >= next_flush || machine.published().take_awaited() {
            next_flush = Instant::now() + FLUSH_EVERY;
            flush(&mut machine, true, flushes, inputs);
        }
        if !open {
            break;
        }
    }
    machine.sync().unwrap_or_else(|fault| broken("the store", &fault));
}

/// Passes on what there is to write to the store; with `begin` whatever was changed.
fn flush(
    machine: &mut Machine,
    begin: bool,
    flushes: &Mailbox<Arc<Flush>>,
    inputs: &Mailbox<Input>,
) {
    if let Some(flush) = ask(machine.take_flush(begin), inputs).flatten() {
        flushes.put([flush]);
    }
}

fn run_store(flushes: &Mailbox<Arc<Flush>>, inputs: &Mailbox<Input>, published: &Published) {
    let mut taken = Vec::new();
    loop {
        let open = flushes.take(&mut taken, Duration::from_secs(3600));
        for flush in taken.drain(..) {
            let done = ask(flush.run().and_then(|()| flush.sync()), inputs);
            if let Some(source) = done.and_then(|()| flush.source()) {
                let source = Arc::new(source);
                published.put_durable(Arc::clone(&source));
                inputs.put_quietly(Input::Durable(source));
            }
        }
        if !open {
            return;
        }
    }
}

fn run_snapshots(stores: &Stores, jobs: &Mailbox<SnapshotJob>, inputs: &Mailbox<Input>) {
    let mut taken = Vec::new();
    loop {
        let open = jobs.take(&mut taken, TIDY_EVERY);
        stores.tidy();
        for job in taken.drain(..) {
            let done = job.run(&mut |generation| stores.make(generation));
            inputs.put(ask(done, inputs));
        }
        if !open {
            return;
        }
    }
}

fn run_big_reads(arriving: &Mailbox<Read>, stop: &AtomicBool) {
    // Linux gives each thread a nice value of its own: small reads and writes go first.
    let me = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(me), BIG_READS_NICE) {
        tracing::debug!(%error, "big reads run at normal priority");
    }
    let mut reads = BigReads::default();
    let (mut new, mut wait) = (Vec::new(), TICK);
    while !stop.load(Ordering::SeqCst) {
        arriving.take(&mut new, wait);
        new.drain(..).for_each(|read| reads.push(read));
        wait = match (reads.turn(), reads.is_empty()) {
            (true, _) => Duration::ZERO,
            (false, true) => TICK,
            // The answers in memory must be sent first.
            (false, false) => Duration::from_millis(5),
        };
    }
    arriving.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set in the process that panics.
    const PANICS: &str = "A_VITAL_THREAD_PANICS";

    #[test]
    fn where_a_vital_thread_panics_the_server_ends() {
        if std::env::var_os(PANICS).is_some() {
            let thread = spawn("node", Box::new(|| panic!("a bug")));
            let _ = thread.expect("a thread").join();
            std::process::exit(0);
        }
        let this = std::env::current_exe().expect("a program");
        let mut again = std::process::Command::new(this);
        again.args(["--exact", "threads::tests::where_a_vital_thread_panics_the_server_ends"]);
        let output = again.env(PANICS, "1").output().expect("it runs");
        assert_eq!(output.status.code(), Some(EXIT_BROKEN));
    }
}
