//! What operators ask for: that plugins come, change, and go.

use replica::log::SimRng;
use state::View;
use state::command::PluginCommand;

use super::modules::{MADE, Made, Module, binding, mode};

/// Parts of a module, at least: modules are small here.
const PARTS: usize = 3;

/// An operator, who looks at a server's state and asks for the next thing.
pub struct Operator {
    /// When he does; never, if there is none.
    pub next_ms: i64,
}

impl Operator {
    /// One for this seed, or none.
    pub fn new(is_there: bool) -> Self {
        Self { next_ms: if is_there { 1500 } else { i64::MAX } }
    }

    /// What he asks for, in this order.
    pub fn act(&mut self, view: &View, now_ms: i64, rng: &mut SimRng) -> Vec<PluginCommand> {
        self.next_ms = now_ms + 50 + rng.below(500) as i64;
        let made = &MADE[rng.below(MADE.len() as u64) as usize];
        let module = &made.modules[rng.below(made.modules.len() as u64) as usize];
        let uploaded = view.plugins.modules().get(&module.hash);
        if !uploaded.is_some_and(|uploaded| uploaded.is_whole()) {
            return upload(module, uploaded.map_or(0, |module| module.received), rng);
        }
        vec![next(made, module, view, rng)]
    }
}

/// The rest of a module, or what of it one takes the time for.
fn upload(module: &Module, received: u64, rng: &mut SimRng) -> Vec<PluginCommand> {
    let bytes = module.bytes.len();
    let mut parts = Vec::new();
    let mut offset = received as usize;
    while offset < bytes && (parts.is_empty() || rng.chance(80)) {
        let end = bytes.min(offset + bytes / PARTS + 1);
        let mut part = module.bytes[offset..end].to_vec();
        if rng.chance(2) {
            // On its way something went wrong: the whole will not be what it is called.
            part[0] ^= 1;
        }
        let (module, bytes) = (module.hash, bytes as u64);
        let (offset_, part) = (offset as u64, part.into());
        parts.push(PluginCommand::Upload { module, bytes, offset: offset_, part });
        offset = end;
    }
    parts
}

fn next(made: &Made, module: &Module, view: &View, rng: &mut SimRng) -> PluginCommand {
    let name = made.name.to_owned();
    let row = view.plugins.row(&name);
    let newest = row.and_then(|row| row.staged.as_ref().or(None).map(|s| &s.plugin));
    if let Some(staged) = newest
        && rng.chance(75)
    {
        let generation = staged.generation;
        return PluginCommand::Activate { name, generation, wait_all: rng.chance(30) };
    }
    let is_active = row.is_some_and(|row| row.active.is_some());
    match rng.below(12) {
        0..=4 if is_active => PluginCommand::SetMode { name, mode: mode(rng) },
        5 | 6 if is_active => PluginCommand::Rollback { name },
        7 if is_active => PluginCommand::Remove { name, generation: None },
        // As a watcher proposes a file, or by hand.
        _ => {
            let binding = binding(&name, rng);
            let (module, if_unseen) = (module.hash, rng.chance(30));
            PluginCommand::Stage { binding, module, after: None, if_unseen }
        }
    }
}
