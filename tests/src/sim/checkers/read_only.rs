//! A server is read-only only where it knows no leader, and only for clients that accept that; when it
//! knows one again, it lets them go without another word.
//!
//! That what it shows is what was so once, and that nobody sees an older state than before, is checked
//! as for all answers.

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::server::Server;

/// Looks at what such a server does.
pub(super) struct ReadOnly;

impl Checker for ReadOnly {
    fn name(&self) -> &'static str {
        "a server is read-only without a leader, for those who accept it"
    }

    fn observe(&mut self, event: &Event, known: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        match event {
            Event::Reads { conn, server, .. } => {
                if !known.connections.get(*conn).accepts {
                    return Err(format!(
                        "connection {conn} may only read, and does not accept that"
                    ));
                }
                let hears = known.ensemble.servers.get(server).is_some_and(Server::hears_leader);
                if hears {
                    return Err(format!(
                        "server {server} takes connection {conn} to read only, and knows a leader"
                    ));
                }
            }
            Event::ReadsOn { conn, server } => {
                return Err(format!(
                    "server {server} knows a leader, and keeps connection {conn}, which may only read"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}
