//! Gathers what some entries in a row change, and writes it to the store.
//!
//! Invariants:
//! * Everything that an entry changes is gathered before its view exists.
//! * The rows, and the applied index that goes with them, are one batch.
//! * Flushes of a state are written one after the other, in the order of their entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::alive::Alive;
use crate::apply::{META_KEY, Meta, encode_meta};
use crate::cache::NodeCache;
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::mutants::StateMutants;
use crate::recent::Recent;
use crate::snapshot::Source;
use crate::store::{Batch, ReadView, Store, Write};
use crate::txn::Changed;
use crate::view::View;

/// How much is gathered before it is written, in bytes of entries and of rows, about: it bounds
/// both the memory that it takes and what a start has to replay.
pub const GATHER_BYTES_MAX: usize = 32 << 20;

/// What was changed since the last flush began.
#[derive(Default)]
pub(crate) struct Gathering {
    /// Which gathering this is, from 1.
    pub(crate) number: u32,
    pub(crate) recent: Arc<Recent>,
    /// The znodes that changed, each once.
    pub(crate) dirty: Vec<Arc<str>>,
    pub(crate) bytes: usize,
}

impl Gathering {
    /// Takes in what the entry at `index` wrote, while the views of `alive` may be read.
    pub(crate) fn put(
        &mut self,
        cache: &NodeCache,
        alive: &Alive,
        index: u64,
        nodes: Vec<Changed>,
        rows: Vec<Write>,
    ) {
        for Changed { path, existed, now } in nodes {
            if existed != now.is_some() {
                let made = now.is_some().then(Bytes::new);
                let row = (Keyspace::Nodes, keys::node(&path), made);
                self.put_row(row, index, alive);
            }
            if cache.put_written(&path, index, now, alive, self.number) {
                self.bytes += path.len() + size_of::<Arc<str>>();
                self.dirty.push(path);
            }
        }
        for row in rows {
            self.put_row(row, index, alive);
        }
    }

    fn put_row(&mut self, row: Write, index: u64, alive: &Alive) {
        self.bytes += row.1.len() + row.2.as_ref().map_or(0, Bytes::len) + size_of::<Write>();
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
    Gathered { view: Arc<View>, dirty: Vec<Arc<str>> },
    /// The store, with all of it.
    Written(Arc<dyn ReadView>),
}

impl Flush {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        view: Arc<View>,
        recent: Arc<Recent>,
        dirty: Vec<Arc<str>>,
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
        if self.given_up.load(Ordering::Acquire) {
            return None;
        }
        Some(Source::new(self.written()?, self.meta.clone()))
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
        let mut step = self.step.lock();
        let Step::Gathered { view, dirty } = &*step else { return Ok(()) };
        let rows = |batch: &mut dyn Batch| {
            self.recent.put_into(batch);
            let (mut key, mut row) = (Vec::new(), Vec::new());
            for path in dirty {
                let node = view.cache.peek(path, self.index());
                let node = node.expect("it is pinned until it is written");
                key.clear();
                keys::push_node(&mut key, path);
                let row = node.map(|node| {
                    row.clear();
                    node.encode(&mut row);
                    &row[..]
                });
                batch.put(Keyspace::Nodes, &key, row);
            }
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
        *step = Step::Written(self.store.view());
        Ok(())
    }

    /// Makes what was written durable. Blocks on the disk.
    ///
    /// # Errors
    /// [`Fault`] if the store fails; it must then be reopened.
    pub fn sync(&self) -> Result<(), Fault> {
        self.store.sync()
    }

    /// The store with it, if it is written; does not wait.
    pub(crate) fn written(&self) -> Option<Arc<dyn ReadView>> {
        match &*self.step.try_lock()? {
            Step::Written(store) => Some(Arc::clone(store)),
            Step::Gathered { .. } => None,
        }
    }
}
