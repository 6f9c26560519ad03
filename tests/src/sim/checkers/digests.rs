//! The digests are those of the log: a second state that applies the same entries has the same ones
//! at every index, as has every server, and the state digest is what all rows add up to.

use std::collections::BTreeMap;

use state::{Members, MemoryStore, NoHooks, State};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;
use crate::sim::mutants::Planted;

/// The second state, and its digests so far.
pub(super) struct Digests {
    second: State,
    digests: BTreeMap<u64, (u128, u128)>,
}

impl Digests {
    pub(super) fn new(planted: &Planted, ids: &[u64]) -> Self {
        let store = Box::new(MemoryStore::default());
        let second =
            State::open_or_found(store, Box::new(NoHooks), 1 << 20, &Members::founders(ids));
        let second = second.expect("memory does not fail");
        // A bug of apply is in every replica: it must be found by what it does, not by comparing.
        let second = second.with_mutants(planted.state);
        let meta = second.meta();
        let digests = BTreeMap::from([(meta.applied, (meta.digest, meta.history))]);
        Self { second, digests }
    }
}

impl Checker for Digests {
    fn name(&self) -> &'static str {
        "digests are a function of the log"
    }

    fn observe(&mut self, event: &Event, _: &Known<'_>, _: &mut Counts) -> Result<(), String> {
        match event {
            Event::Committed { first: true, index, term, payload, .. } => {
                let applied = self.second.apply(*index, *term, payload);
                applied.map_err(|fault| format!("the second state: {fault}"))?;
                let meta = self.second.meta();
                self.digests.insert(*index, (meta.digest, meta.history));
            }
            Event::Applied { server, index, digest, history, .. } => {
                let expected = self.digests.get(index);
                if expected != Some(&(*digest, *history)) {
                    return Err(format!(
                        "server {server}, entry {index}: digests {digest:x} and {history:x}, expected {expected:x?}"
                    ));
                }
            }
            Event::Recomputed { server, index, kept, fresh } if kept != fresh => {
                return Err(format!(
                    "server {server}, entry {index}: the digest kept is {kept:x}, of all rows it is {fresh:x}"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}
