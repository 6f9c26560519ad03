//! Applies committed log entries to the znode tree.
//!
//! This is the only code that changes replicated state, and it runs on every replica. The same
//! entry on the same prior state must write the same bytes and return the same outcomes.
//!
//! Invariants:
//! * Entries apply in order: `index == applied + 1`.
//! * An entry's writes and the applied index commit in one batch, or not at all.
//! * A rejected command, and an empty entry, advance the applied index all the same.
//! * A fault never advances the applied index; the caller stops the server.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use proto::{Id, Perms};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::acls::{self, AclTable};
use crate::cache::NodeCache;
use crate::change::{Answer, Outcome};
use crate::command::{Batch, Command, Settings};
use crate::fault::Fault;
use crate::hooks::Hooks;
use crate::keys::{self, Keyspace};
use crate::mutants::StateMutants;
use crate::ops::{self, Context, Stop, session};
use crate::quota::{self, QuotaPaths};
use crate::store::Store;
use crate::txn::{self, Txn};
use crate::view::{Counts, View};
use crate::znode::{Data, Owner, RowHash, Znode};

/// The format of the store that this program writes.
const STORE_FORMAT: u32 = 1;
const META_KEY: &[u8] = b"meta";
const FORMAT_KEY: &[u8] = b"format";

/// The log index and term at which every ensemble is born; the first entry has the next index.
pub const BIRTH: (u64, u64) = (1, 1);

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

/// What stands beside the tree, in the same batch as every entry's effects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The last applied log index.
    pub applied: u64,
    /// Its term.
    pub term: u64,
    /// The last zxid.
    pub zxid: i64,
    /// The time of the last batch, in milliseconds since the epoch.
    pub time_ms: i64,
    /// The state digest.
    pub digest: u128,
    /// The history digest.
    pub history: u128,
    /// The raft ids of the voters.
    pub voters: Vec<u64>,
    /// Names the ensemble; 0 before its first command.
    pub cluster_id: u64,
    settings: Settings,
    counts: (u64, u64, u64),
    next_acl: u32,
    /// For each server: its boot, and the last command taken from it.
    origins: BTreeMap<u32, (u64, u64)>,
}

/// What applying one entry produced. Identical on every replica.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Outcome>,
}

/// The replicated state, and the only one who may change it.
pub struct State {
    store: Box<dyn Store>,
    hooks: Box<dyn Hooks>,
    view: Arc<View>,
    /// Views that may still be read, oldest first.
    alive: VecDeque<(u64, Weak<View>)>,
    meta: Meta,
    sessions: session::Sessions,
    quotas: QuotaPaths,
    mutants: StateMutants,
}

impl State {
    /// Opens the state in a store; an empty store becomes the state at [`BIRTH`].
    ///
    /// # Errors
    /// [`Fault::Newer`] if a newer program wrote it, any other [`Fault`] if the store fails.
    pub fn open(
        mut store: Box<dyn Store>,
        hooks: Box<dyn Hooks>,
        cache_bytes: usize,
    ) -> Result<Self, Fault> {
        let acls = Arc::new(AclTable::new());
        let format = store.view().get(Keyspace::Meta, FORMAT_KEY)?;
        let meta = match format {
            None => {
                let meta = birth(store.as_mut(), &acls)?;
                store.sync()?;
                meta
            }
            Some(format) => {
                let found = format.first_chunk::<4>().map_or(u32::MAX, |f| u32::from_be_bytes(*f));
                if found > STORE_FORMAT {
                    return Err(Fault::Newer { what: "the store", found, known: STORE_FORMAT });
                }
                let row = store.view().get(Keyspace::Meta, META_KEY)?;
                let meta = row.and_then(|row| rmp_serde::from_slice(&row).ok());
                meta.ok_or_else(|| damaged_meta("it cannot be decoded"))?
            }
        };
        for (key, row) in store.view().range(Keyspace::Acls, &[0], &[0xff; 5], usize::MAX)? {
            let id = key.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
            let (Some(id), Some(acl)) = (id, acls::decode(&row)) else {
                let why = "an ACL cannot be decoded".to_owned();
                return Err(Fault::Damaged { keyspace: "acls", why });
            };
            acls.insert(id, acl);
        }
        let cache = Arc::new(NodeCache::new(cache_bytes));
        let view = Arc::new(make_view(&meta, store.as_ref(), cache, acls));
        let sessions = view.sessions()?.into_iter().collect();
        let mut quotas = QuotaPaths::default();
        let (from, to) = keys::below_children(quota::ROOT);
        view.scan(Keyspace::Nodes, (from, to), |key, _| {
            keys::path_of(key).iter().for_each(|path| quotas.created(path));
        })?;
        quotas.settle();
        let alive = VecDeque::from([(view.index, Arc::downgrade(&view))]);
        let mutants = StateMutants::default();
        Ok(Self { store, hooks, view, alive, meta, sessions, quotas, mutants })
    }

    /// Plants bugs, for the tests that show that the tests find them. Never called in a server.
    pub fn with_mutants(mut self, mutants: StateMutants) -> Self {
        self.mutants = mutants;
        self
    }

    /// The state as it is now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// The applied index, the digests, the membership.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Makes everything applied so far durable, without the log. Blocks on the disk.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn sync(&self) -> Result<(), Fault> {
        self.store.sync()
    }

    /// A handle that syncs from another thread, where the store can do that.
    pub fn syncer(&self) -> Option<Box<dyn Fn() -> Result<(), Fault> + Send>> {
        self.store.syncer()
    }

    /// Applies the entry at `index`; an empty one (a new leader's) has no batch.
    ///
    /// # Errors
    /// A [`Fault`] leaves the state as it was; the server must stop applying.
    ///
    /// # Panics
    /// If `index` is not the next one: skipping an entry would split the replicas.
    pub fn apply(&mut self, index: u64, term: u64, entry: &[u8]) -> Result<Applied, Fault> {
        assert_eq!(index, self.meta.applied + 1, "entries apply in order");
        let batch = if entry.is_empty() { None } else { Some(Batch::decode(entry)?) };
        let base = Arc::clone(&self.view);
        let mut meta = self.meta.clone();
        let mut txn = Txn::new(&base, meta.next_acl);
        txn.mutants = self.mutants;
        let mut outcomes = Vec::new();
        if let Some(batch) = batch {
            txn.time_ms = txn.time_ms.max(batch.time_ms);
            let identities: Vec<Vec<Id>> = batch.identities.iter().map(|set| ids(set)).collect();
            outcomes.reserve(batch.commands.len());
            for tagged in &batch.commands {
                let origin = batch.origins.get(tagged.origin as usize).copied();
                let origin = origin.ok_or_else(|| damaged_meta("a command without its origin"))?;
                let (server, boot) = origin;
                let mut outcome = Outcome {
                    origin,
                    sequence: tagged.sequence,
                    zxid: txn.zxid,
                    answer: Answer::Skipped,
                    changes: Vec::new(),
                };
                if tagged.command == Command::Origin {
                    meta.origins.insert(server, (boot, tagged.sequence));
                    outcome.answer = Answer::Done;
                } else if tagged.sequence != 0
                    && meta.origins.get(&server) == Some(&(boot, tagged.sequence - 1))
                {
                    meta.origins.insert(server, (boot, tagged.sequence));
                    txn.zxid = next_zxid(txn.zxid, term);
                    outcome.zxid = txn.zxid;
                    outcome.answer = self.run(&mut txn, &mut meta, &identities, &tagged.command)?;
                    outcome.changes = std::mem::take(&mut txn.changes);
                    txn.settle();
                    self.quotas.settle();
                }
                outcomes.push(outcome);
            }
        }
        let (zxid, time_ms) = (txn.zxid, txn.time_ms);
        let finished = txn.finish(meta.digest);
        meta.applied = index;
        meta.term = term;
        meta.zxid = zxid;
        meta.time_ms = time_ms;
        meta.digest = finished.digest;
        meta.history = history(meta.history, entry, meta.digest);
        meta.settings = finished.settings;
        let Counts { nodes, bytes, ephemerals } = finished.counts;
        meta.counts = (nodes, bytes, ephemerals);
        for acl in finished.new_acls {
            self.view.acls.insert(meta.next_acl, acl);
            meta.next_acl += 1;
        }
        let mut writes = finished.writes;
        if self.mutants.applied_apart {
            self.store.commit(std::mem::take(&mut writes))?;
        }
        writes.push((Keyspace::Meta, META_KEY.to_vec(), Some(encode_meta(&meta))));
        self.store.commit(writes)?;
        self.meta = meta;
        self.advance_view(finished.nodes);
        Ok(Applied { outcomes })
    }

    fn run(
        &mut self,
        txn: &mut Txn<'_>,
        meta: &mut Meta,
        identities: &[Vec<Id>],
        command: &Command,
    ) -> Result<Answer, Fault> {
        let hooks = self.hooks.as_mut();
        let (sessions, quotas) = (&mut self.sessions, &mut self.quotas);
        match command {
            Command::Bootstrap { cluster_id, settings } => {
                // Only the first one counts: two founders may both have proposed theirs.
                if meta.cluster_id == 0 {
                    meta.cluster_id = *cluster_id;
                    txn.settings = settings.clone();
                }
                Ok(Answer::Done)
            }
            Command::Origin => Ok(Answer::Done),
            Command::OpenSession { session, password, timeout_ms } => {
                session::open(txn, sessions, *session, *password, *timeout_ms)
            }
            Command::AttachSession { session, password, timeout_ms } => {
                session::attach(txn, sessions, *session, *password, *timeout_ms)
            }
            Command::CloseSession { session, generation } => {
                session::close(txn, sessions, quotas, hooks, *session, *generation)
            }
            Command::ContinueClose { session } => {
                session::go_on_closing(txn, sessions, quotas, hooks, *session)
            }
            Command::Write { session, generation, identities: set, op } => {
                let fenced = session::check(sessions, *session, *generation);
                if let Err(code) = fenced
                    && !(self.mutants.unfenced && code == proto::ErrorCode::SessionMoved)
                {
                    return Ok(Answer::Reply(Err(code)));
                }
                let identities = identities.get(*set as usize).map_or(&[][..], Vec::as_slice);
                let mut cx = Context { session: *session, identities, quotas, hooks };
                match ops::run(txn, &mut cx, op) {
                    Ok(reply) => Ok(Answer::Reply(Ok(reply))),
                    Err(Stop::Rejected(code)) => Ok(Answer::Reply(Err(code))),
                    Err(Stop::Fault(fault)) => Err(fault),
                }
            }
            Command::Reap { path } => {
                ops::reap(txn, quotas, hooks, path)?;
                Ok(Answer::Done)
            }
            Command::ChangeSettings(changes) => {
                let before = txn.settings.clone();
                changes.iter().for_each(|change| txn.settings.change(change));
                Ok(Answer::Settings { before, after: txn.settings.clone() })
            }
        }
    }

    fn advance_view(&mut self, nodes: Vec<(Arc<str>, Option<Arc<Znode>>)>) {
        let (cache, acls) = (Arc::clone(&self.view.cache), Arc::clone(&self.view.acls));
        while self.alive.front().is_some_and(|(_, view)| view.strong_count() == 0) {
            self.alive.pop_front();
        }
        cache.set_oldest(self.alive.front().map_or(self.view.index, |(index, _)| *index));
        for (path, node) in nodes {
            cache.put_written(&path, self.meta.applied, node);
        }
        self.view = Arc::new(make_view(&self.meta, self.store.as_ref(), cache, acls));
        self.alive.push_back((self.view.index, Arc::downgrade(&self.view)));
    }

    /// The state digest, computed afresh over every row. Slow; for tests and for checking.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn recomputed_digest(&self) -> Result<u128, Fault> {
        let mut digest = 0u128;
        for keyspace in Keyspace::ALL {
            if matches!(keyspace, Keyspace::Meta | Keyspace::Data) {
                continue;
            }
            self.view.scan(keyspace, (vec![0], vec![0xff; 9]), |key, row| {
                let value = match keyspace {
                    Keyspace::Nodes => Znode::digest_head(row),
                    _ => row,
                };
                digest = digest.wrapping_add(txn::row_hash(keyspace, key, value));
            })?;
        }
        Ok(digest)
    }
}

fn ids(set: &[(String, String)]) -> Vec<Id> {
    set.iter().map(|(scheme, id)| Id::new(scheme.clone(), id.clone())).collect()
}

/// ZooKeeper's shape, epoch and counter, but a full counter carries instead of overflowing.
fn next_zxid(last: i64, term: u64) -> i64 {
    (last + 1).max(((term as i64) << 32) | 1)
}

fn history(before: u128, entry: &[u8], digest: u128) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&before.to_be_bytes());
    hasher.update(entry);
    hasher.update(&digest.to_be_bytes());
    hasher.digest128()
}

fn encode_meta(meta: &Meta) -> Bytes {
    Bytes::from(rmp_serde::to_vec(meta).expect("the meta row can always be encoded"))
}

fn damaged_meta(why: &str) -> Fault {
    Fault::Damaged { keyspace: "meta", why: why.to_owned() }
}

fn make_view(meta: &Meta, store: &dyn Store, cache: Arc<NodeCache>, acls: Arc<AclTable>) -> View {
    let (nodes, bytes, ephemerals) = meta.counts;
    View {
        index: meta.applied,
        zxid: meta.zxid,
        time_ms: meta.time_ms,
        settings: meta.settings.clone(),
        counts: Counts { nodes, bytes, ephemerals },
        store: store.view(),
        cache,
        acls,
    }
}

/// Writes the tree that every ensemble begins with: the system's znodes, all of zxid 0.
fn birth(store: &mut dyn Store, acls: &AclTable) -> Result<Meta, Fault> {
    let mut digest = 0u128;
    let mut bytes = 0;
    let mut writes = Vec::new();
    let tree = [
        ("/", 1, acls::OPEN, 0),
        ("/zookeeper", 2, acls::OPEN, 0),
        ("/zookeeper/config", 0, acls::READ_ONLY, -1),
        ("/zookeeper/quota", 0, acls::OPEN, 0),
    ];
    for (path, children, acl_id, aversion) in tree {
        let node = Znode {
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            creates: 0,
            aversion,
            children,
            owner: Owner::Persistent,
            acl_id,
            acl: acls.get(acl_id).unwrap_or_else(|| [proto::Acl::world(Perms::ALL)].into()),
            data: Data::Inline(Some(Bytes::new())),
            data_hash: xxhash_rust::xxh3::xxh3_128(&[]),
            row_hash: RowHash::default(),
        };
        let (key, row) = (keys::node(path), node.encode());
        digest =
            digest.wrapping_add(txn::row_hash(Keyspace::Nodes, &key, Znode::digest_head(&row)));
        bytes += path.len() as u64;
        writes.push((Keyspace::Nodes, key, Some(Bytes::from(row))));
    }
    let (applied, term) = BIRTH;
    let meta = Meta {
        applied,
        term,
        zxid: 0,
        time_ms: 0,
        digest,
        history: 0,
        voters: vec![1],
        cluster_id: 0,
        settings: Settings::default(),
        counts: (4, bytes, 0),
        next_acl: acls::FIRST_FREE,
        origins: BTreeMap::new(),
    };
    writes.push((Keyspace::Meta, META_KEY.to_vec(), Some(encode_meta(&meta))));
    let format = Bytes::copy_from_slice(&STORE_FORMAT.to_be_bytes());
    writes.push((Keyspace::Meta, FORMAT_KEY.to_vec(), Some(format)));
    store.commit(writes)?;
    Ok(meta)
}
