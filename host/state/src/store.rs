//! The ordered store: a trait, and its two implementations. The only file that names fjall, with
//! `store/journal.rs` beside it, which knows the form of its journal, and `store/errors.rs`, which
//! knows its errors.
//!
//! Invariants:
//! * A batch is written whole or not at all, across keyspaces.
//! * A view never changes, and sees every batch committed before it was taken and none after.
//! * A commit is not durable until [`Store::sync`]; after a crash the store may have lost the last
//!   batches, but never one in the middle: the log replays the rest.

mod errors;
mod journal;
mod versions;

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use fjall::{AbstractTree as _, Database, KeyspaceCreateOptions, PersistMode, Readable};
use imbl::OrdMap;
use parking_lot::Mutex;

use crate::fault::Fault;
use crate::keys::Keyspace;

pub use self::journal::TornTail;

const KEYSPACES: usize = Keyspace::ALL.len();

/// A changed row; no value means that it is deleted.
pub(crate) type Write = (Keyspace, Vec<u8>, Option<Bytes>);

/// An immutable picture of the store.
pub trait ReadView: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Up to `most` pairs in `[from, to)`, in the order of keys.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Fault>;
}

/// A batch that is being put together.
pub trait Batch {
    /// Adds a change; no value deletes the key.
    fn put(&mut self, keyspace: Keyspace, key: &[u8], value: Option<&[u8]>);
}

/// An ordered key-value store with atomic batches.
pub trait Store: Send + Sync {
    /// The store as it is now.
    fn view(&self) -> Arc<dyn ReadView>;

    /// Writes what `fill` puts into a batch; the disk does not have it yet, and the operating system
    /// may not.
    ///
    /// # Errors
    /// [`Fault`] if the store fails; it must then be reopened.
    fn commit(&self, fill: &mut dyn FnMut(&mut dyn Batch)) -> Result<(), Fault>;

    /// Makes every batch before it durable. Blocks on the disk.
    ///
    /// # Errors
    /// [`Fault`] if the store fails; it must then be reopened.
    fn sync(&self) -> Result<(), Fault>;
}

/// How much memory and disk the store may take.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The block cache, in bytes.
    pub cache_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20 }
    }
}

/// The store on disk.
pub struct FjallStore {
    database: Database,
    keyspaces: Arc<[fjall::Keyspace; KEYSPACES]>,
    torn_tail: Option<TornTail>,
}

impl FjallStore {
    /// Opens the store in a directory, or makes it. What of its journal's tail was torn, by a crash
    /// or a power loss, is dropped: see [`Self::torn_tail`].
    ///
    /// # Errors
    /// [`Fault::InUse`] if another process has it open, [`Fault::Store`] if it cannot be read.
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, Fault> {
        let file_fault = |e: std::io::Error| match errors::is_of_file(&e) {
            true => errors::damaged(format!("its files: {e}")),
            false => Fault::Store(format!("its files: {e}")),
        };
        let found = journal::look(path).map_err(file_fault)?;
        let (mut torn_tail, written) = (found.torn_tail, found.seqno);
        if let Some(why) = found.damage {
            return Err(errors::damaged(why));
        }
        if let Some(why) = versions::damage(path).map_err(file_fault)? {
            return Err(errors::damaged(why));
        }
        let mut database = open_database(path, options);
        if let (Err(fjall::Error::JournalRecovery(_) | fjall::Error::Io(_)), Some(tail)) =
            (&database, &mut torn_tail)
        {
            let damaged = path.with_file_name("damaged");
            journal::cut(tail, &path.join("lock"), &damaged).map_err(file_fault)?;
            database = open_database(path, options);
        }
        let database = database.map_err(|error| errors::sort(&error))?;
        let is_there = |keyspace: &Keyspace| database.keyspace_exists(keyspace.name());
        let mut lacks: Vec<_> = Keyspace::ALL.into_iter().filter(|k| !is_there(k)).collect();
        if Keyspace::LATER.ends_with(&lacks) {
            // An earlier program wrote it; the meta row says whether there was anything in them.
            lacks.clear();
        }
        let open = |keyspace: Keyspace| {
            database.keyspace(keyspace.name(), || {
                let memtable_bytes = match keyspace {
                    // Under load each flush of the state becomes a table of its own: what is there and
                    // what is not is then told by its filter, not by a search in memory.
                    Keyspace::Nodes | Keyspace::Data => 8 << 20,
                    _ => 4 << 20,
                };
                KeyspaceCreateOptions::default()
                    .max_memtable_size(memtable_bytes)
                    .manual_journal_persist(true)
            })
        };
        let keyspaces: Vec<_> = Keyspace::ALL
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()
            .map_err(|error| errors::sort(&error))?;
        let in_tables = keyspaces.iter().filter_map(|k| k.tree.get_highest_persisted_seqno()).max();
        if let Some(why) = is_torn_apart(&lacks, in_tables, torn_tail.as_ref(), written) {
            return Err(errors::damaged(why));
        }
        let Ok(keyspaces) = keyspaces.try_into() else { unreachable!("one for each of ALL") };
        Ok(Self { database, keyspaces: Arc::new(keyspaces), torn_tail })
    }

    /// Tells later whether anybody still reads it.
    pub fn in_use(&self) -> InUse {
        InUse(Arc::downgrade(&self.keyspaces))
    }

    /// What an error of a write means. fjall flushes and compacts on a thread of its own, and says of a
    /// failure there only that there was one: whether it met damage is found by reading everything.
    fn fault(&self, error: &fjall::Error) -> Fault {
        if !matches!(error, fjall::Error::Poisoned) {
            return errors::sort(error);
        }
        let snapshot = self.database.snapshot();
        let of = |keyspace: &fjall::Keyspace| {
            let rows = snapshot.iter(keyspace);
            rows.map(fjall::Guard::into_inner).find_map(Result::err)
        };
        let found = self.keyspaces.iter().find_map(of);
        errors::sort(&found.unwrap_or(fjall::Error::Poisoned))
    }

    /// What was dropped at the end of the journal when it was opened; the log has it too.
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.torn_tail.as_ref()
    }
}

/// What of the store is gone while other parts of it are there, if anything is. A keyspace's rows are in
/// its tables up to some batch, and in the journal from there on: a journal that was cut back to before
/// what the tables have is not one that lost what was not synced.
fn is_torn_apart(
    lacks: &[Keyspace],
    in_tables: Option<u64>,
    torn_tail: Option<&TornTail>,
    written: Option<u64>,
) -> Option<String> {
    // A crash may have come while it was made.
    if !lacks.is_empty() && (in_tables.is_some() || written.is_some()) {
        let names: Vec<_> = lacks.iter().map(|keyspace| keyspace.name()).collect();
        return Some(format!("the keyspaces {names:?} are gone"));
    }
    match (torn_tail, in_tables, written) {
        (Some(_), Some(in_tables), Some(written)) if in_tables > written => Some(format!(
            "the journal ends with batch {written}, and the tables have up to {in_tables}"
        )),
        _ => None,
    }
}

fn open_database(path: &Path, options: &StoreOptions) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(options.cache_bytes)
        // More of them spin while one compacts: see "Decisions" in ARCHITECTURE.md.
        .worker_threads(1)
        .max_journaling_size(64 << 20)
        .manual_journal_persist(true)
        .open()
}

/// Whether a store on disk, or a picture of it, is still held by anybody. By default it never was.
#[derive(Default)]
pub struct InUse(Weak<[fjall::Keyspace; KEYSPACES]>);

impl InUse {
    /// Whether nobody holds it any more.
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

struct FjallView {
    snapshot: fjall::Snapshot,
    keyspaces: Arc<[fjall::Keyspace; KEYSPACES]>,
}

impl ReadView for FjallView {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let keyspace = &self.keyspaces[keyspace as usize];
        let value = self.snapshot.get(keyspace, key).map_err(|error| errors::sort(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let keyspace = &self.keyspaces[keyspace as usize];
        self.snapshot
            .range::<&[u8], _>(keyspace, (Bound::Included(from), Bound::Excluded(to)))
            .take(most)
            .map(|guard| {
                let (key, value) = guard.into_inner().map_err(|error| errors::sort(&error))?;
                Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
            })
            .collect()
    }
}

struct FjallBatch<'s> {
    batch: fjall::OwnedWriteBatch,
    keyspaces: &'s [fjall::Keyspace; KEYSPACES],
}

impl Batch for FjallBatch<'_> {
    fn put(&mut self, keyspace: Keyspace, key: &[u8], value: Option<&[u8]>) {
        let keyspace = &self.keyspaces[keyspace as usize];
        match value {
            Some(value) => self.batch.insert(keyspace, key, value),
            None => self.batch.remove(keyspace, key),
        }
    }
}

impl Store for FjallStore {
    fn view(&self) -> Arc<dyn ReadView> {
        let snapshot = self.database.snapshot();
        Arc::new(FjallView { snapshot, keyspaces: Arc::clone(&self.keyspaces) })
    }

    fn commit(&self, fill: &mut dyn FnMut(&mut dyn Batch)) -> Result<(), Fault> {
        let mut batch = FjallBatch { batch: self.database.batch(), keyspaces: &self.keyspaces };
        fill(&mut batch);
        batch.batch.commit().map_err(|error| self.fault(&error))
    }

    fn sync(&self) -> Result<(), Fault> {
        self.database.persist(PersistMode::SyncData).map_err(|error| self.fault(&error))
    }
}

type Tables = [OrdMap<Vec<u8>, Bytes>; KEYSPACES];

/// The store in memory, for tests: a crash loses what was not synced.
#[derive(Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
    synced: Arc<Mutex<Tables>>,
}

impl MemoryStore {
    /// What is left after a crash: the store as of its last sync.
    pub fn crashed(&self) -> Self {
        let tables = self.synced.lock().clone();
        let synced = Arc::new(Mutex::new(tables.clone()));
        Self { tables: Mutex::new(tables), synced }
    }
}

impl Clone for MemoryStore {
    /// A picture of the tables; a sync of either is the last sync of both.
    fn clone(&self) -> Self {
        let tables = Mutex::new(self.tables.lock().clone());
        Self { tables, synced: Arc::clone(&self.synced) }
    }
}

impl ReadView for Tables {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self[keyspace as usize].get(key).cloned())
    }

    fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let range = self[keyspace as usize].range(from.to_vec()..to.to_vec());
        Ok(range.take(most).map(|(k, v)| (Bytes::from(k.clone()), v.clone())).collect())
    }
}

impl Batch for Tables {
    fn put(&mut self, keyspace: Keyspace, key: &[u8], value: Option<&[u8]>) {
        let table = &mut self[keyspace as usize];
        match value {
            Some(value) => table.insert(key.to_vec(), Bytes::copy_from_slice(value)),
            None => table.remove(key),
        };
    }
}

impl Store for MemoryStore {
    fn view(&self) -> Arc<dyn ReadView> {
        Arc::new(self.tables.lock().clone())
    }

    fn commit(&self, fill: &mut dyn FnMut(&mut dyn Batch)) -> Result<(), Fault> {
        fill(&mut *self.tables.lock());
        Ok(())
    }

    fn sync(&self) -> Result<(), Fault> {
        *self.synced.lock() = self.tables.lock().clone();
        Ok(())
    }
}
