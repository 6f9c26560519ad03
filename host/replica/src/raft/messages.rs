//! Raft's messages and entries in the forms of raft-rs, of the log, and of what goes to other servers.

use bytes::Bytes;
use raft::prelude::{ConfState, EntryType, MessageType, Snapshot};
use serde::{Deserialize, Serialize};
use state::apply::Meta;

use crate::log::Entry;

/// Where a snapshot ends, and whom raft counts there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotAt {
    /// The index of its last entry.
    pub index: u64,
    /// The term of that.
    pub term: u64,
    /// Who votes, by their ids for raft.
    pub voters: Vec<u64>,
    /// Who gets the log and does not vote.
    pub learners: Vec<u64>,
}

impl SnapshotAt {
    /// That of a state.
    pub(crate) fn of(meta: &Meta) -> Self {
        let (voters, learners) = (meta.members.voters.clone(), meta.members.learners.clone());
        Self { index: meta.applied, term: meta.term, voters, learners }
    }
}

pub(super) fn to_snapshot(at: &SnapshotAt) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (at.index, at.term);
    metadata.set_conf_state(conf_state(&at.voters, &at.learners));
    snapshot
}

/// A message of raft's, as it goes to another server. The names are raft-rs's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of `eraftpb::Message`")]
pub struct RaftMessage {
    pub kind: i32,
    pub to: u64,
    pub from: u64,
    pub term: u64,
    pub log_term: u64,
    pub index: u64,
    pub entries: Vec<RaftEntry>,
    pub commit: u64,
    pub commit_term: u64,
    pub request_snapshot: u64,
    pub reject: bool,
    pub reject_hint: u64,
    pub context: Bytes,
    pub priority: i64,
    pub snapshot: Option<SnapshotAt>,
}

#[cfg(test)]
impl RaftMessage {
    /// One that offers a snapshot, with nothing else in it.
    pub(crate) fn offer(from: u64, at: SnapshotAt) -> Self {
        let mut message = raft::prelude::Message { from, ..Default::default() };
        message.set_msg_type(MessageType::MsgSnapshot);
        message.set_snapshot(to_snapshot(&at));
        to_peer(message)
    }
}

/// An entry in such a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of `eraftpb::Entry`")]
pub struct RaftEntry {
    pub index: u64,
    pub term: u64,
    pub kind: u8,
    pub data: Bytes,
    pub context: Bytes,
}

pub(super) fn to_peer(message: raft::prelude::Message) -> RaftMessage {
    let entry = |entry: raft::prelude::Entry| {
        let Entry { index, term, kind, data, context } = to_log(entry);
        RaftEntry { index, term, kind, data, context }
    };
    let snapshot = message.has_snapshot().then(|| {
        let metadata = message.get_snapshot().get_metadata();
        let conf = metadata.get_conf_state();
        let (voters, learners) = (conf.get_voters().to_vec(), conf.get_learners().to_vec());
        SnapshotAt { index: metadata.index, term: metadata.term, voters, learners }
    });
    RaftMessage {
        snapshot,
        kind: message.get_msg_type() as i32,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        priority: message.priority,
        context: message.context,
        entries: message.entries.into_iter().map(entry).collect(),
    }
}

pub(super) fn from_peer(message: RaftMessage) -> Option<raft::prelude::Message> {
    let mut out = raft::prelude::Message::default();
    out.set_msg_type(message_type(message.kind)?);
    (out.to, out.from, out.term) = (message.to, message.from, message.term);
    (out.log_term, out.index) = (message.log_term, message.index);
    (out.commit, out.commit_term) = (message.commit, message.commit_term);
    out.request_snapshot = message.request_snapshot;
    (out.reject, out.reject_hint) = (message.reject, message.reject_hint);
    (out.context, out.priority) = (message.context, message.priority);
    let entry = |entry: RaftEntry| {
        let RaftEntry { index, term, kind, data, context } = entry;
        to_raft(Entry { index, term, kind, data, context })
    };
    out.set_entries(message.entries.into_iter().map(entry).collect());
    if let Some(at) = &message.snapshot {
        out.set_snapshot(to_snapshot(at));
    }
    Some(out)
}

/// Those that may come from another server.
pub(super) fn message_type(kind: i32) -> Option<MessageType> {
    let known = [
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgTransferLeader,
        MessageType::MsgTimeoutNow,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
    ];
    known.into_iter().find(|known| *known as i32 == kind)
}

pub(super) fn to_raft(entry: Entry) -> raft::prelude::Entry {
    let mut out = raft::prelude::Entry::default();
    out.set_index(entry.index);
    out.set_term(entry.term);
    out.set_entry_type(match entry.kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        _ => EntryType::EntryConfChangeV2,
    });
    out.data = entry.data;
    out.context = entry.context;
    out
}

pub(super) fn to_log(entry: raft::prelude::Entry) -> Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    };
    let (index, term) = (entry.get_index(), entry.get_term());
    Entry { index, term, kind, data: entry.data, context: entry.context }
}

pub(super) fn conf_state(voters: &[u64], learners: &[u64]) -> ConfState {
    let mut conf = ConfState::default();
    conf.set_voters(voters.to_vec());
    conf.set_learners(learners.to_vec());
    conf
}
