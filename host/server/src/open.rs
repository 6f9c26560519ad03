//! Opens a server's data: log, state, and its place among the other servers.
//!
//! Invariants:
//! * What is committed is applied before others are spoken with: then it is known whose data it is.
//! * Who takes part is what the data says; the configuration says it only for a server without any.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use replica::log::{Log, LogError, Options, Position, RealDisk};
use replica::raft::payload;
use replica::{Input, node};
use state::apply::Meta;
use state::{FjallStore, Members, State, Store};

use crate::config::{Address, Config, Role};
use crate::identity;
use crate::mailbox::Mailbox;
use crate::peers::{self, Beginning, Founders, Me, Peers};
use crate::serve::MakeHooks;
use crate::stores::{self, Stores};
use crate::tls;

/// How much of the log is read at a time when it is replayed.
pub(crate) const REPLAY_BYTES: u64 = 16 << 20;

/// The data of a server that takes part.
pub(crate) struct Opened {
    /// Its id for raft.
    pub(crate) raft_id: u64,
    pub(crate) log: Log<RealDisk>,
    pub(crate) state: State,
    pub(crate) stores: Arc<Stores>,
    /// `None` if it is alone.
    pub(crate) peers: Option<Peers>,
}

/// Opens the data, and finds out with the others how a server without any takes part. `listener` is
/// where they call; with none, the server is alone.
///
/// # Errors
/// What is wrong with the data, or with the configuration beside it, and what to do.
pub(crate) fn open(
    config: &Config,
    listener: Option<std::net::TcpListener>,
    inputs: &Arc<Mailbox<Input>>,
    hooks: &MakeHooks,
) -> anyhow::Result<Opened> {
    let dir = &config.data_dir;
    let mut log = open_log(config, &dir.join("log"))?;
    let stores = Arc::new(Stores::new(dir, stores::options(config)));
    let given = identity::read(dir)?;
    let founders = founders(config);
    let born = if given.is_some() { Members::founders(&[]) } else { birth(&founders) };
    let store = stores.open(log.as_ref().map_or(0, node::generation))?;
    tell_torn_tail(&store);
    let mut state = open_state(config, Box::new(store), hooks, &born)?;
    match &mut log {
        // Nothing is applied to a state that is of no use.
        Some(_) if stores.quarantine().is_some() => {}
        Some(log) => replay_committed(&mut state, log)?,
        None => anyhow::ensure!(
            state.meta().applied <= state::apply::BIRTH.0,
            "{} has no log, but the state beside it has applied up to {}: the log was lost; restore \
             the directory from a backup",
            dir.join("log").display(),
            state.meta().applied
        ),
    }
    agree(config, state.meta())?;
    let mut raft_id = given.unwrap_or_else(|| peers::raft_id(config.server_id.into()));
    let mut peers = None;
    if let Some(listener) = listener {
        let empty = log.is_none() && given.is_none();
        let restored = log.is_none() && state.is_of_new_ensemble();
        let born = birth(&founders);
        let me = Me {
            id: u32::from(config.server_id),
            raft_id,
            cluster: state.meta().cluster_id,
            members: Arc::clone(&state.meta().members),
            founders,
            empty,
            restored,
            listener,
            configured: others(config),
            secured: config.ensemble.tls.as_ref().map(tls::between_servers).transpose()?,
        };
        let new = peers.insert(Peers::new(me, inputs)?);
        // Not before all agree that there is an ensemble to be founded.
        if empty && let Beginning::Admitted(given) = new.begin() {
            anyhow::ensure!(
                !restored,
                "a restored snapshot is of no use to an ensemble that exists"
            );
            identity::write(dir, given)?;
            raft_id = given;
            // What founders begin with is nothing that it could go on from.
            drop(state);
            state = open_state(config, stores.make(0)?, hooks, &Members::founders(&[]))?;
            new.update(&state.meta().members, 0)?;
        }
        if restored {
            let alone = born.only(raft_id);
            state.found(alone.context("this server is one of the founders")?)?;
            new.update(&state.meta().members, state.meta().cluster_id)?;
        }
        new.start()?;
    } else if log.is_none() && state.is_of_new_ensemble() {
        state.found(birth(&founders))?;
    }
    let log = match log {
        Some(log) => log,
        None => {
            let at = Position { index: state.meta().applied, term: state.meta().term };
            let disk = RealDisk::new(dir.join("log"));
            let disk = disk.with_context(|| format!("cannot open {}", dir.display()))?;
            Log::create(disk, log_options(config), at.index, at.term)?
        }
    };
    Ok(Opened { raft_id, log, state, stores, peers })
}

/// Opens the state in a store; an empty one becomes that of these founders.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open_state(
    config: &Config,
    store: Box<dyn Store>,
    hooks: &MakeHooks,
    born: &Members,
) -> anyhow::Result<State> {
    let cache_bytes = usize::try_from(config.storage.cache_bytes / 8 * 7)?;
    State::open_or_found(store, hooks(), cache_bytes, born)
        .with_context(|| format!("cannot open the data directory {}", config.data_dir.display()))
}

/// Those that found an ensemble, as the configuration has them; a server that is alone founds one too.
fn founders(config: &Config) -> Founders {
    let servers = &config.ensemble.servers;
    if servers.is_empty() {
        return Founders { voters: vec![u32::from(config.server_id)], observers: Vec::new() };
    }
    let of = |role: Role| {
        let servers = servers.iter().filter(|server| server.role == role);
        let mut ids: Vec<u32> = servers.map(|server| u32::from(server.id)).collect();
        ids.sort_unstable();
        ids
    };
    Founders { voters: of(Role::Participant), observers: of(Role::Observer) }
}

/// What all founders begin with.
fn birth(founders: &Founders) -> Members {
    let voters: Vec<u64> = founders.voters.iter().map(|id| peers::raft_id(*id)).collect();
    Members::founders(&voters).with_observers(&founders.observers)
}

/// Where the configuration says that the other servers are.
fn others(config: &Config) -> BTreeMap<u32, Vec<Address>> {
    let others = config.ensemble.servers.iter().filter(|server| server.id != config.server_id);
    others.map(|server| (u32::from(server.id), server.peer.clone())).collect()
}

/// Whether the configuration is of the servers that the data is of; where it only names others that
/// could be added, that is told.
fn agree(config: &Config, meta: &Meta) -> anyhow::Result<()> {
    let (me, members, dir) = (u32::from(config.server_id), &meta.members, &config.data_dir);
    if members.servers.is_empty() {
        return Ok(());
    }
    let of: Vec<u32> = members.servers.keys().copied().collect();
    anyhow::ensure!(
        members.servers.contains_key(&me),
        "the data in {} is of an ensemble of the servers {of:?}, and this is server {me} \
         (`server-id`): either it is another server's data, or the server was removed from the \
         ensemble; to let it take part anew, empty the directory, start it, and add it \
         (`vivarium member add`)",
        dir.display()
    );
    anyhow::ensure!(
        of.len() == 1 || !config.ensemble.servers.is_empty(),
        "the data in {} is of an ensemble of the servers {of:?}, but the configuration has no \
         `[[ensemble.servers]]`: put the list back, or use another directory",
        dir.display()
    );
    let more: Vec<u32> = others(config).into_keys().filter(|id| !of.contains(id)).collect();
    if !more.is_empty() && meta.applied > state::apply::BIRTH.0 {
        tracing::warn!(
            servers = ?of,
            further = ?more,
            "the configuration names servers that are not of the ensemble: they take part once they \
             are added (`vivarium member add`, or reconfig)"
        );
    }
    Ok(())
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

fn log_options(config: &Config) -> Options {
    Options { segment_bytes: config.storage.log_segment_bytes, ..Options::default() }
}

/// The log, if there is one.
pub(crate) fn open_log(config: &Config, dir: &Path) -> anyhow::Result<Option<Log<RealDisk>>> {
    let disk = RealDisk::new(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    match Log::open(disk, log_options(config)) {
        Ok((log, recovered)) => {
            tracing::debug!(?recovered, "the log is open");
            Ok(Some(log))
        }
        Err(LogError::Missing) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot open the log {}", dir.display())),
    }
}

/// Applies what is known to be committed and is not in the store: this server is to know whose data
/// it has before it talks to others.
pub(crate) fn replay_committed(state: &mut State, log: &mut Log<RealDisk>) -> anyhow::Result<()> {
    let at = Position { index: state.meta().applied, term: state.meta().term };
    log.reconcile(at).context("the state is not of the log beside it")?;
    let commit = log.hard_state().commit;
    let mut told = Instant::now();
    while state.meta().applied < commit {
        let next = state.meta().applied + 1;
        for entry in log.entries(next, commit + 1, REPLAY_BYTES)? {
            state.apply(entry.index, entry.term, payload(&entry))?;
        }
        anyhow::ensure!(state.meta().applied >= next, "the log has no entry {next}");
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            let applied = state.meta().applied;
            tracing::info!(applied, commit, "replaying the log's entries that the store lacks");
        }
    }
    Ok(())
}
