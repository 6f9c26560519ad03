//! No watch is lost or doubled: each connection hears exactly of the changes after its watches were
//! set, in their order, each once; a one-shot watch is used up by its event; what a client missed
//! while it was away it hears of when it sets its watches again.
//!
//! For every connection we keep a watch table of our own. A watch is set as of the zxid in the reply
//! that set it; whatever changed after that must have come before a reply with a later zxid.

use std::collections::{BTreeMap, VecDeque};

use proto::request::SetWatches;
use proto::{ErrorCode, EventType, Request, WatchEvent};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::{Connection, Event, Zxid};
use crate::sim::model::{self, Changed, How, Tree};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Modes {
    once: bool,
    persistent: bool,
    recursive: bool,
}

/// The watches of one connection, and what it must still hear.
#[derive(Default)]
struct Table {
    data: BTreeMap<String, Modes>,
    child: BTreeMap<String, Modes>,
    /// Changes up to this zxid have been looked at.
    upto: i64,
    expected: VecDeque<WatchEvent>,
    caught_up: Vec<WatchEvent>,
}

/// The tables of all connections.
#[derive(Default)]
pub(super) struct Watches {
    tables: BTreeMap<u64, Table>,
}

impl Checker for Watches {
    fn name(&self) -> &'static str {
        "no watch is lost or doubled"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        match event {
            Event::Notified { conn, .. }
            | Event::Replied { conn, .. }
            | Event::Ponged { conn, .. }
                if known.tainted.contains(conn) =>
            {
                self.tables.remove(conn);
            }
            Event::Notified { conn, event } => {
                count(event, counts);
                let table = self.tables.entry(*conn).or_default();
                if event.zxid == -1 {
                    counts.catch_up += 1;
                    table.caught_up.push(event.clone());
                    return Ok(());
                }
                table.advance(event.zxid, known.connections.get(*conn), known, counts);
                let expected = table.expected.pop_front();
                if expected.as_ref() != Some(event) {
                    return Err(format!("connection {conn}: {event:?}, expected {expected:?}"));
                }
            }
            Event::Replied { conn, number, zxid, result } => {
                let connection = known.connections.get(*conn);
                let table = self.tables.entry(*conn).or_default();
                if *zxid > 0 {
                    table.advance(*zxid, connection, known, counts);
                }
                if let Some(missed) = table.expected.front() {
                    return Err(format!(
                        "connection {conn}: a reply at {} before {missed:?}",
                        Zxid(*zxid)
                    ));
                }
                let request = &connection.sent[*number].request;
                let code = result.as_ref().err().copied();
                let tree = known.model.at_zxid(*zxid).map(|snapshot| &snapshot.tree);
                table.replied(request, code, tree, counts).map_err(|what| {
                    format!("connection {conn}: {request:?} at {}: {what}", Zxid(*zxid))
                })?;
            }
            Event::Ponged { conn, zxid } => {
                let table = self.tables.entry(*conn).or_default();
                table.advance(*zxid, known.connections.get(*conn), known, counts);
                if let Some(missed) = table.expected.front() {
                    let at = Zxid(*zxid);
                    return Err(format!("connection {conn}: a pong at {at} before {missed:?}"));
                }
            }
            Event::Ended { conn } => {
                self.tables.remove(conn);
            }
            Event::Quiet => {
                let last = known.model.snapshots.last().map_or(0, |snapshot| snapshot.zxid);
                self.tables.retain(|conn, _| !known.tainted.contains(conn));
                for (conn, table) in &mut self.tables {
                    table.advance(last, known.connections.get(*conn), known, counts);
                    if let Some(missed) = table.expected.front() {
                        return Err(format!("connection {conn} was never told of {missed:?}"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn count(event: &WatchEvent, counts: &mut Counts) {
    match event.kind {
        EventType::NodeCreated => counts.created += 1,
        EventType::NodeDeleted => counts.deleted += 1,
        EventType::NodeDataChanged => counts.data_changed += 1,
        EventType::NodeChildrenChanged => counts.children_changed += 1,
    }
}

impl Table {
    /// Fires what changed up to `zxid`.
    fn advance(
        &mut self,
        zxid: i64,
        connection: &Connection,
        known: &Known<'_>,
        counts: &mut Counts,
    ) {
        if zxid <= self.upto {
            return;
        }
        for (at, changes) in known.model.changes_between(self.upto, zxid) {
            for change in changes {
                self.fire(*at, change, connection.reader, counts);
            }
        }
        self.upto = zxid;
    }

    fn fire(&mut self, zxid: i64, change: &Changed, reader: bool, counts: &mut Counts) {
        let Changed { how, path, private, parent_private } = change;
        let mut tell = |kind, path: &str, private: bool, counts: &mut Counts| {
            if private && !reader {
                counts.withheld += 1;
                return;
            }
            self.expected.push_back(WatchEvent { kind, path: path.to_owned(), zxid });
        };
        // Who watches the data of the znode, or everything at or below a path that it is under.
        let mut told = false;
        if let Some(modes) = self.data.get(path).copied() {
            told = true;
            counts.persistent += u64::from(modes.persistent);
            use_up(&mut self.data, path);
        }
        let mut above = path.as_str();
        loop {
            if self.data.get(above).is_some_and(|modes| modes.recursive) {
                told = true;
                counts.recursive += 1;
            }
            if above == "/" {
                break;
            }
            above = model::parent(above);
        }
        let kind = match how {
            How::Created => EventType::NodeCreated,
            How::Deleted => EventType::NodeDeleted,
            How::Set => EventType::NodeDataChanged,
        };
        if told {
            tell(kind, path, *private, counts);
        }
        if *how == How::Set {
            return;
        }
        // Who watches its children hears of its end, if that was not said already.
        if *how == How::Deleted && self.child.contains_key(path) {
            if !told {
                tell(kind, path, *private, counts);
            }
            use_up(&mut self.child, path);
        }
        let parent = model::parent(path);
        if self.child.contains_key(parent) {
            tell(EventType::NodeChildrenChanged, parent, *parent_private, counts);
            use_up(&mut self.child, parent);
        }
    }

    /// Takes notice of what a reply means for the table.
    fn replied(
        &mut self,
        request: &Request,
        code: Option<ErrorCode>,
        tree: Option<&Tree>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        match request {
            Request::Exists { path, watch: true }
                if matches!(code, None | Some(ErrorCode::NoNode)) =>
            {
                self.data.entry(path.clone()).or_default().once = true;
            }
            Request::GetData { path, watch: true } if code.is_none() => {
                self.data.entry(path.clone()).or_default().once = true;
            }
            Request::GetChildren { path, watch: true }
            | Request::GetChildren2 { path, watch: true }
                if code.is_none() =>
            {
                self.child.entry(path.clone()).or_default().once = true;
            }
            Request::AddWatch { path, mode: 0 } => self.persist(path),
            Request::AddWatch { path, .. } => {
                self.data.entry(path.clone()).or_default().recursive = true;
            }
            Request::CheckWatches { path, kind } => {
                let found = self.clone_of(path).take(path, *kind);
                expect(found, code)?;
            }
            Request::RemoveWatches { path, kind } => {
                let found = self.take(path, *kind);
                counts.removed += u64::from(found);
                expect(found, code)?;
            }
            Request::SetWatches(set) | Request::SetWatches2(set) => {
                let tree = tree.ok_or("no entry ends there")?;
                let expected = self.set_again(set, tree);
                let got = std::mem::take(&mut self.caught_up);
                if expected != got {
                    return Err(format!("caught up with {got:?}, must be {expected:?}"));
                }
            }
            _ => {}
        }
        if self.caught_up.is_empty() {
            return Ok(());
        }
        Err(format!("events without a zxid: {:?}", self.caught_up))
    }

    fn persist(&mut self, path: &str) {
        self.data.entry(path.to_owned()).or_default().persistent = true;
        self.child.entry(path.to_owned()).or_default().persistent = true;
    }

    /// A table with the watches on one path alone.
    fn clone_of(&self, path: &str) -> Self {
        let one = |table: &BTreeMap<String, Modes>| {
            table.get(path).map(|modes| (path.to_owned(), *modes)).into_iter().collect()
        };
        Self { data: one(&self.data), child: one(&self.child), ..Self::default() }
    }

    /// Takes the watches of a kind away; whether there was one.
    fn take(&mut self, path: &str, kind: i32) -> bool {
        let mut found = false;
        for (is_data, table) in [(true, &mut self.data), (false, &mut self.child)] {
            let Some(modes) = table.get_mut(path) else { continue };
            let before = *modes;
            match kind {
                1 => modes.once &= is_data,
                2 => modes.once &= !is_data,
                3 => *modes = Modes::default(),
                4 => modes.persistent = false,
                _ => modes.recursive = false,
            }
            found |= *modes != before;
            if *modes == Modes::default() {
                table.remove(path);
            }
        }
        found
    }

    /// Sets watches again, as of a tree; gives the events that were missed.
    fn set_again(&mut self, set: &SetWatches, tree: &Tree) -> Vec<WatchEvent> {
        let mut missed = Vec::new();
        let mut miss = |kind, path: &String| {
            // As in ZooKeeper, whether the client may read the znode or not.
            missed.push(WatchEvent { kind, path: path.clone(), zxid: -1 });
        };
        for path in &set.data {
            match tree.get(path) {
                None => miss(EventType::NodeDeleted, path),
                Some(node) if node.stat.mzxid > set.relative_zxid => {
                    miss(EventType::NodeDataChanged, path);
                }
                Some(_) => self.data.entry(path.clone()).or_default().once = true,
            }
        }
        for path in &set.exist {
            match tree.get(path) {
                Some(_) => miss(EventType::NodeCreated, path),
                None => self.data.entry(path.clone()).or_default().once = true,
            }
        }
        for path in &set.child {
            match tree.get(path) {
                None => miss(EventType::NodeDeleted, path),
                Some(node) if node.stat.pzxid > set.relative_zxid => {
                    miss(EventType::NodeChildrenChanged, path);
                }
                Some(_) => self.child.entry(path.clone()).or_default().once = true,
            }
        }
        set.persistent.iter().for_each(|path| self.persist(path));
        for path in &set.recursive {
            self.data.entry(path.clone()).or_default().recursive = true;
        }
        missed
    }
}

/// A one-shot watch is used up.
fn use_up(table: &mut BTreeMap<String, Modes>, path: &str) {
    let Some(modes) = table.get_mut(path) else { return };
    modes.once = false;
    if *modes == Modes::default() {
        table.remove(path);
    }
}

fn expect(found: bool, code: Option<ErrorCode>) -> Result<(), String> {
    match (found, code) {
        (true, None) | (false, Some(ErrorCode::NoWatcher)) => Ok(()),
        _ => Err(format!("there is such a watch: {found}; the answer: {code:?}")),
    }
}
