//! `vivarium serve`: opens the data, starts the threads, listens, and stops in order.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use plugin::{Guests, Runtime};
use proto::ServerSpec;
use replica::{NodeConfig, Policy, Published, settings};
use state::{Hooks, Settings};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{self, Admin};
use crate::audit::AuditLog;
use crate::auth::Schemes;
use crate::client::{self, ClientLimits, Clients};
use crate::client_threads::ClientThreads;
use crate::config::{Address, Config, LogFormat, Provider, Reads};
use crate::data_dir;
use crate::four_letter::Answers;
use crate::mailbox::Mailbox;
use crate::open::{Opened, open};
use crate::operator_token::OperatorToken;
use crate::plugins::{self, Directory, Host, Metered, Meters};
use crate::stats::Stats;
use crate::threads::{Reaping, Replica, clock_ms};
use crate::tls;

/// The shortest time without a leader after which a server is read-only, in milliseconds: it is a tick
/// if that is longer, as in ZooKeeper (`QuorumPeer.run`). No election takes as long.
const READ_ONLY_AFTER_MS_MIN: u64 = 2000;

/// Puts something in the place of what runs plugins.
pub type WrapHooks = dyn Fn(Box<dyn Hooks>) -> Box<dyn Hooks> + Sync;

/// Runs a server until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, in one line that says what to do.
pub fn run(config: &Config, warnings: &[String]) -> anyhow::Result<ExitCode> {
    run_with(config, warnings, &|hooks| hooks)
}

/// As [`run`], with other hooks: what only tests do.
///
/// # Errors
/// See [`run`].
pub fn run_with(
    config: &Config,
    warnings: &[String],
    wrap: &WrapHooks,
) -> anyhow::Result<ExitCode> {
    start_logging(config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config, wrap))?;
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

async fn serve(config: &Config, wrap: &WrapHooks) -> anyhow::Result<()> {
    // Ports first: a port in use must not leave a trace in the data.
    let plain = config.listen.client.as_ref().map(listen).transpose()?;
    let secure = config.listen.client_tls.as_ref().map(listen).transpose()?;
    let tls = match &secure {
        Some(_) => Some(tls::current(&config.tls)?),
        None => None,
    };
    let admin = Admin::new(&config.admin);
    if let Some(address) = &config.admin.listen {
        start_admin(config, address, &admin)?;
    }
    let listener = listen_for_peers(config)?;
    let told = plain.as_ref().or(secure.as_ref()).context("expected `listen.client`, got none")?;
    let local = told.local_addr()?;
    let secure_local = secure.as_ref().map(TcpListener::local_addr).transpose()?;
    let _claim = data_dir::claim(&config.data_dir)?;
    let plugins = plugins::runtime(&config.data_dir)?;
    let directory = config.plugin_dir.as_deref().map(Directory::watch).transpose()?;
    let meters = Arc::new(Meters::default());
    let (replica, last) = start_replica(config, listener, &plugins, (wrap, &meters))?;
    let plugins = replica.run_plugins(config.server_id.into(), plugins, directory)?;
    // Not before the data directory is ours: its server's token is the one that holds.
    let token = Arc::new(OperatorToken::create(&config.data_dir)?);
    let audit = start_audit(config, &replica.published)?;
    let (stop, stopping) = watch::channel(false);
    let clients = Arc::new(Clients {
        inputs: Arc::clone(&replica.inputs),
        big_reads: Arc::clone(&replica.big_reads),
        published: Arc::clone(&replica.published),
        authenticator: Arc::new(Schemes::new(
            &config.auth,
            Arc::clone(&replica.published),
            Arc::clone(&token),
        )),
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
        serves: AtomicBool::new(false),
        stops: AtomicBool::new(false),
        watched: Arc::clone(&replica.watched),
        audit: audit.clone(),
        meters: Arc::clone(&meters),
    });
    admin.runs(Arc::clone(&clients), token);
    if let Some(index) = last {
        caught_up(&replica.published, index).await;
    }
    tokio::spawn(compare_settings(Arc::clone(&replica.published), seed(config)));
    clients.serves.store(true, Ordering::Relaxed);
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
    clients.stops.store(true, Ordering::Relaxed);
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
    let stop = move || {
        replica.stop();
        // A module that is being compiled is not waited for any longer than that takes.
        let _ = plugins.join();
        audit.iter().for_each(|audit| audit.stop());
    };
    tokio::task::spawn_blocking(stop).await.context("stopping panicked")?;
    tracing::info!("stopped; sessions live on until their timeouts");
    Ok(())
}

fn start_admin(config: &Config, address: &Address, admin: &Arc<Admin>) -> anyhow::Result<()> {
    let listener = listen_as(address, "`admin.listen`")?;
    let local = listener.local_addr()?;
    let tls = config.admin.tls.as_ref().map(tls::current).transpose();
    let tls = tls.context("[admin.tls]")?;
    if tls.is_none() && !local.ip().is_loopback() {
        tracing::warn!(
            %local,
            "the admin API is served in the clear: operators' tokens can be read on the network; set \
             [admin.tls], or let it listen on 127.0.0.1"
        );
    }
    tracing::info!(%local, tls = tls.is_some(), "the admin API is served");
    admin::start(listener, tls, admin).context("no thread for the admin API")
}

fn start_audit(config: &Config, published: &Published) -> anyhow::Result<Option<Arc<AuditLog>>> {
    if !config.audit.enabled {
        return Ok(None);
    }
    let log = AuditLog::start(config.audit.file.as_deref(), &published.view().decisions)?;
    published.put_audit(Arc::clone(&log) as _);
    Ok(Some(log))
}

fn resolve(address: &Address) -> anyhow::Result<SocketAddr> {
    let text = address.to_string();
    let found = text.to_socket_addrs().with_context(|| format!("cannot resolve {text}"))?;
    found.into_iter().next().with_context(|| format!("{text} resolves to no address"))
}

fn listen(address: &Address) -> anyhow::Result<TcpListener> {
    listen_as(address, "`listen.client`, --listen")
}

/// Listens where `key` says.
fn listen_as(address: &Address, key: &str) -> anyhow::Result<TcpListener> {
    let address = resolve(address)?;
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(address)
        .and_then(|()| socket.listen(1024))
        .with_context(|| format!("cannot listen on {address}: is another server there? ({key})"))
}

/// Opens the data and starts the threads; beside them, the log's last index, if there was a log.
fn start_replica(
    config: &Config,
    listener: Option<std::net::TcpListener>,
    plugins: &Arc<Runtime>,
    (wrap, meters): (&WrapHooks, &Arc<Meters>),
) -> anyhow::Result<(Replica, Option<u64>)> {
    let inputs = Arc::new(Mailbox::new(usize::MAX));
    let (runs, meters) = (Arc::clone(plugins), Arc::clone(meters));
    let make = move || {
        let guests = Box::new(Guests::new(Arc::clone(&runs)));
        wrap(Box::new(Metered { hooks: guests, meters: Arc::clone(&meters) }))
    };
    let host = Host { runtime: plugins, make: &make };
    let opened = open(config, listener, &inputs, &host)?;
    let view = opened.state.view();
    plugins::on_large_stack(|| plugins::prepare(plugins, &view))??;
    drop(view);
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
        servers: located(config),
        read_only_after_ms: config.read_only_mode.then(|| {
            let ms = config.tick_time_ms.max(READ_ONLY_AFTER_MS_MIN);
            i64::try_from(ms).unwrap_or(i64::MAX)
        }),
        log_keep_bytes: config.storage.log_retain_bytes,
        knows: opened.state.knows(),
    };
    let reaping = Reaping {
        every: Duration::from_millis(config.nodes.container_check_interval_ms.max(1)),
        per_minute: config.nodes.container_deletes_per_minute,
    };
    let Opened { log, state, stores, peers, .. } = opened;
    // Alone, all that is in the log will be committed; in an ensemble the rest may never be. One that
    // has nothing yet waits for a snapshot.
    let known = if peers.is_none() { log.last_index() } else { state.meta().applied.max(1) };
    let waits = |last: &u64| *last > state::apply::BIRTH.0 || state.meta().applied == 0;
    // In quarantine nobody is served; operators may ask why.
    let last = Some(known).filter(waits).filter(|_| stores.quarantine().is_none());
    Ok((Replica::start(log, state, node_config, reaping, inputs, peers, stores)?, last))
}

fn listen_for_peers(config: &Config) -> anyhow::Result<Option<std::net::TcpListener>> {
    let servers = &config.ensemble.servers;
    if servers.is_empty() {
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

/// Where the servers are found, as the configuration says.
fn located(config: &Config) -> BTreeMap<u32, ServerSpec> {
    let servers = config.ensemble.servers.iter();
    servers.map(|server| (u32::from(server.id), server.spec())).collect()
}

/// What a cluster that this server founds agrees on at first.
fn seed(config: &Config) -> Settings {
    Settings {
        ttl_nodes: config.nodes.ttl_enabled,
        enforce_quota: config.nodes.enforce_quota,
        skip_acl: config.auth.skip_acl,
        super_digest: config.auth.super_digest.clone(),
        apply_version: state::APPLY_VERSION,
        ..Settings::default()
    }
}

/// Waits until the log up to `index` is applied: clients are not to see what is older. A server that
/// serves nobody is not waited for; operators may ask why.
async fn caught_up(published: &Published, index: u64) {
    while published.view().index < index && published.shut().is_none() {
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
        ensemble: config.is_ensemble(),
        local_sessions: config.is_ensemble() && config.sessions.local,
        upgrades_sessions: config.sessions.local_upgrading,
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
