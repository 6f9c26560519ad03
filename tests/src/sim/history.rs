//! What happened, as checkers see it: events in order, and what was sent on which connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::{ErrorCode, Reply, Request, WatchEvent};
use state::{Reconfig, View};

/// One thing that happened.
#[derive(Clone)]
#[allow(missing_docs, reason = "the fields are named by what they are")]
pub enum Event {
    /// A client opened a connection, for a session (0 for a new one).
    Opened { conn: u64, client: usize, server: u64, session: i64 },
    /// A client gave a request to its connection; its number there.
    Sent { conn: u64, number: usize },
    /// The server gave a connection its session.
    Attached { conn: u64, session: i64, generation: u32 },
    /// The same; only this server knows the session.
    AttachedLocally { conn: u64, session: i64 },
    /// All servers are to know it from now on.
    Upgraded { conn: u64, session: i64 },
    /// A server that is read-only gave a connection its session, to read.
    Reads { conn: u64, server: u64, session: i64 },
    /// It has said something to it, though it knows a leader.
    ReadsOn { conn: u64, server: u64 },
    /// The client was told so.
    Connected { conn: u64, session: i64 },
    /// The client was told that its session is gone.
    Refused { conn: u64, session: i64 },
    /// The client got a reply.
    Replied { conn: u64, number: usize, zxid: i64, result: Result<Reply, ErrorCode> },
    /// The client got a ping's reply.
    Ponged { conn: u64, zxid: i64 },
    /// The client got a watch event.
    Notified { conn: u64, event: WatchEvent },
    /// The client got what it cannot make sense of.
    Misplaced { conn: u64, what: String },
    /// The client has no more of this connection.
    Ended { conn: u64 },
    /// A server took a whole packet from a connection.
    Heard { conn: u64 },
    /// A server closed a connection: of its own will, as a client sees it.
    HungUp { conn: u64, cut_off: bool },
    /// A Node was told by another whom that has heard from: sessions and generations.
    Told { server: u64, sessions: Vec<(i64, u32)> },
    /// A Node ticked.
    Ticked { server: u64 },
    /// A Node leads from now on, in this term; or in none any more.
    Leads { server: u64, term: Option<u64> },
    /// A server gave its vote to another, or asked for votes and thereby has given it to itself; both by
    /// their ids for raft.
    Voted { term: u64, voter: u64, candidate: u64 },
    /// A Node gave an entry out as committed, the first of all to do so, or not.
    Committed { server: u64, first: bool, index: u64, term: u64, payload: bytes::Bytes },
    /// A Machine goes on from another server's snapshot.
    Installed { server: u64 },
    /// A server's state is not what the log makes of it any more.
    Corrupted { server: u64, index: u64 },
    /// A row of a server's store cannot be read any more.
    StoreDamaged { server: u64 },
    /// A server has found that its state is wrong or damaged, and serves nobody.
    Quarantined { server: u64 },
    /// It has said something to a client all the same.
    Served { server: u64, conn: u64 },
    /// A Machine applied and published an entry.
    Applied { server: u64, index: u64, digest: u128, history: u128, view: Arc<View> },
    /// The digest over all rows of a server, computed afresh.
    Recomputed { server: u64, index: u64, kept: u128, fresh: u128 },
    /// A server is gone.
    Crashed { server: u64, how: &'static str },
    /// A server is told to let another one lead.
    HandsOver { server: u64 },
    /// An operator asks for others to take part.
    Reconfigures { asked: Reconfig },
    /// An operator asks for something of plugins.
    Operates { server: u64, asked: String },
    /// A server cannot apply an entry until a module is compiled.
    Held { server: u64 },
    /// A server that is gone has lost all its data.
    Wiped { server: u64 },
    /// A server is back, its log ends at `last`; its id for raft, and the term that it knows and whom it
    /// voted for there.
    Restarted { server: u64, last: u64, applied: u64, torn: bool, raft_id: u64, vote: (u64, u64) },
    /// A server did nothing for a while, or part of it.
    Paused { server: u64, what: &'static str, ms: i64 },
    /// A wall clock jumped.
    Jumped { server: u64, ms: i64 },
    /// Something is wrong between servers, for so long.
    Network { what: String, ms: i64 },
    /// A second has passed; a leader and a majority have run without anything wrong since then.
    Second { well_since_ms: Option<i64> },
    /// Nothing moves any more: all was sent, applied and delivered.
    Quiet,
    /// After that all servers lost their power, and are back; the clients stayed away.
    AllBack,
}

/// A request as it was sent.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its xid.
    pub xid: i32,
    /// What it asks for.
    pub request: Request,
    /// How many writes were sent before it on its connection.
    pub writes_before: usize,
    /// Whether it is a write.
    pub is_write: bool,
}

/// One connection, from both ends.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Whose.
    pub client: usize,
    /// To which server.
    pub server: u64,
    /// Its session, once that is known.
    pub session: i64,
    /// The session's attach generation, as the server has it and all servers know it.
    pub generation: Option<u32>,
    /// The generation of a session that only its server knows, or knew at first.
    pub local: Option<u32>,
    /// How many writes are of that.
    pub local_writes: usize,
    /// Whether the client accepts a server that is read-only.
    pub accepts: bool,
    /// Whether it is one.
    pub reads_only: bool,
    /// Whether the client may read what is private.
    pub reader: bool,
    /// What was sent, in order; pings are not counted.
    pub sent: Vec<Asked>,
    /// How many of those are writes.
    pub writes: usize,
    /// How many of those were answered.
    pub answered: usize,
    /// Whether the client has given it up, or it was closed.
    pub ended: bool,
}

/// All connections so far.
#[derive(Debug, Default)]
pub struct Connections {
    /// By their number.
    pub all: BTreeMap<u64, Connection>,
    /// By session and generation; see [`LOCAL`].
    ///
    /// [`LOCAL`]: super::model::LOCAL
    pub attached: BTreeMap<(i64, u32), u64>,
}

impl Connection {
    /// How many writes went out before those of this generation.
    pub fn writes_before(&self, generation: u32) -> usize {
        if self.local == Some(generation) { 0 } else { self.local_writes }
    }
}

impl Connections {
    /// The connection with this number, which exists.
    pub fn get(&self, conn: u64) -> &Connection {
        self.all.get(&conn).expect("a connection is known before anything happens on it")
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, conn: u64) -> &mut Connection {
        self.all.get_mut(&conn).expect("a connection is known before anything happens on it")
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opened { conn, client, server, session } => {
                write!(f, "client {client} opens connection {conn} to server {server}")?;
                write!(f, " for session {session:#x}")
            }
            Self::Sent { conn, number } => write!(f, "connection {conn}: request {number}"),
            Self::Attached { conn, session, generation } => {
                write!(f, "connection {conn}: attached to {session:#x}, generation {generation}")
            }
            Self::AttachedLocally { conn, session } => {
                write!(f, "connection {conn}: attached to {session:#x}, which is local")
            }
            Self::Upgraded { conn, session } => {
                write!(f, "connection {conn}: all are to know {session:#x}")
            }
            Self::Reads { conn, server, session } => {
                write!(f, "connection {conn}: reads from server {server} as {session:#x}")
            }
            Self::ReadsOn { conn, server } => {
                write!(f, "connection {conn}: server {server} says something to one that reads")
            }
            Self::Connected { conn, session } => {
                write!(f, "connection {conn}: the client has session {session:#x}")
            }
            Self::Refused { conn, session } => {
                write!(f, "connection {conn}: session {session:#x} is refused")
            }
            Self::Replied { conn, number, zxid, result } => {
                write!(f, "connection {conn}: reply to {number} at {} {result:?}", Zxid(*zxid))
            }
            Self::Ponged { conn, zxid } => write!(f, "connection {conn}: pong at {}", Zxid(*zxid)),
            Self::Notified { conn, event } => {
                let WatchEvent { kind, path, zxid } = event;
                write!(f, "connection {conn}: event {kind:?} {path} at {}", Zxid(*zxid))
            }
            Self::Misplaced { conn, what } => write!(f, "connection {conn}: {what}"),
            Self::Ended { conn } => write!(f, "connection {conn}: ended"),
            Self::Heard { conn } => write!(f, "connection {conn}: heard from"),
            Self::HungUp { conn, .. } => write!(f, "connection {conn}: the server hangs up"),
            Self::Told { server, sessions } => {
                write!(f, "server {server}: told that these were heard from: {sessions:x?}")
            }
            Self::Ticked { server } => write!(f, "server {server}: tick"),
            Self::Leads { server, term: Some(term) } => {
                write!(f, "SERVER {server} LEADS in term {term}")
            }
            Self::Leads { server, term: None } => write!(f, "server {server} leads no more"),
            Self::Voted { term, voter, candidate } => {
                write!(f, "raft id {voter}: votes for {candidate} in term {term}")
            }
            Self::Committed { server, first: false, index, .. } => {
                write!(f, "server {server}: entry {index} is committed")
            }
            Self::Committed { server, index, term, payload, .. } => {
                write!(f, "server {server}: entry {index} of term {term} is committed:")?;
                let batch = state::Batch::decode(payload);
                for group in batch.into_iter().flat_map(|batch| batch.groups) {
                    for (sequence, command) in (group.first..).zip(group.commands) {
                        let server = group.origin.0 + 1;
                        write!(f, "\n             #{server}.{sequence} {command:?}")?;
                    }
                }
                Ok(())
            }
            Self::Installed { server } => {
                write!(f, "server {server}: GOES ON FROM A SNAPSHOT")
            }
            Self::Corrupted { server, index } => {
                write!(f, "THE STATE OF SERVER {server} IS WRONG from entry {index} on")
            }
            Self::StoreDamaged { server } => {
                write!(f, "A ROW OF SERVER {server} IS DAMAGED")
            }
            Self::Served { server, conn } => {
                write!(f, "server {server}: says something on connection {conn}")
            }
            Self::Quarantined { server } => {
                write!(f, "SERVER {server} IS IN QUARANTINE")
            }
            Self::Applied { server, index, view, .. } => {
                write!(f, "server {server}: entry {index} is published, {}", Zxid(view.zxid))
            }
            Self::Recomputed { server, index, .. } => {
                write!(f, "server {server}: digest recomputed at {index}")
            }
            Self::Crashed { server, how } => write!(f, "SERVER {server} GONE: {how}"),
            Self::Reconfigures { asked } => write!(f, "an operator asks for {asked:?}"),
            Self::Operates { server, asked } => {
                write!(f, "an operator asks server {server} for {asked}")
            }
            Self::Held { server } => write!(f, "server {server}: waits for a module"),
            Self::HandsOver { server } => write!(f, "server {server} is to hand over"),
            Self::Wiped { server } => write!(f, "SERVER {server} HAS LOST ITS DATA"),
            Self::Restarted { server, last, applied, torn, .. } => {
                let torn = if *torn { ", its tail was torn" } else { "" };
                write!(f, "SERVER {server} BACK: applied {applied}, the log ends at {last}{torn}")
            }
            Self::Paused { server, what, ms } => {
                write!(f, "PAUSE of the {what} of server {server} for {ms} ms")
            }
            Self::Jumped { server, ms } => {
                write!(f, "THE CLOCK of server {server} JUMPS by {ms} ms")
            }
            Self::Network { what, ms } => write!(f, "NETWORK: {what} for {ms} ms"),
            Self::Second { .. } => write!(f, "a second"),
            Self::Quiet => write!(f, "quiet"),
            Self::AllBack => write!(f, "all servers are back"),
        }
    }
}

/// A zxid as people read it.
pub struct Zxid(pub i64);

impl std::fmt::Display for Zxid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 < 0 {
            return write!(f, "{}", self.0);
        }
        write!(f, "{}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}
