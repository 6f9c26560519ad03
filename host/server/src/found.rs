//! What a data directory holds: data to go on with, or what is wrong with it.
//!
//! | what is found | where there are other servers | alone |
//! |---|---|---|
//! | nothing | it founds an ensemble with them, or is let in | it begins |
//! | log and state | it takes part | it serves |
//! | a log, and a state of no use | it takes part without serving, and gets another's state | it refuses |
//! | no log, or one of no use, where it has taken part | it is let in anew, with another id for raft | it refuses |
//!
//! Invariants:
//! * A log that was shortened, or that is not of the state beside it, is of no use: whoever votes with it
//!   could undo what it has acknowledged.
//! * Nothing is changed here but that a state of no use is put in quarantine, where there are others.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use replica::log::{Entry, Log, LogError, Mismatch, Options, Position, RealDisk};
use replica::raft::payload;
use replica::{Marked, Quarantine};
use state::apply::{BIRTH, Meta};
use state::{Fault, FjallStore, Members, MemoryStore, State, Store};

use crate::config::Config;
use crate::identity::{self, Identity};
use crate::peers;
use crate::plugins::{Host, compile};
use crate::repair::{self, Repair};
use crate::stores::Stores;

/// How much of the log is read at a time when it is replayed.
pub(crate) const REPLAY_BYTES: u64 = 16 << 20;

/// What there is.
pub(crate) enum Found {
    /// Nothing, or what is to begin a new ensemble.
    New(State),
    /// Data to go on with, by this id for raft. The state may be of no use: then it is in quarantine.
    Data(u64, Box<Log<RealDisk>>, State),
    /// The server has taken part, and what it had is of no use.
    Lost(Lost),
}

/// What is known of data that is of no use.
pub(crate) struct Lost {
    /// What is wrong with it.
    pub(crate) why: String,
    /// What stood beside the newest state that can be read, and which one that is.
    pub(crate) newest: Option<(u64, Meta)>,
}

impl Lost {
    /// Whether no other server can be thought to have the data.
    pub(crate) fn is_alone(&self, config: &Config) -> bool {
        let me = u32::from(config.server_id);
        let others = |meta: &Meta| {
            let mut servers = meta.members.servers.iter();
            servers.any(|(server, member)| *server != me && member.raft_id != 0)
        };
        config.ensemble.servers.is_empty()
            || self.newest.as_ref().is_some_and(|(_, meta)| meta.applied > 0 && !others(meta))
    }
}

/// Why a log cannot be used.
pub(crate) enum NoLog {
    /// There is none.
    Missing,
    /// It is damaged, as this says.
    Damaged(String),
}

/// Looks at the data. `born` is what a new ensemble begins with.
///
/// # Errors
/// What is wrong, where that is not damage that other servers could heal, and what to do.
pub(crate) fn look(
    config: &Config,
    stores: &Stores,
    host: &Host<'_>,
    born: &Members,
) -> anyhow::Result<Found> {
    let dir = &config.data_dir;
    let given = identity::read(dir)?;
    let lost = |why: String| Ok(Found::Lost(Lost { why, newest: stores.newest() }));
    let mut log = match (open_log(config, &dir.join("log"))?, &given) {
        (_, Identity::Damaged(why)) => return lost(why.clone()),
        (Err(NoLog::Damaged(why)), _) => return lost(why),
        (Err(NoLog::Missing), Identity::Is(_)) => return lost(gone(&dir.join("log"))),
        (Err(NoLog::Missing), Identity::None) => {
            // Where a server has taken part before its id was written, its state tells.
            let has_later = stores.all()?.last_key_value().is_some_and(|(last, _)| *last > 0);
            let newest = stores.newest();
            if has_later || newest.as_ref().is_some_and(|(_, meta)| meta.applied > BIRTH.0) {
                return Ok(Found::Lost(Lost { why: gone(&dir.join("log")), newest }));
            }
            stores.begin(0)?;
            let store = stores.open(0).with_context(|| cannot_open(config))?;
            return Ok(Found::New(open_state(config, Box::new(store), host, born)?));
        }
        (Ok(log), _) => log,
    };
    let generation = Marked::of(&log).generation;
    stores.begin(generation)?;
    let me = u32::from(config.server_id);
    let founder = peers::raft_id(me);
    if stores.quarantine().is_none() {
        match open_with(config, stores, generation, &mut log, host)? {
            Opened::State(state) => {
                let member = state.meta().members.servers.get(&me).map(|member| member.raft_id);
                return match (given, member) {
                    (Identity::Is(id), _) => Ok(Found::Data(id, Box::new(log), *state)),
                    (_, Some(known)) if known != founder => {
                        drop(state);
                        lost(format!("its id for raft is gone, which was {known} and no founder's"))
                    }
                    _ => Ok(Found::Data(founder, Box::new(log), *state)),
                };
            }
            Opened::BadLog(mismatch) => return lost(mismatch.to_string()),
            Opened::BadState(why) => {
                let marked = Marked::of(&log).known;
                anyhow::ensure!(
                    !is_alone(config, &log),
                    "{}: the state is damaged ({why}), and there is no other server that it could get it \
                     from; nothing was changed. Put the data directory back from a backup, or begin \
                     again from a snapshot (`vivarium snapshot restore`, into an empty directory)",
                    dir.display()
                );
                if marked.is_none() || given == Identity::None {
                    return lost(format!(
                        "{why}; and its log does not say enough to go on without"
                    ));
                }
                tracing::error!(
                    %why,
                    "the state of this server is damaged: it is kept, nobody is served from it, and \
                     another server's takes its place; the log is whole, and this server votes"
                );
                stores.put_in_quarantine(&Quarantine { generation, why })?;
            }
        }
    }
    let (Identity::Is(raft_id), Some(_)) = (given, Marked::of(&log).known) else {
        return lost("its state is of no use, and its log does not say enough to go on".to_owned());
    };
    let nothing = Box::new(MemoryStore::default());
    let state = open_state(config, nothing, host, &Members::founders(&[]))?;
    Ok(Found::Data(raft_id, Box::new(log), state))
}

/// What is wrong where there is no log any more.
pub(crate) fn gone(log: &Path) -> String {
    format!("{} has no log any more", log.display())
}

fn cannot_open(config: &Config) -> String {
    format!("cannot open the data directory {}", config.data_dir.display())
}

/// Whether nobody else votes, as far as the log says.
fn is_alone(config: &Config, log: &Log<RealDisk>) -> bool {
    let known = Marked::of(log).known;
    let is_only = known.is_some_and(|k| k.voters.len() == 1 && k.learners.is_empty());
    config.ensemble.servers.is_empty() || is_only
}

/// What becomes of a state and the log beside it.
pub(crate) enum Opened {
    /// They go together.
    State(Box<State>),
    /// The state is of no use, as this says.
    BadState(String),
    /// The log is.
    BadLog(Box<Mismatch>),
}

/// Opens the state that goes with a log, and applies what is known to be committed and is not in it: this
/// server is to know whose data it has before it talks to others.
///
/// # Errors
/// What is wrong, where it is no damage.
pub(crate) fn open_with(
    config: &Config,
    stores: &Stores,
    generation: u64,
    log: &mut Log<RealDisk>,
    host: &Host<'_>,
) -> anyhow::Result<Opened> {
    let opened = stores.open_existing(generation).and_then(|store| {
        tell_torn_tail(&store);
        // One without a state would be taken for one to begin with.
        let meta = Meta::read(&store)?;
        let why = || "it is empty, and there is a log beside it".to_owned();
        meta.ok_or_else(|| Fault::Damaged { keyspace: "the store", why: why() })?;
        let cache_bytes = cache_bytes(config);
        State::open_or_found(Box::new(store), host.hooks(), cache_bytes, &Members::founders(&[]))
    });
    let mut state = match opened {
        Ok(state) => repaired(config, state)?,
        Err(fault @ Fault::Damaged { .. }) => return Ok(Opened::BadState(fault.to_string())),
        Err(fault) => return Err(fault).with_context(|| cannot_open(config)),
    };
    let at = Position { index: state.meta().applied, term: state.meta().term };
    match log.reconcile(at) {
        Ok(()) => {}
        // The log was trimmed only up to what the state had for good.
        Err(LogError::Mismatch(bad)) if bad.applied_index < bad.trimmed_index => {
            return Ok(Opened::BadState(bad.to_string()));
        }
        Err(LogError::Mismatch(bad)) => return Ok(Opened::BadLog(Box::new(bad))),
        Err(error) => return Err(error.into()),
    }
    let commit = log.hard_state().commit;
    let mut told = Instant::now();
    while state.meta().applied < commit {
        let next = state.meta().applied + 1;
        for entry in log.entries(next, commit + 1, REPLAY_BYTES)? {
            match apply(&mut state, &entry, host) {
                Ok(()) => {}
                Err(fault @ Fault::Damaged { .. }) => {
                    return Ok(Opened::BadState(fault.to_string()));
                }
                // The Machine meets it again, and waits: for a newer program, or for a module that cannot be
                // compiled here for now.
                Err(Fault::Newer { .. } | Fault::Waiting(_)) => {
                    return Ok(Opened::State(Box::new(state)));
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        anyhow::ensure!(state.meta().applied >= next, "the log has no entry {next}");
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            let applied = state.meta().applied;
            tracing::info!(applied, commit, "replaying the log's entries that the store lacks");
        }
    }
    Ok(Opened::State(Box::new(state)))
}

/// Applies an entry of the log. Where it waits for a module, all that may be called are compiled, and it is
/// tried once more.
///
/// # Errors
/// See [`State::apply`].
pub(crate) fn apply(state: &mut State, entry: &Entry, host: &Host<'_>) -> Result<(), Fault> {
    match state.apply(entry.index, entry.term, payload(entry)) {
        Err(Fault::Waiting(_)) => {
            let view = state.view();
            compile(host.runtime, &view, view.plugins.wanted())?;
            state.apply(entry.index, entry.term, payload(entry)).map(drop)
        }
        done => done.map(drop),
    }
}

fn cache_bytes(config: &Config) -> usize {
    usize::try_from(config.storage.cache_bytes / 8 * 7).unwrap_or(usize::MAX)
}

/// Opens the state in a store; an empty one becomes that of these founders.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open_state(
    config: &Config,
    store: Box<dyn Store>,
    host: &Host<'_>,
    born: &Members,
) -> anyhow::Result<State> {
    let state = State::open_or_found(store, host.hooks(), cache_bytes(config), born);
    repaired(config, state.with_context(|| cannot_open(config))?)
}

/// Has a state skip what repairs say.
fn repaired(config: &Config, mut state: State) -> anyhow::Result<State> {
    for Repair { binding, index, .. } in repair::read(&config.data_dir)? {
        if index > state.meta().applied {
            tracing::warn!(binding, index, "a repair: this entry is applied without the binding");
        }
        state.skip_binding(&binding, index);
    }
    Ok(state)
}

/// Says what was done about a store that ended in the middle of a write.
fn tell_torn_tail(store: &FjallStore) {
    let Some(torn) = store.torn_tail() else { return };
    let (journal, at, bytes) = (torn.journal.display(), torn.whole_bytes, torn.torn_bytes);
    match &torn.kept {
        None => tracing::info!(
            %journal, at, bytes,
            "the store's journal ends in the middle of a write, as after a crash; that was dropped, \
             and the log has it"
        ),
        Some(kept) => tracing::warn!(
            %journal, at, bytes, kept = %kept.display(),
            "the store's journal has a hole, as after a power loss; it was cut back to the last \
             whole write, a copy was kept, and the log has the rest"
        ),
    }
}

/// How a log is to be used.
pub(crate) fn log_options(config: &Config) -> Options {
    Options { segment_bytes: config.storage.log_segment_bytes, ..Options::default() }
}

/// The log in this directory.
///
/// # Errors
/// What is wrong, where it is neither missing nor damaged.
pub(crate) fn open_log(
    config: &Config,
    dir: &Path,
) -> anyhow::Result<Result<Log<RealDisk>, NoLog>> {
    if !dir.exists() {
        return Ok(Err(NoLog::Missing));
    }
    let disk = RealDisk::new(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    match Log::open(disk, log_options(config)) {
        Ok((log, recovered)) => {
            tracing::debug!(?recovered, "the log is open");
            Ok(Ok(log))
        }
        Err(LogError::Missing) => Ok(Err(NoLog::Missing)),
        Err(error @ LogError::Damaged(_)) => {
            Ok(Err(NoLog::Damaged(format!("{}: {error}", dir.display()))))
        }
        Err(error) => Err(error).with_context(|| format!("cannot open the log {}", dir.display())),
    }
}
