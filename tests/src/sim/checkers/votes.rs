//! A server votes once in a term, and no crash makes it forget that it has.

use std::collections::BTreeMap;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// The last vote of each server: the term, and for whom.
#[derive(Default)]
pub(super) struct Votes {
    last: BTreeMap<u64, (u64, u64)>,
}

impl Checker for Votes {
    fn name(&self) -> &'static str {
        "a server votes once in a term"
    }

    fn observe(&mut self, event: &Event, _: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        match event {
            Event::Voted { server, term, candidate } => {
                match self.last.insert(*server, (*term, *candidate)) {
                    Some((known, other)) if known == *term && other != *candidate => Err(format!(
                        "server {server} voted for {other} and for {candidate} in term {term}"
                    )),
                    Some((known, _)) if known > *term => {
                        Err(format!("server {server} voted in term {known}, then in term {term}"))
                    }
                    _ => Ok(()),
                }
            }
            Event::Restarted { server, vote: (term, candidate), .. } => {
                match self.last.get(server) {
                    Some((known, voted)) if known > term || known == term && voted != candidate => {
                        Err(format!(
                            "server {server} voted for {voted} in term {known}; after a crash it knows \
                             of a vote for {candidate} in term {term}"
                        ))
                    }
                    _ => Ok(()),
                }
            }
            // It comes back with another id for raft.
            Event::Wiped { server } => {
                self.last.remove(server);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
