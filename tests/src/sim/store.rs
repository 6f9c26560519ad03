//! The store in memory, with its crashes and failures.
//!
//! A commit that was not synced may survive a crash or not: what is left is the store after some
//! commit at or after the last sync, never one without those before it. A row may become unreadable, as
//! one is whose block has not its checksum; checkers, which look from outside, read it all the same.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use replica::log::SimRng;
use state::keys::Keyspace;
use state::store::{Batch, ReadView};
use state::{Fault, MemoryStore, Store};

#[derive(Default)]
struct Inner {
    now: MemoryStore,
    /// The store after each commit since the last sync.
    unsynced: Vec<MemoryStore>,
    commits_left: Option<u64>,
    /// The key of a znode's row that cannot be read.
    unreadable: Option<Vec<u8>>,
    /// Whether the server has tried to: it goes into quarantine, even if the row is mended meanwhile.
    was_found: bool,
    /// Whether the server reads.
    is_served: bool,
}

/// A store; clones are the same store.
#[derive(Clone, Default)]
pub struct SimStore {
    inner: Arc<Mutex<Inner>>,
}

impl SimStore {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `n`-th commit from now fails, 0 being the next.
    pub fn fail_commit(&self, n: u64) {
        self.lock().commits_left = Some(n);
    }

    /// One of the znodes' rows cannot be read from now on; false if there is none.
    pub fn damage(&self, rng: &mut SimRng) -> bool {
        let view = self.lock().now.view();
        let rows = view.range(Keyspace::Nodes, &[], &[0xff; 8], usize::MAX).unwrap_or_default();
        let row = rows.get(rng.below(rows.len().max(1) as u64) as usize);
        let key = row.map(|(key, _)| key.to_vec());
        let is_one = key.is_some();
        self.lock().unreadable = key;
        is_one
    }

    /// Whether some row cannot be read, or could not.
    pub fn is_damaged(&self) -> bool {
        let inner = self.lock();
        inner.unreadable.is_some() || inner.was_found
    }

    /// All rows can be read again.
    pub fn mend(&self) {
        self.lock().unreadable = None;
    }

    /// Its server goes on from another state.
    pub fn forget_damage(&self) {
        self.mend();
        self.lock().was_found = false;
    }

    /// The server reads from now on, or somebody else.
    pub fn served(&self, is_served: bool) {
        self.lock().is_served = is_served;
    }

    fn check(&self, keyspace: Keyspace, mut has: impl FnMut(&[u8]) -> bool) -> Result<(), Fault> {
        let mut inner = self.lock();
        let unreadable = inner.unreadable.as_ref().filter(|_| inner.is_served);
        match unreadable.filter(|key| keyspace == Keyspace::Nodes && has(key)) {
            Some(_) => {
                inner.was_found = true;
                Err(Fault::Damaged { keyspace: "the store", why: "simulated damage".to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Power is lost: some of what was not synced is lost. Whoever had it open must open it again.
    pub fn crash(&self, rng: &mut SimRng) {
        let mut inner = self.lock();
        let at = rng.below(inner.unsynced.len() as u64 + 1) as usize;
        let left = match at.checked_sub(1).and_then(|at| inner.unsynced.get(at)) {
            Some(left) => left.clone(),
            None => inner.now.crashed(),
        };
        left.sync().expect("memory does not fail");
        let (now, unsynced, commits_left) = (left.crashed(), Vec::new(), None);
        let (unreadable, was_found) = (inner.unreadable.take(), inner.was_found);
        *inner = Inner { now, unsynced, commits_left, unreadable, was_found, is_served: false };
    }

    /// The process ends, power stays: nothing is lost.
    pub fn restart(&self) {
        self.lock().commits_left = None;
    }
}

struct SimView {
    view: Arc<dyn ReadView>,
    store: SimStore,
}

impl ReadView for SimView {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.store.check(keyspace, |unreadable| unreadable == key)?;
        self.view.get(keyspace, key)
    }

    fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let rows = self.view.range(keyspace, from, to, most)?;
        self.store.check(keyspace, |unreadable| rows.iter().any(|(key, _)| key == unreadable))?;
        Ok(rows)
    }
}

impl Store for SimStore {
    fn view(&self) -> Arc<dyn ReadView> {
        Arc::new(SimView { view: self.lock().now.view(), store: self.clone() })
    }

    fn commit(&self, fill: &mut dyn FnMut(&mut dyn Batch)) -> Result<(), Fault> {
        let mut inner = self.lock();
        match &mut inner.commits_left {
            Some(0) => return Err(Fault::Store("simulated failure".to_owned())),
            Some(left) => *left -= 1,
            None => {}
        }
        inner.now.commit(fill)?;
        let now = inner.now.clone();
        inner.unsynced.push(now);
        Ok(())
    }

    fn sync(&self) -> Result<(), Fault> {
        let mut inner = self.lock();
        inner.unsynced.clear();
        inner.now.sync()
    }
}
