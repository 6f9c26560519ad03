//! What a server does for plugins beside applying, as `server/src/plugins/runner.rs` does it: it has their
//! modules compiled, which takes a while, says of what is staged whether it can run, and tells the Node whether
//! all is compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin::Runtime;
use replica::Input;
use replica::log::SimRng;
use server::plugins::{Found, found};
use state::command::PluginCommand;
use state::plugins::ModuleHash;
use state::{Command, View};

use super::{Ready, runtime};

/// How often it looks, in milliseconds.
const LOOK_MS: i64 = 100;
/// After so long a report is proposed again.
const AGAIN_MS: i64 = 2000;
/// How long compiling takes at most.
const COMPILING_MS: u64 = 1500;

/// A generation of a binding.
type Generation = (String, u64);

/// One run of it.
pub struct Runner {
    server: u64,
    runtime: Arc<Runtime>,
    ready: Ready,
    next_look_ms: i64,
    /// Until when a module is being compiled.
    compiling: BTreeMap<ModuleHash, i64>,
    found: BTreeMap<Generation, Found>,
    reported_ms: BTreeMap<Generation, i64>,
    /// What the Node was told is wanted, and whether it was compiled.
    told: (u64, bool),
}

impl Runner {
    /// That of a server which has just started, with what it has compiled.
    pub fn new(server: u64, ready: Ready, now_ms: i64) -> Self {
        Self {
            server,
            runtime: runtime(server),
            ready,
            next_look_ms: now_ms,
            compiling: BTreeMap::new(),
            found: BTreeMap::new(),
            reported_ms: BTreeMap::new(),
            told: (0, false),
        }
    }

    /// When it looks again.
    pub fn next_look_ms(&self) -> i64 {
        self.next_look_ms
    }

    /// Looks at what is published; what the Node is to be told.
    ///
    /// # Errors
    /// [`state::Fault`] if the store fails.
    pub fn look(
        &mut self,
        view: &View,
        now_ms: i64,
        rng: &mut SimRng,
    ) -> Result<Vec<Input>, state::Fault> {
        self.next_look_ms = now_ms + LOOK_MS;
        let mut inputs = Vec::new();
        if view.cluster_id == 0 {
            return Ok(inputs);
        }
        let number = self.server as u32 - 1;
        for plugin in view.plugins.wanted() {
            let key = (plugin.binding.name.clone(), plugin.generation);
            let is_ready = self.ready.lock().contains(&plugin.module);
            if self.found.contains_key(&key) {
                continue;
            }
            let takes_ms = if is_ready { 0 } else { rng.below(COMPILING_MS) as i64 };
            let done_ms = *self.compiling.entry(plugin.module).or_insert(now_ms + takes_ms);
            if now_ms < done_ms {
                continue;
            }
            let Some(module) = view.module(plugin.module)? else { continue };
            let loaded = self.runtime.load(&module, usize::MAX);
            if matches!(loaded, Ok(Ok(_))) {
                self.ready.lock().insert(plugin.module);
            }
            if let Some(found) = found(loaded, plugin.clone(), &self.runtime) {
                self.found.insert(key, found);
            }
        }
        for plugin in view.plugins.to_report(number) {
            let key = (plugin.binding.name.clone(), plugin.generation);
            let Some(result) = self.found.get(&key).cloned() else { continue };
            if self.reported_ms.get(&key).is_some_and(|at_ms| now_ms < at_ms + AGAIN_MS) {
                continue;
            }
            self.reported_ms.insert(key.clone(), now_ms);
            let (name, generation) = key;
            let report = PluginCommand::Report { server: number, name, generation, result };
            inputs.push(Input::Command { command: Command::Plugin(report), ticket: None });
        }
        let (wanted, is_compiled) = (view.plugins.wanted_digest(), view.is_compiled(number));
        if std::mem::replace(&mut self.told, (wanted, is_compiled)) != (wanted, is_compiled) {
            inputs.push(Input::Compiled { wanted, is_compiled });
        }
        Ok(inputs)
    }
}

/// Compiles at once all that may be called, as a server does that starts.
pub fn compile(server: u64, ready: &Ready, view: &View) {
    let runtime = runtime(server);
    let wanted = view.plugins.wanted().into_iter().map(|plugin| plugin.module);
    ready.lock().extend(wanted.filter(|module| runtime.is_ready(module)));
}
