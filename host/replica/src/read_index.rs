//! Reads that are to show whatever anybody was told before them: what is asked of the leader, and who
//! waits for its answer.
//!
//! The leader says up to which index all is committed, once a majority has told it that it still leads
//! (raft's ReadIndex). Then the read waits until this server has applied that much.
//!
//! Invariants:
//! * What is asked never repeats: it is named by the server, its boot and a number. raft-rs would take
//!   an old acknowledgement of the same name for a new one, and a server that leads no more would say
//!   what is stale.
//! * A read is answered only by what was asked after it came; many reads share one question.
//! * Whatever is not answered is asked again: the network loses it, and raft-rs drops it without a word
//!   where no leader is known, and before the leader has committed something in its term.

use std::collections::VecDeque;

use crate::outbox::Ticket;

/// How many questions may be on their way before reads wait to share the next one.
const ROUNDS_MAX: usize = 2;
/// After so many ticks without an answer it is asked again.
const RETRY_TICKS: u32 = 4;

/// Reads that share their questions.
struct Round {
    /// The number of the first of them; every later one is as good.
    first: u64,
    tickets: Vec<Ticket>,
}

/// The questions of one server.
pub(crate) struct ReadIndex {
    /// This server and its boot.
    me: (u32, u64),
    /// Those for whom nothing was asked yet.
    waiting: Vec<Ticket>,
    rounds: VecDeque<Round>,
    /// The number of the next question.
    next: u64,
    /// At which tick the last one was asked; `None` if that was of another leader.
    asked: Option<u32>,
    /// The planted bug: what is asked repeats.
    pub(crate) repeats: bool,
}

impl ReadIndex {
    /// Nothing is asked yet.
    pub(crate) fn new(me: (u32, u64)) -> Self {
        let (waiting, rounds) = (Vec::new(), VecDeque::new());
        Self { me, waiting, rounds, next: 0, asked: None, repeats: false }
    }

    /// Takes one that waits.
    pub(crate) fn wait(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    /// There is another leader: it knows nothing of what the last one was asked.
    pub(crate) fn ask_again(&mut self) {
        self.asked = None;
    }

    /// What to ask at this tick, if anything: the name of the question.
    pub(crate) fn question(&mut self, tick: u32) -> Option<Vec<u8>> {
        let begins = !self.waiting.is_empty() && self.rounds.len() < ROUNDS_MAX;
        if begins {
            let tickets = std::mem::take(&mut self.waiting);
            self.rounds.push_back(Round { first: self.next, tickets });
        }
        let late = self.asked.is_none_or(|asked| tick.wrapping_sub(asked) >= RETRY_TICKS);
        if !begins && (self.rounds.is_empty() || !late) {
            return None;
        }
        let number = if self.repeats { 0 } else { self.next };
        self.next += 1;
        self.asked = Some(tick);
        let (server, boot) = self.me;
        Some([&server.to_be_bytes()[..], &boot.to_be_bytes(), &number.to_be_bytes()].concat())
    }

    /// Those whom the answer to a question is for.
    pub(crate) fn answered(&mut self, question: &[u8]) -> Vec<Ticket> {
        let Some((_, number)) = question.split_last_chunk::<8>() else { return Vec::new() };
        let number = if self.repeats { u64::MAX } else { u64::from_be_bytes(*number) };
        let mut tickets = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|round| round.first <= number) {
            tickets.extend(round.tickets);
        }
        tickets
    }

    /// Lets go whoever waits: there is nothing to read from.
    pub(crate) fn let_go(&mut self) {
        let rounds = self.rounds.drain(..).flat_map(|round| round.tickets);
        rounds.chain(self.waiting.drain(..)).for_each(|ticket| ticket.outbox.kill());
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.rounds.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::outbox::{Outbox, Waits};

    fn ticket(id: u64) -> Ticket {
        Outbox::new(id, Box::new(|| {})).push_pending(Waits::Write { xid: 1, audited: None })
    }

    fn ids(tickets: &[Ticket]) -> Vec<u64> {
        tickets.iter().map(|ticket| ticket.outbox.id).collect()
    }

    #[test]
    fn reads_share_a_question_and_none_is_answered_by_an_earlier_one() {
        let mut reads = ReadIndex::new((1, 7));
        assert_eq!(reads.question(0), None, "nobody waits");
        reads.wait(ticket(1));
        reads.wait(ticket(2));
        let first = reads.question(0).expect("two wait");
        assert_eq!(reads.question(0), None, "one question for both");
        reads.wait(ticket(3));
        let second = reads.question(0).expect("one came after it was asked");
        reads.wait(ticket(4));
        assert_eq!(reads.question(0), None, "enough is on its way");
        assert_eq!(ids(&reads.answered(&first)), [1, 2]);
        assert_eq!(ids(&reads.answered(&first)), [0; 0], "an answer that came twice");
        let third = reads.question(0).expect("the last one waits");
        // The later answer is good for both: the earlier one was lost.
        assert_eq!(ids(&reads.answered(&third)), [3, 4]);
        assert_eq!(ids(&reads.answered(&second)), [0; 0]);
        assert!(reads.is_empty());
    }

    #[test]
    fn what_is_not_answered_is_asked_again_under_another_name() {
        let mut reads = ReadIndex::new((1, 7));
        reads.wait(ticket(1));
        let mut asked = BTreeSet::from([reads.question(5).expect("one waits")]);
        assert_eq!(reads.question(5 + RETRY_TICKS - 1), None, "the answer may be on its way");
        assert!(asked.insert(reads.question(5 + RETRY_TICKS).expect("it is late")));
        reads.ask_again();
        assert!(asked.insert(reads.question(5 + RETRY_TICKS).expect("another leads")));
        // The first answer comes after all.
        let first = asked.first().expect("three were asked").clone();
        assert_eq!(ids(&reads.answered(&first)), [1]);
        assert!(reads.is_empty());
        let mut other = ReadIndex::new((1, 8));
        other.wait(ticket(1));
        assert!(asked.insert(other.question(0).expect("one waits")), "another boot, another name");
    }
}
