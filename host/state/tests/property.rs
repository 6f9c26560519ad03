//! Random command streams on two states at once: one in memory with a large cache, one on disk with
//! hardly any cache, reopened and crashed now and then.
//!
//! What must hold after every entry: both gave the same outcomes and have the same meta row, the
//! incremental digest is the recomputed one, and the counters are what a recount gives. The streams
//! are seeded, so that a failure repeats; its seed and index are in the panic's message.

mod native;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use proto::{MultiResult, Reply};
use state::apply::BIRTH;
use state::command::{CreateKind, PluginCommand};
use state::keys::DATA_INLINE_BYTES_MAX;
use state::plugins::{Binding, Build, Mode, ModuleHash, OnFault, PluginLimit};
use state::view::Listing;
use state::znode::Owner;
use state::{
    APPLY_VERSION, Answer, Batch, Change, Command, Fault, FjallStore, Group, Hooks, MemoryStore,
    NoHooks, Op, SettingChange, State, StoreOptions, View, Znode,
};

use native::Native;

const SEEDS: u64 = 6;
const ENTRIES: u64 = 200;
const LARGE_CACHE: usize = 64 << 20;
/// Less than one znode a shard, and a few: much is thrown out as soon as it may be.
const TINY_CACHES: [usize; 2] = [64 * 200, 64 * 700];

/// SplitMix64: the same stream everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

/// Makes entries that mostly mean something, because it looks at the state they will meet.
struct Generator {
    /// Whether there are plugins.
    plugins: bool,
    rng: Rng,
    time_ms: i64,
    /// For each server: its boot and the last number taken from it.
    taken: BTreeMap<u32, (u64, u64)>,
}

type AclRow = (i32, String, String);

fn acl_row(perms: i32, scheme: &str, id: &str) -> AclRow {
    (perms, scheme.to_owned(), id.to_owned())
}

impl Generator {
    fn new(seed: u64) -> Self {
        let (plugins, rng) = (false, Rng(seed));
        Self { plugins, rng, time_ms: 1_700_000_000_000, taken: BTreeMap::new() }
    }

    /// The same, with plugins that are installed, changed and removed all the time.
    fn with_plugins(seed: u64) -> Self {
        Self { plugins: true, ..Self::new(seed) }
    }

    fn binding(&mut self) -> Binding {
        let modules = ["quota", "quota", "deny", "faulty", "faulty", "greedy", "host", "token"];
        let module = self.rng.pick(&modules);
        // Each module under names of its own, so that upgrades are of one kind.
        let name = format!("{module}{}", self.rng.below(2));
        let matches: &[&str] = match (module, self.rng.below(3)) {
            ("quota", _) => &["/tenants/**"],
            ("deny", _) => &["/tenants/a/*/b"],
            (_, 0) => &["/tenants/*/*", "/a/**"],
            (_, 1) => &["/tenants/**"],
            _ => &["/a/*", "/b", "/tenants/*/bad-guard"],
        };
        Binding {
            name,
            module: module.to_owned(),
            mode: self.rng.pick(&[Mode::Enforce, Mode::Enforce, Mode::Warn, Mode::Shadow]),
            priority: self.rng.below(3) as i32,
            matches: matches.iter().map(|text| (*text).to_owned()).collect(),
            ops: Vec::new(),
            reads: Vec::new(),
            schemes: if module == "token" { vec!["tenant".to_owned()] } else { Vec::new() },
            points: Vec::new(),
            on_fault: self.rng.pick(&[OnFault::Deny, OnFault::Allow]),
            override_acl: self.rng.one_in(2),
            instance: None,
            settings: format!("{{\"most\":{}}}", 1 + self.rng.below(9)),
        }
    }

    /// What brings a plugin further, if there is anything.
    fn next_step(&mut self, view: &View) -> Option<PluginCommand> {
        let staged = view.plugins.rows().find_map(|(name, row)| Some((name, row.staged.as_ref()?)));
        if let Some((name, staged)) = staged {
            let (name, generation) = (name.to_owned(), staged.plugin.generation);
            return Some(match staged.reports.get(&0) {
                Some(Ok(exports)) if staged.plugin.binding.check_exports(exports).is_ok() => {
                    PluginCommand::Activate { name, generation, wait_all: true }
                }
                Some(_) => return None,
                None => {
                    let result = Ok(native::exports(&staged.plugin.binding.module));
                    PluginCommand::Report { server: 0, name, generation, result }
                }
            });
        }
        if view.plugins.has_steps() {
            return Some(PluginCommand::Step);
        }
        let binding = self.binding();
        let part = Bytes::from(binding.module.clone());
        let module = ModuleHash::of(&part);
        let bytes = part.len() as u64;
        Some(match view.plugins.modules().get(&module).is_some_and(|module| module.is_whole()) {
            true => PluginCommand::Stage { binding, module, after: None, if_unseen: false },
            false => PluginCommand::Upload { module, bytes, offset: 0, part },
        })
    }

    /// A step in the life of a plugin that mostly means something.
    fn plugin(&mut self, view: &View) -> PluginCommand {
        if !self.rng.one_in(3)
            && let Some(step) = self.next_step(view)
        {
            return step;
        }
        let rows: Vec<_> = view.plugins.rows().collect();
        let name = match rows.is_empty() {
            true => "none".to_owned(),
            false => rows[self.rng.below(rows.len() as u64) as usize].0.to_owned(),
        };
        let row = view.plugins.row(&name);
        let staged = row.and_then(|row| row.staged.as_ref());
        let module = self.rng.pick(&native::MODULES);
        match self.rng.below(20) {
            0..=2 => {
                let whole = Bytes::from(module);
                let (hash, bytes) = (ModuleHash::of(&whole), whole.len() as u64);
                let received = view.plugins.modules().get(&hash).map_or(0, |m| m.received);
                let offset = received.min(bytes - 1);
                let to = if self.rng.one_in(2) { bytes } else { offset + 1 };
                let part = whole.slice(offset as usize..to as usize);
                PluginCommand::Upload { module: hash, bytes, offset, part }
            }
            3..=5 => {
                let binding = self.binding();
                let module = ModuleHash::of(binding.module.as_bytes());
                let if_unseen = self.rng.one_in(4);
                PluginCommand::Stage { binding, module, after: None, if_unseen }
            }
            6..=8 => {
                let (generation, result) = match staged {
                    Some(staged) => {
                        let module = &staged.plugin.binding.module;
                        (staged.plugin.generation, Ok(native::exports(module)))
                    }
                    None => (1, Err("no".to_owned())),
                };
                PluginCommand::Report { server: 0, name, generation, result }
            }
            9..=11 => {
                let generation = staged.map_or(1, |staged| staged.plugin.generation);
                PluginCommand::Activate { name, generation, wait_all: self.rng.one_in(2) }
            }
            12 => {
                let mode = [Mode::Off, Mode::Shadow, Mode::Warn, Mode::Enforce, Mode::Enforce];
                PluginCommand::SetMode { name, mode: self.rng.pick(&mode) }
            }
            13 => PluginCommand::Rollback { name },
            14 if self.rng.one_in(3) => PluginCommand::Remove { name, generation: None },
            _ => PluginCommand::Step,
        }
    }

    fn path(&mut self) -> String {
        if self.rng.one_in(12) {
            let odd =
                ["/", "/zookeeper/quota/a", "/zookeeper/quota", "/x//y", "x", "/a/", "/q/./r"];
            return self.rng.pick(&odd).to_owned();
        }
        if self.rng.one_in(10) {
            let name = self.rng.pick(&["zookeeper_limits", "zookeeper_stats"]);
            return format!("/zookeeper/quota/a/{name}");
        }
        if self.plugins && self.rng.one_in(2) {
            let depth = self.rng.below(3);
            let mut path = format!("/tenants/{}", self.rng.pick(&["a", "b"]));
            for _ in 0..depth {
                let names = ["a", "b", "bad-guard", "bad-observer", "near", "reads", "scans"];
                path = format!("{path}/{}", self.rng.pick(&names));
            }
            return if self.rng.one_in(20) { "/tenants".to_owned() } else { path };
        }
        let depth = 1 + self.rng.below(3);
        (0..depth).map(|_| format!("/{}", self.rng.pick(&["a", "b", "c", "é"]))).collect()
    }

    fn data(&mut self, path: &str) -> Option<Bytes> {
        if path.ends_with("zookeeper_limits") {
            let limit = self.rng.below(12);
            let text = format!("count=3,bytes=-1=;byteHardLimit=-1;countHardLimit={limit}");
            return Some(Bytes::from(text));
        }
        let length = match self.rng.below(6) {
            0 => return None,
            1 => DATA_INLINE_BYTES_MAX + self.rng.below(2000) as usize,
            2 => 0,
            _ => self.rng.below(40) as usize,
        };
        Some(Bytes::from(vec![self.rng.next() as u8; length]))
    }

    fn acl(&mut self) -> Vec<AclRow> {
        match self.rng.below(12) {
            0 => vec![acl_row(31, "digest", "u:hash")],
            1 => vec![acl_row(31, "auth", "")],
            2 => vec![],
            3 => vec![acl_row(self.rng.below(32) as i32, "ip", "10.0.0.0/8")],
            4 => vec![acl_row(31, "nobody", "knows")],
            5 if self.plugins => vec![acl_row(31, "tenant", "x")],
            _ => vec![acl_row(31, "world", "anyone")],
        }
    }

    fn op(&mut self, view: &View, in_multi: bool) -> Op {
        let mut path = self.path();
        // Rather its parent, where that is missing.
        while self.plugins
            && let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| parent.len() > 1)
            && view.node(parent).expect("the store works").is_none()
            && !self.rng.one_in(20)
        {
            path.truncate(parent.len());
        }
        let version = match self.rng.below(4) {
            0 => self.rng.below(3) as i32,
            1 => view.node(&path).expect("the store works").map_or(0, |node| node.version),
            _ => -1,
        };
        match self.rng.below(if in_multi { 18 } else { 24 }) {
            0..=8 => {
                let (kind, flags, ttl_ms) = match self.rng.below(10) {
                    0 => (CreateKind::Container, 4, -1),
                    1 => (
                        CreateKind::Ttl,
                        5 + self.rng.below(2) as i32,
                        1 + self.rng.below(500) as i64,
                    ),
                    2 => (CreateKind::Create2, self.rng.below(9) as i32, -1),
                    _ => (CreateKind::Create, self.rng.below(4) as i32, -1),
                };
                let (data, acl) = (self.data(&path), self.acl());
                Op::Create { kind, path, data, acl, flags, ttl_ms }
            }
            9..=11 => Op::Delete { path, version },
            12..=15 => Op::SetData { data: self.data(&path), path, version },
            16 => Op::Refused(-8),
            17 => Op::Check { path, version },
            18 | 19 => Op::SetAcl { path, acl: self.acl(), version },
            _ => {
                let count = self.rng.below(6);
                Op::Multi((0..count).map(|_| self.op(view, true)).collect())
            }
        }
    }

    fn command(&mut self, view: &View) -> Command {
        let session = 1 + self.rng.below(5) as i64;
        let rows: BTreeMap<_, _> = view.sessions().expect("rows are sound").into_iter().collect();
        let generation = match rows.get(&session) {
            Some(row) if !self.rng.one_in(15) => row.generation,
            _ => self.rng.below(4) as u32,
        };
        let password = [session as u8 + u8::from(self.rng.one_in(6)); 16];
        let timeout_ms = 1000 * (1 + self.rng.below(9) as i32);
        if self.plugins && self.rng.one_in(3) {
            return Command::Plugin(self.plugin(view));
        }
        match self.rng.below(40) {
            0..=5 => Command::OpenSession { session, password, timeout_ms },
            6..=7 => Command::AttachSession { session, password, timeout_ms },
            8 => Command::CloseSession { session, generation: Some(generation) },
            9 => Command::CloseSession { session, generation: None },
            10 => Command::ContinueClose { session },
            11 if self.plugins && self.rng.one_in(2) => {
                let limits = [
                    (PluginLimit::BreakerFaults, 2 + self.rng.below(10)),
                    (PluginLimit::TransactionFuel, 2000 + self.rng.below(2) * 8_000_000),
                    (PluginLimit::Reads, self.rng.below(3)),
                ];
                let (limit, value) = self.rng.pick(&limits);
                Command::ChangeSettings(vec![SettingChange::PluginLimit(limit, value)])
            }
            11 => Command::ChangeSettings(vec![
                SettingChange::TtlNodes(!self.rng.one_in(4)),
                SettingChange::EnforceQuota(!self.rng.one_in(3)),
                SettingChange::SkipAcl(self.rng.one_in(4)),
            ]),
            12..=13 => {
                let due = view.due(self.time_ms, 5).expect("the store works");
                let path = if due.is_empty() { self.path() } else { self.rng.pick(&due) };
                Command::Reap { path }
            }
            _ => Command::Write {
                session,
                generation,
                is_local: self.rng.one_in(6),
                identities: self.rng.below(if self.plugins { 4 } else { 3 }) as u32,
                op: self.op(view, false),
            },
        }
    }

    /// An entry, and for each of its commands whether it is to be skipped.
    fn entry(&mut self, view: &View) -> (Vec<u8>, Vec<bool>) {
        // A leader's clock may stand behind the last one's.
        self.time_ms += self.rng.below(300) as i64 - 50;
        let mut batch = Batch { time_ms: self.time_ms, ..Batch::default() };
        let identities = vec![
            vec![("ip".to_owned(), "10.1.2.3".to_owned())],
            vec![
                ("ip".to_owned(), "127.0.0.1".to_owned()),
                ("digest".to_owned(), "u:hash".to_owned()),
            ],
            vec![("super".to_owned(), String::new())],
            vec![("tenant".to_owned(), "x".to_owned())],
        ];
        let identities = if self.plugins { identities } else { identities[..3].to_vec() };
        let mut skipped = Vec::new();
        for _ in 0..1 + self.rng.below(6) {
            let server = 1 + self.rng.below(2) as u32;
            let known = self.taken.get(&server).copied();
            let (boot, last) = known.unwrap_or((0, 0));
            let odd = self.rng.below(25);
            let (boot, sequence, command) = if known.is_none() || odd == 0 {
                (boot + 1, 1, Command::Origin { replaces: boot })
            } else if odd == 4 {
                // Of an earlier start.
                (boot - 1, 1, Command::Origin { replaces: boot.wrapping_sub(2) })
            } else {
                let command = self.command(view);
                match odd {
                    1 => (boot, last, command),
                    2 => (boot, last + 2, command),
                    3 => (boot - 1, last + 1, command),
                    _ => (boot, last + 1, command),
                }
            };
            let taken = match command {
                Command::Origin { replaces } => replaces == known.map_or(0, |(boot, _)| boot),
                _ => known == Some((boot, sequence - 1)),
            };
            if taken {
                self.taken.insert(server, (boot, sequence));
            }
            batch.groups.push(Group {
                origin: (server, boot),
                first: sequence,
                identities: identities.clone(),
                commands: vec![command],
            });
            skipped.push(!taken);
        }
        (batch.encode(), skipped)
    }
}

type Dump = Vec<(String, Arc<Znode>, Option<Bytes>)>;

/// The whole tree as a view shows it, through the same calls that serve clients.
fn dump(view: &View) -> Dump {
    let mut todo = vec!["/".to_owned()];
    let mut out = Dump::new();
    while let Some(path) = todo.pop() {
        let node = view.node(&path).expect("the store works").expect("children exist");
        let children = view.list(Listing::children(&path)).expect("the store works");
        assert_eq!(children.len(), node.children as usize, "children of {path}");
        let base = if path == "/" { "" } else { &path };
        todo.extend(children.iter().map(|name| format!("{base}/{name}")));
        let data = view.data(&path, &node).expect("the store works");
        out.push((path, node, data));
    }
    out
}

fn check_counts(view: &View, tree: &Dump, at: &str) {
    let ephemerals: Vec<_> = tree
        .iter()
        .filter_map(|(path, node, _)| match node.owner {
            Owner::Session(session) => Some((session, path.clone())),
            _ => None,
        })
        .collect();
    let bytes: usize =
        tree.iter().map(|(path, _, data)| path.len() + data.as_ref().map_or(0, Bytes::len)).sum();
    assert_eq!(view.counts.nodes, tree.len() as u64, "nodes {at}");
    assert_eq!(view.counts.bytes, bytes as u64, "bytes {at}");
    assert_eq!(view.counts.ephemerals, ephemerals.len() as u64, "ephemerals {at}");
    assert_eq!(view.counts.nodes, tree.len() as u64, "{at}");
    // The index of ephemerals holds exactly these, and none of a session that is gone.
    let mut indexed = 0;
    for (session, _) in view.sessions().expect("rows are sound") {
        for path in view.list(Listing::ephemerals(session)).expect("the store works") {
            assert!(ephemerals.contains(&(session, path.clone())), "{path} {at}");
            indexed += 1;
        }
    }
    assert_eq!(indexed, ephemerals.len(), "indexed ephemerals {at}");
}

fn on_disk(dir: &Path, seed: u64, hooks: Box<dyn Hooks>) -> State {
    let store = FjallStore::open(dir, &StoreOptions { cache_bytes: 1 << 20 }).expect("it opens");
    let state = State::open(Box::new(store), hooks, TINY_CACHES[seed as usize % 2]);
    state.expect("it opens").with_gather_bytes(GATHERINGS[seed as usize % 3])
}

/// How much is gathered before it is written: nothing, a few entries, all there is.
const GATHERINGS: [usize; 3] = [0, 2000, 1 << 20];

fn in_memory(store: MemoryStore, hooks: Box<dyn Hooks>) -> State {
    State::open(Box::new(store), hooks, LARGE_CACHE).expect("it opens")
}

/// What a quota that is built has counted is what there is.
fn check_quotas(view: &View, tree: &Dump, at: &str) -> u64 {
    let mut checked = 0;
    for (name, row) in view.plugins.rows() {
        if !name.starts_with("quota") || !row.is_evaluated() || row.build != Build::Done {
            continue;
        }
        let mut counted: BTreeMap<String, i64> = BTreeMap::new();
        for (path, _, data) in tree {
            let Some(rest) = path.strip_prefix("/tenants/") else { continue };
            let tenant = rest.split('/').next().expect("there is a first");
            *counted.entry(format!("n/{tenant}")).or_default() += 1;
            let bytes = data.as_ref().map_or(0, Bytes::len) as i64;
            *counted.entry(format!("b/{tenant}")).or_default() += bytes;
        }
        counted.retain(|_, count| *count != 0);
        let kept = view.kept(name, b"", 100).expect("the store works").into_iter();
        let number = |value: Bytes| i64::from_le_bytes(value[..].try_into().expect("a number"));
        let kept: BTreeMap<String, i64> = kept
            .map(|(key, value)| (String::from_utf8_lossy(&key).into_owned(), number(value)))
            .collect();
        assert_eq!(kept, counted, "{name} {at}");
        let held: usize = kept.keys().map(|key| key.len() + 8).sum();
        assert_eq!(view.counters[&row.id].store_bytes, held as u64, "{name} {at}");
        checked += 1;
    }
    checked
}

fn failed(answer: &Answer) -> bool {
    match answer {
        Answer::Reply(Ok(Reply::Multi(results))) => {
            results.iter().any(|r| matches!(r, MultiResult::Error(_)))
        }
        Answer::Reply(Err(_)) | Answer::Skipped | Answer::NoSession => true,
        _ => false,
    }
}

/// What came about in a run, to see that the streams reach what they are meant to reach.
#[derive(Default)]
struct Seen {
    done: u64,
    rejected: u64,
    multis: (u64, u64),
    closed: u64,
    crashes: u64,
    reopened: u64,
    old_views: u64,
    flushes: u64,
    /// Calls of plugins; quotas that were counted; waits because of this server; faults, quarantines.
    calls: u64,
    quotas: u64,
    waits: u64,
    faults: u64,
    quarantines: u64,
}

#[allow(clippy::disallowed_methods, reason = "what is gathered is written by another thread")]
fn run(seed: u64, mut generator: Generator, seen: &mut Seen) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let mut handle = MemoryStore::default();
    // Each has its own, so that one may fail where the other does not.
    let plugins = generator.plugins;
    let (of_memory, of_disk) = (Native::default(), Native::default());
    let hooks = move |native: &Native| -> Box<dyn Hooks> {
        if plugins { Box::new(native.clone()) } else { Box::new(NoHooks) }
    };
    let mut memory = in_memory(handle.clone(), hooks(&of_memory));
    let mut disk = on_disk(dir.path(), seed, hooks(&of_disk));
    let mut rng = Rng(seed ^ 0x5eed);
    // Every entry, with the digests that followed from it.
    let mut log: Vec<(Vec<u8>, u128, u128)> = Vec::new();
    let mut old: Option<(Arc<View>, Arc<View>, Dump)> = None;
    // What is being written on other threads.
    let mut writers: Vec<std::thread::JoinHandle<()>> = Vec::new();
    for step in 1..=ENTRIES {
        let index = BIRTH.0 + step;
        let term = 1 + step / 50;
        let at = format!("at index {index} of seed {seed}");
        let before = memory.view();
        let (entry, skipped) =
            if rng.one_in(20) { (Vec::new(), Vec::new()) } else { generator.entry(&before) };
        let applied = memory.apply(index, term, &entry).expect("it applies");
        if plugins && rng.one_in(3) {
            // This server fails, and applies nothing; then it goes on.
            of_disk.fails.store(true, Ordering::Relaxed);
            of_disk.is_cold.store(rng.one_in(3), Ordering::Relaxed);
            let meta = disk.meta().clone();
            match disk.apply(index, term, &entry) {
                Err(Fault::Waiting(_)) => {
                    assert_eq!(disk.meta(), &meta, "{at}");
                    of_disk.fails.store(false, Ordering::Relaxed);
                    of_disk.is_cold.store(false, Ordering::Relaxed);
                    seen.waits += 1;
                    assert_eq!(
                        disk.apply(index, term, &entry).expect("it applies"),
                        applied,
                        "{at}"
                    );
                }
                other => assert_eq!(other.expect("it applies"), applied, "{at}"),
            }
            of_disk.fails.store(false, Ordering::Relaxed);
            of_disk.is_cold.store(false, Ordering::Relaxed);
        } else {
            assert_eq!(disk.apply(index, term, &entry).expect("it applies"), applied, "{at}");
        }
        assert_eq!(disk.meta(), memory.meta(), "{at}");
        assert_eq!(memory.recomputed_digest().expect("it reads"), memory.meta().digest, "{at}");

        let mut zxid = before.zxid;
        assert_eq!(applied.outcomes.len(), skipped.len(), "{at}");
        for (outcome, skipped) in applied.outcomes.iter().zip(skipped) {
            assert_eq!(outcome.answer == Answer::Skipped, skipped, "{at}: {outcome:?}");
            // A fault of a plugin is shown, whatever becomes of what it was asked about.
            let is_shown = |change: &Change| matches!(change, Change::DataSet { path, .. } if path.starts_with("/zookeeper/plugins"));
            let kept = outcome.changes.iter().filter(|change| !is_shown(change)).count();
            assert!(!failed(&outcome.answer) || kept == 0, "{at}: {outcome:?}");
            assert!(outcome.zxid >= zxid, "{at}: {outcome:?}");
            zxid = outcome.zxid;
            seen.done += u64::from(!failed(&outcome.answer));
            seen.rejected += u64::from(matches!(outcome.answer, Answer::Reply(Err(_))));
            seen.closed += u64::from(outcome.answer == Answer::Done && !outcome.changes.is_empty());
            if let Answer::Reply(Ok(Reply::Multi(_))) = outcome.answer {
                seen.multis.0 += u64::from(failed(&outcome.answer));
                seen.multis.1 += u64::from(!failed(&outcome.answer));
            }
        }
        if rng.one_in(4) {
            writers.drain(..).for_each(|writer| writer.join().expect("it ends"));
        }
        if let Some(flush) = disk.take_flush(rng.one_in(8)).expect("the store works") {
            seen.flushes += 1;
            writers.push(std::thread::spawn(move || flush.run().expect("the store works")));
        }
        let tree = dump(&memory.view());
        check_counts(&memory.view(), &tree, &at);
        assert_eq!(dump(&disk.view()), tree, "{at}");
        seen.quotas += check_quotas(&memory.view(), &tree, &at);
        let faults = |view: &View| view.counters.values().map(|of| of.faults).sum::<u64>();
        seen.faults += faults(&memory.view()).saturating_sub(faults(&before));
        let quarantined = |view: &View| {
            view.plugins.rows().filter(|(_, row)| row.quarantine.is_some()).count() as u64
        };
        seen.quarantines += quarantined(&memory.view()).saturating_sub(quarantined(&before));
        assert_eq!(disk.view().counters, memory.view().counters, "{at}");
        log.push((entry, memory.meta().digest, memory.meta().history));

        if let Some((of_memory, of_disk, tree)) = &old
            && rng.one_in(2)
        {
            assert_eq!(&dump(of_memory), tree, "an old view {at}");
            assert_eq!(&dump(of_disk), tree, "an old view on disk {at}");
            seen.old_views += 1;
            // What an old view read must not hide what is new.
            assert_eq!(dump(&disk.view()), dump(&memory.view()), "after an old view {at}");
            if rng.one_in(6) {
                old = None;
            }
        } else if old.is_none() && rng.one_in(4) {
            old = Some((memory.view(), disk.view(), tree));
        }
        if rng.one_in(25) {
            // A crash of the one in memory: the entries since its last sync are applied again.
            drop(before);
            old = None;
            handle = handle.crashed();
            memory = in_memory(handle.clone(), hooks(&of_memory));
            let lost = log.len() as u64 - (memory.meta().applied - BIRTH.0);
            for (i, (entry, digest, history)) in
                log.iter().enumerate().skip(log.len() - lost as usize)
            {
                let index = BIRTH.0 + 1 + i as u64;
                let term = 1 + (i as u64 + 1) / 50;
                memory.apply(index, term, entry).expect("it applies");
                let meta = memory.meta();
                assert_eq!((meta.digest, meta.history), (*digest, *history), "replay {at}");
            }
            assert_eq!(memory.meta(), disk.meta(), "after a crash {at}");
            seen.crashes += u64::from(lost > 0);
        } else if rng.one_in(10) {
            memory.sync().expect("it syncs");
        }
        if rng.one_in(30) {
            old = None;
            disk.sync().expect("it syncs");
            writers.drain(..).for_each(|writer| writer.join().expect("it ends"));
            drop(disk);
            disk = on_disk(dir.path(), seed, hooks(&of_disk));
            assert_eq!(disk.meta(), memory.meta(), "reopened {at}");
            assert_eq!(disk.recomputed_digest().expect("it reads"), disk.meta().digest, "{at}");
            seen.reopened += 1;
        }
    }
    assert_eq!(disk.recomputed_digest().expect("it reads"), disk.meta().digest, "seed {seed}");
    seen.calls += of_memory.calls.load(Ordering::Relaxed);
}

#[test]
fn two_states_never_differ() {
    let mut seen = Seen::default();
    (0..SEEDS).for_each(|seed| run(seed, Generator::new(seed), &mut seen));
    // Streams in which everything fails would prove nothing.
    assert!(seen.done > 800, "{} commands had an effect", seen.done);
    assert!(seen.rejected > 300, "{} were rejected", seen.rejected);
    assert!(seen.multis.0 > 30 && seen.multis.1 > 20, "failed, done: {:?}", seen.multis);
    assert!(seen.closed > 20, "{} sessions closed or znodes reaped", seen.closed);
    assert!(seen.flushes > 100, "{} flushes beside what is applied", seen.flushes);
    assert!(seen.crashes > 5 && seen.reopened > 5, "{} {}", seen.crashes, seen.reopened);
    assert!(seen.old_views > 20, "{} old views", seen.old_views);
}

#[test]
fn two_states_with_plugins_never_differ() {
    let mut seen = Seen::default();
    (0..3 * SEEDS).for_each(|seed| run(seed, Generator::with_plugins(seed), &mut seen));
    assert!(seen.done > 800 && seen.rejected > 300, "{} {}", seen.done, seen.rejected);
    println!(
        "calls {} quotas {} waits {} faults {} quarantines {}",
        seen.calls, seen.quotas, seen.waits, seen.faults, seen.quarantines
    );
    assert!(seen.calls > 1000, "{} calls", seen.calls);
    assert!(seen.quotas > 50, "{} quotas that were counted", seen.quotas);
    assert!(seen.waits > 20, "{} waits", seen.waits);
    assert!(seen.faults > 20 && seen.quarantines > 0, "{} {}", seen.faults, seen.quarantines);
    assert!(seen.crashes > 5 && seen.reopened > 5, "{} {}", seen.crashes, seen.reopened);
}

/// Entries, each with the digests that follow it: what a release's program made of them. A release adds
/// its own, by `RECORD_CORPUS=1`, and leaves the earlier ones as they are.
fn corpus() -> PathBuf {
    let name = format!("tests/corpus/apply-{APPLY_VERSION}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn record(path: &Path) {
    let mut state = in_memory(MemoryStore::default(), Box::new(NoHooks));
    let mut generator = Generator::new(77);
    let mut out = Vec::new();
    for index in BIRTH.0 + 1..BIRTH.0 + 150 {
        let (entry, _) = generator.entry(&state.view());
        state.apply(index, 1 + index / 50, &entry).expect("it applies");
        out.extend_from_slice(&(entry.len() as u32).to_be_bytes());
        out.extend_from_slice(&entry);
        out.extend_from_slice(&state.meta().digest.to_be_bytes());
        out.extend_from_slice(&state.meta().history.to_be_bytes());
    }
    std::fs::create_dir_all(path.parent().expect("it is in a directory")).expect("it is made");
    std::fs::write(path, out).expect("it is written");
}

#[test]
fn what_earlier_programs_wrote_is_applied_as_they_did() {
    let path = corpus();
    if std::env::var_os("RECORD_CORPUS").is_some() {
        record(&path);
    }
    let directory = std::fs::read_dir(path.parent().expect("it is in a directory"));
    for file in directory.expect("there is a corpus").map(|file| file.expect("it is listed").path())
    {
        let (mut state, mut index) =
            (in_memory(MemoryStore::default(), Box::new(NoHooks)), BIRTH.0);
        let bytes = std::fs::read(&file).expect("it reads");
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (entry, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            let (digest, after) = after.split_first_chunk::<16>().expect("a digest follows");
            let (history, after) = after.split_first_chunk::<16>().expect("another follows");
            (rest, index) = (after, index + 1);
            state.apply(index, 1 + index / 50, entry).expect("it applies");
            let expected = (u128::from_be_bytes(*digest), u128::from_be_bytes(*history));
            let meta = state.meta();
            assert!(
                (meta.digest, meta.history) == expected,
                "entry {index} of {}: what it does has changed; a change of behaviour needs a new \
                 APPLY_VERSION",
                file.display()
            );
        }
        assert!(index > BIRTH.0 + 100, "{} entries in {}", index - BIRTH.0, file.display());
    }
}
