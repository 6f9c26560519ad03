//! `vivarium serve`: opens the data, starts the threads, listens, and stops in order.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::time::{Duration, Instant};

use anyhow::Context;
use replica::log::{Log, LogError, Options, Position, RealDisk};
use replica::raft::payload;
use replica::{Input, NodeConfig, Policy, Published, node, settings};
use state::{FjallStore, Members, NoHooks, Settings, State, Store};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::auth::Schemes;
use crate::client::{self, ClientLimits, Clients};
use crate::client_threads::ClientThreads;
use crate::config::{Address, Config, LogFormat, Provider, Reads};
use crate::data_dir;
use crate::four_letter::Answers;
use crate::identity;
use crate::mailbox::Mailbox;
use crate::operator_token::OperatorToken;
use crate::peers::{self, Beginning, Me, Peer, Peers};
use crate::stats::Stats;
use crate::stores::{self, Stores};
use crate::threads::{Reaping, Replica, clock_ms};
use crate::tls;

/// How much of the log is read at a time when it is replayed.
pub(crate) const REPLAY_BYTES: u64 = 16 << 20;

/// Runs a server until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, in one line that says what to do.
pub fn run(config: &Config, warnings: &[String]) -> anyhow::Result<ExitCode> {
    start_logging(config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

/// Has this process told to stop when its parent, which has the id `parent`, ends.
///
/// # Errors
/// If the parent has ended already.
pub fn end_with(parent: i32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    let now = rustix::process::Pid::as_raw(rustix::process::getppid());
    anyhow::ensure!(now == parent, "the process {parent}, which started this one, has ended");
    Ok(())
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    // The store's own steps are of interest only when something is wrong with it.
    let level = format!("fjall=warn,lsm_tree=warn,{}", config.logging.level);
    let filter = tracing_subscriber::EnvFilter::try_new(level)
        .with_context(|| format!("`logging.level` {:?} is not a level", config.logging.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match config.logging.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|e| anyhow::anyhow!("logging cannot start: {e}"))
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    // Ports first: a port in use must not leave a trace in the data.
    let plain = config.listen.client.as_ref().map(listen).transpose()?;
    let secure = config.listen.client_tls.as_ref().map(listen).transpose()?;
    let tls = match &secure {
        Some(_) => Some(tls::current(&config.tls)?),
        None => None,
    };
    let listener = listen_for_peers(config)?;
    let told = plain.as_ref().or(secure.as_ref()).context("expected `listen.client`, got none")?;
    let local = told.local_addr()?;
    let secure_local = secure.as_ref().map(TcpListener::local_addr).transpose()?;
    let _claim = data_dir::claim(&config.data_dir)?;
    let (replica, last) = start_replica(config, listener)?;
    if let Some(index) = last {
        caught_up(&replica.published, index).await;
    }
    tokio::spawn(compare_settings(Arc::clone(&replica.published), seed(config)));
    // Not before the data directory is ours: its server's token is the one that holds.
    let token = OperatorToken::create(&config.data_dir)?;
    let (stop, stopping) = watch::channel(false);
    let clients = Arc::new(Clients {
        inputs: Arc::clone(&replica.inputs),
        big_reads: Arc::clone(&replica.big_reads),
        published: Arc::clone(&replica.published),
        authenticator: Arc::new(Schemes::new(&config.auth, Arc::clone(&replica.published), token)),
        policy: Arc::new(policy(config)),
        x509: config.auth.providers.contains(&Provider::X509),
        x509_super: config.auth.x509.super_user.clone(),
        limits: limits(config),
        stats: Stats::new(),
        four_letter: answers(config, local, Arc::clone(&replica.part)),
        next_session: AtomicU64::new(first_session(config.server_id)),
        next_connection: AtomicU64::new(1),
        addresses: parking_lot::Mutex::default(),
        stopping,
    });
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let threads = Arc::new(ClientThreads::start(threads).context("no threads for clients")?);
    let listeners = [(plain, None), (secure, tls)];
    let accepting: Vec<_> = listeners
        .into_iter()
        .filter_map(|(listener, tls)| Some((listener?, tls)))
        .map(|(listener, tls)| {
            let (clients, threads) = (Arc::clone(&clients), Arc::clone(&threads));
            tokio::spawn(client::accept(listener, tls, clients, threads))
        })
        .collect();
    tracing::info!(
        clients = %local,
        tls = secure_local.map(tracing::field::display),
        data = %config.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        zxid = format_args!("{:#x}", replica.published.view().zxid),
        "vivarium is serving"
    );
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM: stopping"),
        _ = int.recv() => tracing::info!("SIGINT: stopping"),
    }
    replica.hand_over().await;
    stop.send_replace(true);
    for accepting in accepting {
        accepting.await.context("the accept loop panicked")?;
    }
    // Clients are answered what they have in flight; those that do not read are left behind.
    let patience = tokio::time::Instant::now() + client::FLUSH_MAX;
    while !clients.addresses.lock().is_empty() && tokio::time::Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::task::spawn_blocking(move || replica.stop()).await.context("stopping panicked")?;
    tracing::info!("stopped; sessions live on until their timeouts");
    Ok(())
}

fn resolve(address: &Address) -> anyhow::Result<SocketAddr> {
    let text = address.to_string();
    let found = text.to_socket_addrs().with_context(|| format!("cannot resolve {text}"))?;
    found.into_iter().next().with_context(|| format!("{text} resolves to no address"))
}

fn listen(address: &Address) -> anyhow::Result<TcpListener> {
    let address = resolve(address)?;
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).and_then(|()| socket.listen(1024)).with_context(|| {
        format!("cannot listen on {address}: is another server there? (`listen.client`, --listen)")
    })
}

/// Opens the data and starts the threads; beside them, the log's last index, if there was a log.
fn start_replica(
    config: &Config,
    listener: Option<std::net::TcpListener>,
) -> anyhow::Result<(Replica, Option<u64>)> {
    let inputs = Arc::new(Mailbox::new(usize::MAX));
    let (opened, peers) = open_data(config, listener, &inputs)?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let (boot, cluster_id) = random.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().fold(1u64, |n, b| n.wrapping_mul(257) ^ u64::from(*b));
    let node_config = NodeConfig {
        server: u32::from(config.server_id),
        raft_id: opened.raft_id,
        election_ticks: (10, 20),
        boot: number(boot),
        cluster_id: number(cluster_id) | 1,
        settings: seed(config),
        log_keep_bytes: config.storage.log_retain_bytes,
    };
    let reaping = Reaping {
        every: Duration::from_millis(config.nodes.container_check_interval_ms.max(1)),
        per_minute: config.nodes.container_deletes_per_minute,
    };
    let Opened { log, state, stores, .. } = opened;
    // Alone, all that is in the log will be committed; in an ensemble the rest may never be. One that
    // has nothing yet waits for a snapshot.
    let known = if peers.is_none() { log.last_index() } else { state.meta().applied.max(1) };
    let last =
        Some(known).filter(|last| *last > state::apply::BIRTH.0 || state.meta().applied == 0);
    Ok((Replica::start(log, state, node_config, reaping, inputs, peers, stores)?, last))
}

/// The data of a server that takes part.
struct Opened {
    raft_id: u64,
    log: Log<RealDisk>,
    state: State,
    stores: Arc<Stores>,
}

/// Opens the data, and finds out with the others how a server without any takes part.
fn open_data(
    config: &Config,
    listener: Option<std::net::TcpListener>,
    inputs: &Arc<Mailbox<Input>>,
) -> anyhow::Result<(Opened, Option<Peers>)> {
    let dir = &config.data_dir;
    let mut log = open_log(config, &dir.join("log"))?;
    let stores = Arc::new(Stores::new(dir, stores::options(config)));
    let (founder_id, others) = ensemble(config);
    let mut founders: Vec<u64> =
        others.iter().map(|peer| u64::from(peer.id) + 1).chain([founder_id]).collect();
    founders.sort_unstable();
    let given = identity::read(dir)?;
    let voters = |given: Option<u64>| if given.is_some() { &[][..] } else { &founders[..] };
    let store = stores.open(log.as_ref().map_or(0, node::generation))?;
    tell_torn_tail(&store);
    let mut state = open_state(config, Box::new(store), voters(given))?;
    let is_of_it =
        state.meta().members.servers.keys().eq(Members::founders(&founders).servers.keys());
    anyhow::ensure!(
        is_of_it || state.meta().members.servers.is_empty(),
        "the data in {} is of {}, but the configuration (`[[ensemble.servers]]`) is of {}: this version \
         cannot change who is in an ensemble; put the list back, or use another directory",
        dir.display(),
        ensemble_of(&state.meta().members),
        ensemble_of(&Members::founders(&founders))
    );
    match &mut log {
        Some(log) => replay_committed(&mut state, log)?,
        None => anyhow::ensure!(
            state.meta().applied <= state::apply::BIRTH.0,
            "{} has no log, but the state beside it has applied up to {}: the log was lost; restore \
             the directory from a backup",
            dir.join("log").display(),
            state.meta().applied
        ),
    }
    let mut raft_id = given.unwrap_or(founder_id);
    let mut peers = None;
    if let Some(listener) = listener {
        let empty = log.is_none() && given.is_none();
        let restored = log.is_none() && state.is_of_new_ensemble();
        let (id, cluster) = (u32::from(config.server_id), state.meta().cluster_id);
        let members = Arc::clone(&state.meta().members);
        let me = Me { id, raft_id, cluster, members, empty, restored, listener, others };
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
            state = open_state(config, stores.make(0)?, &[])?;
            new.update(&state.meta().members);
        }
        if restored {
            let members = Members::founders(&founders).only(raft_id);
            state.found(members.context("this server is one of the founders")?)?;
            new.update(&state.meta().members);
        }
        new.start()?;
    } else if log.is_none() && state.is_of_new_ensemble() {
        state.found(Members::founders(&founders))?;
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
    Ok((Opened { raft_id, log, state, stores }, peers))
}

pub(crate) fn open_state(
    config: &Config,
    store: Box<dyn Store>,
    voters: &[u64],
) -> anyhow::Result<State> {
    let cache_bytes = usize::try_from(config.storage.cache_bytes / 4 * 3)?;
    State::open_or_found(store, Box::new(NoHooks), cache_bytes, voters)
        .with_context(|| format!("cannot open the data directory {}", config.data_dir.display()))
}

/// This server's id for raft, and the other voters. A server that is alone has the id 1.
fn ensemble(config: &Config) -> (u64, Vec<Peer>) {
    let servers = &config.ensemble.servers;
    let others = servers.iter().filter(|server| server.id != config.server_id);
    let others: Vec<Peer> =
        others.map(|s| Peer { id: u32::from(s.id), addresses: s.peer.clone() }).collect();
    if others.is_empty() { (1, others) } else { (peers::raft_id(config.server_id), others) }
}

/// The servers of an ensemble, in words.
fn ensemble_of(members: &Members) -> String {
    match &members.voters[..] {
        [1] => "a server on its own".to_owned(),
        _ => {
            let servers: Vec<u32> = members.servers.keys().copied().collect();
            format!("an ensemble of the servers {servers:?}")
        }
    }
}

fn listen_for_peers(config: &Config) -> anyhow::Result<Option<std::net::TcpListener>> {
    let servers = &config.ensemble.servers;
    if servers.len() <= 1 {
        return Ok(None);
    }
    let mine = servers.iter().find(|server| server.id == config.server_id);
    let mine = mine.and_then(|server| server.peer.first());
    let address = config.ensemble.peer_listen.as_ref().or(mine);
    let address = resolve(address.context("expected `ensemble.peer-listen`, got none")?)?;
    let listener = std::net::TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address} for other servers: is another one there?")
    })?;
    Ok(Some(listener))
}

/// What a cluster that this server founds agrees on at first.
fn seed(config: &Config) -> Settings {
    Settings {
        ttl_nodes: config.nodes.ttl_enabled,
        enforce_quota: config.nodes.enforce_quota,
        skip_acl: config.auth.skip_acl,
        super_digest: config.auth.super_digest.clone(),
    }
}

/// Waits until the log up to `index` is applied: clients are not to see what is older.
async fn caught_up(published: &Published, index: u64) {
    while published.view().index < index {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says where the configuration differs from what the cluster has agreed on, once it has.
async fn compare_settings(published: Arc<Published>, configured: Settings) {
    while published.view().cluster_id == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let holds = &published.view().settings;
    let different = settings::different(holds, &configured);
    if different.is_empty() {
        return;
    }
    let told = |all: &Settings| {
        let mut shown = settings::shown(all);
        shown.retain(|name, _| different.contains(&name.as_str()));
        shown
    };
    tracing::warn!(
        holds = ?told(holds),
        configured = ?told(&configured),
        "the configuration differs from the cluster's settings, which hold; change them with \
         `vivarium settings set`, or change the configuration"
    );
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

fn policy(config: &Config) -> Policy {
    let ms = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
    let mut required_schemes = Vec::new();
    if config.auth.enforce.enabled {
        required_schemes.clone_from(&config.auth.enforce.schemes);
    }
    if config.auth.sasl.require {
        required_schemes.push("sasl".to_owned());
    }
    Policy {
        timeout_ms_min: ms(config.min_session_timeout_ms()),
        timeout_ms_max: ms(config.max_session_timeout_ms()),
        required_schemes,
        sasl_failures_allowed: config.auth.sasl.allow_failed_clients,
        ensemble: config.ensemble.servers.len() > 1,
        linearizable: config.reads == Reads::Linearizable,
        reconfig_enabled: config.ensemble.reconfig_enabled,
        acl_schemes: config.auth.providers.iter().map(|p| p.scheme().to_owned()).collect(),
    }
}

fn limits(config: &Config) -> ClientLimits {
    let limits = &config.limits;
    ClientLimits {
        frame_bytes_max: usize::try_from(limits.max_frame_bytes).unwrap_or(usize::MAX),
        per_address_max: limits.max_connections_per_address as usize,
        connections_max: limits.max_connections as usize,
        outstanding_max: limits.max_outstanding_per_connection.max(1) as usize,
        all_outstanding_max: limits.max_outstanding_requests as usize,
        sessionless: Duration::from_millis(limits.sessionless_connection_timeout_ms.max(1)),
        slow: Duration::from_millis(config.logging.slow_request_warn_ms),
    }
}

fn answers(config: &Config, local: SocketAddr, part: Arc<AtomicU8>) -> Answers {
    Answers {
        part,
        words: config.four_letter_words.clone(),
        client_port: local.port(),
        secure_port: config.listen.client_tls.as_ref().map(|address| address.port),
        data_dir: config.data_dir.clone(),
        tick_time_ms: config.tick_time_ms,
        server_id: config.server_id,
        timeout_ms_min: config.min_session_timeout_ms(),
        timeout_ms_max: config.max_session_timeout_ms(),
        per_address_max: config.limits.max_connections_per_address,
    }
}

/// The first session id of this start: the server in the high byte, then the time, as ZooKeeper
/// makes them (`SessionTrackerImpl.initializeNextSessionId`).
fn first_session(server: u8) -> u64 {
    ((clock_ms() as u64) << 24 >> 8) | (u64::from(server) << 56)
}
