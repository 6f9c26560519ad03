//! The data directory as a whole: which version of this program wrote it.
//!
//! Invariants:
//! * Of a directory that a newer version wrote, only this one file is read, so that nothing in it
//!   changes. Store and log have format numbers of their own; whenever one of them is raised, so is
//!   this, because opening a store already writes to it.
//! * A directory into which a snapshot is being restored is used by no server before it is finished.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

/// The format that this program writes, and the only one that it reads. Those before it, with other
/// forms of log entries and no lock, are of before the first release.
const FORMAT: u32 = 4;
const FILE: &str = "format";
const LOCK: &str = "lock";
/// There while a snapshot is being restored into the directory.
const RESTORING: &str = "restoring";

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
    ensure!(
        !dir.join(RESTORING).exists(),
        "{}: a snapshot was being restored into this directory, and that was not finished; restore it \
         again",
        dir.display()
    );
    check_format(dir)?;
    lock(dir)
}

fn lock(dir: &Path) -> anyhow::Result<Claim> {
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
    match fs::read(&file) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
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

/// Writes a file as [`write_whole`] does, with a checksum, for [`read_checked`].
///
/// # Errors
/// What the operating system answered.
pub(crate) fn write_checked(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let sum = crc32c::crc32c(text.as_bytes());
    write_whole(dir, name, &format!("{text}\nchecksum {sum:08x}"))
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checked {
    /// There is no such file.
    Missing,
    /// What was written.
    Whole(String),
    /// Something else: how the file is to be called that is damaged.
    Damaged(String),
}

/// What was written by [`write_checked`].
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read_checked(dir: &Path, name: &str) -> anyhow::Result<Checked> {
    let file = dir.join(name);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Checked::Missing),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let whole = std::str::from_utf8(&bytes).ok().and_then(|text| {
        let (text, sum) = text.strip_suffix('\n')?.rsplit_once("\nchecksum ")?;
        (format!("{:08x}", crc32c::crc32c(text.as_bytes())) == sum).then(|| text.to_owned())
    });
    let damaged = || Checked::Damaged(format!("{} is not as it was written", file.display()));
    Ok(whole.map_or_else(damaged, Checked::Whole))
}

/// A data directory into which a snapshot is being restored.
pub(crate) struct Unfinished {
    dir: PathBuf,
    _claim: Claim,
}

impl Unfinished {
    /// Begins with an empty directory, or one that is not there, or what is left of a restore that was
    /// interrupted.
    ///
    /// # Errors
    /// If there is anything else in it, or another process uses it.
    pub(crate) fn begin(dir: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot make the data directory {}", dir.display());
        fs::create_dir_all(dir).with_context(cannot)?;
        let is_free = || -> anyhow::Result<bool> {
            let mut is_empty = true;
            for entry in fs::read_dir(dir).with_context(cannot)? {
                is_empty &= entry.with_context(cannot)?.file_name() == LOCK;
            }
            Ok(is_empty || dir.join(RESTORING).exists())
        };
        let refused = || {
            format!(
                "{} is not empty: a snapshot is restored into an empty directory",
                dir.display()
            )
        };
        ensure!(is_free()?, refused());
        let claim = lock(dir)?;
        // Another one may just have finished.
        ensure!(is_free()?, refused());
        let begun = Self { dir: dir.to_owned(), _claim: claim };
        write_whole(dir, RESTORING, "").with_context(cannot)?;
        begun.empty(&[LOCK, RESTORING]).with_context(cannot)?;
        write_whole(dir, FILE, &FORMAT.to_string()).with_context(cannot)?;
        Ok(begun)
    }

    /// From now on it is a server's.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let done = fs::remove_file(self.dir.join(RESTORING))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        done.with_context(|| format!("cannot finish {}", self.dir.display()))
    }

    /// Empties it.
    ///
    /// # Errors
    /// If the disk fails; it is then left unfinished.
    pub(crate) fn abandon(self) -> anyhow::Result<()> {
        let done = self.empty(&[LOCK, RESTORING]).and_then(|()| self.empty(&[]));
        done.with_context(|| format!("cannot empty {}", self.dir.display()))
    }

    fn empty(&self, but: &[&str]) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if but.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_restored_as_a_whole_is_claimed() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("a/b");
        let begun = Unfinished::begin(&data).expect("a new one");
        let in_use = Unfinished::begin(&data).err().expect("it is in use").to_string();
        assert!(in_use.contains("in use"), "{in_use}");
        fs::create_dir(data.join("state")).expect("a directory");
        drop(begun);
        let refused = claim(&data).expect_err("it is not finished").to_string();
        assert!(refused.contains("restore it again"), "{refused}");
        let begun = Unfinished::begin(&data).expect("it begins again");
        assert!(!data.join("state").exists(), "what is left of the first goes");
        begun.finish().expect("it is finished");
        drop(claim(&data).expect("it is whole"));
        let refused = Unfinished::begin(&data).err().expect("it is not empty").to_string();
        assert!(refused.contains("not empty"), "{refused}");

        let data = dir.path().join("c");
        Unfinished::begin(&data).expect("a new one").abandon().expect("it is emptied");
        assert_eq!(fs::read_dir(&data).expect("it is there").count(), 0);
    }

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
