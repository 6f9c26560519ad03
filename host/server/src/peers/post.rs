//! Who calls whom, and who is let in: what both sides of a new link say first.
//!
//! Invariants:
//! * A server is who answers where it is known to be: one that calls with the same id, but is another
//!   process, is refused, since two that vote for one could acknowledge what gets lost.
//! * An ensemble is founded only by servers that all had no data when they started, that never had any
//!   as far as they know, and that name the same servers. One that lost its data, or is new, takes part
//!   with an id for raft that it is given.
//! * What is told of a caller is told once, not with each of its calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use replica::Input;
use serde::{Deserialize, Serialize};
use state::Members;

use super::frames::{decode, encode, frame, read_frame};
use super::wire::{Secured, Wire};
use super::{Has, PATIENCE};
use crate::mailbox::Mailbox;

/// Those that found an ensemble, as a configuration has them, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founders {
    /// The ids of those that vote.
    pub(crate) voters: Vec<u32>,
    /// The ids of those that do not.
    pub(crate) observers: Vec<u32>,
}

/// What a caller says first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) from: u32,
    /// A random number of the caller's start.
    pub(super) boot: u64,
    /// The caller's id for raft.
    pub(super) raft_id: u64,
    pub(super) to: u32,
    /// Which ensemble's data the caller has; 0 if it does not know yet.
    pub(super) cluster: u64,
    /// Those that found the ensemble with the caller, if it has no data and never had any.
    pub(super) founders: Founders,
    /// Set if the caller has no data, and takes no part before it knows that it may: a random number
    /// of its own.
    pub(super) empty: Option<u64>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    /// A random number of this server's start.
    pub(super) boot: u64,
    /// Why the caller is refused.
    pub(super) refused: Option<String>,
    /// This server's id for raft.
    pub(super) raft_id: u64,
    /// The id for raft that an empty caller takes part with, once it is let in.
    pub(super) admitted: Option<u64>,
    /// Whether the caller, if it has no data, may take part as a founder: this server had none
    /// either when it started, and has not seen the caller take part since.
    pub(super) may_found: bool,
    /// Whether the caller, if it has no data, is one of the ensemble's servers.
    pub(super) is_member: bool,
    /// Whether this server takes part.
    pub(super) takes_part: bool,
}

/// What the answers to calls depend on.
pub(super) struct Post {
    pub(super) id: u32,
    pub(super) boot: u64,
    pub(super) raft_id: AtomicU64,
    /// 0 as long as it is not known.
    pub(super) cluster: AtomicU64,
    pub(super) founders: Founders,
    /// With nobody among them, those that the configuration names are let in.
    pub(super) members: RwLock<Arc<Members>>,
    /// What it began with.
    pub(super) has: Has,
    /// Whether it had a restored snapshot, which the others are to get.
    pub(super) restored: bool,
    /// Whether it takes part by now.
    pub(super) takes_part: AtomicBool,
    /// Who was seen to take part since it started.
    pub(super) took_part: Mutex<BTreeSet<u32>>,
    /// Of each peer, the start of the process that answers its calls, and the calls taken from it.
    pub(super) known: Mutex<BTreeMap<u32, Known>>,
    /// What was last said of whom.
    pub(super) told: Mutex<BTreeMap<Option<u32>, String>>,
    pub(super) inputs: Arc<Mailbox<Input>>,
    /// Whether links are by TLS.
    pub(super) secured: Option<Secured>,
}

#[derive(Default)]
pub(super) struct Known {
    answers: Option<u64>,
    calls: Option<(u64, TcpStream)>,
}

/// Who was refused, if it said who it is, and why.
pub(super) type Refusal = (Option<u32>, io::Error);

impl Post {
    pub(super) fn hello(&self, to: u32, empty: Option<u64>) -> Hello {
        let (from, boot, founders) = (self.id, self.boot, self.founders.clone());
        let raft_id = self.raft_id.load(Ordering::Relaxed);
        let cluster = self.cluster.load(Ordering::Relaxed);
        Hello { from, boot, raft_id, to, cluster, founders, empty }
    }

    /// Takes a call; gives the peer's ids, its own and that for raft, if messages follow.
    ///
    /// # Errors
    /// Who was refused, if that is known, and why.
    pub(super) fn answer(&self, wire: &mut Wire) -> Result<Option<(u32, u64)>, Refusal> {
        let hello: io::Result<Hello> = (|| {
            wire.socket().set_nodelay(true)?;
            wire.socket().set_read_timeout(Some(PATIENCE))?;
            decode(&read_frame(wire)?)
        })();
        let hello = hello.map_err(|error| {
            // One of another version understands as much of the answer as it must. Others may not
            // listen.
            let _ = wire.write_all(&frame(&encode(&self.welcome(Some(error.to_string())))));
            (None, error)
        })?;
        let from = hello.from;
        let of_caller = |error: io::Error| (Some(from), error);
        let welcome = self.decide(&hello);
        let said = wire.write_all(&frame(&encode(&welcome))).and_then(|()| wire.flush());
        said.map_err(of_caller)?;
        if let Some(why) = welcome.refused {
            return Err(of_caller(io::Error::other(why)));
        }
        if hello.empty.is_some() {
            return Ok(None);
        }
        self.told.lock().remove(&Some(from));
        let taken = wire.socket().try_clone().map_err(of_caller)?;
        self.known.lock().entry(from).or_default().calls = Some((hello.boot, taken));
        Ok(Some((from, hello.raft_id)))
    }

    /// Says why a call was refused, unless that was the last thing said of that caller.
    pub(super) fn tell(&self, from: Option<u32>, error: &io::Error) {
        let (text, mut told) = (error.to_string(), self.told.lock());
        if told.get(&from) != Some(&text) {
            tracing::warn!(error = text, "a peer's call was refused");
            told.insert(from, text);
        }
    }

    /// The process with this `boot` answers calls for a peer; what another one had called is closed.
    pub(super) fn answers(&self, peer: u32, boot: u64) {
        let mut known = self.known.lock();
        let known = known.entry(peer).or_default();
        known.answers = Some(boot);
        if let Some((_, stream)) = known.calls.take_if(|(calls, _)| *calls != boot) {
            // It fails where it has ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Nobody answers calls for a peer.
    pub(super) fn answers_no_more(&self, peer: u32) {
        self.known.lock().entry(peer).or_default().answers = None;
    }

    fn welcome(&self, refused: Option<String>) -> Welcome {
        let (boot, raft_id) = (self.boot, self.raft_id.load(Ordering::Relaxed));
        let takes_part = self.takes_part.load(Ordering::Relaxed);
        let (admitted, may_found, is_member) = (None, false, false);
        Welcome { boot, refused, raft_id, admitted, may_found, is_member, takes_part }
    }

    fn decide(&self, hello: &Hello) -> Welcome {
        let (from, refused) = (hello.from, self.refuses(hello));
        let mut took_part = self.took_part.lock();
        if refused.is_none() && hello.empty.is_none() {
            took_part.insert(from);
        }
        // One that this server has founded its ensemble without is to be added.
        let may_found = self.has == Has::Nothing
            && !self.restored
            && hello.founders == self.founders
            && !took_part.contains(&from);
        drop(took_part);
        let members = Arc::clone(&self.members.read());
        let member = members.servers.get(&from);
        let mut admitted = None;
        if let (None, Some(nonce), false) = (&refused, hello.empty, may_found) {
            admitted = member.filter(|m| m.nonce == nonce).map(|member| member.raft_id);
            if admitted.is_none() && self.takes_part.load(Ordering::Relaxed) {
                self.inputs.put([Input::Join { server: from, nonce }]);
            }
        }
        let is_member = member.is_some();
        Welcome { admitted, may_found, is_member, ..self.welcome(refused) }
    }

    /// Why a caller is refused, if it is.
    fn refuses(&self, hello: &Hello) -> Option<String> {
        let (from, is_empty) = (hello.from, hello.empty.is_some());
        let members = Arc::clone(&self.members.read());
        let known = members.servers.get(&from).map(|member| member.raft_id);
        let cluster = self.cluster.load(Ordering::Relaxed);
        let answers = self.known.lock().get(&from).and_then(|known| known.answers);
        if hello.to != self.id {
            Some(format!("expected a call for server {}, got one for {}", self.id, hello.to))
        } else if from == self.id {
            Some(format!("expected another server of the ensemble, got server {from}"))
        } else if self.restored
            && !self.takes_part.load(Ordering::Relaxed)
            && ![0, cluster].contains(&hello.cluster)
        {
            let id = self.id;
            Some(format!(
                "server {id} begins a new ensemble with a restored snapshot, and server {from} has data \
                 of its own: empty the data directory of one of them"
            ))
        } else if hello.cluster != cluster && hello.cluster != 0 && cluster != 0 {
            let theirs = hello.cluster;
            Some(format!(
                "expected data of the ensemble {cluster:#x}, got a server with that of {theirs:#x}"
            ))
        } else if is_empty
            && !self.takes_part.load(Ordering::Relaxed)
            && hello.founders != self.founders
            && [&hello.founders, &self.founders].iter().all(|f| **f != Founders::default())
        {
            let (ours, theirs) = (&self.founders, &hello.founders);
            Some(format!("expected an ensemble of the servers {ours}, got one of {theirs}"))
        } else if !is_empty && !self.takes_part.load(Ordering::Relaxed) {
            Some("it has no data yet, and takes no part".to_owned())
        } else if !is_empty && known.is_some_and(|known| hello.raft_id < known) {
            Some(format!(
                "server {from} took part anew without data, with another id for raft; this data of \
                 it, from before, is of no use: empty its data directory"
            ))
        } else if !is_empty && !members.servers.is_empty() && !members.knows(from, hello.raft_id) {
            Some(format!(
                "server {from} is not of the ensemble (any more): to let it take part, empty its data \
                 directory, start it, and add it (`vivarium member add`)"
            ))
        } else if answers.is_some_and(|boot| boot != hello.boot) {
            Some(format!(
                "expected the server {from} that answers where it is known to be, got another one \
                 with its id: every server needs an id of its own"
            ))
        } else {
            None
        }
    }
}

impl std::fmt::Display for Founders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.voters)?;
        if self.observers.is_empty() {
            return Ok(());
        }
        write!(f, " and the observers {:?}", self.observers)
    }
}
