//! The store in memory, with its crashes and failures.
//!
//! A commit that was not synced may survive a crash or not: what is left is the store after some
//! commit at or after the last sync, never one without those before it.

use std::sync::{Arc, Mutex, PoisonError};

use replica::log::SimRng;
use state::store::{Batch, ReadView};
use state::{Fault, MemoryStore, Store};

#[derive(Default)]
struct Inner {
    now: MemoryStore,
    /// The store after each commit since the last sync.
    unsynced: Vec<MemoryStore>,
    commits_left: Option<u64>,
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

    /// Power is lost: some of what was not synced is lost. Whoever had it open must open it again.
    pub fn crash(&self, rng: &mut SimRng) {
        let mut inner = self.lock();
        let at = rng.below(inner.unsynced.len() as u64 + 1) as usize;
        let left = match at.checked_sub(1).and_then(|at| inner.unsynced.get(at)) {
            Some(left) => left.clone(),
            None => inner.now.crashed(),
        };
        left.sync().expect("memory does not fail");
        *inner = Inner { now: left.crashed(), unsynced: Vec::new(), commits_left: None };
    }

    /// The process ends, power stays: nothing is lost.
    pub fn restart(&self) {
        self.lock().commits_left = None;
    }
}

impl Store for SimStore {
    fn view(&self) -> Arc<dyn ReadView> {
        self.lock().now.view()
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
