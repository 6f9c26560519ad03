//! What was committed once stays so: no crash takes an entry back, or puts another in its place.

use std::collections::BTreeMap;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// The entries that were given out as committed.
#[derive(Default)]
pub(super) struct Commits {
    entries: BTreeMap<u64, (u64, bytes::Bytes)>,
}

impl Checker for Commits {
    fn name(&self) -> &'static str {
        "what is committed stays committed"
    }

    fn observe(&mut self, event: &Event, _: &Known<'_>, counts: &mut Counts) -> Result<(), String> {
        match event {
            Event::Committed { index, term, payload } => {
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
            Event::Restarted { last, .. } => {
                let committed = self.entries.last_key_value().map_or(0, |(last, _)| *last);
                if *last < committed {
                    return Err(format!("{committed} was committed, now the log ends at {last}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
