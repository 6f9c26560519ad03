//! Plugins in Rust, for tests: what a module does is told by its text, which is all that is uploaded.
//!
//! * `quota`: an observer that counts the znodes and bytes below each `/tenants/NAME`, and a guard that
//!   refuses a create when there are as many as the setting `most` says, or the data of the tenant's
//!   `limits`, where that may be read.
//! * `deny`: a guard that refuses everything.
//! * `faulty`: a guard and an observer that write to their store, then trap, where the path has `bad` in it.
//! * `greedy`: a guard that does what it may not, by the last name of the path.
//! * `host`: a guard that this server cannot run while [`Native::fails`].
//! * `token`: an authorizer of the scheme `tenant`: an entry matches who has its id, and below `/private`
//!   only they may do anything who have the id `root`, and everything.
//! * `strange`: exports nothing.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use state::hooks::{
    Call, Cause, Changed, Check, Credentials, Decision, Env, EnvError, ErrorCode, FaultKind,
    Operation, Outcome, PluginFault, Verdict,
};
use state::plugins::{Exports, ModuleHash, Plugin, Point};
use state::{Fault, Hooks};

/// Runs them.
#[derive(Clone, Default)]
pub(crate) struct Native {
    /// Whether `host` fails.
    pub(crate) fails: Arc<AtomicBool>,
    /// Whether nothing is compiled.
    pub(crate) is_cold: Arc<AtomicBool>,
    /// How many calls there were.
    pub(crate) calls: Arc<AtomicU64>,
}

pub(crate) const MODULES: [&str; 7] =
    ["quota", "deny", "faulty", "greedy", "host", "token", "strange"];

/// What a module is, by its text.
pub(crate) fn exports(module: &str) -> Exports {
    let points = match module {
        "quota" | "faulty" => vec![Point::Guard, Point::Observer],
        "deny" | "greedy" | "host" => vec![Point::Guard],
        "token" => vec![Point::Authorizer],
        _ => vec![],
    };
    Exports { points, is_stateless: module == "token" }
}

fn kind(plugin: &Plugin) -> &'static str {
    let is_it = |text: &&str| ModuleHash::of(text.as_bytes()) == plugin.module;
    MODULES.into_iter().find(is_it).unwrap_or("strange")
}

/// Ends a hook with what its environment refused.
macro_rules! ask {
    ($env:expr) => {
        match $env {
            Ok(answer) => answer,
            Err(EnvError::Plugin(fault)) => return Ok(Err(fault)),
            Err(EnvError::Host(fault)) => return Err(fault),
        }
    };
}

fn tenant(path: &str) -> Option<&str> {
    path.strip_prefix("/tenants/")?.split('/').next()
}

fn trap() -> PluginFault {
    PluginFault::new(FaultKind::Trap, "unreachable")
}

fn most(plugin: &Plugin) -> i64 {
    let settings: serde_json::Value =
        serde_json::from_str(&plugin.binding.settings).expect("it is JSON");
    settings.get("most").and_then(serde_json::Value::as_i64).unwrap_or(i64::MAX)
}

impl Hooks for Native {
    fn is_ready(&self, _: &Plugin) -> bool {
        !self.is_cold.load(Ordering::Relaxed)
    }

    fn configure(&self, call: &Call<'_>) -> Outcome<Result<(), String>> {
        if kind(call.plugin) == "quota" && most(call.plugin) < 0 {
            return Ok(Ok(Err("`most` must not be negative".to_owned())));
        }
        Ok(Ok(Ok(())))
    }

    fn authenticate(
        &self,
        _: &Call<'_>,
        credentials: &Credentials<'_>,
        _: &mut dyn Env,
    ) -> Outcome<Result<Vec<String>, String>> {
        let name = credentials.bytes.strip_prefix(b"secret-");
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        Ok(Ok(name.map(|name| vec![name.to_owned()]).ok_or("no such secret".to_owned())))
    }

    fn check(&self, _: &Call<'_>, check: &Check<'_>, env: &mut dyn Env) -> Outcome<Decision> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let has = |id: &str| check.identities.iter().any(|i| i.scheme == "tenant" && i.id == id);
        if check.path.ends_with("/write") {
            ask!(env.put(b"k", Some(b"v")));
        }
        if check.path.ends_with("/trap") {
            return Ok(Err(trap()));
        }
        Ok(Ok(match check.entry {
            Some(entry) if has(&entry.id) => Decision::Allow,
            Some(_) => Decision::Abstain,
            None if !check.path.starts_with("/private/") => Decision::Abstain,
            None if has("root") => Decision::Allow,
            None => Decision::Deny,
        }))
    }

    fn guard(
        &self,
        call: &Call<'_>,
        operation: &Operation<'_>,
        env: &mut dyn Env,
    ) -> Outcome<Verdict> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let deny = |code, reason: &str| Ok(Ok(Verdict::Deny { code, reason: reason.to_owned() }));
        env.spent(1000);
        match kind(call.plugin) {
            "quota" if operation.operation == 1 => {
                let Some(name) = tenant(operation.path) else { return Ok(Ok(Verdict::Allow)) };
                let mut most = most(call.plugin);
                if !call.plugin.binding.reads.is_empty() {
                    let limits = ask!(env.node(&format!("/tenants/{name}/limits")));
                    let data = limits.and_then(|node| node.data).unwrap_or_default();
                    let data = std::str::from_utf8(&data).ok().and_then(|text| text.parse().ok());
                    most = data.unwrap_or(most);
                }
                let key = [b"n/", name.as_bytes()].concat();
                let count = ask!(env.get(&key)).map_or(0, |count| {
                    i64::from_le_bytes(count.try_into().expect("it is a number"))
                });
                if count >= most {
                    return deny(
                        ErrorCode::QuotaExceeded,
                        &format!("{name} has {count} of {most}"),
                    );
                }
                Ok(Ok(Verdict::Allow))
            }
            "deny" => {
                ask!(env.add(b"asked", 1));
                deny(ErrorCode::BadArguments, "it is against the rules")
            }
            "faulty" if operation.path.contains("bad-guard") => {
                ask!(env.put(b"left", Some(b"behind")));
                Ok(Err(trap()))
            }
            "greedy" => self.be_greedy(operation, env),
            "host" if self.fails.load(Ordering::Relaxed) => {
                Err(Fault::Waiting("no memory".to_owned()))
            }
            _ => Ok(Ok(Verdict::Allow)),
        }
    }

    fn observe(&self, call: &Call<'_>, changed: &Changed<'_>, env: &mut dyn Env) -> Outcome<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match kind(call.plugin) {
            "quota" => {
                let Some(name) = tenant(changed.path) else { return Ok(Ok(())) };
                let (was, is) =
                    (changed.before.map(|s| s.data_length), changed.after.map(|s| s.data_length));
                let znodes = i64::from(is.is_some()) - i64::from(was.is_some());
                let bytes = i64::from(is.unwrap_or(0)) - i64::from(was.unwrap_or(0));
                if znodes != 0 {
                    ask!(env.add(&[b"n/", name.as_bytes()].concat(), znodes));
                }
                if bytes != 0 {
                    ask!(env.add(&[b"b/", name.as_bytes()].concat(), bytes));
                }
                if changed.cause != Cause::Client {
                    env.log(&format!("{:?} {}", changed.cause, changed.path));
                }
                if changed.data.is_some_and(|data| data.len() != is.unwrap_or(0) as usize) {
                    return Ok(Err(PluginFault::new(FaultKind::BadReturn, "the data is not it")));
                }
            }
            "faulty" => {
                ask!(env.add(b"told", 1));
                if changed.path.contains("bad-observer") {
                    return Ok(Err(trap()));
                }
            }
            _ => {}
        }
        env.spent(500);
        Ok(Ok(()))
    }
}

impl Native {
    fn be_greedy(&self, operation: &Operation<'_>, env: &mut dyn Env) -> Outcome<Verdict> {
        let last = operation.path.rsplit('/').next().unwrap_or_default();
        match last {
            "reads" => drop(ask!(env.node("/secret"))),
            // The plugin goes on as if nothing had happened.
            "hides" => drop(env.node("/secret")),
            "near" => {
                let parent = operation.path.rsplit_once('/').map_or("", |(parent, _)| parent);
                let parent = ask!(env.children(parent, "", 10)).unwrap_or_default();
                ask!(env.put(b"children", Some(parent.join(",").as_bytes())));
            }
            "many" => {
                for _ in 0..100 {
                    ask!(env.stat(operation.path));
                }
            }
            "floods" => {
                for at in 0..300u32 {
                    ask!(env.put(&at.to_be_bytes(), Some(b"x")));
                }
            }
            "large" => ask!(env.put(b"k", Some(&[0; 70_000]))),
            "overflows" => {
                ask!(env.add(b"k", i64::MAX));
                ask!(env.add(b"k", 1));
            }
            "spins" => env.spent(u64::MAX),
            "scans" => {
                ask!(env.put(b"a", Some(b"1")));
                ask!(env.put(b"c", Some(b"3")));
                ask!(env.put(b"b", Some(b"2")));
                ask!(env.put(b"a", None));
                let found = ask!(env.scan(b"", b"", 10));
                let found: Vec<_> = found
                    .iter()
                    .map(|(key, _)| String::from_utf8_lossy(key).into_owned())
                    .collect();
                env.log(&found.join(" "));
            }
            _ => {}
        }
        Ok(Ok(Verdict::Allow))
    }
}
