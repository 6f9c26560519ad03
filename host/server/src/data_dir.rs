//! The data directory as a whole: which version of this program wrote it.
//!
//! Invariant: of a directory that a newer version wrote, only this one file is read, so that nothing
//! in it changes. Store and log have format numbers of their own; whenever one of them is raised, so
//! is this, because opening a store already writes to it.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// The format that this program writes, and the only one that it reads. Those before it, with other
/// forms of log entries and no lock, are of before the first release.
const FORMAT: u32 = 4;
const FILE: &str = "format";
const LOCK: &str = "lock";

/// A data directory that no other server uses, as long as this is held.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: File,
}

/// Makes the directory if it is not there, and sees that this program, and no other, may use it.
///
/// # Errors
/// If a newer version wrote it, another server uses it, or it cannot be read or made.
pub(crate) fn claim(dir: &Path) -> anyhow::Result<Claim> {
    check_format(dir)?;
    let file = dir.join(LOCK);
    let cannot = || format!("cannot lock {}", file.display());
    let lock = File::options().create(true).append(true).open(&file).with_context(cannot)?;
    match lock.try_lock() {
        Ok(()) => Ok(Claim { _lock: lock }),
        Err(TryLockError::WouldBlock) => bail!(
            "{}: the data directory is in use by another server; stop that one, or use another \
             directory",
            dir.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
    }
}

fn check_format(dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => {
            let Ok(found) = text.trim().parse::<u32>() else {
                bail!(
                    "{}: expected the number of the data's format, got {text:?}; restore the data \
                     directory from a backup",
                    file.display()
                );
            };
            ensure!(
                found <= FORMAT,
                "{}: the data has format {found}, this program knows up to {FORMAT}; use the newer \
                 program, nothing was changed",
                dir.display()
            );
            ensure!(
                found == FORMAT,
                "{}: the data has format {found}, which no release wrote; this program knows {FORMAT}: \
                 use the program that wrote it, or another directory; nothing was changed",
                dir.display()
            );
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(dir)
            .and_then(|()| write_whole(dir, FILE, &FORMAT.to_string()))
            .with_context(|| format!("cannot make the data directory {}", dir.display())),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Writes a file of the directory so that it is there whole or not at all, durably. Another process
/// may be doing the same.
///
/// # Errors
/// What the operating system answered.
pub(crate) fn write_whole(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let new = dir.join(format!("{name}.new-{}", std::process::id()));
    let mut out = File::create(&new)?;
    writeln!(out, "{text}")?;
    out.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_this_version_is_claimed_again_and_a_newer_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("a/b");
        let first = claim(&data).expect("a new one");
        let refused = claim(&data).expect_err("it is in use").to_string();
        assert!(refused.contains("in use"), "{refused}");
        drop(first);
        claim(&data).expect("its own");
        let refused =
            [("5\n", "newer program"), ("3\n", "no release"), ("", "backup"), ("x", "backup")];
        for (text, expected) in refused {
            fs::write(data.join(FILE), text).expect("a file");
            let error = claim(&data).expect_err("it is refused").to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(fs::read_to_string(data.join(FILE)).expect("a file"), text);
        }
    }
}
