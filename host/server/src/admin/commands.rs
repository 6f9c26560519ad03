//! The commands of ZooKeeper's AdminServer (`org.apache.zookeeper.server.admin.Commands`), in its JSON.
//!
//! A field that a ZooKeeper has and that would be made up here is left out. There are no `snapshot` and
//! `restore` (`vivarium snapshot`), no trace masks, and nothing that only a Java process has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use proto::{Role, ServerSpec};
use serde::Serialize;
use serde_json::{Map, Value, json};
use state::view::Listing;
use utoipa::ToSchema;

use super::answer::{Failures, Problem};
use super::{Shared, aside};
use crate::client::Clients;
use crate::four_letter::{VERSION, directory_bytes};
use crate::metrics::{self, METRICS, Metric, Seen};
use crate::stats::Told;
use crate::threads::Part;

/// What a command answers: its own fields beside these two.
#[derive(Serialize, ToSchema)]
pub(super) struct CommandAnswer {
    #[serde(flatten)]
    fields: Map<String, Value>,
    /// Its name in full.
    command: String,
    /// What went wrong, if anything did.
    #[schema(required)]
    error: Option<String>,
}

type Answers = fn(&Arc<Clients>) -> Value;

struct Command {
    name: &'static str,
    aliases: &'static [&'static str],
    /// Whether it is answered also where nobody is served.
    always: bool,
    answer: Answers,
}

const fn command(
    name: &'static str,
    aliases: &'static [&'static str],
    always: bool,
    answer: Answers,
) -> Command {
    Command { name, aliases, always, answer }
}

static COMMANDS: &[Command] = &[
    command("configuration", &["conf", "config"], true, configuration),
    command("connection_stat_reset", &["crst"], false, |clients| {
        clients.stats.reset_connections();
        json!({})
    }),
    command("connections", &["cons"], false, |clients| connections(clients, true)),
    command("dirs", &[], false, |clients| {
        let (state, log) = sizes(clients);
        json!({ "datadir_size": state, "logdir_size": log })
    }),
    command("dump", &[], false, dump),
    command("environment", &["env", "envi"], true, environment),
    command("hash", &[], false, |_| json!({ "digests": [] })),
    command("is_read_only", &["isro"], false, |clients| json!({ "read_only": read_only(clients) })),
    command("last_snapshot", &["lsnp"], false, |clients| {
        // What a start would go on from, without the log.
        let (zxid, time_ms) = clients.published.last_durable().unwrap_or_default();
        json!({ "zxid": format!("{zxid:x}"), "timestamp": time_ms / 1000 })
    }),
    command("leader", &["lead"], true, leader),
    command("monitor", &["mntr"], false, monitor),
    command("observers", &["obsr"], true, observers),
    command("ruok", &[], true, |_| json!({})),
    command("server_stats", &["srvr"], false, server_stats),
    command("stat_reset", &["srst"], false, |clients| {
        clients.stats.reset();
        json!({})
    }),
    command("stats", &["stat"], false, |clients| {
        let mut stats = server_stats(clients);
        merge(&mut stats, connections(clients, false));
        stats
    }),
    command("voting_view", &[], true, voting_view),
    command("watch_summary", &["wchs"], false, |clients| {
        let counts = clients.published.watches().counts();
        json!({
            "num_connections": counts.connections,
            "num_paths": counts.paths,
            "num_total_watches": counts.watches,
        })
    }),
    command("watches", &["wchc"], false, |clients| {
        let mut by_session: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, sessions) in watched(clients) {
            for session in sessions {
                by_session.entry(session.to_string()).or_default().push(path.clone());
            }
        }
        json!({ "session_id_to_watched_paths": by_session })
    }),
    command(
        "watches_by_path",
        &["wchp"],
        false,
        |clients| json!({ "path_to_session_ids": watched(clients) }),
    ),
    command("zabstate", &[], false, zabstate),
];

/// The commands there are, as ZooKeeper lists them.
#[utoipa::path(get, path = "/commands", tag = "zookeeper", responses(
    (status = 200, description = "A link to each.", body = String, content_type = "text/html"),
    Failures,
))]
pub(super) async fn list() -> Html<String> {
    let link = |Command { name, .. }: &Command| {
        format!("<a href=\"/commands/{name}\">{name}</a>\n<br/>\n")
    };
    Html(COMMANDS.iter().map(link).collect())
}

/// Runs a command of ZooKeeper's AdminServer, by its name or its four-letter word.
#[utoipa::path(get, path = "/commands/{name}", tag = "zookeeper",
    params(("name" = String, Path, description = "Such as `monitor` or `mntr`; see `/commands`.")),
    responses(
        (status = 200, description = "Its answer, also that there is no such command.", body = CommandAnswer),
        (status = 503, description = "Nobody is served.", body = CommandAnswer),
        Failures,
    ))]
pub(super) async fn run(
    State(admin): State<Shared>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let clients = Arc::clone(admin.clients()?);
    let known = COMMANDS.iter().find(|known| known.name == name || known.aliases.contains(&&*name));
    let Some(known) = known else {
        let error = Some(format!("Unknown command: {name}"));
        return Ok(Json(CommandAnswer { fields: Map::new(), command: name, error }).into_response());
    };
    let command = known.name.to_owned();
    if !known.always && clients.published.shut().is_some() {
        let error = Some("This ZooKeeper instance is not currently serving requests".to_owned());
        let answer = CommandAnswer { fields: Map::new(), command, error };
        return Ok((StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response());
    }
    let mut fields = match aside(move || (known.answer)(&clients)).await? {
        Value::Object(fields) => fields,
        other => unreachable!("a command answers with fields, not {other}"),
    };
    let error = fields.remove("error").and_then(|error| error.as_str().map(str::to_owned));
    Ok(Json(CommandAnswer { fields, command, error }).into_response())
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn read_only(clients: &Clients) -> bool {
    Part::takes(&clients.four_letter.part) == "ro"
}

/// What the state and the log take on the disk, in bytes.
fn sizes(clients: &Clients) -> (u64, u64) {
    let dir = &clients.four_letter.data_dir;
    (directory_bytes(&dir.join("state")), directory_bytes(&dir.join("log")))
}

fn configuration(clients: &Arc<Clients>) -> Value {
    let words = &clients.four_letter;
    json!({
        "client_port": words.client_port,
        "data_dir": words.data_dir,
        "data_log_dir": words.data_dir,
        "tick_time": words.tick_time_ms,
        "max_client_cnxns": words.per_address_max,
        "min_session_timeout": words.timeout_ms_min,
        "max_session_timeout": words.timeout_ms_max,
        "server_id": words.server_id,
        "client_port_listen_backlog": -1,
    })
}

fn environment(_: &Arc<Clients>) -> Value {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    json!({
        "zookeeper.version": VERSION,
        "host.name": host.trim(),
        "vivarium.version": env!("CARGO_PKG_VERSION"),
        "os.name": std::env::consts::OS,
        "os.arch": std::env::consts::ARCH,
        "user.dir": std::env::current_dir().unwrap_or_default(),
    })
}

/// The connections; of `whole` ones, their sessions too.
fn connections(clients: &Clients, whole: bool) -> Value {
    let one = |told: &Told| {
        let mut shown = json!({
            "remote_socket_address": told.remote,
            // It reads, as far as anybody outside can tell.
            "interest_ops": 1,
            "outstanding_requests": told.queued,
            "packets_received": told.received,
            "packets_sent": told.sent,
        });
        if whole && told.session != 0 {
            let more = json!({
                "session_id": told.session,
                "last_operation": told.last_op.map_or("NA", proto::OpCode::short_name),
                "established": told.since_ms,
                "session_timeout": told.timeout_ms,
                "last_cxid": told.last_xid,
                "last_zxid": told.last_zxid,
            });
            merge(&mut shown, more);
        }
        shown
    };
    let (secure, plain): (Vec<_>, Vec<_>) =
        clients.stats.connections().into_iter().partition(|told| told.is_secure);
    let [plain, secure] = [plain, secure].map(|all| all.iter().map(one).collect::<Vec<_>>());
    json!({ "connections": plain, "secure_connections": secure })
}

fn dump(clients: &Arc<Clients>) -> Value {
    let view = clients.published.view();
    let mut ephemerals: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Ok(sessions) = view.sessions() else {
        return json!({ "error": "the store cannot be read" });
    };
    for (session, _) in sessions {
        match view.list(Listing::ephemerals(session)) {
            Ok(paths) if paths.is_empty() => {}
            Ok(paths) => drop(ephemerals.insert(session.to_string(), paths)),
            Err(_) => return json!({ "error": "the store cannot be read" }),
        }
    }
    // When sessions expire is counted by the leader alone, from its own start.
    json!({ "expiry_time_to_session_ids": {}, "session_id_to_ephemeral_paths": ephemerals })
}

fn server_stats(clients: &Arc<Clients>) -> Value {
    let (view, stats) = (clients.published.view(), &clients.stats);
    let (latency, (state, log)) = (stats.latency(), sizes(clients));
    json!({
        "version": VERSION,
        "read_only": read_only(clients),
        "server_stats": {
            "packets_sent": stats.sent.load(Ordering::Relaxed),
            "packets_received": stats.received.load(Ordering::Relaxed),
            "server_state": Part::of(&clients.four_letter.part),
            "outstanding_requests": stats.outstanding.load(Ordering::Relaxed).max(0),
            "min_latency": latency.min,
            "avg_latency": (latency.avg * 10_000.0).round() / 10_000.0,
            "max_latency": latency.max,
            "data_dir_size": state,
            "log_dir_size": log,
            "last_processed_zxid": view.zxid,
            "num_alive_client_connections": stats.connection_count(),
            "uptime": u64::try_from(stats.uptime_ms()).unwrap_or(u64::MAX),
        },
        "node_count": view.counts.nodes + 1,
    })
}

fn monitor(clients: &Arc<Clients>) -> Value {
    let seen = Seen::look(clients);
    let mut told = Map::new();
    for Metric { zookeeper, read, .. } in METRICS {
        let Some(name) = zookeeper else { continue };
        let value = match read(&seen) {
            metrics::Value::Integer(n) => json!(n),
            // As ZooKeeper rounds them.
            metrics::Value::Float(n) => json!((n * 10_000.0).round() / 10_000.0),
            metrics::Value::Text(text) => json!(text),
            metrics::Value::Nothing
            | metrics::Value::Family(..)
            | metrics::Value::Times(_)
            | metrics::Value::TimesOf(..) => continue,
        };
        told.insert((*name).to_owned(), value);
    }
    Value::Object(told)
}

/// Where servers are, by their ids.
fn specs(clients: &Clients) -> Vec<(u32, u64, ServerSpec)> {
    let view = clients.published.view();
    let servers = view.members.servers.iter();
    servers.map(|(id, member)| (*id, member.raft_id, member.spec.clone())).collect()
}

fn leader(clients: &Arc<Clients>) -> Value {
    let status = clients.watched.status();
    if !clients.policy.ensemble {
        return json!({ "error": "server is not initialized" });
    }
    let leads = specs(clients).into_iter().find(|(_, raft_id, _)| *raft_id == status.leader);
    let host = |spec: &ServerSpec| spec.peer.first().map(|address| address.host.clone());
    match leads {
        Some((id, raft_id, spec)) if raft_id != 0 => json!({
            "is_leader": status.leads,
            "leader_id": id,
            "leader_ip": host(&spec).unwrap_or_default(),
        }),
        // As ZooKeeper has it while it looks for one.
        _ => json!({ "is_leader": false, "leader_id": -1, "leader_ip": "" }),
    }
}

fn observers(clients: &Arc<Clients>) -> Value {
    let status = clients.watched.status();
    let linked = |raft_id: u64| {
        let mut peers = status.peers.iter();
        peers.any(|peer| peer.raft_id == raft_id && peer.is_linked)
    };
    let here = specs(clients).into_iter().filter(|(_, raft_id, spec)| {
        status.leads && spec.role == Role::Observer && linked(*raft_id)
    });
    let one = |(id, _, spec): (u32, u64, ServerSpec)| {
        let address = spec.peer.first().map(|address| format!("/{address}"));
        json!({ "remote_socket_address": address, "sid": id })
    };
    let observers: Vec<_> = here.map(one).collect();
    json!({ "synced_observers": observers.len(), "observers": observers })
}

fn voting_view(clients: &Arc<Clients>) -> Value {
    let all = if clients.policy.ensemble { specs(clients) } else { Vec::new() };
    let votes = all.into_iter().filter(|(.., spec)| spec.role == Role::Participant);
    let texts = |addresses: &[proto::Address]| -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    };
    let view: BTreeMap<String, Value> = votes
        .map(|(id, _, spec)| {
            let election = if spec.election.is_empty() { &spec.peer } else { &spec.election };
            let one = json!({
                "server_addresses": texts(&spec.peer),
                "election_addresses": texts(election),
                "client_address": spec.client.as_ref().map(ToString::to_string),
                "learner_type": "participant",
            });
            (id.to_string(), one)
        })
        .collect();
    json!({ "current_config": view })
}

fn zabstate(clients: &Arc<Clients>) -> Value {
    let (view, status) = (clients.published.view(), clients.watched.status());
    let id = u32::from(clients.four_letter.server_id);
    let votes = view.members.servers.get(&id).is_some_and(state::members::Member::votes);
    json!({
        "myid": id,
        "is_leader": status.leads,
        "voting": votes,
        "last_zxid": format!("{:#x}", view.zxid),
        "zab_epoch": view.zxid >> 32,
        "zab_counter": view.zxid & 0xffff_ffff,
        "zabstate": if status.leader == 0 { "election" } else { "broadcast" },
    })
}

/// The paths on which there are data watches, and the sessions that have set them.
fn watched(clients: &Clients) -> BTreeMap<String, Vec<i64>> {
    let sessions: BTreeMap<u64, i64> = clients
        .published
        .connected()
        .iter()
        .map(|(session, outbox)| (outbox.id, *session))
        .collect();
    let watches = clients.published.watches().data_watches();
    let session = |outbox: &Arc<replica::Outbox>| sessions.get(&outbox.id).copied();
    watches
        .into_iter()
        .map(|(path, outboxes)| (path.to_string(), outboxes.iter().filter_map(session).collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_that_of_one_command() {
        let names = COMMANDS.iter().flat_map(|known| known.aliases.iter().chain([&known.name]));
        let mut seen = BTreeSet::new();
        names.for_each(|name| assert!(seen.insert(name), "{name} twice"));
    }
}
