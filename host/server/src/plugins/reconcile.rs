//! What a directory of bindings asks for, against what the ensemble has: which command is next.
//!
//! Every server may watch a directory; all of them propose, and the state lets each content in once.
//!
//! Invariants:
//! * Only content that was never proposed under its name is proposed: a server that starts with old files
//!   undoes nothing, neither a rollback nor a newer version.
//! * A binding is removed only if this process saw its file, the file is gone, and what the file said last
//!   is what is called.
//! * A file with a mistake changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use state::Settings;
use state::command::PluginCommand;
use state::plugins::{Binding, ModuleHash, PART_BYTES_MAX, Plugin, PluginLimit, Registry, Row};

use super::bundle::Bundle;

/// How long a server that does not lead lets others go first, in ms.
const AFTER_OTHERS_MS: i64 = 1500;
/// How long a command may be on its way before it is proposed again, in ms.
const AGAIN_MS: i64 = 2000;

/// What the files of the directory say, by file.
pub(crate) type Files = BTreeMap<PathBuf, Result<Bundle, String>>;

/// What one server has seen of its directory.
#[derive(Debug, Default)]
pub(crate) struct Reconcile {
    /// What this process saw last, by name.
    seen: BTreeMap<String, (PathBuf, Binding, ModuleHash)>,
    /// What was told already, by file or name.
    told: BTreeMap<String, String>,
    /// When a name was proposed something last, and since when it wants something.
    proposed_ms: BTreeMap<String, i64>,
    wants_ms: BTreeMap<String, i64>,
}

impl Reconcile {
    /// What is to be proposed now, by a clock that is never set.
    pub(crate) fn step(
        &mut self,
        files: &Files,
        (registry, settings): (&Registry, &Settings),
        leads: bool,
        now_ms: i64,
    ) -> Vec<PluginCommand> {
        let mut bundles: BTreeMap<&str, (&Path, &Bundle)> = BTreeMap::new();
        let mut doubled = BTreeSet::new();
        for (path, read) in files {
            match read {
                Ok(bundle) => {
                    let name = bundle.binding.name.as_str();
                    if let Some((other, _)) = bundles.insert(name, (path, bundle)) {
                        doubled.insert(name);
                        let (a, b) = (other.display(), path.display());
                        self.tell(name, &format!(
                            "{a} and {b} are both named \"{name}\": neither is applied; give one another \
                             name, or take it away"
                        ));
                    }
                }
                Err(why) => self.tell(&path.display().to_string(), why),
            }
        }
        let mut commands = Vec::new();
        for (name, (path, bundle)) in &bundles {
            if doubled.contains(name) {
                continue;
            }
            let of = (path.to_path_buf(), bundle.binding.clone(), bundle.hash);
            self.seen.insert((*name).to_owned(), of);
            match next(bundle, registry, settings) {
                Ok(Next::Nothing) => self.is_done(name),
                Ok(Next::Old(why)) => {
                    self.is_done(name);
                    self.tell(name, &format!("{}: {why}", path.display()));
                }
                Ok(Next::Propose(command)) => {
                    commands.extend(self.propose(name, *command, leads, now_ms))
                }
                Err(why) => {
                    self.is_done(name);
                    self.tell(name, &format!("{}: nothing is changed: {why}", path.display()));
                }
            }
        }
        // A file that cannot be read is not gone.
        let is_gone = |path: &Path| !files.contains_key(path);
        let gone = self
            .seen
            .iter()
            .filter(|(name, (path, ..))| is_gone(path) && !bundles.contains_key(name.as_str()));
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            commands.extend(self.remove(&name, registry, leads, now_ms));
        }
        commands
    }

    /// The file of a binding is gone.
    fn remove(
        &mut self,
        name: &str,
        registry: &Registry,
        leads: bool,
        now_ms: i64,
    ) -> Option<PluginCommand> {
        let (path, binding, hash) = self.seen.get(name)?.clone();
        let row = registry.row(name).filter(|row| row.is_there());
        let Some(row) = row else {
            self.seen.remove(name);
            self.is_done(name);
            return None;
        };
        let newest = generations(row).max_by_key(|plugin| plugin.generation);
        if !newest.is_some_and(|newest| is_same(newest, &binding, hash)) {
            self.seen.remove(name);
            self.is_done(name);
            self.tell(name, &format!(
                "{} is gone, and \"{name}\" stays: what is called is not what the file said last; \
                 `vivarium plugin remove {name}` takes it away",
                path.display()
            ));
            return None;
        }
        let generation = newest.map(|newest| newest.generation);
        let command = PluginCommand::Remove { name: name.to_owned(), generation };
        self.propose(name, command, leads, now_ms)
    }

    /// The command, if it is time for it. Parts of modules follow each other without a pause.
    fn propose(
        &mut self,
        name: &str,
        command: PluginCommand,
        leads: bool,
        now_ms: i64,
    ) -> Option<PluginCommand> {
        let since_ms = *self.wants_ms.entry(name.to_owned()).or_insert(now_ms);
        let after_ms = if leads { 0 } else { AFTER_OTHERS_MS };
        if now_ms - since_ms < after_ms {
            return None;
        }
        let key = match &command {
            PluginCommand::Upload { module, offset, .. } => format!("{module} {offset}"),
            _ => name.to_owned(),
        };
        if self.proposed_ms.get(&key).is_some_and(|at_ms| now_ms - at_ms < AGAIN_MS) {
            return None;
        }
        self.proposed_ms.retain(|_, at_ms| now_ms - *at_ms < AGAIN_MS);
        self.proposed_ms.insert(key, now_ms);
        Some(command)
    }

    /// Nothing is wanted for a name.
    fn is_done(&mut self, name: &str) {
        self.wants_ms.remove(name);
    }

    /// Says something once.
    fn tell(&mut self, about: &str, what: &str) {
        if self.told.get(about).is_none_or(|told| told != what) {
            self.told.insert(about.to_owned(), what.to_owned());
            tracing::warn!("plugin-dir: {what}");
        }
    }
}

enum Next {
    Nothing,
    Propose(Box<PluginCommand>),
    /// It was proposed before, and is not what is called now.
    Old(String),
}

/// What is next for a binding.
fn next(bundle: &Bundle, registry: &Registry, settings: &Settings) -> Result<Next, String> {
    let (binding, hash, bytes) = (&bundle.binding, bundle.hash, bundle.bytes);
    let name = &binding.name;
    let row = registry.row(name);
    if let Some(row) = row.filter(|row| row.has_seen(binding, hash)) {
        return known(row, binding, hash);
    }
    binding.check(settings.plugins.grants())?;
    let most = settings.plugins.limit(PluginLimit::ModuleBytes);
    if bytes > most {
        return Err(format!("the module has {bytes} bytes; at most {most} are allowed"));
    }
    let received = registry.modules().get(&hash).map_or(0, |module| module.received);
    if received < bytes {
        let part = bundle.part(received, PART_BYTES_MAX).map_err(|e| format!("{e:#}"))?;
        let (module, offset, part) = (hash, received, Bytes::from(part));
        let upload = PluginCommand::Upload { module, bytes, offset, part };
        return Ok(Next::Propose(Box::new(upload)));
    }
    let stage = PluginCommand::Stage {
        binding: binding.clone(),
        module: hash,
        after: None,
        if_unseen: true,
    };
    Ok(Next::Propose(Box::new(stage)))
}

/// What is next for a binding that was proposed before.
fn known(row: &Row, binding: &Binding, hash: ModuleHash) -> Result<Next, String> {
    let name = &binding.name;
    if row.active.as_ref().is_some_and(|active| is_same(active, binding, hash)) {
        return Ok(Next::Nothing);
    }
    let staged = row.staged.as_ref().filter(|staged| is_same(&staged.plugin, binding, hash));
    if let Some(staged) = staged {
        let failed = staged.reports.iter().find_map(|(server, report)| {
            report.as_ref().err().map(|why| format!("it cannot run on server {server}: {why}"))
        });
        if let Some(why) = failed {
            return Err(why);
        }
        if staged.reports.is_empty() {
            return Ok(Next::Nothing);
        }
        let generation = staged.plugin.generation;
        let (name, wait_all) = (name.clone(), false);
        let activate = PluginCommand::Activate { name, generation, wait_all };
        return Ok(Next::Propose(Box::new(activate)));
    }
    Ok(Next::Old(match row.is_there() {
        true => format!(
            "this content of \"{name}\" is older than what is called, and is not applied; `vivarium plugin \
             install` brings it back"
        ),
        false => format!(
            "\"{name}\" was removed, and this content of it was there before: it is not applied; \
             `vivarium plugin install` brings it back"
        ),
    }))
}

fn is_same(plugin: &Plugin, binding: &Binding, hash: ModuleHash) -> bool {
    let named = |binding: &Binding| Binding { module: String::new(), ..binding.clone() };
    plugin.module == hash && named(&plugin.binding) == named(binding)
}

fn generations(row: &Row) -> impl Iterator<Item = &Plugin> {
    let staged = row.staged.as_ref().map(|staged| &staged.plugin);
    [row.active.as_ref(), row.previous.as_ref(), staged].into_iter().flatten()
}
