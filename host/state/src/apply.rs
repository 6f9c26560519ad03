//! Applies committed log entries to the znode tree.
//!
//! This is the only code that changes replicated state, and it runs on every replica. The same
//! entry on the same prior state must write the same bytes and return the same outcomes.
//!
//! Invariants:
//! * Entries apply in order: `index == applied + 1`.
//! * An entry's writes and the applied index reach the store in one batch, or not at all; a batch
//!   holds one or more whole entries.
//! * A rejected command, and an empty entry, advance the applied index all the same.
//! * A fault never advances the applied index; the caller stops the server, or waits for a newer program
//!   if that is what it takes.

mod ahead;
mod birth;
mod meta;
mod opening;
mod rebirth;

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::{Id, Reply};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use self::ahead::Ahead;
pub(crate) use self::meta::{FORMAT_KEY, META_KEY, encode_meta};
pub use self::meta::{Meta, STORE_FORMAT};
use self::opening::in_memory;
use crate::acls::AclTable;
use crate::alive::AliveViews;
use crate::cache::NodeCache;
use crate::change::{Answer, Outcome};
use crate::command::{Batch, Command, Op, SettingChange};
use crate::fault::Fault;
use crate::flush::{Flush, Gathering, PINNED_BYTES_MAX};
use crate::hooks::Hooks;
use crate::keys::Keyspace;
use crate::known::Known;
use crate::mutants::StateMutants;
use crate::ops::{self, Context, Stop, session};
use crate::plugins::{
    Counters, Decisions, Plugin, Ran, Registry, Shadowed, check_grants, needs, znodes,
};
use crate::quota::QuotaPaths;
use crate::recent::Rows;
use crate::snapshot::Source;
use crate::store::{ReadView, Store, Write};
use crate::txn::{self, Changed, Txn};
use crate::view::{Counts, View};

/// The log index and term at which every ensemble is born; the first entry has the next index.
pub const BIRTH: (u64, u64) = (1, 1);

/// The attach generation of a session that was just made.
pub const FIRST_GENERATION: u32 = 1;

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its password.
    pub password: [u8; 16],
    /// Its timeout.
    pub timeout_ms: i32,
    /// Raised by every attach; a command of another generation is refused.
    pub generation: u32,
    /// Whether it is closing: it takes no more commands.
    pub closing: bool,
}

/// What applying one entry produced. Identical on every replica.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Outcome>,
    /// How many operations the commands were.
    pub operations: usize,
    /// Whether a leader had nothing else to say.
    pub is_idle: bool,
    /// What guards in the shadow are to be asked about, off this thread, over the view before the entry
    /// ([`View::shadow`]).
    pub shadowed: Vec<Shadowed>,
}

/// The replicated state, and the only one who may change it.
pub struct State {
    store: Arc<dyn Store>,
    hooks: Arc<dyn Hooks>,
    /// The plugins of which it is known that all that are called are compiled here.
    ready: Arc<Registry>,
    /// Bindings that are put into quarantine before the entry at an index.
    skips: Vec<(String, u64)>,
    /// The store as it was when it was last written, and the last entry that is in it.
    base: Arc<dyn ReadView>,
    base_index: u64,
    /// What is being written.
    writing: Option<Arc<Flush>>,
    /// Whether somebody took it to write it.
    taken: bool,
    /// What was changed since.
    gathering: Gathering,
    gather_bytes_max: usize,
    view: Arc<View>,
    alive: AliveViews,
    meta: Meta,
    sessions: session::Sessions,
    quotas: QuotaPaths,
    mutants: StateMutants,
}

impl State {
    /// The newest apply version that this program knows.
    pub fn knows(&self) -> u32 {
        self.hooks.apply_version()
    }

    /// Gathers no more than about so many bytes before they are written; with 0, each entry is
    /// written by itself.
    pub fn with_gather_bytes(mut self, bytes_max: usize) -> Self {
        self.gather_bytes_max = bytes_max;
        self
    }

    /// Plants bugs, for the tests that show that the tests find them. Never called in a server.
    pub fn with_mutants(mut self, mutants: StateMutants) -> Self {
        self.mutants = mutants;
        self
    }

    /// The next entry that changes a znode changes it wrongly, as if this server's memory had failed,
    /// for the tests that show that this is found. Never called in a server.
    pub fn misapply_once(&mut self) {
        self.mutants.misapply = true;
    }

    /// The store as it was when it was last written, for other servers; it is durable. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn source(&self) -> Result<Source, Fault> {
        self.store.sync()?;
        let meta = Meta::of(self.base.as_ref())?;
        Ok(Source::new(Arc::clone(&self.base), meta))
    }

    /// The state as it is now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// The applied index, the digests, the membership.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Writes everything applied so far to the store and makes it durable. Blocks on the disk.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn sync(&mut self) -> Result<(), Fault> {
        self.begin_flush()?;
        self.end_flush()?;
        self.store.sync()
    }

    /// What there is to write, for another thread to do so; each is given once. One is there when
    /// enough was gathered, with `begin` also if anything was. What nobody takes is written by
    /// [`Self::apply`] before it begins another.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn take_flush(&mut self, begin: bool) -> Result<Option<Arc<Flush>>, Fault> {
        if begin {
            self.begin_flush()?;
        }
        if std::mem::replace(&mut self.taken, true) { Ok(None) } else { Ok(self.writing.clone()) }
    }

    /// The state is of no use any more: what is being written is given to nobody. Nothing is to follow
    /// but [`Self::install`].
    pub fn give_up(&mut self) {
        self.writing.iter().for_each(|flush| flush.give_up());
    }

    /// Whether all that was given to be written is.
    pub fn is_written(&mut self) -> bool {
        self.settle_flush();
        self.writing.is_none()
    }

    /// Begins to gather afresh, once what was gathered before is written.
    fn begin_flush(&mut self) -> Result<(), Fault> {
        if self.meta.applied == self.writing.as_ref().map_or(self.base_index, |w| w.index()) {
            return Ok(());
        }
        self.end_flush()?;
        let number = self.gathering.number + 1;
        let next = Gathering { number, ..Gathering::default() };
        let Gathering { recent, dirty, .. } = std::mem::replace(&mut self.gathering, next);
        let meta = self.meta.clone();
        let (store, view) = (Arc::clone(&self.store), Arc::clone(&self.view));
        let flush = Flush::new(store, view, recent, dirty, meta, self.mutants);
        self.writing = Some(Arc::new(flush));
        self.taken = false;
        Ok(())
    }

    /// Writes what is being written, or waits until another thread has.
    fn end_flush(&mut self) -> Result<(), Fault> {
        if let Some(flush) = &self.writing {
            (self.base, self.base_index) = (flush.write()?, flush.index());
            self.writing = None;
        }
        Ok(())
    }

    /// Reads from the store what is written by now, if that is known without waiting.
    fn settle_flush(&mut self) {
        let written = self.writing.as_ref().and_then(|w| Some((w.written()?, w.index())));
        if let Some(written) = written {
            (self.base, self.base_index) = written;
            self.writing = None;
        }
    }

    /// Puts a binding into quarantine before the entry at `index` is applied, and lets nothing in that entry
    /// switch it on, so that no server's failing at it keeps the entry from being applied: a repair, which has
    /// to be made on every server alike. On one where it was not, digests will differ.
    pub fn skip_binding(&mut self, name: &str, index: u64) {
        self.skips.push((name.to_owned(), index));
    }

    /// The bindings that are skipped at an entry.
    fn skipped(&self, index: u64) -> Vec<String> {
        let here = self.skips.iter().filter(|(_, at)| *at == index);
        here.map(|(name, _)| name.clone()).collect()
    }

    /// What has to be compiled here before the next entry can be applied.
    ///
    /// # Errors
    /// [`Fault::Waiting`] if something is not.
    pub fn is_ready(&mut self) -> Result<(), Fault> {
        let plugins = &self.view.plugins;
        if !Arc::ptr_eq(plugins, &self.ready) {
            let skipped = self.skipped(self.meta.applied + 1);
            let is_called = |plugin: &&Plugin| !skipped.contains(&plugin.binding.name);
            let mut called = plugins.called().filter(is_called);
            called.try_for_each(|plugin| needs(self.hooks.as_ref(), plugin))?;
            self.ready = Arc::clone(plugins);
        }
        Ok(())
    }

    /// Applies the entry at `index`; an empty one (a new leader's) has no batch.
    ///
    /// # Errors
    /// A [`Fault`] leaves the state as it was; the server must stop applying. After [`Fault::Waiting`] it
    /// is to come again.
    ///
    /// # Panics
    /// If `index` is not the next one: skipping an entry would split the replicas.
    pub fn apply(&mut self, index: u64, term: u64, entry: &[u8]) -> Result<Applied, Fault> {
        assert_eq!(index, self.meta.applied + 1, "entries apply in order");
        self.settle_flush();
        let batch = if entry.is_empty() { None } else { Some(Batch::decode(entry)?) };
        self.is_ready()?;
        let applied = self.apply_batch(index, term, entry, batch);
        self.hooks.entry_ends();
        if applied.is_err() && self.meta.applied != index {
            // What is kept beside the rows has seen a part of the entry.
            (self.sessions, self.quotas) = in_memory(&self.view)?;
        }
        applied
    }

    fn apply_batch(
        &mut self,
        index: u64,
        term: u64,
        entry: &[u8],
        batch: Option<Batch>,
    ) -> Result<Applied, Fault> {
        let base = Arc::clone(&self.view);
        self.gathering.forget_replaced(self.alive.look().1);
        let mut meta = self.meta.clone();
        let mut txn = Txn::new(&base, index, (meta.next_acl, meta.history));
        txn.mutants = self.mutants;
        for name in self.skipped(index) {
            if txn.plugins.registry.row(&name).is_some() {
                let why = format!("it was skipped at entry {index}, by a repair");
                txn.plugins.change(&name).change(&name, |row| row.quarantine = Some(why));
            }
            txn.plugins.skip(name);
        }
        let (mut outcomes, mut operations, mut is_idle) = (Vec::new(), 0, false);
        if let Some(batch) = batch {
            txn.time_ms = txn.time_ms.max(batch.time_ms);
            let commands = || batch.groups.iter().flat_map(|group| &group.commands);
            outcomes.reserve(commands().count());
            txn.expect(commands().map(Command::operations).sum());
            let mut ahead = Ahead::new(&batch);
            for group in batch.groups {
                let identities: Vec<Vec<Id>> =
                    group.identities.iter().map(|set| ids(set)).collect();
                let (server, boot) = group.origin;
                for (sequence, command) in (group.first..).zip(group.commands) {
                    ahead.pass(&command, &base.cache);
                    let mut outcome = Outcome {
                        origin: group.origin,
                        sequence,
                        zxid: txn.zxid,
                        answer: Answer::Skipped,
                        changes: Vec::new(),
                    };
                    let taken = meta.origins.get(&server).copied();
                    operations += command.operations();
                    is_idle |= matches!(command, Command::Nothing);
                    if let Command::Conf(step) = command {
                        Arc::make_mut(&mut meta.members).change(step);
                        outcome.answer = Answer::Done;
                    } else if let Command::Origin { replaces } = command {
                        // One that comes again must not begin the numbers again.
                        let known = taken.map_or(0, |(known, _)| known);
                        if known == replaces && known != boot {
                            meta.origins.insert(server, (boot, sequence));
                            outcome.answer = Answer::Done;
                        }
                    } else if sequence != 0 && self.is_next(taken, (boot, sequence)) {
                        meta.origins.insert(server, (boot, sequence));
                        if !matches!(command, Command::Nothing | Command::Admit { .. }) {
                            txn.zxid = next_zxid(txn.zxid, term);
                        }
                        outcome.zxid = txn.zxid;
                        let leader = Leader { present: &batch.present, supported: batch.supported };
                        txn.plugins.begin(outcomes.len() as u32, session_of(&command));
                        txn.fuel_up(operations_of(&command));
                        outcome.answer =
                            self.run(&mut txn, &mut meta, leader, &identities, command)?;
                        znodes::show_changed(&mut txn)?;
                        outcome.changes = std::mem::take(&mut txn.changes);
                        txn.settle();
                        self.quotas.settle();
                    }
                    outcomes.push(outcome);
                }
            }
        }
        let (zxid, time_ms) = (txn.zxid, txn.time_ms);
        if time_ms.div_euclid(1000) != base.time_ms.div_euclid(1000) {
            znodes::show_counters(&mut txn)?;
        }
        txn.put_plugin_rows()?;
        let finished = txn.finish(meta.digest);
        self.mutants.misapply &= !finished.misapplied;
        meta.applied = index;
        meta.term = term;
        meta.zxid = zxid;
        meta.time_ms = time_ms;
        meta.digest = finished.digest;
        let Ran { registry, counters, gone, outcomes: called, decisions, shadowed } =
            finished.plugins;
        meta.history = history(meta.history, entry, meta.digest, called);
        meta.bindings = registry.len() as u32;
        meta.settings = finished.settings;
        let Counts { nodes, bytes, ephemerals } = finished.counts;
        meta.counts = (nodes, bytes, ephemerals);
        for acl in finished.new_acls {
            self.view.acls.insert(meta.next_acl, acl);
            meta.next_acl += 1;
        }
        self.meta = meta;
        self.gathering.bytes += entry.len();
        self.advance_view(finished.nodes, finished.rows, (registry, counters, gone));
        self.view.decisions.remember(decisions);
        if self.gathering.bytes > self.gather_bytes_max
            || self.gathering.pinned_bytes > PINNED_BYTES_MAX
        {
            self.begin_flush()?;
        }
        Ok(Applied { outcomes, operations, is_idle, shadowed })
    }

    /// Whether a command is the next one of its server's boot.
    fn is_next(&self, taken: Option<(u64, u64)>, (boot, sequence): (u64, u64)) -> bool {
        match self.mutants.accept_gap {
            false => taken == Some((boot, sequence - 1)),
            true => taken.is_some_and(|(known, last)| known == boot && last < sequence),
        }
    }

    fn run(
        &mut self,
        txn: &mut Txn<'_>,
        meta: &mut Meta,
        Leader { present, supported }: Leader<'_>,
        identities: &[Vec<Id>],
        command: Command,
    ) -> Result<Answer, Fault> {
        let known = self.hooks.apply_version();
        let (sessions, quotas) = (&mut self.sessions, &mut self.quotas);
        match command {
            Command::Bootstrap { cluster_id, settings } => {
                // Only the first one counts: two founders may both have proposed theirs.
                if meta.cluster_id == 0 {
                    is_known(settings.apply_version, known)?;
                    meta.cluster_id = cluster_id;
                    txn.settings = settings;
                    txn.settings_changed();
                }
                Ok(Answer::Done)
            }
            Command::Admit { server, nonce } => {
                if meta.members.servers.contains_key(&server) {
                    Arc::make_mut(&mut meta.members).admit(server, nonce);
                }
                Ok(Answer::Done)
            }
            Command::Reconfig(asked) => {
                answer(ops::reconfig(txn, None, &mut meta.members, present, &asked))
            }
            Command::Locate(specs) => {
                ops::locate(txn, &mut meta.members, &specs)?;
                Ok(Answer::Done)
            }
            Command::Origin { .. } | Command::Nothing | Command::Conf(_) => Ok(Answer::Done),
            Command::OpenSession { session, password, timeout_ms } => {
                session::open(txn, sessions, session, password, timeout_ms)
            }
            Command::AttachSession { session, password, timeout_ms } => {
                session::attach(txn, sessions, session, password, timeout_ms)
            }
            Command::CloseSession { session, generation } => {
                session::close(txn, sessions, quotas, session, generation)
            }
            Command::ContinueClose { session } => {
                session::go_on_closing(txn, sessions, quotas, session)
            }
            Command::Write { session, generation, is_local, identities: set, op } => {
                let fenced = session::check(sessions, session, generation);
                if let Err(code) = fenced
                    && !is_local
                    && !(self.mutants.unfenced && code == proto::ErrorCode::SessionMoved)
                {
                    return Ok(Answer::Reply(Err(code)));
                }
                let identities = identities.get(set as usize).map_or(&[][..], Vec::as_slice);
                let mut cx = Context { session, is_local, identities, quotas };
                answer(match op {
                    Op::Reconfig(asked) => {
                        ops::reconfig(txn, Some(&cx), &mut meta.members, present, &asked)
                    }
                    op => ops::run(txn, &mut cx, op),
                })
            }
            Command::Reap { path } => {
                ops::reap(txn, quotas, &path)?;
                Ok(Answer::Done)
            }
            Command::ChangeSettings(changes) => {
                let before = txn.settings.clone();
                let version = changes.iter().filter_map(|change| match change {
                    SettingChange::ApplyVersion(version) => Some(*version),
                    _ => None,
                });
                if let Some(version) = version.max() {
                    let now = before.apply_version;
                    if version < now || version > now.max(supported) {
                        return Ok(Answer::VersionRefused { now, supported });
                    }
                    is_known(version, known)?;
                }
                if let Some(why) = changes.iter().find_map(|change| check(change).err()) {
                    return Ok(Answer::SettingsRefused(why));
                }
                changes.iter().for_each(|change| txn.settings.change(change));
                txn.settings_changed();
                Ok(Answer::Settings { before, after: txn.settings.clone() })
            }
            Command::Plugin(command) => {
                Ok(Answer::Plugin(ops::plugin(txn, &meta.members, present, command)?))
            }
        }
    }

    fn advance_view(
        &mut self,
        nodes: Vec<Changed>,
        rows: Vec<Write>,
        (registry, counted, gone): (Arc<Registry>, BTreeMap<u32, Counters>, Vec<u32>),
    ) {
        let View { cache, known, acls, .. } = &*self.view;
        let (cache, known, acls) = (Arc::clone(cache), Arc::clone(known), Arc::clone(acls));
        let (oldest, alive) = self.alive.look();
        cache.set_oldest(oldest.0, oldest.1);
        let index = self.meta.applied;
        self.gathering.put(&cache, alive, index, nodes, rows);
        let recent = self.writing.iter().map(|writing| &writing.recent);
        let recent = recent.chain([&self.gathering.recent]).map(Arc::clone).collect();
        let (base, base_index) = (Arc::clone(&self.base), self.base_index);
        let rows = Rows { index, base, base_index, recent };
        let mut counters = Arc::clone(&self.view.counters);
        if !counted.is_empty() || !gone.is_empty() {
            let counters = Arc::make_mut(&mut counters);
            counters.extend(counted);
            counters.retain(|id, _| !gone.contains(id));
        }
        let (decisions, hooks) = (Arc::clone(&self.view.decisions), Arc::clone(&self.hooks));
        let plugins = PluginParts { registry, counters, decisions, hooks };
        self.view = Arc::new(make_view(&self.meta, rows, cache, known, acls, plugins));
        self.alive.push(&self.view);
    }

    /// The state digest, computed afresh over every row. Slow; for tests and for checking.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn recomputed_digest(&self) -> Result<u128, Fault> {
        let mut digest = 0u128;
        for keyspace in Keyspace::ALL {
            let all = (vec![0], vec![0xff; 9]);
            match keyspace {
                Keyspace::Meta | Keyspace::Data => {}
                Keyspace::Nodes => self.view.each_znode(all, |path, node| {
                    digest = digest.wrapping_add(txn::node_hash(path, node));
                })?,
                _ => self.view.scan(keyspace, all, |key, row| {
                    digest = digest.wrapping_add(txn::row_hash(keyspace, key, row));
                })?,
            }
        }
        Ok(digest)
    }
}

/// Whose command it is; 0 for the server itself.
fn session_of(command: &Command) -> i64 {
    match command {
        Command::Write { session, .. } => *session,
        _ => 0,
    }
}

/// How many operations a command may have, for what plugins may take.
fn operations_of(command: &Command) -> u64 {
    match command {
        Command::CloseSession { .. } | Command::ContinueClose { .. } => {
            session::EPHEMERALS_PER_ENTRY as u64
        }
        command => command.operations() as u64,
    }
}

/// Whether a setting may be changed to this.
fn check(change: &SettingChange) -> Result<(), String> {
    match change {
        SettingChange::PluginLimit(limit, value) => limit.check(*value),
        SettingChange::PluginGrants(grants) => check_grants(grants),
        SettingChange::TtlNodes(_)
        | SettingChange::EnforceQuota(_)
        | SettingChange::SkipAcl(_)
        | SettingChange::SuperDigest(_)
        | SettingChange::ApplyVersion(_) => Ok(()),
    }
}

/// What a leader puts down in an entry of what it alone knows.
struct Leader<'a> {
    present: &'a [u32],
    supported: u32,
}

fn is_known(version: u32, known: u32) -> Result<(), Fault> {
    let newer = Fault::Newer { what: "the ensemble's apply-version", found: version, known };
    if version > known { Err(newer) } else { Ok(()) }
}

fn answer(result: Result<Reply, Stop>) -> Result<Answer, Fault> {
    match result {
        Ok(reply) => Ok(Answer::Reply(Ok(reply))),
        Err(Stop::Rejected(code)) => Ok(Answer::Reply(Err(code))),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

fn ids(set: &[(String, String)]) -> Vec<Id> {
    set.iter().map(|(scheme, id)| Id::new(scheme.clone(), id.clone())).collect()
}

/// ZooKeeper's shape, epoch and counter, but a full counter carries instead of overflowing.
fn next_zxid(last: i64, term: u64) -> i64 {
    (last + 1).max(((term as i64) << 32) | 1)
}

/// `called` is what calls of plugins came to, if there were any.
fn history(before: u128, entry: &[u8], digest: u128, called: Option<u128>) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&before.to_be_bytes());
    hasher.update(entry);
    hasher.update(&digest.to_be_bytes());
    called.iter().for_each(|called| hasher.update(&called.to_be_bytes()));
    hasher.digest128()
}

fn make_view(
    meta: &Meta,
    rows: Rows,
    cache: Arc<NodeCache>,
    known: Arc<Known>,
    acls: Arc<AclTable>,
    plugins: PluginParts,
) -> View {
    let PluginParts { registry, counters, decisions, hooks } = plugins;
    let (nodes, bytes, ephemerals) = meta.counts;
    View {
        index: meta.applied,
        zxid: meta.zxid,
        time_ms: meta.time_ms,
        cluster_id: meta.cluster_id,
        settings: meta.settings.clone(),
        members: Arc::clone(&meta.members),
        counts: Counts { nodes, bytes, ephemerals },
        plugins: registry,
        counters,
        decisions,
        hooks,
        rows,
        cache,
        known,
        acls,
    }
}

/// What of a view is about plugins.
struct PluginParts {
    registry: Arc<Registry>,
    counters: Arc<BTreeMap<u32, Counters>>,
    decisions: Arc<Decisions>,
    hooks: Arc<dyn Hooks>,
}
