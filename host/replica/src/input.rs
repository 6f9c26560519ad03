//! What goes into the Node, and what passes between it and the Machine.

use std::sync::Arc;

use bytes::Bytes;
use proto::Id;
use state::{Command, Op};

use crate::outbox::{Outbox, Ticket};
use crate::peer::PeerMessage;

/// Something for the Node to do.
#[derive(Debug)]
pub enum Input {
    /// A client's write.
    Write {
        /// Its session.
        session: i64,
        /// The session's attach generation.
        generation: u32,
        /// Who the client is.
        identities: Arc<Vec<Id>>,
        /// What it asks for.
        op: Op,
        /// Where its reply goes.
        ticket: Ticket,
    },
    /// Any other command.
    Command {
        /// What to do.
        command: Command,
        /// Where its answer goes, if anybody waits.
        ticket: Option<Ticket>,
    },
    /// From the Machine.
    Report(Report),
    /// Everything up to this index is durable in the store.
    Durable(u64),
    /// From another server, by its raft id.
    Peer {
        /// The server.
        from: u64,
        /// What it says.
        message: PeerMessage,
    },
    /// There is a new link to a server, by its raft id.
    Linked(u64),
    /// The link to a server is gone.
    Unlinked(u64),
}

/// What the Machine tells the Node.
#[derive(Debug)]
pub enum Report {
    /// It has applied up to this index.
    Applied {
        /// The index.
        index: u64,
        /// The last command of this server, by its number, that the entry at this index held.
        own: Option<u64>,
    },
    /// A session was made or attached.
    Attached {
        /// Its id.
        session: i64,
        /// Its attach generation.
        generation: u32,
        /// Its timeout.
        timeout_ms: i32,
        /// Its connection, if that is to this server.
        outbox: Option<Arc<Outbox>>,
    },
    /// A session is gone.
    Closed(i64),
    /// A close has more ephemerals to delete.
    Closing(i64),
}

/// What the Node gives the Machine: who waits, then what was committed.
#[derive(Debug, Default)]
pub struct Work {
    /// Commands of this server by sequence number, and where their answers go.
    pub expect: Vec<(u64, Ticket)>,
    /// Committed entries: index, term, payload.
    pub entries: Vec<(u64, u64, Bytes)>,
}
