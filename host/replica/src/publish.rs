//! The published view, and the lock that makes four things one step: to swap the view, to queue
//! the events of a change, to fill the slots of its writes, and to give the view to the reads that
//! waited for those.
//!
//! A read that waits for nothing takes its view, its slot and its watch under the shared side. So a
//! watch is registered before or after an entry as a whole, together with the view that is read.
//! Under the exclusive side there are look-ups in memory only: no store is read, nothing is encoded,
//! nobody is woken. Locks are taken in this order: the view, the watches, the sessions that this server
//! counts by itself, an outbox.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use proto::connect::PASSWORD_BYTES;
use proto::{Acl, EventType};
use state::snapshot::Source;
use state::{Answer, Change, Outcome, PluginDone, View};

use crate::audit::Audit;
use crate::input::Report;
use crate::mutants::MachineMutants;
use crate::outbox::{Attached, Event, Outbox, Ticket};
use crate::own_sessions::{Admission, Asks, Closing, OwnSessions, Reach};
use crate::shadows::Shadows;
use crate::watches::{Hears, Table, WatchTable};

/// What the connections of a server see.
pub struct Published {
    view: RwLock<Arc<View>>,
    watches: Mutex<WatchTable>,
    /// The connection of each session that is served here.
    sessions: Mutex<HashMap<i64, Arc<Outbox>>>,
    /// Those that this server counts by itself.
    own: Mutex<OwnSessions>,
    /// Clients that wait for the end of a close that takes several entries.
    closing: Mutex<HashMap<i64, Ticket>>,
    /// The store as it was when it was last made durable, for operators who save a snapshot.
    durable: Mutex<Option<Arc<Source>>>,
    /// Why nobody is served, if that is so. Locked after the view.
    shut: Mutex<Option<Arc<str>>>,
    /// What is missing here for the next entry, if something is.
    waits_for: Mutex<Option<String>>,
    /// What somebody found to be damaged who read.
    damage: Mutex<Option<String>>,
    /// Whether one of them waits for a newer one.
    awaited: AtomicBool,
    /// Who is told of writes.
    audit: OnceLock<Arc<dyn Audit>>,
    shadows: Shadows,
    mutants: MachineMutants,
}

impl Published {
    /// Publishes a first view.
    pub fn new(view: Arc<View>) -> Arc<Self> {
        Self::with_mutants(view, MachineMutants::default())
    }

    /// The same, with planted bugs.
    pub(crate) fn with_mutants(view: Arc<View>, mutants: MachineMutants) -> Arc<Self> {
        Arc::new(Self {
            view: RwLock::new(view),
            watches: Mutex::new(WatchTable::with_mutants(mutants)),
            sessions: Mutex::default(),
            own: Mutex::new(OwnSessions::with_mutants(mutants)),
            closing: Mutex::default(),
            durable: Mutex::default(),
            shut: Mutex::default(),
            waits_for: Mutex::default(),
            damage: Mutex::default(),
            awaited: AtomicBool::new(false),
            audit: OnceLock::new(),
            shadows: Shadows::default(),
            mutants,
        })
    }

    /// Has writes told of from now on; the first call counts.
    pub fn put_audit(&self, audit: Arc<dyn Audit>) {
        self.audit.get_or_init(|| audit);
    }

    /// Who is told of writes.
    pub fn audit(&self) -> Option<&Arc<dyn Audit>> {
        self.audit.get()
    }

    /// The view as it is now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Runs `step` with the view while no change can be published.
    pub(crate) fn with_view<T>(&self, step: impl FnOnce(&Arc<View>) -> T) -> T {
        step(&self.view.read())
    }

    /// There is a newer picture of the store.
    pub fn put_durable(&self, source: Arc<Source>) {
        let mut durable = self.durable.lock();
        // Nobody is to have one that is of no use.
        if self.shut.lock().is_some() {
            return;
        }
        if durable.as_ref().is_none_or(|known| known.meta().applied < source.meta().applied) {
            *durable = Some(source);
        }
    }

    /// The store, if it has the entry at this index.
    pub(crate) fn durable(&self, index: u64) -> Option<Arc<Source>> {
        let found = self.durable.lock().clone().filter(|s| s.meta().applied >= index);
        if found.is_none() {
            self.awaited.store(true, Ordering::Relaxed);
        }
        found
    }

    /// Up to which zxid the store is durable, and the time of that, in milliseconds since the epoch.
    pub fn last_durable(&self) -> Option<(i64, i64)> {
        self.durable.lock().as_ref().map(|source| (source.meta().zxid, source.meta().time_ms))
    }

    /// Whether somebody has waited for a newer one since the last call.
    pub fn take_awaited(&self) -> bool {
        self.awaited.swap(false, Ordering::Relaxed)
    }

    /// Why nobody is served, if that is so.
    pub fn shut(&self) -> Option<Arc<str>> {
        self.shut.lock().clone()
    }

    /// What of this server's own is missing for the entry that is to be applied next, such as a compiled
    /// module, if something is.
    pub fn waits_for(&self) -> Option<String> {
        self.waits_for.lock().clone()
    }

    pub(crate) fn wait_for(&self, what: Option<String>) {
        *self.waits_for.lock() = what;
    }

    /// Serves nobody from now on, until the state of a snapshot is published: the state is of no use.
    /// All clients are let go, and find another server.
    pub fn shut_down(&self, why: &str) {
        self.let_go(why, Vec::new());
    }

    /// The same, and these clients too.
    pub(crate) fn let_go(&self, why: &str, more: Vec<Arc<Outbox>>) {
        if self.mutants.serve_in_quarantine {
            return;
        }
        let current = self.view.write();
        *self.shut.lock() = Some(why.into());
        *self.durable.lock() = None;
        let gone = self.take_clients(more);
        gone.iter().for_each(|outbox| outbox.inner.lock().dead = true);
        drop(current);
        gone.iter().for_each(|outbox| outbox.wake());
    }

    /// Whoever is connected, or waits, as far as is known here.
    fn take_clients(&self, more: Vec<Arc<Outbox>>) -> Vec<Arc<Outbox>> {
        let connected = std::mem::take(&mut *self.sessions.lock());
        let closing = std::mem::take(&mut *self.closing.lock());
        let closing = closing.into_values().map(|ticket| ticket.outbox);
        connected.into_values().chain(closing).chain(more).collect()
    }

    /// Somebody who read found something damaged. That counts for the state that is published, if the
    /// view that was read is of that state.
    pub(crate) fn found_damage(&self, what: String, read: &View) {
        let current = self.view.read();
        if current.is_of_same_state(read) {
            self.damage.lock().get_or_insert(what);
        }
    }

    /// What was found to be damaged since the last call, by those who read.
    pub fn take_damage(&self) -> Option<String> {
        self.damage.lock().take()
    }

    /// What guards in the shadow are still to be asked about.
    pub fn shadows(&self) -> &Shadows {
        &self.shadows
    }

    /// The watch table.
    pub fn watches(&self) -> parking_lot::MutexGuard<'_, WatchTable> {
        self.watches.lock()
    }

    /// The sessions that are connected here.
    pub fn connected(&self) -> Vec<(i64, Arc<Outbox>)> {
        let mut all: Vec<_> =
            self.sessions.lock().iter().map(|(id, outbox)| (*id, Arc::clone(outbox))).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// Forgets a connection that has ended.
    pub fn disconnect(&self, outbox: &Arc<Outbox>) {
        // Nothing is published meanwhile, and what is published later finds no read to set a watch for.
        let mut watches = self.watches.lock();
        watches.disconnect(outbox.id);
        let reads = outbox.forget_reads();
        drop(watches);
        drop(reads);
        self.own.lock().waits_no_more(outbox);
        let attached = outbox.inner.lock().attached;
        if let Some(Attached { session, .. }) = attached {
            let mut sessions = self.sessions.lock();
            if sessions.get(&session).is_some_and(|known| known.id == outbox.id) {
                sessions.remove(&session);
            }
        }
    }

    /// How this server stands to its ensemble, as its Node has found with a tick at `now_ms`, by a clock
    /// that is never set: see [`Reach`].
    pub fn look(&self, now_ms: i64, reach: Reach) {
        self.own.lock().look(now_ms, reach);
    }

    /// Whether the server is read-only.
    pub fn is_read_only(&self) -> bool {
        self.own.lock().is_read_only()
    }

    /// How many sessions no other server knows.
    pub fn local_sessions(&self) -> usize {
        self.own.lock().local()
    }

    /// Gives a connection its session, if that is for this server alone to do.
    pub(crate) fn admit(
        &self,
        outbox: &Arc<Outbox>,
        asks: &Asks,
        make: &mut dyn FnMut() -> (i64, [u8; PASSWORD_BYTES]),
    ) -> Admission {
        // So that whoever lets all clients go, because of the state, finds this one too.
        let view = self.view.read();
        if self.shut.lock().is_some() {
            return Admission::Elsewhere;
        }
        let mut own = self.own.lock();
        let admission = own.admit(&view, outbox, asks, make).unwrap_or_else(|fault| {
            tracing::error!(%fault, "a session cannot be read; its client is let go");
            self.damage.lock().get_or_insert(fault.to_string());
            Admission::Elsewhere
        });
        if let Admission::Here { attached, .. } = &admission {
            outbox.inner.lock().attached = Some(*attached);
            let before = self.sessions.lock().insert(attached.session, Arc::clone(outbox));
            before.iter().for_each(|before| before.kill());
        }
        admission
    }

    /// See [`OwnSessions::upgrade`].
    pub(crate) fn upgrade(
        &self,
        session: i64,
        outbox: &Outbox,
    ) -> Option<([u8; PASSWORD_BYTES], i32)> {
        self.own.lock().upgrade(session, outbox)
    }

    /// See [`OwnSessions::close`].
    pub(crate) fn close(&self, session: i64, outbox: &Outbox) -> Closing {
        self.own.lock().close(session, outbox)
    }

    /// Publishes what one entry did. `waiting` are the commands of this server (`me`) whose answers
    /// are expected, in order.
    pub(crate) fn publish(
        &self,
        view: Arc<View>,
        outcomes: Vec<Outcome>,
        me: (u32, u64),
        waiting: &mut VecDeque<(u64, Ticket)>,
        reports: &mut Vec<Report>,
    ) {
        let mut wake: Vec<Arc<Outbox>> = Vec::new();
        // Whose reads waited for a write of this entry.
        let mut waited: Vec<Arc<Outbox>> = Vec::new();
        let mut current = self.view.write();
        // The old view is dropped after the lock: freeing it takes time.
        let old = std::mem::replace(&mut *current, view);
        let mut watches = self.watches.lock();
        for outcome in outcomes {
            let ticket = match waiting.front() {
                // One that was skipped came too early, or twice: it is answered when it is taken.
                Some((sequence, _))
                    if outcome.origin == me
                        && *sequence == outcome.sequence
                        && outcome.answer != Answer::Skipped =>
                {
                    waiting.pop_front().map(|(_, ticket)| ticket)
                }
                _ => None,
            };
            if let Some(audit) = self.audit.get() {
                tell_of_ephemerals(&**audit, &outcome);
            }
            for change in &outcome.changes {
                self.change(
                    change,
                    outcome.zxid,
                    ticket.as_ref(),
                    &mut watches,
                    &mut wake,
                    reports,
                );
            }
            if let Answer::Closing { session } = outcome.answer {
                reports.push(Report::Closing(session));
                // Its client is answered with the last of the ephemerals.
                self.closing.lock().extend(ticket.map(|ticket| (session, ticket)));
                continue;
            }
            if let Answer::Plugin(Ok(PluginDone::Stepped(_))) = outcome.answer {
                reports.push(Report::Stepped);
            }
            if let Some(ticket) = ticket {
                if ticket.fill(outcome.zxid, outcome.answer) {
                    waited.push(Arc::clone(&ticket.outbox));
                }
                wake.push(ticket.outbox);
            }
        }
        for outbox in waited {
            outbox.take_waiting(&current, &mut watches);
        }
        drop(watches);
        drop(current);
        drop(old);
        for outbox in wake {
            outbox.wake();
        }
    }

    /// Publishes the state of a snapshot. What changed in between is not known, so that no watch could
    /// be told of it: all clients are let go, and set their watches again where they go next.
    pub(crate) fn install(&self, view: Arc<View>, more: Vec<Arc<Outbox>>) {
        let mut current = self.view.write();
        let old = std::mem::replace(&mut *current, view);
        let gone = self.take_clients(more);
        (*self.shut.lock(), *self.damage.lock()) = (None, None);
        if !self.mutants.keep_clients_over_snapshot {
            gone.iter().for_each(|outbox| outbox.inner.lock().dead = true);
        }
        drop(current);
        drop(old);
        gone.iter().for_each(|outbox| outbox.wake());
    }

    /// Reads that waited for this server to catch up take the view, as soon as nothing of their session
    /// is open before them. Only the one who publishes calls this.
    pub(crate) fn confirm(&self, reads: &[Ticket]) {
        let current = self.view.read();
        let mut watches = self.watches.lock();
        for ticket in reads {
            if ticket.confirm() {
                ticket.outbox.take_waiting(&current, &mut watches);
            }
        }
        drop(watches);
        drop(current);
        reads.iter().for_each(|ticket| ticket.outbox.wake());
    }

    fn change(
        &self,
        change: &Change,
        zxid: i64,
        ticket: Option<&Ticket>,
        watches: &mut WatchTable,
        wake: &mut Vec<Arc<Outbox>>,
        reports: &mut Vec<Report>,
    ) {
        let mut tell = |heard: Vec<Hears>, kind, path: &dyn Fn() -> Arc<str>, acl: &Arc<[Acl]>| {
            if heard.is_empty() {
                return;
            }
            let path = path();
            for Hears { outbox, since } in heard {
                let (path, acl) = (Arc::clone(&path), Arc::clone(acl));
                let event = Event { kind, path, zxid, acl, since };
                match self.mutants.event_after_reply {
                    false => outbox.insert(event),
                    true => outbox.insert_last(event),
                }
                if !self.mutants.forget_to_wake {
                    wake.push(outbox);
                }
            }
        };
        match change {
            Change::Created { path, acl, parent_acl } => {
                let kind = EventType::NodeCreated;
                tell(watches.fire(Table::Data, path, kind), kind, &|| Arc::clone(path), acl);
                let (parent, heard) = watches.fire_parent(path);
                tell(heard, EventType::NodeChildrenChanged, &|| parent.into(), parent_acl);
            }
            Change::Deleted { path, acl, parent_acl } => {
                let heard = watches.fire_deleted(path);
                tell(heard, EventType::NodeDeleted, &|| Arc::clone(path), acl);
                if self.mutants.lose_child_event {
                    return;
                }
                let (parent, heard) = watches.fire_parent(path);
                tell(heard, EventType::NodeChildrenChanged, &|| parent.into(), parent_acl);
            }
            Change::DataSet { path, acl } => {
                let kind = EventType::NodeDataChanged;
                tell(watches.fire(Table::Data, path, kind), kind, &|| Arc::clone(path), acl);
            }
            Change::SessionAttached { session, timeout_ms, generation } => {
                let outbox = ticket.map(|ticket| Arc::clone(&ticket.outbox));
                if let Some(outbox) = outbox.as_ref().filter(|_| self.shut.lock().is_some()) {
                    outbox.inner.lock().dead = true;
                }
                let mut own = self.own.lock();
                own.decided(*session);
                outbox.iter().for_each(|outbox| own.waits_no_more(outbox));
                let mut sessions = self.sessions.lock();
                let before = match &outbox {
                    Some(outbox) => sessions.insert(*session, Arc::clone(outbox)),
                    None => sessions.remove(session),
                };
                drop(own);
                // One whose local session was made known to all goes on.
                let id = outbox.as_ref().map(|outbox| outbox.id);
                if let Some(before) = before.filter(|before| Some(before.id) != id) {
                    before.inner.lock().dead = true;
                    wake.push(before);
                }
                let (session, generation, timeout_ms) = (*session, *generation, *timeout_ms);
                reports.push(Report::Attached { session, generation, timeout_ms, outbox });
            }
            Change::SessionClosing { .. } => {}
            Change::SessionClosed { session } => {
                reports.push(Report::Closed(*session));
                self.own.lock().decided(*session);
                let asked = self.closing.lock().remove(session);
                if let Some(asked) = &asked {
                    asked.fill(zxid, Answer::Done);
                }
                if let Some(outbox) = self.sessions.lock().remove(session) {
                    // Its own close is answered first; any other end of the session is an expiry.
                    if asked.or_else(|| ticket.cloned()).is_none_or(|t| t.outbox.id != outbox.id) {
                        outbox.inner.lock().dead = true;
                    }
                    wake.push(outbox);
                }
            }
        }
    }
}

/// Tells of what a session took with it.
fn tell_of_ephemerals(audit: &dyn Audit, outcome: &Outcome) {
    let closed = outcome.changes.iter().find_map(|change| match change {
        Change::SessionClosed { session } => Some(*session),
        _ => None,
    });
    let closing = match outcome.answer {
        Answer::Closing { session } => Some(session),
        _ => closed,
    };
    let Some(session) = closing else { return };
    for change in &outcome.changes {
        if let Change::Deleted { path, .. } = change {
            audit.ephemeral_deleted(session, path);
        }
    }
}

#[cfg(test)]
mod tests {
    use state::{MemoryStore, NoHooks, State};

    use super::*;

    fn view() -> Arc<View> {
        let store = Box::new(MemoryStore::default());
        State::open(store, Box::new(NoHooks), 1 << 20).expect("it opens").view()
    }

    #[test]
    fn damage_counts_against_the_state_that_was_read() {
        let (old, new) = (view(), view());
        let published = Published::new(Arc::clone(&old));
        let finds = |read: &View| {
            published.found_damage("a row".to_owned(), read);
            published.take_damage()
        };
        assert_eq!(finds(&old).as_deref(), Some("a row"));
        published.install(Arc::clone(&new), Vec::new());
        assert_eq!(finds(&old), None, "another state took its place");
        assert_eq!(finds(&new).as_deref(), Some("a row"));
    }
}
