//! What can go wrong with the log, and whose problem it is.
//!
//! Invariants:
//! * A [`Broken`] log never works again in this process: after a failed write or sync nobody knows
//!   what the file holds, and only opening it again, with every record verified, can tell.
//! * [`Damage`] means that something this server may have promised (an entry it acknowledged, a
//!   vote) can be gone. Such a server must not vote; it rejoins under a new identity.

use std::{fmt, io};

/// The log has failed for good; the process should end and open the log again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is broken: {what} failed: {reason}; restart the server, which verifies the log")]
pub struct Broken {
    /// The step that failed, with the file's name.
    pub what: String,
    /// What the disk answered.
    pub reason: String,
}

/// Proof that the log lost or changed something it had promised to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment in which the first bad bytes are, or the first one missing.
    pub segment: u64,
    /// Where in the segment, in bytes.
    pub offset: u64,
    /// What was expected and what was found.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} at byte {}: {}", self.segment, self.offset, self.reason)
    }
}

/// Why the log refused a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// There is no log in the directory; it has yet to be created.
    #[error("there is no log in this directory")]
    Missing,
    /// There is a log in the directory already, and creating would overwrite it.
    #[error("there is a log in this directory already ({found}); it is never overwritten")]
    Exists {
        /// A file of the log that is there.
        found: String,
    },
    /// The log was written by a newer version. Nothing was changed.
    #[error(
        "{file} has format version {found}, this program knows up to {known}; \
         use the newer program, nothing was changed"
    )]
    NewerVersion {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version this program reads.
        known: u32,
    },
    /// The log is damaged: the server must not vote with it.
    #[error("the log is damaged: {0}")]
    Damaged(Box<Damage>),
    /// The state store and the log do not belong together: damage, here or there.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The index was trimmed away; a snapshot has it.
    #[error("index {index} is trimmed: the log begins at {first}")]
    Compacted {
        /// The index asked for.
        index: u64,
        /// The first index the log still has.
        first: u64,
    },
    /// The index is past the end.
    #[error("index {index} is not in the log: it ends at {last}")]
    Unavailable {
        /// The index asked for.
        index: u64,
        /// The last index of the log.
        last: u64,
    },
    /// The log has failed for good.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The disk failed while the log was opened or created; that may be tried again.
    #[error("opening the log: {what} failed: {reason}")]
    Io {
        /// The step that failed, with the file's name.
        what: String,
        /// What the disk answered.
        reason: String,
    },
}

impl LogError {
    /// For `map_err`: names the step an I/O error belongs to.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, reason: error.to_string() }
    }
}

impl Broken {
    /// For `map_err`: names the step an I/O error belongs to.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self { what, reason: error.to_string() }
    }
}

/// The state store and the log do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the state is at index {applied_index} term {applied_term}, but the log covers \
     ({trimmed_index}, {last_index}], commit {commit}, and has {found_term:?} as that term"
)]
pub struct Mismatch {
    /// The index the state has applied.
    pub applied_index: u64,
    /// The term the state stored with it.
    pub applied_term: u64,
    /// The log begins after this index.
    pub trimmed_index: u64,
    /// The log's last index.
    pub last_index: u64,
    /// The log's commit index.
    pub commit: u64,
    /// The term the log has at `applied_index`, if it has that index.
    pub found_term: Option<u64>,
}
