//! Which bindings match a path and an operation: a trie over the names of all patterns, with a mask of
//! operations at its ends. What nothing matches costs a look-up in the root's children, mostly.

use hashbrown::HashMap;

use super::binding::OpKind;
use super::pattern::{Name, Pattern};

/// How many bindings can be matched at once.
pub(crate) const MATCHED_MAX: usize = 256;

/// A set of bindings, by their places in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Set([u64; MATCHED_MAX / 64]);

impl Set {
    pub(crate) fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine &= theirs);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; MATCHED_MAX / 64]
    }

    /// Its members, in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(word, mut bits)| {
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                (bits != 0).then(|| {
                    bits &= bits - 1;
                    word * 64 + bit
                })
            })
        })
    }
}

/// Operations, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ops(u8);

impl Ops {
    /// Those that are named, or all if none is.
    pub(crate) fn of(kinds: &[OpKind]) -> Self {
        match kinds {
            [] => Self(u8::MAX),
            _ => Self(kinds.iter().fold(0, |bits, kind| bits | 1 << *kind as u8)),
        }
    }

    fn has(self, kind: OpKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// A binding that a pattern ends with.
type End = (u8, Ops);

#[derive(Default)]
struct Branch {
    names: HashMap<Box<str>, u32>,
    any: Option<u32>,
    /// Those whose pattern ends here.
    here: Vec<End>,
    /// Those that match everything below.
    below: Vec<End>,
}

/// The trie. The first branch is the root's.
pub(crate) struct Matcher(Vec<Branch>);

impl Default for Matcher {
    fn default() -> Self {
        Self(vec![Branch::default()])
    }
}

impl Matcher {
    /// Adds a pattern of the binding at this place.
    ///
    /// # Panics
    /// If the place is [`MATCHED_MAX`] or above.
    pub(crate) fn add(&mut self, at: usize, pattern: &Pattern, ops: Ops) {
        let end = (u8::try_from(at).expect("fewer than MATCHED_MAX are live"), ops);
        let mut branch = 0;
        for name in &pattern.names {
            let new = self.0.len() as u32;
            let from = &mut self.0[branch as usize];
            let next = match name {
                Name::Any => *from.any.get_or_insert(new),
                Name::This(name) => *from.names.entry_ref(name.as_str()).or_insert(new),
            };
            if next == new {
                self.0.push(Branch::default());
            }
            branch = next;
        }
        let last = &mut self.0[branch as usize];
        if pattern.is_deep { last.below.push(end) } else { last.here.push(end) }
    }

    /// Which bindings match a valid path and an operation on it.
    pub(crate) fn matching(&self, path: &str, kind: OpKind) -> Set {
        let mut found = Set::default();
        self.collect(0, path.strip_prefix('/').unwrap_or(path), kind, &mut found);
        found
    }

    /// Goes down from a branch along the names of `rest`. Each branch is met at most once.
    fn collect(&self, mut at: u32, mut rest: &str, kind: OpKind, found: &mut Set) {
        let mut take = |ends: &[End]| {
            for (at, ops) in ends {
                if ops.has(kind) {
                    found.insert(usize::from(*at));
                }
            }
        };
        loop {
            let branch = &self.0[at as usize];
            if rest.is_empty() {
                return take(&branch.here);
            }
            take(&branch.below);
            let end = rest.bytes().position(|byte| byte == b'/');
            let (name, after) = match end {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, ""),
            };
            let next = branch.names.get(name).copied();
            match (next, branch.any) {
                (None, None) => return,
                (Some(only), None) | (None, Some(only)) => at = only,
                (Some(next), Some(any)) => {
                    self.collect(any, after, kind, found);
                    return self.collect(next, after, kind, found);
                }
            }
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trie_finds_what_the_patterns_match() {
        let texts = ["/", "/**", "/a", "/*", "/a/**", "/a/b", "/a/*", "/*/b", "/a/*/**", "/*/*/**"];
        let patterns = texts.map(|text| Pattern::parse(text).expect("it is a pattern"));
        let mut matcher = Matcher::default();
        for (at, pattern) in patterns.iter().enumerate() {
            let kinds = if at % 2 == 0 { &[][..] } else { &[OpKind::Create, OpKind::Read] };
            matcher.add(at * 25, pattern, Ops::of(kinds));
        }
        for path in ["/", "/a", "/b", "/a/b", "/b/b", "/a/b/c", "/c/b/a/d", "/ab/c"] {
            for kind in [OpKind::Create, OpKind::Delete] {
                let expected: Vec<_> = (0..patterns.len())
                    .filter(|at| patterns[*at].matches(path))
                    .filter(|at| at % 2 == 0 || kind == OpKind::Create)
                    .map(|at| at * 25)
                    .collect();
                let found: Vec<_> = matcher.matching(path, kind).iter().collect();
                assert_eq!(found, expected, "{path} {kind:?}");
            }
        }
    }

    #[test]
    fn sets_have_an_order() {
        let mut set = Set::default();
        for at in [255, 0, 63, 64, 200] {
            set.insert(at);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 200, 255]);
        let mut other = Set::default();
        other.insert(64);
        assert_eq!(set.and(&other).iter().collect::<Vec<_>>(), [64]);
        assert!(Set::default().is_empty() && !set.is_empty());
    }
}
