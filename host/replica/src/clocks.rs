//! What time it is for the ensemble.
//!
//! Servers tell each other what their wall clocks show, with every message of raft's. The time is
//! that which the clocks of a majority of the voters have reached, as an entry is committed once a
//! majority has it: what a minority of clocks shows neither drives it on nor holds it up. It goes on
//! by this server's steady clock where they do not.
//!
//! Invariants:
//! * It never goes back. While it is ahead of a majority's clocks, because those were set back, it
//!   goes at half its speed, until they have caught up.
//! * A clock is never taken to show more than it does: what was on its way for long only counts for
//!   less.

use std::collections::BTreeMap;

/// What a server's clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The one that is never set, in milliseconds since some time of this start.
    pub steady_ms: i64,
    /// The wall clock, in milliseconds since the epoch.
    pub wall_ms: i64,
}

/// For how long it counts what a server said that its clock shows, in milliseconds.
const READING_MS: i64 = 10_000;
/// A clock that is further off than this, in milliseconds, is told of.
const ASTRAY_MS: i64 = 5000;
/// For so many looks in a row, as what was said may have waited for a while.
const ASTRAY_LOOKS: u32 = 20;

/// What a server's clock showed.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// How much more than our steady clock.
    ahead_ms: i64,
    /// When, by that.
    at_ms: i64,
}

/// A clock that is far off, or is so no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Astray {
    /// Whose it is, by its id for raft.
    pub(crate) server: u64,
    /// By how much it is ahead of the majority's, if it is far off.
    pub(crate) ahead_ms: Option<i64>,
}

/// The ensemble's time, and what the servers' clocks show.
#[derive(Default)]
pub(crate) struct Clocks {
    time_ms: i64,
    /// The time of the last entry that was applied.
    reached_ms: i64,
    /// Up to where the steady clock has been counted; `None` before the first look.
    counted_ms: Option<i64>,
    /// What was heard since the last look.
    heard: BTreeMap<u64, i64>,
    readings: BTreeMap<u64, Reading>,
    /// What the clocks of a majority have reached, if those of one are known.
    majority_ms: Option<i64>,
    /// For how many looks in a row each clock has been far off.
    astray: BTreeMap<u64, u32>,
    /// A planted bug: the time is what this server's own clock shows.
    pub(crate) own_only: bool,
}

impl Clocks {
    /// An entry has this time: it is not earlier.
    pub(crate) fn reached(&mut self, time_ms: i64) {
        self.reached_ms = self.reached_ms.max(time_ms);
    }

    /// The wall clock of another server, by its id for raft, showed this when it wrote.
    pub(crate) fn hear(&mut self, server: u64, wall_ms: i64) {
        self.heard.insert(server, wall_ms);
    }

    /// Brings the time up to now, on the server with the id `me`.
    pub(crate) fn look(&mut self, now: Now, me: u64, voters: &[u64]) {
        let Now { steady_ms, wall_ms } = now;
        self.heard.insert(me, wall_ms);
        while let Some((server, wall_ms)) = self.heard.pop_first() {
            let ahead_ms = wall_ms.saturating_sub(steady_ms);
            self.readings.insert(server, Reading { ahead_ms, at_ms: steady_ms });
        }
        self.readings.retain(|_, reading| steady_ms - reading.at_ms <= READING_MS);
        self.majority_ms = match self.own_only {
            false => self.majority_ms(voters, steady_ms),
            true => Some(wall_ms),
        };
        let passed_ms = steady_ms - self.counted_ms.unwrap_or(steady_ms);
        let full_ms = self.time_ms.saturating_add(passed_ms);
        let is_ahead = self.majority_ms.is_some_and(|majority_ms| full_ms > majority_ms);
        // What half a millisecond is left over counts the next time.
        let rest_ms = if is_ahead { passed_ms % 2 } else { 0 };
        let half_ms = self.time_ms.saturating_add(passed_ms / 2);
        self.time_ms = if is_ahead { half_ms } else { full_ms };
        self.time_ms = self.time_ms.max(self.reached_ms).max(self.majority_ms.unwrap_or(i64::MIN));
        self.counted_ms = Some(steady_ms - rest_ms);
    }

    /// What the clocks of more than half of the voters show, or more.
    fn majority_ms(&self, voters: &[u64], steady_ms: i64) -> Option<i64> {
        let known = voters.iter().filter_map(|voter| self.readings.get(voter));
        let mut ahead_ms: Vec<i64> = known.map(|reading| reading.ahead_ms).collect();
        ahead_ms.sort_unstable_by(|a, b| b.cmp(a));
        ahead_ms.get(voters.len() / 2).map(|ahead_ms| ahead_ms.saturating_add(steady_ms))
    }

    /// The time as of the last look.
    pub(crate) fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// Whether the clocks of a majority are known: without them a leader cannot say what time it is.
    pub(crate) fn is_known(&self) -> bool {
        self.majority_ms.is_some()
    }

    /// The clocks that turn out to be far off, or to be right again. Asked of a leader, tick by tick:
    /// others do not hear from all.
    pub(crate) fn astray(&mut self) -> Vec<Astray> {
        let (Some(majority_ms), Some(steady_ms)) = (self.majority_ms, self.counted_ms) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (server, reading) in &self.readings {
            let ahead_ms = reading.ahead_ms.saturating_add(steady_ms).saturating_sub(majority_ms);
            let (server, looks) = (*server, self.astray.entry(*server).or_default());
            if ahead_ms.saturating_abs() <= ASTRAY_MS {
                if std::mem::take(looks) >= ASTRAY_LOOKS {
                    found.push(Astray { server, ahead_ms: None });
                }
                continue;
            }
            *looks = looks.saturating_add(1);
            if *looks == ASTRAY_LOOKS {
                found.push(Astray { server, ahead_ms: Some(ahead_ms) });
            }
        }
        found
    }

    /// What is far off is to be told of anew: this server leads from now on.
    pub(crate) fn forget_astray(&mut self) {
        self.astray.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const VOTERS: [u64; 3] = [1, 2, 3];

    /// Server 1's clocks, and how far those of the others are ahead of its wall clock.
    struct Server {
        clocks: Clocks,
        steady_ms: i64,
        wall_ms: i64,
        others_ms: [Option<i64>; 2],
    }

    impl Server {
        fn new(others_ms: [Option<i64>; 2]) -> Self {
            Self { clocks: Clocks::default(), steady_ms: 7, wall_ms: 1000 * HOUR_MS, others_ms }
        }

        /// Lets so much pass, hears from the others, and says how much the time is ahead of server 1's
        /// wall clock.
        fn after(&mut self, passed_ms: i64) -> i64 {
            (self.steady_ms, self.wall_ms) = (self.steady_ms + passed_ms, self.wall_ms + passed_ms);
            for (server, ahead_ms) in (2..).zip(self.others_ms) {
                if let Some(ahead_ms) = ahead_ms {
                    self.clocks.hear(server, self.wall_ms + ahead_ms);
                }
            }
            let now = Now { steady_ms: self.steady_ms, wall_ms: self.wall_ms };
            self.clocks.look(now, 1, &VOTERS);
            self.clocks.time_ms() - self.wall_ms
        }
    }

    #[test]
    fn a_minority_neither_drives_time_on_nor_holds_it_up() {
        let years_ms = 500_000 * HOUR_MS;
        for wrong_ms in [years_ms, -years_ms] {
            let mut server = Server::new([Some(wrong_ms), Some(-20)]);
            assert_eq!(server.after(50), if wrong_ms > 0 { 0 } else { -20 });
            assert!(server.clocks.is_known());
        }
        // A quorum of two takes the earlier one.
        assert_eq!(Server::new([Some(years_ms), None]).after(50), 0);
        assert_eq!(Server::new([Some(-HOUR_MS), None]).after(50), -HOUR_MS);
        // Our own clock is the wrong one.
        assert_eq!(Server::new([Some(-HOUR_MS), Some(-HOUR_MS)]).after(50), -HOUR_MS);
        assert_eq!(Server::new([Some(HOUR_MS), Some(HOUR_MS)]).after(50), HOUR_MS);
    }

    #[test]
    fn without_a_majority_the_steady_clock_goes_on() {
        let mut server = Server::new([None, None]);
        server.after(0);
        assert!(!server.clocks.is_known());
        let began_ms = server.wall_ms;
        server.clocks.reached(began_ms + HOUR_MS);
        assert_eq!((server.after(30), server.after(50)), (HOUR_MS - 30, HOUR_MS - 30));
        // Those who are not voters do not count.
        server.clocks.hear(4, 0);
        server.clocks.hear(5, 0);
        server.after(1);
        assert!(!server.clocks.is_known());
    }

    #[test]
    fn time_that_is_ahead_waits_for_the_clocks_and_does_not_go_back() {
        let mut server = Server::new([Some(0), Some(0)]);
        server.after(0);
        // The clocks of all are set back.
        server.wall_ms -= 1000;
        assert_eq!(server.after(0), 1000);
        // An odd number of milliseconds loses nothing.
        let halves: Vec<i64> = (0..4).map(|_| server.after(1)).collect();
        assert_eq!(halves, [999, 999, 998, 998]);
        assert_eq!((server.after(996), server.after(1000), server.after(60)), (500, 0, 0));
        // And on: at once.
        server.others_ms = [Some(HOUR_MS), Some(HOUR_MS + 1)];
        assert_eq!(server.after(50), HOUR_MS);
    }

    #[test]
    fn what_was_said_long_ago_does_not_count() {
        let mut server = Server::new([Some(0), Some(0)]);
        server.after(50);
        server.others_ms = [None, None];
        server.after(READING_MS);
        assert!(server.clocks.is_known());
        server.after(1);
        assert!(!server.clocks.is_known());
    }

    #[test]
    fn a_clock_that_goes_astray_is_told_of_once_and_when_it_is_right_again() {
        let mut server = Server::new([Some(0), Some(ASTRAY_MS)]);
        let told = |server: &mut Server, ticks: u32| -> Vec<(u32, Astray)> {
            let tick = |tick| {
                server.after(50);
                server.clocks.astray().into_iter().map(move |astray| (tick, astray))
            };
            (0..ticks).flat_map(tick).collect()
        };
        assert_eq!(told(&mut server, 100), []);
        server.others_ms[1] = Some(-HOUR_MS);
        let found = Astray { server: 3, ahead_ms: Some(-HOUR_MS) };
        assert_eq!(told(&mut server, 100), [(ASTRAY_LOOKS - 1, found)]);
        server.others_ms[1] = Some(0);
        assert_eq!(told(&mut server, 100), [(0, Astray { server: 3, ahead_ms: None })]);
        // Not for a moment's delay.
        server.others_ms[1] = Some(-HOUR_MS);
        assert_eq!(told(&mut server, ASTRAY_LOOKS - 1), []);
        server.others_ms[1] = Some(0);
        assert_eq!(told(&mut server, 100), []);
    }
}
