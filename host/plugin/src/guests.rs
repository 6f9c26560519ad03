//! What one state has of guests: the instances under way, and the hooks that call them.
//!
//! Invariants:
//! * In apply, an instance gets all calls of its binding in a transaction, or in an entry where the binding says
//!   so, and no others. Which ones these are follows from the log.
//! * Any fault drops the instance, whatever it was kept for.
//! * A call that is on a thread with too little stack is a host fault, and never an outcome.

use std::sync::Arc;

use parking_lot::Mutex;
use proto::{ErrorCode, Id};
use state::Fault;
use state::hooks::{
    Call, Changed, Check, Credentials, Decision, Env, EnvError, FaultKind, Hooks, Node, Operation,
    Outcome, Pairs, PluginFault, Scope, Verdict,
};
use state::plugins::{Instance, Plugin};

use crate::bindings::exports::vivarium::plugin::authorizer::Decision as Decided;
use crate::convert;
use crate::engine::{AUTHENTICATE_FUEL_MAX, FUEL_PER_CALL_MAX, HOST_STACK_BYTES, WASM_STACK_BYTES};
use crate::host::{Scene, set_scene};
use crate::kept::{Kept, Used};
use crate::module::Live;
use crate::runtime::Runtime;
use crate::sort::{Phase, Stop, sort};

/// The ids that credentials may be worth.
const IDS_MAX: usize = 16;

/// The length of each.
const ID_BYTES_MAX: usize = 1 << 10;

/// The length of a reason that is kept.
const REASON_BYTES_MAX: usize = 1 << 10;

/// Runs the plugins of one state.
pub struct Guests {
    runtime: Arc<Runtime>,
    /// Of the transaction or the entry under way: few, and one of them is called again and again.
    applying: Mutex<Vec<Used>>,
    reading: Kept,
}

impl Guests {
    /// The hooks of one state.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime, applying: Mutex::default(), reading: Kept::default() }
    }

    /// Calls a guest. What `run` makes of the answer may itself be a fault ([`Stop`]).
    fn call<T>(
        &self,
        call: &Call<'_>,
        identities: &[Id],
        env: &mut dyn Env,
        run: impl FnOnce(&mut Live) -> wasmtime::Result<T>,
    ) -> Outcome<T> {
        self.call_with(call.fuel_max.min(FUEL_PER_CALL_MAX), call, identities, env, run)
    }

    fn call_with<T>(
        &self,
        fuel: u64,
        call: &Call<'_>,
        identities: &[Id],
        env: &mut dyn Env,
        run: impl FnOnce(&mut Live) -> wasmtime::Result<T>,
    ) -> Outcome<T> {
        let enough = WASM_STACK_BYTES + HOST_STACK_BYTES;
        if stacker::remaining_stack().is_some_and(|left| left < enough) {
            return Err(Fault::Waiting(
                "a plugin was called on a thread with a small stack".into(),
            ));
        }
        let mut used = match self.instance(call)? {
            Ok(used) => used,
            Err(fault) => return Ok(Err(fault)),
        };
        let live = &mut *used.live;
        live.store.data_mut().begin(&call.plugin.limits);
        let scene = Scene { call, identities, env: &mut *env };
        let came = live.store.set_fuel(fuel).and_then(|()| set_scene(scene, || run(live)));
        match came.and_then(|answer| Ok((answer, live.store.get_fuel()?))) {
            Ok((answer, left)) => {
                env.spent(fuel - left);
                self.keep(call, used);
                Ok(Ok(answer))
            }
            Err(error) => sort(&error, Phase::Call, live.store.data().refused).map(Err),
        }
    }

    /// The instance for a call.
    fn instance(&self, call: &Call<'_>) -> Outcome<Used> {
        let plugin = call.plugin;
        let used = match call.scope {
            Scope::Apply { .. } => {
                let mut applying = self.applying.lock();
                let at = applying.iter().position(|used| used.id == plugin.id);
                at.map(|at| applying.swap_remove(at))
            }
            Scope::Read if plugin.exports.is_stateless => self.reading.take(plugin),
            Scope::Read => None,
        };
        if let Some(used) = used.filter(|used| used.is_of(plugin)) {
            return Ok(Ok(used));
        }
        let module = self.runtime.module(&plugin.module).ok_or_else(|| {
            Fault::Waiting(format!("module {} is not compiled here", plugin.module))
        })?;
        match Live::new(&self.runtime.engine, module, &plugin.limits) {
            Ok(live) => Ok(Ok(Used::new(live, plugin))),
            Err((error, refused)) => sort(&error, Phase::Instantiation, refused).map(Err),
        }
    }

    /// What becomes of an instance after a call without a fault.
    fn keep(&self, call: &Call<'_>, used: Used) {
        match call.scope {
            Scope::Apply { .. } => self.applying.lock().push(used),
            Scope::Read if call.plugin.exports.is_stateless => self.reading.give(used, call.plugin),
            Scope::Read => {}
        }
    }
}

impl Hooks for Guests {
    fn is_ready(&self, plugin: &Plugin) -> bool {
        self.runtime.is_ready(&plugin.module)
    }

    fn transaction_begins(&self, _scope: Scope) {
        self.applying.lock().retain(|used| used.instance == Instance::Entry);
    }

    fn entry_ends(&self) {
        self.applying.lock().clear();
    }

    fn configure(&self, call: &Call<'_>) -> Outcome<Result<(), String>> {
        self.call(call, &[], &mut Nothing, |live| match live.setup()? {
            Some(setup) => {
                setup.call_configure(&mut live.store).map(|said| said.map_err(shortened))
            }
            None => Ok(Ok(())),
        })
    }

    fn authenticate(
        &self,
        call: &Call<'_>,
        credentials: &Credentials<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Result<Vec<String>, String>> {
        let fuel = call.fuel_max.min(AUTHENTICATE_FUEL_MAX);
        self.call_with(fuel, call, credentials.identities, env, |live| {
            let authorizer = exported(live.authorizer()?)?;
            let identities = convert::identities(credentials.identities);
            let asked = convert::credentials(credentials, &identities);
            match authorizer.call_authenticate(&mut live.store, asked)? {
                Ok(ids) if ids.len() > IDS_MAX => Err(bad(format!("{} ids", ids.len()))),
                Ok(ids) if ids.iter().any(|id| id.len() > ID_BYTES_MAX) => Err(bad("a long id")),
                Ok(ids) => Ok(Ok(ids)),
                Err(reason) => Ok(Err(shortened(reason))),
            }
        })
    }

    fn check(&self, call: &Call<'_>, check: &Check<'_>, env: &mut dyn Env) -> Outcome<Decision> {
        self.call(call, check.identities, env, |live| {
            let authorizer = exported(live.authorizer()?)?;
            let identities = convert::identities(check.identities);
            let question = convert::question(check, &identities);
            Ok(match authorizer.call_check(&mut live.store, question)? {
                Decided::Abstain => Decision::Abstain,
                Decided::Allow => Decision::Allow,
                Decided::Deny => Decision::Deny,
            })
        })
    }

    fn guard(
        &self,
        call: &Call<'_>,
        operation: &Operation<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Verdict> {
        self.call(call, operation.identities, env, |live| {
            let guard = exported(live.guard()?)?;
            let acl = convert::acl(operation.acl);
            let asked = convert::operation(operation, &acl);
            let around = convert::circumstances(operation);
            match guard.call_judge(&mut live.store, asked, around)? {
                Ok(()) => Ok(Verdict::Allow),
                Err(denial) => {
                    let code = allowed_code(denial.code)
                        .ok_or_else(|| bad(format!("code {}", denial.code)))?;
                    Ok(Verdict::Deny { code, reason: shortened(denial.reason) })
                }
            }
        })
    }

    fn observe(&self, call: &Call<'_>, change: &Changed<'_>, env: &mut dyn Env) -> Outcome<()> {
        self.call(call, change.identities, env, |live| {
            let observer = exported(live.observer()?)?;
            observer.call_observe(&mut live.store, convert::change(change))
        })
    }
}

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guests").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

fn bad(what: impl Into<String>) -> wasmtime::Error {
    Stop::plugin(FaultKind::BadReturn, what).into()
}

/// The functions of a point. That the module has it was found when it was staged.
fn exported<T>(functions: Option<T>) -> wasmtime::Result<T> {
    functions.ok_or_else(|| bad("the module does not export this point"))
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
    text
}

/// What a denial may say; see `denial` in `wit/types.wit`.
fn allowed_code(number: i32) -> Option<ErrorCode> {
    const ALLOWED: [ErrorCode; 11] = [
        ErrorCode::Unimplemented,
        ErrorCode::BadArguments,
        ErrorCode::NoNode,
        ErrorCode::NoAuth,
        ErrorCode::BadVersion,
        ErrorCode::NoChildrenForEphemerals,
        ErrorCode::NodeExists,
        ErrorCode::NotEmpty,
        ErrorCode::InvalidAcl,
        ErrorCode::QuotaExceeded,
        ErrorCode::ThrottledOp,
    ];
    ErrorCode::from_i32(number).filter(|code| ALLOWED.contains(code))
}

/// What `configure` may read: nothing.
struct Nothing;

impl Nothing {
    fn refuse<T>() -> Result<T, EnvError> {
        let why = "there is nothing to read or write during `configure`";
        Err(EnvError::Plugin(PluginFault::new(FaultKind::NotGranted, why)))
    }
}

impl Env for Nothing {
    fn node(&mut self, _: &str) -> Result<Option<Node>, EnvError> {
        Self::refuse()
    }

    fn stat(&mut self, _: &str) -> Result<Option<proto::Stat>, EnvError> {
        Self::refuse()
    }

    fn children(&mut self, _: &str, _: &str, _: usize) -> Result<Option<Vec<String>>, EnvError> {
        Self::refuse()
    }

    fn get(&mut self, _: &[u8]) -> Result<Option<Vec<u8>>, EnvError> {
        Self::refuse()
    }

    fn put(&mut self, _: &[u8], _: Option<&[u8]>) -> Result<(), EnvError> {
        Self::refuse()
    }

    fn add(&mut self, _: &[u8], _: i64) -> Result<i64, EnvError> {
        Self::refuse()
    }

    fn scan(&mut self, _: &[u8], _: &[u8], _: usize) -> Result<Pairs, EnvError> {
        Self::refuse()
    }

    fn log(&mut self, _: &str) {}

    fn spent(&mut self, _: u64) {}
}
