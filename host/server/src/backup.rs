//! Snapshots in files, for operators: saved from a running server, looked at, and restored as the
//! beginning of a new ensemble.
//!
//! A file begins with eight letters and the number of its format; the rest are records
//! ([`replica::saving`]).
//!
//! Invariants:
//! * A file is there whole, durable and checked, or it is not there under its name.
//! * What is damaged is restored nowhere.

mod file;
mod new_file;
mod progress;
mod restore;

pub(crate) use self::file::SnapshotFile;
pub(crate) use self::new_file::NewFile;
pub(crate) use self::progress::{Progress, mebibytes};
pub(crate) use self::restore::restore;

/// What a file begins with.
const MAGIC: [u8; 8] = *b"vvrmsnap";
/// The format of files that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
