//! This server's commands on their way: numbered, sent to the leader, kept until they are applied.
//!
//! Whoever leads, a command goes the same way: it gets its number here, is proposed by the leader
//! (which may be this server), and is forgotten when it was applied here. After a change of leader
//! everything that is kept is sent again, from the first on; apply takes each number once.
//!
//! Invariants:
//! * Numbers have no gap, and grow in the order in which commands are to be applied.
//! * A group is proposed whole, in one entry; one that says so in a later entry than the group before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proto::Id;
use serde::{Deserialize, Serialize};
use state::{Command, Group};

use crate::outbox::Ticket;
use crate::packing::{Item, Queued};

/// Commands for one entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    /// Whether they must be in a later entry than those before.
    pub apart: bool,
    /// Roughly how many bytes they take.
    pub bytes: usize,
    /// The commands.
    pub group: Arc<Group>,
}

impl Numbered {
    /// The number after its last command.
    pub(crate) fn next(&self) -> u64 {
        self.group.first + self.group.commands.len() as u64
    }

    /// How many operations they are.
    pub(crate) fn operations(&self) -> usize {
        self.group.commands.iter().map(Command::operations).sum()
    }
}

/// Commands as they go to the leader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Whether they begin with the first that is not applied, as far as their server knows; the
    /// leader then forgets what it had been sent before. Otherwise they follow on that.
    pub afresh: bool,
    /// The commands, in the order of their numbers.
    pub groups: Vec<Numbered>,
}

struct Kept {
    numbered: Numbered,
    /// Which of the commands a leader decided on: no client waits for them.
    decisions: Vec<usize>,
}

/// What this server wants to be applied.
pub(crate) struct Proposals {
    /// This server and its boot.
    me: (u32, u64),
    next: u64,
    /// What is not applied yet, as far as is known here.
    kept: VecDeque<Kept>,
    /// What is before this number was sent to the leader that there is now.
    sent: u64,
    /// Whether the next to be sent is the first of all that is kept.
    afresh: bool,
    /// A planted bug: nothing is sent again.
    pub(crate) never_again: bool,
}

impl Proposals {
    /// Those of a start: `commands` are the first, numbered from 0.
    pub(crate) fn new(me: (u32, u64), commands: Vec<Command>) -> Self {
        let mut new =
            Self { me, next: 0, kept: VecDeque::new(), sent: 0, afresh: true, never_again: false };
        let items = commands.into_iter().map(|command| (Queued::Command(command), None));
        new.number(items.collect(), true, &mut Vec::new());
        if let Some(first) = new.kept.front_mut() {
            first.decisions.clear();
        }
        new
    }

    /// Numbers what goes into one entry; says who waits for which number.
    pub(crate) fn number(
        &mut self,
        items: Vec<Item>,
        apart: bool,
        expect: &mut Vec<(u64, Ticket)>,
    ) {
        let mut identities = Vec::new();
        // The sets are kept meanwhile, so that no two have the same address.
        let mut sets: Vec<Arc<Vec<Id>>> = Vec::new();
        let mut known: BTreeMap<usize, u32> = BTreeMap::new();
        let mut commands = Vec::with_capacity(items.len());
        let mut decisions = Vec::new();
        let (first, mut bytes) = (self.next, 0);
        for (queued, ticket) in items {
            bytes += queued.bytes();
            let command = match queued {
                Queued::Command(command) => command,
                Queued::Write { session, generation, is_local, identities: who, op } => {
                    let set = *known.entry(Arc::as_ptr(&who) as usize).or_insert_with(|| {
                        let set = who.iter().map(|id| (id.scheme.clone(), id.id.clone()));
                        identities.push(set.collect());
                        sets.push(Arc::clone(&who));
                        identities.len() as u32 - 1
                    });
                    Command::Write { session, generation, is_local, identities: set, op }
                }
            };
            match ticket {
                Some(ticket) => expect.push((self.next, ticket)),
                None => decisions.push(commands.len()),
            }
            commands.push(command);
            self.next += 1;
        }
        let group = Arc::new(Group { origin: self.me, first, identities, commands });
        let numbered = Numbered { apart, bytes, group };
        self.kept.push_back(Kept { numbered, decisions });
    }

    /// What the leader was not sent yet; it counts as sent now.
    pub(crate) fn take_unsent(&mut self) -> Sent {
        let sent = std::mem::replace(&mut self.sent, self.next);
        let unsent = self.kept.iter().rev().take_while(|kept| kept.numbered.group.first >= sent);
        let mut groups: Vec<Numbered> = unsent.map(|kept| kept.numbered.clone()).collect();
        groups.reverse();
        let afresh = !groups.is_empty() && std::mem::take(&mut self.afresh);
        Sent { afresh, groups }
    }

    /// What is from `number` on did not get through, and is to be sent again.
    pub(crate) fn send_again_from(&mut self, number: u64) {
        self.sent = self.sent.min(number);
    }

    /// Everything that is not applied is to be sent again: to a new leader, or to one that may have
    /// lost it.
    pub(crate) fn send_afresh(&mut self) {
        if !self.never_again {
            (self.sent, self.afresh) = (0, true);
        }
    }

    /// This start takes the place of another boot than it knew of: one that was registered late.
    pub(crate) fn replace(&mut self, boot: u64) {
        let Some(first) = self.kept.front_mut() else { return };
        if let Some(Command::Origin { replaces }) =
            Arc::make_mut(&mut first.numbered.group).commands.first_mut()
        {
            *replaces = boot;
            self.send_afresh();
        }
    }

    /// Everything up to `number` was applied.
    pub(crate) fn applied(&mut self, number: u64) {
        while self.kept.front().is_some_and(|kept| kept.numbered.next() <= number + 1) {
            self.kept.pop_front();
        }
    }

    /// How many groups are not applied.
    pub(crate) fn groups(&self) -> usize {
        self.kept.len()
    }

    /// How many commands are not applied.
    pub(crate) fn commands(&self) -> u64 {
        self.kept.front().map_or(0, |kept| self.next - kept.numbered.group.first)
    }

    /// Whether all that this server wanted was applied.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What this server decided as a leader, which it is no more, is not to be sent to the next one:
    /// only the numbers are.
    pub(crate) fn drop_decisions(&mut self) {
        for Kept { numbered, decisions } in &mut self.kept {
            if !decisions.is_empty() {
                let group = Arc::make_mut(&mut numbered.group);
                for at in decisions.drain(..) {
                    group.commands[at] = Command::Nothing;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_did_not_know_of_another_begins_again_by_replacing_it() {
        let origin = Command::Origin { replaces: 5 };
        let mut proposals = Proposals::new((1, 7), vec![origin, Command::Nothing]);
        let sent = |proposals: &mut Proposals| {
            let Sent { afresh, groups } = proposals.take_unsent();
            let first = groups.first().map(|numbered| numbered.group.commands.clone());
            (afresh, first.unwrap_or_default())
        };
        let first = |replaces| vec![Command::Origin { replaces }, Command::Nothing];
        assert_eq!(sent(&mut proposals), (true, first(5)));
        proposals.replace(6);
        assert_eq!(sent(&mut proposals), (true, first(6)));
        proposals.applied(1);
        proposals.replace(8);
        assert_eq!(sent(&mut proposals), (false, Vec::new()), "it is registered");
    }
}
