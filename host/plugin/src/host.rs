//! The host's side of what a plugin imports.
//!
//! Invariant: what these functions are given stands in [`SCENE`] while a guest runs, and only then. It is lent
//! by the caller of the hook, so that no instance, however long it lives, holds anything of a transaction.

#![allow(
    unsafe_code,
    reason = "only in what `scoped_thread_local!` expands to: a borrow that ends with `set`"
)]

use proto::Id;
use scoped_tls_hkt::{ReborrowMut, scoped_thread_local};
use state::hooks::{Call, Env, EnvError};

use crate::bindings::vivarium::plugin::{context, log, store, tree, types};
use crate::guest::Guest;
use crate::sort::Stop;

/// Names that one call of `tree.children` gives.
const CHILDREN_MAX: u32 = 1000;

/// Pairs that one call of `store.scan` gives.
const SCAN_MAX: u32 = 256;

/// What surrounds a call of a guest.
pub(crate) struct Scene<'a> {
    pub(crate) call: &'a Call<'a>,
    /// Who asks.
    pub(crate) identities: &'a [Id],
    pub(crate) env: &'a mut dyn Env,
}

impl<'a> ReborrowMut<'a> for Scene<'_> {
    type Result = Scene<'a>;

    fn reborrow_mut(&'a mut self) -> Scene<'a> {
        Scene { call: self.call, identities: self.identities, env: &mut *self.env }
    }
}

scoped_thread_local!(static mut SCENE: for<'a> Scene<'a>);

/// Runs a guest with this around it.
pub(crate) fn set_scene<R>(scene: Scene<'_>, run: impl FnOnce() -> R) -> R {
    SCENE.set(scene, run)
}

/// Asks what surrounds the call.
fn ask<R>(question: impl FnOnce(Scene<'_>) -> Result<R, EnvError>) -> wasmtime::Result<R> {
    SCENE.with(question).map_err(|error| Stop(error).into())
}

impl types::Host for Guest {}

impl tree::Host for Guest {
    fn get(&mut self, path: String) -> wasmtime::Result<Option<tree::Node>> {
        self.called(path.len())?;
        let Some(node) = ask(|scene| scene.env.node(&path))? else { return Ok(None) };
        self.returned(node.data.as_ref().map_or(0, |data| data.len()))?;
        let data = node.data.map(|data| data.to_vec());
        Ok(Some(tree::Node { data, stat: stat(&node.stat) }))
    }

    fn exists(&mut self, path: String) -> wasmtime::Result<Option<types::Stat>> {
        self.called(path.len())?;
        Ok(ask(|scene| scene.env.stat(&path))?.as_ref().map(stat))
    }

    fn children(
        &mut self,
        path: String,
        after: String,
        most: u32,
    ) -> wasmtime::Result<Option<Vec<String>>> {
        self.called(path.len() + after.len())?;
        let most = most.min(CHILDREN_MAX) as usize;
        let names = ask(|scene| scene.env.children(&path, &after, most))?;
        self.returned(names.iter().flatten().map(String::len).sum())?;
        Ok(names)
    }
}

impl store::Host for Guest {
    fn get(&mut self, key: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        self.called(key.len())?;
        let value = ask(|scene| scene.env.get(&key))?;
        self.returned(value.as_ref().map_or(0, Vec::len))?;
        Ok(value)
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> wasmtime::Result<()> {
        self.called(key.len() + value.len())?;
        ask(|scene| scene.env.put(&key, Some(&value)))
    }

    fn delete(&mut self, key: Vec<u8>) -> wasmtime::Result<()> {
        self.called(key.len())?;
        ask(|scene| scene.env.put(&key, None))
    }

    fn add(&mut self, key: Vec<u8>, delta: i64) -> wasmtime::Result<i64> {
        self.called(key.len())?;
        ask(|scene| scene.env.add(&key, delta))
    }

    fn scan(
        &mut self,
        start: Vec<u8>,
        end: Vec<u8>,
        most: u32,
    ) -> wasmtime::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.called(start.len() + end.len())?;
        let most = most.min(SCAN_MAX) as usize;
        let pairs = ask(|scene| scene.env.scan(&start, &end, most))?;
        self.returned(pairs.iter().map(|(key, value)| key.len() + value.len()).sum())?;
        Ok(pairs)
    }
}

impl context::Host for Guest {
    fn settings(&mut self) -> wasmtime::Result<Vec<u8>> {
        let settings = ask(|scene| Ok(scene.call.plugin.binding.settings.clone().into_bytes()))?;
        self.called(settings.len())?;
        Ok(settings)
    }

    fn time_ms(&mut self) -> wasmtime::Result<i64> {
        self.called(0)?;
        ask(|scene| Ok(scene.call.time_ms))
    }

    fn zxid(&mut self) -> wasmtime::Result<i64> {
        self.called(0)?;
        ask(|scene| Ok(scene.call.zxid))
    }

    fn session(&mut self) -> wasmtime::Result<i64> {
        self.called(0)?;
        ask(|scene| Ok(scene.call.session))
    }

    fn identities(&mut self) -> wasmtime::Result<Vec<types::IdentityResult>> {
        let identities =
            ask(|scene| Ok(scene.identities.iter().map(identity).collect::<Vec<_>>()))?;
        self.called(identities.iter().map(|who| who.scheme.len() + who.id.len()).sum())?;
        Ok(identities)
    }

    fn seed(&mut self) -> wasmtime::Result<u64> {
        self.called(0)?;
        ask(|scene| Ok(scene.call.seed))
    }
}

impl log::Host for Guest {
    fn line(&mut self, text: String) -> wasmtime::Result<()> {
        self.called(text.len())?;
        if let Some(left) = self.lines_left.checked_sub(1) {
            self.lines_left = left;
            ask(|scene| {
                let most = scene.call.plugin.limits.log_line_bytes as usize;
                scene.env.log(&text[..text.floor_char_boundary(most)]);
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn identity(id: &Id) -> types::IdentityResult {
    types::IdentityResult { scheme: id.scheme.clone(), id: id.id.clone() }
}

/// A stat as plugins see it.
pub(crate) fn stat(stat: &proto::Stat) -> types::Stat {
    types::Stat {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        pzxid: stat.pzxid,
        ctime: stat.ctime,
        mtime: stat.mtime,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        ephemeral_owner: stat.ephemeral_owner,
        data_length: stat.data_length.max(0) as u32,
        num_children: stat.num_children.max(0) as u32,
    }
}
