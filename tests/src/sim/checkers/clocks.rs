//! Time is what the clocks of a majority show: it never goes back, and no minority drives it on or
//! holds it up.
//!
//! Wall clocks jump, and a server may know an older jump of one and a newer one of another; it also
//! may go on from what was right before a jump. So what each clock was ahead of real time at most, and
//! at least, is what counts. Whoever begins to lead may know the clocks of a bare majority only, of
//! which the slowest decides.

use std::collections::{BTreeMap, BTreeSet};

use state::Batch;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// For how long what somebody said may have been on its way, in milliseconds.
const ON_THE_WAY_MS: i64 = 15_000;

/// How far each clock has been ahead, and when each term began.
#[derive(Default)]
pub(super) struct Clocks {
    /// At least and at most.
    ahead_ms: BTreeMap<u64, (i64, i64)>,
    began_ms: BTreeMap<u64, i64>,
    last_ms: i64,
    /// Whose an id for raft is.
    servers: BTreeMap<u64, u64>,
    /// Those that voted together at some time, by their ids for raft.
    voters: BTreeSet<Vec<u64>>,
}

impl Checker for Clocks {
    fn name(&self) -> &'static str {
        "time is that of a majority's clocks and never goes back"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        _counts: &mut Counts,
    ) -> Result<(), String> {
        match event {
            Event::Jumped { .. } => self.look(known),
            Event::Restarted { server, raft_id, .. } => {
                self.servers.insert(*raft_id, *server);
                self.look(known);
            }
            Event::Leads { term: Some(term), .. } => {
                self.began_ms.entry(*term).or_insert(known.now_ms);
            }
            Event::Applied { index, view, .. } => {
                let right_ms = known.model.after(*index).map(|snapshot| snapshot.time_ms);
                if Some(view.time_ms) != right_ms {
                    let time_ms = view.time_ms;
                    return Err(format!("entry {index}: it is {time_ms}, must be {right_ms:?}"));
                }
            }
            // Raft's own entries have no time.
            Event::Committed { first: true, index, term, payload, .. }
                if Batch::decode(payload).is_ok_and(|batch| batch.time_ms != 0) =>
            {
                let states = known.ensemble.servers.values().filter_map(|server| server.state());
                self.voters.extend(states.map(|state| state.meta().members.voters.clone()));
                let time_ms = known.model.after(*index).map_or(0, |snapshot| snapshot.time_ms);
                self.check(time_ms, *term, known)
                    .map_err(|what| format!("entry {index} of term {term}: {what}"))?;
                self.last_ms = time_ms;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Clocks {
    fn look(&mut self, known: &Known<'_>) {
        for id in known.ensemble.ids() {
            let ahead_ms = known.faults.clock_ms(id, 0);
            let (least, most) = self.ahead_ms.entry(id).or_insert((ahead_ms, ahead_ms));
            (*least, *most) = ((*least).min(ahead_ms), (*most).max(ahead_ms));
        }
    }

    fn check(&self, time_ms: i64, term: u64, known: &Known<'_>) -> Result<(), String> {
        if time_ms < self.last_ms {
            return Err(format!("it is {time_ms}, after {}", self.last_ms));
        }
        let most_ms = self.voters.iter().map(|voters| self.most_ms(voters)).max();
        let most_ms = most_ms.map_or(i64::MAX, |most_ms| most_ms.saturating_add(known.now_ms));
        if time_ms > most_ms {
            return Err(format!("it is {time_ms}, but no majority's clocks went beyond {most_ms}"));
        }
        let least = self.ahead_ms.values().map(|(least, _)| *least).min().unwrap_or(0);
        let began_ms = self.began_ms.get(&term).copied().unwrap_or(0);
        let least_ms = least + began_ms - ON_THE_WAY_MS;
        if time_ms < least_ms {
            return Err(format!("it is {time_ms}, but every clock was beyond {least_ms}"));
        }
        Ok(())
    }

    /// How far the clocks of a majority of these have been ahead at most.
    fn most_ms(&self, voters: &[u64]) -> i64 {
        let clock = |raft_id: &u64| self.ahead_ms.get(self.servers.get(raft_id)?);
        let most = voters.iter().map(|id| clock(id).map_or(i64::MIN, |(_, most)| *most));
        let mut most: Vec<i64> = most.collect();
        most.sort_unstable_by(|a, b| b.cmp(a));
        most.get(most.len() / 2).copied().unwrap_or(i64::MIN)
    }
}
