//! What goes wrong with the server, and when.

use replica::log::SimRng;

use super::counts::Counts;
use super::history::Event;
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
}

/// What goes wrong now and for some time.
#[derive(Default)]
pub struct Faults {
    next_ms: i64,
    pause: Option<(Paused, i64)>,
    /// When no thread was paused and the process had just started, since then all is well.
    pub well_since_ms: i64,
    /// What the wall clock is ahead of the monotonic one.
    pub wall_ms: i64,
    /// The power is to go at this time, if nothing touched the disk before.
    power_at_ms: Option<i64>,
}

impl Faults {
    /// Faults that begin after a while.
    pub fn new(rng: &mut SimRng) -> Self {
        let wall_ms = 1_700_000_000_000 + rng.below(1_000_000) as i64;
        Self { next_ms: 2000 + rng.below(2000) as i64, wall_ms, ..Self::default() }
    }

    /// Which threads stand still.
    pub fn paused(&self) -> Paused {
        self.pause.map_or_else(Paused::default, |(paused, _)| paused)
    }

    /// Whether the power goes with one of the next calls to the disk.
    pub fn power_is_going(&self) -> bool {
        self.power_at_ms.is_some()
    }

    /// When something is to happen.
    pub fn next_timer_ms(&self) -> i64 {
        let ends_ms = self.pause.map_or(i64::MAX, |(_, ends_ms)| ends_ms);
        self.next_ms.min(ends_ms).min(self.power_at_ms.unwrap_or(i64::MAX))
    }

    /// Nothing goes wrong from now on.
    pub fn heal(&mut self, now_ms: i64, server: &Server) {
        if self.pause.take().is_some() {
            self.well_since_ms = now_ms;
        }
        (self.next_ms, self.power_at_ms) = (i64::MAX, None);
        server.disk.limit_space(None);
    }

    /// The process has ended, and what was planted with it.
    pub fn ended(&mut self) {
        (self.pause, self.power_at_ms) = (None, None);
    }

    /// Lets happen what is due.
    pub fn run(
        &mut self,
        now_ms: i64,
        server: &Server,
        rng: &mut SimRng,
        events: &mut Vec<Event>,
        counts: &mut Counts,
    ) -> Option<Fall> {
        if self.pause.is_some_and(|(_, ends_ms)| now_ms >= ends_ms) {
            self.pause = None;
            self.well_since_ms = now_ms;
        }
        if self.power_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            return Some(Fall::Power);
        }
        if now_ms < self.next_ms || !server.is_up() {
            return None;
        }
        self.next_ms = now_ms + 1500 + rng.below(5000) as i64;
        counts.faults += 1;
        match rng.below(20) {
            0..=2 => return Some(Fall::Power),
            3..=6 => {
                server.disk.fail_from(rng.below(25));
                self.power_at_ms = Some(now_ms + 300);
            }
            7 | 8 => return Some(Fall::Kill),
            9 => return Some(Fall::Stop),
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
                server.store.fail_commit(rng.below(8));
            }
            14 | 15 => {
                counts.jumps += 1;
                let ms = rng.below(120_000) as i64 - 60_000;
                self.wall_ms += ms;
                events.push(Event::Jumped { ms });
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
                self.pause = Some((paused, now_ms + ms));
                events.push(Event::Paused { what, ms });
            }
        }
        None
    }

    /// Whether everything has run for long enough that a session's silence can be told.
    pub fn well_since_ms(&self, server: &Server) -> Option<i64> {
        (server.is_up() && self.pause.is_none()).then_some(self.well_since_ms)
    }
}
