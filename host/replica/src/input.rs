//! What goes into the Node, and what passes between it and the Machine.

use std::sync::Arc;

use bytes::Bytes;
use proto::Id;
use state::apply::{Meta, SessionRow};
use state::plugins::Registry;
use state::snapshot::{Chunk, Source, Staged};
use state::{Command, Op};

use crate::digests::Digests;
use crate::outbox::{Outbox, Ticket};
use crate::peer::PeerMessage;
use crate::snapshots::{SnapshotJob, StageDone};

/// Something for the Node to do.
#[derive(Debug)]
pub enum Input {
    /// A client's write.
    Write {
        /// Its session.
        session: i64,
        /// The session's attach generation.
        generation: u32,
        /// Whether this server alone knows the session.
        is_local: bool,
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
    /// Reads, up to this slot of their connection, that are to show whatever anybody was told before.
    Reads(Ticket),
    /// This server is to stop: if it leads, another one is to, before the others miss it.
    HandOver,
    /// From the Machine.
    Report(Report),
    /// The store, with everything up to this entry, is durable.
    Durable(Arc<Source>),
    /// A chunk of a snapshot was read for another server, by its raft id.
    ChunkRead {
        /// The server.
        to: u64,
        /// The snapshot, by the index and term of its last entry.
        of: (u64, u64),
        /// The chunk.
        chunk: Chunk,
    },
    /// A chunk of a snapshot was staged.
    Staged(StageDone),
    /// From another server, by its raft id.
    Peer {
        /// The server.
        from: u64,
        /// What it says.
        message: PeerMessage,
    },
    /// A server that lost its data asks to take part anew.
    Join {
        /// Its id.
        server: u32,
        /// A random number of its own.
        nonce: u64,
    },
    /// There is a new link to a server, by its raft id.
    Linked(u64),
    /// A row of this server's state is damaged, as somebody found who read it.
    Damaged(String),
    /// The link to a server is gone.
    Unlinked(u64),
    /// What `wanted` names is what this server's state may call of plugins
    /// ([`state::plugins::Registry::wanted_digest`]), and all of it is compiled here or not. Given whenever that
    /// is otherwise.
    Compiled {
        /// Names it.
        wanted: u64,
        /// Whether all of it is.
        is_compiled: bool,
    },
    /// A server has ended its link to this one, which may have a link to it all the same.
    HungUp(u64),
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
        /// The time of the state, in milliseconds since the epoch.
        time_ms: i64,
        /// How many operations the entry held.
        operations: usize,
        /// How long that took, in microseconds.
        took_us: i64,
    },
    /// After the entry at this index the state has these digests, which are to be compared.
    Digests {
        /// The index.
        index: u64,
        /// The digests.
        digests: Digests,
    },
    /// A row of the state is damaged: nothing more is applied to it, and nobody is served from it.
    Damaged(String),
    /// What follows is for a newer program: nothing more is applied, and nobody is served.
    Waits(String),
    /// No command of this start is taken: it has to begin by replacing this boot, which it did not
    /// know of.
    Replaces(u64),
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
    /// A step of building or deleting what plugins keep is done.
    Stepped,
    /// Whether the next entry cannot be applied here for now.
    HeldUp(bool),
    /// What plugins want of the leader is something else than before.
    Wants(Wants),
    /// The servers of the ensemble are others: what stands beside the tree now.
    Members(Box<Meta>),
    /// It takes the state that it was given: what it said before is of another one.
    LeftState,
    /// It goes on with the state of a snapshot.
    Installed {
        /// What stands beside the tree.
        meta: Box<Meta>,
        /// All sessions.
        sessions: Vec<(i64, SessionRow)>,
    },
}

/// What plugins want of the leader beside what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// Whether there are steps to be done, of building or deleting what they keep.
    pub steps: bool,
    /// Whether time must go on though nothing happens, because authorizers decide by it.
    pub time: bool,
}

impl Wants {
    /// Those of the plugins that are called in a state.
    pub(crate) fn of(plugins: &Registry) -> Self {
        Self { steps: plugins.has_steps(), time: plugins.has_authorizers() }
    }
}

/// A state that is of no use, until another takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Names its store.
    pub generation: u64,
    /// What is wrong with it, for people.
    pub why: String,
}

/// What the Node gives the Machine: a snapshot, who waits, what was committed, and who may read when.
/// The jobs beside it are not for the Machine.
#[derive(Debug, Default)]
pub struct Work {
    /// The state is of no use: nobody is to be served from it, and nothing is applied to it any more.
    /// Whoever keeps it writes that down, for this and for later starts.
    pub quarantine: Option<Quarantine>,
    /// Work on stores, for a thread of its own.
    pub snapshots: Vec<SnapshotJob>,
    /// A state to go on with, before anything else.
    pub install: Option<Staged>,
    /// Commands of this server by sequence number, and where their answers go.
    pub expect: Vec<(u64, Ticket)>,
    /// Committed entries: index, term, payload.
    pub entries: Vec<(u64, u64, Bytes)>,
    /// Reads that may take their views once the entry at the index is applied.
    pub reads: Vec<(u64, Vec<Ticket>)>,
}

impl Work {
    /// Whether there is nothing for the Machine.
    pub fn is_empty(&self) -> bool {
        self.quarantine.is_none()
            && self.install.is_none()
            && self.expect.is_empty()
            && self.entries.is_empty()
            && self.reads.is_empty()
    }
}
