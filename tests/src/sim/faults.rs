//! What goes wrong with servers and between them, and when.

use std::collections::{BTreeMap, BTreeSet};

use replica::Input;
use replica::log::SimRng;
use state::{Command, Reconfig};

use super::counts::Counts;
use super::ensemble::Ensemble;
use super::history::Event;
use super::membership;
use super::mutants::{Planted, Whose};
use super::server::{Paused, Server};

/// How the process ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fall {
    /// With the power.
    Power,
    /// Killed; what was written is there.
    Kill,
    /// As asked by its operator.
    Stop,
    /// With its power and all its data.
    Wiped,
    /// Killed, and then its log is damaged.
    LogDamaged,
    /// The same, by an operator, because it was removed from the ensemble.
    Removed,
}

/// What is wrong with one server for some time.
#[derive(Default)]
struct Trouble {
    pause: Option<(Paused, i64)>,
    /// When no thread was paused and the process had just started, since then all is well.
    well_since_ms: i64,
    /// What the wall clock is ahead of the monotonic one.
    wall_ms: i64,
    /// It was removed from the ensemble; at this time an operator empties it.
    emptied_at_ms: Option<i64>,
    /// The power is to go at this time, if nothing touched the disk before.
    power_at_ms: Option<i64>,
}

/// What goes wrong now and for some time.
pub struct Faults {
    next_ms: i64,
    servers: BTreeMap<u64, Trouble>,
    /// Which ones do not happen, by their number.
    without: BTreeSet<u64>,
    planted: Planted,
    /// When a state went bad last: until that is found nothing else goes wrong for a while. One more
    /// server that cannot say what it has may leave nobody with a majority, and then that is that.
    corrupted_ms: i64,
}

/// The first of January.
const YEAR_2099_MS: i64 = 4_070_908_800_000;
/// How long it may take until a state that went bad is found.
const FINDING_MS: i64 = 5000;

/// Which server ends, and how.
type Falls = Vec<(u64, Fall)>;

impl Faults {
    /// Faults that begin after a while. The servers' wall clocks differ from the start, and one of
    /// several may be in another century.
    pub fn new(ids: &[u64], rng: &mut SimRng, without: BTreeSet<u64>, planted: Planted) -> Self {
        let apart_ms = [200, 10_000, 7_200_000][rng.below(3) as usize];
        let clock_ms = 1_700_000_000_000 + rng.below(1_000_000) as i64;
        let trouble = |id: &u64| {
            let wall_ms = clock_ms + rng.below(apart_ms) as i64;
            (*id, Trouble { wall_ms, ..Trouble::default() })
        };
        let mut servers: BTreeMap<u64, Trouble> = ids.iter().map(trouble).collect();
        let wrong_ms = [Some(0), Some(YEAR_2099_MS), None, None][rng.below(4) as usize];
        if let (Some(wrong_ms), [_, _, ..]) = (wrong_ms, ids) {
            let wrong = servers.get_mut(&ids[rng.below(ids.len() as u64) as usize]);
            wrong.expect("it is one of them").wall_ms = wrong_ms;
        }
        Self {
            next_ms: 2000 + rng.below(2000) as i64,
            servers,
            without,
            planted,
            corrupted_ms: -FINDING_MS,
        }
    }

    fn of(&mut self, id: u64) -> &mut Trouble {
        self.servers.get_mut(&id).expect("an id of one of the servers")
    }

    /// Which threads of a server stand still.
    pub fn paused(&self, id: u64) -> Paused {
        let pause = self.servers.get(&id).and_then(|trouble| trouble.pause);
        pause.map_or_else(Paused::default, |(paused, _)| paused)
    }

    /// Whether the power of a server goes with one of the next calls to the disk.
    pub fn power_is_going(&self, id: u64) -> bool {
        self.servers.get(&id).is_some_and(|trouble| trouble.power_at_ms.is_some())
    }

    /// What a server's wall clock shows.
    pub fn clock_ms(&self, id: u64, now_ms: i64) -> i64 {
        now_ms + self.servers.get(&id).map_or(0, |trouble| trouble.wall_ms)
    }

    /// Since when a server has run with all its threads.
    pub fn running_since_ms(&self, id: u64, ensemble: &Ensemble) -> Option<i64> {
        let trouble = self.servers.get(&id)?;
        (ensemble.is_up(id) && trouble.pause.is_none()).then_some(trouble.well_since_ms)
    }

    /// When something is to happen.
    pub fn next_timer_ms(&self) -> i64 {
        let timers = self.servers.values().flat_map(|trouble| {
            let pause = trouble.pause.map(|(_, ends_ms)| ends_ms);
            pause.into_iter().chain(trouble.power_at_ms).chain(trouble.emptied_at_ms)
        });
        timers.chain([self.next_ms]).min().unwrap_or(i64::MAX)
    }

    /// Nothing goes wrong from now on.
    pub fn heal(&mut self, now_ms: i64, ensemble: &mut Ensemble) {
        self.next_ms = i64::MAX;
        for (id, trouble) in &mut self.servers {
            if trouble.pause.take().is_some() {
                trouble.well_since_ms = now_ms;
            }
            trouble.power_at_ms = None;
            let server = ensemble.server(*id);
            server.disk.limit_space(None);
            if !server.is_quarantined() {
                server.mend_stores();
            }
        }
        ensemble.network.heal(now_ms);
    }

    /// The power of a server goes within so many milliseconds.
    pub fn lose_power_soon(&mut self, id: u64, now_ms: i64, ms: u64, rng: &mut SimRng) {
        self.of(id).power_at_ms = Some(now_ms + rng.below(ms) as i64);
    }

    /// A process has ended, and what was planted with it.
    pub fn ended(&mut self, id: u64) {
        let trouble = self.of(id);
        (trouble.pause, trouble.power_at_ms) = (None, None);
    }

    /// A process has started.
    pub fn started(&mut self, id: u64, now_ms: i64) {
        self.of(id).well_since_ms = now_ms;
    }

    /// Lets happen what is due.
    pub fn run(
        &mut self,
        now_ms: i64,
        ensemble: &mut Ensemble,
        rng: &mut SimRng,
        events: &mut Vec<Event>,
        counts: &mut Counts,
    ) -> Falls {
        let mut falls = Vec::new();
        for (id, trouble) in &mut self.servers {
            if trouble.pause.is_some_and(|(_, ends_ms)| now_ms >= ends_ms) {
                trouble.pause = None;
                trouble.well_since_ms = now_ms;
            }
            if trouble.power_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
                falls.push((*id, Fall::Power));
            } else if !ensemble.is_removed(*id) {
                trouble.emptied_at_ms = None;
            } else if trouble.emptied_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
                trouble.emptied_at_ms = None;
                falls.push((*id, Fall::Removed));
            } else if trouble.emptied_at_ms.is_none() {
                trouble.emptied_at_ms = Some(now_ms + 50 + rng.below(4000) as i64);
            }
        }
        let is_finding = ensemble.is_unnoticed() && now_ms < self.corrupted_ms + FINDING_MS;
        if now_ms < self.next_ms || is_finding || !falls.is_empty() {
            return falls;
        }
        // The leader is where it hurts.
        let ids = ensemble.ids();
        let any = ids[rng.below(ensemble.size()) as usize];
        let victim = match ensemble.leader() {
            Some(leader) if rng.chance(40) => leader.server,
            _ => any,
        };
        if !ensemble.is_up(victim) {
            return falls;
        }
        self.next_ms = now_ms + 1500 + rng.below(5000) as i64;
        counts.faults += 1;
        if self.without.contains(&counts.faults) {
            return falls;
        }
        if ensemble.size() > 1 && rng.chance(50) {
            return between(victim, &ids, now_ms, ensemble, rng, events, counts);
        }
        self.of_one(victim, now_ms, ensemble, rng, events, counts)
    }

    /// Whether there are several servers, all run, hear each other, and have applied about the same.
    fn is_in_touch(&self, ensemble: &Ensemble, now_ms: i64) -> bool {
        const APART_MAX: u64 = 8;
        let ids = ensemble.ids();
        let run = ids.iter().all(|id| self.running_since_ms(*id, ensemble).is_some());
        let mut pairs = ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b)));
        let hear = pairs.all(|(a, b)| !ensemble.network.is_cut(a, b, now_ms));
        let applied = ensemble.servers.values().filter_map(Server::state);
        let applied: Vec<u64> = applied.map(|state| state.meta().applied).collect();
        let apart =
            applied.iter().max().zip(applied.iter().min()).map(|(most, least)| most - least);
        ids.len() > 1 && run && hear && apart.is_some_and(|apart| apart <= APART_MAX)
    }

    /// What goes wrong with one server.
    fn of_one(
        &mut self,
        id: u64,
        now_ms: i64,
        ensemble: &mut Ensemble,
        rng: &mut SimRng,
        events: &mut Vec<Event>,
        counts: &mut Counts,
    ) -> Falls {
        let planted = self.planted;
        let is_sound = ensemble.is_sound() && self.is_in_touch(ensemble, now_ms);
        let server = ensemble.server(id);
        match rng.below(29) {
            25 | 26 if is_sound => return vec![(id, Fall::LogDamaged)],
            27 | 28 if is_sound => {
                if server.damage_store(rng) {
                    counts.stores_damaged += 1;
                    events.push(Event::StoreDamaged { server: id });
                }
            }
            0..=2 => return vec![(id, Fall::Power)],
            3..=6 => {
                server.disk.fail_from(rng.below(25));
                self.of(id).power_at_ms = Some(now_ms + 300);
            }
            7 | 8 => return vec![(id, Fall::Kill)],
            9 => return vec![(id, Fall::Stop)],
            10 => {
                counts.disk_errors += 1;
                server.disk.fail_write(rng.below(8));
            }
            11 => {
                counts.disk_errors += 1;
                server.disk.fail_sync(rng.below(8));
            }
            12 => {
                counts.full += 1;
                // No file grows any more.
                server.disk.limit_space(Some(0));
            }
            13 => {
                counts.store_errors += 1;
                server.fail_commit(rng.below(8));
            }
            16 | 17 => {
                // As before it stops; it may be no leader, or may lead on.
                counts.hand_overs += u64::from(server.leads().is_some());
                server.tell(Input::HandOver);
                events.push(Event::HandsOver { server: id });
            }
            // A majority must be right, and be there to say so.
            22..=24 if is_sound => match planted.corrupt {
                None => {
                    self.corrupted_ms = now_ms;
                    server.misapply_once();
                    ensemble.doomed.insert(id);
                }
                Some(whose) => {
                    if server.leads().is_some() == (whose == Whose::Leader) {
                        server.misapply_once();
                    }
                }
            },
            14 | 15 => {
                counts.jumps += 1;
                let ms = rng.below(120_000) as i64 - 60_000;
                self.of(id).wall_ms += ms;
                events.push(Event::Jumped { server: id, ms });
            }
            _ => {
                counts.pauses += 1;
                let ms = 100 + rng.below(2500) as i64;
                let (what, paused) = match rng.below(5) {
                    0 => ("connections", Paused { connections: true, ..Paused::default() }),
                    1 => ("node", Paused { node: true, ..Paused::default() }),
                    2 => ("machine", Paused { machine: true, ..Paused::default() }),
                    3 => ("store's sync", Paused { sync: true, ..Paused::default() }),
                    _ => {
                        let all =
                            Paused { connections: true, node: true, machine: true, sync: true };
                        ("whole server", all)
                    }
                };
                self.of(id).pause = Some((paused, now_ms + ms));
                events.push(Event::Paused { server: id, what, ms });
            }
        }
        Vec::new()
    }
}

/// What goes wrong with several servers at once, or between them.
fn between(
    victim: u64,
    ids: &[u64],
    now_ms: i64,
    ensemble: &mut Ensemble,
    rng: &mut SimRng,
    events: &mut Vec<Event>,
    counts: &mut Counts,
) -> Falls {
    let others: Vec<u64> = ids.iter().copied().filter(|id| *id != victim).collect();
    let other = others[rng.below(others.len() as u64) as usize];
    let until_ms = now_ms + 300 + rng.below(6000) as i64;
    let (mut cut, mut ends) = (Vec::new(), false);
    let what = match rng.below(24) {
        0 | 1 => {
            counts.blackouts += 1;
            return ids
                .iter()
                .filter(|id| ensemble.is_up(**id))
                .map(|id| (*id, Fall::Power))
                .collect();
        }
        2 | 3 => {
            // Some at once, with or without a majority of them.
            let few: Vec<u64> = ids.iter().copied().filter(|_| rng.chance(50)).collect();
            let few = few.into_iter().filter(|id| ensemble.is_up(*id));
            let mut falls = Vec::new();
            for id in few {
                falls.push((id, if rng.chance(50) { Fall::Power } else { Fall::Kill }));
            }
            return falls;
        }
        4..=6 => {
            counts.partitions += 1;
            cut.extend(others.iter().flat_map(|other| [(victim, *other), (*other, victim)]));
            ends = rng.chance(50);
            format!("server {victim} is cut off")
        }
        7 | 8 => {
            counts.partitions += 1;
            let half: Vec<u64> = ids.iter().copied().filter(|_| rng.chance(50)).collect();
            let across = |(a, b): &(u64, u64)| half.contains(a) != half.contains(b);
            let pairs = ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b)));
            cut.extend(pairs.filter(across));
            ends = rng.chance(50);
            format!("servers {half:?} are cut off from the others")
        }
        9 | 10 => {
            counts.one_way += 1;
            cut.push(if rng.chance(50) { (victim, other) } else { (other, victim) });
            format!("a way is cut: {cut:?}")
        }
        11 | 12 => {
            counts.one_way += 1;
            let from = rng.chance(50);
            cut.extend(others.iter().map(|o| if from { (victim, *o) } else { (*o, victim) }));
            format!("ways are cut: {cut:?}")
        }
        13 | 14 => {
            counts.breaks += 1;
            ends = true;
            let pairs = others.iter().flat_map(|other| [(victim, *other), (*other, victim)]);
            for way in pairs.filter(|_| rng.chance(60)).collect::<Vec<_>>() {
                ensemble.network.break_link(way, now_ms, rng);
            }
            format!("links of server {victim} break")
        }
        // Not while another one is on its way back from that, or has a wrong state: a majority must be
        // left.
        15 | 16 if ensemble.is_sound() => return vec![(victim, Fall::Wiped)],
        18..=23 => {
            let asked = reconfig(victim, ids, ensemble, rng);
            events.push(Event::Reconfigures { asked: asked.clone() });
            let leader = ensemble.leader().map_or(other, |leader| leader.server);
            let through = if rng.chance(50) { other } else { leader };
            ensemble
                .server(through)
                .tell(Input::Command { command: Command::Reconfig(asked), ticket: None });
            return Vec::new();
        }
        _ => {
            counts.slow += 1;
            ensemble.network.slow((victim, other), until_ms);
            ensemble.network.slow((other, victim), until_ms);
            format!("servers {victim} and {other} are far from each other")
        }
    };
    for way in cut {
        ensemble.network.cut(way, until_ms);
        if ends {
            ensemble.network.break_link(way, now_ms, rng);
        }
    }
    events.push(Event::Network { what, ms: until_ms - now_ms });
    Vec::new()
}

/// What an operator asks for: that a server votes no more, or goes, or two of five go at once; and
/// that all are back, once not all are there. Nobody goes while another's state is wrong: that would be
/// the second of three.
fn reconfig(victim: u64, ids: &[u64], ensemble: &Ensemble, rng: &mut SimRng) -> Reconfig {
    let mut asked = Reconfig { version: -1, ..Reconfig::default() };
    let number = |id: u64| (id - 1).to_string();
    match rng.below(4) {
        _ if !ensemble.is_complete() || !ensemble.others_are_sound(victim) => {
            asked.servers = membership::all(ids);
        }
        0 => asked.joining = membership::line(victim, proto::Role::Observer),
        1 if ids.len() > 3 => {
            let second = ids.iter().copied().find(|id| *id != victim).unwrap_or(victim);
            asked.leaving = format!("{},{}", number(victim), number(second));
        }
        _ => asked.leaving = number(victim),
    }
    asked
}
