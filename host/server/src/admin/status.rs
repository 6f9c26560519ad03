//! How this server, and as far as it knows, its ensemble, stand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use replica::roster;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Failures, Problem};
use super::members::Part as Standing;
use super::{Shared, aside};
use crate::client::Clients;
use crate::four_letter::directory_bytes;
use crate::threads::Part;

/// How a server stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Status {
    /// The program's version.
    version: String,
    /// Its `server-id`.
    server_id: u8,
    /// `standalone`, `leader`, `follower`, `observer`, `looking`, `read-only` or `removed`.
    part: String,
    /// Whether clients are served.
    ready: bool,
    /// Why they are not.
    reasons: Vec<String>,
    /// Names the ensemble; hexadecimal. 0 before its first entry.
    cluster_id: String,
    /// Who leads, as far as this server knows.
    leader: Option<u32>,
    /// Raft's term.
    term: u64,
    /// The last zxid that is applied here; hexadecimal.
    zxid: String,
    /// The log, by the numbers of its entries.
    log: LogStatus,
    /// What is wrong with its state, if it is not to be used.
    shut: Option<String>,
    /// Whether its state is in quarantine: it was found to be wrong, and is to be replaced.
    quarantined: bool,
    /// Whether servers have different states and nobody has a majority: nothing is proposed.
    servers_disagree: bool,
    /// How entries are applied.
    apply_version: ApplyVersion,
    /// Sessions and connections.
    sessions: Sessions,
    /// Watches of this server's clients.
    watches: Watches,
    /// What is in the tree.
    tree: Tree,
    /// What it takes on the disk, in bytes.
    disk: Disk,
    /// Commands of this server that are not applied yet.
    commands_in_hand: u64,
    /// Milliseconds since it started.
    uptime_ms: u64,
    /// Each server that is to take part; of a server that is alone, itself.
    servers: Vec<Server>,
}

/// How far a server is, by the numbers of entries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
struct LogStatus {
    /// The first that is kept.
    first: u64,
    /// The last.
    last: u64,
    /// The last that is known to be committed.
    committed: u64,
    /// The last that is applied.
    applied: u64,
    /// The last that a start would not have to replay.
    durable: u64,
    /// The length of the log, in bytes.
    bytes: u64,
}

/// The way of applying entries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
struct ApplyVersion {
    /// The setting that holds.
    holds: u32,
    /// The newest that this program knows.
    known: u32,
}

/// Sessions and connections.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
struct Sessions {
    /// Those that all servers know.
    global: u64,
    /// Those that this server alone knows.
    local: u64,
    /// Connections to this server.
    connections: u64,
}

/// Watches.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
struct Watches {
    /// Connections that have set any.
    connections: u64,
    /// Paths on which there is one.
    paths: u64,
    /// In all.
    total: u64,
}

/// The tree.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
struct Tree {
    /// The root and the system's included.
    znodes: u64,
    /// Those of them that are ephemeral.
    ephemerals: u64,
    /// The lengths of all paths and all data.
    bytes: u64,
}

/// Sizes on the disk, in bytes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
struct Disk {
    /// The state.
    state_bytes: u64,
    /// The log's files.
    log_bytes: u64,
}

/// A server of the ensemble, as this one sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
struct Server {
    /// Its `server-id`.
    id: u32,
    /// Where it is found, and its role.
    spec: String,
    /// What it is by now.
    part: Standing,
    /// Whether it can be reached from here.
    linked: bool,
    /// The last entry that is in its log; only the leader knows that of others.
    last: Option<u64>,
    /// How many entries of this server's log it lacks.
    lag: Option<u64>,
    /// The newest way of applying entries that it knows, if it said so.
    apply_version: Option<u32>,
}

impl Status {
    fn look(clients: &Arc<Clients>) -> Self {
        let (published, words) = (&clients.published, &clients.four_letter);
        let (view, status, reasons) =
            (published.view(), clients.watched.status(), clients.unready());
        let watches = published.watches().counts();
        let sessions = view.sessions().map_or(0, |sessions| sessions.len() as u64);
        let members = &view.members;
        let server = |listed: roster::Listed| {
            let raft_id = members.servers.get(&listed.id).map_or(0, |member| member.raft_id);
            let peer = status.peers.iter().find(|peer| peer.raft_id == raft_id);
            let last = peer.and_then(|peer| peer.matched);
            Server {
                id: listed.id,
                spec: listed.spec,
                part: listed.part.into(),
                linked: peer.is_some_and(|peer| peer.is_linked),
                last,
                lag: last.map(|last| status.log.1.saturating_sub(last)),
                apply_version: peer.and_then(|peer| peer.knows),
            }
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server_id: words.server_id,
            part: Part::of(&words.part).to_owned(),
            ready: reasons.is_empty(),
            reasons,
            cluster_id: format!("{:#x}", view.cluster_id),
            leader: members.server_of(status.leader),
            term: status.term,
            zxid: format!("{:#x}", view.zxid),
            log: LogStatus {
                first: status.log.0,
                last: status.log.1,
                committed: status.committed,
                applied: status.applied,
                durable: status.durable,
                bytes: status.log_bytes,
            },
            shut: published.shut().map(|why| why.to_string()),
            quarantined: status.is_quarantined,
            servers_disagree: status.is_in_doubt,
            apply_version: ApplyVersion {
                holds: view.settings.apply_version,
                known: state::APPLY_VERSION,
            },
            sessions: Sessions {
                global: sessions,
                local: published.local_sessions() as u64,
                connections: clients.stats.connection_count() as u64,
            },
            watches: Watches {
                connections: watches.connections as u64,
                paths: watches.paths as u64,
                total: watches.watches as u64,
            },
            tree: Tree {
                znodes: view.counts.nodes,
                ephemerals: view.counts.ephemerals,
                bytes: view.counts.bytes,
            },
            disk: Disk {
                state_bytes: directory_bytes(&words.data_dir.join("state")),
                log_bytes: directory_bytes(&words.data_dir.join("log")),
            },
            commands_in_hand: status.in_hand,
            uptime_ms: u64::try_from(clients.stats.uptime_ms()).unwrap_or(u64::MAX),
            servers: roster::list(members).into_iter().map(server).collect(),
        }
    }
}

/// How this server stands, and what it knows of the others.
#[utoipa::path(get, path = "/v1/status", tag = "cluster", responses(
    (status = 200, description = "As of now.", body = Status), Failures,
))]
pub(super) async fn status(State(admin): State<Shared>) -> Result<Json<Status>, Problem> {
    let clients = Arc::clone(admin.clients()?);
    Ok(Json(aside(move || Status::look(&clients)).await?))
}
