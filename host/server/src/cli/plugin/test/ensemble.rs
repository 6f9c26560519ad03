//! A state as servers have it, alone and in memory, with a plugin: what a case runs on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use plugin::Guests;
use proto::{ErrorCode, Id, MultiResult, OpCode, Perms, Reply};
use state::command::{CreateKind, PluginCommand};
use state::hooks::{Check, Credentials};
use state::plugins::{Binding, Exports, ModuleHash, PART_BYTES_MAX, Said};
use state::view::Listing;
use state::{
    APPLY_VERSION, Answer, Batch, Command, Group, Hooks, MemoryStore, Op, Outcome, SettingChange,
    State,
};

use super::case::{Case, Kept, Mode, Step};
use super::keeping::Keeping;
use crate::shell::parse_acl;

/// The time at which cases begin, in milliseconds since the epoch.
const BEGINNING_MS: i64 = 1_700_000_000_000;

/// The origin of all commands, and the server that it is.
const ORIGIN: (u32, u64) = (0, 1);

/// More steps of building than any case needs.
const STEPS_MAX: usize = 10_000;

/// What a plugin has said, or what came of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Came {
    /// `ok`, a code, or `fault`.
    pub(super) what: String,
    /// Of the last thing in the decision log.
    pub(super) reason: String,
    /// What `auth` gave.
    pub(super) ids: Vec<String>,
}

/// What a case comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Transcript {
    /// Why the settings were refused; then there is nothing else.
    pub(super) refused: Option<String>,
    /// One for each step.
    pub(super) steps: Vec<Came>,
    pub(super) tree: BTreeMap<String, String>,
    pub(super) store: BTreeMap<String, Kept>,
}

/// A module that is compiled.
pub(super) struct Compiled<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) hash: ModuleHash,
    pub(super) exports: &'a Exports,
}

pub(super) struct Ensemble {
    state: State,
    sequence: u64,
    time_ms: i64,
    /// The identities of each session.
    sessions: BTreeMap<i64, Vec<(String, String)>>,
    name: String,
}

impl Ensemble {
    /// Runs a case.
    ///
    /// # Errors
    /// If the case makes no sense, or a server could not run it at all.
    pub(super) fn run(
        guests: &Arc<Guests>,
        keeps: bool,
        module: &Compiled<'_>,
        binding: &Binding,
        case: &Case,
    ) -> anyhow::Result<Transcript> {
        let hooks: Box<dyn Hooks> = Box::new(Keeping::new(Arc::clone(guests), keeps));
        let state = State::open(Box::new(MemoryStore::default()), hooks, 1 << 20)?;
        let (name, sessions) = (binding.name.clone(), BTreeMap::new());
        let mut ensemble = Self { state, sequence: 0, time_ms: BEGINNING_MS, sessions, name };
        ensemble.begin(case)?;
        if let Err(why) = ensemble.install(module, binding)? {
            return Ok(Transcript { refused: Some(why), ..Transcript::default() });
        }
        let steps = case.steps.iter().map(|step| ensemble.step(step));
        let steps = steps.collect::<anyhow::Result<_>>()?;
        Ok(Transcript { refused: None, steps, tree: ensemble.tree()?, store: ensemble.store()? })
    }

    fn begin(&mut self, case: &Case) -> anyhow::Result<()> {
        self.apply(Vec::new(), Command::Origin { replaces: 0 })?;
        let settings =
            vec![SettingChange::ApplyVersion(APPLY_VERSION), SettingChange::TtlNodes(true)];
        let answer = self.apply(Vec::new(), Command::ChangeSettings(settings))?.answer;
        if !matches!(answer, Answer::Settings { .. }) {
            bail!("the settings of a new state cannot be changed: {answer:?}");
        }
        for path in case.before.keys() {
            let ancestors = path.match_indices('/').map(|(at, _)| &path[..at]);
            for path in ancestors.filter(|path| !path.is_empty()).chain([path.as_str()]) {
                if self.state.view().node(path)?.is_some() {
                    continue;
                }
                let data = case.before.get(path).map_or("", String::as_str);
                let step = Step {
                    create: Some(path.to_owned()),
                    data: Some(data.to_owned()),
                    ..Step::default()
                };
                let came = self.step(&step)?;
                if came.what != "ok" {
                    bail!("before: {path:?} cannot be created: {}", came.what);
                }
            }
        }
        Ok(())
    }

    /// Brings the binding in, and builds it. The inner error is what is wrong with it.
    fn install(
        &mut self,
        module: &Compiled<'_>,
        binding: &Binding,
    ) -> anyhow::Result<Result<(), String>> {
        let (hash, bytes) = (module.hash, module.bytes.len() as u64);
        for (at, part) in module.bytes.chunks(PART_BYTES_MAX).enumerate() {
            let offset = (at * PART_BYTES_MAX) as u64;
            let part = Bytes::copy_from_slice(part);
            let upload = PluginCommand::Upload { module: hash, bytes, offset, part };
            if let Err(why) = self.plugin(upload)? {
                return Ok(Err(why));
            }
        }
        let stage = PluginCommand::Stage {
            binding: binding.clone(),
            module: hash,
            after: None,
            if_unseen: false,
        };
        if let Err(why) = self.plugin(stage)? {
            return Ok(Err(why));
        }
        let view = self.state.view();
        let staged = view.plugins.to_report(ORIGIN.0);
        let staged = staged.first().context("the binding was staged, and is not")?;
        if let Err(why) = view.configure(staged)? {
            return Ok(Err(why));
        }
        let (server, generation, name) = (ORIGIN.0, staged.generation, self.name.clone());
        let result = Ok(module.exports.clone());
        let report = PluginCommand::Report { server, name: name.clone(), generation, result };
        let activate = PluginCommand::Activate { name, generation, wait_all: true };
        for command in [report, activate] {
            if let Err(why) = self.plugin(command)? {
                return Ok(Err(why));
            }
        }
        for _ in 0..STEPS_MAX {
            if !self.state.view().plugins.has_steps() {
                return Ok(Ok(()));
            }
            if let Err(why) = self.plugin(PluginCommand::Step)? {
                return Ok(Err(why));
            }
        }
        Ok(Err("it is never built: its observer faults on what is there".into()))
    }

    fn plugin(&mut self, command: PluginCommand) -> anyhow::Result<Result<(), String>> {
        match self.apply(Vec::new(), Command::Plugin(command))?.answer {
            Answer::Plugin(done) => Ok(done.map(drop)),
            other => bail!("a plugin's command gave {other:?}"),
        }
    }

    fn apply(
        &mut self,
        identities: Vec<(String, String)>,
        command: Command,
    ) -> anyhow::Result<Outcome> {
        self.sequence += 1;
        let identities = vec![identities];
        let commands = vec![command];
        let group = Group { origin: ORIGIN, first: self.sequence, identities, commands };
        let batch = Batch {
            time_ms: self.time_ms,
            groups: vec![group],
            present: vec![ORIGIN.0],
            supported: APPLY_VERSION,
        };
        let index = self.state.meta().applied + 1;
        let mut applied = self.state.apply(index, 1, &batch.encode())?;
        applied.outcomes.pop().context("an entry of one command has one outcome")
    }

    /// The identities of a session, which is opened if need be.
    fn session(&mut self, session: i64) -> anyhow::Result<Vec<(String, String)>> {
        if let Some(identities) = self.sessions.get(&session) {
            return Ok(identities.clone());
        }
        let open = Command::OpenSession { session, password: [0; 16], timeout_ms: 30_000 };
        self.apply(Vec::new(), open)?;
        let identities = vec![("ip".to_owned(), "127.0.0.1".to_owned())];
        self.sessions.insert(session, identities.clone());
        Ok(identities)
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<Came> {
        let session = step.session.unwrap_or(1);
        let identities = self.session(session)?;
        let said_before = self.decisions();
        let mut given = Vec::new();
        let code = if let Some(path) = &step.get {
            self.read(path, session, &identities)?
        } else if let Some(scheme) = &step.auth {
            match self.authenticate(scheme, step, session, &identities)? {
                Some(ids) => {
                    given = ids;
                    None
                }
                None => Some(ErrorCode::AuthFailed),
            }
        } else if let Some(by) = step.advance_ms {
            self.time_ms += by;
            // Time is what the last entry says.
            self.apply(Vec::new(), Command::Nothing)?;
            None
        } else if let Some(session) = step.end_session {
            self.apply(Vec::new(), Command::CloseSession { session, generation: None })?;
            self.sessions.remove(&session);
            None
        } else if let Some(path) = &step.reap {
            self.apply(Vec::new(), Command::Reap { path: path.clone() })?;
            None
        } else {
            let op = op(step)?;
            let write =
                Command::Write { session, generation: 1, identities: 0, op, is_local: false };
            match self.apply(identities, write)?.answer {
                Answer::Reply(Ok(Reply::Multi(results))) => first_error(&results),
                Answer::Reply(Ok(_)) => None,
                Answer::Reply(Err(code)) => Some(code),
                other => bail!("a write gave {other:?}"),
            }
        };
        let view = self.state.view();
        let said = view.decisions.since(said_before, usize::MAX);
        let last = said.iter().rfind(|said| !matches!(said.said, Said::Line));
        let is_fault = last.is_some_and(|said| matches!(said.said, Said::Fault(_)));
        let what = match code {
            _ if is_fault => "fault".to_owned(),
            None => "ok".to_owned(),
            Some(code) => code.name().to_owned(),
        };
        let reason = last.map(|said| said.reason.clone()).unwrap_or_default();
        Ok(Came { what, reason, ids: given })
    }

    fn read(
        &self,
        path: &str,
        session: i64,
        identities: &[(String, String)],
    ) -> anyhow::Result<Option<ErrorCode>> {
        let view = self.state.view();
        let Some(node) = view.node(path)? else { return Ok(Some(ErrorCode::NoNode)) };
        let identities = ids(identities);
        let check = Check {
            operation: OpCode::GetData as u16,
            path,
            consulted: path,
            permission: Perms::READ,
            entry: None,
            identities: &identities,
        };
        Ok((!view.may(&node.acl, &check, session)?).then_some(ErrorCode::NoAuth))
    }

    /// The ids that credentials are worth, which the session has from now on.
    fn authenticate(
        &mut self,
        scheme: &str,
        step: &Step,
        session: i64,
        identities: &[(String, String)],
    ) -> anyhow::Result<Option<Vec<String>>> {
        let identities = ids(identities);
        let bytes = step.data.as_deref().unwrap_or_default().as_bytes();
        let credentials = Credentials { scheme, bytes, identities: &identities };
        let answer = self.state.view().authenticate(&credentials, session)?;
        let answer = answer.with_context(|| format!("no binding has the scheme {scheme:?}"))?;
        let Ok(given) = answer else { return Ok(None) };
        let known = self.sessions.entry(session).or_default();
        known.extend(given.iter().map(|id| (id.scheme.clone(), id.id.clone())));
        Ok(Some(given.iter().map(|id| id.id.clone()).collect()))
    }

    /// The number of the next decision.
    fn decisions(&self) -> u64 {
        let last = self.state.view().decisions.last(1, |_| true);
        last.first().map_or(0, |decision| decision.number + 1)
    }

    fn tree(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let view = self.state.view();
        let mut tree = BTreeMap::new();
        let mut parents = vec![String::new()];
        while let Some(parent) = parents.pop() {
            for name in view.list(Listing::children(&parent))? {
                let path = format!("{parent}/{name}");
                if path == "/zookeeper" {
                    continue;
                }
                let node = view.node(&path)?.context("a znode that is listed is there")?;
                let data = view.data(&path, &node)?.unwrap_or_default();
                tree.insert(path.clone(), String::from_utf8_lossy(&data).into_owned());
                parents.push(path);
            }
        }
        Ok(tree)
    }

    fn store(&self) -> anyhow::Result<BTreeMap<String, Kept>> {
        let kept = self.state.view().kept(&self.name, b"", usize::MAX)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = |value: &[u8]| match <[u8; 8]>::try_from(value) {
            Ok(counter) => Kept::Counter(i64::from_le_bytes(counter)),
            Err(_) => Kept::Text(text(value)),
        };
        Ok(kept.iter().map(|(key, of)| (text(key), value(of))).collect())
    }
}

fn ids(identities: &[(String, String)]) -> Vec<Id> {
    identities.iter().map(|(scheme, id)| Id::new(scheme.as_str(), id.as_str())).collect()
}

/// The error of the operation because of which a multi failed.
fn first_error(results: &[MultiResult]) -> Option<ErrorCode> {
    results.iter().find_map(|result| match result {
        MultiResult::Error(code) if *code != 0 => ErrorCode::from_i32(*code),
        _ => None,
    })
}

/// The write that a step is.
fn op(step: &Step) -> anyhow::Result<Op> {
    let data = || Some(Bytes::from(step.data.clone().unwrap_or_default()));
    let acl = || -> anyhow::Result<Vec<_>> {
        let acl = parse_acl(step.acl.as_deref().unwrap_or("world:anyone:cdrwa"))?;
        Ok(acl.into_iter().map(|entry| (entry.perms, entry.id.scheme, entry.id.id)).collect())
    };
    Ok(if let Some(path) = &step.create {
        let (kind, flags) = match step.mode {
            Mode::Persistent => (CreateKind::Create, 0),
            Mode::Ephemeral => (CreateKind::Create, 1),
            Mode::PersistentSequential => (CreateKind::Create, 2),
            Mode::EphemeralSequential => (CreateKind::Create, 3),
            Mode::Container => (CreateKind::Container, 4),
            Mode::Ttl => (CreateKind::Ttl, 5),
        };
        let ttl_ms = step.ttl_ms.unwrap_or(-1);
        Op::Create { kind, path: path.clone(), data: data(), acl: acl()?, flags, ttl_ms }
    } else if let Some(path) = &step.set {
        Op::SetData { path: path.clone(), data: data(), version: -1 }
    } else if let Some(path) = &step.delete {
        Op::Delete { path: path.clone(), version: -1 }
    } else if let Some(path) = &step.set_acl {
        Op::SetAcl { path: path.clone(), acl: acl()?, version: -1 }
    } else if let Some(steps) = &step.multi {
        Op::Multi(steps.iter().map(op).collect::<anyhow::Result<_>>()?)
    } else {
        bail!(
            "a step does one of create, set, delete, set-acl, get, multi, auth, end-session, reap and \
             advance-ms: {step:?}"
        );
    })
}
