//! A term has one leader.

use std::collections::BTreeMap;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// Who led in which term.
#[derive(Default)]
pub(super) struct OneLeader {
    leaders: BTreeMap<u64, u64>,
}

impl Checker for OneLeader {
    fn name(&self) -> &'static str {
        "a term has one leader"
    }

    fn observe(&mut self, event: &Event, _: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        let Event::Leads { server, term: Some(term) } = event else { return Ok(()) };
        match self.leaders.insert(*term, *server) {
            Some(other) if other != *server => {
                Err(format!("servers {other} and {server} both lead in term {term}"))
            }
            _ => Ok(()),
        }
    }
}
