//! What a leader has been sent, server by server, and the entries that it makes of it.
//!
//! Invariants:
//! * Of each server's commands the leader proposes those that follow on what it proposed before, in
//!   its term: a gap is asked for again, what came twice is dropped. A server whose commands are not
//!   applied sends them afresh; then some may be proposed twice.
//! * Apply decides in the end which number it takes; all this only keeps the log free of chaff.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use state::{Batch, Group};

use crate::node::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, ROUND_BYTES_MAX};
use crate::proposals::{Numbered, Sent};

/// One server's commands that wait to be proposed.
#[derive(Default)]
struct Line {
    /// The number that must come next; none is known in a new term.
    next: Option<u64>,
    groups: VecDeque<Numbered>,
}

/// What must be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Everything that is not applied.
    All,
    /// What is from this number on.
    From(u64),
}

/// The commands of all servers that wait to be proposed.
#[derive(Default)]
pub(crate) struct Lines {
    lines: BTreeMap<u32, Line>,
}

/// One entry in the making.
#[derive(Default)]
pub(crate) struct Entry {
    groups: Vec<Arc<Group>>,
    commands: usize,
    bytes: usize,
}

impl Entry {
    fn has_room(&self, numbered: &Numbered) -> bool {
        let commands = self.commands + numbered.group.commands.len();
        let fits = commands <= BATCH_COMMANDS_MAX && self.bytes + numbered.bytes <= BATCH_BYTES_MAX;
        self.groups.is_empty() || fits
    }

    /// The bytes of the entry.
    pub(crate) fn encode(&self, time_ms: i64) -> Vec<u8> {
        Batch::encode_of(time_ms, self.groups.iter().map(Arc::as_ref).collect())
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
                Some(next) if numbered.group.first > next => return Err(Missing::From(next)),
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

    /// The next entries, at most so many; what has no place in them stays.
    pub(crate) fn pack(&mut self, entries_max: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for line in self.lines.values_mut() {
            let mut last = None;
            while let Some(numbered) = line.groups.front() {
                let from = last.map_or(0, |last| last + usize::from(numbered.apart));
                let has_room = |at: &usize| entries.get(*at).is_none_or(|e| e.has_room(numbered));
                let at = (from..entries_max).find(has_room);
                let Some(at) =
                    at.filter(|_| bytes == 0 || bytes + numbered.bytes <= ROUND_BYTES_MAX)
                else {
                    break;
                };
                let Some(numbered) = line.groups.pop_front() else { break };
                if at >= entries.len() {
                    entries.push(Entry::default());
                }
                bytes += numbered.bytes;
                let entry = &mut entries[at];
                entry.commands += numbered.group.commands.len();
                entry.bytes += numbered.bytes;
                entry.groups.push(numbered.group);
                last = Some(at);
            }
        }
        entries
    }
}
