//! What a leader has been sent, server by server, and the entries that it makes of it.
//!
//! Invariants:
//! * Of each server's commands the leader proposes those that follow on what it proposed before, in
//!   its term: a gap is asked for again, what came twice is dropped. A server whose commands are not
//!   applied sends them afresh; then some may be proposed twice.
//! * Apply decides in the end which number it takes; all this only keeps the log free of chaff.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use state::command::PluginCommand;
use state::{Batch, Command, Group, Op, SettingChange};

use crate::node::ROUND_BYTES_MAX;
use crate::packing::Load;
use crate::peer::Missing;
use crate::proposals::{Numbered, Sent};

/// One server's commands that wait to be proposed.
#[derive(Default)]
struct Line {
    /// The number that must come next; none is known in a new term.
    next: Option<u64>,
    groups: VecDeque<Numbered>,
}

/// The commands of all servers that wait to be proposed.
#[derive(Default)]
pub(crate) struct Lines {
    lines: BTreeMap<u32, Line>,
    /// Whose turn it was to be the first, the last time.
    began_with: u32,
    /// A planted bug: what is missing is not missed.
    pub(crate) accept_gaps: bool,
}

/// Room in an entry for what is in no command, bytes.
const ENTRY_HEAD_BYTES: usize = 512;

/// One entry in the making.
#[derive(Default)]
pub(crate) struct Entry {
    groups: Vec<Arc<Group>>,
    load: Load,
}

/// Whether its outcome depends on which servers are there.
fn asks_who_is_there(command: &Command) -> bool {
    matches!(
        command,
        Command::Reconfig(_)
            | Command::Write { op: Op::Reconfig(_), .. }
            | Command::Plugin(PluginCommand::Activate { .. })
    )
}

fn raises_version(command: &Command) -> bool {
    let Command::ChangeSettings(changes) = command else { return false };
    changes.iter().any(|change| matches!(change, SettingChange::ApplyVersion(_)))
}

impl Entry {
    /// The bytes of the entry. What the leader alone knows is put down where an outcome depends on it: the
    /// servers that are `present`, and the apply version that is `supported`.
    pub(crate) fn encode(
        &self,
        time_ms: i64,
        present: impl FnOnce() -> Vec<u32>,
        supported: impl FnOnce() -> u32,
    ) -> Vec<u8> {
        let groups: Vec<&Group> = self.groups.iter().map(Arc::as_ref).collect();
        let any = |is_one: fn(&Command) -> bool| {
            groups.iter().any(|group| group.commands.iter().any(is_one))
        };
        let present = if any(asks_who_is_there) { present() } else { Vec::new() };
        let supported = if any(raises_version) { supported() } else { 0 };
        let expected = self.load.bytes + ENTRY_HEAD_BYTES;
        Batch::encode_of(time_ms, groups, &present, supported, expected)
    }
}

impl Lines {
    /// Forgets everything: this server leads no more, or leads anew.
    pub(crate) fn clear(&mut self) {
        self.lines.clear();
    }

    /// Takes what a server sent.
    pub(crate) fn put(&mut self, server: u32, sent: Sent) -> Result<(), Missing> {
        let line = self.lines.entry(server).or_default();
        if sent.afresh {
            *line = Line::default();
            line.next = sent.groups.first().map(|numbered| numbered.group.first);
        }
        for numbered in sent.groups {
            match line.next {
                None => return Err(Missing::All),
                Some(next) if numbered.group.first > next && !self.accept_gaps => {
                    return Err(Missing::From(next));
                }
                // It came before; groups are sent whole, so that no part of it can be new.
                Some(next) if numbered.group.first < next => continue,
                _ => {}
            }
            line.next = Some(numbered.next());
            line.groups.push_back(numbered);
        }
        Ok(())
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.values().all(|line| line.groups.is_empty())
    }

    /// The next entries, at most so many, of so many operations each unless a server's group has more;
    /// what has no place in them stays. The servers take turns, group by group, so that none waits for
    /// the others to have nothing more.
    pub(crate) fn pack(&mut self, entries_max: usize, operations_max: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let (next, first): (Vec<u32>, Vec<u32>) =
            self.lines.keys().partition(|server| **server <= self.began_with);
        // Each with the entry that its last group went into.
        let mut turns: Vec<(u32, Option<usize>)> =
            first.into_iter().chain(next).map(|server| (server, None)).collect();
        self.began_with = turns.first().map_or(0, |(server, _)| *server);
        while !turns.is_empty() {
            turns.retain_mut(|(server, last)| {
                let groups = self.lines.get_mut(server).map(|line| &mut line.groups);
                let Some(numbered) = groups.as_ref().and_then(|groups| groups.front()) else {
                    return false;
                };
                let from = last.map_or(0, |last| last + usize::from(numbered.apart));
                let load = Load { operations: numbered.operations(), bytes: numbered.bytes };
                let has_room = |at: &usize| {
                    entries.get(*at).is_none_or(|e| e.load.has_room(load, operations_max))
                };
                let at = (from..entries_max).find(has_room);
                let at = at.filter(|_| bytes == 0 || bytes + numbered.bytes <= ROUND_BYTES_MAX);
                let Some(at) = at else { return false };
                let Some(numbered) = groups.and_then(VecDeque::pop_front) else { return false };
                if at >= entries.len() {
                    entries.push(Entry::default());
                }
                bytes += numbered.bytes;
                let entry = &mut entries[at];
                entry.load.add(load);
                entry.groups.push(numbered.group);
                *last = Some(at);
                true
            });
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use state::Command;

    use super::*;

    #[test]
    fn servers_take_turns() {
        let mut lines = Lines::default();
        for server in [1, 2, 3] {
            let groups = (1..=20).map(|first| {
                let origin = (server, 7);
                let (identities, commands) = (Vec::new(), vec![Command::Nothing]);
                let group = Group { origin, first, identities, commands };
                Numbered { group: Arc::new(group), apart: false, bytes: 10 }
            });
            lines.put(server, Sent { afresh: true, groups: groups.collect() }).expect("in order");
        }
        let (mut taken, mut before) = (BTreeMap::new(), Vec::new());
        for round in 1..=6 {
            for entry in lines.pack(5, 1) {
                let [group] = &entry.groups[..] else { panic!("one in an entry") };
                *taken.entry(group.origin.0).or_insert(0) += 1;
                before.push(entry);
            }
            let (least, most) = (taken.values().min(), taken.values().max());
            assert!(most <= least.map(|least| least + 2).as_ref(), "{taken:?} after {round}");
        }
        assert_eq!(taken.into_values().collect::<Vec<_>>(), [10, 10, 10]);
        let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for entry in lines.pack(64, 1).iter().chain(&before) {
            let group = &entry.groups[0];
            numbers.entry(group.origin.0).or_default().push(group.first);
        }
        for (server, mut numbers) in numbers {
            numbers.sort_unstable();
            assert_eq!(numbers, Vec::from_iter(1..=20), "of server {server} none is lost");
        }
    }
}
