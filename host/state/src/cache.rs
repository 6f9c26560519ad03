//! Decoded znodes in memory, each valid from some log index on.
//!
//! Invariants:
//! * A reader with a view of index *v* sees the newest version that is not newer than *v*; where
//!   the cache holds only newer ones, the reader asks its own picture of the store.
//! * Every row that an entry changes is put here before the entry is published.
//! * Nothing is thrown out that is newer than the picture of the store that any view alive has: such
//!   a view finds it nowhere else, and a reader that puts what it read can then never hide a change
//!   that was thrown out in between.
//! * A cell that anybody holds is not thrown out: what is written to it is written to the cache.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::alive::Alive;
use crate::spare;
use crate::znode::Znode;

const SHARDS: usize = 64;
/// How many are brought near at once without memory for them being asked for.
pub(crate) const NEAR: usize = 64;
/// How many are looked at together, to be thrown out; and after how many that came in, so that nobody is
/// stalled by many that must stay.
const EVICTED_AT_ONCE: usize = 16;
const EVICTED_AFTER: u32 = 4;

type Version = (u64, Option<Arc<Znode>>);

/// A path's place in the cache. Whoever holds it can go on without looking it up; it is not thrown
/// out while anybody does.
pub(crate) struct Cell {
    /// That of the path, by [`xxh3_64`].
    pub(crate) hash: u64,
    pub(crate) path: Arc<str>,
    /// Whether it was asked for since it was last passed over for eviction.
    used: AtomicBool,
    versions: Mutex<Versions>,
}

struct Versions {
    newest: Version,
    /// Older ones that a view may still ask for, newest first.
    older: SmallVec<[Version; 1]>,
    /// What it was last counted with in the shard's bytes.
    bytes: usize,
    /// The gathering in which it was last written.
    gathering: u32,
}

#[derive(Default)]
struct Shard {
    table: Mutex<Table>,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Table {
    /// Looked up, never iterated: its order decides nothing.
    cells: HashTable<Arc<Cell>>,
    queue: VecDeque<Arc<Cell>>,
    /// How many came in since anything was thrown out.
    came: u32,
}

/// What became of a write to the cache.
pub(crate) struct Written {
    pub(crate) cell: Arc<Cell>,
    /// How much memory it takes, in bytes, for the first of its gathering that wrote this znode.
    pub(crate) first: Option<usize>,
    /// Whether older versions are kept, for views that may soon be gone: see [`Cell::forget`].
    pub(crate) has_older: bool,
}

impl Versions {
    fn as_of(&self, index: u64) -> Option<Option<Arc<Znode>>> {
        let mut all = std::iter::once(&self.newest).chain(&self.older);
        Some(all.find(|(from, _)| *from <= index)?.1.clone())
    }

    /// Forgets the older ones that the views of `alive` do not see.
    fn forget(&mut self, alive: &Alive) {
        if !self.older.is_empty() {
            let mut until = self.newest.0;
            self.older.retain(|(from, node)| {
                let is_seen = alive.any(*from, std::mem::replace(&mut until, *from));
                if !is_seen {
                    node.take().into_iter().for_each(spare::give);
                }
                is_seen
            });
        }
    }
}

impl Cell {
    /// Forgets the older versions that the views of `alive` do not see any more.
    pub(crate) fn forget(&self, alive: &Alive) {
        self.versions.lock().forget(alive);
    }

    fn as_of(&self, index: u64) -> Option<Option<Arc<Znode>>> {
        self.versions.lock().as_of(index)
    }
}

impl Table {
    fn find(&self, hash: u64, path: &str) -> Option<&Arc<Cell>> {
        self.cells.find(hash, |cell| cell.hash == hash && &*cell.path == path)
    }
}

/// The cache, shared by the one that applies and all that read.
pub(crate) struct NodeCache {
    shards: Vec<Shard>,
    shard_bytes_max: usize,
    /// No view older than this is alive.
    oldest: AtomicU64,
    /// No view alive has a picture of the store that is older than this.
    oldest_base: AtomicU64,
}

impl NodeCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            shard_bytes_max: bytes_max / SHARDS,
            oldest: AtomicU64::new(0),
            oldest_base: AtomicU64::new(0),
        }
    }

    /// How many bytes it may hold, about.
    pub(crate) fn bytes_max(&self) -> usize {
        self.shard_bytes_max * SHARDS
    }

    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[shard_of(hash)]
    }

    /// The znode at `path` as of `index`: `None` where the store must be asked, `Some(None)` where
    /// there was none.
    pub(crate) fn get(&self, path: &str, index: u64) -> Option<Option<Arc<Znode>>> {
        let hash = xxh3_64(path.as_bytes());
        let table = self.shard(hash).table.lock();
        let cell = table.find(hash, path)?;
        cell.used.store(true, Ordering::Relaxed);
        cell.as_of(index)
    }

    /// The same for one who goes through very many: it does not count as asking for this one.
    pub(crate) fn peek(&self, path: &str, index: u64) -> Option<Option<Arc<Znode>>> {
        let hash = xxh3_64(path.as_bytes());
        self.shard(hash).table.lock().find(hash, path)?.as_of(index)
    }

    /// The same for the one that applies, who may be about to write it and has hashed the path.
    pub(crate) fn get_to_change(
        &self,
        path: &str,
        hash: u64,
        index: u64,
    ) -> Option<(Arc<Cell>, Option<Arc<Znode>>)> {
        let cell = Arc::clone(self.shard(hash).table.lock().find(hash, path)?);
        cell.used.store(true, Ordering::Relaxed);
        let node = cell.as_of(index)?;
        Some((cell, node))
    }

    /// Has the processor fetch what is here of znodes that are about to be looked up, by the hashes of
    /// their paths. It changes nothing, and leaves out what somebody else has locked.
    pub(crate) fn bring_near(&self, hashes: &[u64]) {
        let mut tables = [const { None }; SHARDS];
        for hash in hashes {
            let shard = shard_of(*hash);
            if tables[shard].is_none() {
                tables[shard] = self.shards[shard].table.try_lock();
            }
        }
        let cells: SmallVec<[&Arc<Cell>; NEAR]> = hashes
            .iter()
            .filter_map(|hash| {
                // Whatever has a hash like it: to look closer would be to wait for it.
                let table = tables[shard_of(*hash)].as_ref();
                table.and_then(|table| table.cells.find(*hash, |_| true))
            })
            .collect();
        touch(&cells);
    }

    /// What is to be written to the store as of `index`; what no view asks for any more is forgotten.
    ///
    /// # Panics
    /// If it is not there any more, though it was pinned.
    pub(crate) fn settle(&self, cell: &Cell, index: u64) -> Option<Arc<Znode>> {
        let mut versions = cell.versions.lock();
        let node = versions.as_of(index).expect("it is pinned until it is written");
        if versions.newest.0 <= self.oldest.load(Ordering::Relaxed) {
            versions.older = SmallVec::new();
        }
        node
    }

    /// Keeps what a view of `index` read from the store.
    pub(crate) fn put_read(&self, path: &str, index: u64, node: Option<Arc<Znode>>) -> Arc<Cell> {
        let hash = xxh3_64(path.as_bytes());
        let shard = self.shard(hash);
        let mut table = shard.table.lock();
        match table.find(hash, path) {
            Some(cell) => Arc::clone(cell),
            None => self.insert(shard, &mut table, hash, path.into(), (index, node), 0),
        }
    }

    /// Keeps what the entry at `index` wrote at a path, whose cell is given if it is known, and of what
    /// was before all that the views of `alive` see. The gathering's number is from 1.
    pub(crate) fn put_written(
        &self,
        cell: Option<Arc<Cell>>,
        path: &Arc<str>,
        (index, node): Version,
        alive: &Alive,
        gathering: u32,
    ) -> Written {
        let cell = match cell {
            Some(cell) => cell,
            None => {
                let hash = xxh3_64(path.as_bytes());
                let shard = self.shard(hash);
                let mut table = shard.table.lock();
                let Some(cell) = table.find(hash, path) else {
                    let (path, written) = (Arc::clone(path), (index, node));
                    let bytes = entry_bytes(&path, &written);
                    let cell = self.insert(shard, &mut table, hash, path, written, gathering);
                    return Written { cell, first: Some(bytes), has_older: false };
                };
                Arc::clone(cell)
            }
        };
        let mut versions = cell.versions.lock();
        let first = std::mem::replace(&mut versions.gathering, gathering) != gathering;
        versions.forget(alive);
        let before = std::mem::replace(&mut versions.newest, (index, node));
        let bytes = entry_bytes(path, &versions.newest);
        let counted = std::mem::replace(&mut versions.bytes, bytes);
        if alive.any(before.0, index) {
            versions.older.insert(0, before);
        }
        let has_older = !versions.older.is_empty();
        drop(versions);
        let shard = self.shard(cell.hash);
        shard.bytes.fetch_add(bytes, Ordering::Relaxed);
        shard.bytes.fetch_sub(counted, Ordering::Relaxed);
        Written { cell, first: first.then_some(bytes), has_older }
    }

    /// Tells that no view older than `index` is alive, nor one whose picture of the store is older
    /// than `base`.
    pub(crate) fn set_oldest(&self, index: u64, base: u64) {
        self.oldest.store(index, Ordering::Relaxed);
        self.oldest_base.store(base, Ordering::Relaxed);
    }

    fn insert(
        &self,
        shard: &Shard,
        table: &mut Table,
        hash: u64,
        path: Arc<str>,
        newest: Version,
        gathering: u32,
    ) -> Arc<Cell> {
        let bytes = entry_bytes(&path, &newest);
        let versions = Versions { newest, older: SmallVec::new(), bytes, gathering };
        let (used, versions) = (AtomicBool::new(false), Mutex::new(versions));
        let cell = Arc::new(Cell { hash, path, used, versions });
        table.queue.push_back(Arc::clone(&cell));
        table.cells.insert_unique(hash, Arc::clone(&cell), |cell| cell.hash);
        shard.bytes.fetch_add(bytes, Ordering::Relaxed);
        table.came += 1;
        if table.came >= EVICTED_AFTER && shard.bytes.load(Ordering::Relaxed) > self.shard_bytes_max
        {
            table.came = 0;
            self.evict(shard, table);
        }
        cell
    }

    /// Throws out what was not asked for of the next few in the queue: of so many that what each of them
    /// waits for does not hold up the others.
    fn evict(&self, shard: &Shard, table: &mut Table) {
        let oldest = self.oldest.load(Ordering::Relaxed);
        let oldest_base = self.oldest_base.load(Ordering::Relaxed);
        let few = table.queue.len().min(EVICTED_AT_ONCE);
        let cells: SmallVec<[Arc<Cell>; EVICTED_AT_ONCE]> = table.queue.drain(..few).collect();
        touch(&cells.iter().collect::<SmallVec<[_; EVICTED_AT_ONCE]>>());
        for cell in cells {
            let mut versions = cell.versions.lock();
            if versions.newest.0 <= oldest {
                versions.older.clear();
            }
            // It is got hold of under the table's lock alone: besides the table and the queue, nobody
            // has it, and nobody can get it.
            let held = Arc::strong_count(&cell) > 2;
            let used = cell.used.swap(false, Ordering::Relaxed);
            if held || used || versions.newest.0 > oldest_base {
                drop(versions);
                table.queue.push_back(cell);
                continue;
            }
            shard.bytes.fetch_sub(versions.bytes, Ordering::Relaxed);
            drop(versions);
            if let Ok(entry) = table.cells.find_entry(cell.hash, |other| Arc::ptr_eq(other, &cell))
            {
                entry.remove();
            }
            if let Some(Cell { versions, .. }) = Arc::into_inner(cell) {
                versions.into_inner().newest.1.into_iter().for_each(spare::give);
            }
        }
    }
}

/// Has the processor fetch all that is here of some cells, but for what somebody else has locked.
///
/// Each step only reads where the one before it found something, so that what one cell waits for does not
/// hold up the others; a lock in between would, hence all are taken before anything is read under them.
pub(crate) fn touch(cells: &[&Arc<Cell>]) {
    // A cell takes two lines of memory at least; its count of holders is in the first.
    let whole = |cell: &&Arc<Cell>| {
        let is_used = u64::from(cell.used.load(Ordering::Relaxed));
        cell.hash ^ is_used ^ Arc::strong_count(cell) as u64
    };
    let mut read = cells.iter().map(whole).fold(0, u64::wrapping_add);
    for cell in cells {
        read = read.wrapping_add(cell.path.bytes().next().map_or(0, u64::from));
    }
    let locked = cells.iter().filter_map(|cell| cell.versions.try_lock());
    let locked: SmallVec<[MutexGuard<'_, Versions>; NEAR]> = locked.collect();
    for versions in &locked {
        let node = versions.newest.1.as_ref();
        let node = node.map_or(0, |node| node.read_all() ^ Arc::strong_count(node) as u64);
        read = read.wrapping_add(node ^ versions.bytes as u64 ^ versions.older.len() as u64);
    }
    std::hint::black_box(read);
}

/// Has the processor fetch the paths of some cells, in the way of [`touch`].
pub(crate) fn touch_paths(cells: &[Arc<Cell>]) {
    let read = cells.iter().map(|cell| cell.hash).fold(0, u64::wrapping_add);
    let ends = |path: &[u8]| {
        u64::from(*path.first().unwrap_or(&0)) ^ u64::from(*path.last().unwrap_or(&0))
    };
    let paths = cells.iter().map(|cell| ends(cell.path.as_bytes())).fold(read, u64::wrapping_add);
    std::hint::black_box(paths);
}

/// By bits that its table does not use.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

fn entry_bytes(path: &str, version: &Version) -> usize {
    path.len() + 160 + version.1.as_ref().map_or(0, |node| node.memory_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replaced_is_there_for_as_long_as_a_view_sees_it() {
        let cache = NodeCache::new(1 << 20);
        let path: Arc<str> = "/a".into();
        let cell = cache.put_read(&path, 4, None);
        let write = |index, alive: &[u64]| {
            let cell = Some(Arc::clone(&cell));
            cache.put_written(cell, &path, (index, None), &Alive::at(alive), 1)
        };
        let first = write(7, &[5, 6]);
        assert!(first.first.is_some() && first.has_older);
        let second = write(8, &[6, 7]);
        assert!(second.first.is_none(), "it was written in this gathering");
        let seen = || (4..9).map(|index| cell.as_of(index).is_some()).collect::<Vec<_>>();
        assert_eq!(seen(), [true; 5]);
        cell.forget(&Alive::at(&[5, 8]));
        assert_eq!(seen(), [true; 5], "5 is in the hands of somebody");
        cell.forget(&Alive::at(&[8]));
        assert_eq!(seen(), [false, false, false, false, true]);
        assert!(!write(9, &[]).has_older, "nobody saw the one before");
    }
}
