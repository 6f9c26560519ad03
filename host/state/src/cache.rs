//! Decoded znodes in memory, each valid from some log index on.
//!
//! Invariants:
//! * A reader with a view of index *v* sees the newest version that is not newer than *v*; where
//!   the cache holds only newer ones, the reader asks its own picture of the store.
//! * Every row that an entry changes is put here before the entry is published.
//! * Nothing is thrown out that is newer than the picture of the store that any view alive has: such
//!   a view finds it nowhere else, and a reader that puts what it read can then never hide a change
//!   that was thrown out in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::Mutex;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::alive::Alive;
use crate::znode::Znode;

const SHARDS: usize = 64;

type Version = (u64, Option<Arc<Znode>>);

struct Entry {
    /// That of the path.
    hash: u64,
    path: Arc<str>,
    /// The newest version.
    newest: Version,
    /// Older ones that a view may still ask for, newest first.
    older: SmallVec<[Version; 1]>,
    /// What it was last counted with in the shard's bytes.
    bytes: usize,
    /// Whether it was asked for since it was last passed over for eviction.
    used: bool,
    /// The gathering in which it was last written.
    gathering: u32,
}

#[derive(Default)]
struct Shard {
    /// Looked up, never iterated: its order decides nothing.
    entries: HashTable<Entry>,
    queue: VecDeque<Arc<str>>,
    bytes: usize,
}

impl Entry {
    fn as_of(&self, index: u64) -> Option<Option<Arc<Znode>>> {
        let mut versions = std::iter::once(&self.newest).chain(&self.older);
        Some(versions.find(|(from, _)| *from <= index)?.1.clone())
    }
}

impl Shard {
    fn entry(&mut self, hash: u64, path: &str) -> Option<&mut Entry> {
        self.entries.find_mut(hash, |entry| entry.hash == hash && &*entry.path == path)
    }
}

/// The cache, shared by the one that applies and all that read.
pub(crate) struct NodeCache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: usize,
    /// No view older than this is alive.
    oldest: AtomicU64,
    /// No view alive has a picture of the store that is older than this.
    oldest_base: AtomicU64,
}

impl NodeCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_bytes_max: bytes_max / SHARDS,
            oldest: AtomicU64::new(0),
            oldest_base: AtomicU64::new(0),
        }
    }

    /// How many bytes it may hold, about.
    pub(crate) fn bytes_max(&self) -> usize {
        self.shard_bytes_max * SHARDS
    }

    /// A shard is chosen by bits that its table does not use.
    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// The znode at `path` as of `index`: `None` where the store must be asked, `Some(None)` where
    /// there was none.
    pub(crate) fn get(&self, path: &str, index: u64) -> Option<Option<Arc<Znode>>> {
        self.find(path, index, true)
    }

    /// The same for one who goes through very many: it does not count as asking for this one.
    pub(crate) fn peek(&self, path: &str, index: u64) -> Option<Option<Arc<Znode>>> {
        self.find(path, index, false)
    }

    /// The same for the one who writes it to the store, who also forgets what no view asks for any more.
    pub(crate) fn settle(&self, path: &str, index: u64) -> Option<Option<Arc<Znode>>> {
        let hash = xxh3_64(path.as_bytes());
        let mut shard = self.shard(hash).lock();
        let entry = shard.entry(hash, path)?;
        let node = entry.as_of(index)?;
        if entry.newest.0 <= self.oldest.load(Ordering::Relaxed) {
            entry.older = SmallVec::new();
        }
        Some(node)
    }

    fn find(&self, path: &str, index: u64, used: bool) -> Option<Option<Arc<Znode>>> {
        let hash = xxh3_64(path.as_bytes());
        let mut shard = self.shard(hash).lock();
        let entry = shard.entry(hash, path)?;
        entry.used |= used;
        entry.as_of(index)
    }

    /// Keeps what a view of `index` read from the store.
    pub(crate) fn put_read(&self, path: &str, index: u64, node: Option<Arc<Znode>>) {
        let hash = xxh3_64(path.as_bytes());
        let mut shard = self.shard(hash).lock();
        if shard.entry(hash, path).is_none() {
            self.insert(&mut shard, hash, path.into(), (index, node), 0);
        }
    }

    /// Keeps what the entry at `index` wrote, and of what was before all that the views of `alive`
    /// see. The first of its gathering, by number from 1, that wrote this znode is given how much memory
    /// that takes, in bytes.
    pub(crate) fn put_written(
        &self,
        path: &Arc<str>,
        index: u64,
        node: Option<Arc<Znode>>,
        alive: &Alive,
        gathering: u32,
    ) -> Option<usize> {
        let hash = xxh3_64(path.as_bytes());
        let mut shard = self.shard(hash).lock();
        let Some(entry) = shard.entry(hash, path) else {
            let path = Arc::clone(path);
            return Some(self.insert(&mut shard, hash, path, (index, node), gathering));
        };
        let first = std::mem::replace(&mut entry.gathering, gathering) != gathering;
        let before = std::mem::replace(&mut entry.newest, (index, node));
        let bytes = entry_bytes(path, &entry.newest);
        let counted = std::mem::replace(&mut entry.bytes, bytes);
        if !entry.older.is_empty() {
            let mut until = before.0;
            entry.older.retain(|(from, _)| alive.any(*from, std::mem::replace(&mut until, *from)));
        }
        if alive.any(before.0, index) {
            entry.older.insert(0, before);
        }
        shard.bytes = (shard.bytes + bytes).saturating_sub(counted);
        first.then_some(bytes)
    }

    /// Tells that no view older than `index` is alive, nor one whose picture of the store is older
    /// than `base`.
    pub(crate) fn set_oldest(&self, index: u64, base: u64) {
        self.oldest.store(index, Ordering::Relaxed);
        self.oldest_base.store(base, Ordering::Relaxed);
    }

    fn insert(
        &self,
        shard: &mut Shard,
        hash: u64,
        path: Arc<str>,
        newest: Version,
        gathering: u32,
    ) -> usize {
        let bytes = entry_bytes(&path, &newest);
        shard.bytes += bytes;
        shard.queue.push_back(Arc::clone(&path));
        let older = SmallVec::new();
        let entry = Entry { hash, path, newest, older, bytes, used: false, gathering };
        shard.entries.insert_unique(hash, entry, |entry| entry.hash);
        let oldest = self.oldest.load(Ordering::Relaxed);
        let oldest_base = self.oldest_base.load(Ordering::Relaxed);
        // A few steps for each insertion keep the bound without ever stalling anyone.
        for _ in 0..4 {
            if shard.bytes <= self.shard_bytes_max {
                break;
            }
            let Some(path) = shard.queue.pop_front() else { break };
            let hash = xxh3_64(path.as_bytes());
            let Some(entry) = shard.entry(hash, &path) else { continue };
            if entry.newest.0 <= oldest {
                entry.older.clear();
            }
            if entry.used || entry.newest.0 > oldest_base {
                entry.used = false;
                shard.queue.push_back(path);
                continue;
            }
            let evicted = entry.bytes;
            if let Ok(entry) = shard.entries.find_entry(hash, |entry| *entry.path == *path) {
                entry.remove();
            }
            shard.bytes = shard.bytes.saturating_sub(evicted);
        }
        bytes
    }
}

fn entry_bytes(path: &str, version: &Version) -> usize {
    path.len() + 160 + version.1.as_ref().map_or(0, |node| node.memory_bytes())
}
