//! Rows that were applied and are not in the store yet, and the store with them on top.
//!
//! Entries are gathered before they are written, so that what many of them change is written once.
//! The store thus always holds the state as of *some* entry; the log replays the rest.
//!
//! Invariants:
//! * A row stands here for each gathered entry that wrote it and that a view may still ask for.
//! * Of the znodes, only that they were made or deleted stands here: it is all that a listing asks.
//!   What they are is pinned in the cache until the store has it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::alive::Alive;
use crate::fault::Fault;
use crate::keys::Keyspace;
use crate::store::{Batch, ReadView, Write};

/// What a row is from some log index on; newest last.
type Versions = SmallVec<[(u64, Option<Bytes>); 1]>;

type Table = RwLock<BTreeMap<Vec<u8>, Versions>>;

/// Rows by the parent's path and the child's name, which a znode's key puts together: what is made in
/// one place is then found in a small map, by a short key. Their order is that of the keys.
type Children = RwLock<BTreeMap<Box<[u8]>, BTreeMap<Box<[u8]>, Versions>>>;

/// The rows that some entries in a row wrote.
#[derive(Default)]
pub(crate) struct Recent {
    /// Of the znodes.
    children: Children,
    /// All others, by keyspace; there is nothing in that of the znodes.
    tables: [Table; Keyspace::ALL.len()],
}

impl Recent {
    /// Keeps what the entry at `index` wrote, while the views of `alive` may be read; `None` is a
    /// deletion.
    pub(crate) fn put(&self, (keyspace, key, value): Write, index: u64, alive: &Alive) {
        if keyspace == Keyspace::Nodes {
            let (parent, name) = split(&key);
            let name = name.expect("the root is neither made nor deleted");
            let mut parents = self.children.write();
            // Its path is copied only when it is new.
            let known = match parents.get_mut(parent) {
                Some(known) => known,
                None => parents.entry(parent.into()).or_default(),
            };
            put_version(known.entry(name.into()).or_default(), index, value, alive);
        } else {
            let mut table = self.tables[keyspace as usize].write();
            put_version(table.entry(key).or_default(), index, value, alive);
        }
    }

    fn get(&self, keyspace: Keyspace, key: &[u8], index: u64) -> Option<Option<Bytes>> {
        let table = self.tables[keyspace as usize].read();
        as_of(table.get(key)?, index).cloned()
    }

    /// Up to `most` rows in the range, as of `index`; beside them, whether there may be more.
    fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: &[u8],
        most: usize,
        index: u64,
    ) -> Vec<(Bytes, Option<Bytes>)> {
        if keyspace == Keyspace::Nodes {
            return self.children_in(from, to, most, index);
        }
        let table = self.tables[keyspace as usize].read();
        if table.is_empty() {
            return Vec::new();
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let seen = table.range::<[u8], _>(range).filter_map(|(key, versions)| {
            Some((Bytes::copy_from_slice(key), as_of(versions, index)?.clone()))
        });
        seen.take(most).collect()
    }

    /// The same of the znodes.
    fn children_in(
        &self,
        from: &[u8],
        to: &[u8],
        most: usize,
        index: u64,
    ) -> Vec<(Bytes, Option<Bytes>)> {
        let parents = self.children.read();
        let ((first, from_name), (last, to_name)) = (split(from), split(to));
        // Of a bound without a name, no child of the path that it is comes before it.
        let upto = if to_name.is_some() { Bound::Included(last) } else { Bound::Excluded(last) };
        if first > last || first == last && to_name.is_none() {
            return Vec::new();
        }
        let seen = parents.range::<[u8], _>((Bound::Included(first), upto));
        let seen = seen.flat_map(|(parent, names)| {
            let from = from_name.filter(|_| **parent == *first);
            let to = to_name.filter(|_| **parent == *last);
            let from = from.map_or(Bound::Unbounded, Bound::Included);
            let to = to.map_or(Bound::Unbounded, Bound::Excluded);
            names.range::<[u8], _>((from, to)).map(move |row| (parent, row))
        });
        let seen = seen.filter_map(|(parent, (name, versions))| {
            let key = [parent, &b"\0"[..], name].concat();
            Some((Bytes::from(key), as_of(versions, index)?.clone()))
        });
        seen.take(most).collect()
    }

    /// Puts the newest version of every row into a batch, but for the znodes'.
    pub(crate) fn put_into(&self, batch: &mut dyn Batch) {
        for keyspace in Keyspace::ALL {
            for (key, versions) in &*self.tables[keyspace as usize].read() {
                if let Some((_, value)) = versions.last() {
                    batch.put(keyspace, key, value.as_deref());
                }
            }
        }
    }
}

/// The parent's path and the name in a znode's key, or a bound of such keys.
fn split(key: &[u8]) -> (&[u8], Option<&[u8]>) {
    match key.iter().position(|byte| *byte == 0) {
        Some(at) => (&key[..at], Some(&key[at + 1..])),
        None => (key, None),
    }
}

fn put_version(versions: &mut Versions, index: u64, value: Option<Bytes>, alive: &Alive) {
    versions.push((index, value));
    if versions.len() > 1 {
        let nexts: SmallVec<[u64; 2]> = versions.iter().skip(1).map(|(from, _)| *from).collect();
        let mut nexts = nexts.into_iter();
        versions.retain(|(from, _)| nexts.next().is_none_or(|next| alive.any(*from, next)));
    }
}

fn as_of(versions: &Versions, index: u64) -> Option<&Option<Bytes>> {
    versions.iter().rev().find(|(from, _)| *from <= index).map(|(_, value)| value)
}

/// All rows as of one log index: the store as of an earlier one, and what was applied since.
#[derive(Clone)]
pub(crate) struct Rows {
    /// The index as of which the rows are given.
    pub(crate) index: u64,
    /// The store, and the last entry that is in it.
    pub(crate) base: Arc<dyn ReadView>,
    pub(crate) base_index: u64,
    /// What was applied since, older first.
    pub(crate) recent: SmallVec<[Arc<Recent>; 2]>,
}

impl Rows {
    /// A row that is not a znode's.
    pub(crate) fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        assert!(keyspace != Keyspace::Nodes, "znodes are asked for by their path");
        for recent in self.recent.iter().rev() {
            if let Some(value) = recent.get(keyspace, key, self.index) {
                return Ok(value);
            }
        }
        self.base.get(keyspace, key)
    }

    /// A znode's row in the store, for one that the cache does not have: then nothing changed it
    /// since.
    pub(crate) fn node_in_store(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.base.get(Keyspace::Nodes, key)
    }

    /// Up to `most` rows in `[from, to)`, in the order of their keys; fewer only at the end. Of
    /// znodes the keys alone mean anything.
    pub(crate) fn range(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: &[u8],
        most: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let mut rows = Vec::new();
        let mut from = from.to_vec();
        while rows.len() < most {
            let want = most - rows.len();
            let base = self.base.range(keyspace, &from, to, want)?;
            let recent: SmallVec<[_; 2]> = self
                .recent
                .iter()
                .map(|recent| recent.range(keyspace, &from, to, want, self.index))
                .collect();
            if recent.iter().all(Vec::is_empty) {
                rows.extend(base);
                break;
            }
            // Beyond the last row of a source that gave all it was asked for, nothing is known.
            let last = |rows: usize, key: Option<&Bytes>| key.filter(|_| rows == want).cloned();
            let known = recent
                .iter()
                .filter_map(|rows| last(rows.len(), rows.last().map(|(key, _)| key)))
                .chain(last(base.len(), base.last().map(|(key, _)| key)))
                .min();
            let is_known = |key: &Bytes| known.as_ref().is_none_or(|known| key <= known);
            let base = base.into_iter().map(|(key, value)| (key, Some(value)));
            let mut merged = BTreeMap::new();
            merged.extend(base.chain(recent.into_iter().flatten()));
            let merged = merged.into_iter().take_while(|(key, _)| is_known(key));
            rows.extend(merged.filter_map(|(key, value)| Some((key, value?))).take(want));
            match known {
                Some(known) => from = [&known[..], b"\0"].concat(),
                None => break,
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;
    use crate::store::{MemoryStore, Store};

    fn row(key: &str, value: Option<&str>) -> Write {
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        (Keyspace::Due, key.as_bytes().to_vec(), value)
    }

    fn text(rows: Vec<(Bytes, Bytes)>) -> String {
        let show = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let rows = rows.iter().map(|(key, value)| format!("{}={}", show(key), show(value)));
        rows.collect::<Vec<_>>().join(" ")
    }

    /// A store with a=0 .. e=0, over it b deleted and c=1 at 5, then bb=2 made and c=2 at 7.
    fn rows(index: u64) -> Rows {
        let store = MemoryStore::default();
        let fill = &mut |batch: &mut dyn Batch| {
            for key in [b"a", b"b", b"c", b"d", b"e"] {
                batch.put(Keyspace::Due, key, Some(b"0"));
            }
        };
        store.commit(fill).expect("memory does not fail");
        let (older, newer) = (Arc::new(Recent::default()), Arc::new(Recent::default()));
        let alive = Alive::at(&[4, 5, 6]);
        older.put(row("b", None), 5, &alive);
        older.put(row("c", Some("1")), 5, &alive);
        newer.put(row("bb", Some("2")), 7, &alive);
        newer.put(row("c", Some("2")), 7, &alive);
        Rows { index, base: store.view(), base_index: 4, recent: [older, newer].into() }
    }

    #[test]
    fn each_index_sees_its_own_rows() {
        let all = |index| text(rows(index).range(Keyspace::Due, b"a", b"z", 9).expect("it reads"));
        assert_eq!(all(4), "a=0 b=0 c=0 d=0 e=0");
        assert_eq!(all(5), "a=0 c=1 d=0 e=0");
        assert_eq!(all(6), "a=0 c=1 d=0 e=0");
        assert_eq!(all(7), "a=0 bb=2 c=2 d=0 e=0");
        let get = |index, key: &[u8]| rows(index).get(Keyspace::Due, key).expect("it reads");
        assert_eq!(get(4, b"b").as_deref(), Some(&b"0"[..]));
        assert_eq!(get(5, b"b"), None);
        assert_eq!(get(7, b"c").as_deref(), Some(&b"2"[..]));
        assert_eq!(get(6, b"bb"), None);
    }

    #[test]
    fn pages_of_any_size_give_the_same() {
        for index in 4..8 {
            let rows = rows(index);
            let whole = rows.range(Keyspace::Due, b"a", b"z", 100).expect("it reads");
            for most in 1..7 {
                let (mut from, mut paged) = (b"a".to_vec(), Vec::new());
                loop {
                    let page = rows.range(Keyspace::Due, &from, b"z", most).expect("it reads");
                    let full = page.len() == most;
                    assert!(page.len() <= most);
                    paged.extend(page);
                    if !full {
                        break;
                    }
                    from = [&paged[paged.len() - 1].0[..], b"\0"].concat();
                }
                assert_eq!(paged, whole, "index {index}, {most} at a time");
            }
        }
    }

    #[test]
    fn children_are_in_the_order_of_their_keys() {
        let recent = Recent::default();
        let paths = ["/a", "/b", "/a/x", "/a/y", "/a/x/1", "/a!/z", "/a0", "/a/x!/2"];
        let mut keys: Vec<Vec<u8>> = paths.into_iter().map(keys::node).collect();
        for key in &keys {
            recent.put((Keyspace::Nodes, key.clone(), None), 5, &Alive::at(&[]));
        }
        keys.sort_unstable();
        let mut bounds = keys.clone();
        for path in ["/", "/a", "/a/x", "/b"] {
            for (from, to) in [keys::children(path), keys::below_children(path)] {
                bounds.extend([from, to]);
            }
        }
        bounds.extend([vec![0], vec![0xff], [&keys[2][..], b"\0"].concat()]);
        for (from, to) in bounds.iter().flat_map(|from| bounds.iter().map(move |to| (from, to))) {
            if from > to {
                continue;
            }
            for most in [1, 3, 100] {
                let got = recent.range(Keyspace::Nodes, from, to, most, 5);
                let got: Vec<_> = got.iter().map(|(key, _)| &key[..]).collect();
                let inside = keys.iter().filter(|key| (from..to).contains(key));
                let expected: Vec<_> = inside.take(most).map(|key| &key[..]).collect();
                assert_eq!(got, expected, "{} to {}", from.escape_ascii(), to.escape_ascii());
            }
        }
    }

    #[test]
    fn versions_that_nobody_can_ask_for_go() {
        let recent = Recent::default();
        for index in 10..20 {
            recent.put(row("a", Some("x")), index, &Alive::at(&[12, 14, index - 1]));
        }
        let table = recent.tables[Keyspace::Due as usize].read();
        let kept: Vec<_> = table[&b"a"[..]].iter().map(|(from, _)| *from).collect();
        assert_eq!(kept, [12, 14, 18, 19]);
    }
}
