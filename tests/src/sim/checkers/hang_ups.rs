//! A server hangs up on a client only for a reason: its session has ended or has moved on, it could not
//! be attached, a snapshot jumped over what it watches, this server's state is of no use, or it is cut
//! off from any leader. That a leader is lost for a moment is none.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::server::Server;

/// How many snapshots each server had installed, in all and when each connection had its session.
#[derive(Default)]
pub(super) struct HangUps {
    installs: BTreeMap<u64, u64>,
    attached: BTreeMap<u64, u64>,
    quarantined: BTreeSet<u64>,
}

impl Checker for HangUps {
    fn name(&self) -> &'static str {
        "a server hangs up on a client only for a reason"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        match event {
            Event::Quarantined { server } => {
                self.quarantined.insert(*server);
            }
            Event::Wiped { server } => {
                self.quarantined.remove(server);
            }
            Event::Installed { server } => {
                *self.installs.entry(*server).or_default() += 1;
                self.quarantined.remove(server);
            }
            Event::Attached { conn, .. } => {
                let server = known.connections.get(*conn).server;
                let installs = self.installs.get(&server).copied().unwrap_or_default();
                self.attached.insert(*conn, installs);
            }
            Event::HungUp { conn, cut_off } => {
                counts.hang_ups += 1;
                let connection = known.connections.get(*conn);
                // A read that finds damage has no answer.
                let server = known.ensemble.servers.get(&connection.server);
                let is_damaged = server.is_some_and(Server::has_damaged_store);
                if self.quarantined.contains(&connection.server) || is_damaged {
                    return Ok(());
                }
                let installs = self.installs.get(&connection.server).copied().unwrap_or_default();
                let row = known.model.sessions.get(&connection.session);
                // A local session may have been silent for too long before all knew it.
                let is_its = connection.local.is_none()
                    && row.is_some_and(|row| {
                        !row.closing && Some(row.generation) == connection.generation
                    });
                if is_its && !cut_off && self.attached.get(conn) == Some(&installs) {
                    let (server, session) = (connection.server, connection.session);
                    return Err(format!(
                        "server {server} hung up on connection {conn}, whose session {session:#x} lives \
                         and is attached there"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
