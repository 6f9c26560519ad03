//! What operators ask of plugins: how they are brought in, switched, and looked at.
//!
//! Each step is a command of the log (`state::PluginCommand`); what is only looked at is answered from
//! the view, and what plugins have said lately from this server's memory.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use state::change::PluginDone;
use state::command::PluginCommand;
use state::plugins::{
    Binding, Build, Counters, Decision as Made, Effect, Mode, ModuleHash, OpKind, PART_BYTES_MAX,
    Pattern, Plugin, Point, Row, Said, is_system,
};
use state::{Command, View};

use super::{Decision, OperatorReply};

/// How many decisions are told at once.
const DECISIONS_MAX: usize = 1000;

/// A request about plugins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginRequest {
    /// A part of a module, of at most [`PART_BYTES_MAX`] bytes; parts come in order.
    UploadModule {
        /// The SHA-256 of all of it, in hex.
        module: String,
        /// The size of all of it.
        bytes: u64,
        /// Where the part begins.
        offset: u64,
        /// The part, in base64.
        part: String,
    },
    /// A binding, with a module that was uploaded, is to be compiled and tried on every server.
    StagePlugin {
        /// What the operator wrote.
        binding: Binding,
        /// The module's SHA-256, in hex.
        module: String,
        /// The generation that it comes after, 0 for none; `None` for whichever there is.
        after: Option<u64>,
        /// Whether to leave it if the same was ever proposed before.
        if_unseen: bool,
    },
    /// What is staged is called from now on.
    ActivatePlugin {
        /// The binding.
        name: String,
        /// Which generation.
        generation: u64,
        /// Whether all voters must be ready, not only those that the leader reaches.
        wait_all: bool,
    },
    /// A binding does something else from now on.
    SetPluginMode {
        /// The binding.
        name: String,
        /// What.
        mode: Mode,
    },
    /// The generation before is called from now on.
    RollbackPlugin {
        /// The binding.
        name: String,
    },
    /// A binding goes, with what its plugin keeps.
    RemovePlugin {
        /// The binding.
        name: String,
        /// Only if this is its generation.
        generation: Option<u64>,
    },
    /// All bindings, and what becomes of them.
    ShowPlugins {},
    /// What plugins said lately on this server; what they let pass is not remembered.
    ShowDecisions {
        /// Of this binding only.
        name: Option<String>,
        /// About this path only.
        path: Option<String>,
        /// Those from this number on, the oldest first; otherwise the last ones, the newest first.
        since: Option<u64>,
        /// How many, at most.
        most: usize,
    },
    /// Who would be asked about an operation, in order.
    ExplainPlugins {
        /// The path.
        path: String,
        /// The operation.
        op: OpKind,
    },
}

/// A binding, as operators see it. Its settings are not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShownPlugin {
    /// Its name.
    pub name: String,
    /// What comes of what it says.
    pub mode: Mode,
    /// Why it is switched off by the servers themselves, if it is.
    pub quarantine: Option<String>,
    /// What is called.
    pub active: Option<ShownGeneration>,
    /// What was called before, and can be again.
    pub previous: Option<ShownGeneration>,
    /// What is to be called next.
    pub staged: Option<ShownStaged>,
    /// How far its observer's store is.
    pub build: ShownBuild,
    /// How often it was called.
    pub calls: u64,
    /// How often it said no.
    pub denials: u64,
    /// How often it did something wrong.
    pub faults: u64,
    /// How much its store holds, in bytes.
    pub store_bytes: u64,
}

/// One generation of a binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShownGeneration {
    /// Counts what was staged under the name, from 1.
    pub generation: u64,
    /// The module's SHA-256, in hex.
    pub module: String,
    /// Where it takes part; nowhere, as far as is known, before it was active.
    pub points: Vec<Point>,
    /// Its place among others of the same point: lower ones are asked first.
    pub priority: i32,
    /// Which paths.
    #[serde(rename = "match")]
    pub matches: Vec<String>,
    /// Which operations; all, if none is named.
    pub ops: Vec<OpKind>,
    /// Which ACL schemes.
    pub schemes: Vec<String>,
}

/// What is staged, and what the servers say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShownStaged {
    /// What would be called.
    pub plugin: ShownGeneration,
    /// By server: `None` if it is ready there, or why it cannot run.
    pub reports: BTreeMap<u32, Option<String>>,
    /// Servers that have not said anything yet.
    pub missing: Vec<u32>,
}

/// How far an observer's store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShownBuild {
    /// It holds what follows from the tree, or there is none.
    Done,
    /// What it held is being deleted.
    Clearing,
    /// It is told of the znodes that are there.
    Walking,
}

/// Something that a plugin said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShownDecision {
    /// Counts what this server has remembered, from 0.
    pub number: u64,
    /// The transaction, or the view that was read.
    pub zxid: i64,
    /// Its time, in milliseconds since the epoch.
    pub time_ms: i64,
    /// The binding.
    pub name: String,
    /// Its generation.
    pub generation: u64,
    /// Where it was asked.
    pub point: Point,
    /// About which operation, by the protocol's number.
    pub operation: u16,
    /// About which path.
    pub path: String,
    /// Whose session, 0 for the server itself.
    pub session: i64,
    /// What it said: `deny CODE`, `fault KIND`, or `line`.
    pub said: String,
    /// What came of that: `refused`, `passed`, `shadow` or `stale`.
    pub effect: String,
    /// Why.
    pub reason: String,
}

/// Who would be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Asked {
    /// At which point.
    pub point: Point,
    /// The binding.
    pub name: String,
    /// Its pattern that matches, or `scheme NAME` of an entry of the znode's ACL.
    pub by: String,
    /// What comes of what it says.
    pub mode: Mode,
    /// Why it would not be asked all the same, if so.
    pub but: Option<String>,
}

fn hash(hex: &str) -> Result<ModuleHash, String> {
    let digit = |at: usize| hex.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digit).collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(ModuleHash).ok_or_else(|| {
        format!("expected the SHA-256 of a module, 64 hexadecimal digits, got {hex:?}")
    })
}

/// Decides what becomes of such a request.
pub(super) fn decide(request: PluginRequest, view: &View) -> Result<Decision, String> {
    let command = match request {
        PluginRequest::UploadModule { module, bytes, offset, part } => {
            let part = STANDARD.decode(part).map_err(|e| format!("`part` is no base64: {e}"))?;
            if part.len() > PART_BYTES_MAX {
                return Err(format!(
                    "a part of {} bytes; at most {PART_BYTES_MAX} are allowed",
                    part.len()
                ));
            }
            PluginCommand::Upload { module: hash(&module)?, bytes, offset, part: Bytes::from(part) }
        }
        PluginRequest::StagePlugin { binding, module, after, if_unseen } => {
            PluginCommand::Stage { binding, module: hash(&module)?, after, if_unseen }
        }
        PluginRequest::ActivatePlugin { name, generation, wait_all } => {
            PluginCommand::Activate { name, generation, wait_all }
        }
        PluginRequest::SetPluginMode { name, mode } => PluginCommand::SetMode { name, mode },
        PluginRequest::RollbackPlugin { name } => PluginCommand::Rollback { name },
        PluginRequest::RemovePlugin { name, generation } => {
            PluginCommand::Remove { name, generation }
        }
        PluginRequest::ShowPlugins {} => {
            let plugins = shown(view);
            return Ok(Decision::Reply(OperatorReply::Plugins { plugins }));
        }
        PluginRequest::ShowDecisions { name, path, since, most } => {
            let (next, decisions) = decisions(view, &name, &path, since, most.min(DECISIONS_MAX));
            return Ok(Decision::Reply(OperatorReply::Decisions { next, decisions }));
        }
        PluginRequest::ExplainPlugins { path, op } => {
            proto::path::validate(&path)
                .map_err(|_| format!("expected a path such as /a/b, got {path:?}"))?;
            return Ok(Decision::Reply(OperatorReply::Explained {
                asked: explain(view, &path, op)?,
            }));
        }
    };
    Ok(Decision::Command(Command::Plugin(command)))
}

/// The answer to a command that is in the log.
pub(super) fn answer(result: Result<PluginDone, String>) -> OperatorReply {
    match result {
        Ok(PluginDone::Received(bytes)) => OperatorReply::ModuleReceived { bytes },
        Ok(PluginDone::Staged(generation)) => OperatorReply::PluginStaged { generation },
        Ok(PluginDone::Active(generation)) => OperatorReply::PluginActive { generation },
        Ok(PluginDone::Done | PluginDone::Stepped(_)) => OperatorReply::PluginChanged {},
        Err(why) => OperatorReply::Refused { why },
    }
}

fn shown(view: &View) -> Vec<ShownPlugin> {
    let there = view.plugins.rows().filter(|(_, row)| row.is_there());
    let show = |(name, row): (&str, &Row)| {
        let counters = view.counters.get(&row.id).copied();
        show_row(view, name, row, &counters.unwrap_or_default())
    };
    there.map(show).collect()
}

fn show_row(view: &View, name: &str, row: &Row, counters: &Counters) -> ShownPlugin {
    let voters: Vec<u32> =
        view.members.voters.iter().filter_map(|id| view.members.server_of(*id)).collect();
    let staged = row.staged.as_ref().map(|staged| ShownStaged {
        plugin: generation(&staged.plugin),
        reports: staged
            .reports
            .iter()
            .map(|(server, report)| (*server, report.as_ref().err().cloned()))
            .collect(),
        missing: voters.into_iter().filter(|id| !staged.reports.contains_key(id)).collect(),
    });
    ShownPlugin {
        name: name.to_owned(),
        mode: row.mode,
        quarantine: row.quarantine.clone(),
        active: row.active.as_ref().map(generation),
        previous: row.previous.as_ref().map(generation),
        staged,
        build: match row.build {
            Build::Done => ShownBuild::Done,
            Build::Clear => ShownBuild::Clearing,
            Build::Walk(_) => ShownBuild::Walking,
        },
        calls: counters.calls,
        denials: counters.denials,
        faults: counters.faults,
        store_bytes: counters.store_bytes,
    }
}

fn generation(plugin: &Plugin) -> ShownGeneration {
    let binding = &plugin.binding;
    ShownGeneration {
        generation: plugin.generation,
        module: plugin.module.to_string(),
        points: plugin.points(),
        priority: binding.priority,
        matches: binding.matches.clone(),
        ops: binding.ops.clone(),
        schemes: binding.schemes.clone(),
    }
}

/// Those that are asked for, and the number after the last that is remembered.
fn decisions(
    view: &View,
    name: &Option<String>,
    path: &Option<String>,
    since: Option<u64>,
    most: usize,
) -> (u64, Vec<ShownDecision>) {
    let holds = |made: &Made| {
        name.as_ref().is_none_or(|name| *name == made.name)
            && path.as_ref().is_none_or(|path| *path == made.path)
    };
    let last = view.decisions.last(1, |_| true);
    let next = last.first().map_or(0, |made| made.number + 1);
    let found = match since {
        None => view.decisions.last(most, holds),
        Some(since) => {
            let mut found = view.decisions.since(since, usize::MAX);
            found.retain(holds);
            found.truncate(most);
            found
        }
    };
    (next, found.into_iter().map(show_decision).collect())
}

fn show_decision(made: Made) -> ShownDecision {
    ShownDecision {
        number: made.number,
        zxid: made.zxid,
        time_ms: made.time_ms,
        name: made.name,
        generation: made.generation,
        point: made.point,
        operation: made.operation,
        path: made.path,
        session: made.session,
        said: match made.said {
            Said::Deny(code) => format!("deny {}", code.code()),
            Said::Fault(kind) => format!("fault {kind}"),
            Said::Line => "line".to_owned(),
        },
        effect: match made.effect {
            Effect::Refused => "refused",
            Effect::Passed => "passed",
            Effect::Shadow => "shadow",
            Effect::Stale => "stale",
        }
        .to_owned(),
        reason: made.reason,
    }
}

/// Who is asked about an operation: authorizers, guards, observers; each in order of priority and name.
fn explain(view: &View, path: &str, op: OpKind) -> Result<Vec<Asked>, String> {
    let node = view.node(path).map_err(|fault| fault.to_string())?;
    let acl: Vec<String> =
        node.iter().flat_map(|n| n.acl.iter().map(|a| a.id.scheme.clone())).collect();
    let mut rows: Vec<(&str, &Row, &Plugin)> = view
        .plugins
        .rows()
        .filter_map(|(name, row)| Some((name, row, row.active.as_ref()?)))
        .collect();
    rows.sort_by_key(|(name, _, plugin)| (plugin.binding.priority, *name));
    let mut asked = Vec::new();
    for point in [Point::Authorizer, Point::Guard, Point::Observer] {
        for (name, row, plugin) in &rows {
            let binding = &plugin.binding;
            let matches = |text: &&String| Pattern::parse(text).is_ok_and(|p| p.matches(path));
            let pattern = binding.matches.iter().find(matches);
            let takes = binding.ops.is_empty() || binding.ops.contains(&op);
            let by_path = pattern.filter(|_| takes).cloned();
            let scheme = binding.schemes.iter().find(|scheme| acl.contains(scheme));
            let by_scheme =
                scheme.filter(|_| point == Point::Authorizer).map(|s| format!("scheme {s}"));
            let only_changes =
                point != Point::Authorizer && matches!(op, OpKind::Check | OpKind::Read);
            let Some(by) = by_path.or(by_scheme).filter(|_| plugin.points().contains(&point))
            else {
                continue;
            };
            if only_changes {
                continue;
            }
            let but = match (&row.quarantine, row.mode) {
                (Some(why), _) => Some(format!("it is in quarantine: {why}")),
                (None, Mode::Off) => Some("it is off".to_owned()),
                (None, _) if is_system(path) => {
                    Some("nothing below /zookeeper is subject to plugins".to_owned())
                }
                _ => None,
            };
            asked.push(Asked { point, name: (*name).to_owned(), by, mode: row.mode, but });
        }
    }
    Ok(asked)
}
