//! Gathers what some entries in a row change, and writes it to the store.
//!
//! Invariants:
//! * Everything that an entry changes is gathered before its view exists.
//! * The rows, and the applied index that goes with them, are one batch.
//! * Flushes of a state are written one after the other, in the order of their entries.

mod by_path;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::alive::Alive;
use crate::apply::{META_KEY, Meta, encode_meta};
use crate::cache::{self, Cell, NEAR, NodeCache};
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::mutants::StateMutants;
use crate::recent::Recent;
use crate::snapshot::Source;
use crate::store::{Batch, ReadView, Store, Write};
use crate::txn::Changed;
use crate::view::View;

/// How much is gathered before it is written, in bytes of entries: what a start has to replay, at about
/// 50 MiB/s. What is set again and again is written once in that.
pub const GATHER_BYTES_MAX: usize = 128 << 20;
/// How much memory what is gathered may take, about.
pub(crate) const PINNED_BYTES_MAX: usize = 64 << 20;
/// How many times the memory of a znode that was made counts in that.
const NEW_ZNODE_WEIGHT: usize = 2;

/// What was changed since the last flush began.
#[derive(Default)]
pub(crate) struct Gathering {
    /// Which gathering this is, from 1.
    pub(crate) number: u32,
    pub(crate) recent: Arc<Recent>,
    /// The znodes that changed, each once.
    pub(crate) dirty: Vec<Arc<Cell>>,
    /// Those of which the last entry has left an older version, for the view before it.
    pub(crate) superseded: Vec<Arc<Cell>>,
    /// How many bytes of entries they come from.
    pub(crate) bytes: usize,
    /// How many bytes of memory are held until they are written, about.
    pub(crate) pinned_bytes: usize,
}

impl Gathering {
    /// Forgets what the last entry has replaced, but for what the views of `alive` see: their memory is
    /// still near then, and the next znodes take its place.
    pub(crate) fn forget_replaced(&mut self, alive: &Alive) {
        self.superseded.drain(..).for_each(|cell| cell.forget(alive));
    }

    /// Takes in what the entry at `index` wrote, while the views of `alive` may be read.
    pub(crate) fn put(
        &mut self,
        cache: &NodeCache,
        alive: &Alive,
        index: u64,
        nodes: Vec<Changed>,
        rows: Vec<Write>,
    ) {
        for Changed { path, cell, existed, now } in nodes {
            if existed != now.is_some() {
                let made = now.is_some().then(Bytes::new);
                let row = (Keyspace::Nodes, keys::node(&path), made);
                self.put_row(row, index, alive);
            }
            let written = cache.put_written(cell, &path, (index, now), alive, self.number);
            if written.has_older {
                self.superseded.push(Arc::clone(&written.cell));
            }
            if let Some(bytes) = written.first {
                // One that is new gains the least from waiting: most are not changed again soon.
                self.pinned_bytes += if existed { bytes } else { NEW_ZNODE_WEIGHT * bytes };
                self.dirty.push(written.cell);
            }
        }
        for row in rows {
            self.put_row(row, index, alive);
        }
    }

    fn put_row(&mut self, row: Write, index: u64, alive: &Alive) {
        let bytes = row.1.len() + row.2.as_ref().map_or(0, Bytes::len);
        self.pinned_bytes += bytes + size_of::<Write>();
        self.recent.put(row, index, alive);
    }
}

/// What was gathered, to be written by any thread while more is applied.
pub struct Flush {
    store: Arc<dyn Store>,
    pub(crate) recent: Arc<Recent>,
    /// The meta row that goes with it.
    meta: Meta,
    step: Mutex<Step>,
    /// Whether the state that it is of is of no use any more.
    given_up: AtomicBool,
    mutants: StateMutants,
}

enum Step {
    /// The state as of the last of the entries, and the znodes that they changed.
    Gathered { view: Arc<View>, dirty: Vec<Arc<Cell>> },
    /// The store, with all of it.
    Written(Arc<dyn ReadView>),
    /// The store failed meanwhile.
    Failed(Fault),
}

impl Flush {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        view: Arc<View>,
        recent: Arc<Recent>,
        dirty: Vec<Arc<Cell>>,
        meta: Meta,
        mutants: StateMutants,
    ) -> Self {
        let step = Mutex::new(Step::Gathered { view, dirty });
        Self { store, recent, meta, step, given_up: AtomicBool::new(false), mutants }
    }

    /// The last entry that the store holds once this is written.
    pub fn index(&self) -> u64 {
        self.meta.applied
    }

    /// The store with it, for other servers; `None` before it is written, and once the state is given
    /// up.
    pub fn source(&self) -> Option<Source> {
        if self.is_given_up() {
            return None;
        }
        Some(Source::new(self.step.lock().written()?, self.meta.clone()))
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Damage that is met says nothing, once the state that it is of is of no use any more.
    fn unless_given_up(&self, done: Result<(), Fault>) -> Result<(), Fault> {
        match done {
            Err(Fault::Damaged { .. }) if self.is_given_up() => Ok(()),
            done => done,
        }
    }

    /// The state is of no use any more, and nobody is to have it.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Writes it, unless that was done already; waits while another thread does.
    ///
    /// # Errors
    /// [`Fault`] if the store fails; it must then be reopened.
    pub fn run(&self) -> Result<(), Fault> {
        let written = self.write().map(|_| ());
        self.unless_given_up(written)
    }

    /// The same; gives the store with it.
    pub(crate) fn write(&self) -> Result<Arc<dyn ReadView>, Fault> {
        let mut step = self.step.lock();
        let (view, dirty) = match &*step {
            Step::Gathered { view, dirty } => (view, dirty),
            Step::Written(store) => return Ok(Arc::clone(store)),
            Step::Failed(fault) => return Err(fault.clone()),
        };
        let written = self.commit(view, dirty);
        *step = match &written {
            Ok(store) => Step::Written(Arc::clone(store)),
            Err(fault) => Step::Failed(fault.clone()),
        };
        written
    }

    fn commit(&self, view: &View, dirty: &[Arc<Cell>]) -> Result<Arc<dyn ReadView>, Fault> {
        let rows = |batch: &mut dyn Batch| {
            self.recent.put_into(batch);
            let (mut key, mut row) = (Vec::new(), Vec::new());
            let mut there = Vec::with_capacity(dirty.len());
            // In about the order of their keys, in which a row is put beside the one before it.
            let dirty = by_path::sorted(dirty);
            for (at, cell) in dirty.iter().enumerate() {
                if at % NEAR == 0 {
                    cache::touch(&dirty[at..dirty.len().min(at + NEAR)]);
                }
                let node = view.cache.settle(cell, self.index());
                key.clear();
                keys::push_node(&mut key, &cell.path);
                let row = node.map(|node| {
                    there.push(cell.hash);
                    row.clear();
                    node.encode(&mut row);
                    &row[..]
                });
                batch.put(Keyspace::Nodes, &key, row);
            }
            view.known.put(there.into_iter(), self.meta.znodes());
        };
        let meta = encode_meta(&self.meta);
        let meta = |batch: &mut dyn Batch| batch.put(Keyspace::Meta, META_KEY, Some(&meta));
        if self.mutants.applied_apart {
            self.store.commit(&mut |batch| rows(batch))?;
            self.store.commit(&mut |batch| meta(batch))?;
        } else {
            self.store.commit(&mut |batch| {
                rows(batch);
                meta(batch);
            })?;
        }
        let written = self.store.view();
        view.known.fill(&written, self.index(), dirty.len())?;
        Ok(written)
    }

    /// Makes what was written durable. Blocks on the disk.
    ///
    /// # Errors
    /// [`Fault`] if the store fails; it must then be reopened.
    pub fn sync(&self) -> Result<(), Fault> {
        self.unless_given_up(self.store.sync())
    }

    /// The store with it, if it is written; does not wait. Another thread may just have asked the same:
    /// then nothing is known.
    pub(crate) fn written(&self) -> Option<Arc<dyn ReadView>> {
        self.step.try_lock()?.written()
    }
}

impl Step {
    fn written(&self) -> Option<Arc<dyn ReadView>> {
        match self {
            Self::Written(store) => Some(Arc::clone(store)),
            Self::Gathered { .. } | Self::Failed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::view::Listing;
    use crate::{Batch, Command, Group, MemoryStore, NoHooks, Op, State};

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "what is gathered is written by another thread")]
    fn what_another_thread_looks_at_is_not_lost() {
        let store = Box::new(MemoryStore::default());
        let state = State::open(store, Box::new(NoHooks), 1 << 20).expect("it opens");
        let mut state = state.with_gather_bytes(0);
        let (mut index, mut sequence) = (state.meta().applied, 0);
        let mut apply = |state: &mut State, command| {
            let (origin, identities, commands) = ((1, 7), Vec::new(), vec![command]);
            let group = Group { origin, first: sequence, identities, commands };
            let entry = Batch { time_ms: 1, groups: vec![group], ..Batch::default() }.encode();
            (index, sequence) = (index + 1, sequence + 1);
            state.apply(index, 1, &entry).expect("it applies");
        };
        let open = Command::OpenSession { session: 5, password: [0; 16], timeout_ms: 1 };
        apply(&mut state, Command::Origin { replaces: 0 });
        apply(&mut state, open);
        let is_over = AtomicBool::new(false);
        let looked_at: Mutex<Option<Arc<Flush>>> = Mutex::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let flush = looked_at.lock().clone();
                    flush.iter().for_each(|flush| drop(flush.source()));
                }
            });
            for made in 0..2000 {
                *looked_at.lock() = state.take_flush(false).expect("the store works");
                let (kind, path) = (crate::command::CreateKind::Create, format!("/n{made}"));
                let acl = vec![(31, "world".to_owned(), "anyone".to_owned())];
                let op = Op::Create { kind, path, data: None, acl, flags: 0, ttl_ms: -1 };
                apply(
                    &mut state,
                    Command::Write {
                        session: 5,
                        generation: 1,
                        is_local: false,
                        identities: 0,
                        op,
                    },
                );
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let view = state.view();
        let children = view.list(Listing::children("/")).expect("the store works");
        assert_eq!(children.len(), 2001, "with /zookeeper");
    }
}
