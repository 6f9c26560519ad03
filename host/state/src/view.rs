//! Reads: the state as of one log index. A view never changes.

use std::sync::Arc;

use bytes::Bytes;

use crate::acls::AclTable;
use crate::apply::SessionRow;
use crate::cache::NodeCache;
use crate::command::Settings;
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::store::ReadView;
use crate::znode::{Data, Znode};

/// How many rows a scan takes from the store at a time.
const PAGE_ROWS: usize = 1000;

/// The state after one log entry.
pub struct View {
    /// The log index.
    pub index: u64,
    /// The last zxid.
    pub zxid: i64,
    /// The time of the last batch, in milliseconds since the epoch.
    pub time_ms: i64,
    /// The cluster settings.
    pub settings: Settings,
    /// What is in the tree.
    pub counts: Counts,
    pub(crate) store: Arc<dyn ReadView>,
    pub(crate) cache: Arc<NodeCache>,
    pub(crate) acls: Arc<AclTable>,
}

/// Sizes of the tree, kept up to date by every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How many znodes there are, the root and the system's included.
    pub nodes: u64,
    /// The lengths of all paths and all data, in bytes.
    pub bytes: u64,
    /// How many ephemeral znodes there are.
    pub ephemerals: u64,
}

impl View {
    /// The znode at `path`, if there is one. The empty path is the root, as in ZooKeeper.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn node(&self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        let path = if path.is_empty() { "/" } else { path };
        if !path.starts_with('/') || path.len() > proto::path::PATH_BYTES_MAX {
            return Ok(None);
        }
        if let Some(cached) = self.cache.get(path, self.index) {
            return Ok(cached);
        }
        let node = match self.store.get(Keyspace::Nodes, &keys::node(path))? {
            Some(row) => Some(Arc::new(Znode::decode(row, &self.acls)?)),
            None => None,
        };
        self.cache.put_read(path, self.index, node.clone());
        Ok(node)
    }

    /// The data of a znode that this view gave.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn data(&self, path: &str, node: &Znode) -> Result<Option<Bytes>, Fault> {
        match &node.data {
            Data::Inline(data) => Ok(data.clone()),
            Data::Large(_) => self.store.get(Keyspace::Data, &keys::node(path)),
        }
    }

    /// The names of the children of `path`, in the order of their bytes.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn children(&self, path: &str) -> Result<Vec<String>, Fault> {
        let path = if path.is_empty() { "/" } else { path };
        let mut names = Vec::new();
        self.scan(Keyspace::Nodes, keys::children(path), |key, _| {
            names.extend(keys::name_of(key).map(str::to_owned));
        })?;
        Ok(names)
    }

    /// How many znodes there are below `path`, itself not counted.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn descendants(&self, path: &str) -> Result<u64, Fault> {
        if path.is_empty() || path == "/" {
            return Ok(self.counts.nodes.saturating_sub(1));
        }
        let mut count = 0;
        for range in [keys::children(path), keys::below_children(path)] {
            self.scan(Keyspace::Nodes, range, |_, _| count += 1)?;
        }
        Ok(count)
    }

    /// The ephemeral znodes of a session.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn ephemerals(&self, session: i64) -> Result<Vec<String>, Fault> {
        let from = keys::number(session).to_vec();
        let to = session.checked_add(1).map_or(vec![0xff; 9], |next| keys::number(next).to_vec());
        let mut paths = Vec::new();
        self.scan(Keyspace::Ephemerals, (from, to), |key, _| {
            paths.extend(key.get(8..).and_then(|p| std::str::from_utf8(p).ok()).map(str::to_owned));
        })?;
        Ok(paths)
    }

    /// All sessions with their rows.
    ///
    /// # Errors
    /// [`Fault`] if the store fails or a row is damaged.
    pub fn sessions(&self) -> Result<Vec<(i64, SessionRow)>, Fault> {
        let mut rows = Vec::new();
        let mut damaged = false;
        self.scan(Keyspace::Sessions, (vec![0], vec![0xff; 9]), |key, value| {
            match (keys::number_of(key), rmp_serde::from_slice(value)) {
                (Some(id), Ok(row)) => rows.push((id, row)),
                _ => damaged = true,
            }
        })?;
        if damaged {
            let why = "a session's row cannot be decoded".to_owned();
            return Err(Fault::Damaged { keyspace: "sessions", why });
        }
        Ok(rows)
    }

    /// Up to `most` containers and TTL nodes that may be deleted at `time_ms`.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn due(&self, time_ms: i64, most: usize) -> Result<Vec<String>, Fault> {
        let to = keys::number(time_ms);
        let rows = self.store.range(Keyspace::Due, &[0], &to, most)?;
        let path =
            |key: &Bytes| key.get(8..).and_then(|p| std::str::from_utf8(p).ok().map(str::to_owned));
        Ok(rows.iter().filter_map(|(key, _)| path(key)).collect())
    }

    pub(crate) fn scan(
        &self,
        keyspace: Keyspace,
        (mut from, to): (Vec<u8>, Vec<u8>),
        mut each: impl FnMut(&Bytes, &Bytes),
    ) -> Result<(), Fault> {
        loop {
            let rows = self.store.range(keyspace, &from, &to, PAGE_ROWS)?;
            for (key, value) in &rows {
                each(key, value);
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE_ROWS => {
                    from = [&last[..], b"\0"].concat();
                }
                _ => return Ok(()),
            }
        }
    }
}
