//! A local failure. It is never turned into an outcome: the server stops applying.

use thiserror::Error;

/// Why this server cannot go on applying; it says nothing of the entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The store failed. Nothing is retried on it; reopening replays the log.
    #[error("the store failed: {0}; restart the server, which replays its log")]
    Store(String),
    /// What is stored is not what was written: the disk or the program is at fault. Another server's state
    /// heals it.
    #[error("{keyspace}: what is stored is damaged: {why}")]
    Damaged {
        /// Which keyspace, or what else.
        keyspace: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer version; the data is untouched.
    #[error("{what} is of version {found}, this program knows up to {known}; run a newer one")]
    Newer {
        /// What is too new.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// Something of this server's own is missing for now, such as a compiled module. It has applied nothing
    /// of the entry, which is to be tried again.
    #[error("{0}")]
    Waiting(String),
    /// Another process has the data directory open.
    #[error("the data directory is in use by another server")]
    InUse,
}
