//! A server that knows that its state is of no use serves nobody from it, and lets another one lead.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::server::Server;

/// How long such a server may lead on while nothing else is wrong, in milliseconds.
const LEADS_ON_MS: i64 = 1000;

/// Who is in quarantine, and since when.
#[derive(Default)]
pub(super) struct Quarantine {
    since_ms: BTreeMap<u64, i64>,
    /// Those of them that have just started again.
    starting: BTreeSet<u64>,
}

impl Checker for Quarantine {
    fn name(&self) -> &'static str {
        "whose state is of no use serves nobody and does not lead"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        match event {
            Event::Quarantined { server } => {
                counts.quarantines += 1;
                let is_damaged =
                    known.ensemble.servers.get(server).is_some_and(Server::has_damaged_store);
                if !known.ensemble.corrupted.contains(server) && !is_damaged {
                    return Err(format!(
                        "server {server} is in quarantine, and its state is right"
                    ));
                }
                self.since_ms.insert(*server, known.now_ms);
                self.starting.remove(server);
            }
            Event::Restarted { server, .. } if self.since_ms.contains_key(server) => {
                // Its process may have ended before that was written.
                let is_written =
                    known.ensemble.servers.get(server).is_some_and(Server::is_quarantined);
                if is_written {
                    self.starting.insert(*server);
                } else {
                    self.since_ms.remove(server);
                }
            }
            Event::Applied { server, .. } if self.starting.remove(server) => {
                if !known.ensemble.corrupted.contains(server) {
                    // It had another state before its process ended.
                    self.since_ms.remove(server);
                    return Ok(());
                }
                return Err(format!(
                    "server {server} was in quarantine, and does not know that after it started again"
                ));
            }
            Event::Installed { server } | Event::Wiped { server } => {
                self.since_ms.remove(server);
                self.starting.remove(server);
            }
            Event::Served { server, conn } => {
                return Err(format!(
                    "server {server} is in quarantine, and says something on connection {conn}"
                ));
            }
            Event::Second { well_since_ms: Some(well_ms) } => {
                let Some(leader) = known.ensemble.leader() else { return Ok(()) };
                let Some(since_ms) = self.since_ms.get(&leader.server) else { return Ok(()) };
                let leads_ms = known.now_ms - well_ms.max(since_ms);
                if leads_ms > LEADS_ON_MS {
                    let server = leader.server;
                    return Err(format!(
                        "server {server} leads, though it has been in quarantine for {leads_ms} ms"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
