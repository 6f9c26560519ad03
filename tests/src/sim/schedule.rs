//! What happens next.

mod lives;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use replica::Input;
use replica::log::SimRng;
use state::command::PluginCommand;
use state::{Batch, Command, State};

use super::checkers::{self, Checker, Known};
use super::client::{Client, Move, World};
use super::counts::Counts;
use super::ensemble::{Ensemble, Turn};
use super::faults::{Fall, Faults};
use super::history::{Connections, Event};
use super::model::{LOCAL, Model};
use super::mutants::Planted;
use super::plugins::Operator;
use super::reference::Reference;
use super::server::{Did, End, Step};
use super::shrink::Without;
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
pub(super) const CLIENTS: usize = 5;
/// No seed takes as many steps; more means that something turns in a circle.
const STEPS_MAX: u64 = 3_000_000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Bugs.
    pub planted: Planted,
    /// Whether to keep what happened.
    pub trace: bool,
    /// What is left out.
    pub without: Without,
}

impl Options {
    /// The whole of a seed, without bugs.
    pub fn of(seed: u64) -> Self {
        Self { seed, planted: Planted::default(), trace: false, without: Without::default() }
    }
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// When, in simulated milliseconds.
    pub at_ms: i64,
    /// How many faults there had been.
    pub faults: u64,
    /// Which claim does not hold.
    pub claim: String,
    /// What was seen instead.
    pub what: String,
}

/// Runs one seed to its end or to the first thing that is wrong. The events come with their times, if
/// they were asked for.
pub fn run(options: &Options) -> (Result<Counts, Failure>, Vec<(i64, Event)>) {
    // Whoever calls plugins needs such a stack; it is reserved, not touched.
    let thread = std::thread::Builder::new().stack_size(plugin::THREAD_STACK_BYTES);
    std::thread::scope(|scope| {
        let run = thread.spawn_scoped(scope, || run_here(options));
        run.expect("there is room for a stack").join().expect("panics are caught")
    })
}

fn run_here(options: &Options) -> (Result<Counts, Failure>, Vec<(i64, Event)>) {
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
    let (seed, at_ms, faults) = (options.seed, sim.now_ms, sim.counts.faults);
    let failure = Failure { seed, at_ms, faults, claim, what };
    (Err(failure), std::mem::take(&mut sim.trace))
}

struct Wrong {
    claim: String,
    what: String,
}

/// Committed entries: index, term, payload.
type Entries = Vec<(u64, u64, bytes::Bytes)>;

enum Next {
    Turn(Turn),
    Client(usize, Move),
}

struct Sim {
    rng: SimRng,
    ensemble: Ensemble,
    clients: Vec<Client>,
    wires: BTreeMap<u64, Wire>,
    connections: Connections,
    workload: Workload,
    model: Model,
    reference: Reference,
    /// Connections on which wrong things may be said.
    tainted: BTreeSet<u64>,
    checkers: Vec<Box<dyn Checker>>,
    faults: Faults,
    operator: Operator,
    counts: Counts,
    events: Vec<Event>,
    trace: Vec<(i64, Event)>,
    keep_trace: bool,
    now_ms: i64,
    next_second_ms: i64,
    next_conn: u64,
    /// Each log's first entry at the last start.
    first_index: BTreeMap<u64, u64>,
    /// Where each session was attached last.
    attached: BTreeMap<i64, u64>,
    /// How likely it is that time passes before the next step, in percent.
    haste: u64,
    trouble: bool,
    healed_ms: i64,
    /// Whether clients get into no trouble of their own.
    calm_clients: bool,
}

/// How many servers a seed has.
fn size(rng: &mut SimRng) -> u64 {
    match rng.below(10) {
        0 | 1 => 1,
        2..=8 => 3,
        _ => 5,
    }
}

/// Whether operators bring in plugins.
fn has_plugins(options: &Options) -> bool {
    options.seed % 2 == 1 && !options.without.plugins
}

impl Sim {
    fn new(options: &Options) -> Self {
        let mut rng = SimRng::new(options.seed);
        let size = size(&mut rng);
        let without = &options.without;
        let plugins = has_plugins(options);
        let mut ensemble = Ensemble::new(size, &mut rng, options.planted, plugins);
        if without.rough {
            ensemble.network.smooth(0);
        }
        let clients = (0..CLIENTS).map(|id| Client::new(id, &mut rng));
        let clients = clients.filter(|client| !without.clients.contains(&(client.id as u64)));
        let clients = clients.collect();
        let ids = ensemble.ids();
        let counts = Counts {
            alone: u64::from(size == 1),
            threes: u64::from(size == 3),
            fives: u64::from(size == 5),
            plugged: u64::from(plugins),
            ..Counts::default()
        };
        Self {
            ensemble,
            clients,
            wires: BTreeMap::new(),
            connections: Connections::default(),
            workload: Workload::new(plugins),
            model: Model::default(),
            reference: Reference::new(&options.planted, &ids),
            tainted: BTreeSet::new(),
            checkers: checkers::all(&ids),
            faults: Faults::new(&ids, &mut rng, without.faults.clone(), options.planted),
            operator: Operator::new(plugins),
            counts,
            events: Vec::new(),
            trace: Vec::new(),
            keep_trace: options.trace,
            now_ms: 0,
            next_second_ms: 1000,
            next_conn: 0,
            first_index: BTreeMap::new(),
            attached: BTreeMap::new(),
            // The more servers, the more steps a millisecond has.
            haste: 2 + rng.below(30 / size),
            trouble: true,
            healed_ms: 0,
            calm_clients: options.without.trouble,
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
            self.step()?;
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
        let clients = self.clients.iter().map(Client::state);
        let index = self.model.index();
        let servers = self.ensemble.servers.iter().map(|(id, server)| {
            let applied = server.state().map(|state| state.meta().applied);
            let (idle, leader) = (server.is_idle(), server.leader());
            format!("server {id}: applied {applied:?} of {index}, idle {idle}, led by {leader:?}")
        });
        let wrong = (!self.ensemble.corrupted.is_empty())
            .then(|| format!("wrong states: {:?}", self.ensemble.corrupted));
        let all: Vec<String> = clients.chain(servers).chain(wrong).collect();
        let what = format!("{when}: {}", all.join("; "));
        Wrong { claim: "after the last fault everybody gets an answer".to_owned(), what }
    }

    /// Nothing goes wrong any more; clients finish.
    fn heal(&mut self) {
        self.trouble = false;
        self.healed_ms = self.now_ms;
        self.faults.heal(self.now_ms, &mut self.ensemble);
        self.clients.iter_mut().for_each(Client::calm);
        // Those who left without a word are found to be gone.
        let used: Vec<u64> = self.clients.iter().filter_map(Client::conn).collect();
        for (conn, wire) in &mut self.wires {
            wire.up_closed |= !used.contains(conn);
        }
    }

    /// Whether a client asks for something new. One goes on almost until all is quiet: of what it does
    /// the others must hear though they have nothing to say.
    fn is_busy(&self, client: &Client) -> bool {
        let last_ms = self.healed_ms + QUIET_MS - 100;
        self.trouble || client.id == 0 && self.now_ms < last_ms
    }

    /// Whether everybody has what he asked for, and nobody heard anything for a while but pings.
    fn is_quiet(&self) -> bool {
        self.now_ms - self.healed_ms > QUIET_MS
            && self.clients.iter().all(Client::is_content)
            && self.ensemble.is_at_rest(self.model.index())
            && self.clients.iter().filter_map(Client::conn).all(|conn| {
                let wire = self.wires.get(&conn);
                wire.is_some_and(|wire| {
                    let server = self.ensemble.servers.get(&wire.server);
                    server.is_some_and(|server| server.has_said_all(conn))
                        && wire.down.is_empty()
                        && wire.up.is_empty()
                })
            })
    }

    /// One more restart of all: everything is there again.
    fn last_look(&mut self) -> Result<(), Wrong> {
        let ids = self.ensemble.ids();
        ids.iter().try_for_each(|id| self.recompute(*id))?;
        let index = self.model.index();
        for id in &ids {
            self.fall(*id, Fall::Power)?;
        }
        let until_ms = self.now_ms + HEALING_MS;
        while self.now_ms < until_ms {
            self.clock()?;
            // A new leader begins with an entry of its own.
            let last = self.model.index();
            if last > index && self.ensemble.is_at_rest(last) {
                self.happened(Event::AllBack)?;
                return ids.iter().try_for_each(|id| self.recompute(*id));
            }
            self.step_of(false)?;
        }
        Err(self.no_progress("after the last restart"))
    }

    fn recompute(&mut self, server: u64) -> Result<(), Wrong> {
        let Some(state) = self.ensemble.server(server).state() else { return Ok(()) };
        let (index, kept) = (state.meta().applied, state.meta().digest);
        let fresh = state.recomputed_digest();
        let fresh = fresh.map_err(|fault| Wrong {
            claim: "the store works".to_owned(),
            what: fault.to_string(),
        })?;
        self.happened(Event::Recomputed { server, index, kept, fresh })
    }

    /// What is due by the clock.
    fn clock(&mut self) -> Result<(), Wrong> {
        let now_ms = self.now_ms;
        let back = self.ensemble.back_ms.iter().filter(|(_, at_ms)| now_ms >= **at_ms);
        let back: Vec<u64> = back.map(|(id, _)| *id).collect();
        back.into_iter().try_for_each(|id| self.start(id))?;
        let Self { faults, ensemble, rng, events, counts, .. } = self;
        let falls = faults.run(now_ms, ensemble, rng, events, counts);
        self.publish()?;
        falls.into_iter().try_for_each(|(id, fall)| self.fall(id, fall))?;
        if self.trouble && now_ms >= self.operator.next_ms {
            self.operate()?;
        }
        if now_ms >= self.next_second_ms {
            self.next_second_ms = now_ms + 1000;
            if !self.trouble {
                self.ensemble.take_all_back();
            }
            let well_since_ms = self.ensemble.well_since_ms(&self.faults, now_ms);
            self.happened(Event::Second { well_since_ms })?;
        }
        Ok(())
    }

    /// An operator goes to a server, and asks for something of plugins there.
    fn operate(&mut self) -> Result<(), Wrong> {
        let ids = self.ensemble.ids();
        let id = ids[self.rng.below(ids.len() as u64) as usize];
        let Self { operator, ensemble, rng, now_ms, .. } = self;
        operator.next_ms = *now_ms + 100;
        let server = ensemble.server(id);
        let Some(view) = server.state().map(State::view) else { return Ok(()) };
        if view.cluster_id == 0 || server.is_quarantined() {
            return Ok(());
        }
        for command in operator.act(&view, *now_ms, rng) {
            let asked = match &command {
                PluginCommand::Upload { offset, .. } => format!("an upload at {offset}"),
                other => format!("{other:?}"),
            };
            server.tell(Input::Command { command: Command::Plugin(command), ticket: None });
            self.events.push(Event::Operates { server: id, asked });
        }
        self.publish()
    }

    /// Lets one thing happen, or time pass.
    fn step(&mut self) -> Result<(), Wrong> {
        self.step_of(true)
    }

    /// The same, with clients or without.
    fn step_of(&mut self, clients: bool) -> Result<(), Wrong> {
        let mut turns = Vec::new();
        self.ensemble.turns(self.now_ms, &self.wires, &self.faults, &mut turns);
        let mut next: Vec<Next> = turns.into_iter().map(Next::Turn).collect();
        for (at, client) in self.clients.iter().enumerate().filter(|_| clients) {
            let moves = client.moves(self.now_ms, &self.wires, self.is_busy(client));
            next.extend(moves.into_iter().map(|what| Next::Client(at, what)));
        }
        if next.is_empty() {
            self.now_ms = self.next_timer_ms(clients).max(self.now_ms + 1);
            return Ok(());
        }
        if self.rng.chance(self.haste) {
            self.now_ms += 1 + self.rng.below(8) as i64;
            return Ok(());
        }
        match next.swap_remove(self.rng.below(next.len() as u64) as usize) {
            Next::Turn(Turn::Server(id, step)) => self.server_step(id, step),
            Next::Turn(Turn::Network(delivery)) => {
                self.ensemble.deliver(delivery, self.now_ms);
                Ok(())
            }
            Next::Client(at, what) => self.client_step(at, what),
        }
    }

    fn next_timer_ms(&self, clients: bool) -> i64 {
        let all = self.clients.iter().filter(|_| clients);
        let all = all.map(|client| client.next_timer_ms(self.is_busy(client)));
        let clients = all.filter(|at_ms| *at_ms > self.now_ms).min().unwrap_or(i64::MAX);
        let servers = self.ensemble.next_timer_ms(self.now_ms);
        let faults = self.faults.next_timer_ms();
        let faults = if faults > self.now_ms { faults } else { i64::MAX };
        let faults = if self.trouble { faults.min(self.operator.next_ms) } else { faults };
        // Never far: a client that does not read is looked at again.
        let soon = self.now_ms + 50;
        clients.min(servers).min(faults).min(soon)
    }

    fn client_step(&mut self, at: usize, what: Move) -> Result<(), Wrong> {
        let (before, busy) = (self.next_conn, self.is_busy(&self.clients[at]));
        let servers: Vec<(u64, bool)> =
            self.ensemble.servers.iter().map(|(id, server)| (*id, server.is_up())).collect();
        let mut world = World {
            now_ms: self.now_ms,
            wires: &mut self.wires,
            connections: &mut self.connections,
            rng: &mut self.rng,
            workload: &mut self.workload,
            events: &mut self.events,
            counts: &mut self.counts,
            trouble: self.trouble && !self.calm_clients,
            busy,
            servers: &servers,
            next_conn: &mut self.next_conn,
        };
        self.clients[at].run(what, &mut world);
        for conn in before + 1..=self.next_conn {
            let server = self.connections.get(conn).server;
            if self.ensemble.corrupted.contains(&server) {
                self.tainted.insert(conn);
            }
            self.ensemble.server(server).accept(conn);
        }
        self.publish()
    }

    fn server_step(&mut self, id: u64, step: Step) -> Result<(), Wrong> {
        let mut did = Vec::new();
        let clocks = (self.now_ms, self.faults.clock_ms(id, self.now_ms));
        let Self { ensemble, wires, rng, counts, .. } = self;
        let ended = ensemble.step((id, step), clocks, wires, rng, counts, &mut did);
        for did in did {
            self.did(id, did)?;
        }
        match ended {
            Ok(()) => Ok(()),
            Err(End::Wrong(what)) => Err(Wrong { claim: "the server works".to_owned(), what }),
            Err(End::Broken(_)) => {
                // Without a word it may be the power that went.
                let power = self.rng.chance(50) || self.faults.power_is_going(id);
                self.counts.power_within += u64::from(power);
                self.fall(id, if power { Fall::Power } else { Fall::Kill })
            }
        }
    }

    fn did(&mut self, server: u64, did: Did) -> Result<(), Wrong> {
        match did {
            Did::Attached { conn, session, generation } => {
                let moved = self.connections.attached.insert((session, generation), conn);
                debug_assert!(moved.is_none(), "a generation has one connection");
                self.counts.moves += u64::from(generation > 1);
                let before = self.attached.insert(session, server);
                self.counts.across += u64::from(before.is_some_and(|before| before != server));
                let connection = self.connections.get_mut(conn);
                (connection.session, connection.generation) = (session, Some(generation));
                self.happened(Event::Attached { conn, session, generation })
            }
            Did::AttachedLocally { conn, session, generation } => {
                let local = generation | LOCAL;
                let moved = self.connections.attached.insert((session, local), conn);
                debug_assert!(moved.is_none(), "an attach has one connection");
                self.counts.locals += 1;
                self.counts.locals_again += u64::from(generation > 1);
                let connection = self.connections.get_mut(conn);
                (connection.session, connection.local) = (session, Some(local));
                connection.local_writes = usize::MAX;
                self.happened(Event::AttachedLocally { conn, session })
            }
            Did::Upgraded { conn, session, generation, local_writes } => {
                self.counts.upgrades += 1;
                self.connections.attached.insert((session, generation), conn);
                let connection = self.connections.get_mut(conn);
                (connection.generation, connection.local_writes) = (Some(generation), local_writes);
                self.happened(Event::Upgraded { conn, session })
            }
            Did::Reads { conn, session } => {
                self.counts.reads_only += 1;
                let connection = self.connections.get_mut(conn);
                (connection.session, connection.reads_only) = (session, true);
                self.happened(Event::Reads { conn, server, session })
            }
            Did::ReadsOn { conn } => self.happened(Event::ReadsOn { conn, server }),
            Did::Heard { conn } => self.happened(Event::Heard { conn }),
            Did::Told(sessions) => self.happened(Event::Told { server, sessions }),
            Did::HungUp { conn, cut_off } => self.happened(Event::HungUp { conn, cut_off }),
            Did::Ticked => self.happened(Event::Ticked { server }),
            Did::Leads(term) => {
                if let Some(term) = term {
                    self.counts.elections += 1;
                    self.ensemble.elected(server, term, self.now_ms);
                }
                self.happened(Event::Leads { server, term })
            }
            Did::Voted { term, voter, candidate } => {
                self.happened(Event::Voted { term, voter, candidate })
            }
            Did::Committed(entries) => self.committed(server, entries),
            Did::Installed => {
                self.counts.installs += 1;
                self.ensemble.doomed.remove(&server);
                self.counts.healings += u64::from(self.ensemble.corrupted.remove(&server));
                let healed = self.ensemble.server(server);
                self.counts.stores_healed += u64::from(healed.has_damaged_store());
                healed.forget_damage();
                self.happened(Event::Installed { server })
            }
            Did::Quarantined => {
                // It must still know when it starts again.
                if self.trouble && self.rng.chance(30) {
                    let Self { faults, rng, now_ms, .. } = self;
                    faults.lose_power_soon(server, *now_ms, 100, rng);
                }
                self.happened(Event::Quarantined { server })
            }
            Did::Served { conn } => self.happened(Event::Served { server, conn }),
            Did::AskedShadows(writes) => {
                self.counts.shadowed += writes;
                Ok(())
            }
            Did::Held { within } => {
                *(if within { &mut self.counts.held_within } else { &mut self.counts.held }) += 1;
                self.happened(Event::Held { server })
            }
            Did::Applied(index) => self.applied(server, index),
        }
    }

    fn committed(&mut self, server: u64, entries: Entries) -> Result<(), Wrong> {
        for (index, term, payload) in entries {
            let first = index == self.model.index() + 1;
            if first {
                self.counts.conf_changes += u64::from(is_conf(&payload));
                let Self { reference, counts, now_ms, .. } = self;
                let plugged = reference.apply((index, term), &payload, *now_ms, counts);
                let plugged = plugged.map_err(|fault| Wrong {
                    claim: "a second state can do what the others do".to_owned(),
                    what: fault.to_string(),
                })?;
                let applied = self.model.apply((index, term), &payload, plugged);
                applied.map_err(|what| Wrong {
                    claim: "the log holds what may be in it".to_owned(),
                    what,
                })?;
            }
            self.happened(Event::Committed { server, first, index, term, payload })?;
        }
        Ok(())
    }

    fn applied(&mut self, server: u64, index: u64) -> Result<(), Wrong> {
        let Some(state) = self.ensemble.server(server).state() else { return Ok(()) };
        let (meta, view) = (state.meta(), state.view());
        let (digest, history) = (meta.digest, meta.history);
        let is_right = self.reference.at(index) == Some((digest, history));
        if !is_right && self.ensemble.doomed.remove(&server) {
            self.corrupted(server, index)?;
        }
        self.happened(Event::Applied { server, index, digest, history, view })
    }

    /// A state is not what the log makes of it any more.
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
        let known = Known {
            now_ms: self.now_ms,
            model: &self.model,
            connections: &self.connections,
            ensemble: &self.ensemble,
            faults: &self.faults,
            reference: &self.reference,
            tainted: &self.tainted,
        };
        for checker in &mut self.checkers {
            checker
                .observe(&event, &known, &mut self.counts)
                .map_err(|what| Wrong { claim: checker.name().to_owned(), what })?;
        }
        self.counts.multis_failed = self.model.multis_failed;
        self.counts.reconfigs = self.model.membership.changes;
        self.counts.reaped = self.model.reaped;
        self.counts.refused_by_plugins = self.model.refused;
        Ok(())
    }
}

/// Whether an entry is one of raft's own, which changes whom it counts.
fn is_conf(payload: &[u8]) -> bool {
    Batch::decode_conf(payload).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let all = |seed| {
            let (result, events) = run(&Options { trace: true, ..Options::of(seed) });
            let events = events.iter().map(|(at_ms, event)| format!("{at_ms} {event}"));
            (result.map_err(|failure| failure.what), events.collect::<Vec<_>>())
        };
        let mut sizes = Counts::default();
        for seed in 0..8 {
            let (first, second) = (all(seed), all(seed));
            let differs = first.1.iter().zip(&second.1).find(|(one, other)| one != other);
            assert_eq!(differs, None, "seed {seed}");
            assert_eq!(first.0, second.0, "seed {seed}");
            sizes.add(&first.0.expect("the seed is clean"));
        }
        assert!(sizes.alone > 0 && sizes.threes > 0, "{sizes:?}");
    }
}
