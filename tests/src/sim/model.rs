//! What must be true: a small tree of its own, which runs the log's commands by ZooKeeper's rules.
//!
//! It shares no code with crate `state` but the log's encoding and the wire's values, so that a bug
//! there is a difference here. Slow and simple: maps that share their unchanged parts, so that the
//! tree after every entry is kept.
//!
//! We know three ACLs only: everything for everybody, one under which only those authenticated as
//! [`READER`] may read (and everybody may do anything else), and one under which those may read whom the
//! plugin of a scheme lets.
//!
//! What plugins decide it is told ([`Plugged`]); it knows what must come of that.

mod plugged;
mod reads;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use proto::{Acl, CreateMode, ErrorCode, Id, MultiResult, OpCode, Reply, Stat};
use state::command::CreateKind;
use state::{Batch, Command, Group, Op};

use super::history::Connection;
use super::membership::{CONFIG, Membership};
use super::reference::Plugged;

/// The digest id of those who may read what is private.
pub const READER: &str = "reader:hash";

/// The scheme of an ACL that a plugin decides.
pub const BADGE: &str = "badge";

/// The znodes to which a plugin lets in whom it likes are below this one.
pub const GATED: &str = "/g";

/// In a generation: the session is local to its server, and this is how often it was attached there.
pub const LOCAL: u32 = 1 << 31;

/// How many ephemerals of a closing session one command deletes.
const EPHEMERALS_PER_COMMAND: usize = 2000;

/// A znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its data.
    pub data: Option<Bytes>,
    /// Its stat, but for the number of its children.
    pub stat: Stat,
    /// How many children it ever had.
    creates: i32,
    children: i32,
    /// When it may be reaped: a container, or so many milliseconds after the last set.
    reaped: Option<Reaped>,
    /// Whether only [`READER`] may read it.
    pub private: bool,
    /// Whether those may read it whom the plugin of the scheme lets.
    pub badge: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaped {
    Container,
    Ttl(i64),
}

/// The tree after some entry.
pub type Tree = OrdMap<String, Arc<Node>>;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its password.
    pub password: [u8; 16],
    /// Its timeout.
    pub timeout_ms: i32,
    /// How often it was attached.
    pub generation: u32,
    /// Whether its ephemerals are being deleted.
    pub closing: bool,
}

/// A client's write as the log has it, and what must come of it.
#[derive(Debug, Clone)]
pub struct Done {
    /// What was asked for.
    pub op: Op,
    /// The entry.
    pub index: u64,
    /// The zxid that it took.
    pub zxid: i64,
    /// What the client must be told.
    pub result: Result<Reply, ErrorCode>,
}

/// A session began to close.
#[derive(Debug, Clone, Copy)]
pub struct Closed {
    /// Which.
    pub session: i64,
    /// Its attach generation.
    pub generation: u32,
    /// The server whose command it was, by its id for raft.
    pub server: u64,
}

/// How a znode changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Created.
    Created,
    /// Deleted.
    Deleted,
    /// Its data was set.
    Set,
}

/// One change, as watches see it.
#[derive(Debug, Clone)]
pub struct Changed {
    /// How.
    pub how: How,
    /// Where.
    pub path: String,
    /// Whether only [`READER`] may read it.
    pub private: bool,
    /// Whether only [`READER`] may read its parent.
    pub parent_private: bool,
}

/// The tree after one entry.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The last zxid.
    pub zxid: i64,
    /// The entry.
    pub index: u64,
    /// The tree.
    pub tree: Tree,
    /// When, by the log.
    pub time_ms: i64,
    /// Whether a plugin decides who gets in below [`GATED`].
    pub gate: bool,
}

/// The whole truth so far.
pub struct Model {
    /// The sessions now.
    pub sessions: BTreeMap<i64, Session>,
    /// Every write of a session's generation, in the log's order; see [`LOCAL`].
    pub writes: BTreeMap<(i64, u32), Vec<Done>>,
    /// What changed, by zxid.
    pub changes: Vec<(i64, Vec<Changed>)>,
    /// The tree after each entry, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Sessions that the last entry began to close.
    pub closed: Vec<Closed>,
    /// Whether the last entry went on with a close that did not fit one command.
    pub went_on: u32,
    /// How many multis failed.
    pub multis_failed: u64,
    /// How many znodes were reaped.
    pub reaped: u64,
    /// Who is to take part.
    pub membership: Membership,
    /// How many writes plugins had refused.
    pub refused: u64,
    tree: Tree,
    zxid: i64,
    time_ms: i64,
    /// What plugins decided in this entry.
    plugged: Plugged,
    /// The boot of each server, and the last command that was taken from it.
    origins: BTreeMap<u32, (u64, u64)>,
    /// The last generation of each local session from which there was a write.
    locals: BTreeMap<i64, u32>,
}

/// The parent of a path; the root for the root.
pub fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        None | Some(("", _)) => "/",
        Some((parent, _)) => parent,
    }
}

fn open() -> Arc<Node> {
    Arc::new(Node {
        data: Some(Bytes::new()),
        stat: Stat::default(),
        creates: 0,
        children: 0,
        reaped: None,
        private: false,
        badge: false,
    })
}

impl Default for Model {
    fn default() -> Self {
        let mut tree = Tree::new();
        let system =
            [("/", 1), ("/zookeeper", 2), ("/zookeeper/config", 0), ("/zookeeper/quota", 0)];
        for (path, children) in system {
            let mut node = (*open()).clone();
            node.children = children;
            // The system's znodes were never created, as far as their parents are concerned.
            node.stat.cversion = -children;
            node.stat.aversion = if path.ends_with("config") { -1 } else { 0 };
            tree.insert(path.to_owned(), Arc::new(node));
        }
        let (index, _) = state::apply::BIRTH;
        let birth = Snapshot { zxid: 0, index, tree: tree.clone(), time_ms: 0, gate: false };
        Self {
            sessions: BTreeMap::new(),
            writes: BTreeMap::new(),
            changes: Vec::new(),
            snapshots: vec![birth],
            closed: Vec::new(),
            went_on: 0,
            multis_failed: 0,
            reaped: 0,
            membership: Membership::default(),
            refused: 0,
            tree,
            zxid: 0,
            time_ms: 0,
            plugged: Plugged::default(),
            origins: BTreeMap::new(),
            locals: BTreeMap::new(),
        }
    }
}

impl Model {
    /// The last entry.
    pub fn index(&self) -> u64 {
        self.snapshots.last().map_or(1, |snapshot| snapshot.index)
    }

    /// What became of the write that was sent as number `n` of its connection's, if it is in the log.
    pub fn done(&self, connection: &Connection, n: usize) -> Option<&Done> {
        let of = |generation| self.writes.get(&(connection.session, generation));
        match (n.checked_sub(connection.local_writes), connection.local) {
            (None, Some(local)) => of(local)?.get(n),
            (None, None) => None,
            (Some(n), _) => of(connection.generation?)?.get(n),
        }
    }

    /// The tree after entry `index`, if the log had got so far.
    pub fn after(&self, index: u64) -> Option<&Snapshot> {
        let at = self.snapshots.partition_point(|snapshot| snapshot.index < index);
        self.snapshots.get(at).filter(|snapshot| snapshot.index == index)
    }

    /// The tree that a view with this last zxid shows; `None` if no entry ends there.
    pub fn at_zxid(&self, zxid: i64) -> Option<&Snapshot> {
        let at = self.snapshots.partition_point(|snapshot| snapshot.zxid <= zxid);
        self.snapshots.get(at.checked_sub(1)?).filter(|snapshot| snapshot.zxid == zxid)
    }

    /// The changes in `(after, upto]`.
    pub fn changes_between(&self, after: i64, upto: i64) -> &[(i64, Vec<Changed>)] {
        let from = self.changes.partition_point(|(zxid, _)| *zxid <= after);
        let to = self.changes.partition_point(|(zxid, _)| *zxid <= upto);
        &self.changes[from..to.max(from)]
    }

    /// Runs the entry at `index`, in which plugins decided this.
    ///
    /// # Errors
    /// What of it no server may ever have written.
    pub fn apply(
        &mut self,
        (index, term): (u64, u64),
        payload: &[u8],
        plugged: Plugged,
    ) -> Result<(), String> {
        (self.closed, self.went_on) = (Vec::new(), 0);
        self.plugged = plugged;
        if !payload.is_empty() {
            let batch = Batch::decode(payload).map_err(|fault| fault.to_string())?;
            self.time_ms = self.time_ms.max(batch.time_ms);
            for group in &batch.groups {
                for (sequence, command) in (group.first..).zip(&group.commands) {
                    if !self.takes(group.origin, sequence, command) {
                        continue;
                    }
                    self.zxid = (self.zxid + 1).max(((term as i64) << 32) | 1);
                    let mut changes = Vec::new();
                    self.run(index, group, command, &batch.present, &mut changes)?;
                    if !changes.is_empty() {
                        self.changes.push((self.zxid, changes));
                    }
                }
            }
        }
        if let Some((zxid, refusal)) = self.plugged.refusals.first_key_value() {
            return Err(format!("what could not be refused at {zxid:#x} was: {refusal:?}"));
        }
        self.show();
        let (zxid, tree, time_ms) = (self.zxid, self.tree.clone(), self.time_ms);
        self.snapshots.push(Snapshot { zxid, index, tree, time_ms, gate: self.plugged.gate });
        Ok(())
    }

    /// Whether a command takes effect: each is the next of its server's boot, once.
    fn takes(&mut self, (server, boot): (u32, u64), sequence: u64, command: &Command) -> bool {
        if matches!(command, Command::Conf(_)) {
            // Of an entry of raft's own: of no server.
            return false;
        }
        let last = self.origins.get(&server).copied();
        if let Command::Origin { replaces } = *command {
            let known = last.map_or(0, |(known, _)| known);
            if known == replaces && known != boot {
                self.origins.insert(server, (boot, sequence));
            }
            return false;
        }
        let next = last.is_some_and(|last| last == (boot, sequence.wrapping_sub(1)));
        if next {
            self.origins.insert(server, (boot, sequence));
        }
        next && !matches!(command, Command::Nothing | Command::Admit { .. })
    }

    fn run(
        &mut self,
        index: u64,
        group: &Group,
        command: &Command,
        present: &[u32],
        changes: &mut Vec<Changed>,
    ) -> Result<(), String> {
        match command {
            Command::Origin { .. } | Command::Nothing => {}
            // Who is in the ensemble is not part of the tree.
            Command::Admit { .. } | Command::Conf(_) => {}
            // Only the first one counts: each founder may have proposed its own.
            Command::Bootstrap { .. } => {}
            Command::Locate(specs) => {
                if self.membership.locate(specs, self.zxid) {
                    self.say_who_takes_part(changes);
                }
            }
            Command::Reconfig(asked) => {
                if self.membership.reconfigure(asked, present, self.zxid).is_ok() {
                    self.say_who_takes_part(changes);
                }
            }
            Command::ChangeSettings(_) => {
                return Err("the settings were changed, but nobody asked for it".to_owned());
            }
            // What becomes of them the model is told.
            Command::Plugin(_) => {}
            Command::OpenSession { session, password, timeout_ms } => {
                let (password, timeout_ms) = (*password, *timeout_ms);
                let new = Session { password, timeout_ms, generation: 1, closing: false };
                if self.sessions.insert(*session, new).is_some() {
                    return Err(format!("session {session:#x} was given out twice"));
                }
            }
            Command::AttachSession { session, password, timeout_ms } => {
                if let Some(row) = self.sessions.get_mut(session)
                    && row.password == *password
                    && !row.closing
                {
                    row.generation += 1;
                    row.timeout_ms = *timeout_ms;
                }
            }
            Command::CloseSession { session, generation } => {
                let Some(row) = self.sessions.get_mut(session) else { return Ok(()) };
                if row.closing || generation.is_some_and(|wanted| wanted != row.generation) {
                    return Ok(());
                }
                row.closing = true;
                let (generation, server) = (row.generation, u64::from(group.origin.0) + 1);
                self.closed.push(Closed { session: *session, generation, server });
                self.close(*session, changes);
            }
            Command::ContinueClose { session } => {
                if self.sessions.get(session).is_some_and(|row| row.closing) {
                    self.went_on += 1;
                    self.close(*session, changes);
                }
            }
            Command::Reap { path } => {
                let time_ms = self.time_ms;
                let due = self.tree.get(path).is_some_and(|node| {
                    node.children == 0
                        && match node.reaped {
                            None => false,
                            Some(Reaped::Container) => node.creates != 0,
                            Some(Reaped::Ttl(ms)) => node.stat.mtime + ms < time_ms,
                        }
                });
                if due {
                    self.reaped += 1;
                    self.remove(path, changes);
                }
            }
            Command::Write { session, generation, is_local: true, identities: set, op } => {
                let set = group.identities.get(*set as usize).map_or(&[][..], Vec::as_slice);
                let reader = set.iter().any(|(_, id)| id == READER);
                let last = self.locals.entry(*session).or_default();
                if *last > *generation {
                    return Err(format!(
                        "{op:?} of local session {session:#x}, attach {generation}, after one of \
                         attach {last}"
                    ));
                }
                *last = *generation;
                let result = self.write((*session, true), reader, op, changes);
                let done = Done { op: op.clone(), index, zxid: self.zxid, result };
                self.writes.entry((*session, *generation | LOCAL)).or_default().push(done);
            }
            Command::Write { session, generation, is_local: false, identities: set, op } => {
                let set = group.identities.get(*set as usize).map_or(&[][..], Vec::as_slice);
                let reader = set.iter().any(|(_, id)| id == READER);
                let result = match self.sessions.get(session) {
                    None => Err(ErrorCode::SessionExpired),
                    Some(row) if row.closing => Err(ErrorCode::SessionExpired),
                    Some(row) if row.generation != *generation => Err(ErrorCode::SessionMoved),
                    Some(_) => self.write((*session, false), reader, op, changes),
                };
                let done = Done { op: op.clone(), index, zxid: self.zxid, result };
                self.writes.entry((*session, *generation)).or_default().push(done);
            }
        }
        Ok(())
    }

    fn close(&mut self, session: i64, changes: &mut Vec<Changed>) {
        let all = self.ephemerals(&self.tree, session);
        for path in all.iter().take(EPHEMERALS_PER_COMMAND) {
            self.remove(path, changes);
        }
        if all.len() <= EPHEMERALS_PER_COMMAND {
            self.sessions.remove(&session);
        }
    }

    /// The ephemerals of a session in a tree, in the order of their bytes.
    pub fn ephemerals(&self, tree: &Tree, session: i64) -> Vec<String> {
        let owned = tree.iter().filter(|(_, node)| node.stat.ephemeral_owner == session);
        owned.map(|(path, _)| path.clone()).collect()
    }

    fn write(
        &mut self,
        session: (i64, bool),
        reader: bool,
        op: &Op,
        changes: &mut Vec<Changed>,
    ) -> Result<Reply, ErrorCode> {
        let Op::Multi(ops) = op else {
            let before = self.tree.clone();
            let result = self.single(session, reader, (0, op), changes);
            if result.is_err() {
                self.tree = before;
                changes.clear();
            }
            return result;
        };
        let before = self.tree.clone();
        let mut results = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            match self.single(session, reader, (at, op), changes) {
                Ok(Reply::Path(path)) => results.push(MultiResult::Create(path)),
                Ok(Reply::PathStat(path, stat)) => results.push(MultiResult::Create2(path, stat)),
                Ok(Reply::Stat(stat)) => results.push(MultiResult::SetData(stat)),
                Ok(_) if matches!(op, Op::Delete { .. }) => results.push(MultiResult::Delete),
                Ok(_) => results.push(MultiResult::Check),
                Err(code) => {
                    self.multis_failed += 1;
                    self.tree = before;
                    changes.clear();
                    let mut results = vec![MultiResult::Error(0); at];
                    results.push(MultiResult::Error(code.code()));
                    let rest = MultiResult::Error(ErrorCode::RuntimeInconsistency.code());
                    results.resize(ops.len(), rest);
                    return Ok(Reply::Multi(results));
                }
            }
        }
        Ok(Reply::Multi(results))
    }

    fn say_who_takes_part(&mut self, changes: &mut Vec<Changed>) {
        let text = Bytes::from(self.membership.text());
        let mut node = self.tree.get(CONFIG).map_or_else(open, Arc::clone).as_ref().clone();
        (node.stat.mzxid, node.stat.mtime, node.stat.version) = (self.zxid, self.time_ms, -1);
        node.stat.data_length = text.len() as i32;
        node.data = Some(text);
        self.tree.insert(CONFIG.to_owned(), Arc::new(node));
        let (private, parent_private) = (false, false);
        changes.push(Changed { how: How::Set, path: CONFIG.to_owned(), private, parent_private });
    }

    fn single(
        &mut self,
        (session, is_local): (i64, bool),
        reader: bool,
        (at, op): (usize, &Op),
        changes: &mut Vec<Changed>,
    ) -> Result<Reply, ErrorCode> {
        let version_is = |current: i32, wanted: i32| match wanted {
            -1 => Ok(()),
            _ if wanted == current => Ok(()),
            _ => Err(ErrorCode::BadVersion),
        };
        match op {
            Op::Create { kind, path, data, acl, flags, ttl_ms } => {
                let mode = CreateMode::from_flags(*flags).ok_or(ErrorCode::BadArguments)?;
                if is_local && mode.is_ephemeral() {
                    return Err(ErrorCode::EphemeralOnLocalSession);
                }
                let badge = acl.iter().any(|(_, scheme, _)| scheme == BADGE);
                if badge && self.plugged.invalid_acls.contains(&self.zxid) {
                    return Err(ErrorCode::InvalidAcl);
                }
                let above = parent(path).to_owned();
                let mut over = (**self.tree.get(&above).ok_or(ErrorCode::NoNode)?).clone();
                self.authorize(OpCode::Create, path)?;
                let path = match mode.is_sequential() {
                    true => format!("{path}{:010}", over.creates),
                    false => path.clone(),
                };
                if self.tree.contains_key(&path) {
                    return Err(ErrorCode::NodeExists);
                }
                if over.stat.ephemeral_owner != 0 {
                    return Err(ErrorCode::NoChildrenForEphemerals);
                }
                self.guard(at, OpCode::Create, &path)?;
                let (zxid, now) = (self.zxid, self.time_ms);
                let stat = Stat {
                    czxid: zxid,
                    mzxid: zxid,
                    pzxid: zxid,
                    ctime: now,
                    mtime: now,
                    ephemeral_owner: if mode.is_ephemeral() { session } else { 0 },
                    data_length: data.as_ref().map_or(0, |data| data.len() as i32),
                    ..Stat::default()
                };
                let reaped = match mode {
                    CreateMode::Container => Some(Reaped::Container),
                    _ if mode.is_ttl() => Some(Reaped::Ttl(*ttl_ms)),
                    _ => None,
                };
                let private = is_private(acl);
                let node = Node {
                    data: data.clone(),
                    stat,
                    creates: 0,
                    children: 0,
                    reaped,
                    private,
                    badge,
                };
                self.tree.insert(path.clone(), Arc::new(node));
                over.creates += 1;
                over.children += 1;
                over.stat.cversion += 1;
                over.stat.pzxid = zxid;
                let parent_private = over.private;
                self.tree.insert(above, Arc::new(over));
                let (how, path_) = (How::Created, path.clone());
                changes.push(Changed { how, path: path_, private, parent_private });
                Ok(match kind {
                    CreateKind::Create => Reply::Path(path),
                    _ => Reply::PathStat(path, stat),
                })
            }
            Op::Delete { path, version } => {
                // It is the parent whose ACL is asked, before anything else.
                self.tree.get(parent(path)).ok_or(ErrorCode::NoNode)?;
                self.authorize(OpCode::Delete, path)?;
                let node = Arc::clone(self.tree.get(path).ok_or(ErrorCode::NoNode)?);
                version_is(node.stat.version, *version)?;
                if node.children > 0 {
                    return Err(ErrorCode::NotEmpty);
                }
                self.guard(at, OpCode::Delete, path)?;
                self.remove(path, changes);
                Ok(Reply::Empty)
            }
            Op::SetData { path, data, version } => {
                let mut node = (**self.tree.get(path).ok_or(ErrorCode::NoNode)?).clone();
                self.authorize(OpCode::SetData, path)?;
                version_is(node.stat.version, *version)?;
                self.guard(at, OpCode::SetData, path)?;
                node.data = data.clone();
                node.stat.version += 1;
                (node.stat.mzxid, node.stat.mtime) = (self.zxid, self.time_ms);
                node.stat.data_length = data.as_ref().map_or(0, |data| data.len() as i32);
                let stat = node.shown();
                let (how, private, parent_private) = (How::Set, node.private, false);
                changes.push(Changed { how, path: path.clone(), private, parent_private });
                self.tree.insert(path.clone(), Arc::new(node));
                Ok(Reply::Stat(stat))
            }
            Op::SetAcl { path, acl, version } => {
                let mut node = (**self.tree.get(path).ok_or(ErrorCode::NoNode)?).clone();
                self.authorize(OpCode::SetAcl, path)?;
                version_is(node.stat.aversion, *version)?;
                self.guard(at, OpCode::SetAcl, path)?;
                node.stat.aversion += 1;
                node.private = is_private(acl);
                let stat = node.shown();
                self.tree.insert(path.clone(), Arc::new(node));
                Ok(Reply::Stat(stat))
            }
            Op::Check { path, version } => {
                let node = self.tree.get(path).ok_or(ErrorCode::NoNode)?;
                if node.private && !reader {
                    return Err(ErrorCode::NoAuth);
                }
                version_is(node.stat.version, *version)?;
                Ok(Reply::Empty)
            }
            Op::Refused(code) => Err(ErrorCode::from_i32(*code).unwrap_or(ErrorCode::SystemError)),
            Op::Multi(_) | Op::Reconfig(_) => Err(ErrorCode::MarshallingError),
        }
    }

    fn remove(&mut self, path: &str, changes: &mut Vec<Changed>) {
        let Some(node) = self.tree.remove(path) else { return };
        let above = parent(path).to_owned();
        let mut over = (**self.tree.get(&above).expect("a parent outlives its children")).clone();
        over.children -= 1;
        over.stat.cversion += 1;
        over.stat.pzxid = self.zxid;
        let (private, parent_private) = (node.private, over.private);
        self.tree.insert(above, Arc::new(over));
        let (how, path) = (How::Deleted, path.to_owned());
        changes.push(Changed { how, path, private, parent_private });
    }
}

impl Node {
    /// The stat as clients see it.
    pub fn shown(&self) -> Stat {
        Stat { num_children: self.children, ..self.stat }
    }
}

fn is_private(acl: &[(i32, String, String)]) -> bool {
    acl.iter().any(|(_, _, id)| id == READER)
}

/// The ACLs of everybody and of [`READER`].
pub fn acl(private: bool) -> Vec<Acl> {
    match private {
        false => vec![Acl::world(31)],
        true => vec![Acl::world(30), Acl { perms: 1, id: Id::new("digest", READER) }],
    }
}

/// The ACL that a plugin decides.
pub fn badge_acl() -> Vec<Acl> {
    vec![Acl::world(30), Acl { perms: 1, id: Id::new(BADGE, "any") }]
}
