//! Seeded streams of entries.

use std::collections::BTreeMap;

use bytes::Bytes;
use state::command::{CreateKind, PluginCommand};
use state::keys::DATA_INLINE_BYTES_MAX;
use state::plugins::{Binding, Mode, ModuleHash, OnFault, PluginLimit};
use state::{Batch, Command, Group, Op, SettingChange, View};

use crate::native;

/// SplitMix64: the same stream everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
}

/// Makes entries that mostly mean something, because it looks at the state they will meet.
pub(crate) struct Generator {
    /// Whether there are plugins.
    pub(crate) plugins: bool,
    pub(crate) rng: Rng,
    pub(crate) time_ms: i64,
    /// For each server: its boot and the last number taken from it.
    pub(crate) taken: BTreeMap<u32, (u64, u64)>,
}

type AclRow = (i32, String, String);

fn acl_row(perms: i32, scheme: &str, id: &str) -> AclRow {
    (perms, scheme.to_owned(), id.to_owned())
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let (plugins, rng) = (false, Rng(seed));
        Self { plugins, rng, time_ms: 1_700_000_000_000, taken: BTreeMap::new() }
    }

    /// The same, with plugins that are installed, changed and removed all the time.
    pub(crate) fn with_plugins(seed: u64) -> Self {
        Self { plugins: true, ..Self::new(seed) }
    }

    pub(crate) fn binding(&mut self) -> Binding {
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
    pub(crate) fn next_step(&mut self, view: &View) -> Option<PluginCommand> {
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
    pub(crate) fn plugin(&mut self, view: &View) -> PluginCommand {
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

    pub(crate) fn path(&mut self) -> String {
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

    pub(crate) fn data(&mut self, path: &str) -> Option<Bytes> {
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

    pub(crate) fn acl(&mut self) -> Vec<AclRow> {
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

    pub(crate) fn op(&mut self, view: &View, in_multi: bool) -> Op {
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

    pub(crate) fn command(&mut self, view: &View) -> Command {
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
    pub(crate) fn entry(&mut self, view: &View) -> (Vec<u8>, Vec<bool>) {
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
