//! What a server does for the ensemble's plugins, beside applying: it has their modules compiled, says of
//! what is staged whether it can run here, asks those that are in the shadow, and proposes what its own
//! directory asks for.
//!
//! Everything follows from the published view, looked at a few times a second: what got lost on the way is
//! simply wanted still at the next look.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use plugin::{Compiler, Guests, Loaded, Runtime, Tuning};
use proto::Id;
use replica::{Input, OperatorCall, Published};
use state::command::PluginCommand;
use state::hooks::{Call, Hooks, Scope};
use state::plugins::{Exports, ModuleHash, Plugin, PluginLimit};
use state::{Command, Fault, View};

use super::directory::Directory;
use super::reconcile::{Files, Reconcile};
use crate::mailbox::Mailbox;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After so long a report is proposed again, and what could not be compiled is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How often compiled modules are dropped that nothing refers to any more.
const COLLECT_EVERY: Duration = Duration::from_secs(60);
/// The directory of compiled modules, in the data directory.
const COMPILED: &str = "compiled";

/// The engine of this server's plugins, and what is compiled.
///
/// # Errors
/// If there can be no engine on this machine, or the directory of compiled modules cannot be made.
pub(crate) fn runtime(data_dir: &Path) -> anyhow::Result<Arc<Runtime>> {
    let runtime = Runtime::new(Some(data_dir.join(COMPILED)), Tuning::default());
    Ok(Arc::new(runtime.context("plugins cannot run here")?))
}

/// Compiles what is called, before anything is applied.
///
/// # Errors
/// See [`compile`].
pub(crate) fn prepare(runtime: &Runtime, view: &View) -> Result<(), Fault> {
    compile(runtime, view, view.plugins.called())
}

/// Compiles the modules of these.
///
/// # Errors
/// If the store cannot be read. A module that cannot be compiled here for now is told of: the first entry
/// that needs it waits.
pub(crate) fn compile<'v>(
    runtime: &Runtime,
    view: &View,
    plugins: impl IntoIterator<Item = &'v Plugin>,
) -> Result<(), Fault> {
    for plugin in plugins {
        if runtime.is_ready(&plugin.module) {
            continue;
        }
        let name = &plugin.binding.name;
        let Some(module) = view.module(plugin.module)? else {
            tracing::error!(name, module = %plugin.module, "the module of an active binding is missing");
            continue;
        };
        let began = Instant::now();
        match runtime.load(&module, usize::MAX) {
            Ok(Ok(_)) => {
                let ms = began.elapsed().as_millis() as u64;
                tracing::info!(name, generation = plugin.generation, ms, "a plugin is ready");
            }
            Ok(Err(refused)) => {
                tracing::error!(name, %refused, "this program cannot run a module that others run");
            }
            Err(fault) => tracing::error!(name, %fault, "a plugin is not ready"),
        }
    }
    Ok(())
}

/// Who asks for what a directory says, in the audit log.
const DIRECTORY: &str = "plugin-dir";
/// Of how many changes at once the outcome is waited for, to be written down.
const ASKED_MAX: usize = 64;

/// What was asked for because the directory says so, and is not answered.
#[derive(Default)]
struct Asked {
    calls: VecDeque<OperatorCall>,
    number: u64,
}

impl Asked {
    fn ask(&mut self, runner: &Runner, command: PluginCommand) {
        // Connections are numbered from 1 on.
        let id = u64::MAX - self.number;
        self.number += 1;
        let who = (Id::new("super", DIRECTORY), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let command = Command::Plugin(command);
        let (call, input) =
            OperatorCall::command(&runner.published, command, who, id, Box::new(|| ()));
        if runner.inputs.put([input]) {
            self.calls.push_back(call);
        }
        if self.calls.len() > ASKED_MAX {
            self.calls.pop_front();
        }
    }

    fn forget_answered(&mut self) {
        self.calls.retain(|call| call.reply().is_none());
    }
}

/// What a server found of a generation of a binding: what its module is, or why it cannot run.
pub type Found = Result<Exports, String>;

/// What is under way, and what came of it. Shared with the compiler's thread.
#[derive(Default)]
struct Known {
    /// By name and generation.
    found: BTreeMap<(String, u64), Found>,
    /// Modules that the compiler was given: `None` for one that it still has, or when it failed here.
    begun: BTreeMap<ModuleHash, Option<Instant>>,
}

/// The work of a thread of its own.
pub(crate) struct Runner {
    pub(crate) server: u32,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) published: Arc<Published>,
    pub(crate) inputs: Arc<Mailbox<Input>>,
    pub(crate) directory: Option<Directory>,
    /// Whether this server leads.
    pub(crate) leads: Box<dyn Fn() -> bool + Send>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Runner {
    /// Goes on until the server stops.
    ///
    /// # Errors
    /// If there can be no thread to compile on.
    pub(crate) fn run(mut self) -> Result<(), Fault> {
        let compiler = Compiler::start(Arc::clone(&self.runtime))?;
        let known = Arc::new(Mutex::new(Known::default()));
        let (mut reconcile, mut files) = (Reconcile::default(), Files::new());
        let mut reported = BTreeMap::new();
        let (mut told, mut asked) = ((0, false), Asked::default());
        let (began, mut collected) = (Instant::now(), Instant::now());
        while !self.stop.load(Ordering::SeqCst) {
            let view = self.published.view();
            if view.cluster_id != 0 && view.settings.has_plugins() {
                self.compile(&view, &compiler, &known);
                self.report(&view, &known, &mut reported);
                self.tell(&view, &mut told);
                if collected.elapsed() > COLLECT_EVERY {
                    collected = Instant::now();
                    self.collect(&view, &known);
                }
            }
            if let Some(directory) = &mut self.directory {
                files = directory.look().unwrap_or(files);
                if view.cluster_id != 0 {
                    let now_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
                    let of = (&*view.plugins, &view.settings);
                    let commands = reconcile.step(&files, of, (self.leads)(), now_ms);
                    commands.into_iter().for_each(|command| asked.ask(&self, command));
                    asked.forget_answered();
                }
            }
            drop(view);
            self.ask_the_shadows();
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Asks guards that are in the shadow about what was written since the last look.
    fn ask_the_shadows(&self) {
        while !self.stop.load(Ordering::SeqCst)
            && let Some((before, shadowed)) = self.published.shadows().take()
        {
            for operation in shadowed {
                if let Err(fault) = before.shadow(&operation) {
                    tracing::warn!(%fault, "a guard in the shadow could not be asked");
                    return;
                }
            }
        }
    }

    fn propose(&self, command: PluginCommand) {
        self.inputs.put([Input::Command { command: Command::Plugin(command), ticket: None }]);
    }

    /// Has compiled what may be called, and what is to be reported on.
    fn compile(&self, view: &View, compiler: &Compiler, known: &Arc<Mutex<Known>>) {
        let unreported = view.plugins.to_report(self.server);
        let bytes_max = view.settings.plugins.limit(PluginLimit::ModuleBytes);
        for plugin in view.plugins.wanted() {
            let key = (plugin.binding.name.clone(), plugin.generation);
            let is_asked = unreported
                .iter()
                .any(|other| (&other.binding.name, other.generation) == (&key.0, key.1));
            let is_found = known.lock().found.contains_key(&key);
            let is_ready = self.runtime.is_ready(&plugin.module);
            let is_needed = !is_found && (is_asked || !is_ready);
            if !is_needed {
                continue;
            }
            let begun = known.lock().begun.get(&plugin.module).copied();
            if begun.is_some_and(|failed| failed.is_none_or(|at| at.elapsed() < AGAIN)) {
                continue;
            }
            let module = match view.module(plugin.module) {
                Ok(Some(module)) => module,
                Ok(None) => continue,
                Err(fault) => {
                    tracing::error!(name = key.0, %fault, "a plugin's module cannot be read");
                    continue;
                }
            };
            known.lock().begun.insert(plugin.module, None);
            let (plugin, runtime, known) =
                (plugin.clone(), Arc::clone(&self.runtime), Arc::clone(known));
            // What is called already was small enough when it came.
            let bytes_max = if is_asked {
                usize::try_from(bytes_max).unwrap_or(usize::MAX)
            } else {
                usize::MAX
            };
            let began = Instant::now();
            compiler.load(module.into(), bytes_max, move |loaded| {
                let (hash, generation) = (plugin.module, plugin.generation);
                let Some(found) = found(loaded, plugin, &runtime) else {
                    known.lock().begun.insert(hash, Some(Instant::now()));
                    return;
                };
                let (name, ms) = (&key.0, began.elapsed().as_millis() as u64);
                match &found {
                    Ok(_) => tracing::info!(name, generation, ms, "a plugin is ready"),
                    Err(why) => {
                        tracing::warn!(name, generation, why, "a plugin cannot run")
                    }
                }
                known.lock().found.insert(key, found);
                known.lock().begun.remove(&hash);
            });
        }
    }

    /// Says what was found of what is staged.
    fn report(
        &self,
        view: &View,
        known: &Mutex<Known>,
        reported: &mut BTreeMap<(String, u64), Instant>,
    ) {
        reported.retain(|_, at| at.elapsed() < AGAIN);
        for plugin in view.plugins.to_report(self.server) {
            let (name, generation) = (plugin.binding.name.clone(), plugin.generation);
            let key = (name.clone(), generation);
            if reported.contains_key(&key) {
                continue;
            }
            let Some(result) = known.lock().found.get(&key).cloned() else { continue };
            reported.insert(key, Instant::now());
            let server = self.server;
            self.propose(PluginCommand::Report { server, name, generation, result });
        }
    }

    /// Tells the Node whether all that plugins may need is compiled here, if that is otherwise than it was.
    fn tell(&self, view: &View, told: &mut (u64, bool)) {
        let now = (view.plugins.wanted_digest(), view.is_compiled(self.server));
        if std::mem::replace(told, now) != now {
            let (wanted, is_compiled) = now;
            self.inputs.put([Input::Compiled { wanted, is_compiled }]);
        }
    }

    /// Forgets what nothing refers to any more.
    fn collect(&self, view: &View, known: &Mutex<Known>) {
        let wanted = view.plugins.wanted();
        let mut known = known.lock();
        known.found.retain(|(name, generation), _| {
            wanted.iter().any(|p| p.binding.name == *name && p.generation == *generation)
        });
        if known.begun.is_empty() {
            self.runtime.retain(|hash| wanted.iter().any(|plugin| plugin.module == *hash));
        }
    }
}

/// What came of loading a module for a binding: its settings are tried too. `None` if this server is at
/// fault, and it is to be tried again.
pub fn found(loaded: Loaded, mut plugin: Plugin, runtime: &Arc<Runtime>) -> Option<Found> {
    let name = plugin.binding.name.clone();
    let failed = |fault: Fault| {
        tracing::error!(name, %fault, "a plugin is not ready; it is tried again");
    };
    let exports = match loaded {
        Ok(Ok((_, exports))) => exports,
        Ok(Err(refused)) => return Some(Err(refused.to_string())),
        Err(fault) => {
            failed(fault);
            return None;
        }
    };
    if let Err(why) = plugin.binding.check_exports(&exports) {
        return Some(Err(why));
    }
    plugin.exports = exports.clone();
    let call = Call {
        plugin: &plugin,
        scope: Scope::Read,
        zxid: 0,
        time_ms: 0,
        session: 0,
        seed: 0,
        fuel_max: u64::MAX,
    };
    let found = match Guests::new(Arc::clone(runtime)).configure(&call) {
        Ok(Ok(Ok(()))) => Ok(exports),
        Ok(Ok(Err(why))) => Err(format!("it does not take its settings: {why}")),
        Ok(Err(fault)) => Err(format!("it fails on its settings: {fault}")),
        Err(fault) => {
            failed(fault);
            return None;
        }
    };
    Some(found)
}
