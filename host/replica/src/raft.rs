//! Drives raft-rs over our log. Nothing but this and what is below it names raft-rs.
//!
//! Invariants:
//! * No vote and no append acknowledgement leaves before its sender's own sync (here: nothing is
//!   given out as committed before the log is synced).
//! * `commit` is written with or before what applies it.
//! * Between `ready` and `advance` nothing else is done with raft.

mod messages;
mod storage;

use std::cell::RefCell;

use bytes::Bytes;
use raft::prelude::{ConfChange, ConfChangeType, ConfState, Config, MessageType, RawNode};
use raft::{ProgressState, SnapshotStatus, StateRole};
use state::apply::Meta;
use state::{Batch, ConfStep};

use self::messages::{conf_state, from_peer, to_log, to_peer};
use self::storage::LogStorage;
use crate::log::{Disk, Entry, HardState, Log, LogError, Position};
use crate::marked::{self, Marked};
use crate::membership::Counted;
use crate::snapshots::Offers;

pub use self::messages::{RaftEntry, RaftMessage, SnapshotAt};

/// One that lacks no more entries than this is as good as up to date.
const NEARLY_ALL: u64 = 64;
/// A leader is heard from every tick; after so many, something is wrong.
const HEARD_TICKS: usize = 3;
/// One that stands back waits for so many election timeouts before it asks for votes.
const STANDS_BACK_TIMEOUTS: usize = 4;

/// The change of whom raft counts, as raft has it.
fn conf_change(step: ConfStep) -> ConfChange {
    let (kind, id) = match step {
        ConfStep::Voter(id) => (ConfChangeType::AddNode, id),
        ConfStep::Learner(id) => (ConfChangeType::AddLearnerNode, id),
        ConfStep::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    let mut change = ConfChange::default();
    change.set_change_type(kind);
    change.node_id = id;
    change
}

/// What apply takes of an entry: of one of raft's own, the change that its context holds.
pub fn payload(entry: &Entry) -> &Bytes {
    if entry.kind == 0 { &entry.data } else { &entry.context }
}

/// What came of a flush.
pub(crate) struct Flushed {
    /// What is committed: index, term, payload.
    pub(crate) entries: Vec<(u64, u64, Bytes)>,
    /// Where a snapshot ends that was taken first; the entries go on from there.
    pub(crate) installed: Option<u64>,
    /// Answers to [`Raft::read_index`]: the index, and the name of the question.
    pub(crate) read_indexes: Vec<(u64, Vec<u8>)>,
}

/// A raft node over its log.
pub(crate) struct Raft<D: Disk> {
    node: RawNode<LogStorage<D>>,
    /// Whether others are to lead, if they can: then it asks for votes late, and only because it may be
    /// the one with the most of the log.
    pub(crate) stands_back: bool,
    /// What the leader was last told that this server has: to whom, in which term, up to where. `None`
    /// since it last gave a sign that it may not know.
    told: Option<(u64, u64, u64)>,
    /// A planted bug: the log is synced with the next tick only.
    pub(crate) sync_late: bool,
    /// A planted bug: votes are not written.
    pub(crate) forget_vote: bool,
}

impl<D: Disk> Raft<D> {
    /// A node that has applied up to `applied`, where `voters` and `learners` are counted.
    pub(crate) fn new(
        log: Log<D>,
        id: u64,
        (voters, learners): (&[u64], &[u64]),
        applied: u64,
        (min_election_tick, max_election_tick): (usize, usize),
    ) -> Result<Self, raft::Error> {
        // Every value is set: the defaults are unsafe.
        let config = Config {
            id,
            election_tick: min_election_tick,
            heartbeat_tick: 1,
            applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            min_election_tick,
            max_election_tick,
            read_only_option: raft::ReadOnlyOption::Safe,
            skip_bcast_commit: false,
            batch_append: false,
            priority: 0,
            max_uncommitted_size: 64 << 20,
            max_committed_size_per_ready: 16 << 20,
        };
        let conf = conf_state(voters, learners);
        let storage = LogStorage { log, conf, offers: RefCell::default() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&config, storage, &logger)?;
        if voters == [id] {
            // Nobody else can lead.
            node.campaign()?;
        }
        let (told, stands_back) = (None, false);
        Ok(Self { node, stands_back, told, sync_late: false, forget_vote: false })
    }

    pub(crate) fn tick(&mut self) -> Result<(), LogError> {
        if self.sync_late {
            self.node.mut_store().log.sync()?;
        }
        if self.stands_back && !self.is_leader() {
            self.wait();
        } else {
            self.node.tick();
        }
        for late in self.node.mut_store().offers.get_mut().tick() {
            // The offer may be lost: raft makes another.
            self.node.report_snapshot(late, SnapshotStatus::Failure);
        }
        for to in self.offers().receivers() {
            let matched = self.node.raft.prs().get(to).map_or(0, |progress| progress.matched);
            self.offers().reached(to, matched);
        }
        Ok(())
    }

    /// A tick of one that stands back.
    fn wait(&mut self) {
        let raft = &mut self.node.raft;
        raft.election_elapsed += 1;
        if raft.election_elapsed >= STANDS_BACK_TIMEOUTS * raft.election_timeout() {
            raft.election_elapsed = 0;
            self.campaign();
        }
    }

    /// What this server offers to those that are too far behind.
    pub(crate) fn offers(&mut self) -> &mut Offers {
        self.node.mut_store().offers.get_mut()
    }

    /// The last entry known to be committed.
    pub(crate) fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader of the current term, 0 if none is known, and the term.
    pub(crate) fn leader(&self) -> (u64, u64) {
        (self.node.raft.leader_id, self.node.raft.term)
    }

    /// Whether it leads, or has heard from the leader of late.
    pub(crate) fn hears_leader(&self) -> bool {
        let raft = &self.node.raft;
        self.is_leader() || raft.leader_id != 0 && raft.election_elapsed <= HEARD_TICKS
    }

    /// The index of the last entry, on the disk or not.
    pub(crate) fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Takes a message of another server.
    pub(crate) fn step(&mut self, message: RaftMessage) {
        let Some(message) = from_peer(message) else {
            return tracing::warn!("a raft message of an unknown kind was dropped");
        };
        if self.stands_back && message.get_msg_type() == MessageType::MsgTimeoutNow {
            return tracing::info!("this server was to lead, and stands back");
        }
        let only_commits =
            message.get_msg_type() == MessageType::MsgAppend && message.get_entries().is_empty();
        if !only_commits {
            self.told = None;
        }
        if let Err(error) = self.node.step(message) {
            tracing::debug!(%error, "raft dropped a message");
        }
    }

    /// The leader is gone, as far as is known here: who else believes so may be voted for at once.
    pub(crate) fn forget_leader(&mut self) {
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
    }

    /// Asks for votes, if this server has one. raft-rs does not look, and takes all votes of nobody for
    /// enough: a server that does not know who votes would lead.
    pub(crate) fn campaign(&mut self) {
        if !self.node.raft.promotable() {
            return;
        }
        if let Err(error) = self.node.campaign() {
            tracing::debug!(%error, "raft does not campaign");
        }
    }

    /// Who votes, by their ids for raft.
    pub(crate) fn voters(&self) -> Vec<u64> {
        self.node.raft.prs().conf().voters().ids().iter().collect()
    }

    /// Whom raft counts, as a leader knows them; `is_there` says who can be reached.
    pub(crate) fn counted(&self, is_there: impl Fn(u64) -> bool) -> Vec<Counted> {
        let (me, last) = (self.node.raft.id, self.last_index());
        let progress = self.node.raft.prs();
        let voters = self.voters();
        let mut counted: Vec<Counted> = progress
            .iter()
            .map(|(id, at)| Counted {
                id: *id,
                votes: voters.contains(id),
                is_there: *id == me || is_there(*id),
                // An empty one has nothing, however short the log.
                is_up_to_date: *id == me || at.matched > 0 && at.matched + NEARLY_ALL >= last,
                is_ready: true,
                is_well: true,
            })
            .collect();
        counted.sort_by_key(|counted| counted.id);
        counted
    }

    /// Up to which entry those whom raft counts have the log, by their ids for raft; nobody but a leader
    /// knows.
    pub(crate) fn matched(&self) -> Vec<(u64, u64)> {
        self.node.raft.prs().iter().map(|(id, at)| (*id, at.matched)).collect()
    }

    /// Whether a change of whom raft counts is under way.
    pub(crate) fn is_changing(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Proposes such a change.
    pub(crate) fn propose_change(&mut self, step: ConfStep) -> Result<(), raft::Error> {
        self.node.propose_conf_change(Batch::encode_conf(step), conf_change(step))
    }

    /// The other voter with most of the log, of those that can be reached; none if this server does not
    /// lead.
    pub(crate) fn successor(&self, is_there: impl Fn(u64) -> bool) -> Option<u64> {
        let me = self.node.raft.id;
        let voters = self.voters().into_iter().filter(|id| *id != me && is_there(*id));
        let progress = self.node.raft.prs();
        voters
            .filter(|_| self.is_leader())
            .max_by_key(|id| progress.get(*id).map_or(0, |progress| progress.matched))
    }

    /// Lets another server lead, as soon as it has all of the log. Nothing can be proposed meanwhile; if
    /// nothing comes of it, this server goes on after an election timeout.
    pub(crate) fn hand_over(&mut self, id: u64) {
        self.node.transfer_leader(id);
    }

    /// Whether another voter can be given what it lacks from the log, so that it may lead some day.
    pub(crate) fn is_followed(&self) -> bool {
        let (me, progress) = (self.node.raft.id, self.node.raft.prs());
        let first = self.log().first_index();
        let others = self.voters().into_iter().filter(|id| *id != me);
        others.filter_map(|id| progress.get(id)).any(|of| {
            let needs_state = of.state == ProgressState::Snapshot || of.matched + 1 < first;
            of.recent_active && !needs_state
        })
    }

    /// Leads no longer: those who follow elect another when they have heard nothing for long enough.
    pub(crate) fn resign(&mut self) {
        let raft = &mut self.node.raft;
        raft.become_follower(raft.term, raft::INVALID_ID);
    }

    /// Whether there is no other voter.
    pub(crate) fn is_alone(&self) -> bool {
        self.voters() == [self.node.raft.id]
    }

    /// How many voters with smaller ids there are, the lost leader not counted.
    pub(crate) fn rank(&self, lost: u64) -> u32 {
        let me = self.node.raft.id;
        self.voters().into_iter().filter(|id| *id < me && *id != lost).count() as u32
    }

    /// Messages to this server do not get through.
    pub(crate) fn unreachable(&mut self, id: u64) {
        self.node.report_unreachable(id);
    }

    /// Proposes an entry; gives it back if raft has too much in hand.
    pub(crate) fn propose(&mut self, payload: Vec<u8>) -> Result<(), raft::Error> {
        self.node.propose(Vec::new(), payload)
    }

    /// Whether it leads, and another one is to.
    pub(crate) fn hands_over(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// Whether a leader is known that can answer [`Self::read_index`], as far as is known here: a new
    /// one commits something first.
    pub(crate) fn answers_reads(&self) -> bool {
        let raft = &self.node.raft;
        raft.leader_id != 0 && (!self.is_leader() || raft.commit_to_current_term())
    }

    /// Asks the leader up to where all is committed. The answer may never come; `question` is its
    /// name, and must never have been used before.
    pub(crate) fn read_index(&mut self, question: Vec<u8>) {
        self.node.read_index(question);
    }

    /// Everything up to `index` is applied. A state that was replaced may be an earlier one.
    pub(crate) fn applied(&mut self, index: u64) {
        if index > self.node.raft.raft_log.applied() {
            self.node.advance_apply_to(index);
        }
    }

    /// Goes on with another state, of this generation, while the log stays; false if it has no such entry,
    /// or does not know yet that it is committed.
    pub(crate) fn take_state(&mut self, meta: &Meta, generation: u64) -> Result<bool, LogError> {
        let at = Position { index: meta.applied, term: meta.term };
        let committed = self.committed();
        let log = &mut self.node.mut_store().log;
        let fits = at.index <= committed && log.term(at.index) == Some(at.term);
        if fits {
            // Whom raft counts was not forgotten with the state.
            let known = Marked::of(log).known.or_else(|| marked::Known::of(meta));
            log.set_marker(at, &Marked { generation, known }.encode());
            log.sync()?;
        }
        Ok(fits)
    }

    /// There is a state of this ensemble: with the next sync the log says so, and whom raft counts, if it
    /// did not.
    pub(crate) fn mark(&mut self, meta: &Meta) {
        let Some(mut new) = marked::Known::of(meta) else { return };
        let marked = Marked::of(self.log());
        match marked.known.as_ref() {
            Some(known) if known.cluster_id == new.cluster_id => return,
            // Raft is ahead of the state.
            Some(known) if known.at > new.at => {
                new = marked::Known { cluster_id: new.cluster_id, ..known.clone() };
            }
            _ => {}
        }
        let at = Position { index: meta.applied, term: meta.term };
        let marked = Marked { known: Some(new), ..marked };
        self.node.mut_store().log.set_marker(at, &marked.encode());
    }

    /// Raft counts others from an entry on.
    fn mark_change(&mut self, at: Position, conf: &ConfState) {
        let log = &mut self.node.mut_store().log;
        let marked = Marked::of(log);
        let cluster_id = marked.known.as_ref().map_or(0, |known| known.cluster_id);
        let (voters, learners) = (conf.get_voters().to_vec(), conf.get_learners().to_vec());
        let known = marked::Known { cluster_id, at: at.index, voters, learners };
        let marked = Marked { known: Some(known), ..marked };
        log.set_marker(at, &marked.encode());
    }

    /// The log's size in bytes, entries and all.
    pub(crate) fn log(&self) -> &Log<D> {
        &self.node.store().log
    }

    pub(crate) fn trim(&mut self, index: u64) -> Result<(), LogError> {
        self.node.mut_store().log.trim(index)
    }

    /// Writes and syncs what raft has decided, sends its messages, and gives what is committed.
    /// Where raft takes a snapshot, the log goes on from it, with what is `marked` of its state. `send` is
    /// called at least once before anything is waited for, if with nothing.
    ///
    /// # Panics
    /// If raft takes one and there is no state: it is put to raft only with one.
    pub(crate) fn flush(
        &mut self,
        marked: Option<&Marked>,
        send: &mut dyn FnMut(Vec<RaftMessage>),
    ) -> Result<Flushed, LogError> {
        let mut send = |messages: Vec<raft::prelude::Message>| {
            send(messages.into_iter().map(to_peer).collect());
        };
        let (mut committed, mut installed, mut read_indexes) = (Vec::new(), None, Vec::new());
        if !self.node.has_ready() {
            send(Vec::new());
        }
        while self.node.has_ready() {
            // 1. What raft has decided.
            let mut ready = self.node.ready();
            // 2. A leader's messages, which need not wait for its own disk.
            send(ready.take_messages());
            let answers = ready.take_read_states().into_iter();
            read_indexes.extend(answers.map(|answer| (answer.index, answer.request_ctx)));
            // 3. A snapshot, whose state is staged: this makes it the one that there is.
            if !ready.snapshot().is_empty() {
                let at = ready.snapshot().get_metadata();
                let store = self.node.mut_store();
                let marked = marked.expect("its state is staged");
                store.log.install(at.index, at.term, &marked.encode())?;
                committed.clear();
                installed = Some(at.index);
            }
            // 4. What was committed before.
            let mut changes = take(&mut committed, ready.take_committed_entries());
            // 5. Entries and the hard state, made durable by one sync.
            let entries: Vec<Entry> = ready.take_entries().into_iter().map(to_log).collect();
            let log = &mut self.node.mut_store().log;
            log.append(&entries);
            if let Some(hard_state) = ready.hs() {
                let (term, mut vote) = (hard_state.get_term(), hard_state.get_vote());
                if self.forget_vote {
                    vote = 0;
                }
                log.set_hard_state(HardState { term, vote, commit: hard_state.get_commit() });
            }
            if ready.must_sync() && !self.sync_late {
                log.sync()?;
            }
            // 6. Messages that had to wait for it.
            let mut answers = ready.take_persisted_messages();
            answers.retain(|message| self.is_news(message));
            send(answers);
            // 7. What that commits, and what is to be told of it.
            let mut light = self.node.advance_append(ready);
            if let Some(index) = installed {
                // What it has is not in the log any more, and raft looks there for what is not applied:
                // it must not wait for the Machine, which may have work before this.
                self.applied(index);
            }
            send(light.take_messages());
            if let Some(commit) = light.commit_index() {
                let log = &mut self.node.mut_store().log;
                // Goes out with the next sync; a state that is ahead of it raises it at open.
                log.set_hard_state(HardState { commit, ..log.hard_state() });
            }
            changes.extend(take(&mut committed, light.take_committed_entries()));
            for (at, step) in changes {
                match self.node.apply_conf_change(&conf_change(step)) {
                    Ok(conf) => self.mark_change(at, &conf),
                    Err(error) => {
                        tracing::error!(%error, ?step, "raft does not take a change of servers");
                    }
                }
            }
        }
        Ok(Flushed { entries: committed, installed, read_indexes })
    }

    /// Whether the leader may not know this yet. It hears of what is on this server's disk when that gets
    /// there; raft-rs says it once more when the leader tells that it is committed, and the leader, who
    /// is woken for that, ignores it. Should the first word be lost, the leader asks again with its next
    /// heartbeat.
    fn is_news(&mut self, message: &raft::prelude::Message) -> bool {
        if message.get_msg_type() != MessageType::MsgAppendResponse || message.reject {
            return true;
        }
        let told = Some((message.to, message.term, message.index));
        std::mem::replace(&mut self.told, told) != told
    }
}

/// Moves entries to what is committed; gives the changes of whom raft counts among them, and where they
/// are.
fn take(
    committed: &mut Vec<(u64, u64, Bytes)>,
    entries: Vec<raft::prelude::Entry>,
) -> Vec<(Position, ConfStep)> {
    let mut changes = Vec::new();
    for entry in entries.into_iter().map(to_log) {
        if entry.kind != 0 {
            let at = Position { index: entry.index, term: entry.term };
            changes.extend(Batch::decode_conf(&entry.context).map(|step| (at, step)));
        }
        committed.push((entry.index, entry.term, payload(&entry).clone()));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::messages::message_type;
    use super::*;
    use crate::log::{Options, SimDisk};

    #[test]
    fn a_leader_hears_once_what_a_follower_has() {
        let mut rafts = [1, 2].map(|id| {
            let log = Log::create(SimDisk::new(), Options::default(), 0, 0).expect("a new log");
            Raft::new(log, id, (&[1, 2], &[]), 0, (10, 11)).expect("it starts")
        });
        rafts[0].campaign();
        let (mut answers, mut committed) = (Vec::new(), [0, 0]);
        // What is said by `lost`, once, does not arrive.
        let mut talk = |rafts: &mut [Raft<SimDisk>; 2], mut lost: Option<MessageType>| {
            answers.clear();
            for round in 0..20 {
                let at = round % 2;
                let mut sent = Vec::new();
                let flushed = rafts[at].flush(None, &mut |messages| sent.extend(messages));
                committed[at] += flushed.expect("the log works").entries.len();
                for message in sent {
                    let kind = message_type(message.kind).expect("it is known");
                    if kind == MessageType::MsgAppendResponse {
                        answers.push(message.index);
                    }
                    if lost.take_if(|lost| *lost == kind).is_none() {
                        rafts[1 - at].step(message);
                    }
                }
            }
            (answers.clone(), committed)
        };
        assert_eq!(talk(&mut rafts, None), (vec![1], [1, 1]), "the entry that begins the term");
        rafts[0].propose(b"entry".to_vec()).expect("it leads");
        assert_eq!(talk(&mut rafts, None), (vec![2], [2, 2]));
        rafts[0].propose(b"entry".to_vec()).expect("it leads");
        let lost = Some(MessageType::MsgAppendResponse);
        assert_eq!(talk(&mut rafts, lost), (vec![3], [2, 2]), "the leader does not know of it");
        rafts[0].tick().expect("the log works");
        assert_eq!(talk(&mut rafts, None), (vec![3], [3, 3]), "it asks again");
        assert!(rafts[0].is_leader() && rafts[0].is_followed());
        for _ in 0..11 {
            rafts[0].tick().expect("the log works");
        }
        assert!(rafts[0].is_leader() && !rafts[0].is_followed(), "nobody has answered since");
        rafts[0].resign();
        assert!(!rafts[0].is_leader());
    }

    #[test]
    fn whoever_needs_a_state_is_not_led_by_the_log() {
        let log = Log::create(SimDisk::new(), Options::default(), 0, 0).expect("a new log");
        let mut raft = Raft::new(log, 1, (&[1, 2], &[]), 0, (10, 11)).expect("it starts");
        raft.node.raft.become_candidate();
        raft.node.raft.become_leader();
        let follower = raft.node.raft.mut_prs().get_mut(2).expect("it votes");
        follower.recent_active = true;
        assert!(raft.is_followed());
        let follower = raft.node.raft.mut_prs().get_mut(2).expect("it votes");
        follower.become_snapshot(1);
        assert!(!raft.is_followed());
    }

    #[test]
    fn a_server_may_ask_for_votes_before_the_state_of_its_snapshot_is_in_place() {
        let log = Log::create(SimDisk::new(), Options::default(), 0, 0).expect("a new log");
        let mut raft = Raft::new(log, 1, (&[1, 2], &[]), 0, (10, 11)).expect("it starts");
        let at = SnapshotAt { index: 100, term: 2, voters: vec![1, 2], learners: Vec::new() };
        raft.step(RaftMessage { to: 1, term: 2, ..RaftMessage::offer(2, at) });
        let flushed = raft.flush(Some(&Marked::default()), &mut |_| {}).expect("the log works");
        assert_eq!((flushed.installed, raft.committed()), (Some(100), 100));
        // The Machine has not reported it, and goes on with what it was given before.
        raft.applied(77);
        let mut asked = 0;
        raft.campaign();
        raft.flush(None, &mut |messages| asked += messages.len()).expect("the log works");
        assert_eq!(asked, 1);
    }

    #[test]
    fn one_that_does_not_vote_does_not_ask_for_votes() {
        let alone: (&[u64], &[u64]) = (&[], &[]);
        for members in [alone, (&[1, 2], &[257])] {
            let log = Log::create(SimDisk::new(), Options::default(), 0, 0).expect("a new log");
            let mut raft = Raft::new(log, 257, members, 0, (10, 11)).expect("it starts");
            raft.campaign();
            let mut sent = 0;
            raft.flush(None, &mut |messages| sent += messages.len()).expect("the log works");
            assert_eq!((sent, raft.is_leader(), raft.leader()), (0, false, (0, 0)));
        }
    }
}
