//! Plugins beside apply: authorizers on reads, `authenticate`, `configure`, and what is evaluated in the
//! shadow. Over a view, of which nothing changes.
//!
//! Invariants:
//! * An authorizer is asked as in apply, and may read the same.
//! * What a call wrote is forgotten with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::{Acl, ErrorCode, Id};

use super::binding::Point;
use super::decisions::{Effect, Said};
use super::env::{Ground, PluginEnv};
use super::points::{about, after_fault, allowed, effect, is_noted, kind_of};
use super::registry::{Live, parts_range, store_key, store_range};
use super::row::Plugin;
use super::running::{About, children_after, decision, needs};
use super::{ModuleHash, PART_BYTES_MAX};
use crate::access;
use crate::fault::Fault;
use crate::hooks::{
    Call, Check, Credentials, Decision, Env, EnvError, Operation, Outcome, Ownership, Scope,
    Verdict,
};
use crate::keys::{self, Keyspace};
use crate::view::View;
use crate::znode::Znode;

impl View {
    /// Whether an ACL, with the authorizers that have a say, lets somebody do what they ask. Where ACLs
    /// are skipped everybody may do everything.
    ///
    /// # Errors
    /// [`Fault`] if the store fails, or an authorizer cannot be asked here.
    pub fn may(&self, acl: &[Acl], check: &Check<'_>, session: i64) -> Result<bool, Fault> {
        if self.settings.skip_acl {
            return Ok(true);
        }
        if self.plugins.is_empty() {
            return Ok(access::allowed(acl, check.permission, check.identities));
        }
        allowed(&self.plugins, acl, check, &mut |live, check| {
            let about = about(check);
            let mut ground = Beside::new(self);
            let answer = self.call(&mut ground, live, about, session, |call, env| {
                self.hooks.check(call, check, env)
            })?;
            let (decision, noted) = match answer {
                Ok(decision) => {
                    let said = Said::Deny(ErrorCode::NoAuth);
                    (decision, is_noted(decision, check).then(|| (said, String::new())))
                }
                Err(fault) => (after_fault(live), Some((Said::Fault(fault.kind), fault.why))),
            };
            let counts = if live.enforces { decision } else { Decision::Abstain };
            if let Some((said, reason)) = noted {
                self.note(live, about, session, (said, effect(counts), reason));
            }
            Ok(counts)
        })
    }

    /// The identities of a client that gives these credentials, under the scheme that it named, or why they
    /// are no good; `None` if no binding decides the scheme.
    ///
    /// # Errors
    /// As [`Self::may`].
    pub fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        session: i64,
    ) -> Result<Option<Result<Vec<Id>, String>>, Fault> {
        let Some(live) = self.plugins.authorizer_of(credentials.scheme) else { return Ok(None) };
        let about = About { point: Point::Authorizer, operation: AUTH, path: "" };
        let mut ground = Beside::new(self);
        let answer = self.call(&mut ground, live, about, session, |call, env| {
            self.hooks.authenticate(call, credentials, env)
        })?;
        let id = |id: String| Id::new(credentials.scheme, id);
        let (said, why) = match answer {
            Ok(Ok(ids)) => return Ok(Some(Ok(ids.into_iter().map(id).collect()))),
            Ok(Err(why)) => (Said::Deny(ErrorCode::AuthFailed), why),
            Err(fault) => (Said::Fault(fault.kind), fault.to_string()),
        };
        self.note(live, about, session, (said, Effect::Refused, why.clone()));
        Ok(Some(Err(why)))
    }

    /// Has a plugin that is staged look at its settings; says why it does not take them, if it does not.
    ///
    /// # Errors
    /// As [`Self::may`].
    pub fn configure(&self, plugin: &Plugin) -> Result<Result<(), String>, Fault> {
        needs(self.hooks.as_ref(), plugin)?;
        let call = Call {
            plugin,
            scope: Scope::Read,
            zxid: self.zxid,
            time_ms: self.time_ms,
            session: 0,
            seed: 0,
            fuel_max: plugin.limits.fuel(Point::Guard),
        };
        Ok(match self.hooks.configure(&call)? {
            Ok(answer) => answer.map_err(|why| format!("it does not take its settings: {why}")),
            Err(fault) => Err(format!("it did something wrong when given its settings: {fault}")),
        })
    }

    /// Whether all that this view calls, or may call without another upload, is compiled here, so that this
    /// server holds up nothing. What is staged and cannot run here, as it has reported, is not waited for.
    pub fn is_compiled(&self, server: u32) -> bool {
        let is_reported = |plugin: &Plugin| {
            let staged = self.plugins.row(&plugin.binding.name).and_then(|row| row.staged.as_ref());
            staged.is_some_and(|staged| {
                staged.plugin.generation == plugin.generation
                    && staged.reports.get(&server).is_some_and(Result::is_err)
            })
        };
        let wanted = self.plugins.wanted();
        wanted.into_iter().all(|plugin| self.hooks.is_ready(plugin) || is_reported(plugin))
    }

    /// The bytes of a module that was uploaded in whole.
    ///
    /// # Errors
    /// [`Fault`] if the store fails, or has not what the hash says.
    pub fn module(&self, hash: ModuleHash) -> Result<Option<Vec<u8>>, Fault> {
        let Some(module) = self.plugins.modules().get(&hash).filter(|m| m.is_whole()) else {
            return Ok(None);
        };
        let (mut from, to) = parts_range(hash);
        let mut bytes = Vec::with_capacity(module.bytes as usize);
        loop {
            // A part is large.
            let parts = self.rows.range(Keyspace::Modules, &from, &to, PAGE_PARTS)?;
            parts.iter().for_each(|(_, part)| bytes.extend_from_slice(part));
            match parts.last() {
                Some((last, _)) if parts.len() == PAGE_PARTS => from = [&last[..], b"\0"].concat(),
                _ => break,
            }
        }
        if ModuleHash::of(&bytes) == hash {
            return Ok(Some(bytes));
        }
        let why = format!("the module {hash} has not its hash");
        Err(Fault::Damaged { keyspace: "modules", why })
    }

    /// Asks the guards of bindings that are in the shadow about a write that was applied over this view,
    /// and writes down what they say. What their observers would have kept is not there.
    ///
    /// # Errors
    /// As [`Self::may`].
    pub fn shadow(&self, shadowed: &Shadowed) -> Result<(), Fault> {
        let operation = Operation {
            operation: shadowed.operation,
            path: &shadowed.path,
            data: shadowed.data.as_deref(),
            acl: &shadowed.acl,
            owner: shadowed.owner,
            version: shadowed.version,
            before: shadowed.before.as_ref(),
            identities: &shadowed.identities,
            index: shadowed.index,
            of_multi: shadowed.of_multi,
        };
        let about =
            About { point: Point::Guard, operation: operation.operation, path: operation.path };
        for at in self.plugins.shadows(operation.path, kind_of(operation.operation)).iter() {
            let live = self.plugins.live(at);
            if !live.plugin.points().contains(&Point::Guard) {
                continue;
            }
            let mut ground = Beside::new(self);
            let answer = self.call(&mut ground, live, about, shadowed.session, |call, env| {
                self.hooks.guard(call, &operation, env)
            })?;
            let (said, reason) = match answer {
                Ok(Verdict::Allow) => continue,
                Ok(Verdict::Deny { code, reason }) => (Said::Deny(code), reason),
                Err(fault) => (Said::Fault(fault.kind), fault.why),
            };
            self.note(live, about, shadowed.session, (said, Effect::Shadow, reason));
        }
        Ok(())
    }

    /// Up to `most` of what a binding's plugin keeps, keys and values, from a key on.
    ///
    /// # Errors
    /// [`Fault`] if the store fails.
    pub fn kept(&self, name: &str, from: &[u8], most: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let Some(row) = self.plugins.row(name) else { return Ok(Vec::new()) };
        let (head, to) = store_range(row.id);
        let rows = self.rows.range(Keyspace::Plugins, &store_key(row.id, from), &to, most)?;
        Ok(rows.into_iter().map(|(key, value)| (key.slice(head.len()..), value)).collect())
    }

    fn call<T>(
        &self,
        ground: &mut Beside<'_>,
        live: &Live,
        about: About<'_>,
        session: i64,
        hook: impl FnOnce(&Call<'_>, &mut dyn Env) -> Outcome<T>,
    ) -> Outcome<T> {
        needs(self.hooks.as_ref(), &live.plugin)?;
        let call = Call {
            plugin: &live.plugin,
            scope: Scope::Read,
            zxid: self.zxid,
            time_ms: self.time_ms,
            session,
            seed: 0,
            fuel_max: match about.operation {
                AUTH => live.plugin.limits.authenticate_fuel(),
                _ => live.plugin.limits.fuel(about.point),
            },
        };
        let mut env = PluginEnv::new(ground, live, about.point, about.path);
        let outcome = hook(&call, &mut env);
        let ended = env.end();
        for line in ended.lines {
            self.note(live, about, session, (Said::Line, Effect::Passed, line));
        }
        match ended.failed {
            Some(EnvError::Host(fault)) => Err(fault),
            Some(EnvError::Plugin(fault)) => outcome.map(|_| Err(fault)),
            None => outcome,
        }
    }

    fn note(&self, live: &Live, about: About<'_>, session: i64, kept: (Said, Effect, String)) {
        let when = (self.zxid, self.time_ms, session);
        self.decisions.remember([decision(live, about, when, kept)]);
    }
}

/// [`proto::OpCode`]'s number of what a client says to authenticate.
const AUTH: u16 = 100;
/// How many parts of a module are read at a time: 4 MiB.
const PAGE_PARTS: usize = (4 << 20) / PART_BYTES_MAX;

/// A view, and what a call has written over it.
struct Beside<'v> {
    view: &'v View,
    written: BTreeMap<Vec<u8>, Option<Bytes>>,
    store_bytes: BTreeMap<u32, u64>,
}

impl<'v> Beside<'v> {
    fn new(view: &'v View) -> Self {
        Self { view, written: BTreeMap::new(), store_bytes: BTreeMap::new() }
    }
}

impl Ground for Beside<'_> {
    fn node(&mut self, path: &str) -> Result<Option<Arc<Znode>>, Fault> {
        self.view.node(path)
    }

    fn data(&mut self, path: &str, node: &Znode) -> Result<Option<Bytes>, Fault> {
        self.view.data(path, node)
    }

    fn children(&mut self, path: &str, after: &str, most: usize) -> Result<Vec<String>, Fault> {
        let (from, to) = children_after(path, after);
        let rows = self.view.rows.range(Keyspace::Nodes, &from, &to, most)?;
        Ok(rows.iter().filter_map(|(key, _)| keys::name_of(key)).map(str::to_owned).collect())
    }

    fn row(&mut self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.written.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.view.rows.get(Keyspace::Plugins, key),
        }
    }

    fn rows(&mut self, from: &[u8], to: &[u8], most: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let written: Vec<_> = self.written.range(from.to_vec()..to.to_vec()).collect();
        let rows = self.view.rows.range(Keyspace::Plugins, from, to, most + written.len())?;
        let mut rows: BTreeMap<Bytes, Bytes> = rows.into_iter().collect();
        for (key, value) in written {
            match value {
                Some(value) => rows.insert(Bytes::copy_from_slice(key), value.clone()),
                None => rows.remove(&key[..]),
            };
        }
        Ok(rows.into_iter().take(most).collect())
    }

    fn store_bytes(&mut self, id: u32) -> u64 {
        let stored = || self.view.counters.get(&id).map_or(0, |counters| counters.store_bytes);
        self.store_bytes.get(&id).copied().unwrap_or_else(stored)
    }

    fn put(
        &mut self,
        id: u32,
        key: Vec<u8>,
        value: Option<Bytes>,
        store_bytes: u64,
    ) -> Result<(), Fault> {
        self.store_bytes.insert(id, store_bytes);
        self.written.insert(key, value);
        Ok(())
    }
}

/// A write that guards in the shadow are to be asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadowed {
    operation: u16,
    path: String,
    data: Option<Bytes>,
    acl: Vec<Acl>,
    owner: Ownership,
    version: i32,
    before: Option<proto::Stat>,
    identities: Vec<Id>,
    index: u32,
    of_multi: u32,
    session: i64,
}

impl Shadowed {
    pub(super) fn of(operation: &Operation<'_>, session: i64) -> Self {
        Self {
            operation: operation.operation,
            path: operation.path.to_owned(),
            data: operation.data.map(Bytes::copy_from_slice),
            acl: operation.acl.to_vec(),
            owner: operation.owner,
            version: operation.version,
            before: operation.before.copied(),
            identities: operation.identities.to_vec(),
            index: operation.index,
            of_multi: operation.of_multi,
            session,
        }
    }
}
