//! Patterns of paths: `/tenants/**`, `/tenants/*/limits`.
//!
//! A `*` stands for one name, whatever it is. A `**`, at the end, stands for everything below, at any
//! depth: `/a/**` does not match `/a` itself.

use crate::keys;

/// How long a pattern may be, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;

/// A pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pub(super) names: Vec<Name>,
    /// Whether everything below is meant, and not itself.
    pub(super) is_deep: bool,
}

/// A name in a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    This(String),
    Any,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("the pattern \"{text}\" is no good: {why}"));
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!(
                "a pattern has {} bytes; at most {PATTERN_BYTES_MAX} are allowed",
                text.len()
            ));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return wrong("expected an absolute path, as in \"/tenants/**\"");
        };
        let mut pattern = Self { names: Vec::new(), is_deep: false };
        if rest.is_empty() {
            return Ok(pattern);
        }
        for part in rest.split('/') {
            if pattern.is_deep {
                return wrong("\"**\" stands for everything below, so nothing can follow it");
            }
            match part {
                "**" => pattern.is_deep = true,
                "*" => pattern.names.push(Name::Any),
                _ if part.contains('*') => {
                    return wrong("\"*\" stands for a whole name, and cannot be a part of one");
                }
                _ => pattern.names.push(Name::This(part.to_owned())),
            }
        }
        let plain = text.trim_end_matches("/**").replace('*', "x");
        if !plain.is_empty() && proto::path::validate(&plain).is_err() {
            return wrong("with names in place of its \"*\" it is no valid path");
        }
        match pattern.names.first() {
            Some(Name::This(name)) if name == "zookeeper" => {
                wrong("/zookeeper is the system's, and no plugin's")
            }
            _ => Ok(pattern),
        }
    }

    /// Whether it matches a path.
    pub fn matches(&self, path: &str) -> bool {
        let mut names = self.names.iter();
        let mut parts = path.split('/').skip(1).filter(|part| !part.is_empty());
        loop {
            match (names.next(), parts.next()) {
                (Some(Name::Any), Some(_)) => {}
                (Some(Name::This(name)), Some(part)) if name == part => {}
                (None, Some(_)) => return self.is_deep,
                (None, None) => return !self.is_deep,
                (Some(_), _) => return false,
            }
        }
    }

    /// Whether it matches everything that the other one does.
    pub fn covers(&self, other: &Self) -> bool {
        let agree = |(mine, theirs): (&Name, &Name)| *mine == Name::Any || mine == theirs;
        self.names.iter().zip(&other.names).all(agree)
            && match self.names.len().cmp(&other.names.len()) {
                std::cmp::Ordering::Less => self.is_deep,
                std::cmp::Ordering::Equal => self.is_deep == other.is_deep,
                std::cmp::Ordering::Greater => false,
            }
    }

    /// The keys among which the znodes that it matches are, as ranges `[from, to)`.
    fn ranges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fixed = self.names.iter().map_while(|name| match name {
            Name::This(name) => Some(name.as_str()),
            Name::Any => None,
        });
        let fixed: Vec<&str> = fixed.collect();
        let path = format!("/{}", fixed.join("/"));
        if fixed.len() == self.names.len() && !self.is_deep {
            let key = keys::node(&path);
            let after = [&key[..], b"\0"].concat();
            return vec![(key, after)];
        }
        vec![keys::children(&path), keys::below_children(&path)]
    }
}

/// The keys among which the znodes are that some patterns match: ranges in order, none of which touch.
pub(crate) fn ranges(patterns: &[Pattern]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all: Vec<_> = patterns.iter().flat_map(Pattern::ranges).collect();
    all.sort_unstable();
    let mut merged: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(all.len());
    for (from, to) in all {
        match merged.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(std::mem::take(end)),
            _ => merged.push((from, to)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn what_matches() {
        let table = [
            ("/", "/", true),
            ("/", "/a", false),
            ("/**", "/", false),
            ("/**", "/a", true),
            ("/**", "/a/b", true),
            ("/a/**", "/a", false),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/ab/c", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b", false),
            ("/a/*/c", "/a/b/c/d", false),
            ("/a/*/**", "/a/b", false),
            ("/a/*/**", "/a/b/c", true),
            ("/*", "/a", true),
            ("/*", "/", false),
        ];
        for (text, path, expected) in table {
            assert_eq!(pattern(text).matches(path), expected, "{text} {path}");
        }
    }

    #[test]
    fn what_is_wrong() {
        for text in
            ["", "a", "/a/", "//", "/a/**/b", "/a*", "/a/***", "/./a", "/zookeeper/**", "/a\0b"]
        {
            let why = Pattern::parse(text).expect_err(text);
            assert!(why.contains("pattern"), "{why}");
        }
        assert!(Pattern::parse(&format!("/{}", "a".repeat(2000))).is_err());
        assert!(Pattern::parse("/zookeepers/**").is_ok());
    }

    #[test]
    fn one_covers_another_only_if_it_matches_all_of_it() {
        let texts = ["/", "/**", "/a", "/*", "/a/**", "/a/b", "/a/*", "/*/b", "/a/*/**", "/*/*/**"];
        let mut paths = vec!["/".to_owned()];
        for depth in 1..4 {
            for at in 0..3usize.pow(depth) {
                let name = |level: u32| ["a", "b", "c"][at / 3usize.pow(level) % 3];
                paths.push((0..depth).map(|level| format!("/{}", name(level))).collect());
            }
        }
        for one in texts.map(pattern) {
            for other in texts.map(pattern) {
                let all = paths.iter().all(|path| !other.matches(path) || one.matches(path));
                assert_eq!(one.covers(&other), all, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_matches_is_in_the_ranges() {
        let patterns = ["/a/*/x", "/b", "/a/c/**", "/d/**"].map(pattern);
        let ranges = ranges(&patterns);
        assert!(ranges.windows(2).all(|two| two[0].1 < two[1].0));
        let inside = |path: &str| {
            let key = keys::node(path);
            ranges.iter().any(|(from, to)| key >= *from && key < *to)
        };
        for path in ["/b", "/a/b/x", "/a/c/y", "/a/c/y/z", "/d/e"] {
            assert!(inside(path), "{path}");
        }
        for path in ["/", "/a", "/c", "/d", "/b/c", "/d!/x"] {
            assert!(!inside(path), "{path}");
        }
    }
}
