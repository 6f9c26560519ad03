//! The token by which an operator on the server's own machine proves to be one: whoever may read
//! the server's data directory.
//!
//! Invariants:
//! * It is random, and another one after each start.
//! * Only the file's owner may read it, from the first moment on; it is never logged.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::sasl::equal;

const FILE: &str = "operator.token";
const BYTES: usize = 32;

/// A server's token.
pub(crate) struct OperatorToken(String);

impl OperatorToken {
    /// Draws a token and writes it into the data directory, over that of an earlier start.
    pub(crate) fn create(data_dir: &Path) -> anyhow::Result<Self> {
        let mut random = [0; BYTES];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let token = random.iter().fold(String::new(), |mut out, byte| {
            // Writing to a string does not fail.
            let _ = write!(out, "{byte:02x}");
            out
        });
        let path = Self::path(data_dir);
        write_private(&path, &token)
            .with_context(|| format!("cannot write the operator's token {}", path.display()))?;
        Ok(Self(token))
    }

    /// Where the token of the server on this data directory is.
    pub(crate) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE)
    }

    /// The token of the server that runs on this data directory, or ran there last.
    pub(crate) fn read(data_dir: &Path) -> std::io::Result<String> {
        let mut token = String::new();
        File::open(Self::path(data_dir))?.take(4 * BYTES as u64).read_to_string(&mut token)?;
        Ok(token.trim_end().to_owned())
    }

    /// Whether these credentials are the token; takes as long for any wrong one.
    pub(crate) fn is(&self, credentials: &[u8]) -> bool {
        equal(self.0.as_bytes(), credentials)
    }
}

/// Writes a file that only its owner may read, as a whole or not at all.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("token.new");
    // A file left by a crash may have other permissions; ours is a new one.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{text}")?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_and_another_one_each_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = OperatorToken::create(dir.path()).expect("it is written");
        let read = OperatorToken::read(dir.path()).expect("it is there");
        assert!(first.is(read.as_bytes()) && read.len() == 2 * BYTES);
        assert!(!first.is(b"") && !first.is(&read.as_bytes()[1..]));
        let mode = OperatorToken::path(dir.path()).metadata().expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let second = OperatorToken::create(dir.path()).expect("it is written");
        assert!(!second.is(read.as_bytes()));
    }
}
