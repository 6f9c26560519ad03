//! What happens next.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use replica::log::SimRng;

use super::checkers::{self, Checker, Known};
use super::client::{Client, Move, World};
use super::counts::Counts;
use super::faults::{Fall, Faults};
use super::history::{Connections, Event};
use super::model::Model;
use super::mutants::Planted;
use super::server::{Did, End, Server, Step};
use super::wire::Wire;
use super::workload::Workload;

/// How long things go wrong, at least, in simulated milliseconds.
const TROUBLE_MS: i64 = 60_000;
/// How many requests are sent meanwhile, at least.
const REQUESTS_MIN: u64 = 1000;
/// How many faults there are meanwhile, at least.
const FAULTS_MIN: u64 = 5;
/// How long it may take, once nothing goes wrong, until all are content.
const HEALING_MS: i64 = 30_000;
/// How long nothing may move before all is taken to be quiet; longer than any timeout's third.
const QUIET_MS: i64 = 4000;
/// How many clients there are.
const CLIENTS: usize = 5;
/// No seed takes as many steps; more means that something turns in a circle.
const STEPS_MAX: u64 = 3_000_000;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Bugs.
    pub planted: Planted,
    /// Whether to keep what happened.
    pub trace: bool,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// When, in simulated milliseconds.
    pub at_ms: i64,
    /// Which claim does not hold.
    pub claim: String,
    /// What was seen instead.
    pub what: String,
}

/// Runs one seed to its end or to the first thing that is wrong. The events come with their times, if
/// they were asked for.
pub fn run(options: &Options) -> (Result<Counts, Failure>, Vec<(i64, Event)>) {
    let mut sim = Sim::new(options);
    let done = catch_unwind(AssertUnwindSafe(|| sim.run()));
    let wrong = match done {
        Ok(Ok(())) => {
            sim.counts.seconds = (sim.now_ms / 1000) as u64;
            return (Ok(sim.counts), sim.trace);
        }
        Ok(Err(wrong)) => wrong,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Wrong { claim: "nothing panics".to_owned(), what: text.unwrap_or_default() }
        }
    };
    let Wrong { claim, what } = wrong;
    let failure = Failure { seed: options.seed, at_ms: sim.now_ms, claim, what };
    (Err(failure), std::mem::take(&mut sim.trace))
}

struct Wrong {
    claim: String,
    what: String,
}

enum Next {
    Server(Step),
    Client(usize, Move),
}

struct Sim {
    rng: SimRng,
    server: Server,
    clients: Vec<Client>,
    wires: BTreeMap<u64, Wire>,
    connections: Connections,
    workload: Workload,
    model: Model,
    checkers: Vec<Box<dyn Checker>>,
    faults: Faults,
    counts: Counts,
    events: Vec<Event>,
    trace: Vec<(i64, Event)>,
    keep_trace: bool,
    now_ms: i64,
    next_second_ms: i64,
    start_at_ms: Option<i64>,
    next_conn: u64,
    /// The log's first entry at the last start.
    first_index: u64,
    /// How likely it is that time passes before the next step, in percent.
    haste: u64,
    trouble: bool,
    healed_ms: i64,
    moved_ms: i64,
}

impl Sim {
    fn new(options: &Options) -> Self {
        let mut rng = SimRng::new(options.seed);
        let server = Server::new(&mut rng, options.planted);
        let clients = (0..CLIENTS).map(|id| Client::new(id, &mut rng)).collect();
        Self {
            server,
            clients,
            wires: BTreeMap::new(),
            connections: Connections::default(),
            workload: Workload::default(),
            model: Model::default(),
            checkers: checkers::all(&options.planted),
            faults: Faults::new(&mut rng),
            counts: Counts::default(),
            events: Vec::new(),
            trace: Vec::new(),
            keep_trace: options.trace,
            now_ms: 0,
            next_second_ms: 1000,
            start_at_ms: Some(0),
            next_conn: 0,
            first_index: 2,
            haste: 5 + rng.below(30),
            trouble: true,
            healed_ms: 0,
            moved_ms: 0,
            rng,
        }
    }

    fn run(&mut self) -> Result<(), Wrong> {
        loop {
            self.counts.steps += 1;
            if self.counts.steps > STEPS_MAX {
                return Err(self.no_progress("the steps do not end"));
            }
            self.clock()?;
            if self.step()? {
                self.moved_ms = self.now_ms;
            }
            if self.trouble {
                let enough =
                    self.counts.requests >= REQUESTS_MIN && self.counts.faults >= FAULTS_MIN;
                if self.now_ms >= TROUBLE_MS && enough {
                    self.heal();
                }
            } else if self.now_ms - self.healed_ms > HEALING_MS {
                return Err(self.no_progress("30 s after the last fault"));
            } else if self.is_quiet() {
                self.happened(Event::Quiet)?;
                return self.last_look();
            }
        }
    }

    fn no_progress(&self, when: &str) -> Wrong {
        let clients: Vec<String> = self.clients.iter().map(Client::state).collect();
        let idle = self.server.is_idle();
        let what = format!("{when}: {}; the server is idle: {idle}", clients.join("; "));
        Wrong { claim: "after the last fault everybody gets an answer".to_owned(), what }
    }

    /// Nothing goes wrong any more; clients finish.
    fn heal(&mut self) {
        self.trouble = false;
        (self.healed_ms, self.moved_ms) = (self.now_ms, self.now_ms);
        self.faults.heal(self.now_ms, &self.server);
        self.clients.iter_mut().for_each(Client::calm);
        // Those who left without a word are found to be gone.
        let used: Vec<u64> = self.clients.iter().filter_map(Client::conn).collect();
        for (conn, wire) in &mut self.wires {
            wire.up_closed |= !used.contains(conn);
        }
    }

    /// Whether everybody has what he asked for, and nobody heard anything for a while but pings.
    fn is_quiet(&self) -> bool {
        self.clients.iter().all(Client::is_content)
            && self.server.is_idle()
            && self.now_ms - self.healed_ms > QUIET_MS
            && self.clients.iter().filter_map(Client::conn).all(|conn| {
                let wire = self.wires.get(&conn);
                self.server.has_said_all(conn)
                    && wire.is_some_and(|wire| wire.down.is_empty() && wire.up.is_empty())
            })
    }

    /// One more restart: everything is there again.
    fn last_look(&mut self) -> Result<(), Wrong> {
        self.recompute()?;
        let index = self.model.index();
        self.fall(Fall::Power)?;
        self.start()?;
        for _ in 0..10_000 {
            if self.server.is_idle()
                && self.server.state().is_some_and(|s| s.meta().applied > index)
            {
                return self.recompute();
            }
            self.now_ms += 5;
            self.clock()?;
            let mut steps = Vec::new();
            let paused = self.faults.paused();
            self.server.steps(self.now_ms, &self.wires, &paused, &mut steps);
            if let Some(step) = steps.first() {
                self.server_step(*step)?;
            }
        }
        Err(self.no_progress("after the last restart"))
    }

    fn recompute(&mut self) -> Result<(), Wrong> {
        let Some(state) = self.server.state() else { return Ok(()) };
        let (index, kept) = (state.meta().applied, state.meta().digest);
        let fresh = state.recomputed_digest();
        let fresh = fresh.map_err(|fault| Wrong {
            claim: "the store works".to_owned(),
            what: fault.to_string(),
        })?;
        self.happened(Event::Recomputed { index, kept, fresh })
    }

    /// What is due by the clock.
    fn clock(&mut self) -> Result<(), Wrong> {
        if self.start_at_ms.is_some_and(|at_ms| self.now_ms >= at_ms) {
            self.start()?;
        }
        let Self { faults, server, rng, events, counts, .. } = self;
        let fall = faults.run(self.now_ms, server, rng, events, counts);
        self.publish()?;
        if let Some(fall) = fall {
            self.fall(fall)?;
        }
        if self.now_ms >= self.next_second_ms {
            self.next_second_ms = self.now_ms + 1000;
            let well_since_ms = self.faults.well_since_ms(&self.server);
            self.happened(Event::Second { well_since_ms })?;
        }
        Ok(())
    }

    /// Lets one thing happen, or time pass; whether anything but a timer happened.
    fn step(&mut self) -> Result<bool, Wrong> {
        let mut steps = Vec::new();
        let paused = self.faults.paused();
        self.server.steps(self.now_ms, &self.wires, &paused, &mut steps);
        let mut next: Vec<Next> = steps.into_iter().map(Next::Server).collect();
        for (at, client) in self.clients.iter().enumerate() {
            let moves = client.moves(self.now_ms, &self.wires, self.trouble);
            next.extend(moves.into_iter().map(|what| Next::Client(at, what)));
        }
        if next.is_empty() {
            self.now_ms = self.next_timer_ms().max(self.now_ms + 1);
            return Ok(false);
        }
        if self.rng.chance(self.haste) {
            self.now_ms += 1 + self.rng.below(8) as i64;
            return Ok(false);
        }
        match next.swap_remove(self.rng.below(next.len() as u64) as usize) {
            Next::Server(step) => self.server_step(step)?,
            Next::Client(at, what) => self.client_step(at, what)?,
        }
        Ok(true)
    }

    fn next_timer_ms(&self) -> i64 {
        let clients = self.clients.iter().map(|client| client.next_timer_ms(self.trouble));
        let clients = clients.filter(|at_ms| *at_ms > self.now_ms).min().unwrap_or(i64::MAX);
        let server = self.server.next_timer_ms().filter(|at_ms| *at_ms > self.now_ms);
        let start = self.start_at_ms.unwrap_or(i64::MAX);
        let faults = self.faults.next_timer_ms();
        let faults = if faults > self.now_ms { faults } else { i64::MAX };
        // Never far: a client that does not read is looked at again.
        let soon = self.now_ms + 50;
        clients.min(server.unwrap_or(i64::MAX)).min(start).min(faults).min(soon)
    }

    fn client_step(&mut self, at: usize, what: Move) -> Result<(), Wrong> {
        let before = self.next_conn;
        let mut world = World {
            now_ms: self.now_ms,
            wires: &mut self.wires,
            connections: &mut self.connections,
            rng: &mut self.rng,
            workload: &mut self.workload,
            events: &mut self.events,
            counts: &mut self.counts,
            trouble: self.trouble,
            busy: self.trouble,
            server_up: self.server.is_up(),
            next_conn: &mut self.next_conn,
        };
        self.clients[at].run(what, &mut world);
        for conn in before + 1..=self.next_conn {
            self.server.accept(conn);
        }
        self.publish()
    }

    fn server_step(&mut self, step: Step) -> Result<(), Wrong> {
        let mut did = Vec::new();
        let clocks = (self.now_ms, self.now_ms + self.faults.wall_ms);
        let Self { server, wires, rng, .. } = self;
        let ended = server.run(step, clocks, wires, rng, &mut did);
        for did in did {
            self.did(did)?;
        }
        match ended {
            Ok(()) => Ok(()),
            Err(End::Wrong(what)) => Err(Wrong { claim: "the server works".to_owned(), what }),
            Err(End::Broken(_)) => {
                // Without a word it may be the power that went.
                let power = self.rng.chance(50) || self.faults.power_is_going();
                self.counts.power_within += u64::from(power);
                self.fall(if power { Fall::Power } else { Fall::Kill })
            }
        }
    }

    fn did(&mut self, did: Did) -> Result<(), Wrong> {
        match did {
            Did::Attached { conn, session, generation } => {
                let moved = self.connections.attached.insert((session, generation), conn);
                debug_assert!(moved.is_none(), "a generation has one connection");
                self.counts.moves += u64::from(generation > 1);
                let connection = self.connections.get_mut(conn);
                (connection.session, connection.generation) = (session, Some(generation));
                self.happened(Event::Attached { conn, session, generation })
            }
            Did::Heard { conn } => self.happened(Event::Heard { conn }),
            Did::Ticked => self.happened(Event::Ticked),
            Did::Committed(entries) => {
                for (index, term, payload) in entries {
                    if index == self.model.index() + 1 {
                        let applied = self.model.apply(index, term, &payload);
                        applied.map_err(|what| Wrong {
                            claim: "the log holds what may be in it".to_owned(),
                            what,
                        })?;
                    }
                    self.happened(Event::Committed { index, term, payload })?;
                }
                Ok(())
            }
            Did::Applied(index) => {
                let Some(state) = self.server.state() else { return Ok(()) };
                let (meta, view) = (state.meta(), state.view());
                let (digest, history) = (meta.digest, meta.history);
                self.happened(Event::Applied { index, digest, history, view })
            }
        }
    }

    /// The process ends, and its connections with it.
    fn fall(&mut self, fall: Fall) -> Result<(), Wrong> {
        self.faults.ended();
        let how = match fall {
            Fall::Power => {
                self.counts.power += 1;
                self.server.crash(true, &mut self.rng);
                "power lost"
            }
            Fall::Kill => {
                self.counts.kills += 1;
                self.server.crash(false, &mut self.rng);
                "killed"
            }
            Fall::Stop => {
                self.counts.stops += 1;
                match self.server.stop() {
                    Ok(()) => "stopped",
                    Err(_) => {
                        self.server.crash(false, &mut self.rng);
                        "broken while it stopped"
                    }
                }
            }
        };
        for wire in self.wires.values_mut() {
            // What was on its way may arrive, in part or not at all.
            let bytes = self.rng.below(wire.down.len() as u64 + 1) as usize;
            wire.down.truncate(bytes);
            wire.up.clear();
            wire.down_closed = true;
        }
        self.start_at_ms = Some(self.now_ms + 20 + self.rng.below(1200) as i64);
        self.happened(Event::Crashed { how })
    }

    fn start(&mut self) -> Result<(), Wrong> {
        self.start_at_ms = None;
        let started = self.server.start(self.now_ms, &mut self.rng).map_err(|end| Wrong {
            claim: "a server starts again after any crash".to_owned(),
            what: match end {
                End::Wrong(what) | End::Broken(what) => what,
            },
        })?;
        self.counts.trims += u64::from(started.first > self.first_index);
        self.first_index = started.first;
        self.counts.torn += u64::from(started.torn);
        self.counts.cuts_at_start += u64::from(started.cuts);
        self.counts.flips_refused += u64::from(started.flips.0);
        self.counts.flips_harmless += u64::from(started.flips.1);
        self.faults.well_since_ms = self.now_ms;
        let (last, applied, torn) = (started.last, started.applied, started.torn);
        self.happened(Event::Restarted { last, applied, torn })?;
        self.recompute()
    }

    /// Shows the events that others have left.
    fn publish(&mut self) -> Result<(), Wrong> {
        for event in std::mem::take(&mut self.events) {
            self.happened(event)?;
        }
        Ok(())
    }

    fn happened(&mut self, event: Event) -> Result<(), Wrong> {
        if self.keep_trace {
            self.trace.push((self.now_ms, event.clone()));
        }
        let known =
            Known { now_ms: self.now_ms, model: &self.model, connections: &self.connections };
        for checker in &mut self.checkers {
            checker
                .observe(&event, &known, &mut self.counts)
                .map_err(|what| Wrong { claim: checker.name().to_owned(), what })?;
        }
        self.counts.multis_failed = self.model.multis_failed;
        self.counts.reaped = self.model.reaped;
        Ok(())
    }
}
