//! The id for raft that a server was given when it took part anew, after it had lost its data. A founder
//! has none of these: its id follows from the server's.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

use crate::data_dir;

const FILE: &str = "raft-id";

/// The id that is written in a data directory.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<u64>> {
    let file = dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => {
            let id = text.trim().parse();
            let id = id.with_context(|| {
                format!(
                    "{}: expected a number, got {text:?}; empty the data directory, and the server \
                     takes part anew",
                    file.display()
                )
            })?;
            Ok(Some(id))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Writes it, so that it is there whole or not at all.
///
/// # Errors
/// What the operating system answered.
pub(crate) fn write(dir: &Path, id: u64) -> anyhow::Result<()> {
    data_dir::write_whole(dir, FILE, &id.to_string())
        .with_context(|| format!("cannot write {}", dir.join(FILE).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("it can be read"), None);
        write(dir.path(), 258).expect("it can be written");
        assert_eq!(read(dir.path()).expect("it can be read"), Some(258));
        fs::write(dir.path().join(FILE), "x").expect("a file");
        let error = format!("{:#}", read(dir.path()).expect_err("no number"));
        assert!(error.contains("expected a number, got \"x\""), "{error}");
    }
}
