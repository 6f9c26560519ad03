//! Reads: the state as of one log index. A view never changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::acls::AclTable;
use crate::apply::SessionRow;
use crate::cache::{Cell, NodeCache};
use crate::command::Settings;
use crate::fault::Fault;
use crate::hooks::Hooks;
use crate::keys::{self, Keyspace};
use crate::known::Known;
use crate::members::Members;
use crate::plugins::{Counters, Decisions, Registry};
use crate::recent::Rows;
use crate::znode::{self, Data, Znode};

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
    /// Names the ensemble; 0 before its first command.
    pub cluster_id: u64,
    /// The cluster settings.
    pub settings: Settings,
    /// The servers.
    pub members: Arc<Members>,
    /// What is in the tree.
    pub counts: Counts,
    /// The plugins.
    pub plugins: Arc<Registry>,
    /// What became of their calls, by [`crate::plugins::Row::id`].
    pub counters: Arc<BTreeMap<u32, Counters>>,
    /// What they have said lately on this server.
    pub decisions: Arc<Decisions>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) rows: Rows,
    pub(crate) cache: Arc<NodeCache>,
    pub(crate) known: Arc<Known>,
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

/// What a scan has still to go through, so that it can be done a page at a time.
#[derive(Debug, Clone)]
pub struct Listing {
    keyspace: Keyspace,
    ranges: VecDeque<(Vec<u8>, Vec<u8>)>,
}

impl Listing {
    /// Nothing at all.
    pub fn nothing() -> Self {
        Self { keyspace: Keyspace::Nodes, ranges: VecDeque::new() }
    }

    /// The names of the children of the znode at `path`; the empty path is the root.
    pub fn children(path: &str) -> Self {
        let path = if path.is_empty() { "/" } else { path };
        Self { keyspace: Keyspace::Nodes, ranges: [keys::children(path)].into() }
    }

    /// The names of everything below `path`, itself not listed.
    pub fn below(path: &str) -> Self {
        let path = if path.is_empty() { "/" } else { path };
        let ranges = [keys::children(path), keys::below_children(path)].into();
        Self { keyspace: Keyspace::Nodes, ranges }
    }

    /// The paths of the ephemeral znodes of a session.
    pub fn ephemerals(session: i64) -> Self {
        let from = keys::number(session).to_vec();
        let to = session.checked_add(1).map_or(vec![0xff; 9], |next| keys::number(next).to_vec());
        Self { keyspace: Keyspace::Ephemerals, ranges: [(from, to)].into() }
    }
}

/// A znode's cell in the cache, and the znode.
type Found = (Option<Arc<Cell>>, Option<Arc<Znode>>);

impl View {
    /// Whether both are of one state, which is another one after a snapshot took its place.
    pub fn is_of_same_state(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cache, &other.cache)
    }

    /// The znode at `path`, if there is one. The empty path is the root, as in ZooKeeper.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn node(&self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        let Some(path) = possible(path) else { return Ok(None) };
        if let Some(cached) = self.cache.get(path, self.index) {
            return Ok(cached);
        }
        if !self.store_may_have(path) {
            return Ok(None);
        }
        let node = self.stored(path)?;
        self.cache.put_read(path, self.index, node.clone());
        Ok(node)
    }

    /// The same for the one that applies, with its cell in the cache. That there is no znode is not
    /// worth keeping then, since it is most often about to be created. The path comes with its hash.
    pub(crate) fn node_to_change(&self, asked: &str, hash: u64) -> Result<Found, Fault> {
        let Some(path) = possible(asked) else { return Ok((None, None)) };
        let hash = if asked.is_empty() { xxh3_64(path.as_bytes()) } else { hash };
        if let Some((cell, node)) = self.cache.get_to_change(path, hash, self.index) {
            return Ok((Some(cell), node));
        }
        if !self.known.may_have(hash, self.rows.base_index) {
            return Ok((None, None));
        }
        let node = self.stored(path)?;
        let cell = node.is_some().then(|| self.cache.put_read(path, self.index, node.clone()));
        Ok((cell, node))
    }

    /// The znode at `path`, which is not kept in memory for it: the path is one of very many.
    pub(crate) fn peek(&self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        match self.cache.peek(path, self.index) {
            Some(cached) => Ok(cached),
            None => self.stored(path),
        }
    }

    fn store_may_have(&self, path: &str) -> bool {
        self.known.may_have(xxh3_64(path.as_bytes()), self.rows.base_index)
    }

    fn stored(&self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        let row = self.rows.node_in_store(&keys::node(path))?;
        row.map(|row| Ok(Arc::new(Znode::decode(row, &self.acls)?))).transpose()
    }

    /// The data of a znode that this view gave.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn data(&self, path: &str, node: &Znode) -> Result<Option<Bytes>, Fault> {
        match &node.data {
            Data::Inline(data) => Ok(data.clone()),
            Data::Large(_) => {
                let data = self.rows.get(Keyspace::Data, &keys::node(path))?;
                if znode::hash_of(data.as_deref()) == node.data_hash {
                    return Ok(data);
                }
                let why = format!("the data of {path} has not its hash");
                Err(Fault::Damaged { keyspace: "data", why })
            }
        }
    }

    /// The next `most` of a listing, in the order of their bytes; true if there may be more.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn page(
        &self,
        listing: &mut Listing,
        most: usize,
        mut each: impl FnMut(&str),
    ) -> Result<bool, Fault> {
        let mut left = most;
        while let Some((from, to)) = listing.ranges.front_mut() {
            let rows = self.rows.range(listing.keyspace, from, to, left)?;
            for (key, _) in &rows {
                let name = match listing.keyspace {
                    Keyspace::Nodes => keys::name_of(key),
                    _ => key.get(8..).and_then(|path| std::str::from_utf8(path).ok()),
                };
                name.into_iter().for_each(&mut each);
            }
            match rows.last() {
                Some((last, _)) if rows.len() == left => {
                    *from = [&last[..], b"\0"].concat();
                    return Ok(true);
                }
                _ => listing.ranges.pop_front(),
            };
            left -= rows.len();
        }
        Ok(false)
    }

    /// All names of a listing.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn list(&self, mut listing: Listing) -> Result<Vec<String>, Fault> {
        let mut names = Vec::new();
        while self.page(&mut listing, PAGE_ROWS, |name| names.push(name.to_owned()))? {}
        Ok(names)
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

    /// The session with this id, if there is one.
    ///
    /// # Errors
    /// [`Fault`] if the store fails or the row is damaged.
    pub fn session(&self, id: i64) -> Result<Option<SessionRow>, Fault> {
        let Some(row) = self.rows.get(Keyspace::Sessions, &keys::number(id))? else {
            return Ok(None);
        };
        let damaged = |_| Fault::Damaged {
            keyspace: "sessions",
            why: "a session's row cannot be decoded".to_owned(),
        };
        rmp_serde::from_slice(&row).map(Some).map_err(damaged)
    }

    /// Up to `most` containers and TTL nodes that may be deleted at `time_ms`.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn due(&self, time_ms: i64, most: usize) -> Result<Vec<String>, Fault> {
        let to = keys::number(time_ms);
        let rows = self.rows.range(Keyspace::Due, &[0], &to, most)?;
        let path =
            |key: &Bytes| key.get(8..).and_then(|p| std::str::from_utf8(p).ok().map(str::to_owned));
        Ok(rows.iter().filter_map(|(key, _)| path(key)).collect())
    }

    /// Every znode in a range of keys.
    pub(crate) fn each_znode(
        &self,
        range: (Vec<u8>, Vec<u8>),
        mut each: impl FnMut(&str, &Znode),
    ) -> Result<(), Fault> {
        let mut result = Ok(());
        self.scan(Keyspace::Nodes, range, |key, _| {
            let found = keys::path_of(key).map(|path| (self.peek(&path), path));
            match found {
                Some((Ok(Some(node)), path)) => each(&path, &node),
                Some((Err(fault), _)) => result = Err(fault),
                Some((Ok(None), _)) | None => {
                    let why = format!("{} is listed and not there", key.escape_ascii());
                    result = Err(Fault::Damaged { keyspace: "nodes", why });
                }
            }
        })?;
        result
    }

    /// The rows of a range; of znodes the keys alone mean anything.
    pub(crate) fn scan(
        &self,
        keyspace: Keyspace,
        (mut from, to): (Vec<u8>, Vec<u8>),
        mut each: impl FnMut(&Bytes, &Bytes),
    ) -> Result<(), Fault> {
        loop {
            let rows = self.rows.range(keyspace, &from, &to, PAGE_ROWS)?;
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

/// A path at which there may be a znode; the empty path is the root.
fn possible(path: &str) -> Option<&str> {
    let path = if path.is_empty() { "/" } else { path };
    (path.starts_with('/') && path.len() <= proto::path::PATH_BYTES_MAX).then_some(path)
}
