//! What servers say to each other. Its encoding is a format of its own, with a version.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digests::Word;
use crate::proposals::Sent;
use crate::raft::RaftMessage;
use crate::snapshots::SnapshotMessage;

/// The version of the messages; servers of different ones do not talk.
pub const PEER_FORMAT: u32 = 4;

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// One of raft's.
    Raft {
        /// It.
        message: RaftMessage,
        /// What the sender's wall clock shows, in milliseconds since the epoch.
        wall_ms: i64,
    },
    /// Commands for the leader to propose, of the server with this id.
    Forward(u32, Sent),
    /// From the leader: commands did not come.
    SendAgain(Missing),
    /// The sessions whose clients were heard from since the last time, with their attach generations.
    Heard(Vec<(i64, u32)>),
    /// For the leader: a server that lost its data asks to take part anew, with its id and a random
    /// number.
    Join(u32, u64),
    /// Of a snapshot that is on its way.
    Snapshot(SnapshotMessage),
    /// What the sender's state is.
    Word(Word),
    /// The newest apply version that the sender knows.
    Knows(u32),
    /// Names the plugins' modules that are compiled there, if all are that its state may call; otherwise 0.
    Compiled(u64),
}

/// What must be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    /// Everything that is not applied.
    All,
    /// What is from this number on.
    From(u64),
}

/// A message that cannot be decoded.
#[derive(Debug, Error)]
#[error("a peer's message cannot be decoded: {0}")]
pub struct PeerMessageError(String);

impl PeerMessage {
    /// The bytes that go over a link.
    ///
    /// # Panics
    /// Never: every message can be encoded.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec(self).expect("a message can always be encoded")
    }

    /// Reads the bytes of a message.
    ///
    /// # Errors
    /// [`PeerMessageError`]: close the link.
    pub fn decode(bytes: &[u8]) -> Result<Self, PeerMessageError> {
        rmp_serde::from_slice(bytes).map_err(|e| PeerMessageError(e.to_string()))
    }
}
