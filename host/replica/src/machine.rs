//! Applies committed entries and publishes them. Runs on a thread of its own, so that a long apply
//! never costs the Node its place.

use std::collections::VecDeque;
use std::sync::Arc;

use state::{Answer, Fault, Flush, State};

use crate::input::{Report, Work};
use crate::mutants::MachineMutants;
use crate::outbox::Ticket;
use crate::publish::Published;

/// The state and what it publishes to.
pub struct Machine {
    state: State,
    published: Arc<Published>,
    me: (u32, u64),
    waiting: VecDeque<(u64, Ticket)>,
}

impl Machine {
    /// A machine over an open state; `me` is this server's id and boot.
    pub fn new(state: State, me: (u32, u64)) -> Self {
        let published = Published::new(state.view());
        Self { state, published, me, waiting: VecDeque::new() }
    }

    /// Plants bugs, for the tests that show that the tests find them. Never called in a server; the
    /// machine must be new.
    pub fn with_mutants(mut self, mutants: MachineMutants) -> Self {
        self.published = Published::with_mutants(self.state.view(), mutants);
        self
    }

    /// Where its views go.
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// See [`State::take_flush`].
    ///
    /// # Errors
    /// A [`Fault`] stops the server.
    pub fn take_flush(&mut self, begin: bool) -> Result<Option<Arc<Flush>>, Fault> {
        self.state.take_flush(begin)
    }

    /// See [`State::sync`].
    ///
    /// # Errors
    /// A [`Fault`] stops the server.
    pub fn sync(&mut self) -> Result<(), Fault> {
        self.state.sync()
    }

    /// Applies and publishes, one entry after the other.
    ///
    /// # Errors
    /// A [`Fault`] stops the server; nothing of the entry at fault was published.
    pub fn apply(&mut self, work: Work) -> Result<Vec<Report>, Fault> {
        self.waiting.extend(work.expect);
        let mut reports = Vec::new();
        for (index, term, payload) in work.entries {
            let applied = self.state.apply(index, term, &payload)?;
            let own = applied.outcomes.iter().rev();
            let own = own.filter(|o| o.origin == self.me && o.answer != Answer::Skipped);
            let own = own.map(|outcome| outcome.sequence).next();
            let view = self.state.view();
            let (me, waiting) = (self.me, &mut self.waiting);
            self.published.publish(view, applied.outcomes, me, waiting, &mut reports);
            reports.push(Report::Applied { index, own });
        }
        Ok(reports)
    }
}
