//! How servers end, start again, and go bad.

use super::{Sim, Wrong};
use crate::sim::faults::Fall;
use crate::sim::history::Event;
use crate::sim::server::End;

impl Sim {
    pub(super) fn corrupted(&mut self, server: u64, index: u64) -> Result<(), Wrong> {
        self.counts.corruptions += 1;
        let leads = self.ensemble.leader().is_some_and(|leader| leader.server == server);
        self.counts.leaders_corrupted += u64::from(leads);
        self.ensemble.corrupted.insert(server);
        let served = self.connections.all.iter().filter(|(_, conn)| conn.server == server);
        self.tainted.extend(served.map(|(conn, _)| *conn));
        self.happened(Event::Corrupted { server, index })
    }

    /// The process of a server ends, and its connections with it.
    pub(super) fn fall(&mut self, id: u64, fall: Fall) -> Result<(), Wrong> {
        self.faults.ended(id);
        self.ensemble.doomed.remove(&id);
        let server = self.ensemble.server(id);
        let mut loses_data = false;
        let how = match fall {
            Fall::Power => {
                self.counts.power += 1;
                server.crash(true, &mut self.rng);
                "power lost"
            }
            Fall::Kill => {
                self.counts.kills += 1;
                server.crash(false, &mut self.rng);
                "killed"
            }
            Fall::Stop => {
                self.counts.stops += 1;
                match server.stop() {
                    Ok(()) => "stopped",
                    Err(_) => {
                        server.crash(false, &mut self.rng);
                        "broken while it stopped"
                    }
                }
            }
            Fall::LogDamaged => {
                server.crash(false, &mut self.rng);
                match server.damage_log(&mut self.rng) {
                    true => {
                        self.counts.logs_damaged += 1;
                        server.wipe(self.rng.next_u64() | 1);
                        loses_data = true;
                        "killed, and its log is damaged"
                    }
                    false => "killed",
                }
            }
            Fall::Wiped | Fall::Removed => {
                loses_data = true;
                match fall {
                    Fall::Removed => self.counts.removals += 1,
                    _ => self.counts.wipes += 1,
                }
                server.crash(true, &mut self.rng);
                server.wipe(self.rng.next_u64() | 1);
                "without its data"
            }
        };
        for wire in self.wires.values_mut().filter(|wire| wire.server == id) {
            // What was on its way may arrive, in part or not at all.
            let bytes = self.rng.below(wire.down.len() as u64 + 1) as usize;
            wire.down.truncate(bytes);
            wire.up.clear();
            wire.down_closed = true;
        }
        let power = matches!(fall, Fall::Power | Fall::Wiped | Fall::Removed);
        self.ensemble.down(id, power, self.now_ms, &mut self.rng);
        self.happened(Event::Crashed { server: id, how })?;
        if loses_data {
            self.ensemble.corrupted.remove(&id);
            self.first_index.remove(&id);
            self.happened(Event::Wiped { server: id })?;
        }
        Ok(())
    }

    pub(super) fn start(&mut self, server: u64) -> Result<(), Wrong> {
        if self.ensemble.server(server).raft_id().is_none() {
            let Some(raft_id) = self.ensemble.join(server, self.now_ms) else { return Ok(()) };
            self.counts.rejoins += 1;
            self.ensemble.server(server).admitted(raft_id);
        }
        let started = self.ensemble.start(server, self.now_ms, &mut self.rng);
        let started = started.map_err(|end| Wrong {
            claim: "a server starts again after any crash".to_owned(),
            what: match end {
                End::Wrong(what) | End::Broken(what) => what,
            },
        })?;
        let before = self.first_index.insert(server, started.first);
        self.counts.trims += u64::from(before.is_some_and(|before| started.first > before));
        self.counts.torn += u64::from(started.torn);
        self.counts.cuts_at_start += u64::from(started.cuts);
        self.counts.flips_refused += u64::from(started.flips.0);
        self.counts.flips_harmless += u64::from(started.flips.1);
        self.faults.started(server, self.now_ms);
        let (last, applied, torn) = (started.last, started.applied, started.torn);
        let raft_id = self.ensemble.server(server).raft_id().unwrap_or_default();
        let vote = started.vote;
        self.happened(Event::Restarted { server, last, applied, torn, raft_id, vote })?;
        self.committed(server, started.replayed)?;
        if started.quarantined {
            self.counts.quarantined_starts += 1;
            return self.happened(Event::Quarantined { server });
        }
        // What went bad may not have been written before the process ended.
        let digests = self.ensemble.server(server).state().map(|state| {
            let meta = state.meta();
            (meta.digest, meta.history)
        });
        if self.reference.at(applied) == digests {
            self.ensemble.corrupted.remove(&server);
        }
        if applied > state::apply::BIRTH.0 {
            self.applied(server, applied)?;
            self.recompute(server)?;
        }
        Ok(())
    }
}
