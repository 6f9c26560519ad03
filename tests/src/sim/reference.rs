//! A second state, which applies what is committed: the digests that every server must have.

use std::collections::BTreeMap;

use state::{Fault, Members, MemoryStore, NoHooks, State};

use super::mutants::Planted;

/// The second state, and its digests so far.
pub struct Reference {
    second: State,
    digests: BTreeMap<u64, (u128, u128)>,
}

impl Reference {
    /// That of an ensemble of these servers.
    pub fn new(planted: &Planted, ids: &[u64]) -> Self {
        let store = Box::new(MemoryStore::default());
        let founders = Members::founders(ids);
        let second = State::open_or_found(store, Box::new(NoHooks), 1 << 20, &founders);
        let second = second.expect("memory does not fail");
        // A bug of apply is in every replica: it must be found by what it does, not by comparing.
        let second = second.with_mutants(planted.state);
        let meta = second.meta();
        let digests = BTreeMap::from([(meta.applied, (meta.digest, meta.history))]);
        Self { second, digests }
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// [`Fault`] if it cannot be applied.
    pub fn apply(&mut self, index: u64, term: u64, payload: &[u8]) -> Result<(), Fault> {
        self.second.apply(index, term, payload)?;
        let meta = self.second.meta();
        self.digests.insert(index, (meta.digest, meta.history));
        Ok(())
    }

    /// The digests of state and history after an entry.
    pub fn at(&self, index: u64) -> Option<(u128, u128)> {
        self.digests.get(&index).copied()
    }
}
