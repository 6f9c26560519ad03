//! The id for raft with which a server takes part. A founder's follows from its own; one that takes part
//! anew, because it is new or lost what it had, was given another.
//!
//! Invariants:
//! * It is written before the server takes part. Where it is, there must be a log; where there is none,
//!   or it is of no use, the server never takes part with this id again.

use std::path::Path;

use anyhow::Context;

use crate::data_dir::{self, Checked};

const FILE: &str = "raft-id";

/// What a data directory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nothing: the server has not taken part, as far as is known here.
    None,
    /// The id for raft.
    Is(u64),
    /// Why that is not known any more.
    Damaged(String),
}

/// Reads it.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Identity> {
    Ok(match data_dir::read_checked(dir, FILE)? {
        Checked::Missing => Identity::None,
        Checked::Whole(text) => match text.parse() {
            Ok(id) => Identity::Is(id),
            Err(_) => Identity::Damaged(format!("{}: no number", dir.join(FILE).display())),
        },
        Checked::Damaged(why) => Identity::Damaged(why),
    })
}

/// Writes it, so that it is there whole or not at all.
///
/// # Errors
/// What the operating system answered.
pub(crate) fn write(dir: &Path, id: u64) -> anyhow::Result<()> {
    data_dir::write_checked(dir, FILE, &id.to_string())
        .with_context(|| format!("cannot write {}", dir.join(FILE).display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_anything_else_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = || read(dir.path()).expect("it can be read");
        assert_eq!(read(), Identity::None);
        write(dir.path(), 258).expect("it can be written");
        assert_eq!(read(), Identity::Is(258));
        let whole = fs::read(dir.path().join(FILE)).expect("a file");
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                fs::write(dir.path().join(FILE), flipped).expect("a file");
                assert!(matches!(read(), Identity::Damaged(_)), "bit {bit} of byte {at}");
            }
            fs::write(dir.path().join(FILE), &whole[..at]).expect("a file");
            assert!(matches!(read(), Identity::Damaged(_)), "cut at {at}");
        }
    }
}
