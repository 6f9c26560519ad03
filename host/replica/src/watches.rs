//! The watch table: who wants to hear of which znode.
//!
//! Two tables, as in ZooKeeper: data watches (getData, exists) and child watches (getChildren). A
//! persistent watch stands in both; a recursive one stands at its root and hears of everything
//! below, but never of children as such.
//!
//! A read registers its watch before it reads, in one step with taking its view. Until it has read,
//! the watch is tentative: it knows the slot of the read, its events know it too, and both can be
//! withdrawn if the znode is not there or may not be read. When the read succeeds nothing is left to
//! do: slot numbers never return.
//!
//! A watch that is there already is not set again. So a later read of the connection that asks for
//! the same watch, and holds its view too, is its heir: what the earlier read withdraws becomes that
//! one's.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use proto::EventType;

use crate::mutants::MachineMutants;
use crate::outbox::Outbox;

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Data and existence.
    Data,
    /// Children.
    Child,
}

/// One-shot.
pub const STANDARD: u8 = 1;
/// Stays, for one znode.
pub const PERSISTENT: u8 = 2;
/// Stays, for a znode and all below it.
pub const RECURSIVE: u8 = 4;

struct Watcher {
    outbox: Arc<Outbox>,
    modes: u8,
    /// The slot of the read that set the one-shot watch.
    since: u64,
}

/// The slots of the reads whose one-shot watches asked for an event, by table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since {
    data: Option<u64>,
    child: Option<u64>,
}

impl Since {
    fn new(table: Table, slot: u64) -> Self {
        match table {
            Table::Data => Self { data: Some(slot), child: None },
            Table::Child => Self { data: None, child: Some(slot) },
        }
    }

    /// Whether one of them is such a slot.
    pub(crate) fn any(&self, is: impl FnMut(u64) -> bool) -> bool {
        self.data.into_iter().chain(self.child).any(is)
    }

    /// The read at `slot` wants its watch in `table` no longer, but `heir` may. False if nobody is
    /// left who asked for the event.
    pub(crate) fn withdraw(&mut self, table: Table, slot: u64, heir: Option<u64>) -> bool {
        let asked = match table {
            Table::Data => &mut self.data,
            Table::Child => &mut self.child,
        };
        if *asked == Some(slot) {
            *asked = heir;
        }
        self.data.is_some() || self.child.is_some()
    }
}

/// Who hears of a change.
pub(crate) struct Hears {
    pub(crate) outbox: Arc<Outbox>,
    /// The reads whose watches alone asked for it: they may still be withdrawn.
    pub(crate) since: Option<Since>,
}

type Watchers = HashMap<Box<str>, Vec<Watcher>>;

/// Counts for operators.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Connections with a watch.
    pub connections: usize,
    /// Paths with a watch.
    pub paths: usize,
    /// Watches in all.
    pub watches: usize,
}

/// All watches of this server's connections.
#[derive(Default)]
pub struct WatchTable {
    data: Watchers,
    child: Watchers,
    by_connection: HashMap<u64, HashSet<(Table, Box<str>)>>,
    recursive: usize,
    mutants: MachineMutants,
}

impl WatchTable {
    /// An empty table, with planted bugs.
    pub(crate) fn with_mutants(mutants: MachineMutants) -> Self {
        Self { mutants, ..Self::default() }
    }

    fn table(&mut self, table: Table) -> &mut Watchers {
        match table {
            Table::Data => &mut self.data,
            Table::Child => &mut self.child,
        }
    }

    /// Adds a watch of one mode; `since` is the slot of the read that sets a one-shot watch.
    pub fn add(&mut self, table: Table, path: &str, outbox: &Arc<Outbox>, mode: u8, since: u64) {
        let paths = self.by_connection.entry(outbox.id).or_default();
        let new = paths.insert((table, path.into()));
        let watchers = self.table(table).entry_ref(path).or_default();
        let known = if new { None } else { watchers.iter_mut().find(|w| w.outbox.id == outbox.id) };
        let added = match known {
            Some(watcher) => {
                let added = mode & !watcher.modes;
                watcher.modes |= mode;
                // A watch that was there before the read stays if the read fails.
                if added & STANDARD != 0 {
                    watcher.since = since;
                }
                added
            }
            None => {
                watchers.push(Watcher { outbox: Arc::clone(outbox), modes: mode, since });
                mode
            }
        };
        if table == Table::Data && added & RECURSIVE != 0 {
            self.recursive += 1;
        }
    }

    /// Takes some modes of a connection's watch away; false if it had none of them.
    pub fn remove(&mut self, table: Table, path: &str, connection: u64, modes: u8) -> bool {
        let Some(watchers) = self.table(table).get_mut(path) else { return false };
        let Some(at) = watchers.iter().position(|w| w.outbox.id == connection) else {
            return false;
        };
        let removed = watchers[at].modes & modes;
        watchers[at].modes &= !modes;
        if watchers[at].modes == 0 {
            watchers.swap_remove(at);
            if watchers.is_empty() {
                self.table(table).remove(path);
            }
            self.forget(table, path, connection);
        }
        if table == Table::Data && removed & RECURSIVE != 0 {
            self.recursive -= 1;
        }
        removed != 0
    }

    /// Takes back the one-shot watch that the read at slot `since` set, if it is still there and has
    /// no heir.
    pub(crate) fn withdraw(
        &mut self,
        (table, path): (Table, &str),
        connection: u64,
        since: u64,
        heir: Option<u64>,
    ) {
        let Some(watchers) = self.table(table).get_mut(path) else { return };
        let mine = |w: &&mut Watcher| w.outbox.id == connection && w.since == since;
        match (watchers.iter_mut().find(mine), heir) {
            (None, _) => {}
            (Some(watcher), Some(heir)) => watcher.since = heir,
            (Some(_), None) => {
                self.remove(table, path, connection, STANDARD);
            }
        }
    }

    /// Whether a connection has a watch of any of these modes.
    pub fn contains(&self, table: Table, path: &str, connection: u64, modes: u8) -> bool {
        let table = match table {
            Table::Data => &self.data,
            Table::Child => &self.child,
        };
        table.get(path).is_some_and(|watchers| {
            watchers.iter().any(|w| w.outbox.id == connection && w.modes & modes != 0)
        })
    }

    /// Takes all watches of a connection away.
    pub fn disconnect(&mut self, connection: u64) {
        for (table, path) in self.by_connection.remove(&connection).unwrap_or_default() {
            let Some(watchers) = self.table(table).get_mut(&path) else { continue };
            let Some(at) = watchers.iter().position(|w| w.outbox.id == connection) else {
                continue;
            };
            let watcher = watchers.swap_remove(at);
            if watchers.is_empty() {
                self.table(table).remove(&path);
            }
            if table == Table::Data && watcher.modes & RECURSIVE != 0 {
                self.recursive -= 1;
            }
        }
    }

    fn forget(&mut self, table: Table, path: &str, connection: u64) {
        if let Some(paths) = self.by_connection.get_mut(&connection) {
            paths.remove(&(table, Box::from(path)));
            if paths.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
    }

    /// Who hears of `kind` at `path` from one table; one-shot watches are used up.
    pub(crate) fn fire(&mut self, table: Table, path: &str, kind: EventType) -> Vec<Hears> {
        let mut heard: Vec<Hears> = Vec::new();
        let mut used_up = Vec::new();
        let keep = self.mutants.keep_one_shot;
        let watched = self.table(table);
        if let Some(watchers) = if watched.is_empty() { None } else { watched.get_mut(path) } {
            for watcher in watchers.iter_mut() {
                let modes = match kind {
                    EventType::NodeChildrenChanged => watcher.modes & !RECURSIVE,
                    _ => watcher.modes,
                };
                if modes == 0 {
                    continue;
                }
                let since = (modes == STANDARD).then(|| Since::new(table, watcher.since));
                heard.push(Hears { outbox: Arc::clone(&watcher.outbox), since });
                if !keep {
                    watcher.modes &= !STANDARD;
                }
                if watcher.modes == 0 {
                    used_up.push(watcher.outbox.id);
                }
            }
            if !used_up.is_empty() {
                watchers.retain(|w| w.modes != 0);
                if watchers.is_empty() {
                    self.table(table).remove(path);
                }
            }
        }
        for connection in used_up {
            self.forget(table, path, connection);
        }
        if table == Table::Data && self.recursive > 0 {
            self.ancestors(path, &mut heard);
        }
        heard
    }

    /// Who hears of the deletion of `path`: from both tables, but only once.
    pub(crate) fn fire_deleted(&mut self, path: &str) -> Vec<Hears> {
        let mut heard = self.fire(Table::Data, path, EventType::NodeDeleted);
        for child in self.fire(Table::Child, path, EventType::NodeDeleted) {
            match heard.iter_mut().find(|told| told.outbox.id == child.outbox.id) {
                Some(_) if self.mutants.tell_twice => heard.push(child),
                // It stays if either of the two watches stays.
                Some(told) => {
                    told.since = match (told.since, child.since) {
                        (Some(data), Some(child)) => Some(Since { child: child.child, ..data }),
                        (None, _) | (_, None) => None,
                    };
                }
                None => heard.push(child),
            }
        }
        heard
    }

    /// The parent of `path`, and who hears there that it was created or deleted.
    pub(crate) fn fire_parent<'p>(&mut self, path: &'p str) -> (&'p str, Vec<Hears>) {
        let parent = proto::path::split(path).map_or("/", |(parent, _)| parent);
        (parent, self.fire(Table::Child, parent, EventType::NodeChildrenChanged))
    }

    fn ancestors(&self, path: &str, heard: &mut Vec<Hears>) {
        let mut at = path;
        while let Some((parent, _)) = proto::path::split(at) {
            for watcher in self.data.get(parent).into_iter().flatten() {
                if watcher.modes & RECURSIVE == 0 {
                    continue;
                }
                match heard.iter_mut().find(|told| told.outbox.id == watcher.outbox.id) {
                    Some(told) => told.since = None,
                    None => {
                        heard.push(Hears { outbox: Arc::clone(&watcher.outbox), since: None });
                    }
                }
            }
            at = parent;
        }
    }

    /// How many there are.
    pub fn counts(&self) -> WatchCounts {
        let watches = |table: &Watchers| table.values().map(Vec::len).sum::<usize>();
        WatchCounts {
            connections: self.by_connection.len(),
            paths: self.data.len() + self.child.len(),
            watches: watches(&self.data) + watches(&self.child),
        }
    }

    /// The connections and their data-watched paths, as `wchc` and `wchp` list them.
    pub fn data_watches(&self) -> Vec<(String, Vec<Arc<Outbox>>)> {
        let outboxes = |ws: &Vec<Watcher>| ws.iter().map(|w| Arc::clone(&w.outbox)).collect();
        let mut all: Vec<_> =
            self.data.iter().map(|(path, ws)| (path.to_string(), outboxes(ws))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}
