//! Which entry each command in hand goes into. The entries of one round go out with one sync.
//!
//! Invariants:
//! * The commands of a connection keep their order.
//! * A command goes into a later entry than its connection's command before it, if a read waits
//!   between the two: that read's view is the one after the earlier entry (`waiting.rs`).
//! * A write of a local session that is fenced (`own_sessions.rs`) is dropped.
//! * Writes of other connections do not wait for that. A command that is not a write (a session's
//!   start and end, an operator's change) stays behind all that came before it.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use proto::Id;
use state::command::PluginCommand;
use state::{Command, Op};

use crate::node::{BATCH_BYTES_MAX, ROUND_BYTES_MAX};
use crate::outbox::Ticket;

/// Something to propose.
pub(crate) enum Queued {
    Write { session: i64, generation: u32, is_local: bool, identities: Arc<Vec<Id>>, op: Op },
    Command(Command),
}

/// With where its answer goes, if anybody waits.
pub(crate) type Item = (Queued, Option<Ticket>);

/// How full an entry is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) operations: usize,
    pub(crate) bytes: usize,
}

impl Load {
    /// Whether so much more fits, with so many operations at most; into an empty entry anything does.
    pub(crate) fn has_room(self, more: Self, operations_max: usize) -> bool {
        let (operations, bytes) = (self.operations + more.operations, self.bytes + more.bytes);
        self.operations == 0 || operations <= operations_max && bytes <= BATCH_BYTES_MAX
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.operations += more.operations;
        self.bytes += more.bytes;
    }
}

#[derive(Default)]
struct Entry {
    items: Vec<Item>,
    load: Load,
}

/// Takes the commands of the next entries, at most so many, out of the queue. What has no place in
/// this round stays there, in its order.
pub(crate) fn pack(
    queue: &mut VecDeque<Item>,
    entries_max: usize,
    operations_max: usize,
) -> Vec<Vec<Item>> {
    let mut entries: Vec<Entry> = Vec::new();
    // The last entry with a command of each connection; `entries_max` if one was left.
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut left = VecDeque::new();
    let mut bytes = 0;
    while let Some((queued, ticket)) = queue.pop_front() {
        let is_fenced = || ticket.as_ref().is_some_and(|ticket| ticket.outbox.is_fenced());
        if matches!(queued, Queued::Write { is_local: true, .. }) && is_fenced() {
            continue;
        }
        let size = queued.bytes();
        if bytes > 0 && bytes + size > ROUND_BYTES_MAX {
            queue.push_front((queued, ticket));
            break;
        }
        let own = ticket.as_ref().map_or(0, |ticket| {
            let last = places.get(&ticket.outbox.id);
            last.map_or(0, |last| last + usize::from(ticket.after_read))
        });
        let from = match &queued {
            Queued::Write { .. } => own,
            Queued::Command(_) if left.is_empty() => own.max(entries.len().saturating_sub(1)),
            Queued::Command(_) => entries_max,
        };
        let load = Load { operations: queued.operations(), bytes: size };
        let has_room =
            |at: &usize| entries.get(*at).is_none_or(|e| e.load.has_room(load, operations_max));
        let at = (from..entries_max).find(has_room);
        if let Some(ticket) = &ticket {
            places.insert(ticket.outbox.id, at.unwrap_or(entries_max));
        }
        let Some(at) = at else {
            left.push_back((queued, ticket));
            continue;
        };
        if at == entries.len() {
            entries.push(Entry::default());
        }
        entries[at].items.push((queued, ticket));
        entries[at].load.add(load);
        bytes += size;
    }
    while let Some(item) = left.pop_back() {
        queue.push_front(item);
    }
    entries.into_iter().map(|entry| entry.items).collect()
}

impl Queued {
    fn operations(&self) -> usize {
        match self {
            Self::Write { op, .. } => op.operations(),
            Self::Command(_) => 1,
        }
    }

    /// Roughly how many bytes it takes in the log.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Write { op, .. } => op_bytes(op),
            Self::Command(Command::Plugin(PluginCommand::Upload { part, .. })) => 64 + part.len(),
            Self::Command(_) => 64,
        }
    }
}

fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Create { path, data, .. } | Op::SetData { path, data, .. } => {
            64 + path.len() + data.as_ref().map_or(0, bytes::Bytes::len)
        }
        Op::Delete { path, .. } | Op::SetAcl { path, .. } | Op::Check { path, .. } => {
            64 + path.len()
        }
        Op::Multi(ops) => ops.iter().map(op_bytes).sum(),
        Op::Reconfig(asked) => 64 + asked.joining.len() + asked.leaving.len() + asked.servers.len(),
        Op::Refused(_) => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::BATCH_OPERATIONS_MAX;
    use crate::outbox::{Outbox, Waits};

    fn outbox(id: u64) -> Arc<Outbox> {
        Outbox::new(id, Box::new(|| {}))
    }

    /// A write of so many bytes, by a name to know it by.
    fn write(outbox: &Arc<Outbox>, name: &str, bytes: usize, after_read: bool) -> Item {
        let mut ticket = outbox.push_pending(Waits::Write { xid: 1, audited: None });
        ticket.after_read = after_read;
        let op = Op::SetData { path: name.into(), data: Some(vec![0; bytes].into()), version: -1 };
        let identities = Arc::default();
        let write = Queued::Write { session: 1, generation: 1, is_local: false, identities, op };
        (write, Some(ticket))
    }

    fn names<'i>(items: impl IntoIterator<Item = &'i Item>) -> Vec<String> {
        let name = |item: &Item| match &item.0 {
            Queued::Write { op: Op::SetData { path, .. }, .. } => path.clone(),
            _ => "command".to_owned(),
        };
        items.into_iter().map(name).collect()
    }

    fn packed(queue: Vec<Item>, entries_max: usize) -> (Vec<Vec<String>>, Vec<String>) {
        let mut queue = VecDeque::from(queue);
        let entries = pack(&mut queue, entries_max, BATCH_OPERATIONS_MAX);
        (entries.iter().map(names).collect(), names(&queue))
    }

    #[test]
    fn a_write_behind_a_waiting_read_goes_into_a_later_entry() {
        let (a, b) = (outbox(1), outbox(2));
        let queue = vec![
            write(&a, "a1", 1, false),
            write(&a, "a2", 1, true),
            write(&b, "b1", 1, false),
            write(&a, "a3", 1, false),
            write(&a, "a4", 1, true),
            write(&b, "b2", 1, false),
        ];
        let (entries, left) = packed(queue, 64);
        assert_eq!(entries, [vec!["a1", "b1", "b2"], vec!["a2", "a3"], vec!["a4"]]);
        assert!(left.is_empty());
    }

    #[test]
    fn what_has_no_entry_left_stays_in_order() {
        let (a, b) = (outbox(1), outbox(2));
        let queue = vec![
            write(&a, "a1", 1, true),
            write(&a, "a2", 1, true),
            write(&a, "a3", 1, true),
            write(&a, "a4", 1, false),
            write(&b, "b1", 1, false),
            (Queued::Command(Command::Nothing), None),
            write(&b, "b2", 1, false),
        ];
        let (entries, left) = packed(queue, 2);
        assert_eq!(entries, [vec!["a1", "b1", "b2"], vec!["a2"]]);
        assert_eq!(left, ["a3", "a4", "command"]);
    }

    #[test]
    fn other_commands_stay_behind_all_before_them() {
        let a = outbox(1);
        let queue = vec![
            write(&a, "a1", 1, false),
            write(&a, "a2", 1, true),
            (Queued::Command(Command::CloseSession { session: 1, generation: None }), None),
        ];
        let (entries, _) = packed(queue, 64);
        assert_eq!(entries, [vec!["a1"], vec!["a2", "command"]]);
    }

    #[test]
    fn a_command_behind_a_waiting_read_goes_into_a_later_entry() {
        let a = outbox(1);
        let mut ticket = a.push_pending(Waits::Operator { xid: 1, audited: None });
        ticket.after_read = true;
        let change = (Queued::Command(Command::ChangeSettings(Vec::new())), Some(ticket));
        let queue = vec![write(&a, "a1", 1, false), change, write(&a, "a2", 1, false)];
        let (entries, _) = packed(queue, 64);
        assert_eq!(entries, [vec!["a1"], vec!["command", "a2"]]);
    }

    #[test]
    fn entries_and_rounds_have_their_sizes() {
        let a = outbox(1);
        let half = BATCH_BYTES_MAX / 2 - 1000;
        let mut queue = Vec::from([write(&a, "long", 3 * half, false)]);
        queue.extend((0..8).map(|_| write(&a, "half", half, false)));
        let (entries, left) = packed(queue, 64);
        let halves = vec!["half", "half"];
        assert_eq!(entries, [vec!["long"], halves.clone(), halves, vec!["half"]]);
        assert_eq!(left, ["half", "half", "half"]);

        let many = (0..BATCH_OPERATIONS_MAX + 1).map(|_| write(&a, "x", 1, false)).collect();
        let (entries, left) = packed(many, 64);
        assert_eq!(entries.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH_OPERATIONS_MAX, 1]);
        assert!(left.is_empty());
    }

    #[test]
    fn a_multi_counts_as_what_is_in_it() {
        let a = outbox(1);
        let check = || Op::Check { path: "/x".to_owned(), version: -1 };
        let multi = |operations: usize| {
            let mut item = write(&a, "", 1, false);
            if let Queued::Write { op, .. } = &mut item.0 {
                *op = Op::Multi((0..operations).map(|_| check()).collect());
            }
            item
        };
        let half = BATCH_OPERATIONS_MAX / 2;
        let long = 2 * BATCH_OPERATIONS_MAX;
        let queue = [half, half, 1, long, 0].map(multi).into();
        let (entries, left) = packed(queue, 64);
        assert_eq!(entries.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert!(left.is_empty());
    }
}
