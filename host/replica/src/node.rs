//! The Node: raft, the log, proposals, the liveness of sessions. A value that is stepped and
//! flushed; its thread only moves inputs and work.
//!
//! Invariants:
//! * Commands of this server are numbered without a gap, in the order of the log.
//! * All writes in hand go out with one sync, up to [`ROUND_BYTES_MAX`], and as one entry, up to
//!   [`BATCH_COMMANDS_MAX`] and [`BATCH_BYTES_MAX`], unless a read must come between (`packing.rs`).
//! * Nothing more is proposed while [`BACKLOG_ENTRIES_MAX`] entries wait to be applied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use state::{Batch, Command, Settings, Tagged, View};
use thiserror::Error;

use crate::input::{Input, Report, Work};
use crate::liveness::Liveness;
use crate::log::{Disk, Log, LogError, Position};
use crate::mutants::NodeMutants;
use crate::outbox::Ticket;
use crate::packing::{Item, Queued, pack};
use crate::raft::Raft;

/// How many commands one entry holds.
pub const BATCH_COMMANDS_MAX: usize = 1024;
/// How many bytes of payload one entry holds; one command may be longer.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// How many bytes of payload go out with one sync; one command may be longer.
pub const ROUND_BYTES_MAX: usize = 4 << 20;
/// How many entries may wait to be applied before nothing more is proposed.
pub const BACKLOG_ENTRIES_MAX: u64 = 64;
/// The raft id of a server that is alone.
const RAFT_ID: u64 = 1;

/// Who this server is, and its share of the configuration.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The server's id, 0 to 254.
    pub server: u32,
    /// A random number of this start.
    pub boot: u64,
    /// A random number that names the ensemble if this start founds it.
    pub cluster_id: u64,
    /// The cluster settings to found the ensemble with.
    pub settings: Settings,
    /// The log is trimmed when it is longer than this, in bytes.
    pub log_keep_bytes: u64,
}

/// Why a Node cannot go on.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The log failed; it must be reopened.
    #[error("{0}")]
    Log(#[from] LogError),
    /// Raft refused to start.
    #[error("raft cannot start: {0}")]
    Raft(String),
}

/// One server's part in the ensemble.
pub struct Node<D: Disk> {
    raft: Raft<D>,
    config: NodeConfig,
    liveness: Liveness,
    queue: VecDeque<Item>,
    sequence: u64,
    begun: bool,
    found: bool,
    time_ms: i64,
    committed: u64,
    applied: u64,
    durable: u64,
    mutants: NodeMutants,
}

impl<D: Disk> Node<D> {
    /// A node over a log and the state that goes with it (its view and its meta row).
    ///
    /// # Errors
    /// [`NodeError::Log`] if the state is not of this log.
    pub fn new(
        mut log: Log<D>,
        meta: &state::apply::Meta,
        sessions: Vec<(i64, state::apply::SessionRow)>,
        config: NodeConfig,
    ) -> Result<Self, NodeError> {
        let at = Position { index: meta.applied, term: meta.term };
        log.reconcile(at)?;
        let raft = Raft::new(log, RAFT_ID, meta.voters.clone(), meta.applied);
        let raft = raft.map_err(|e| NodeError::Raft(e.to_string()))?;
        let mut liveness = Liveness::default();
        let mut queue = VecDeque::new();
        for (session, row) in sessions {
            if row.closing {
                queue.push_back((Queued::Command(Command::ContinueClose { session }), None));
            } else {
                // After a start every session has its full timeout.
                liveness.attached(session, row.generation, row.timeout_ms, None);
            }
        }
        Ok(Self {
            raft,
            config,
            liveness,
            queue,
            sequence: 0,
            begun: false,
            found: meta.cluster_id == 0,
            time_ms: meta.time_ms,
            committed: meta.applied,
            applied: meta.applied,
            durable: 0,
            mutants: NodeMutants::default(),
        })
    }

    /// Plants bugs, for the tests that show that the tests find them. Never called in a server.
    pub fn with_mutants(mut self, mutants: NodeMutants) -> Self {
        self.raft.sync_late = mutants.acknowledge_before_sync;
        self.mutants = mutants;
        self
    }

    /// Takes one input.
    pub fn step(&mut self, input: Input) {
        match input {
            Input::Write { session, generation, identities, op, mut ticket } => {
                ticket.after_read &= !self.mutants.pack_past_reads;
                let write = Queued::Write { session, generation, identities, op };
                self.queue.push_back((write, Some(ticket)));
            }
            Input::Command { command, ticket } => {
                self.queue.push_back((Queued::Command(command), ticket));
            }
            Input::Durable(index) => self.durable = self.durable.max(index),
            Input::Report(report) => self.report(report),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Applied(index) => {
                self.applied = index;
                self.raft.applied(index);
            }
            Report::Attached { session, generation, timeout_ms, outbox } => {
                let early = self.mutants.expire_early;
                let timeout_ms = if early { timeout_ms / 2 } else { timeout_ms };
                self.liveness.attached(session, generation, timeout_ms, outbox);
            }
            Report::Closed(session) => self.liveness.closed(session),
            Report::Closing(session) => {
                self.liveness.closed(session);
                if self.mutants.forget_to_go_on_closing {
                    return;
                }
                let command = Queued::Command(Command::ContinueClose { session });
                self.queue.push_back((command, None));
            }
        }
    }

    /// A tick of raft and of the sessions, every 50 ms. `now_ms` is a monotonic clock.
    ///
    /// # Errors
    /// [`NodeError::Log`]: stop the server.
    pub fn tick(&mut self, now_ms: i64) -> Result<(), NodeError> {
        self.raft.tick();
        let at_ms = if self.mutants.expire_never { i64::MIN } else { now_ms };
        for (session, generation) in self.liveness.expired(at_ms) {
            tracing::info!(session = format_args!("{session:#x}"), "a session expired");
            // If it was attached again, and only the report of that is still on its way, it lives.
            let generation = Some(generation);
            let command = Command::CloseSession { session, generation };
            self.queue.push_back((Queued::Command(command), None));
        }
        let index = match self.mutants.trim_past_durable {
            false => self.durable.min(self.applied),
            true => self.applied,
        };
        if self.raft.log().bytes() > self.config.log_keep_bytes
            && index > self.raft.log().first_index() + 1
        {
            self.raft.trim(index)?;
        }
        Ok(())
    }

    /// How many sessions are alive.
    pub fn sessions(&self) -> usize {
        self.liveness.count()
    }

    /// Whether everything that was taken in is committed and applied.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.applied == self.committed
    }

    /// Proposes what is in hand, syncs the log once for up to [`ROUND_BYTES_MAX`], and gives what is
    /// committed. `clock_ms` is the wall clock.
    ///
    /// # Errors
    /// [`NodeError::Log`]: stop the server; nothing is retried on a file whose state is unknown.
    pub fn flush(&mut self, clock_ms: i64) -> Result<Work, NodeError> {
        let mut work = Work::default();
        if !self.begun && self.raft.is_leader() {
            self.begun = true;
            self.begin(clock_ms);
        }
        loop {
            let backlog = self.committed.saturating_sub(self.applied);
            let room = BACKLOG_ENTRIES_MAX.saturating_sub(backlog) as usize;
            let proposes = self.begun && !self.queue.is_empty() && room > 0;
            if proposes {
                self.propose_round(room, clock_ms, &mut work.expect);
            }
            work.entries.extend(self.raft.flush()?);
            self.committed = work.entries.last().map_or(self.committed, |(index, _, _)| *index);
            if !proposes {
                return Ok(work);
            }
        }
    }

    /// Proposes as much as goes out with one sync, in at most so many entries.
    fn propose_round(&mut self, most: usize, clock_ms: i64, expect: &mut Vec<(u64, Ticket)>) {
        let mut entries = pack(&mut self.queue, most).into_iter();
        while let Some(items) = entries.next() {
            if self.propose(items, clock_ms, expect) {
                continue;
            }
            // What came after it must not take effect without it.
            let waiting = entries.by_ref().flatten().filter_map(|(_, ticket)| ticket);
            waiting.for_each(|ticket| ticket.outbox.kill());
        }
    }

    /// The first commands of a start: who numbers them, and, once ever, who the ensemble is.
    fn begin(&mut self, clock_ms: i64) {
        let commands = [Some(Command::Origin), self.found.then(|| self.bootstrap())];
        let origins = vec![(self.config.server, self.config.boot)];
        let commands = commands.into_iter().flatten().enumerate();
        let commands: Vec<Tagged> = commands
            .map(|(at, command)| Tagged { origin: 0, sequence: at as u64, command })
            .collect();
        self.sequence = commands.len() as u64 - 1;
        self.time_ms = self.time_ms.max(clock_ms);
        let batch = Batch { time_ms: self.time_ms, origins, identities: Vec::new(), commands };
        let proposed = self.raft.propose(batch.encode());
        self.begun = proposed.is_ok();
    }

    fn bootstrap(&self) -> Command {
        let (cluster_id, settings) = (self.config.cluster_id, self.config.settings.clone());
        Command::Bootstrap { cluster_id, settings }
    }

    /// Makes an entry; false if raft refused it. Whoever waits for it is then disconnected.
    fn propose(
        &mut self,
        items: Vec<Item>,
        clock_ms: i64,
        expect: &mut Vec<(u64, Ticket)>,
    ) -> bool {
        self.time_ms = self.time_ms.max(clock_ms);
        let mut identities: Vec<Vec<(String, String)>> = Vec::new();
        let mut known: BTreeMap<usize, u32> = BTreeMap::new();
        let mut commands = Vec::with_capacity(items.len());
        let mut tickets = Vec::with_capacity(items.len());
        let mut sequence = self.sequence;
        for (queued, ticket) in items {
            sequence += 1;
            let command = match queued {
                Queued::Command(command) => command,
                Queued::Write { session, generation, identities: who, op } => {
                    let set = *known.entry(Arc::as_ptr(&who) as usize).or_insert_with(|| {
                        let set = who.iter().map(|id| (id.scheme.clone(), id.id.clone()));
                        identities.push(set.collect());
                        identities.len() as u32 - 1
                    });
                    Command::Write { session, generation, identities: set, op }
                }
            };
            tickets.extend(ticket.map(|ticket| (sequence, ticket)));
            commands.push(Tagged { origin: 0, sequence, command });
        }
        let origins = vec![(self.config.server, self.config.boot)];
        let batch = Batch { time_ms: self.time_ms, origins, identities, commands };
        if let Err(error) = self.raft.propose(batch.encode()) {
            tracing::error!(%error, "raft refused a batch; its clients are disconnected");
            tickets.iter().for_each(|(_, ticket)| ticket.outbox.kill());
            return false;
        }
        self.sequence = sequence;
        expect.extend(tickets);
        true
    }

    /// Containers and TTL nodes that may go, up to `most`.
    pub fn reap(&mut self, view: &View, clock_ms: i64, most: usize) -> Result<(), state::Fault> {
        for path in view.due(clock_ms, most)? {
            self.queue.push_back((Queued::Command(Command::Reap { path }), None));
        }
        Ok(())
    }
}
