//! Has what the next commands of an entry need brought near, before they run.
//!
//! Most of the time of a change of a znode goes by waiting for memory: for its place in the cache, and
//! for what it is so far, one after the other. Those of many znodes can be waited for all at once.

use xxhash_rust::xxh3::xxh3_64;

use crate::cache::NodeCache;
use crate::command::{Batch, Command, Op};

/// How many znodes are brought near at once: enough to be waited for together, and few enough to be
/// near still when their turn comes.
const WINDOW: usize = 64;
/// For fewer it does not pay.
const LEAST: usize = 4;

/// The znodes that an entry's commands are about, in their order.
pub(super) struct Ahead {
    hashes: Vec<u64>,
    /// Of how many the commands have run.
    passed: usize,
    /// How many were brought near.
    near: usize,
}

impl Ahead {
    pub(super) fn new(batch: &Batch) -> Self {
        let mut hashes = Vec::new();
        let commands = batch.groups.iter().flat_map(|group| &group.commands);
        commands.for_each(|command| {
            each_path(command, |path| hashes.push(xxh3_64(path.as_bytes())));
        });
        Self { hashes, passed: 0, near: 0 }
    }

    /// A command is about to run.
    pub(super) fn pass(&mut self, command: &Command, cache: &NodeCache) {
        each_path(command, |_| self.passed += 1);
        if self.passed > self.near {
            let from = self.near;
            self.near = self.hashes.len().min(self.passed + WINDOW);
            // A long multi passes many at once; what is looked at together is locked together.
            let parts = self.hashes[from..self.near].chunks(WINDOW);
            parts.filter(|part| part.len() >= LEAST).for_each(|part| cache.bring_near(part));
        }
    }
}

/// The znodes that a command is about and that are there, most likely.
fn each_path(command: &Command, mut f: impl FnMut(&str)) {
    let Command::Write { op, .. } = command else { return };
    let mut path_of = |op: &Op| match op {
        Op::Delete { path, .. }
        | Op::SetData { path, .. }
        | Op::SetAcl { path, .. }
        | Op::Check { path, .. } => f(path),
        // What is to be created is most often nowhere yet.
        Op::Create { .. } | Op::Multi(_) | Op::Reconfig(_) | Op::Refused(_) => {}
    };
    match op {
        Op::Multi(ops) => ops.iter().for_each(path_of),
        op => path_of(op),
    }
}
