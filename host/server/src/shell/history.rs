//! Commands of earlier times, kept in the user's state directory.
//!
//! Invariants:
//! * Only their owner may read them.
//! * No command that holds credentials is kept, nor what a digest identity is made of.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// How many commands are kept.
pub(super) const COMMANDS_MAX: usize = 1000;

/// The file, made if it is not there; `None` where there is no place for one.
pub(super) fn file() -> Option<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    let dir = state.join("vivarium");
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).ok()?;
    let path = dir.join("shell_history");
    OpenOptions::new().append(true).create(true).mode(0o600).open(&path).ok()?;
    Some(path)
}

/// Whether a command may be kept.
pub(super) fn may_keep(line: &str) -> bool {
    let lower = line.to_lowercase();
    !["addauth", "digest:"].iter().any(|secret| lower.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credentials_are_kept() {
        assert!(may_keep("create /a \"some data\" world:anyone:r"));
        for line in [" addauth digest a:b", "AddAuth digest a:b", "setAcl /a digest:u:hash:r"] {
            assert!(!may_keep(line), "{line}");
        }
    }
}
