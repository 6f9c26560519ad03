//! Opens a server's data: log, state, and its place among the other servers.
//!
//! Invariants:
//! * What is committed is applied before others are spoken with: then it is known whose data it is.
//! * Who takes part is what the data says; the configuration says it only for a server without any.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use replica::Input;
use replica::Marked;
use replica::log::{Log, RealDisk};
use state::apply::Meta;
use state::{Members, State};

use crate::config::{Address, Config, Role};
use crate::found::{self, Found, Lost, log_options, open_state};
use crate::mailbox::Mailbox;
use crate::peers::{self, Beginning, Founders, Has, Me, Peers};
use crate::plugins::{self, Host};
use crate::stores::{self, Stores};
use crate::{identity, quarantine, tls};

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
    host: &Host<'_>,
) -> anyhow::Result<Opened> {
    let stores = Arc::new(Stores::new(&config.data_dir, stores::options(config)));
    let born = birth(&founders(config));
    // What is committed is applied, plugins and all.
    let look = || found::look(config, &stores, host, &born);
    match plugins::on_large_stack(look).context("no thread to open the data on")?? {
        Found::Data(raft_id, log, state) => {
            agree(config, state.meta())?;
            identity::write(&config.data_dir, raft_id)?;
            let peers = listener.map(|listener| {
                let mut me = me(config, listener, raft_id, Has::Data, Some(state.meta()))?;
                if me.cluster == 0 {
                    // Where the state is of no use, the log knows.
                    me.cluster = Marked::of(&log).known.map_or(0, |known| known.cluster_id);
                }
                let mut peers = Peers::new(me, inputs)?;
                peers.start()?;
                anyhow::Ok(peers)
            });
            Ok(Opened { raft_id, log: *log, state, stores, peers: peers.transpose()? })
        }
        Found::New(state) => begin(config, listener, inputs, host, state, stores),
        Found::Lost(lost) => begin_anew(config, listener, inputs, host, &lost, stores),
    }
}

/// A server without data begins: with the others, or alone.
fn begin(
    config: &Config,
    listener: Option<std::net::TcpListener>,
    inputs: &Arc<Mailbox<Input>>,
    host: &Host<'_>,
    mut state: State,
    stores: Arc<Stores>,
) -> anyhow::Result<Opened> {
    let mut raft_id = peers::raft_id(config.server_id.into());
    let restored = state.is_of_new_ensemble();
    let born = birth(&founders(config));
    let mut peers = None;
    let mut admitted = false;
    if let Some(listener) = listener {
        let mut me = me(config, listener, raft_id, Has::Nothing, Some(state.meta()))?;
        me.restored = restored;
        let new = peers.insert(Peers::new(me, inputs)?);
        // Not before all agree that there is an ensemble to be founded.
        if let Beginning::Admitted(given) = new.begin() {
            anyhow::ensure!(
                !restored,
                "a restored snapshot is of no use to an ensemble that exists"
            );
            // What founders begin with is nothing that it could go on from.
            drop(state);
            state = open_state(config, stores.make(0)?, host, &Members::founders(&[]))?;
            new.update(&state.meta().members, 0)?;
            (raft_id, admitted) = (given, true);
        }
        if restored {
            let alone = born.only(raft_id);
            state.found(alone.context("this server is one of the founders")?)?;
            new.update(&state.meta().members, state.meta().cluster_id)?;
        }
        new.start()?;
    } else if restored {
        state.found(born)?;
    }
    if admitted {
        // A log without it would be taken for a founder's.
        identity::write(&config.data_dir, raft_id)?;
    }
    let log = create_log(config, state.meta())?;
    if !admitted {
        // Without a log it would be of one that was lost.
        identity::write(&config.data_dir, raft_id)?;
    }
    Ok(Opened { raft_id, log, state, stores, peers })
}

/// A server whose data is of no use takes part anew, once it is let in. Until then nothing is changed of
/// what it has; then that is kept in `damaged`.
fn begin_anew(
    config: &Config,
    listener: Option<std::net::TcpListener>,
    inputs: &Arc<Mailbox<Input>>,
    host: &Host<'_>,
    lost: &Lost,
    stores: Arc<Stores>,
) -> anyhow::Result<Opened> {
    let (dir, why) = (&config.data_dir, &lost.why);
    let listener = listener.filter(|_| !lost.is_alone(config)).with_context(|| {
        format!(
            "this server's data is damaged, and there is no other server that it could get it from: \
             {why}. Nothing was changed in {}. Put that back from a backup; or begin again from a \
             snapshot (`vivarium snapshot restore`, into an empty directory); or go on with what the \
             state has by itself, without what only the log had (`vivarium recover --force-single`)",
            dir.display()
        )
    })?;
    tracing::error!(
        %why,
        "this server's log is of no use: it gives up its vote, and takes part anew with another \
         server's data once a majority lets it in; what it has is kept in `damaged` then"
    );
    let newest = lost.newest.as_ref().map(|(_, meta)| meta);
    if let Some(meta) = newest {
        agree(config, meta)?;
    }
    let founder = peers::raft_id(config.server_id.into());
    let mut new = Peers::new(me(config, listener, founder, Has::Lost, newest)?, inputs)?;
    let Beginning::Admitted(raft_id) = new.begin() else {
        anyhow::bail!("a server that lost its data founds nothing");
    };
    // Whatever comes in between: without a log and with an id it has lost its data.
    if identity::read(dir)? == identity::Identity::None {
        identity::write(dir, founder)?;
    }
    let cannot = || format!("cannot keep what is in {}", dir.display());
    let states: Vec<_> = stores.all().with_context(cannot)?.into_values().collect();
    let kept = quarantine::keep_log(dir, &states, why).with_context(cannot)?;
    tracing::warn!(kept = %kept.display(), "the damaged data was kept, with what is wrong with it");
    identity::write(dir, raft_id)?;
    stores.begin(0)?;
    let state = open_state(config, stores.make(0)?, host, &Members::founders(&[]))?;
    new.update(&state.meta().members, newest.map_or(0, |meta| meta.cluster_id))?;
    new.start()?;
    Ok(Opened { raft_id, log: create_log(config, state.meta())?, state, stores, peers: Some(new) })
}

fn create_log(config: &Config, meta: &Meta) -> anyhow::Result<Log<RealDisk>> {
    let disk = RealDisk::new(config.data_dir.join("log"));
    let disk = disk.with_context(|| format!("cannot open {}", config.data_dir.display()))?;
    Ok(Log::create(disk, log_options(config), meta.applied, meta.term)?)
}

/// This server among the others; `meta` is what stands beside its tree, if it has one.
fn me(
    config: &Config,
    listener: std::net::TcpListener,
    raft_id: u64,
    has: Has,
    meta: Option<&Meta>,
) -> anyhow::Result<Me> {
    let founders = founders(config);
    let members = meta.map_or_else(|| Arc::new(birth(&founders)), |meta| Arc::clone(&meta.members));
    let mut configured = others(config);
    for (server, member) in &members.servers {
        // One that lost its data asks wherever they may be.
        let known = configured.entry(*server).or_default();
        let new = member.spec.peer.iter().filter(|_| has == Has::Lost);
        let new: Vec<_> = new.filter(|at| !known.contains(at)).cloned().collect();
        known.extend(new);
    }
    configured.retain(|server, at| *server != u32::from(config.server_id) && !at.is_empty());
    Ok(Me {
        id: u32::from(config.server_id),
        raft_id,
        cluster: meta.map_or(0, |meta| meta.cluster_id),
        members,
        founders: if has == Has::Lost { Founders::default() } else { founders },
        has,
        restored: false,
        listener,
        configured,
        secured: config.ensemble.tls.as_ref().map(tls::between_servers).transpose()?,
    })
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
