//! Applies committed entries and publishes them. Runs on a thread of its own, so that a long apply
//! never costs the Node its place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use state::apply::Meta;
use state::snapshot::{Source, Staged};
use state::{Answer, Fault, Flush, Outcome, State};

use crate::digests::{COMPARED_EVERY, Digests, is_compared};
use crate::input::{Report, Wants, Work};
use crate::mutants::MachineMutants;
use crate::outbox::Ticket;
use crate::publish::Published;

/// The state and what it publishes to.
pub struct Machine {
    state: State,
    published: Arc<Published>,
    me: (u32, u64),
    waiting: VecDeque<(u64, Ticket)>,
    /// Reads that wait for the entry at an index.
    reads: BTreeMap<u64, Vec<Ticket>>,
    /// What the Node was told that plugins want; nothing yet of this state, if it is `None`.
    wants: Option<Wants>,
    /// Entries that cannot be applied here for now, oldest first; the server goes on trying.
    held: VecDeque<(u64, u64, Bytes)>,
    /// Whether the Node was told that there are some.
    told_held_up: bool,
    /// A clock that is never set, in microseconds; it decides nothing here.
    steady: Box<dyn FnMut() -> i64 + Send>,
    /// Whether the state is of no use: then nothing happens until another takes its place.
    is_shut: bool,
    /// Every so many entries the digests are compared.
    compared_every: u64,
    mutants: MachineMutants,
}

impl Machine {
    /// A machine over an open state; `me` is this server's id and boot.
    pub fn new(state: State, me: (u32, u64)) -> Self {
        let published = Published::new(state.view());
        let (waiting, reads, mutants) =
            (VecDeque::new(), BTreeMap::new(), MachineMutants::default());
        let steady = Box::new(|| 0);
        let (held, is_shut, compared_every) = (VecDeque::new(), false, COMPARED_EVERY);
        Self {
            state,
            published,
            me,
            waiting,
            reads,
            wants: None,
            held,
            told_held_up: false,
            steady,
            is_shut,
            compared_every,
            mutants,
        }
    }

    /// Has it tell the Node how long entries take, by this clock.
    pub fn with_clock(mut self, steady_us: impl FnMut() -> i64 + Send + 'static) -> Self {
        self.steady = Box::new(steady_us);
        self
    }

    /// Digests are compared every so many entries, on all servers the same.
    pub fn with_comparisons(mut self, every: u64) -> Self {
        self.compared_every = every;
        self
    }

    /// Plants bugs, for the tests that show that the tests find them. Never called in a server; the
    /// machine must be new.
    pub fn with_mutants(mut self, mutants: MachineMutants) -> Self {
        self.published = Published::with_mutants(self.state.view(), mutants);
        self.mutants = mutants;
        self
    }

    /// See [`State::misapply_once`].
    pub fn misapply_once(&mut self) {
        self.state.misapply_once();
    }

    /// Where its views go.
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether there are entries that cannot be applied here for now: [`Self::apply`] is to be called again
    /// and again, with nothing if there is nothing more.
    pub fn is_held_up(&self) -> bool {
        !self.held.is_empty()
    }

    /// See [`State::take_flush`].
    ///
    /// # Errors
    /// A [`Fault`] stops the server.
    pub fn take_flush(&mut self, begin: bool) -> Result<Option<Arc<Flush>>, Fault> {
        if self.is_shut { Ok(None) } else { self.state.take_flush(begin) }
    }

    /// See [`State::is_written`].
    pub fn is_written(&mut self) -> bool {
        self.state.is_written()
    }

    /// See [`State::source`].
    ///
    /// # Errors
    /// A [`Fault`] stops the server.
    pub fn source(&self) -> Result<Source, Fault> {
        self.state.source()
    }

    /// See [`State::sync`].
    ///
    /// # Errors
    /// A [`Fault`] stops the server.
    pub fn sync(&mut self) -> Result<(), Fault> {
        if self.is_shut { Ok(()) } else { self.state.sync() }
    }

    /// The state is of no use any more. What it was written stays as it is: it is evidence.
    fn shut(&mut self, why: &str) {
        self.is_shut = true;
        self.held.clear();
        self.published.wait_for(None);
        self.state.give_up();
        let waiting = self.waiting.drain(..).map(|(_, ticket)| ticket);
        let reads = std::mem::take(&mut self.reads).into_values().flatten();
        self.published.let_go(why, waiting.chain(reads).map(|ticket| ticket.outbox).collect());
    }

    /// Goes on with the state of a snapshot. What it has of this server's commands was done, but with
    /// what outcome is not known here: those who wait for it are let go with all clients.
    fn install(&mut self, staged: Staged, reports: &mut Vec<Report>) -> Result<(), Fault> {
        self.state.install(staged)?;
        self.is_shut = false;
        self.wants = None;
        let meta = self.state.meta().clone();
        self.held.retain(|(index, ..)| *index > meta.applied);
        self.published.wait_for(None);
        let view = self.state.view();
        let sessions = view.sessions()?;
        let taken = meta.taken_from(self.me);
        let is_done = |(number, _): &(u64, Ticket)| taken.is_some_and(|taken| *number <= taken);
        let mut unknown = Vec::new();
        while let Some((_, ticket)) = self.waiting.pop_front_if(|waits| is_done(waits)) {
            unknown.push(ticket.outbox);
        }
        tracing::info!(index = meta.applied, "goes on from a snapshot; clients must connect again");
        self.published.install(view, unknown);
        reports.push(Report::Installed { meta: Box::new(meta), sessions });
        Ok(())
    }

    /// Applies and publishes, one entry after the other. Where something stored is damaged, or is for a
    /// newer program, that is reported, and nothing more happens until another state takes this one's
    /// place.
    ///
    /// # Errors
    /// A [`Fault`] of the disk stops the server; nothing of the entry at fault was published.
    pub fn apply(&mut self, work: Work) -> Result<Vec<Report>, Fault> {
        let mut reports = Vec::new();
        match self.do_work(work, &mut reports) {
            Err(fault @ Fault::Damaged { .. }) => {
                let why = fault.to_string();
                self.shut(&why);
                reports.push(Report::Damaged(why));
                Ok(reports)
            }
            Err(fault @ Fault::Newer { .. }) => {
                let why = fault.to_string();
                self.shut(&why);
                reports.push(Report::Waits(why));
                Ok(reports)
            }
            done => done.map(|()| reports),
        }
    }

    fn do_work(&mut self, work: Work, reports: &mut Vec<Report>) -> Result<(), Fault> {
        if let Some(staged) = work.install {
            reports.push(Report::LeftState);
            self.install(staged, reports)?;
        }
        if let Some(quarantine) = work.quarantine {
            self.shut(&quarantine.why);
        }
        if self.is_shut && !self.mutants.serve_in_quarantine {
            let reads = work.reads.into_iter().flat_map(|(_, reads)| reads);
            let waiting = work.expect.into_iter().map(|(_, ticket)| ticket);
            waiting.chain(reads).for_each(|ticket| ticket.outbox.kill());
            return Ok(());
        }
        self.waiting.extend(work.expect);
        for (index, reads) in work.reads {
            let index = if self.mutants.read_unapplied { 0 } else { index };
            self.reads.entry(index).or_default().extend(reads);
        }
        self.confirm();
        let was_held_up = self.is_held_up();
        self.held.extend(work.entries);
        while let Some((index, term, payload)) = self.held.front().cloned() {
            let began_us = (self.steady)();
            let members = Arc::clone(&self.state.meta().members);
            let before_ms = self.state.meta().time_ms;
            let before = self.state.view();
            let applied = match self.state.apply(index, term, &payload) {
                Err(Fault::Waiting(why)) => {
                    if !was_held_up {
                        tracing::error!(
                            index,
                            why,
                            "an entry cannot be applied here; trying again"
                        );
                    }
                    self.published.wait_for(Some(why));
                    break;
                }
                applied => applied?,
            };
            self.held.pop_front();
            if was_held_up && self.held.is_empty() {
                tracing::info!(index, "entries are applied again");
                self.published.wait_for(None);
            }
            if !Arc::ptr_eq(&members, &self.state.meta().members) {
                reports.push(Report::Members(Box::new(self.state.meta().clone())));
            }
            let is_asked = payload.is_empty() || applied.is_idle;
            let own = applied.outcomes.iter().rev();
            let own = own.filter(|o| o.origin == self.me && o.answer != Answer::Skipped);
            let own = own.map(|outcome| outcome.sequence).next();
            let in_vain = |o: &Outcome| o.origin == self.me && o.answer == Answer::Skipped;
            let boot = self.state.meta().boot_of(self.me.0);
            if boot != self.me.1 && applied.outcomes.iter().any(in_vain) {
                reports.push(Report::Replaces(boot));
            }
            let (operations, time_ms) = (applied.operations, self.state.meta().time_ms);
            let view = self.state.view();
            if self.wants.is_none() || !Arc::ptr_eq(&view.plugins, &before.plugins) {
                let wants = Wants::of(&view.plugins);
                if self.wants.replace(wants) != Some(wants) {
                    reports.push(Report::Wants(wants));
                }
            }
            self.published.shadows().put(before, applied.shadowed);
            let (me, waiting) = (self.me, &mut self.waiting);
            self.published.publish(view, applied.outcomes, me, waiting, reports);
            let took_us = (self.steady)() - began_us;
            reports.push(Report::Applied { index, own, time_ms, operations, took_us });
            let Meta { digest: state, history, .. } = *self.state.meta();
            let every = self.compared_every;
            if is_compared(index, every, is_asked, (before_ms, time_ms)) {
                reports.push(Report::Digests { index, digests: Digests { state, history } });
            }
            self.confirm();
        }
        let is_held_up = self.is_held_up();
        if std::mem::replace(&mut self.told_held_up, is_held_up) != is_held_up {
            reports.push(Report::HeldUp(is_held_up));
        }
        Ok(())
    }

    /// Lets the reads go on that waited for what is applied now.
    fn confirm(&mut self) {
        let applied = self.state.meta().applied;
        while let Some(reads) = self.reads.first_entry().filter(|reads| *reads.key() <= applied) {
            self.published.confirm(&reads.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use state::command::PluginCommand;
    use state::plugins::{Exports, ModuleHash, Plugin, Point};
    use state::{Batch, Command, Group, Hooks, MemoryStore};

    use super::*;

    /// Nothing is compiled while it is set.
    struct Cold(Arc<AtomicBool>);

    impl Hooks for Cold {
        fn is_ready(&self, _: &Plugin) -> bool {
            !self.0.load(Ordering::Relaxed)
        }
    }

    fn entry(first: u64, commands: Vec<Command>) -> (u64, u64, Bytes) {
        let group = Group { origin: (1, 7), first, identities: Vec::new(), commands };
        let batch = Batch { groups: vec![group], present: vec![0], ..Batch::default() };
        (first + 1, 1, batch.encode().into())
    }

    fn applied(reports: &[Report]) -> Vec<u64> {
        let index = |report: &Report| match report {
            Report::Applied { index, .. } => Some(*index),
            _ => None,
        };
        reports.iter().filter_map(index).collect()
    }

    #[test]
    fn what_cannot_be_applied_for_now_is_held_and_tried_again() {
        let cold = Arc::new(AtomicBool::new(false));
        let (store, hooks) = (Box::new(MemoryStore::default()), Box::new(Cold(Arc::clone(&cold))));
        let mut machine =
            Machine::new(State::open(store, hooks, 1 << 20).expect("it opens"), (1, 7));
        let part = Bytes::from_static(b"module");
        let module = ModuleHash::of(&part);
        let text = r#"{"name": "p", "mode": "enforce", "match": ["/p/**"]}"#;
        let binding = serde_json::from_str(text).expect("it is a binding");
        let (name, generation, points) =
            ("p".to_owned(), 1, vec![Point::Authorizer, Point::Observer]);
        let result = Ok(Exports { points, is_stateless: true });
        let life = [
            PluginCommand::Upload { module, bytes: 6, offset: 0, part },
            PluginCommand::Stage { binding, module, after: None, if_unseen: false },
            PluginCommand::Report { server: 0, name: name.clone(), generation, result },
            PluginCommand::Activate { name, generation, wait_all: false },
        ];
        let mut entries = vec![entry(1, vec![Command::Origin { replaces: 0 }])];
        let life = life.into_iter().map(Command::Plugin).enumerate();
        entries.extend(life.map(|(at, command)| entry(2 + at as u64, vec![command])));
        let reports = machine.apply(Work { entries, ..Work::default() }).expect("it applies");
        assert_eq!(applied(&reports), [2, 3, 4, 5, 6]);
        assert!(
            reports
                .iter()
                .any(|report| matches!(report, Report::Wants(Wants { steps: true, time: true })))
        );
        assert!(machine.state().view().plugins.has_steps(), "its store is to be built");

        cold.store(true, Ordering::Relaxed);
        for first in [6, 7] {
            let entries = vec![entry(first, vec![Command::Plugin(PluginCommand::Step)])];
            let reports = machine.apply(Work { entries, ..Work::default() }).expect("it waits");
            assert_eq!(applied(&reports), [] as [u64; 0]);
            assert!(machine.is_held_up());
        }
        cold.store(false, Ordering::Relaxed);
        let reports = machine.apply(Work::default()).expect("it applies");
        assert_eq!(applied(&reports), [7, 8]);
        assert!(!machine.is_held_up());
        let said = reports.iter().filter_map(|report| match report {
            Report::Stepped => Some("stepped".to_owned()),
            Report::Wants(Wants { steps, .. }) => Some(format!("wants steps: {steps}")),
            _ => None,
        });
        assert_eq!(said.collect::<Vec<_>>(), ["stepped", "wants steps: false", "stepped"]);
    }
}
