//! What all of a process's states share: the engine, and the modules that are compiled.
//!
//! Invariants:
//! * A module is inspected before the engine sees any of it, on every way in.
//! * Whether a module is compiled here says nothing of what it does: it is known here only, and an entry that
//!   needs one that is not waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use state::Fault;
use state::plugins::{CallLimits, Exports, ModuleHash};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::Plugin;
use crate::cache::Cache;
use crate::engine::{MEMORY_BYTES_MAX, Tuning, engine};
use crate::error::Refused;
use crate::guest::Guest;
use crate::inspect::inspect;
use crate::module::{Live, Module};
use crate::sort::{Phase, sort};

/// The engine and the compiled modules. Shared by all threads; `Guests` calls them.
pub struct Runtime {
    pub(crate) engine: Engine,
    linker: Linker<Guest>,
    cache: Option<Cache>,
    modules: RwLock<BTreeMap<ModuleHash, Arc<Module>>>,
}

/// What becomes of a module that is brought in: what it is, or why it is refused. The outer error is this
/// server's: it may succeed another time.
pub type Loaded = Result<Result<(ModuleHash, Exports), Refused>, Fault>;

impl Runtime {
    /// A runtime without modules. Compiled code is kept in `cache`, a directory that is made if need be; it
    /// must be as safe from others as the program itself.
    ///
    /// # Errors
    /// [`Fault::Waiting`]: the engine cannot be had on this machine, or the directory cannot be made.
    pub fn new(cache: Option<PathBuf>, tuning: Tuning) -> Result<Self, Fault> {
        let fault = |error: wasmtime::Error| Fault::Waiting(format!("no engine: {error:#}"));
        let engine = engine(tuning).map_err(fault)?;
        let mut linker = Linker::new(&engine);
        Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest).map_err(fault)?;
        let cache = cache.map(|directory| Cache::open(directory, &engine)).transpose()?;
        Ok(Self { engine, linker, cache, modules: RwLock::default() })
    }

    /// Inspects a module, compiles it or takes it from the cache, and tries it. From then on it is ready.
    ///
    /// Takes seconds of processor time for a big one: see [`crate::Compiler`].
    ///
    /// # Errors
    /// See [`Loaded`].
    pub fn load(&self, bytes: &[u8], bytes_max: usize) -> Loaded {
        let exports = match inspect(bytes, bytes_max) {
            Ok(exports) => exports,
            Err(refused) => return Ok(Err(refused)),
        };
        let hash = ModuleHash::of(bytes);
        if self.is_ready(&hash) {
            return Ok(Ok((hash, exports)));
        }
        let component = self.compiled(&hash, bytes)?;
        let module = match Module::new(&self.linker, &component, &exports) {
            Ok(module) => Arc::new(module),
            Err(error) => return Ok(Err(Refused::Interface(format!("{error:#}")))),
        };
        if let Err(refused) = self.tried(&module)? {
            return Ok(Err(refused));
        }
        self.modules.write().insert(hash, module);
        Ok(Ok((hash, exports)))
    }

    /// Whether this module is ready to be called.
    pub fn is_ready(&self, hash: &ModuleHash) -> bool {
        self.modules.read().contains_key(hash)
    }

    /// Drops all modules but those that are `wanted`, from the cache too.
    pub fn retain(&self, wanted: impl Fn(&ModuleHash) -> bool) {
        self.modules.write().retain(|hash, _| wanted(hash));
        if let Some(cache) = &self.cache {
            cache.retain(&wanted);
        }
    }

    /// The module, if it is ready.
    pub(crate) fn module(&self, hash: &ModuleHash) -> Option<Arc<Module>> {
        self.modules.read().get(hash).cloned()
    }

    fn compiled(&self, hash: &ModuleHash, bytes: &[u8]) -> Result<Component, Fault> {
        let cached = self.cache.as_ref().and_then(|cache| cache.get(hash, &self.engine));
        if let Some(component) = cached {
            return Ok(component);
        }
        let fault = |error: wasmtime::Error| Fault::Waiting(format!("module {hash}: {error:#}"));
        let component = Component::from_binary(&self.engine, bytes).map_err(fault)?;
        if let Some(cache) = &self.cache {
            // A cache that cannot be written costs time at the next start, nothing else.
            let _ = cache.put(hash, &component.serialize().map_err(fault)?);
        }
        Ok(component)
    }

    /// Instantiates a module with all that any binding may give it, so that what is wrong with it is found
    /// now: what its functions look like, and whether data is written where there is no memory.
    fn tried(&self, module: &Arc<Module>) -> Result<Result<(), Refused>, Fault> {
        let mut limits = CallLimits::default();
        limits.memory_bytes = MEMORY_BYTES_MAX;
        match Live::new(&self.engine, module.clone(), &limits) {
            Ok(mut live) => {
                Ok(live.find_all().map_err(|error| Refused::Interface(format!("{error:#}"))))
            }
            Err((error, refused)) => sort(&error, Phase::Instantiation, refused)
                .map(|fault| Err(Refused::Instantiation(fault.to_string()))),
        }
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("modules", &self.modules.read().len())
            .finish_non_exhaustive()
    }
}
