//! How a state begins: out of a store, out of nothing, or out of another server's snapshot.
//!
//! Invariants:
//! * What a state begins with is durable: the log may be trimmed up to there.
//! * What is kept in memory beside the rows follows from them alone.

use std::sync::Arc;

use smallvec::SmallVec;

use super::birth::birth;
use super::{Meta, PluginParts, State, is_known, make_view};
use crate::acls::{self, AclTable};
use crate::alive::AliveViews;
use crate::cache::NodeCache;
use crate::fault::Fault;
use crate::flush::{GATHER_BYTES_MAX, Gathering};
use crate::hooks::Hooks;
use crate::keys::{self, Keyspace};
use crate::members::Members;
use crate::mutants::StateMutants;
use crate::ops::session;
use crate::plugins::{Decisions, Registry};
use crate::quota::{self, QuotaPaths};
use crate::recent::Rows;
use crate::snapshot::Staged;
use crate::store::Store;
use crate::view::View;

impl State {
    /// Opens the state in a store; an empty store becomes the state at [`super::BIRTH`], with one voter.
    ///
    /// # Errors
    /// [`Fault::Newer`] if a newer program wrote it, any other [`Fault`] if the store fails.
    pub fn open(
        store: Box<dyn Store>,
        hooks: Box<dyn Hooks>,
        cache_bytes: usize,
    ) -> Result<Self, Fault> {
        Self::open_or_found(store, hooks, cache_bytes, &Members::founders(&[1]))
    }

    /// The same; an empty store becomes that of an ensemble of these founders. With none of them it is
    /// that of a server that waits for a snapshot.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_or_found(
        store: Box<dyn Store>,
        hooks: Box<dyn Hooks>,
        cache_bytes: usize,
        founders: &Members,
    ) -> Result<Self, Fault> {
        let (store, hooks): (Arc<dyn Store>, Arc<dyn Hooks>) = (Arc::from(store), Arc::from(hooks));
        Self::open_with(store, hooks, cache_bytes, founders, Arc::default())
    }

    fn open_with(
        store: Arc<dyn Store>,
        hooks: Arc<dyn Hooks>,
        cache_bytes: usize,
        founders: &Members,
        decisions: Arc<Decisions>,
    ) -> Result<Self, Fault> {
        let acls = Arc::new(AclTable::new());
        let meta = match Meta::read(store.as_ref())? {
            None => birth(store.as_ref(), &acls, founders)?,
            Some(meta) => meta,
        };
        is_known(meta.settings.apply_version, hooks.apply_version())?;
        // What it starts from is durable: the log may be trimmed up to there.
        store.sync()?;
        for (key, row) in store.view().range(Keyspace::Acls, &[0], &[0xff; 5], usize::MAX)? {
            let id = key.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
            let (Some(id), Some(acl)) = (id, acls::decode(&row)) else {
                let why = "an ACL cannot be decoded".to_owned();
                return Err(Fault::Damaged { keyspace: "acls", why });
            };
            acls.insert(id, acl);
        }
        let cache = Arc::new(NodeCache::new(cache_bytes));
        let (base, base_index) = (store.view(), meta.applied);
        let rows = Rows {
            index: base_index,
            base: Arc::clone(&base),
            base_index,
            recent: SmallVec::new(),
        };
        let (plugins, counters) = Registry::load(&rows, &meta.settings.plugins)?;
        if plugins.len() != meta.bindings as usize {
            let why = format!("there are not {} bindings", meta.bindings);
            return Err(Fault::Damaged { keyspace: "plugins", why });
        }
        let (registry, counters) = (Arc::new(plugins), Arc::new(counters));
        let plugins = PluginParts { registry, counters, decisions, hooks: Arc::clone(&hooks) };
        let view = Arc::new(make_view(&meta, rows, cache, Arc::default(), acls, plugins));
        let (sessions, quotas) = in_memory(&view)?;
        let alive = AliveViews::new(&view);
        Ok(Self {
            store,
            hooks,
            ready: Arc::default(),
            skips: Vec::new(),
            base,
            base_index,
            writing: None,
            taken: false,
            gathering: Gathering { number: 1, ..Gathering::default() },
            gather_bytes_max: GATHER_BYTES_MAX,
            view,
            alive,
            meta,
            sessions,
            quotas,
            mutants: StateMutants::default(),
        })
    }

    /// Goes on with the state of a snapshot in place of this one.
    ///
    /// # Errors
    /// As [`Self::open`]; the server must then stop.
    pub fn install(&mut self, staged: Staged) -> Result<(), Fault> {
        let (store, hooks): (Arc<dyn Store>, _) =
            (Arc::from(staged.store), Arc::clone(&self.hooks));
        let decisions = Arc::clone(&self.view.decisions);
        let (cache_bytes, founders) = (self.view.cache.bytes_max(), Members::founders(&[1]));
        let new = Self::open_with(store, hooks, cache_bytes, &founders, decisions)?;
        self.give_up();
        let mutants = StateMutants { misapply: false, ..self.mutants };
        let (gather_bytes_max, skips) = (self.gather_bytes_max, std::mem::take(&mut self.skips));
        *self = new.with_gather_bytes(gather_bytes_max).with_mutants(mutants);
        self.skips = skips;
        Ok(())
    }
}

/// What is kept in memory beside the rows: the sessions, and the paths with quotas.
pub(super) fn in_memory(view: &View) -> Result<(session::Sessions, QuotaPaths), Fault> {
    let mut quotas = QuotaPaths::default();
    let range = keys::below_children(quota::ROOT);
    view.scan(Keyspace::Nodes, range, |key, _| {
        keys::path_of(key).iter().for_each(|path| quotas.created(path));
    })?;
    quotas.settle();
    Ok((view.sessions()?.into_iter().collect(), quotas))
}
