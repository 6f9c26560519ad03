//! The watch table: who wants to hear of which znode.
//!
//! Two tables, as in ZooKeeper: data watches (getData, exists) and child watches (getChildren). A
//! persistent watch stands in both; a recursive one stands at its root and hears of everything
//! below, but never of children as such.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use proto::EventType;

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
}

impl WatchTable {
    fn table(&mut self, table: Table) -> &mut Watchers {
        match table {
            Table::Data => &mut self.data,
            Table::Child => &mut self.child,
        }
    }

    /// Adds a watch of one mode.
    pub fn add(&mut self, table: Table, path: &str, outbox: &Arc<Outbox>, mode: u8) {
        let paths = self.by_connection.entry(outbox.id).or_default();
        let new = paths.insert((table, path.into()));
        let watchers = self.table(table).entry_ref(path).or_default();
        let known = if new { None } else { watchers.iter_mut().find(|w| w.outbox.id == outbox.id) };
        let added = match known {
            Some(watcher) => {
                let added = mode & !watcher.modes;
                watcher.modes |= mode;
                added
            }
            None => {
                watchers.push(Watcher { outbox: Arc::clone(outbox), modes: mode });
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

    /// Who hears of `kind` at `path` from one table; one-shot watches are used up. Connections in
    /// `but` have been told already.
    pub fn fire(
        &mut self,
        table: Table,
        path: &str,
        kind: EventType,
        but: &[Arc<Outbox>],
    ) -> Vec<Arc<Outbox>> {
        let mut heard: Vec<Arc<Outbox>> = Vec::new();
        let mut used_up = Vec::new();
        if let Some(watchers) = self.table(table).get_mut(path) {
            for watcher in watchers.iter_mut() {
                let modes = match kind {
                    EventType::NodeChildrenChanged => watcher.modes & !RECURSIVE,
                    _ => watcher.modes,
                };
                if modes == 0 {
                    continue;
                }
                heard.push(Arc::clone(&watcher.outbox));
                watcher.modes &= !STANDARD;
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
        heard.retain(|outbox| but.iter().all(|told| told.id != outbox.id));
        heard
    }

    fn ancestors(&self, path: &str, heard: &mut Vec<Arc<Outbox>>) {
        let mut at = path;
        while let Some((parent, _)) = proto::path::split(at) {
            for watcher in self.data.get(parent).into_iter().flatten() {
                let told = heard.iter().any(|outbox| outbox.id == watcher.outbox.id);
                if watcher.modes & RECURSIVE != 0 && !told {
                    heard.push(Arc::clone(&watcher.outbox));
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
