//! A snapshot that an operator saves: the header and the records of the file, and how far a connection
//! has been sent it.
//!
//! A record is its length, its checksum (crc32c), and so many bytes. The server makes them, and they go
//! into the file as they are. The first holds a [`SnapshotHeader`] as JSON, the others the chunks.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use state::Fault;
use state::apply::{Meta, STORE_FORMAT};
use state::snapshot::{Cursor, Source};

/// How many bytes of rows a record holds, about; one row may be longer.
pub const RECORD_BYTES: usize = 256 << 10;
/// How many bytes stand before those that a record holds.
pub const RECORD_HEAD_BYTES: usize = 8;

/// What stands at the beginning of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The form of the rows.
    pub store_format: u32,
    /// The last entry that is in it.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The last zxid, hexadecimal.
    pub zxid: String,
    /// The time of the last entry, in milliseconds since the epoch.
    pub time_ms: i64,
    /// Names the ensemble, hexadecimal.
    pub cluster: String,
    /// The ids of its servers.
    pub servers: Vec<u32>,
    /// How many znodes there are.
    pub znodes: u64,
    /// The digest of the state, hexadecimal.
    pub digest: String,
    /// The digest of the history, hexadecimal.
    pub history: String,
}

impl SnapshotHeader {
    /// The header of what has this meta row.
    pub fn of(meta: &Meta) -> Self {
        Self {
            store_format: STORE_FORMAT,
            index: meta.applied,
            term: meta.term,
            zxid: format!("{:#x}", meta.zxid),
            time_ms: meta.time_ms,
            cluster: format!("{:#x}", meta.cluster_id),
            servers: meta.members.servers.keys().copied().collect(),
            znodes: meta.znodes(),
            digest: format!("{:#034x}", meta.digest),
            history: format!("{:#034x}", meta.history),
        }
    }

    /// The record that a file begins with.
    ///
    /// # Panics
    /// Never: every header can be encoded.
    pub fn record(&self) -> Vec<u8> {
        record(&serde_json::to_vec(self).expect("numbers and text can always be encoded"))
    }
}

/// A record that holds these bytes.
fn record(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD_HEAD_BYTES + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Length and checksum of what a record holds, from the bytes that stand before it.
pub fn head(bytes: [u8; RECORD_HEAD_BYTES]) -> (usize, u32) {
    let [a, b, c, d, rest @ ..] = bytes;
    (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes(rest))
}

/// How far a connection has been sent a snapshot.
pub(crate) struct Saving {
    source: Arc<Source>,
    /// Where the next chunk begins; nothing after the last.
    next: Mutex<Option<Cursor>>,
}

impl fmt::Debug for Saving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Saving({:?})", self.source)
    }
}

impl Saving {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self { source, next: Mutex::new(Some(Cursor::default())) }
    }

    /// The next record, nothing after the last. Blocks on the disk.
    pub(crate) fn record(&self) -> Result<Option<Bytes>, Fault> {
        let mut next = self.next.lock();
        let Some(at) = next.take() else { return Ok(None) };
        let chunk = self.source.chunk(at, RECORD_BYTES)?;
        *next = chunk.next().cloned();
        let payload = rmp_serde::to_vec(&chunk).expect("a chunk can always be encoded");
        Ok(Some(record(&payload).into()))
    }
}
