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
use proto::Acl;
use xxhash_rust::xxh3::Xxh3;

use crate::acls;
use crate::change::Change;
use crate::command::Settings;
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::store::Write;
use crate::view::{Counts, View};
use crate::znode::{Owner, Znode};

struct Slot<T> {
    before: Option<T>,
    now: Option<T>,
}

enum Undo {
    Node(Box<str>, Option<Arc<Znode>>),
    Row((Keyspace, Vec<u8>), Option<Bytes>),
    Data(Vec<u8>, Option<Option<Bytes>>),
    Acl,
    Counts(Counts),
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
    nodes: BTreeMap<Box<str>, Slot<Arc<Znode>>>,
    rows: BTreeMap<(Keyspace, Vec<u8>), Slot<Bytes>>,
    /// Long data: never read before it is written, so not digested here (its hash is, in its row).
    data: BTreeMap<Vec<u8>, Option<Bytes>>,
    new_acls: Vec<Arc<[Acl]>>,
    first_acl: u32,
    undo: Vec<Undo>,
}

/// What an entry writes.
pub(crate) struct Finished {
    pub(crate) writes: Vec<Write>,
    pub(crate) nodes: Vec<(Box<str>, Option<Arc<Znode>>)>,
    pub(crate) new_acls: Vec<Arc<[Acl]>>,
    pub(crate) digest: u128,
    pub(crate) counts: Counts,
    pub(crate) settings: Settings,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(base: &'a View, first_acl: u32) -> Self {
        Self {
            base,
            zxid: base.zxid,
            time_ms: base.time_ms,
            settings: base.settings.clone(),
            counts: base.counts,
            changes: Vec::new(),
            nodes: BTreeMap::new(),
            rows: BTreeMap::new(),
            data: BTreeMap::new(),
            new_acls: Vec::new(),
            first_acl,
            undo: Vec::new(),
        }
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
                Undo::Node(path, before) => {
                    self.nodes.get_mut(&path).expect("it was written").now = before;
                }
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
                Undo::Counts(before) => self.counts = before,
            }
        }
    }

    pub(crate) fn node(&self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        match self.nodes.get(path) {
            Some(slot) => Ok(slot.now.clone()),
            None => self.base.node(path),
        }
    }

    pub(crate) fn put_node(&mut self, path: &str, node: Option<Znode>) -> Result<(), Fault> {
        let now = node.map(Arc::new);
        let before = match self.nodes.get_mut(path) {
            Some(slot) => std::mem::replace(&mut slot.now, now.clone()),
            None => {
                let before = self.base.node(path)?;
                let slot = Slot { before: before.clone(), now: now.clone() };
                self.nodes.insert(path.into(), slot);
                before
            }
        };
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
        self.undo.push(Undo::Node(path.into(), before));
        Ok(())
    }

    fn count(&mut self, path: &str, before: Option<&Znode>, now: Option<&Znode>) {
        self.undo.push(Undo::Counts(self.counts));
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
        match (&node.data, self.data.get(&keys::node(path))) {
            (crate::znode::Data::Large(_), Some(data)) => Ok(data.clone()),
            _ => self.base.data(path, node),
        }
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
                let before = self.base.store.get(keyspace, &id.1)?;
                self.rows.insert(id.clone(), Slot { before: before.clone(), now });
                before
            }
        };
        self.undo.push(Undo::Row(id, before));
        Ok(())
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
        let base = self.base.store.range(keyspace, from, to, most + pending.len())?;
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
        let mut result = Ok(());
        for range in [keys::children(path), keys::below_children(path)] {
            self.base.scan(Keyspace::Nodes, range, |_, row| {
                match Znode::decode(row.clone(), &self.base.acls) {
                    Ok(node) => add(&node, 1),
                    Err(fault) => result = Err(fault),
                }
            })?;
        }
        result?;
        let below = format!("{}/", path.trim_end_matches('/'));
        for (at, slot) in &self.nodes {
            if &**at == path || at.starts_with(&below) {
                slot.before.iter().for_each(|node| add(node, -1));
                slot.now.iter().for_each(|node| add(node, 1));
            }
        }
        Ok(sum)
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
        let mut writes = Vec::with_capacity(self.nodes.len() + self.rows.len() + self.data.len());
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (path, slot) in self.nodes {
            if slot.before.is_none() && slot.now.is_none() {
                continue;
            }
            let key = keys::node(&path);
            if let Some(before) = &slot.before {
                let row = before.encode();
                let hash = row_hash(Keyspace::Nodes, &key, Znode::digest_head(&row));
                digest = digest.wrapping_sub(hash);
            }
            let row = slot.now.as_ref().map(|node| node.encode());
            if let Some(row) = &row {
                let hash = row_hash(Keyspace::Nodes, &key, Znode::digest_head(row));
                digest = digest.wrapping_add(hash);
            }
            writes.push((Keyspace::Nodes, key, row.map(Bytes::from)));
            nodes.push((path, slot.now));
        }
        for ((keyspace, key), slot) in self.rows {
            if slot.before == slot.now {
                continue;
            }
            if let Some(before) = &slot.before {
                digest = digest.wrapping_sub(row_hash(keyspace, &key, before));
            }
            if let Some(now) = &slot.now {
                digest = digest.wrapping_add(row_hash(keyspace, &key, now));
            }
            writes.push((keyspace, key, slot.now));
        }
        writes.extend(self.data.into_iter().map(|(key, data)| (Keyspace::Data, key, data)));
        Finished {
            writes,
            nodes,
            new_acls: self.new_acls,
            digest,
            counts: self.counts,
            settings: self.settings,
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

pub(crate) fn row_hash(keyspace: Keyspace, key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&[keyspace as u8]);
    hasher.update(&(key.len() as u32).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.digest128()
}
