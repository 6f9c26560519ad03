//! Reads: everything that is answered from a view, without the log (`FinalRequestProcessor`).
//!
//! A read takes its view and its watch in one step: with its slot if nothing before it is open
//! (`Read::take`), otherwise when the last write before it is published (`waiting.rs`). Later steps
//! read, a bounded number of rows each, and the last one fills the slot and withdraws the watch if
//! the znode is not there or may not be read.

use std::sync::Arc;

use proto::request::SetWatches;
use proto::{ErrorCode, EventType, Id, OpCode, Perms, ReadOp, ReadResult, Reply, Request, Stat};
use state::hooks::Check;
use state::view::Listing;
use state::{Fault, View, Znode, access};

use crate::big_reads::Charge;
use crate::mutants::ConnectionMutants;
use crate::operator::OperatorReply;
use crate::outbox::{Event, Outbox, Say};
use crate::publish::Published;
use crate::saving::{RECORD_BYTES, Saving};
use crate::waiting::Taken;
use crate::watches::{PERSISTENT, RECURSIVE, STANDARD, Table, WatchTable};

/// How many rows a read may touch in one turn; what needs more is a big read.
pub const TURN_ROWS: usize = 1000;

/// Why a read has no reply: an error for the client, or a failure of this server.
enum Stop {
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

/// What a client wants to read.
pub(crate) struct Asked {
    pub(crate) session: i64,
    pub(crate) xid: i32,
    pub(crate) request: Request,
    pub(crate) identities: Arc<Vec<Id>>,
    pub(crate) mutants: ConnectionMutants,
}

impl Asked {
    /// The one-shot watch that it sets, unless it sets many.
    pub(crate) fn watch(&self) -> Option<(Table, &str)> {
        watch_of(&self.request)
    }

    fn sets_watches(&self) -> bool {
        match self.request {
            // The planted bug: its watch is registered when the read is answered.
            _ if self.mutants.watch_after_read => false,
            Request::SetWatches(_) | Request::SetWatches2(_) => !self.mutants.set_nothing_again,
            _ => self.watch().is_some(),
        }
    }

    /// Sets its watches; the caller holds the publish lock, and takes the view.
    pub(crate) fn register(&self, watches: &mut WatchTable, outbox: &Arc<Outbox>, number: u64) {
        if !self.sets_watches() {
            // Nothing to set.
        } else if let Some((table, path)) = self.watch() {
            watches.add(table, path, outbox, STANDARD, number);
        } else if let Request::SetWatches(set) | Request::SetWatches2(set) = &self.request {
            register(set, watches, outbox, number);
        }
    }
}

/// A read that holds its view and its slot.
pub struct Read {
    published: Arc<Published>,
    outbox: Arc<Outbox>,
    view: Arc<View>,
    number: u64,
    asked: Asked,
    progress: Progress,
    /// The memory that a big read's answer is accounted for with.
    pub(crate) charge: Option<Charge>,
}

/// How far a read has come.
enum Progress {
    Start,
    Names { listing: Listing, names: Vec<String>, stat: Stat },
    Count { listing: Listing, count: u64 },
    Multi { results: Vec<ReadResult>, listing: Option<(Listing, Vec<String>)> },
    Watches { at: usize, missed: Vec<Event> },
    Record { saving: Arc<Saving>, begun: bool },
}

/// The table in which a request's watch goes, and its path.
fn watch_of(request: &Request) -> Option<(Table, &str)> {
    match request {
        Request::Exists { path, watch: true } | Request::GetData { path, watch: true } => {
            Some((Table::Data, path))
        }
        Request::GetChildren { path, watch: true }
        | Request::GetChildren2 { path, watch: true } => Some((Table::Child, path)),
        _ => None,
    }
}

impl Read {
    /// Takes the view, the next slot and the watch, in one step. All earlier writes of the session
    /// must be published, and its earlier reads answered.
    pub(crate) fn take(published: &Arc<Published>, outbox: &Arc<Outbox>, asked: Asked) -> Self {
        let (view, number) = published.with_view(|view| {
            let number = outbox.take();
            if asked.sets_watches() {
                asked.register(&mut published.watches(), outbox, number);
            }
            (Arc::clone(view), number)
        });
        Self::begin(published, outbox, Taken { view, number, asked })
    }

    /// Takes the next slot for the next record of a snapshot; it is a big read.
    pub(crate) fn record(
        published: &Arc<Published>,
        outbox: &Arc<Outbox>,
        asked: Asked,
        saving: Arc<Saving>,
    ) -> Self {
        let progress = Progress::Record { saving, begun: false };
        Self { progress, ..Self::take(published, outbox, asked) }
    }

    /// Begins a read that has taken everything.
    pub(crate) fn begin(published: &Arc<Published>, outbox: &Arc<Outbox>, taken: Taken) -> Self {
        let Taken { view, number, asked } = taken;
        let (published, outbox) = (Arc::clone(published), Arc::clone(outbox));
        Self { published, outbox, view, number, asked, progress: Progress::Start, charge: None }
    }

    /// Reads up to [`TURN_ROWS`] rows and answers; gives itself back if that was not enough.
    pub fn run(mut self) -> Option<Self> {
        if self.asked.mutants.late_view {
            self.view = self.published.view();
        }
        match self.turn() {
            Ok(None) => Some(self),
            Ok(Some(reply)) => {
                self.answer(Ok(reply));
                None
            }
            Err(stop) => {
                self.answer(Err(stop));
                None
            }
        }
    }

    /// The connection that waits for it.
    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// How much memory the answer takes so far, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let names = |names: &[String]| names.iter().map(|name| name.len() + 32).sum::<usize>();
        match &self.progress {
            Progress::Start | Progress::Count { .. } => 0,
            Progress::Names { names: so_far, .. } => names(so_far),
            Progress::Multi { results, listing } => {
                let results = results.iter().map(|result| match result {
                    ReadResult::Data(data, _) => data.as_ref().map_or(0, |d| d.len()),
                    ReadResult::Children(children) => names(children),
                    ReadResult::Error(_) => 0,
                });
                results.sum::<usize>() + listing.as_ref().map_or(0, |(_, so_far)| names(so_far))
            }
            Progress::Watches { missed, .. } => missed.len() * size_of::<Event>(),
            Progress::Record { .. } => RECORD_BYTES,
        }
    }

    fn answer(&mut self, result: Result<Reply, Stop>) {
        let found = matches!(result, Ok(_) | Err(Stop::Code(ErrorCode::NoNode)));
        let keeps = result.is_ok() || found && matches!(self.asked.request, Request::Exists { .. });
        let keeps = keeps || self.asked.mutants.keep_withdrawn;
        if let (false, Some((table, path))) = (keeps, self.asked.watch()) {
            self.withdraw(table, path);
        }
        if let (true, true, Some((table, path))) =
            (self.asked.mutants.watch_after_read, keeps, self.asked.watch())
        {
            let mut watches = self.published.watches();
            watches.add(table, path, &self.outbox, STANDARD, self.number);
        }
        let missed = match &mut self.progress {
            Progress::Watches { missed, .. } => std::mem::take(missed),
            _ => Vec::new(),
        };
        let (xid, zxid, charge) = (self.asked.xid, self.view.zxid, self.charge.take());
        let result = match result {
            Ok(reply) => Ok(reply),
            Err(Stop::Code(code)) => Err(code),
            Err(Stop::Fault(fault)) => {
                tracing::error!(%fault, "a read failed; its connection is closed");
                if matches!(fault, Fault::Damaged { .. }) {
                    self.published.found_damage(fault.to_string(), &self.view);
                }
                return self.outbox.answer(self.number, missed, Say::Close);
            }
        };
        self.outbox.answer(self.number, missed, Say::Reply { xid, zxid, result, charge });
    }

    /// Takes back a watch that this read set, and what it has caused since.
    fn withdraw(&self, table: Table, path: &str) {
        let mut watches = self.published.watches();
        let mutant = self.asked.mutants.no_heirs;
        let heir = self.outbox.withdraw(self.number, (table, path), mutant);
        watches.withdraw((table, path), self.outbox.id, self.number, heir);
    }

    /// Goes on for up to [`TURN_ROWS`] rows; `None` if there is more to do.
    fn turn(&mut self) -> Result<Option<Reply>, Stop> {
        if let Progress::Start = self.progress
            && let Some(reply) = self.start()?
        {
            return Ok(Some(reply));
        }
        let view = Arc::clone(&self.view);
        match &mut self.progress {
            Progress::Start => Ok(None),
            Progress::Names { listing, names, stat } => {
                let prefix = match &self.asked.request {
                    Request::GetEphemerals { prefix } => prefix_of(prefix),
                    _ => "",
                };
                let more = view.page(listing, TURN_ROWS, |name| {
                    if name.starts_with(prefix) {
                        names.push(name.to_owned());
                    }
                })?;
                if more {
                    return Ok(None);
                }
                let names = std::mem::take(names);
                Ok(Some(match &self.asked.request {
                    Request::GetChildren2 { .. } => Reply::ChildrenStat(names, *stat),
                    _ => Reply::Children(names),
                }))
            }
            Progress::Count { listing, count } => {
                if view.page(listing, TURN_ROWS, |_| *count += 1)? {
                    return Ok(None);
                }
                Ok(Some(Reply::Count(i32::try_from(*count).unwrap_or(i32::MAX))))
            }
            Progress::Multi { .. } => self.multi(),
            Progress::Watches { .. } => self.set_watches(),
            Progress::Record { saving, begun: true } => {
                let record = saving.record()?;
                let reply = record.map_or(OperatorReply::SnapshotEnd {}, OperatorReply::Record);
                Ok(Some(Reply::Operator(reply.encode().into())))
            }
            Progress::Record { begun, .. } => {
                *begun = true;
                Ok(None)
            }
        }
    }

    /// Answers what takes one look-up, and prepares the rest.
    fn start(&mut self) -> Result<Option<Reply>, Stop> {
        match &self.asked.request {
            Request::Exists { path, .. } => {
                if path.contains('\0') {
                    return Err(ErrorCode::BadArguments.into());
                }
                let node = self.view.node(path)?.ok_or(ErrorCode::NoNode)?;
                self.may(OpCode::Exists, path, &node, Perms::READ)?;
                Ok(Some(Reply::Stat(node.stat())))
            }
            Request::GetData { path, .. } => {
                let node = self.readable(OpCode::GetData, path)?;
                let data = self.view.data(path, &node)?;
                Ok(Some(Reply::Data(data, node.stat())))
            }
            Request::GetChildren { path, .. } | Request::GetChildren2 { path, .. } => {
                let node = self.readable(OpCode::GetChildren, path)?;
                let names = Vec::with_capacity(TURN_ROWS.min(node.children as usize));
                let listing = match node.children {
                    0 => Listing::nothing(),
                    _ => Listing::children(path),
                };
                self.progress = Progress::Names { listing, names, stat: node.stat() };
                Ok(None)
            }
            Request::GetAcl { path } => {
                let node = self.view.node(path)?.ok_or(ErrorCode::NoNode)?;
                self.may(OpCode::GetAcl, path, &node, Perms::READ | Perms::ADMIN)?;
                let skip_acl = self.view.settings.skip_acl;
                let acl = access::masked(&node.acl, &self.asked.identities, skip_acl);
                Ok(Some(Reply::Acl(acl, node.stat())))
            }
            Request::GetAllChildrenNumber { path } => {
                self.readable(OpCode::GetAllChildrenNumber, path)?;
                if path == "/" {
                    let count = self.view.counts.nodes.saturating_sub(1);
                    return Ok(Some(Reply::Count(i32::try_from(count).unwrap_or(i32::MAX))));
                }
                // The empty path is the root too, but ZooKeeper then counts `/` as below it.
                let count = u64::from(path.is_empty());
                self.progress = Progress::Count { listing: Listing::below(path), count };
                Ok(None)
            }
            Request::GetEphemerals { .. } => {
                let listing = Listing::ephemerals(self.asked.session);
                let (names, stat) = (Vec::new(), Stat::default());
                self.progress = Progress::Names { listing, names, stat };
                Ok(None)
            }
            Request::MultiRead(ops) => {
                let results = Vec::with_capacity(ops.len());
                self.progress = Progress::Multi { results, listing: None };
                Ok(None)
            }
            Request::Sync { path } => Ok(Some(Reply::Path(path.clone()))),
            Request::SetWatches(_) | Request::SetWatches2(_) => {
                self.progress = Progress::Watches { at: 0, missed: Vec::new() };
                Ok(None)
            }
            _ => Err(ErrorCode::Unimplemented.into()),
        }
    }

    fn may(
        &self,
        operation: OpCode,
        path: &str,
        node: &Znode,
        permission: i32,
    ) -> Result<(), Stop> {
        let (operation, entry, identities) = (operation as u16, None, &self.asked.identities[..]);
        let check = Check { operation, path, consulted: path, permission, entry, identities };
        match self.view.may(&node.acl, &check, self.asked.session)? {
            true => Ok(()),
            false => Err(ErrorCode::NoAuth.into()),
        }
    }

    fn readable(&self, operation: OpCode, path: &str) -> Result<Arc<Znode>, Stop> {
        let node = self.view.node(path)?.ok_or(ErrorCode::NoNode)?;
        self.may(operation, path, &node, Perms::READ)?;
        Ok(node)
    }

    /// Goes on with a multi of reads; each of its operations stands alone.
    fn multi(&mut self) -> Result<Option<Reply>, Stop> {
        let view = Arc::clone(&self.view);
        let (Request::MultiRead(ops), Progress::Multi { results, listing }) =
            (&self.asked.request, std::mem::replace(&mut self.progress, Progress::Start))
        else {
            return Err(ErrorCode::SystemError.into());
        };
        let (mut results, mut listing) = (results, listing);
        let mut rows = 0;
        while let Some(op) = ops.get(results.len()) {
            let result = match op {
                _ if rows >= TURN_ROWS => {
                    self.progress = Progress::Multi { results, listing };
                    return Ok(None);
                }
                ReadOp::GetData(path) => self
                    .readable(OpCode::GetData, path)
                    .and_then(|node| Ok(ReadResult::Data(view.data(path, &node)?, node.stat()))),
                ReadOp::GetChildren(path) => {
                    let begun = match listing.take() {
                        Some(begun) => Ok(begun),
                        None => self
                            .readable(OpCode::GetChildren, path)
                            .map(|_| (Listing::children(path), Vec::new())),
                    };
                    match begun {
                        Err(stop) => Err(stop),
                        Ok((mut rest, mut names)) => {
                            let most = TURN_ROWS - rows;
                            let more = view.page(&mut rest, most, |name| {
                                rows += 1;
                                names.push(name.to_owned());
                            })?;
                            if more {
                                listing = Some((rest, names));
                                rows = TURN_ROWS;
                                continue;
                            }
                            Ok(ReadResult::Children(names))
                        }
                    }
                }
            };
            rows += 1;
            results.push(match result {
                Ok(result) => result,
                Err(Stop::Code(code)) => ReadResult::Error(code.code()),
                Err(Stop::Fault(fault)) => return Err(fault.into()),
            });
        }
        Ok(Some(Reply::MultiRead(results)))
    }

    /// Looks at what a client that was away has missed: for that there is an event at once, before
    /// the reply, and its watch is withdrawn.
    fn set_watches(&mut self) -> Result<Option<Reply>, Stop> {
        let (
            Request::SetWatches(set) | Request::SetWatches2(set),
            Progress::Watches { at, missed },
        ) = (&self.asked.request, std::mem::replace(&mut self.progress, Progress::Start))
        else {
            return Err(ErrorCode::SystemError.into());
        };
        let (mut at, mut missed) = (at, missed);
        for _ in 0..TURN_ROWS {
            let Some((list, path)) = nth_watch(set, at) else {
                self.progress = Progress::Watches { at, missed };
                return Ok(Some(Reply::Empty));
            };
            at += 1;
            let node = self.view.node(path)?;
            let since = match self.asked.mutants.no_catch_up {
                false => set.relative_zxid,
                true => i64::MAX,
            };
            let kind = match (list, &node) {
                (List::Exist, None) => None,
                (List::Exist, Some(_)) => Some(EventType::NodeCreated),
                (List::Data | List::Child, None) => Some(EventType::NodeDeleted),
                (List::Data, Some(node)) => {
                    (node.mzxid > since).then_some(EventType::NodeDataChanged)
                }
                (List::Child, Some(node)) => {
                    (node.pzxid > since).then_some(EventType::NodeChildrenChanged)
                }
            };
            let Some(kind) = kind else { continue };
            let gone = node.is_none();
            let is_newer = node.as_ref().is_some_and(|node| node.mzxid > since);
            // ZooKeeper does not ask whether the client may read the znode here.
            let acl = [].into();
            missed.push(Event { kind, path: path.into(), zxid: -1, acl, since: None });
            // The two lists share a table: what one of them missed, the other may have to hear of.
            let kept = match list {
                List::Data => gone && set.exist.iter().any(|p| p == path),
                List::Exist => !is_newer && set.data.iter().any(|p| p == path),
                List::Child => false,
            };
            if kept {
                continue;
            }
            // What happened to the znode after the view belongs to another watch, if there is one.
            let table = match list {
                List::Child => Table::Child,
                List::Data | List::Exist => Table::Data,
            };
            self.withdraw(table, path);
        }
        self.progress = Progress::Watches { at, missed };
        Ok(None)
    }
}

/// The part of a `getEphemerals` prefix that filters.
fn prefix_of(prefix: &str) -> &str {
    match prefix.trim() {
        "" | "/" => "",
        _ => prefix,
    }
}

#[derive(Clone, Copy)]
enum List {
    Data,
    Exist,
    Child,
}

fn nth_watch(set: &SetWatches, at: usize) -> Option<(List, &str)> {
    let (data, exist) = (set.data.len(), set.exist.len());
    if at < data {
        set.data.get(at).map(|path| (List::Data, path.as_str()))
    } else if at < data + exist {
        set.exist.get(at - data).map(|path| (List::Exist, path.as_str()))
    } else {
        set.child.get(at - data - exist).map(|path| (List::Child, path.as_str()))
    }
}

/// Sets all watches of a client that was away, the one-shot ones tentatively.
fn register(set: &SetWatches, watches: &mut WatchTable, outbox: &Arc<Outbox>, number: u64) {
    for path in set.data.iter().chain(&set.exist) {
        watches.add(Table::Data, path, outbox, STANDARD, number);
    }
    for path in &set.child {
        watches.add(Table::Child, path, outbox, STANDARD, number);
    }
    for path in &set.persistent {
        watches.add(Table::Data, path, outbox, PERSISTENT, number);
        watches.add(Table::Child, path, outbox, PERSISTENT, number);
    }
    for path in &set.recursive {
        watches.add(Table::Data, path, outbox, RECURSIVE, number);
    }
}

/// Answers what is about watches alone and reads nothing; `None` for any other request.
pub(crate) fn watch_op(
    request: &Request,
    watches: &mut WatchTable,
    outbox: &Arc<Outbox>,
) -> Option<Result<Reply, ErrorCode>> {
    let found = |found: bool| if found { Ok(Reply::Empty) } else { Err(ErrorCode::NoWatcher) };
    Some(match request {
        Request::AddWatch { path, mode: 0 } => {
            watches.add(Table::Data, path, outbox, PERSISTENT, 0);
            watches.add(Table::Child, path, outbox, PERSISTENT, 0);
            Ok(Reply::AddWatch(0))
        }
        Request::AddWatch { path, mode: 1 } => {
            watches.add(Table::Data, path, outbox, RECURSIVE, 0);
            Ok(Reply::AddWatch(0))
        }
        Request::AddWatch { .. } => Err(ErrorCode::MarshallingError),
        Request::RemoveWatches { path, kind } => modes_of(*kind).and_then(|modes| {
            let removed = modes
                .into_iter()
                .map(|(table, modes)| watches.remove(table, path, outbox.id, modes));
            found(removed.fold(false, |any, removed| any | removed))
        }),
        Request::CheckWatches { path, kind } => modes_of(*kind).and_then(|modes| {
            let has = |(table, modes)| watches.contains(table, path, outbox.id, modes);
            found(modes.into_iter().any(has))
        }),
        _ => return None,
    })
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
