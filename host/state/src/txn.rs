//! The pending writes of one entry over the state before it: read-your-writes, undo of one
//! command, then one batch.
//!
//! Invariants:
//! * The digest changes by exactly what changes in the store: for each key, its value before the
//!   entry goes out and its value after the entry comes in.
//! * After [`Txn::rollback`] nothing is left of the commands since the mark.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use proto::Acl;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::acls;
use crate::cache::Cell;
use crate::change::Change;
use crate::command::Settings;
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::mutants::StateMutants;
use crate::plugins::{Ran, Running};
use crate::spare;
use crate::store::Write;
use crate::view::{Counts, View};
use crate::znode::{Data, Owner, Znode};

/// A znode that the entry has looked at: as it was, and as it is by now.
struct Touched {
    /// That of the path, by [`xxh3_64`].
    hash: u64,
    path: Arc<str>,
    /// Its place in the cache, if it had one.
    cell: Option<Arc<Cell>>,
    before: Option<Arc<Znode>>,
    now: Option<Arc<Znode>>,
    written: bool,
}

struct Slot {
    before: Option<Bytes>,
    now: Option<Bytes>,
}

/// What plugins have read of their stores, as it was before the entry: one operation after the other asks
/// for the same.
#[derive(Default)]
struct PrivateRows {
    rows: BTreeMap<Vec<u8>, Option<Bytes>>,
    bytes: usize,
}

/// How much of it is kept; the store is asked again for the rest.
const PRIVATE_BYTES_MAX: usize = 1 << 20;

impl PrivateRows {
    fn get(&mut self, base: &View, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if let Some(row) = self.rows.get(key) {
            return Ok(row.clone());
        }
        let row = base.rows.get(Keyspace::Plugins, key)?;
        self.bytes += key.len() + row.as_ref().map_or(0, Bytes::len) + size_of::<Bytes>();
        if self.bytes <= PRIVATE_BYTES_MAX {
            self.rows.insert(key.to_vec(), row.clone());
        }
        Ok(row)
    }
}

enum Undo {
    /// Which of the znodes, what it was, and what the counts were.
    Node(usize, Option<Arc<Znode>>, Counts),
    Row((Keyspace, Vec<u8>), Option<Bytes>),
    Data(Vec<u8>, Option<Option<Bytes>>),
    Acl,
    /// How much a private store held.
    Store(u32, u64),
}

/// A point to roll back to.
pub(crate) struct Mark {
    undo: usize,
    changes: usize,
}

pub(crate) struct Txn<'a> {
    base: &'a View,
    pub(crate) zxid: i64,
    pub(crate) time_ms: i64,
    pub(crate) settings: Settings,
    pub(crate) counts: Counts,
    pub(crate) changes: Vec<Change>,
    /// In the order in which they were first looked at, which is the same everywhere.
    nodes: Vec<Touched>,
    /// Where in `nodes` a path is. Looked up, never iterated: its order decides nothing.
    places: HashTable<usize>,
    rows: BTreeMap<(Keyspace, Vec<u8>), Slot>,
    private: PrivateRows,
    /// Long data: never read before it is written, so not digested here (its hash is, in its row).
    data: BTreeMap<Vec<u8>, Option<Bytes>>,
    new_acls: Vec<Arc<[Acl]>>,
    first_acl: u32,
    undo: Vec<Undo>,
    pub(crate) plugins: Running<'a>,
    pub(crate) mutants: StateMutants,
}

/// What an entry did to a znode.
pub(crate) struct Changed {
    pub(crate) path: Arc<str>,
    /// Its place in the cache, if it had one.
    pub(crate) cell: Option<Arc<Cell>>,
    /// Whether it was there before the entry.
    pub(crate) existed: bool,
    pub(crate) now: Option<Arc<Znode>>,
}

/// What an entry writes.
pub(crate) struct Finished {
    pub(crate) nodes: Vec<Changed>,
    /// All other rows.
    pub(crate) rows: Vec<Write>,
    pub(crate) new_acls: Vec<Arc<[Acl]>>,
    pub(crate) digest: u128,
    pub(crate) counts: Counts,
    pub(crate) settings: Settings,
    pub(crate) plugins: Ran,
    /// Whether a planted fault has changed something.
    pub(crate) misapplied: bool,
}

impl<'a> Txn<'a> {
    /// What the entry at `index` is to change, over the state before it, whose next ACL and history
    /// these are.
    pub(crate) fn new(base: &'a View, index: u64, (first_acl, history): (u32, u128)) -> Self {
        Self {
            base,
            plugins: Running::new(base, index, history),
            zxid: base.zxid,
            time_ms: base.time_ms,
            settings: base.settings.clone(),
            counts: base.counts,
            changes: Vec::new(),
            nodes: Vec::new(),
            places: HashTable::new(),
            rows: BTreeMap::new(),
            private: PrivateRows::default(),
            data: BTreeMap::new(),
            new_acls: Vec::new(),
            first_acl,
            undo: Vec::new(),
            mutants: StateMutants::default(),
        }
    }

    /// Makes room for the znodes of so many operations, most of which are about one, and some about its
    /// parent besides.
    pub(crate) fn expect(&mut self, operations: usize) {
        let (nodes, znodes) = (&self.nodes, operations + operations / 4 + 4);
        self.places.reserve(znodes, |&place| nodes[place].hash);
        self.nodes.reserve(znodes);
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { undo: self.undo.len(), changes: self.changes.len() }
    }

    /// Forgets what could be undone: the command is done.
    pub(crate) fn settle(&mut self) {
        self.undo.clear();
    }

    pub(crate) fn rollback(&mut self, mark: &Mark) {
        self.changes.truncate(mark.changes);
        while self.undo.len() > mark.undo {
            match self.undo.pop().expect("the length was checked") {
                Undo::Node(place, before, counts) => {
                    self.nodes[place].now = before;
                    self.counts = counts;
                }
                Undo::Row((Keyspace::Plugins, _), _) | Undo::Store(..)
                    if self.mutants.keep_store_effects => {}
                Undo::Row(key, before) => {
                    self.rows.get_mut(&key).expect("it was written").now = before;
                }
                Undo::Data(key, Some(before)) => {
                    self.data.insert(key, before);
                }
                Undo::Data(key, None) => {
                    self.data.remove(&key);
                }
                Undo::Acl => {
                    self.new_acls.pop();
                }
                Undo::Store(id, bytes) => self.plugins.counters(id).store_bytes = bytes,
            }
        }
    }

    /// The znode at `path` as of now.
    pub(crate) fn node(&mut self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        let place = self.place(path)?;
        Ok(self.nodes[place].now.clone())
    }

    fn place(&mut self, path: &str) -> Result<usize, Fault> {
        let hash = xxh3_64(path.as_bytes());
        let nodes = &self.nodes;
        if let Some(place) = self.places.find(hash, |&place| &*nodes[place].path == path) {
            return Ok(*place);
        }
        let (cell, before) = self.base.node_to_change(path, hash)?;
        let place = self.nodes.len();
        // The root's may be asked for by the empty path.
        let known = cell.as_ref().filter(|cell| cell.path.len() == path.len());
        let path = known.map_or_else(|| path.into(), |cell| Arc::clone(&cell.path));
        let now = before.clone();
        self.nodes.push(Touched { hash, path, cell, now, before, written: false });
        let nodes = &self.nodes;
        self.places.insert_unique(hash, place, |&place| nodes[place].hash);
        Ok(place)
    }

    /// Makes, changes or deletes a znode; gives its path and what it is now, shared with what is kept.
    pub(crate) fn put_node(
        &mut self,
        path: &str,
        node: Option<Znode>,
    ) -> Result<(Arc<str>, Option<Arc<Znode>>), Fault> {
        let place = self.place(path)?;
        let now = node.map(|node| spare::znode(node.changed()));
        let touched = &mut self.nodes[place];
        touched.written = true;
        let before = std::mem::replace(&mut touched.now, now.clone());
        let counts = self.counts;
        self.count(path, before.as_deref(), now.as_deref());
        let (was, is) = (before.as_deref().and_then(due), now.as_deref().and_then(due));
        if was != is {
            if let Some(was) = was {
                self.put_row(Keyspace::Due, keys::number_path(was, path), None)?;
            }
            if let Some(is) = is {
                self.put_row(Keyspace::Due, keys::number_path(is, path), Some(Bytes::new()))?;
            }
        }
        self.undo.push(Undo::Node(place, before, counts));
        Ok((Arc::clone(&self.nodes[place].path), now))
    }

    fn count(&mut self, path: &str, before: Option<&Znode>, now: Option<&Znode>) {
        let bytes = |node: &Znode| path.len() as u64 + u64::from(node.data_bytes());
        let ephemeral = |node: &Znode| u64::from(matches!(node.owner, Owner::Session(_)));
        if let Some(node) = before {
            self.counts.nodes -= 1;
            self.counts.bytes -= bytes(node);
            self.counts.ephemerals -= ephemeral(node);
        }
        if let Some(node) = now {
            self.counts.nodes += 1;
            self.counts.bytes += bytes(node);
            self.counts.ephemerals += ephemeral(node);
        }
    }

    /// Stores or deletes the long data of a znode.
    pub(crate) fn put_data(&mut self, path: &str, data: Option<Bytes>) {
        let key = keys::node(path);
        let before = self.data.insert(key.clone(), data);
        self.undo.push(Undo::Data(key, before));
    }

    /// The data of a znode as of now.
    pub(crate) fn data(&self, path: &str, node: &Znode) -> Result<Option<Bytes>, Fault> {
        if matches!(node.data, Data::Large(_))
            && let Some(data) = self.data.get(&keys::node(path))
        {
            return Ok(data.clone());
        }
        self.base.data(path, node)
    }

    pub(crate) fn put_row(
        &mut self,
        keyspace: Keyspace,
        key: Vec<u8>,
        now: Option<Bytes>,
    ) -> Result<(), Fault> {
        let id = (keyspace, key);
        let before = match self.rows.get_mut(&id) {
            Some(slot) => std::mem::replace(&mut slot.now, now),
            None => {
                let before = match keyspace {
                    Keyspace::Plugins => self.private.get(self.base, &id.1)?,
                    _ => self.base.rows.get(keyspace, &id.1)?,
                };
                self.rows.insert(id.clone(), Slot { before: before.clone(), now });
                before
            }
        };
        self.undo.push(Undo::Row(id, before));
        Ok(())
    }

    /// A row of a private store as of now.
    pub(crate) fn private_row(&mut self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.rows.get(&(Keyspace::Plugins, key.to_vec())) {
            Some(slot) => Ok(slot.now.clone()),
            None => self.private.get(self.base, key),
        }
    }

    /// Up to `most` rows in `[from, to)` as of now.
    pub(crate) fn rows_now(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let range = (keyspace, from.to_vec())..(keyspace, to.to_vec());
        let pending: Vec<_> = self.rows.range(range).collect();
        let base = self.base.rows.range(keyspace, from, to, most + pending.len())?;
        let mut rows: BTreeMap<Bytes, Bytes> = base.into_iter().collect();
        for ((_, key), slot) in pending {
            match &slot.now {
                Some(now) => rows.insert(Bytes::copy_from_slice(key), now.clone()),
                None => rows.remove(&key[..]),
            };
        }
        Ok(rows.into_iter().take(most).collect())
    }

    /// A private store holds so much from now on.
    pub(crate) fn put_store_bytes(&mut self, id: u32, bytes: u64) {
        let before = std::mem::replace(&mut self.plugins.counters(id).store_bytes, bytes);
        self.undo.push(Undo::Store(id, before));
    }

    /// Up to `most` keys of the znodes in `[from, to)` as of now.
    pub(crate) fn node_keys(
        &self,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        // The entry has changed few of them, by far.
        let changed = self.nodes.iter().filter(|node| node.written);
        let changed: Vec<_> = changed
            .filter(|node| node.before.is_some() != node.now.is_some())
            .map(|node| (keys::node(&node.path), node.now.is_some()))
            .filter(|(key, _)| &key[..] >= from && &key[..] < to)
            .collect();
        let base = self.base.rows.range(Keyspace::Nodes, from, to, most + changed.len())?;
        let mut keys: std::collections::BTreeSet<Vec<u8>> =
            base.into_iter().map(|(key, _)| key.to_vec()).collect();
        for (key, is_there) in changed {
            if is_there {
                keys.insert(key)
            } else {
                keys.remove(&key)
            };
        }
        Ok(keys.into_iter().take(most).collect())
    }

    /// The znode at a path as of now, for one who goes through very many.
    pub(crate) fn peek(&self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        let hash = xxh3_64(path.as_bytes());
        match self.places.find(hash, |&place| &*self.nodes[place].path == path) {
            Some(place) => Ok(self.nodes[*place].now.clone()),
            None => self.base.peek(path),
        }
    }

    /// Up to `most` keys in `[from, to)`.
    pub(crate) fn keys(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let range = (keyspace, from.to_vec())..(keyspace, to.to_vec());
        let pending: Vec<_> = self.rows.range(range).collect();
        let base = self.base.rows.range(keyspace, from, to, most + pending.len())?;
        let mut keys: std::collections::BTreeSet<Vec<u8>> =
            base.into_iter().map(|(key, _)| key.to_vec()).collect();
        for ((_, key), slot) in pending {
            match slot.now {
                Some(_) => keys.insert(key.clone()),
                None => keys.remove(key),
            };
        }
        Ok(keys.into_iter().take(most).collect())
    }

    /// How many znodes there are at and below `path`, and how many bytes of data they hold.
    pub(crate) fn subtree(&self, path: &str) -> Result<(i64, i64), Fault> {
        let mut sum = (0, 0);
        let mut add = |node: &Znode, sign: i64| {
            sum.0 += sign;
            sum.1 += sign * i64::from(node.data_bytes());
        };
        if let Some(node) = self.base.node(path)? {
            add(&node, 1);
        }
        for range in [keys::children(path), keys::below_children(path)] {
            self.base.each_znode(range, |_, node| add(node, 1))?;
        }
        let below = format!("{}/", path.trim_end_matches('/'));
        for touched in &self.nodes {
            if &*touched.path == path || touched.path.starts_with(&below) {
                touched.before.iter().for_each(|node| add(node, -1));
                touched.now.iter().for_each(|node| add(node, 1));
            }
        }
        Ok(sum)
    }

    /// The id of [`Acl::world`]'s ACL with all permissions.
    pub(crate) fn open_acl(&self) -> (u32, Arc<[Acl]>) {
        (acls::OPEN, Arc::clone(&self.base.acls.open))
    }

    /// The ACL of one of the fixed ids.
    pub(crate) fn fixed_acl(&self, id: u32) -> Arc<[Acl]> {
        self.base.acls.get(id).expect("it is in every table")
    }

    /// The id of an ACL, a new one if it has none yet.
    pub(crate) fn intern(&mut self, acl: Vec<Acl>) -> Result<(u32, Arc<[Acl]>), Fault> {
        if let Some(id) = self.base.acls.id_of(&acl) {
            let acl = self.base.acls.get(id).expect("it has an id");
            return Ok((id, acl));
        }
        if let Some(at) = self.new_acls.iter().position(|known| **known == *acl) {
            return Ok((self.first_acl + at as u32, Arc::clone(&self.new_acls[at])));
        }
        let id = self.first_acl + self.new_acls.len() as u32;
        let row = Bytes::from(acls::encode(&acl));
        let acl: Arc<[Acl]> = acl.into();
        self.new_acls.push(Arc::clone(&acl));
        self.undo.push(Undo::Acl);
        self.put_row(Keyspace::Acls, id.to_be_bytes().to_vec(), Some(row))?;
        Ok((id, acl))
    }

    pub(crate) fn finish(self, mut digest: u128) -> Finished {
        let mut rows = Vec::with_capacity(self.rows.len() + self.data.len());
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut scratch = Vec::new();
        let mut misapplied = false;
        for Touched { path, cell, before, mut now, written, .. } in self.nodes {
            if !written || (before.is_none() && now.is_none()) {
                continue;
            }
            if let Some(before) = &before {
                let hash =
                    before.row_hash().unwrap_or_else(|| hash_node(&mut scratch, &path, before));
                if now.is_some() || !self.mutants.digest_keeps_deleted {
                    digest = digest.wrapping_sub(hash);
                }
            }
            if let Some(node) = &mut now {
                if self.mutants.misapply && !std::mem::replace(&mut misapplied, true) {
                    let node = Arc::make_mut(node);
                    node.version = node.version.wrapping_add(1);
                }
                let hash = hash_node(&mut scratch, &path, node);
                digest = digest.wrapping_add(hash);
                // The next change of it need not hash it again.
                Arc::make_mut(node).set_row_hash(hash);
            }
            nodes.push(Changed { path, cell, existed: before.is_some(), now });
        }
        for ((keyspace, key), slot) in self.rows {
            if slot.before == slot.now {
                continue;
            }
            if let Some(before) = &slot.before {
                digest = digest.wrapping_sub(hash_row(&mut scratch, keyspace, &key, before));
            }
            if let Some(now) = &slot.now {
                digest = digest.wrapping_add(hash_row(&mut scratch, keyspace, &key, now));
            }
            rows.push((keyspace, key, slot.now));
        }
        rows.extend(self.data.into_iter().map(|(key, data)| (Keyspace::Data, key, data)));
        Finished {
            nodes,
            rows,
            new_acls: self.new_acls,
            digest,
            counts: self.counts,
            settings: self.settings,
            plugins: self.plugins.end(),
            misapplied,
        }
    }
}

/// When a znode may be deleted by the server, in ms since the epoch; 0 for an unused container.
fn due(node: &Znode) -> Option<i64> {
    match node.owner {
        Owner::Container if node.children == 0 && node.creates != 0 => Some(0),
        Owner::Ttl(ttl_ms) if node.children == 0 => Some(node.mtime.saturating_add(ttl_ms)),
        Owner::Container | Owner::Ttl(_) | Owner::Persistent | Owner::Session(_) => None,
    }
}

pub(crate) fn may_reap(node: &Znode, time_ms: i64) -> bool {
    due(node).is_some_and(|due| due < time_ms)
}

/// The hash of a znode's row, its data's hash in place of the data.
pub(crate) fn node_hash(path: &str, node: &Znode) -> u128 {
    hash_node(&mut Vec::new(), path, node)
}

/// The hash of any other row.
pub(crate) fn row_hash(keyspace: Keyspace, key: &[u8], value: &[u8]) -> u128 {
    hash_row(&mut Vec::new(), keyspace, key, value)
}

// One piece hashes several times faster than a stream of four; `scratch` is memory for it.

fn hash_node(scratch: &mut Vec<u8>, path: &str, node: &Znode) -> u128 {
    scratch.clear();
    scratch.push(Keyspace::Nodes as u8);
    scratch.extend_from_slice(&[0; 4]);
    keys::push_node(scratch, path);
    let key_bytes = scratch.len() as u32 - 5;
    scratch[1..5].copy_from_slice(&key_bytes.to_be_bytes());
    node.encode_head(scratch);
    xxh3_128(scratch)
}

fn hash_row(scratch: &mut Vec<u8>, keyspace: Keyspace, key: &[u8], value: &[u8]) -> u128 {
    scratch.clear();
    scratch.push(keyspace as u8);
    scratch.extend_from_slice(&(key.len() as u32).to_be_bytes());
    scratch.extend_from_slice(key);
    scratch.extend_from_slice(value);
    xxh3_128(scratch)
}
