//! Which tables each keyspace consists of: files of fjall's (`current` names `vN`, and has its checksum),
//! which it does not check itself, and panics over.

use std::fs;
use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

/// What `current` says: the version, its xxh3, and a number for that kind of checksum.
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// What is wrong with those of a store, if something is.
///
/// # Errors
/// If they cannot be read.
pub(super) fn damage(store: &Path) -> io::Result<Option<String>> {
    let keyspaces = match fs::read_dir(store.join("keyspaces")) {
        // It is new.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        keyspaces => keyspaces?,
    };
    for keyspace in keyspaces {
        let dir = keyspace?.path();
        let current = match fs::read(dir.join("current")) {
            // What it lacks is found when it is opened.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            current => current?,
        };
        let bytes =
            current.first_chunk::<CURRENT_BYTES>().filter(|_| current.len() == CURRENT_BYTES);
        let Some((id, checksum)) = bytes.and_then(|bytes| bytes[..24].split_first_chunk::<8>())
        else {
            return Ok(Some(format!(
                "{} has not {CURRENT_BYTES} bytes",
                dir.join("current").display()
            )));
        };
        let version = dir.join(format!("v{}", u64::from_le_bytes(*id)));
        let is_whole = match fs::read(&version) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            version => xxh3_128(&version?).to_le_bytes() == *checksum,
        };
        if !is_whole {
            return Ok(Some(format!(
                "{} is not what {} says",
                version.display(),
                dir.join("current").display()
            )));
        }
    }
    Ok(None)
}
