//! The bindings, the modules, and which of them are called: what rows of the store say, in memory.
//!
//! Invariants:
//! * What is here is what the rows say; they are written once an entry is over, from here.
//! * At most [`MATCHED_MAX`] bindings are live, in the order in which they are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::Xxh3;

use super::binding::{Mode, OpKind, Point, patterns};
use super::matcher::{MATCHED_MAX, Matcher, Ops, Set};
use super::pattern::Pattern;
use super::row::{Build, Counters, Plugin, Row};
use super::{CallLimits, ModuleHash, PluginSettings};
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::recent::Rows;

/// A module that was uploaded, in whole or in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its size.
    pub bytes: u64,
    /// How much of it is here.
    pub received: u64,
    /// When the last part came, in ms since the epoch.
    pub(crate) touched_ms: i64,
    /// Whether a binding ever referred to it.
    pub(crate) was_used: bool,
}

impl Module {
    /// Whether all of it is here, and is what its hash says.
    pub fn is_whole(&self) -> bool {
        self.received == self.bytes
    }
}

/// A binding that is called.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) plugin: Arc<Plugin>,
    /// Whether what it says counts.
    pub(crate) enforces: bool,
    /// How far its observer is.
    pub(crate) build: Build,
    patterns: Arc<[Pattern]>,
    reads: Arc<[Pattern]>,
}

impl Live {
    pub(crate) fn name(&self) -> &str {
        &self.plugin.binding.name
    }

    /// Whether one of its patterns matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(path))
    }

    pub(crate) fn may_read(&self, path: &str) -> bool {
        self.reads.iter().any(|pattern| pattern.matches(path))
    }

    pub(crate) fn ranges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        super::pattern::ranges(&self.patterns)
    }

    /// Whether its observer is told of a change of this path by now.
    pub(crate) fn is_told_of(&self, path: &str) -> bool {
        match &self.build {
            Build::Done => true,
            Build::Clear => false,
            Build::Walk(upto) => keys::node(path) < *upto,
        }
    }
}

/// Everything that is called.
#[derive(Clone, Default)]
struct Lives {
    list: Vec<Live>,
    matcher: Arc<Matcher>,
    authorizers: Set,
    guards: Set,
    observers: Set,
    /// Those that are evaluated beside apply.
    shadows: Set,
    schemes: HashMap<String, usize>,
}

/// The bindings and the modules.
#[derive(Clone, Default)]
pub struct Registry {
    rows: BTreeMap<String, Arc<Row>>,
    modules: BTreeMap<ModuleHash, Module>,
    /// The next id, and those whose stores are still to be deleted.
    general: General,
    limits: CallLimits,
    lives: Arc<Lives>,
    dirty: Dirty,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct General {
    next_id: u32,
    garbage: Vec<u32>,
}

/// What is not yet in the rows.
#[derive(Clone, Default)]
struct Dirty {
    rows: BTreeSet<String>,
    modules: BTreeSet<ModuleHash>,
    general: bool,
}

pub(crate) fn row_key(name: &str) -> Vec<u8> {
    [b"r", name.as_bytes()].concat()
}

fn module_key(hash: ModuleHash) -> Vec<u8> {
    [&b"m"[..], &hash.0].concat()
}

pub(crate) fn counters_key(id: u32) -> Vec<u8> {
    [&b"c"[..], &id.to_be_bytes()].concat()
}

/// The key of something in a private store.
pub(crate) fn store_key(id: u32, key: &[u8]) -> Vec<u8> {
    [&b"s"[..], &id.to_be_bytes(), key].concat()
}

/// `[from, to)` of a private store.
pub(crate) fn store_range(id: u32) -> (Vec<u8>, Vec<u8>) {
    let to = id.checked_add(1).map_or(b"t".to_vec(), |next| store_key(next, b""));
    (store_key(id, b""), to)
}

/// The key of a part of a module, by where it begins.
pub(crate) fn part_key(hash: ModuleHash, offset: u64) -> Vec<u8> {
    [&b"b"[..], &hash.0, &offset.to_be_bytes()].concat()
}

/// `[from, to)` of a module's parts.
pub(crate) fn parts_range(hash: ModuleHash) -> (Vec<u8>, Vec<u8>) {
    let all = [&b"b"[..], &hash.0].concat();
    let behind = [&all[..], &[0xff; 9]].concat();
    (all, behind)
}

const GENERAL_KEY: &[u8] = b"g";

pub(crate) fn encode<T: Serialize>(row: &T) -> Bytes {
    Bytes::from(rmp_serde::to_vec(row).expect("a row of the registry can always be encoded"))
}

pub(crate) fn decode<T: DeserializeOwned>(row: &[u8]) -> Result<T, Fault> {
    let damaged = |e: rmp_serde::decode::Error| Fault::Damaged {
        keyspace: "plugins",
        why: format!("a row cannot be decoded: {e}"),
    };
    rmp_serde::from_slice(row).map_err(damaged)
}

impl Registry {
    /// What the rows of the store say, and the counters beside it.
    pub(crate) fn load(
        rows: &Rows,
        settings: &PluginSettings,
    ) -> Result<(Self, BTreeMap<u32, Counters>), Fault> {
        let all = |first: &[u8]| {
            let to = [first.first().map_or(0, |first| first + 1)];
            rows.range(Keyspace::Plugins, first, &to, usize::MAX)
        };
        let damaged = || Fault::Damaged {
            keyspace: "plugins",
            why: "a row has a key that means nothing".to_owned(),
        };
        let mut registry = Self::default();
        for (key, row) in all(b"r")? {
            let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
            let row: Row = decode(&row)?;
            registry.rows.insert(name.ok_or_else(damaged)?.to_owned(), Arc::new(row));
        }
        for (key, row) in all(b"m")? {
            let hash = key.get(1..).and_then(|hash| hash.try_into().ok()).ok_or_else(damaged)?;
            registry.modules.insert(ModuleHash(hash), decode(&row)?);
        }
        let mut counters = BTreeMap::new();
        for (key, row) in all(b"c")? {
            let id = key.get(1..).and_then(|id| id.try_into().ok()).ok_or_else(damaged)?;
            counters.insert(u32::from_be_bytes(id), decode(&row)?);
        }
        if let Some(row) = rows.get(Keyspace::Plugins, GENERAL_KEY)? {
            registry.general = decode(&row)?;
        }
        registry.set_limits(settings);
        Ok((registry, counters))
    }

    /// What of it is not yet in the rows, to be written.
    pub(crate) fn take_dirty(&mut self) -> Vec<(Vec<u8>, Option<Bytes>)> {
        let Dirty { rows, modules, general } = std::mem::take(&mut self.dirty);
        let rows = rows
            .into_iter()
            .map(|name| (row_key(&name), self.rows.get(&name).map(|row| encode(row.as_ref()))));
        let modules =
            modules.into_iter().map(|hash| (module_key(hash), self.modules.get(&hash).map(encode)));
        let general = general.then(|| (GENERAL_KEY.to_vec(), Some(encode(&self.general))));
        rows.chain(modules).chain(general).collect()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.rows.is_empty() || !self.dirty.modules.is_empty() || self.dirty.general
    }

    /// The bindings by name, with those of which only the memory is left.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.rows.iter().map(|(name, row)| (name.as_str(), row.as_ref()))
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The binding of this name.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.get(name).map(Arc::as_ref)
    }

    /// The modules that were uploaded, in whole or in part.
    pub fn modules(&self) -> &BTreeMap<ModuleHash, Module> {
        &self.modules
    }

    /// What this server has to have compiled: all that is called, may be again, or is staged.
    pub fn wanted(&self) -> Vec<&Plugin> {
        self.rows.values().flat_map(|row| row.plugins()).collect()
    }

    /// Names what [`Self::wanted`] has: the same for the same, and 0 for nothing.
    pub fn wanted_digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let mut is_empty = true;
        for plugin in self.wanted() {
            is_empty = false;
            hasher.update(plugin.binding.name.as_bytes());
            hasher.update(&[0]);
            hasher.update(&plugin.generation.to_be_bytes());
            hasher.update(&plugin.module.0);
        }
        if is_empty { 0 } else { hasher.digest() | 1 }
    }

    /// What is staged and this server has not reported on.
    pub fn to_report(&self, server: u32) -> Vec<&Plugin> {
        let staged = self.rows.values().filter_map(|row| row.staged.as_ref());
        let unreported = staged.filter(|staged| !staged.reports.contains_key(&server));
        unreported.map(|staged| &staged.plugin).collect()
    }

    /// Whether the leader is to have a step done, of building or of deleting.
    pub fn has_steps(&self) -> bool {
        let builds = |row: &Arc<Row>| row.is_evaluated() && row.build != Build::Done;
        !self.general.garbage.is_empty() || self.rows.values().any(builds)
    }

    /// Whether authorizers decide by time, so that time must go on though nothing happens.
    pub fn has_authorizers(&self) -> bool {
        !self.lives.authorizers.is_empty() || !self.lives.schemes.is_empty()
    }

    /// What is called in apply, and must be compiled here.
    pub fn called(&self) -> impl Iterator<Item = &Plugin> {
        let shadows = self.lives.shadows;
        let is_shadow = move |at: usize| shadows.iter().any(|shadow| shadow == at);
        let lives = self.lives.list.iter().enumerate();
        lives.filter(move |(at, _)| !is_shadow(*at)).map(|(_, live)| live.plugin.as_ref())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lives.list.is_empty()
    }

    pub(crate) fn live(&self, at: usize) -> &Live {
        &self.lives.list[at]
    }

    pub(crate) fn live_named(&self, name: &str) -> Option<&Live> {
        self.lives.list.iter().find(|live| live.name() == name)
    }

    /// Whether a binding that is called is bound to this operation on this path.
    pub fn is_matched(&self, path: &str, kind: OpKind) -> bool {
        !is_system(path) && !self.lives.matcher.matching(path, kind).is_empty()
    }

    /// The names of the bindings that are called, or evaluated in the shadow, for this operation on this path,
    /// in the order in which they are asked.
    pub fn bound_to(&self, path: &str, kind: OpKind) -> Vec<&str> {
        if is_system(path) {
            return Vec::new();
        }
        let matched = self.lives.matcher.matching(path, kind);
        matched.iter().map(|at| self.lives.list[at].name()).collect()
    }

    fn matching(&self, path: &str, kind: OpKind, of: &Set) -> Set {
        if of.is_empty() || is_system(path) {
            return Set::default();
        }
        self.lives.matcher.matching(path, kind).and(of)
    }

    /// The guards to ask, in order.
    pub(crate) fn guards(&self, path: &str, kind: OpKind) -> Set {
        self.matching(path, kind, &self.lives.guards)
    }

    /// The observers to tell, in order.
    pub(crate) fn observers(&self, path: &str, kind: OpKind) -> Set {
        self.matching(path, kind, &self.lives.observers)
    }

    /// The authorizers that are bound to a path.
    pub(crate) fn authorizers(&self, path: &str, kind: OpKind) -> Set {
        self.matching(path, kind, &self.lives.authorizers)
    }

    /// Those that are evaluated beside apply.
    pub(crate) fn shadows(&self, path: &str, kind: OpKind) -> Set {
        self.matching(path, kind, &self.lives.shadows)
    }

    /// The authorizer of a scheme.
    pub(crate) fn authorizer_of(&self, scheme: &str) -> Option<&Live> {
        if self.lives.schemes.is_empty() {
            return None;
        }
        self.lives.schemes.get(scheme).map(|at| &self.lives.list[*at])
    }

    /// Whether an active binding decides this scheme.
    pub fn has_scheme(&self, scheme: &str) -> bool {
        self.authorizer_of(scheme).is_some()
    }

    /// The limits are others from now on.
    pub(crate) fn set_limits(&mut self, settings: &PluginSettings) {
        self.limits = CallLimits::of(settings);
        let limits = self.limits;
        self.rows.values_mut().for_each(|row| Arc::make_mut(row).prepare(limits));
        self.begin_calling();
    }

    /// Changes a binding, which is new if there is none of this name.
    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut Row)) {
        let row = match self.rows.entry(name.to_owned()) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let id = self.general.next_id;
                self.general.next_id += 1;
                self.dirty.general = true;
                entry.insert(Arc::new(Row::new(id)))
            }
        };
        let row = Arc::make_mut(row);
        change(row);
        row.prepare(self.limits);
        self.dirty.rows.insert(name.to_owned());
        self.begin_calling();
    }

    /// An observer's store is as far as this.
    pub(crate) fn set_build(&mut self, name: &str, build: Build) {
        if let Some(row) = self.rows.get_mut(name) {
            let row = Arc::make_mut(row);
            let was_done = row.build == Build::Done;
            row.build = build.clone();
            self.dirty.rows.insert(name.to_owned());
            if was_done != (build == Build::Done) {
                return self.begin_calling();
            }
            let lives = Arc::make_mut(&mut self.lives);
            for live in lives.list.iter_mut().filter(|live| live.plugin.binding.name == name) {
                live.build = build.clone();
            }
        }
    }

    /// Gives a binding another private store; what the old one holds is to be deleted.
    pub(crate) fn leave_store(&mut self, name: &str) {
        let id = self.general.next_id;
        self.general.next_id += 1;
        self.dirty.general = true;
        let mut old = None;
        self.change(name, |row| old = Some(std::mem::replace(&mut row.id, id)));
        self.general.garbage.extend(old);
    }

    /// A private store that nobody has any more.
    pub(crate) fn garbage(&self) -> Option<u32> {
        self.general.garbage.first().copied()
    }

    /// The first of them is gone.
    pub(crate) fn garbage_is_gone(&mut self) {
        if !self.general.garbage.is_empty() {
            self.general.garbage.remove(0);
            self.dirty.general = true;
        }
    }

    /// Forgets the memory of bindings that were removed, where there are too many: those of the lowest
    /// ids go first.
    pub(crate) fn forget_old(&mut self, most: usize) {
        let mut gone: Vec<(u32, String)> = self
            .rows
            .iter()
            .filter(|(_, row)| !row.is_there())
            .map(|(name, row)| (row.id, name.clone()))
            .collect();
        gone.sort_unstable();
        let more = gone.len().saturating_sub(most);
        for (_, name) in gone.into_iter().take(more) {
            self.rows.remove(&name);
            self.dirty.rows.insert(name);
        }
    }

    pub(crate) fn set_module(&mut self, hash: ModuleHash, module: Option<Module>) {
        match module {
            Some(module) => self.modules.insert(hash, module),
            None => self.modules.remove(&hash),
        };
        self.dirty.modules.insert(hash);
    }

    /// Finds out anew what is called.
    fn begin_calling(&mut self) {
        let is_called = |row: &&Arc<Row>| {
            row.active.is_some() && row.quarantine.is_none() && row.mode != Mode::Off
        };
        let mut rows: Vec<&Arc<Row>> = self.rows.values().filter(is_called).collect();
        let order = |row: &&Arc<Row>| {
            let binding = row.active.as_ref().map(|plugin| Arc::clone(&plugin.binding));
            binding.map(|binding| (binding.priority, binding.name.clone()))
        };
        rows.sort_by_cached_key(order);
        let mut lives = Lives::default();
        let mut matcher = Matcher::default();
        for row in rows.into_iter().take(MATCHED_MAX) {
            let Some(plugin) = &row.active else { continue };
            let at = lives.list.len();
            let binding = &plugin.binding;
            // They were parsed when it was staged.
            let parse = |texts: &[String]| patterns("", texts).unwrap_or_default();
            let matches: Arc<[Pattern]> = parse(&binding.matches).into();
            let ops = Ops::of(&binding.ops);
            matches.iter().for_each(|pattern| matcher.add(at, pattern, ops));
            if row.mode == Mode::Shadow {
                lives.shadows.insert(at);
            } else {
                for point in plugin.points() {
                    match point {
                        Point::Authorizer => lives.authorizers.insert(at),
                        Point::Guard => lives.guards.insert(at),
                        Point::Observer => lives.observers.insert(at),
                        Point::Trigger | Point::View => {}
                    }
                }
                if plugin.points().contains(&Point::Authorizer) {
                    let schemes = binding.schemes.iter().cloned();
                    lives.schemes.extend(schemes.map(|scheme| (scheme, at)));
                }
            }
            lives.list.push(Live {
                plugin: Arc::new(plugin.clone()),
                enforces: row.mode == Mode::Enforce && row.build == Build::Done,
                build: row.build.clone(),
                patterns: matches,
                reads: parse(&binding.reads).into(),
            });
        }
        lives.matcher = Arc::new(matcher);
        self.lives = Arc::new(lives);
    }
}

/// Whether a path is the system's, which is never subject to plugins.
pub fn is_system(path: &str) -> bool {
    path.strip_prefix("/zookeeper").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
