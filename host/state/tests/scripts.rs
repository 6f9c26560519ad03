//! Runs the scripts in `testscripts` against a state in memory.
//!
//! A script is a list of commands and what they gave; `UPDATE_GOLDENFILES=1` writes the latter
//! anew, to be read before it is committed. Every log entry a command makes is one line with its
//! zxid (epoch.counter) and answer, then its changes, indented. The commands are those of
//! [`Runner::run_command`]; all that write take `as=SESSION`, `generation=N`, `local=true`,
//! `ids=SCHEME:ID,...`, and `server=N boot=N seq=N` where the origin's numbering is the point.

mod native;
mod printing;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use state::apply::BIRTH;
use state::command::CreateKind;
use state::command::PluginCommand;
use state::hooks::{Check, Credentials};
use state::plugins::{Binding, Mode, ModuleHash, PluginLimit};
use state::snapshot::{Progress, Staging};
use state::view::Listing;
use state::{Answer, Batch, Command, Group, MemoryStore, Op, Outcome, SettingChange, State};

use native::Native;
use printing::{show, stat};

type Failure = Box<dyn Error>;

struct Runner {
    handle: MemoryStore,
    state: State,
    hooks: Native,
    /// The servers that the leader reaches.
    present: Vec<u32>,
    time_ms: i64,
    term: u64,
    sequence: u64,
}

/// The words of a command, whether it stands alone or in a multi.
struct Words {
    name: String,
    positional: std::collections::VecDeque<String>,
    keys: BTreeMap<String, String>,
}

impl Words {
    fn of(command: &goldenscript::Command) -> Self {
        let mut words =
            Self { name: command.name.clone(), positional: [].into(), keys: BTreeMap::new() };
        for argument in &command.args {
            match argument {
                goldenscript::Argument::Positional(value) => {
                    words.positional.push_back(value.clone());
                }
                goldenscript::Argument::KeyValue(key, value) => {
                    words.keys.insert(key.clone(), value.clone());
                }
                other => unreachable!("goldenscript knows no {other:?}"),
            }
        }
        words
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut all = text.split_whitespace();
        let name = all.next().ok_or("an operation of a multi is empty")?.to_owned();
        let mut words = Self { name, positional: [].into(), keys: BTreeMap::new() };
        for word in all {
            match word.split_once('=') {
                Some((key, value)) => {
                    words.keys.insert(key.to_owned(), value.to_owned());
                }
                None => words.positional.push_back(word.to_owned()),
            }
        }
        Ok(words)
    }

    fn next(&mut self) -> Result<String, Failure> {
        Ok(self.positional.pop_front().ok_or_else(|| format!("{}: too few words", self.name))?)
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, Failure> {
        let word = self.next()?;
        Ok(word.parse().map_err(|_| format!("{}: '{word}' is no number", self.name))?)
    }

    fn key<T: std::str::FromStr>(&mut self, key: &str, default: T) -> Result<T, Failure> {
        match self.keys.remove(key) {
            None => Ok(default),
            Some(word) => Ok(word.parse().map_err(|_| format!("{key}={word} is not valid"))?),
        }
    }

    fn acl(&mut self) -> Result<Vec<(i32, String, String)>, Failure> {
        let text = self.key("acl", "31:world:anyone".to_owned())?;
        let mut acl = Vec::new();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let mut parts = entry.splitn(3, ':');
            let perms = parts.next().ok_or("an ACL entry is PERMS:SCHEME:ID")?.parse()?;
            let mut part = || parts.next().unwrap_or_default().to_owned();
            acl.push((perms, part(), part()));
        }
        Ok(acl)
    }

    fn done(&self) -> Result<(), Failure> {
        if self.positional.is_empty() && self.keys.is_empty() {
            return Ok(());
        }
        Err(format!("{}: unknown words {:?} {:?}", self.name, self.positional, self.keys).into())
    }
}

fn data_of(word: Option<String>) -> Option<Bytes> {
    match word {
        Some(word) if word == "null" => None,
        other => Some(Bytes::from(other.unwrap_or_default())),
    }
}

/// The client's write that a command means, if it is one.
fn op(words: &mut Words) -> Result<Option<Op>, Failure> {
    Ok(Some(match words.name.as_str() {
        "create" => {
            let path = words.next()?;
            let data = data_of(words.positional.pop_front());
            let mode: String = words.key("mode", "p".to_owned())?;
            let (kind, flags) = match mode.as_str() {
                "p" => (CreateKind::Create, 0),
                "p2" => (CreateKind::Create2, 0),
                "e" => (CreateKind::Create, 1),
                "ps" => (CreateKind::Create, 2),
                "es" => (CreateKind::Create, 3),
                "container" => (CreateKind::Container, 4),
                "ttl" => (CreateKind::Ttl, 5),
                "ttls" => (CreateKind::Ttl, 6),
                number => (CreateKind::Create, number.parse()?),
            };
            let (acl, ttl_ms) = (words.acl()?, words.key("ttl", -1)?);
            Op::Create { kind, path, data, acl, flags, ttl_ms }
        }
        "delete" => Op::Delete { path: words.next()?, version: words.key("version", -1)? },
        "set" => {
            let path = words.next()?;
            let data = data_of(words.positional.pop_front());
            Op::SetData { path, data, version: words.key("version", -1)? }
        }
        "setacl" => {
            let (path, acl) = (words.next()?, words.acl()?);
            Op::SetAcl { path, acl, version: words.key("version", -1)? }
        }
        "check" => Op::Check { path: words.next()?, version: words.key("version", -1)? },
        "refused" => Op::Refused(words.number()?),
        "multi" => {
            let mut ops = Vec::new();
            while let Some(text) = words.positional.pop_front() {
                let mut words = Words::parse(&text)?;
                ops.push(op(&mut words)?.ok_or_else(|| format!("'{text}' is no write"))?);
                words.done()?;
            }
            Op::Multi(ops)
        }
        _ => return Ok(None),
    }))
}

fn list(words: &mut Words, key: &str) -> Result<Vec<String>, Failure> {
    let text: String = words.key(key, String::new())?;
    Ok(text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

/// What stands in a file as one word.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Failure> {
    Ok(serde_json::from_value(serde_json::Value::String(text.to_owned()))?)
}

fn ids(words: &mut Words) -> Result<Vec<(String, String)>, Failure> {
    let ids: String = words.key("ids", "ip:127.0.0.1".to_owned())?;
    let ids = ids.split(',').filter_map(|id| id.split_once(':'));
    Ok(ids.map(|(scheme, id)| (scheme.to_owned(), id.to_owned())).collect())
}

/// `NAME module=MODULE match=.. ops=.. reads=.. schemes=.. points=.. mode=.. on-fault=.. priority=..
/// settings=..`
fn binding(words: &mut Words) -> Result<Binding, Failure> {
    let words_of = |words: &mut Words, key| list(words, key);
    Ok(Binding {
        name: words.next()?,
        module: words.key("module", String::new())?,
        mode: word(&words.key("mode", "enforce".to_owned())?)?,
        priority: words.key("priority", 0)?,
        matches: list(words, "match")?,
        ops: words_of(words, "ops")?.iter().map(|op| word(op)).collect::<Result<_, _>>()?,
        reads: list(words, "reads")?,
        schemes: list(words, "schemes")?,
        points: words_of(words, "points")?.iter().map(|p| word(p)).collect::<Result<_, _>>()?,
        on_fault: word(&words.key("on-fault", "deny".to_owned())?)?,
        override_acl: words.key("override-acl", false)?,
        instance: words.keys.remove("instance").map(|text| word(&text)).transpose()?,
        settings: words.key("settings", "{}".to_owned())?,
    })
}

/// The step in the life of a plugin that a command means, if it is one.
fn plugin(words: &mut Words) -> Result<Option<PluginCommand>, Failure> {
    Ok(Some(match words.name.as_str() {
        "upload" => {
            let module = words.next()?;
            let (offset, until) = (words.key("from", 0usize)?, words.key("to", module.len())?);
            let given = words.key("as-if", module.clone())?;
            let part = Bytes::copy_from_slice(&module.as_bytes()[offset..until]);
            let (module, bytes) = (ModuleHash::of(given.as_bytes()), module.len() as u64);
            PluginCommand::Upload { module, bytes, offset: offset as u64, part }
        }
        "stage" => {
            let after = words.keys.remove("after").map(|text| text.parse()).transpose()?;
            let if_unseen = words.key("if-unseen", false)?;
            let binding = binding(words)?;
            let module = ModuleHash::of(binding.module.as_bytes());
            PluginCommand::Stage { binding, module, after, if_unseen }
        }
        "report" => {
            let (name, generation) = (words.next()?, words.number()?);
            let result = match words.keys.remove("error") {
                Some(why) => Err(why),
                None => Ok(native::exports(&words.key("module", String::new())?)),
            };
            PluginCommand::Report { server: words.key("of", 0)?, name, generation, result }
        }
        "activate" => {
            let (name, generation) = (words.next()?, words.number()?);
            PluginCommand::Activate { name, generation, wait_all: words.key("all", false)? }
        }
        "mode" => {
            let (name, mode): (String, Mode) = (words.next()?, word(&words.next()?)?);
            PluginCommand::SetMode { name, mode }
        }
        "rollback" => PluginCommand::Rollback { name: words.next()? },
        "remove" => PluginCommand::Remove { name: words.next()?, generation: None },
        "step" => PluginCommand::Step,
        _ => return Ok(None),
    }))
}

impl Runner {
    fn new() -> Self {
        let handle = MemoryStore::default();
        let (hooks, present) = (Native::default(), vec![0]);
        let state = open(&handle, &hooks);
        let (time_ms, term, sequence) = (1000, 1, 1);
        let mut runner = Self { handle, state, hooks, present, time_ms, term, sequence };
        runner
            .apply((1, 1), Vec::new(), 1, vec![Command::Origin { replaces: 0 }])
            .expect("an origin can always start");
        runner
    }

    fn apply(
        &mut self,
        origin: (u32, u64),
        ids: Vec<(String, String)>,
        first: u64,
        commands: Vec<Command>,
    ) -> Result<Vec<Outcome>, Failure> {
        let group = Group { origin, first, identities: vec![ids], commands };
        let (time_ms, present) = (self.time_ms, self.present.clone());
        let batch = Batch { time_ms, groups: vec![group], present, ..Batch::default() };
        let index = self.state.meta().applied + 1;
        let outcomes = self.state.apply(index, self.term, &batch.encode())?.outcomes;
        let (meta, recomputed) = (self.state.meta(), self.state.recomputed_digest()?);
        assert!(index > BIRTH.0 && recomputed == meta.digest, "the digest at {index} is wrong");
        Ok(outcomes)
    }

    fn submit(&mut self, words: &mut Words, command: Command) -> Result<String, Failure> {
        let origin = (words.key("server", 1)?, words.key("boot", 1)?);
        // A number that is given does not move the runner's own.
        let own = self.sequence + 1;
        let sequence = if words.keys.contains_key("seq") {
            words.key("seq", own)?
        } else {
            self.sequence = own;
            own
        };
        let ids = ids(words)?;
        words.done()?;
        let outcomes = match self.apply(origin, ids, sequence, vec![command]) {
            Ok(outcomes) => outcomes,
            // Nothing was applied: the command is as if it had not come.
            Err(fault) if fault.is::<state::Fault>() => {
                self.sequence = own - 1;
                return Ok(format!("waits: {fault}\n"));
            }
            Err(other) => return Err(other),
        };
        Ok(outcomes.iter().map(show).collect())
    }

    fn run_command(&mut self, words: &mut Words) -> Result<String, Failure> {
        if words.name == "many" {
            return self.many(words);
        }
        let session = words.key("as", 1)?;
        let generation = words.key("generation", 1)?;
        if let Some(op) = op(words)? {
            let is_local = words.key("local", false)?;
            let command = Command::Write { session, generation, is_local, identities: 0, op };
            return self.submit(words, command);
        }
        if let Some(command) = plugin(words)? {
            return self.submit(words, Command::Plugin(command));
        }
        if let Some(out) = self.look_at_plugins(words)? {
            return Ok(out);
        }
        let view = self.state.view();
        let command = match words.name.as_str() {
            "open" | "attach" => {
                let (session, timeout_ms) = (words.number()?, words.key("timeout", 4000)?);
                let password = [words.key("password", 7u8)?; 16];
                if words.name == "open" {
                    Command::OpenSession { session, password, timeout_ms }
                } else {
                    Command::AttachSession { session, password, timeout_ms }
                }
            }
            "close" => {
                Command::CloseSession { session: words.number()?, generation: Some(generation) }
            }
            "expire" => Command::CloseSession { session: words.number()?, generation: None },
            "continue" => Command::ContinueClose { session: words.number()? },
            "reap" => Command::Reap { path: words.next()? },
            "origin" => Command::Origin { replaces: words.key("replaces", 0)? },
            "limit" => {
                let name = words.next()?;
                let limit = PluginLimit::named(&name).ok_or("no such limit")?;
                Command::ChangeSettings(vec![SettingChange::PluginLimit(limit, words.number()?)])
            }
            "grants" => {
                let grants = std::iter::from_fn(|| words.positional.pop_front()).collect();
                Command::ChangeSettings(vec![SettingChange::PluginGrants(grants)])
            }
            "settings" => Command::ChangeSettings(vec![
                SettingChange::TtlNodes(words.key("ttl_nodes", true)?),
                SettingChange::EnforceQuota(words.key("enforce_quota", false)?),
                SettingChange::SkipAcl(words.key("skip_acl", false)?),
            ]),
            "time" => {
                self.time_ms = words.number()?;
                return Ok(String::new());
            }
            "term" => {
                self.term = words.number()?;
                return Ok(String::new());
            }
            "restart" => {
                self.state.sync()?;
                let before = self.state.meta().clone();
                self.handle = self.handle.crashed();
                self.state = open(&self.handle, &self.hooks);
                assert_eq!(self.state.meta(), &before, "a restart changes nothing");
                return Ok(String::new());
            }
            "stat" | "get" => {
                let path = words.next()?;
                let Some(node) = view.node(&path)? else { return Ok("NONODE\n".to_owned()) };
                let data = view.data(&path, &node)?;
                return Ok(match words.name.as_str() {
                    "stat" => format!("{}\n", stat(&node.stat())),
                    _ => format!("{data:?}\n"),
                });
            }
            "getacl" => {
                let path = words.next()?;
                let node = view.node(&path)?.ok_or("there is no such znode")?;
                let acl = node.acl.iter();
                return Ok(acl
                    .map(|a| format!("{}:{}:{}\n", a.perms, a.id.scheme, a.id.id))
                    .collect());
            }
            "ls" => return Ok(format!("{:?}\n", view.list(Listing::children(&words.next()?))?)),
            "ephemerals" => {
                return Ok(format!(
                    "{} in all\n",
                    view.list(Listing::ephemerals(words.number()?))?.len()
                ));
            }
            "due" => return Ok(format!("{:?}\n", view.due(self.time_ms, 100)?)),
            "counts" => return Ok(format!("{:?}\n", view.counts)),
            other => return Err(format!("unknown command '{other}'").into()),
        };
        self.submit(words, command)
    }

    /// What shows or sets the plugins' surroundings, without an entry.
    fn look_at_plugins(&mut self, words: &mut Words) -> Result<Option<String>, Failure> {
        let view = self.state.view();
        let mut out = String::new();
        match words.name.as_str() {
            // The whole way, for a script that is about something else.
            "install" => {
                let module = words.keys.get("module").cloned().ok_or("which module?")?;
                let part = Bytes::from(module.clone());
                let (module, bytes) = (ModuleHash::of(&part), part.len() as u64);
                let upload = PluginCommand::Upload { module, bytes, offset: 0, part };
                let binding = binding(words)?;
                let name = binding.name.clone();
                let exports = native::exports(&binding.module);
                let stage = PluginCommand::Stage { binding, module, after: None, if_unseen: false };
                self.do_plugin(upload)?;
                self.do_plugin(stage)?;
                let view = self.state.view();
                let generation = view.plugins.row(&name).map_or(0, |row| row.generations);
                let result = Ok(exports);
                let (server, wait_all) = (0, false);
                self.do_plugin(PluginCommand::Report {
                    server,
                    name: name.clone(),
                    generation,
                    result,
                })?;
                let activate = PluginCommand::Activate { name, generation, wait_all };
                return self.do_plugin(activate).map(Some);
            }
            // Steps until there are no more.
            "build" => {
                let mut steps = 0;
                while self.state.view().plugins.has_steps() {
                    self.do_plugin(PluginCommand::Step)?;
                    steps += 1;
                    assert!(steps < 100, "there is no end of steps");
                }
                writeln!(out, "{steps} steps")?;
            }
            "store" => {
                for (key, value) in view.kept(&words.next()?, b"", 100)? {
                    let value = match <[u8; 8]>::try_from(&value[..]) {
                        Ok(number) => i64::from_le_bytes(number).to_string(),
                        Err(_) => value.escape_ascii().to_string(),
                    };
                    writeln!(out, "{}={value}", key.escape_ascii())?;
                }
            }
            "decisions" => {
                for of in view.decisions.last(words.key("most", 5)?, |_| true) {
                    let (name, path) = (&of.name, &of.path);
                    let (said, effect) = (of.said, of.effect);
                    writeln!(out, "{name} {path} {said:?} {effect:?}: {}", of.reason)?;
                }
            }
            "counters" => {
                let row = view.plugins.row(&words.next()?).ok_or("there is no such binding")?;
                let of = view.counters.get(&row.id).copied().unwrap_or_default();
                let state::plugins::Counters { calls, denials, faults, store_bytes, .. } = of;
                writeln!(
                    out,
                    "calls={calls} denials={denials} faults={faults} bytes={store_bytes}"
                )?;
            }
            "modules" => {
                for module in view.plugins.modules().values() {
                    writeln!(out, "{} of {} bytes", module.received, module.bytes)?;
                }
            }
            // `cold`, `warm`: whether modules are compiled here; `fails`: whether this server can run
            // `host`.
            "cold" => self.hooks.is_cold.store(true, Ordering::Relaxed),
            "warm" => {
                self.hooks.is_cold.store(false, Ordering::Relaxed);
                self.hooks.fails.store(false, Ordering::Relaxed);
            }
            "fails" => self.hooks.fails.store(true, Ordering::Relaxed),
            "present" => {
                self.present.clear();
                while !words.positional.is_empty() {
                    self.present.push(words.number()?);
                }
            }
            // A binding is skipped at the next entry.
            "skip" => {
                let next = self.state.meta().applied + 1;
                self.state.skip_binding(&words.next()?, next);
            }
            // Goes on with what another server would have been sent.
            "snapshot" => {
                self.state.sync()?;
                let (source, before) = (self.state.source()?, self.state.meta().clone());
                let handle = MemoryStore::default();
                let mut staging = Staging::new(Box::new(handle.clone()));
                let staged = loop {
                    let chunk = source.chunk(staging.next().clone(), 100)?;
                    match staging.put(&chunk)? {
                        Progress::Unfinished(more) => staging = more,
                        Progress::Whole(staged) => break staged,
                    }
                };
                self.state.install(staged)?;
                self.state.sync()?;
                assert_eq!(self.state.meta(), &before);
                let recomputed = self.state.recomputed_digest()?;
                assert_eq!(recomputed, before.digest, "the snapshot has all that is digested");
            }
            // Whether a read of a path passes.
            "may" => {
                let (path, ids) = (words.next()?, ids(words)?);
                let ids: Vec<_> =
                    ids.into_iter().map(|(scheme, id)| proto::Id::new(scheme, id)).collect();
                let node = view.node(&path)?.ok_or("there is no such znode")?;
                let check = Check {
                    operation: 4,
                    path: &path,
                    consulted: &path,
                    permission: proto::Perms::READ,
                    entry: None,
                    identities: &ids,
                };
                writeln!(out, "{}", if view.may(&node.acl, &check, 1)? { "yes" } else { "no" })?;
            }
            "authenticate" => {
                let (scheme, bytes) = (words.next()?, words.next()?);
                let (bytes, identities) = (bytes.as_bytes(), &[][..]);
                let credentials = Credentials { scheme: &scheme, bytes, identities };
                writeln!(out, "{:?}", view.authenticate(&credentials, 1)?)?;
            }
            _ => return Ok(None),
        }
        Ok(Some(out))
    }

    fn do_plugin(&mut self, command: PluginCommand) -> Result<String, Failure> {
        self.sequence += 1;
        let outcomes =
            self.apply((1, 1), Vec::new(), self.sequence, vec![Command::Plugin(command)])?;
        Ok(outcomes.iter().map(show).collect())
    }

    /// `many PREFIX COUNT as=SESSION`: that many ephemerals in one entry.
    fn many(&mut self, words: &mut Words) -> Result<String, Failure> {
        let (prefix, count): (String, u64) = (words.next()?, words.number()?);
        let session = words.key("as", 1)?;
        let acl = vec![(31, "world".to_owned(), "anyone".to_owned())];
        let commands = (0..count).map(|i| {
            let path = format!("{prefix}{i:05}");
            let (kind, data, acl) = (CreateKind::Create, None, acl.clone());
            let op = Op::Create { kind, path, data, acl, flags: 1, ttl_ms: -1 };
            Command::Write { session, generation: 1, is_local: false, identities: 0, op }
        });
        let (first, commands) = (self.sequence + 1, commands.collect());
        self.sequence += count;
        let outcomes = self.apply((1, 1), Vec::new(), first, commands)?;
        let made = outcomes.iter().filter(|o| matches!(o.answer, Answer::Reply(Ok(_)))).count();
        Ok(format!("{made} of {count} made\n"))
    }
}

fn open(handle: &MemoryStore, hooks: &Native) -> State {
    let (store, hooks) = (Box::new(handle.clone()), Box::new(hooks.clone()));
    State::open(store, hooks, 1 << 20).expect("memory does not fail")
}

impl goldenscript::Runner for Runner {
    type Command = goldenscript::Command;

    fn run(
        &mut self,
        command: &goldenscript::Command,
        _: &goldenscript::Context,
    ) -> Result<String, Failure> {
        let mut words = Words::of(command);
        let out = self.run_command(&mut words)?;
        words.done()?;
        Ok(out)
    }
}

/// Runs every script of a directory, each on a state of its own.
fn run_all(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts").join(name);
    let mut found = 0;
    for file in std::fs::read_dir(&dir).expect("the scripts' directory can be read") {
        let path = file.expect("it can be listed").path();
        goldenscript::run(&mut Runner::new(), &path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        found += 1;
    }
    assert!(found > 0, "no script in {}", dir.display());
}

#[test]
fn ops() {
    run_all("ops");
}

#[test]
fn sessions() {
    run_all("sessions");
}

#[test]
fn multi() {
    run_all("multi");
}

#[test]
fn quota() {
    run_all("quota");
}

#[test]
fn acl() {
    run_all("acl");
}

#[test]
fn ttl() {
    run_all("ttl");
}

#[test]
fn hooks() {
    run_all("hooks");
}
