//! What is kept of a binding, from its first staging on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::binding::{Binding, Mode, Point};
use super::{CallLimits, Exports, Instance, ModuleHash};

/// How many contents a row remembers as seen.
const SEEN_MAX: usize = 256;

/// A generation of a binding: what is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plugin {
    /// Names its private store: the same through all generations.
    pub id: u32,
    /// Counts what was staged under this name, from 1.
    pub generation: u64,
    /// The module.
    pub module: ModuleHash,
    /// What the operator wrote.
    pub binding: Arc<Binding>,
    /// What the module was found to be; nothing before it is active.
    pub exports: Exports,
    /// What its calls may take.
    #[serde(skip)]
    pub limits: CallLimits,
}

impl Plugin {
    /// How long an instance lives.
    pub fn instance(&self) -> Instance {
        let by_module = match self.exports.is_stateless {
            true => Instance::Entry,
            false => Instance::Transaction,
        };
        self.binding.instance.unwrap_or(by_module)
    }

    /// At which points it takes part.
    pub fn points(&self) -> Vec<Point> {
        self.binding.points_of(&self.exports)
    }

    /// Whether its store follows from the tree.
    pub(crate) fn observes(&self) -> bool {
        self.points().contains(&Point::Observer)
    }

    /// Whether the store that another generation has built is what this one would have built.
    fn observes_as(&self, other: &Self) -> bool {
        let ops = |plugin: &Self| super::matcher::Ops::of(&plugin.binding.ops);
        other.observes() && self.binding.matches == other.binding.matches && ops(self) == ops(other)
    }
}

/// A generation that is to be active, and what the servers say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    /// What would be called.
    pub plugin: Plugin,
    /// By server: what the module was found to be, once it is compiled there and took its settings; or
    /// why it cannot run.
    pub reports: BTreeMap<u32, Result<Exports, String>>,
}

/// How far the store of an observer is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Build {
    /// It holds what follows from the tree, or there is no observer.
    #[default]
    Done,
    /// What it held is being deleted.
    Clear,
    /// It holds what follows from the znodes whose keys are below this one.
    Walk(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Names its private store; never given twice.
    pub id: u32,
    /// How many generations were staged.
    pub generations: u64,
    /// What is called.
    pub active: Option<Plugin>,
    /// What was called before it, for a rollback.
    pub previous: Option<Plugin>,
    /// What is to be called next.
    pub staged: Option<Staged>,
    /// What comes of it.
    pub mode: Mode,
    /// Why it is in quarantine, if it is: then it is not called.
    pub quarantine: Option<String>,
    /// How far its observer's store is.
    pub build: Build,
    /// How many times in a row building it ended with a fault.
    pub failed_builds: u32,
    /// What was ever proposed under this name, by [`content_of`]; the newest last.
    seen: Vec<(u64, u64)>,
}

impl Row {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            generations: 0,
            active: None,
            previous: None,
            staged: None,
            mode: Mode::Off,
            quarantine: None,
            build: Build::Done,
            failed_builds: 0,
            seen: Vec::new(),
        }
    }

    /// Whether there is anything but the memory of what there was.
    pub fn is_there(&self) -> bool {
        self.active.is_some() || self.staged.is_some()
    }

    /// Whether it is called in apply.
    pub fn is_evaluated(&self) -> bool {
        self.active.is_some() && self.is_called_in(self.mode)
    }

    /// Whether this was proposed before.
    pub fn has_seen(&self, binding: &Binding, module: ModuleHash) -> bool {
        self.seen.contains(&content_of(binding, module))
    }

    pub(crate) fn see(&mut self, binding: &Binding, module: ModuleHash) {
        let content = content_of(binding, module);
        self.seen.retain(|known| *known != content);
        self.seen.push(content);
        let more = self.seen.len().saturating_sub(SEEN_MAX);
        self.seen.drain(..more);
    }

    /// Another generation is called from now on.
    pub(crate) fn activate(&mut self, plugin: Plugin, mode: Mode) {
        let before = self.active.take();
        let keeps_store = before.as_ref().is_some_and(|before| plugin.observes_as(before));
        let was_evaluated = before.is_some() && self.is_called_in(self.mode);
        self.previous = before;
        self.active = Some(plugin);
        self.change_mode(mode, was_evaluated && keeps_store);
    }

    /// The generation before is called again, and this one is the one before.
    pub(crate) fn roll_back(&mut self, plugin: Plugin) {
        self.activate(plugin, self.mode);
    }

    /// It does something else from now on. A quarantine is over.
    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.change_mode(mode, self.is_evaluated());
    }

    /// What its observer has in its store, or is building, holds only if it was told of everything and
    /// goes on being told.
    fn change_mode(&mut self, mode: Mode, was_told: bool) {
        (self.mode, self.quarantine, self.failed_builds) = (mode, None, 0);
        if !(was_told && self.is_evaluated()) {
            let observes = self.active.as_ref().is_some_and(Plugin::observes);
            self.build = if observes { Build::Clear } else { Build::Done };
        }
    }

    fn is_called_in(&self, mode: Mode) -> bool {
        self.quarantine.is_none() && matches!(mode, Mode::Warn | Mode::Enforce)
    }

    /// Every generation that it may call without another upload.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        let staged = self.staged.as_ref().map(|staged| &staged.plugin);
        [self.active.as_ref(), self.previous.as_ref(), staged].into_iter().flatten()
    }

    fn plugins_mut(&mut self) -> impl Iterator<Item = &mut Plugin> {
        let staged = self.staged.as_mut().map(|staged| &mut staged.plugin);
        [self.active.as_mut(), self.previous.as_mut(), staged].into_iter().flatten()
    }

    /// Looks up what is not stored with it.
    pub(crate) fn prepare(&mut self, limits: CallLimits) {
        self.plugins_mut().for_each(|plugin| plugin.limits = limits);
    }
}

/// Tells what an operator proposes from everything else; the file's name is no part of it.
fn content_of(binding: &Binding, module: ModuleHash) -> (u64, u64) {
    let binding = Binding { module: String::new(), ..binding.clone() };
    let bytes = rmp_serde::to_vec(&(binding, module)).expect("a binding can always be encoded");
    let hash = xxhash_rust::xxh3::xxh3_128(&bytes);
    ((hash >> 64) as u64, hash as u64)
}

/// What became of the calls of a binding. Counted by the log, the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// How many calls there were.
    pub calls: u64,
    /// How many of them said no, whatever came of it.
    pub denials: u64,
    /// How many of them were faults.
    pub faults: u64,
    /// Of the last 64, which were faults; the last is the lowest bit.
    pub(crate) recent: u64,
    /// How much its store holds, keys and values, in bytes.
    pub store_bytes: u64,
}
