//! Every metric: its name, its unit, what it says, and where it is read. The admin API's `/metrics` gives
//! those with a name of ours, in Prometheus' text format; the word `mntr` and the command `monitor` those
//! with a name of ZooKeeper's.
//!
//! Nothing is kept for them beside what the server counts anyway: they are read when somebody asks.
//!
//! Invariants:
//! * A counter never goes down while the server runs, but for those that the word `srst` resets.
//! * What an operation costs does not depend on whether anybody asks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};
use replica::NodeStatus;
use replica::watches::WatchCounts;
use state::View;
use state::plugins::{Counters, Row};

use crate::four_letter::VERSION;
use crate::histogram::Counted;
use crate::plugins::Meter;
use crate::process::Process;
use crate::stats::Latency;
use crate::threads::Part;
use crate::{client::Clients, watched::Watched};

/// The server at one moment.
pub(crate) struct Seen {
    pub(crate) clients: Arc<Clients>,
    pub(crate) watched: Arc<Watched>,
    pub(crate) status: Arc<NodeStatus>,
    pub(crate) view: Arc<View>,
    pub(crate) watches: WatchCounts,
    pub(crate) sessions: u64,
    pub(crate) latency: Latency,
    pub(crate) process: Process,
    /// Whether clients are served.
    pub(crate) is_ready: bool,
}

impl Seen {
    pub(crate) fn look(clients: &Arc<Clients>) -> Self {
        let published = &clients.published;
        let (view, watched) = (published.view(), Arc::clone(&clients.watched));
        Self {
            status: watched.status(),
            watches: published.watches().counts(),
            sessions: view.sessions().map_or(0, |sessions| sessions.len() as u64),
            latency: clients.stats.latency(),
            process: Process::look(),
            is_ready: clients.unready().is_empty(),
            clients: Arc::clone(clients),
            watched,
            view,
        }
    }

    /// How many of those whom raft counts vote, and how many of the others and of them have all of the
    /// log that a majority has, this server left out: followers and observers, as ZooKeeper counts them.
    fn learners(&self) -> (u64, u64, u64) {
        let members = &self.view.members;
        let mut counts = (members.voters.len() as u64, 0, 0);
        let others = self.status.peers.iter().filter(|peer| peer.raft_id != self.status.raft_id);
        for peer in others.filter(|peer| peer.is_linked && peer.matched.is_some()) {
            match members.voters.contains(&peer.raft_id) {
                true => counts.1 += 1,
                false => counts.2 += 1,
            }
        }
        counts
    }
}

/// What is read of a metric.
pub(crate) enum Value {
    Integer(u64),
    Float(f64),
    Text(String),
    /// By a label's value.
    Family(&'static str, BTreeMap<String, u64>),
    Times(Counted),
    TimesOf(&'static str, Vec<(Cow<'static, str>, Counted)>),
    /// It says nothing at the moment.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// A metric.
pub(crate) struct Metric {
    /// Its name in `/metrics`, without its unit, and without `_total`.
    name: Option<&'static str>,
    /// Its name in `mntr`, without `zk_`.
    pub(crate) zookeeper: Option<&'static str>,
    kind: Kind,
    unit: Option<Unit>,
    help: &'static str,
    pub(crate) read: fn(&Seen) -> Value,
}

type Read = fn(&Seen) -> Value;

/// One that both have.
const fn both(
    name: &'static str,
    zookeeper: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    help: &'static str,
    read: Read,
) -> Metric {
    Metric { name: Some(name), zookeeper: Some(zookeeper), kind, unit, help, read }
}

/// One of ours.
const fn ours(
    name: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    help: &'static str,
    read: Read,
) -> Metric {
    Metric { name: Some(name), zookeeper: None, kind, unit, help, read }
}

/// One that ZooKeeper counts otherwise, or in another unit.
const fn zookeepers(zookeeper: &'static str, read: Read) -> Metric {
    Metric { name: None, zookeeper: Some(zookeeper), kind: Gauge, unit: None, help: "", read }
}

use Kind::{Counter, Gauge, Histogram};
use Value::{Family, Float, Integer, Nothing, Text, Times, TimesOf};

const SECONDS: Option<Unit> = Some(Unit::Seconds);
const BYTES: Option<Unit> = Some(Unit::Bytes);

/// All of them, those that `mntr` has first in its order.
#[rustfmt::skip]
pub(crate) static METRICS: &[Metric] = &[
    zookeepers("version", |_| Text(VERSION.to_owned())),
    zookeepers("server_state", |seen| Text(Part::of(&seen.clients.four_letter.part).to_owned())),
    zookeepers("avg_latency", |seen| Float(seen.latency.avg)),
    zookeepers("max_latency", |seen| Integer(seen.latency.max)),
    zookeepers("min_latency", |seen| Integer(seen.latency.min)),
    both("vivarium_packets_received", "packets_received", Counter, None,
        "Packets from clients, since the start or the last `srst`.",
        |seen| Integer(seen.clients.stats.received.load(Ordering::Relaxed))),
    both("vivarium_packets_sent", "packets_sent", Counter, None,
        "Packets to clients, since the start or the last `srst`.",
        |seen| Integer(seen.clients.stats.sent.load(Ordering::Relaxed))),
    both("vivarium_connections", "num_alive_connections", Gauge, None,
        "Connections of clients to this server.",
        |seen| Integer(seen.clients.stats.connection_count() as u64)),
    both("vivarium_requests_in_flight", "outstanding_requests", Gauge, None,
        "Requests of all connections that are not answered.",
        |seen| Integer(seen.clients.stats.outstanding.load(Ordering::Relaxed).max(0) as u64)),
    zookeepers("uptime", |seen| Integer(seen.clients.stats.uptime_ms() as u64)),
    // ZooKeeper counts the root twice, under "" and "/".
    zookeepers("znode_count", |seen| Integer(seen.view.counts.nodes + 1)),
    both("vivarium_watches", "watch_count", Gauge, None,
        "Watches that clients of this server have set.",
        |seen| Integer(seen.watches.watches as u64)),
    both("vivarium_ephemerals", "ephemerals_count", Gauge, None,
        "Ephemeral znodes.",
        |seen| Integer(seen.view.counts.ephemerals)),
    both("vivarium_data", "approximate_data_size", Gauge, BYTES,
        "The lengths of all paths and all data.",
        |seen| Integer(seen.view.counts.bytes)),
    both("vivarium_sessions", "global_sessions", Gauge, None,
        "Sessions that all servers know.",
        |seen| Integer(seen.sessions)),
    both("vivarium_local_sessions", "local_sessions", Gauge, None,
        "Sessions that this server alone knows.",
        |seen| Integer(seen.clients.published.local_sessions() as u64)),
    both("process_open_fds", "open_file_descriptor_count", Gauge, None,
        "Open file descriptors.",
        |seen| Integer(seen.process.descriptors)),
    both("process_max_fds", "max_file_descriptor_count", Gauge, None,
        "The most file descriptors that may be open.",
        |seen| Integer(seen.process.descriptors_max)),
    both("vivarium_connections_rejected", "connection_rejected", Counter, None,
        "Connections that were closed at once, because there were too many.",
        |seen| Integer(seen.clients.stats.rejected.load(Ordering::Relaxed))),
    zookeepers("avg_fsynctime", |seen| {
        let fsync = seen.watched.fsync.counted();
        Float(if fsync.count == 0 { 0.0 } else { fsync.sum_us as f64 / 1000.0 / fsync.count as f64 })
    }),
    zookeepers("cnt_fsynctime", |seen| Integer(seen.watched.fsync.counted().count)),
    zookeepers("sum_fsynctime", |seen| Integer(seen.watched.fsync.counted().sum_us / 1000)),
    zookeepers("quorum_size", |seen| match seen.learners() {
        (voters, ..) if seen.clients.policy.ensemble => Integer(voters),
        _ => Nothing,
    }),
    zookeepers("learners", |seen| leading(seen, |(_, followers, observers)| followers + observers)),
    zookeepers("synced_followers", |seen| leading(seen, |(_, followers, _)| followers)),
    zookeepers("synced_observers", |seen| leading(seen, |(.., observers)| observers)),

    ours("vivarium_znodes", Gauge, None, "Znodes, the root and the system's included.",
        |seen| Integer(seen.view.counts.nodes)),
    ours("vivarium_watched_paths", Gauge, None, "Paths on which there is a watch.",
        |seen| Integer(seen.watches.paths as u64)),
    ours("vivarium_ready", Gauge, None, "1 if clients are served, as /readyz says it.",
        |seen| Integer(u64::from(seen.is_ready))),
    ours("vivarium_zxid", Gauge, None, "The last zxid that is applied here.",
        |seen| Integer(seen.view.zxid.max(0) as u64)),
    ours("vivarium_apply_version", Gauge, None, "The setting apply-version.",
        |seen| Integer(u64::from(seen.view.settings.apply_version))),
    ours("vivarium_uptime", Gauge, SECONDS, "Since the start.",
        |seen| Float(seen.clients.stats.uptime_ms() as f64 / 1000.0)),
    ours("vivarium_request_duration", Histogram, SECONDS,
        "From the arrival of a request until its answer is on its way, by operation. What arrives \
         together counts from when it arrived.",
        |seen| TimesOf("op", seen.clients.stats.requests().map(|(op, counted)| (op.into(), counted)).collect())),
    ours("vivarium_fsync_duration", Histogram, SECONDS, "Syncs of the log.",
        |seen| Times(seen.watched.fsync.counted())),
    ours("vivarium_apply_duration", Histogram, SECONDS,
        "Applying an entry, which may hold many commands, and publishing what it did.",
        |seen| Times(seen.watched.apply.counted())),
    ours("vivarium_proposal_duration", Histogram, SECONDS,
        "On the leader: from proposing entries until a majority is known to have them.",
        |seen| Times(seen.watched.proposal.counted())),
    ours("vivarium_leader", Gauge, None, "1 if this server leads.",
        |seen| Integer(u64::from(seen.status.leads))),
    ours("vivarium_leader_known", Gauge, None, "1 if this server knows who leads.",
        |seen| Integer(u64::from(seen.status.leader != 0))),
    ours("vivarium_leader_changes", Counter, None, "How often another server has led, or none.",
        |seen| Integer(seen.watched.leader_changes.load(Ordering::Relaxed))),
    ours("vivarium_leader_silence", Gauge, SECONDS, "For how long no leader has been heard of.",
        |seen| Float(seen.status.silent_ms.max(0) as f64 / 1000.0)),
    ours("vivarium_term", Gauge, None, "Raft's term.", |seen| Integer(seen.status.term)),
    ours("vivarium_log_first_index", Gauge, None, "The first entry of the log.",
        |seen| Integer(seen.status.log.0)),
    ours("vivarium_log_last_index", Gauge, None, "The last entry of the log.",
        |seen| Integer(seen.status.log.1)),
    ours("vivarium_log", Gauge, BYTES, "The log's length.", |seen| Integer(seen.status.log_bytes)),
    ours("vivarium_committed_index", Gauge, None, "The last entry that is known to be committed.",
        |seen| Integer(seen.status.committed)),
    ours("vivarium_applied_index", Gauge, None, "The last entry that is applied.",
        |seen| Integer(seen.status.applied)),
    ours("vivarium_durable_index", Gauge, None,
        "The last entry that a start would not have to replay.",
        |seen| Integer(seen.status.durable)),
    ours("vivarium_commands_in_hand", Gauge, None,
        "Commands of this server that are not applied yet.",
        |seen| Integer(seen.status.in_hand)),
    ours("vivarium_quarantined", Gauge, None, "1 if this server's state is in quarantine.",
        |seen| Integer(u64::from(seen.status.is_quarantined))),
    ours("vivarium_waits_for_newer_program", Gauge, None,
        "1 if the next entry is for a newer program than this one.",
        |seen| Integer(u64::from(seen.status.waits_for_newer))),
    ours("vivarium_servers_disagree", Gauge, None,
        "1 if servers have different states and nobody has a majority: nothing is proposed.",
        |seen| Integer(u64::from(seen.status.is_in_doubt))),
    ours("vivarium_voters", Gauge, None, "Servers that vote.",
        |seen| Integer(seen.view.members.voters.len() as u64)),
    ours("vivarium_peer_linked", Gauge, None, "1 if there is a link to that server.",
        |seen| of_peers(seen, |peer| Some(u64::from(peer.is_linked)))),
    ours("vivarium_peer_lag_entries", Gauge, None,
        "On the leader: how many entries of its log that server lacks.",
        |seen| of_peers(seen, |peer| Some(seen.status.log.1.saturating_sub(peer.matched?)))),
    ours("vivarium_held_up", Gauge, None,
        "1 if the next entry cannot be applied here for now; /readyz says why.",
        |seen| Integer(u64::from(seen.clients.published.waits_for().is_some()))),
    ours("vivarium_plugin_calls", Counter, None,
        "Calls of a binding in apply since it came, the same on every server.",
        |seen| of_bindings(seen, |_, counters| Some(counters.calls))),
    ours("vivarium_plugin_denials", Counter, None,
        "Those that said no, whatever came of it.",
        |seen| of_bindings(seen, |_, counters| Some(counters.denials))),
    ours("vivarium_plugin_faults", Counter, None,
        "Those that were faults of the plugin.",
        |seen| of_bindings(seen, |_, counters| Some(counters.faults))),
    ours("vivarium_plugin_store", Gauge, BYTES, "What a binding's plugin keeps, keys and values.",
        |seen| of_bindings(seen, |_, counters| Some(counters.store_bytes))),
    ours("vivarium_plugin_generation", Gauge, None, "The generation of a binding that is called.",
        |seen| of_bindings(seen, |row, _| Some(row.active.as_ref()?.generation))),
    ours("vivarium_plugin_quarantined", Gauge, None,
        "1 if the servers have switched a binding off, after too many faults.",
        |seen| of_bindings(seen, |row, _| Some(u64::from(row.quarantine.is_some())))),
    ours("vivarium_plugin_call_duration", Histogram, SECONDS,
        "Calls of a binding on this server since its start, those on reads included.",
        |seen| TimesOf("binding", metered(seen, |meter| meter.took.counted()))),
    ours("vivarium_plugin_fuel", Counter, None,
        "Fuel that these calls took; one that was a fault has taken all that it might.",
        |seen| Family("binding", metered(seen, Meter::fuel))),
    ours("vivarium_audit_records_lost", Counter, None,
        "Records of the audit log that could not be written.",
        |seen| Integer(seen.clients.audit.as_ref().map_or(0, |audit| audit.lost()))),
    ours("process_resident_memory", Gauge, BYTES, "Memory in hand.",
        |seen| Integer(seen.process.resident_bytes)),
    ours("process_cpu", Counter, SECONDS, "Time of processors.",
        |seen| Float(seen.process.cpu_seconds)),
];

fn leading(seen: &Seen, of: fn((u64, u64, u64)) -> u64) -> Value {
    if seen.status.leads && seen.clients.policy.ensemble {
        Integer(of(seen.learners()))
    } else {
        Nothing
    }
}

fn of_peers(seen: &Seen, value: impl Fn(&replica::node::PeerStatus) -> Option<u64>) -> Value {
    let others = seen.status.peers.iter().filter(|peer| peer.raft_id != seen.status.raft_id);
    let named = others.filter_map(|peer| {
        Some((seen.view.members.server_of(peer.raft_id)?.to_string(), value(peer)?))
    });
    Family("server", named.collect())
}

fn of_bindings(seen: &Seen, value: impl Fn(&Row, &Counters) -> Option<u64>) -> Value {
    let there = seen.view.plugins.rows().filter(|(_, row)| row.is_there());
    let named = there.filter_map(|(name, row)| {
        let counters = seen.view.counters.get(&row.id).copied().unwrap_or_default();
        Some((name.to_owned(), value(row, &counters)?))
    });
    Family("binding", named.collect())
}

/// What was measured of the bindings that there are.
fn metered<N: From<String>, T, C: FromIterator<(N, T)>>(
    seen: &Seen,
    of: impl Fn(&Meter) -> T,
) -> C {
    let meters = seen.clients.meters.all();
    let there = seen.view.plugins.rows().filter(|(_, row)| row.is_there());
    let named =
        there.filter_map(|(name, row)| Some((name.to_owned().into(), of(meters.get(&row.id)?))));
    named.collect()
}

/// All metrics with names of ours, as Prometheus takes them.
pub(crate) fn text(seen: Seen) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(seen));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("text takes any text");
    text
}

/// What [`text`] is.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, kind, unit, help, read, .. } in METRICS {
            let Some(name) = name else { continue };
            let kind_of = match kind {
                Gauge => MetricType::Gauge,
                Counter => MetricType::Counter,
                Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind_of)?;
            put(&mut metric, *kind, read(self))?;
        }
        Ok(())
    }
}

fn put(metric: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    let no_exemplar = None::<&Exemplar<NoLabelSet, f64>>;
    match (kind, value) {
        (Counter, Integer(n)) => metric.encode_counter(&n, no_exemplar),
        (Counter, Float(n)) => metric.encode_counter(&n, no_exemplar),
        (Counter, Family(label, values)) => values.iter().try_for_each(|(name, n)| {
            metric.encode_family(&[(label, name.as_str())])?.encode_counter(n, no_exemplar)
        }),
        (_, Integer(n)) => metric.encode_gauge(&n),
        (_, Float(n)) => metric.encode_gauge(&n),
        (_, Family(label, values)) => values.iter().try_for_each(|(name, n)| {
            metric.encode_family(&[(label, name.as_str())])?.encode_gauge(n)
        }),
        (_, Times(counted)) => histogram(metric, &counted),
        (_, TimesOf(label, each)) => each.iter().try_for_each(|(name, counted)| {
            histogram(&mut metric.encode_family(&[(label, &**name)])?, counted)
        }),
        (_, Text(_) | Nothing) => Ok(()),
    }
}

fn histogram(metric: &mut MetricEncoder<'_>, counted: &Counted) -> fmt::Result {
    let (sum, Counted { buckets, count, .. }) = (counted.sum_seconds(), counted);
    metric.encode_histogram::<NoLabelSet>(sum, *count, buckets, None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_ours_are_explained() {
        let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
        for Metric { name, zookeeper, help, .. } in METRICS {
            assert!(name.is_some() || zookeeper.is_some());
            if let Some(name) = name {
                assert!(ours.insert(name), "{name} twice");
                assert!(name.starts_with("vivarium_") || name.starts_with("process_"), "{name}");
                assert!(help.ends_with('.') && help.len() > 10, "{name}: {help:?}");
            }
            assert!(zookeeper.is_none_or(|name| theirs.insert(name)), "{zookeeper:?} twice");
        }
    }
}
