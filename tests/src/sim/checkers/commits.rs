//! What was committed once stays so: no crash takes an entry back or puts another in its place, and
//! what one server gives out at an index, every one does.

use std::collections::BTreeMap;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// The entries that were given out as committed.
#[derive(Default)]
pub(super) struct Commits {
    entries: BTreeMap<u64, (u64, bytes::Bytes)>,
    /// The last one of each server.
    last: BTreeMap<u64, u64>,
}

impl Checker for Commits {
    fn name(&self) -> &'static str {
        "what is committed stays committed"
    }

    fn observe(&mut self, event: &Event, _: &Known<'_>, counts: &mut Counts) -> Result<(), String> {
        match event {
            Event::Committed { server, index, term, payload, .. } => {
                let last = self.last.entry(*server).or_default();
                *last = (*last).max(*index);
                let next = self.entries.last_key_value().map_or(2, |(last, _)| last + 1);
                if *index > next {
                    return Err(format!("entry {index} is committed, {next} never was"));
                }
                counts.entries += u64::from(*index == next);
                let entry = (*term, payload.clone());
                let first = self.entries.entry(*index).or_insert_with(|| entry.clone());
                if *first != entry {
                    return Err(format!("entry {index} was committed before, and was another one"));
                }
            }
            Event::Restarted { server, last, .. } => {
                let committed = self.last.get(server).copied().unwrap_or_default();
                if *last < committed {
                    return Err(format!(
                        "server {server} gave {committed} out as committed, now its log ends at {last}"
                    ));
                }
            }
            // What it promised is for the others to keep.
            Event::Wiped { server } => {
                self.last.remove(server);
            }
            _ => {}
        }
        Ok(())
    }
}
