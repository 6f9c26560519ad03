//! Reads and watches: everything that is answered from a view, without the log
//! (`FinalRequestProcessor`).

use std::sync::Arc;

use proto::request::SetWatches;
use proto::{ErrorCode, EventType, Id, Perms, ReadOp, ReadResult, Reply, Request};
use state::{Fault, View, Znode, access};

use crate::outbox::{Outbox, Slot};
use crate::watches::{PERSISTENT, RECURSIVE, STANDARD, Table, WatchTable};

/// Why a read has no reply: an error for the client, or a failure of this server.
pub(crate) enum Stop {
    Code(ErrorCode),
    Fault(Fault),
}

impl From<ErrorCode> for Stop {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Who reads, and from what.
pub(crate) struct Reader<'a> {
    pub(crate) view: &'a View,
    pub(crate) identities: &'a [Id],
    pub(crate) session: i64,
    pub(crate) outbox: &'a Arc<Outbox>,
}

/// The path whose watch a read asks for.
pub(crate) fn wants_watch(request: &Request) -> bool {
    match request {
        Request::Exists { watch, .. }
        | Request::GetData { watch, .. }
        | Request::GetChildren { watch, .. }
        | Request::GetChildren2 { watch, .. } => *watch,
        Request::AddWatch { .. }
        | Request::RemoveWatches { .. }
        | Request::CheckWatches { .. }
        | Request::SetWatches(_)
        | Request::SetWatches2(_) => true,
        _ => false,
    }
}

impl Reader<'_> {
    /// Answers a read. `watches` is there whenever [`wants_watch`] says so; no change can then be
    /// published while this runs.
    pub(crate) fn read(
        &self,
        request: &Request,
        watches: Option<&mut WatchTable>,
    ) -> Result<Reply, Stop> {
        let outbox = self.outbox;
        match request {
            Request::Exists { path, .. } => {
                if path.contains('\0') {
                    return Err(ErrorCode::BadArguments.into());
                }
                let node = self.view.node(path)?;
                if let Some(node) = &node {
                    self.may_read(node)?;
                }
                if let Some(watches) = watches {
                    watches.add(Table::Data, path, outbox, STANDARD);
                }
                Ok(Reply::Stat(node.ok_or(ErrorCode::NoNode)?.stat()))
            }
            Request::GetData { path, .. } => {
                let node = self.readable(path)?;
                let data = self.view.data(path, &node)?;
                if let Some(watches) = watches {
                    watches.add(Table::Data, path, outbox, STANDARD);
                }
                Ok(Reply::Data(data, node.stat()))
            }
            Request::GetChildren { path, .. } | Request::GetChildren2 { path, .. } => {
                let node = self.readable(path)?;
                let names = match node.children {
                    0 => Vec::new(),
                    _ => self.view.children(path)?,
                };
                if let Some(watches) = watches {
                    watches.add(Table::Child, path, outbox, STANDARD);
                }
                Ok(match request {
                    Request::GetChildren { .. } => Reply::Children(names),
                    _ => Reply::ChildrenStat(names, node.stat()),
                })
            }
            Request::GetAcl { path } => {
                let node = self.view.node(path)?.ok_or(ErrorCode::NoNode)?;
                self.may(&node, Perms::READ | Perms::ADMIN)?;
                let skip_acl = self.view.settings.skip_acl;
                let acl = access::masked(&node.acl, self.identities, skip_acl);
                Ok(Reply::Acl(acl, node.stat()))
            }
            Request::GetAllChildrenNumber { path } => {
                self.readable(path)?;
                let count = self.view.descendants(path)?;
                Ok(Reply::Count(i32::try_from(count).unwrap_or(i32::MAX)))
            }
            Request::GetEphemerals { prefix } => {
                let mut paths = self.view.ephemerals(self.session)?;
                let trimmed = prefix.trim();
                if !trimmed.is_empty() && trimmed != "/" {
                    paths.retain(|path| path.starts_with(prefix.as_str()));
                }
                Ok(Reply::Children(paths))
            }
            Request::MultiRead(ops) => {
                let results = ops.iter().map(|op| self.read_op(op));
                Ok(Reply::MultiRead(results.collect::<Result<_, Fault>>()?))
            }
            Request::Sync { path } => Ok(Reply::Path(path.clone())),
            Request::AddWatch { path, mode } => {
                let watches = watches.ok_or(ErrorCode::SystemError)?;
                match mode {
                    0 => {
                        watches.add(Table::Data, path, outbox, PERSISTENT);
                        watches.add(Table::Child, path, outbox, PERSISTENT);
                    }
                    1 => watches.add(Table::Data, path, outbox, RECURSIVE),
                    _ => return Err(ErrorCode::MarshallingError.into()),
                }
                Ok(Reply::AddWatch(0))
            }
            Request::RemoveWatches { path, kind } => {
                let watches = watches.ok_or(ErrorCode::SystemError)?;
                let mut removed = false;
                for (table, modes) in modes_of(*kind)? {
                    removed |= watches.remove(table, path, outbox.id, modes);
                }
                if removed { Ok(Reply::Empty) } else { Err(ErrorCode::NoWatcher.into()) }
            }
            Request::CheckWatches { path, kind } => {
                let watches = watches.ok_or(ErrorCode::SystemError)?;
                let has = |(table, modes)| watches.contains(table, path, outbox.id, modes);
                if modes_of(*kind)?.into_iter().any(has) {
                    Ok(Reply::Empty)
                } else {
                    Err(ErrorCode::NoWatcher.into())
                }
            }
            Request::SetWatches(set) | Request::SetWatches2(set) => {
                self.set_watches(set, watches.ok_or(ErrorCode::SystemError)?)?;
                Ok(Reply::Empty)
            }
            _ => Err(ErrorCode::Unimplemented.into()),
        }
    }

    fn may(&self, node: &Znode, perms: i32) -> Result<(), ErrorCode> {
        let skip = self.view.settings.skip_acl;
        if skip || access::allowed(&node.acl, perms, self.identities) {
            return Ok(());
        }
        Err(ErrorCode::NoAuth)
    }

    fn may_read(&self, node: &Znode) -> Result<(), ErrorCode> {
        self.may(node, Perms::READ)
    }

    fn readable(&self, path: &str) -> Result<Arc<Znode>, Stop> {
        let node = self.view.node(path)?.ok_or(ErrorCode::NoNode)?;
        self.may_read(&node)?;
        Ok(node)
    }

    fn read_op(&self, op: &ReadOp) -> Result<ReadResult, Fault> {
        let result = match op {
            ReadOp::GetData(path) => self
                .readable(path)
                .and_then(|node| Ok(ReadResult::Data(self.view.data(path, &node)?, node.stat()))),
            ReadOp::GetChildren(path) => self
                .readable(path)
                .and_then(|_| Ok(ReadResult::Children(self.view.children(path)?))),
        };
        match result {
            Ok(result) => Ok(result),
            Err(Stop::Code(code)) => Ok(ReadResult::Error(code.code())),
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    /// Re-registers the watches of a client that was away; for what it missed there is an event at
    /// once, before the reply.
    fn set_watches(&self, set: &SetWatches, watches: &mut WatchTable) -> Result<(), Fault> {
        let missed = |kind, path: &String, node: Option<&Znode>| {
            let acl = node.map_or_else(|| [].into(), |node| node.acl.clone());
            self.outbox.push(Slot::Event { kind, path: path.as_str().into(), zxid: -1, acl });
        };
        for path in &set.data {
            match self.view.node(path)? {
                None => missed(EventType::NodeDeleted, path, None),
                Some(node) if node.mzxid > set.relative_zxid => {
                    missed(EventType::NodeDataChanged, path, Some(&node));
                }
                Some(_) => watches.add(Table::Data, path, self.outbox, STANDARD),
            }
        }
        for path in &set.exist {
            match self.view.node(path)? {
                Some(node) => missed(EventType::NodeCreated, path, Some(&node)),
                None => watches.add(Table::Data, path, self.outbox, STANDARD),
            }
        }
        for path in &set.child {
            match self.view.node(path)? {
                None => missed(EventType::NodeDeleted, path, None),
                Some(node) if node.pzxid > set.relative_zxid => {
                    missed(EventType::NodeChildrenChanged, path, Some(&node));
                }
                Some(_) => watches.add(Table::Child, path, self.outbox, STANDARD),
            }
        }
        for path in &set.persistent {
            watches.add(Table::Data, path, self.outbox, PERSISTENT);
            watches.add(Table::Child, path, self.outbox, PERSISTENT);
        }
        for path in &set.recursive {
            watches.add(Table::Data, path, self.outbox, RECURSIVE);
        }
        Ok(())
    }
}

/// The tables and modes that a watcher type means (`Watcher.WatcherType`).
fn modes_of(kind: i32) -> Result<Vec<(Table, u8)>, ErrorCode> {
    let all = STANDARD | PERSISTENT | RECURSIVE;
    Ok(match kind {
        1 => vec![(Table::Child, STANDARD)],
        2 => vec![(Table::Data, STANDARD)],
        3 => vec![(Table::Data, all), (Table::Child, all)],
        4 => vec![(Table::Data, PERSISTENT), (Table::Child, PERSISTENT)],
        5 => vec![(Table::Data, RECURSIVE)],
        _ => return Err(ErrorCode::MarshallingError),
    })
}
