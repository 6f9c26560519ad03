//! An id for raft votes once in a term, and no crash makes its server forget that it has. One that has
//! lost its data comes back with another id.

use std::collections::BTreeMap;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// The last vote of each id for raft: the term, and for whom.
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
            Event::Voted { term, voter, candidate } => {
                match self.last.insert(*voter, (*term, *candidate)) {
                    Some((known, other)) if known == *term && other != *candidate => {
                        Err(format!("{voter} voted for {other} and for {candidate} in term {term}"))
                    }
                    Some((known, _)) if known > *term => {
                        Err(format!("{voter} voted in term {known}, then in term {term}"))
                    }
                    _ => Ok(()),
                }
            }
            Event::Restarted { raft_id, vote: (term, candidate), .. } => {
                match self.last.get(raft_id) {
                    Some((known, voted)) if known > term || known == term && voted != candidate => {
                        Err(format!(
                            "{raft_id} voted for {voted} in term {known}; when it starts it knows of a \
                             vote for {candidate} in term {term}"
                        ))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
