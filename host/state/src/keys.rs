//! The keyspaces, and how keys are made.
//!
//! A znode's key is its parent's path, a NUL, and its name, so that the children of a znode are
//! one range. No path contains a NUL. The root's key is `/`.

use proto::path;

/// The tables of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keyspace {
    /// Znodes: stat, ACL id, data up to [`DATA_INLINE_BYTES_MAX`].
    Nodes,
    /// Data longer than that, by the znode's key.
    Data,
    /// Sessions by id.
    Sessions,
    /// (session, path), for each ephemeral znode.
    Ephemerals,
    /// ACLs by id.
    Acls,
    /// (due time in ms, path) of TTL nodes and containers that may be deleted.
    Due,
    /// What is in no digest: the applied index, the digests themselves, settings.
    Meta,
    /// Bindings, the headers of modules, counters, and what plugins keep
    /// (`plugins/registry.rs`).
    Plugins,
    /// The parts of modules.
    Modules,
}

/// Data up to this many bytes is stored with its znode.
pub const DATA_INLINE_BYTES_MAX: usize = 1024;

impl Keyspace {
    /// Every keyspace.
    pub const ALL: [Self; 9] = [
        Self::Nodes,
        Self::Data,
        Self::Sessions,
        Self::Ephemerals,
        Self::Acls,
        Self::Due,
        Self::Meta,
        Self::Plugins,
        Self::Modules,
    ];

    /// Those that a store of an earlier program has not.
    pub(crate) const LATER: [Self; 2] = [Self::Plugins, Self::Modules];

    /// Its name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Data => "data",
            Self::Sessions => "sessions",
            Self::Ephemerals => "ephemerals",
            Self::Acls => "acls",
            Self::Due => "due",
            Self::Meta => "meta",
            Self::Plugins => "plugins",
            Self::Modules => "modules",
        }
    }
}

/// The key of the znode at `path`, which starts with `/`.
pub fn node(path: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len() + 1);
    push_node(&mut key, path);
    key
}

/// The same, put behind what is in `out`.
pub(crate) fn push_node(out: &mut Vec<u8>, path: &str) {
    match path::split(path) {
        None => out.extend_from_slice(path.as_bytes()),
        Some((parent, name)) => {
            out.extend_from_slice(parent.as_bytes());
            out.push(0);
            out.extend_from_slice(name.as_bytes());
        }
    }
}

/// `[from, to)` of the keys of `path`'s children.
pub fn children(path: &str) -> (Vec<u8>, Vec<u8>) {
    ([path.as_bytes(), b"\0"].concat(), [path.as_bytes(), b"\x01"].concat())
}

/// `[from, to)` of the keys of what is below `path`'s children.
pub fn below_children(path: &str) -> (Vec<u8>, Vec<u8>) {
    if path == "/" {
        // Every parent but the root is "/" and a name, which begins above NUL.
        return (b"/\x01".to_vec(), b"0".to_vec());
    }
    ([path.as_bytes(), b"/"].concat(), [path.as_bytes(), b"0"].concat())
}

/// The name in a child's key, or the path of any znode's key; `None` if it is not UTF-8.
pub fn name_of(key: &[u8]) -> Option<&str> {
    let at = key.iter().position(|&b| b == 0)?;
    std::str::from_utf8(key.get(at + 1..)?).ok()
}

/// The path that a znode's key stands for.
pub fn path_of(key: &[u8]) -> Option<String> {
    let Some(at) = key.iter().position(|&b| b == 0) else {
        return std::str::from_utf8(key).ok().map(str::to_owned);
    };
    let parent = std::str::from_utf8(key.get(..at)?).ok()?;
    Some(path::join(parent, name_of(key)?))
}

/// An id or a time as a key that sorts as it does.
pub fn number(value: i64) -> [u8; 8] {
    (value as u64 ^ (1 << 63)).to_be_bytes()
}

/// The number that [`number`] made a key of.
pub fn number_of(key: &[u8]) -> Option<i64> {
    Some((u64::from_be_bytes(*key.first_chunk::<8>()?) ^ (1 << 63)) as i64)
}

/// A number, then a path.
pub fn number_path(value: i64, path: &str) -> Vec<u8> {
    [&number(value)[..], path.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_descendants_are_ranges() {
        let inside = |(from, to): (Vec<u8>, Vec<u8>), key: Vec<u8>| key >= from && key < to;
        assert!(inside(children("/a"), node("/a/b")));
        assert!(!inside(children("/a"), node("/a/b/c")));
        assert!(inside(below_children("/a"), node("/a/b/c")));
        assert!(!inside(below_children("/a"), node("/a!/c")));
        assert!(!inside(children("/a"), node("/a!/c")));
        assert!(inside(children("/"), node("/a")));
        assert!(!inside(below_children("/"), node("/a")));
        assert!(inside(below_children("/"), node("/a/b")));
        assert!(!inside(children("/"), node("/")));
    }

    #[test]
    fn keys_and_paths_are_inverse() {
        for path in ["/", "/a", "/a/b/c"] {
            assert_eq!(path_of(&node(path)).as_deref(), Some(path));
        }
        for value in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(number_of(&number(value)), Some(value));
        }
        assert!(number(-1) < number(0) && number(0) < number(1));
    }
}
