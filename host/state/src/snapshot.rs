//! The whole state, as it goes from one server to another: in chunks, from any point on.
//!
//! A [`Source`] is the store as of one entry. It holds no view, so that however long it is read, it
//! costs no memory and hides nothing from the cache. A [`Staging`] fills an empty store with its
//! chunks, and is whole only if a [`Checker`] finds that they are what their meta row says.
//!
//! Invariants:
//! * The meta row is written last, with the format: a store that was not finished opens as empty.

mod check;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::apply::{FORMAT_KEY, META_KEY, Meta, STORE_FORMAT};
use crate::fault::Fault;
use crate::keys::Keyspace;
use crate::store::{ReadView, Store};

pub use self::check::Checker;

/// How many bytes of rows a chunk holds, about, as servers send them.
pub const CHUNK_BYTES_MAX: usize = 512 << 10;
/// How many rows are read from the store at a time.
const PAGE_ROWS: usize = 256;
/// The parts of modules are large.
fn page_rows(keyspace: Keyspace) -> usize {
    if keyspace == Keyspace::Modules { 1 } else { PAGE_ROWS }
}

/// The order in which the tables are sent.
const ORDER: [Keyspace; 8] = [
    Keyspace::Acls,
    Keyspace::Nodes,
    Keyspace::Data,
    Keyspace::Sessions,
    Keyspace::Ephemerals,
    Keyspace::Due,
    Keyspace::Plugins,
    Keyspace::Modules,
];

/// Where a chunk begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Which table, in the order in which they are sent.
    table: u8,
    /// The first key that may be in the chunk.
    from: Bytes,
}

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Where it begins.
    pub at: Cursor,
    /// Rows: table, key, value.
    rows: Vec<(u8, Bytes, Bytes)>,
    /// What comes after it.
    next: Next,
}

impl Chunk {
    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Where the next one begins; `None` if this is the last.
    pub fn next(&self) -> Option<&Cursor> {
        match &self.next {
            Next::Chunk(cursor) => Some(cursor),
            Next::Meta(_) => None,
        }
    }
}

/// What comes after a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Next {
    /// The chunk there.
    Chunk(Cursor),
    /// Nothing: the meta row.
    Meta(Bytes),
}

/// The state as of one entry, to be sent.
pub struct Source {
    base: Arc<dyn ReadView>,
    meta: Meta,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("applied", &self.meta.applied).finish_non_exhaustive()
    }
}

impl Source {
    pub(crate) fn new(base: Arc<dyn ReadView>, meta: Meta) -> Self {
        Self { base, meta }
    }

    /// What stands beside the tree: the entry that it is as of, the membership, the digests.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The chunk that begins there, with rows of `bytes_max` bytes, one row at least.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn chunk(&self, at: Cursor, bytes_max: usize) -> Result<Chunk, Fault> {
        let (mut rows, mut bytes) = (Vec::new(), 0usize);
        let mut from = at.from.to_vec();
        for (table, keyspace) in ORDER.into_iter().enumerate().skip(usize::from(at.table)) {
            loop {
                // Above every key: none begins with these bytes.
                let page_rows = page_rows(keyspace);
                let page = self.base.range(keyspace, &from, &[0xff; 9], page_rows)?;
                let whole = page.len() < page_rows;
                for (key, value) in page {
                    if !rows.is_empty() && bytes >= bytes_max {
                        let next = Next::Chunk(Cursor { table: table as u8, from: key });
                        return Ok(Chunk { at, rows, next });
                    }
                    bytes += key.len() + value.len() + 16;
                    from = [&key[..], b"\0"].concat();
                    rows.push((table as u8, key, value));
                }
                if whole {
                    break;
                }
            }
            from = Vec::new();
        }
        let meta = crate::apply::encode_meta(&self.meta);
        Ok(Chunk { at, rows, next: Next::Meta(meta) })
    }
}

/// A store that is being filled.
pub struct Staging {
    store: Box<dyn Store>,
    checker: Checker,
    /// Names the ensemble that is born from the snapshot.
    born: Option<u64>,
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").field("rows", &self.rows()).finish_non_exhaustive()
    }
}

/// A store that holds the whole state, durably.
pub struct Staged {
    pub(crate) store: Box<dyn Store>,
    meta: Meta,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged").field("applied", &self.meta.applied).finish_non_exhaustive()
    }
}

impl Staged {
    /// What stands beside the tree.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// How far a staging is.
#[derive(Debug)]
pub enum Progress {
    /// There are further chunks.
    Unfinished(Staging),
    /// That was the last one.
    Whole(Staged),
}

impl Staging {
    /// Begins to fill an empty store.
    pub fn new(store: Box<dyn Store>) -> Self {
        Self { store, checker: Checker::new(), born: None }
    }

    /// The same, for a new ensemble that is born from the snapshot; `cluster_id` names it. Its first
    /// server says who is in it ([`crate::State::found`]).
    pub fn of_new_ensemble(store: Box<dyn Store>, cluster_id: u64) -> Self {
        Self { born: Some(cluster_id), ..Self::new(store) }
    }

    /// Where the next chunk begins.
    pub fn next(&self) -> &Cursor {
        self.checker.next()
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.checker.rows()
    }

    /// Takes the next chunk. Blocks on the disk; the last chunk makes all of it durable.
    ///
    /// # Errors
    /// [`Fault::Damaged`] if the snapshot is not what its digests say, or this is not its next chunk;
    /// any other [`Fault`] if the store fails. The store is of no more use then.
    pub fn put(mut self, chunk: &Chunk) -> Result<Progress, Fault> {
        let meta = self.checker.take(chunk)?;
        let rows =
            chunk.rows.iter().map(|(table, key, value)| (ORDER[usize::from(*table)], key, value));
        self.store.commit(&mut |batch| {
            rows.clone().for_each(|(keyspace, key, value)| batch.put(keyspace, key, Some(value)));
        })?;
        match meta {
            None => Ok(Progress::Unfinished(self)),
            Some(meta) => self.finish(meta).map(Progress::Whole),
        }
    }

    fn finish(self, mut meta: Meta) -> Result<Staged, Fault> {
        if let Some(cluster_id) = self.born {
            meta = meta.at_birth_of(cluster_id)?;
        }
        let row = crate::apply::encode_meta(&meta);
        self.store.commit(&mut |batch| {
            batch.put(Keyspace::Meta, META_KEY, Some(&row));
            batch.put(Keyspace::Meta, FORMAT_KEY, Some(&STORE_FORMAT.to_be_bytes()));
        })?;
        self.store.sync()?;
        Ok(Staged { store: self.store, meta })
    }
}

fn damaged(why: &str) -> Fault {
    Fault::Damaged { keyspace: "a snapshot", why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Command, Group, MemoryStore, NoHooks, Op, State};
    use crate::{apply::BIRTH, command::CreateKind};

    fn entry(commands: Vec<Command>) -> Vec<u8> {
        let identities = vec![vec![("super".to_owned(), String::new())]];
        let groups = vec![Group { origin: (1, 9), first: 0, identities, commands }];
        Batch { time_ms: 1_700_000_000_000, groups, ..Batch::default() }.encode()
    }

    /// A tree with short and long data, an ephemeral, a container, and an ACL of its own.
    fn state() -> State {
        let mut commands = vec![
            Command::Origin { replaces: 0 },
            Command::OpenSession { session: 5, password: [1; 16], timeout_ms: 1000 },
        ];
        for at in 0..40u8 {
            let (kind, flags) = match at % 4 {
                0 => (CreateKind::Container, 4),
                1 => (CreateKind::Create, 1),
                _ => (CreateKind::Create, 0),
            };
            let data = Some(Bytes::from(vec![at; if at % 3 == 0 { 5000 } else { 10 }]));
            let acl = vec![(i32::from(at % 5) + 1, "ip".to_owned(), format!("10.0.0.{at}"))];
            let op = Op::Create { kind, path: format!("/n{at}"), data, acl, flags, ttl_ms: -1 };
            commands.push(Command::Write {
                session: 5,
                generation: 1,
                is_local: false,
                identities: 0,
                op,
            });
        }
        let store = Box::new(MemoryStore::default());
        let mut state = State::open(store, Box::new(NoHooks), 1 << 20).expect("it opens");
        state.apply(BIRTH.0 + 1, 1, &entry(commands)).expect("it applies");
        state.sync().expect("it syncs");
        assert_eq!(state.view().counts.nodes, 44);
        state
    }

    fn chunks(source: &Source, bytes_max: usize) -> Vec<Chunk> {
        let mut chunks = vec![source.chunk(Cursor::default(), bytes_max).expect("it reads")];
        while let Next::Chunk(next) = &chunks[chunks.len() - 1].next {
            chunks.push(source.chunk(next.clone(), bytes_max).expect("it reads"));
        }
        chunks
    }

    fn stage(chunks: Vec<Chunk>) -> Result<Staged, Fault> {
        let mut staging = Staging::new(Box::new(MemoryStore::default()));
        for chunk in chunks {
            // It goes over the wire as bytes.
            let bytes = rmp_serde::to_vec(&chunk).expect("it encodes");
            let chunk: Chunk = rmp_serde::from_slice(&bytes).expect("it decodes");
            match staging.put(&chunk)? {
                Progress::Unfinished(more) => staging = more,
                Progress::Whole(staged) => return Ok(staged),
            }
        }
        panic!("the last chunk has the meta row")
    }

    #[test]
    fn chunks_of_any_size_give_the_same_state() {
        let from = state();
        let source = from.source().expect("it reads");
        for bytes_max in [0, 100, 3000, 1 << 20] {
            let staged = stage(chunks(&source, bytes_max)).expect("it is whole");
            let store = Box::new(MemoryStore::default());
            let mut to = State::open(store, Box::new(NoHooks), 1 << 20).expect("it opens");
            to.install(staged).expect("it opens");
            assert_eq!(to.meta(), from.meta());
            assert_eq!(to.recomputed_digest(), Ok(from.meta().digest));
            assert_eq!(to.view().sessions(), from.view().sessions());
            let (path, view) = ("/n3", to.view());
            let node = view.node(path).expect("it reads").expect("it is there");
            assert_eq!(view.data(path, &node).expect("it reads"), Some(vec![3; 5000].into()));
        }
    }

    #[test]
    fn a_source_is_durable() {
        let store = MemoryStore::default();
        let state = State::open(Box::new(store.clone()), Box::new(NoHooks), 1 << 20);
        let mut state = state.expect("it opens").with_gather_bytes(0);
        for index in BIRTH.0 + 1..BIRTH.0 + 5 {
            let command = Command::Origin { replaces: 0 };
            state.apply(index, 1, &entry(vec![command])).expect("it applies");
        }
        let source = state.source().expect("it reads");
        assert!(source.meta().applied > BIRTH.0, "some of it was written");
        let left = State::open(Box::new(store.crashed()), Box::new(NoHooks), 1 << 20);
        assert_eq!(left.expect("it opens").meta().applied, source.meta().applied);
    }

    #[test]
    fn what_was_changed_on_the_way_is_found() {
        let source = state().source().expect("it reads");
        let whole = chunks(&source, 2000);
        let rows: usize = whole.iter().map(|chunk| chunk.rows.len()).sum();
        assert!(rows > 80, "{rows} rows");
        for at in 0..whole.len() {
            for row in 0..whole[at].rows.len() {
                let mut less = whole.clone();
                less[at].rows.remove(row);
                assert!(stage(less).is_err(), "without row {row} of chunk {at}");
                let mut other = whole.clone();
                let value = &mut other[at].rows[row].2;
                let mut bytes = value.to_vec();
                // Rows of ephemerals and of what is due are empty.
                match bytes.last_mut() {
                    Some(last) => *last ^= 1,
                    None => bytes.push(1),
                }
                *value = bytes.into();
                assert!(stage(other).is_err(), "with another row {row} of chunk {at}");
            }
        }
    }
}
