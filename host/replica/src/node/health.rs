//! Whether this server's state may be used, and what is done when it may not.
//!
//! A state that is against a majority's (`digests.rs`), or has a damaged row, is in quarantine: nobody is
//! served from it, nothing is applied to it, nobody is sent it, and another server is to lead. The log
//! goes on, and so does this server's vote. Another state comes from a server that has none of these
//! faults (`snapshots.rs`), and what the log has behind it is applied to that.
//!
//! Invariants:
//! * Without a majority nobody gives his state up. As long as it is not known who is right the leader
//!   proposes nothing: nobody is told of a write what may be wrong.
//! * The log is not trimmed while there is no state: whatever comes, the log goes on from it.
//! * A quarantine outlives the process: whoever keeps the state writes it down (`Work::quarantine`).

use state::Command;
use state::snapshot::Staged;

use super::{Node, NodeError};
use crate::digests::{Comparison, Digests, Verdict, Word, Wrong};
use crate::input::{Quarantine, Work};
use crate::log::Disk;
use crate::outbox::Ticket;
use crate::peer::PeerMessage;
use crate::snapshots::SnapshotMessage;

/// Every so many ticks a server says again what it said last, in case it was lost.
const SAY_AGAIN_TICKS: u32 = 20;
/// A doubt that lasts for so many ticks is worth an alarm: the others' words may be on their way.
const ALARM_TICKS: u32 = 20;
/// After so many ticks without an entry those since the last comparison are compared.
const IDLE_TICKS: u32 = 20;
/// Every so many ticks another server is asked for its state, and another one to lead.
const ASK_TICKS: u32 = 20;
/// After so many ticks in which nobody gave a state an operator is to know.
const NOBODY_TICKS: u32 = 200;

/// What is known of this server's state.
#[derive(Default)]
pub(super) struct Health {
    comparison: Comparison,
    /// The entry after which its state was compared last.
    compared: u64,
    /// The last entry that is applied, and since which tick.
    applied: (u64, u32),
    /// What it said last of its state.
    said: Option<Word>,
    /// Whether the state was copied from another server, without any other's word for it, and nothing
    /// was said of it since.
    is_copy: bool,
    /// Whether the state that is to take its place is such a copy.
    comes_as_copy: bool,
    /// Voters disagree, and nobody has a majority.
    doubt: Option<Alarm>,
    quarantine: Option<Quarantined>,
    /// What the Machine is to be told, and whoever keeps the state.
    news: Option<Quarantine>,
    /// The state that is to take its place, and its generation.
    healed: Option<(Staged, u64)>,
    /// Whether what is to be applied next is for a newer program.
    pub(super) waits: bool,
    /// Why the server cannot go on, being the only one.
    pub(super) hopeless: Option<String>,
}

/// Something that an operator is told once, if it lasts.
struct Alarm {
    since: u32,
    told: bool,
}

/// The state is of no use.
struct Quarantined {
    /// Who has the right one, by their ids for raft, as far as is known.
    majority: Vec<u64>,
    /// When a state was last asked for.
    asked: u32,
    /// How often.
    times: usize,
    /// Nobody has sent one.
    alone: Alarm,
}

impl<D: Disk> Node<D> {
    /// Whether the state is of no use.
    pub fn is_quarantined(&self) -> bool {
        self.health.quarantine.is_some()
    }

    /// Whether a server's state is of use, as far as is known, by its id for raft.
    pub(super) fn is_well(&self, id: u64) -> bool {
        let is_mine = id == self.config.raft_id;
        !(self.health.comparison.is_quarantined(id) || is_mine && self.is_quarantined())
    }

    /// Whether nothing is applied to the state, and nobody served from it.
    pub(super) fn is_out(&self) -> bool {
        self.is_quarantined() || self.health.waits
    }

    /// Whether it leads, and its state is one to decide by.
    pub(super) fn decides(&self) -> bool {
        self.leads() && !self.is_out()
    }

    /// What is to be applied next is for a newer program: the log and the vote go on, and no more.
    pub(super) fn wait_for_newer(&mut self, why: &str) {
        tracing::error!(
            %why,
            "this server waits for a newer program: it applies nothing more and serves nobody; stop it, \
             and start it with a newer one on the same data"
        );
        self.health.waits = true;
        self.raft.offers().close(true);
        self.step_aside();
    }

    /// Another server is to lead, and nobody gets an answer here.
    fn step_aside(&mut self) {
        self.raft.stands_back = true;
        self.campaigns = None;
        self.lines.clear();
        // A leader's decisions are for the next one.
        self.queue.retain(|(_, ticket)| {
            ticket.iter().for_each(|ticket| ticket.outbox.kill());
            false
        });
        self.reads.let_go();
    }

    /// Whether nothing may be proposed: it is not known whose state is right.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.health.doubt.is_some()
    }

    /// Who waits for an answer that would come from a state of no use is let go; true if so.
    pub(super) fn lets_go(&self, ticket: Option<&Ticket>) -> bool {
        let lets_go = self.is_out();
        ticket.filter(|_| lets_go).map(|ticket| ticket.outbox.kill()).is_some()
    }

    /// The state has these digests after this entry.
    pub(super) fn compare(&mut self, index: u64, digests: Digests) {
        if self.is_quarantined() {
            return;
        }
        self.health.compared = index;
        let is_copy = std::mem::take(&mut self.health.is_copy);
        let word = Word::At { index, digests, is_copy };
        self.health.comparison.hear(self.config.raft_id, word);
        self.say(word);
        self.judge();
    }

    /// Another server has said something of its state.
    pub(super) fn hear_word(&mut self, from: u64, word: Word) {
        self.health.comparison.hear(from, word);
        if !self.is_quarantined() {
            self.judge();
        }
    }

    fn say(&mut self, word: Word) {
        self.health.said = Some(word);
        self.say_again();
    }

    /// Says again what was said last, up to which apply version this server knows, and what of plugins is
    /// compiled here.
    pub(super) fn say_again(&mut self) {
        let knows = PeerMessage::Knows(self.config.knows);
        for word in [Some(knows), self.compiled.word()].into_iter().flatten() {
            self.outgoing.extend(self.linked.iter().map(|to| (*to, word.clone())));
        }
        let Some(word) = self.health.said else { return };
        let all = self.linked.iter().map(|to| (*to, PeerMessage::Word(word)));
        self.outgoing.extend(all);
    }

    fn judge(&mut self) {
        let mut verdict = self.health.comparison.verdict(self.config.raft_id, &self.members.voters);
        match &verdict {
            Verdict::Wrong(_) if self.mutants.ignore_digests => verdict = Verdict::Fine(None),
            Verdict::Doubt { .. } if self.mutants.wrong_without_majority => {
                return self.quarantine("a planted bug".to_owned(), Vec::new());
            }
            _ => {}
        }
        match verdict {
            Verdict::Fine(right_at) => {
                if self.health.doubt.take().is_some_and(|doubt| doubt.told) {
                    tracing::info!("a majority of the servers agrees again; writes go on");
                }
                if let Some(index) = right_at {
                    self.raft.offers().confirm(index);
                }
            }
            Verdict::Doubt { .. } => {
                let since = self.ticks;
                self.health.doubt.get_or_insert(Alarm { since, told: false });
            }
            Verdict::Wrong(Wrong { index, ours, theirs, majority }) => {
                let servers: Vec<u32> = majority.iter().map(|id| self.server(*id)).collect();
                let why = format!(
                    "after entry {index} its digests were {ours}; the servers {servers:?}, a majority, \
                     had {theirs}"
                );
                self.quarantine(why, majority);
            }
        }
        let is_closed = self.is_in_doubt() || self.is_quarantined();
        self.raft.offers().close(is_closed);
    }

    /// The state is of no use.
    pub(super) fn quarantine(&mut self, why: String, majority: Vec<u64>) {
        if self.is_quarantined() {
            return;
        }
        if self.raft.is_alone() {
            self.health.hopeless.get_or_insert(why);
            return;
        }
        tracing::error!(
            %why,
            "the state of this server is not what the log makes of it: nobody is served from it, and \
             another server's takes its place"
        );
        let asked = self.ticks.wrapping_sub(ASK_TICKS);
        let alone = Alarm { since: self.ticks, told: false };
        self.health.quarantine = Some(Quarantined { majority, asked, times: 0, alone });
        self.health.news = Some(Quarantine { generation: self.generation(), why });
        (self.health.doubt, self.health.healed) = (None, None);
        self.health.comparison.forget(self.config.raft_id);
        self.raft.offers().forget();
        self.raft.offers().close(true);
        self.step_aside();
        self.say(Word::Quarantined);
    }

    /// The state is another one, which has no faults that are known.
    pub(super) fn end_quarantine(&mut self) {
        if self.health.quarantine.take().is_some() {
            tracing::info!("the state of another server took the place of this one's");
        }
        (self.health.news, self.health.healed, self.health.said) = (None, None, None);
        self.health.is_copy = self.health.comes_as_copy;
        self.health.comparison.forget(self.config.raft_id);
        self.raft.offers().forget();
        self.raft.offers().close(false);
        self.raft.stands_back = false;
    }

    /// A tick: words are said again, alarms are given, another server is asked for its state.
    pub(super) fn tick_health(&mut self) {
        if self.ticks.is_multiple_of(SAY_AGAIN_TICKS) {
            self.say_again();
        }
        self.alarm();
        self.compare_the_last();
        let waits = self.health.waits || self.is_held_up;
        if waits && self.raft.is_leader() && self.ticks.is_multiple_of(ASK_TICKS) {
            self.hand_over();
        }
        let (me, linked) = (self.config.raft_id, &self.linked);
        let Some(quarantine) = &mut self.health.quarantine else {
            // The state came otherwise.
            self.receiver.is_free(|_| false, self.ticks);
            return;
        };
        let is_due = self.ticks.wrapping_sub(quarantine.asked) >= ASK_TICKS;
        let is_free = self.receiver.is_free(|from| linked.contains(&from), self.ticks);
        if !is_due {
            return;
        }
        quarantine.asked = self.ticks;
        if !is_free || self.health.healed.is_some() {
            quarantine.alone = Alarm { since: self.ticks, told: false };
        } else if !quarantine.alone.told
            && self.ticks.wrapping_sub(quarantine.alone.since) >= NOBODY_TICKS
        {
            quarantine.alone.told = true;
            tracing::error!(
                "for ten seconds no server has given a state in place of this one's, which is of no use: \
                 start the servers that are down. Where there are no writes either, and no server with a \
                 whole state can be started, this cannot end by itself: `vivarium recover --force-single` \
                 goes on from the server whose state is best, or `vivarium snapshot restore` from a backup"
            );
        }
        let comparison = &self.health.comparison;
        let is_well =
            |id: &u64| *id != me && linked.contains(id) && !comparison.is_quarantined(*id);
        let mut well: Vec<u64> = quarantine.majority.iter().copied().filter(is_well).collect();
        if well.is_empty() {
            well = linked.iter().copied().filter(is_well).collect();
        }
        let whom = well.get(quarantine.times % well.len().max(1)).copied();
        if let Some(whom) = whom.filter(|_| is_free && self.health.healed.is_none()) {
            quarantine.times += 1;
            let want = SnapshotMessage::Want { first: self.raft.log().first_index() };
            self.outgoing.push((whom, PeerMessage::Snapshot(want)));
        }
        if self.raft.is_leader() {
            self.hand_over();
            if !self.raft.is_followed() {
                // Those who hear this server need a state, which it has not; one who has it may be
                // heard by them, if not by this server.
                tracing::info!("leads no longer: no server that it reaches could take over");
                self.raft.resign();
            }
        }
    }

    /// Lets another server lead, one whose state is of use if there is one.
    pub(super) fn hand_over(&mut self) {
        let is_there = |id: u64| self.linked.contains(&id);
        let is_well = |id: u64| is_there(id) && self.is_well(id);
        let to = self.raft.successor(is_well).or_else(|| self.raft.successor(is_there));
        if let Some(to) = to {
            tracing::info!(raft_id = to, "hands leadership over");
            self.raft.hand_over(to);
        }
    }

    /// What was applied last is compared though nothing follows: this server, which leads, sees to it. Where
    /// authorizers decide by time, an entry without effect follows every second.
    fn compare_the_last(&mut self) {
        if self.health.applied.0 != self.applied {
            self.health.applied = (self.applied, self.ticks);
        }
        let is_due = self.ticks.wrapping_sub(self.health.applied.1) == IDLE_TICKS;
        let is_new = self.applied > self.health.compared;
        let is_needed = self.wants.time || is_new && !self.raft.is_alone();
        if is_due && is_needed && self.decides() && self.queue.is_empty() {
            self.decide(Command::Nothing);
        }
    }

    fn alarm(&mut self) {
        let ticks = self.ticks;
        let Some(doubt) = &mut self.health.doubt else { return };
        if doubt.told || ticks.wrapping_sub(doubt.since) < ALARM_TICKS {
            return;
        }
        doubt.told = true;
        let verdict = self.health.comparison.verdict(self.config.raft_id, &self.members.voters);
        let Verdict::Doubt { index, said } = verdict else { return };
        let said: Vec<String> = said
            .iter()
            .map(|(id, digests)| format!("server {}: {digests}", self.server(*id)))
            .collect();
        tracing::error!(
            index,
            ?said,
            "the servers' states differ, and no majority agrees: there are no writes until one does; \
             start the servers that are down, or empty the data directory of the one that is wrong"
        );
    }

    /// Another server offers its state, which was asked for.
    pub(super) fn offered_state(&mut self, from: u64, of: (u64, u64)) {
        let generation = self.generation();
        if self.is_quarantined() && self.receiver.offered_to_heal(from, of, generation, self.ticks)
        {
            let server = self.server(from);
            tracing::info!(server, index = of.0, "the state of another server is on its way");
        }
    }

    /// A state that was asked for is here.
    pub(super) fn has_state(&mut self, staged: Staged, generation: u64, is_confirmed: bool) {
        self.is_given(is_confirmed);
        if self.is_quarantined() {
            self.health.healed = Some((staged, generation));
        }
    }

    /// A state is here that may take this one's place. `is_confirmed` says that a majority had the same.
    pub(super) fn is_given(&mut self, is_confirmed: bool) {
        self.health.comes_as_copy = !is_confirmed;
    }

    /// What the Machine is to be told, and the state that it goes on with.
    ///
    /// # Errors
    /// [`NodeError`]: stop the server.
    pub(super) fn heal(&mut self, work: &mut Work) -> Result<(), NodeError> {
        if let Some(why) = &self.health.hopeless {
            return Err(NodeError::State(why.clone()));
        }
        work.quarantine = self.health.news.take();
        let committed = self.raft.committed();
        let is_known = |(staged, _): &mut (Staged, u64)| staged.meta().applied <= committed;
        let Some((staged, generation)) = self.health.healed.take_if(is_known) else {
            return Ok(());
        };
        let at = staged.meta().applied;
        if !self.raft.take_state(staged.meta(), generation)? {
            tracing::warn!(at, "a state does not go with this server's log; asking for another");
            return Ok(());
        }
        self.end_quarantine();
        // What the log has behind it is given to the Machine from there, as it has room.
        self.backlog.install(if self.mutants.forget_to_catch_up { committed } else { at });
        // Nothing before counts any more.
        (self.applied, self.durable) = (at, at);
        work.install = Some(staged);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use state::{Members, MemoryStore, NoHooks, Settings, State};

    use super::super::NodeConfig;
    use super::*;
    use crate::input::{Input, Report};
    use crate::log::{Log, Options, SimDisk};

    /// The first of three, with nothing but its birth.
    fn one_of_three() -> Node<SimDisk> {
        let (index, term) = state::apply::BIRTH;
        let log = Log::create(SimDisk::new(), Options::default(), index, term).expect("a new log");
        let store = Box::new(MemoryStore::default());
        let founders = Members::founders(&[1, 2, 3]);
        let state = State::open_or_found(store, Box::new(NoHooks), 1 << 20, &founders);
        let state = state.expect("it opens");
        let config = NodeConfig {
            server: 0,
            raft_id: 1,
            election_ticks: (10, 11),
            boot: 7,
            cluster_id: 7,
            settings: Settings::default(),
            read_only_after_ms: None,
            servers: BTreeMap::new(),
            log_keep_bytes: 0,
            knows: state::APPLY_VERSION,
        };
        Node::new(log, state.meta(), Vec::new(), config).expect("it starts")
    }

    #[test]
    fn damage_that_is_found_of_a_state_that_is_left_does_not_count() {
        let mut node = one_of_three();
        // The Machine is on its way to another state.
        node.installs = true;
        node.step(Input::Damaged("a row of the old store".to_owned()));
        assert!(!node.is_quarantined());
        node.step(Input::Report(Report::LeftState));
        node.step(Input::Damaged("a row of the new store".to_owned()));
        assert!(node.is_quarantined());
    }

    #[test]
    fn an_operator_is_told_once_that_nobody_gives_a_state() {
        let mut node = one_of_three();
        node.step(Input::Damaged("a row".to_owned()));
        let told_at: Vec<u32> = (1..=3 * NOBODY_TICKS)
            .filter(|tick| {
                let was_told = |node: &Node<SimDisk>| {
                    node.health.quarantine.as_ref().is_some_and(|q| q.alone.told)
                };
                let before = was_told(&node);
                node.tick(i64::from(*tick) * 50).expect("it ticks");
                was_told(&node) && !before
            })
            .collect();
        assert!(
            matches!(told_at[..], [at] if (NOBODY_TICKS..=NOBODY_TICKS + ASK_TICKS).contains(&at))
        );
    }
}
