//! Settings that change what a ZooKeeper does and that Vivarium does not follow: one warning each.
//!
//! What only tunes the inside of a ZooKeeper (`snapCount`, `preAllocSize`, `autopurge.*`,
//! `serverCnxnFactory`, `fips-mode`, reply caches, thread counts) means nothing here and is passed
//! over in silence.

use super::Warning;
use super::properties::Property;
use std::collections::BTreeMap;
use std::path::Path;

/// A setting, the values with which it changes behaviour, and what to tell.
struct Unsupported {
    /// A key of the main list or a full property name; a `*` at its end stands for any rest.
    name: &'static str,
    matters: Matters,
    reason: &'static str,
}

enum Matters {
    /// Whatever its value.
    Always,
    /// If it is `true`.
    IfTrue,
    /// If it is a number above 0.
    IfPositive,
    /// If it is anything but this, in any case.
    Unless(&'static str),
}

/// The warnings for all that is set.
pub(super) fn warnings(
    main: &BTreeMap<String, Property>,
    properties: &BTreeMap<String, Property>,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for rule in RULES {
        for (name, property) in main.iter().chain(properties) {
            let hit = match rule.name.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == rule.name,
            };
            if hit && rule.matters.with(&property.value) {
                warnings.push(warn(property, rule.reason));
                break;
            }
        }
    }
    let data = main.get("dataDir");
    if let (Some(log), Some(data)) = (main.get("dataLogDir"), data)
        && log.value != data.value
    {
        let reason = "not used: log and state are both under dataDir; put dataDir on the device \
                      that is fast to sync";
        warnings.push(warn(log, reason));
    }
    if let Some(data) = data.filter(|d| has_zookeeper_data(Path::new(&d.value))) {
        let reason = "its directory version-2 holds a ZooKeeper's data, which is neither read nor \
                      changed: this server keeps its own beside it, in the directory vivarium; \
                      import the data if it is wanted";
        warnings.push(warn(data, reason));
    }
    warnings
}

/// A line of `zoo.cfg` that a real server does not follow either, although its author thought so.
pub(super) fn misplaced(line: &Property) -> Option<Warning> {
    let plain = ["jute.maxbuffer", "readonlymode.enabled", "java.security.auth.login.config"];
    let misplaced = plain.contains(&line.key.as_str()) || line.key.starts_with("znode.container.");
    if misplaced {
        let reason = "has no effect in this file, in ZooKeeper too; give it as a Java system property \
                      (--java-property key=value)";
        return Some(warn(line, reason));
    }
    let prefixed = line.key.starts_with("zookeeper.");
    prefixed
        .then(|| warn(line, "has no effect in this file, in ZooKeeper too; leave off `zookeeper.`"))
}

fn warn(property: &Property, reason: &str) -> Warning {
    Warning { origin: property.origin.clone(), key: property.key.clone(), reason: reason.into() }
}

fn has_zookeeper_data(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir.join("version-2")).is_ok_and(|mut entries| entries.next().is_some())
}

impl Matters {
    fn with(&self, value: &str) -> bool {
        match self {
            Self::Always => !value.is_empty(),
            Self::IfTrue => value.eq_ignore_ascii_case("true"),
            Self::IfPositive => value.parse::<f64>().is_ok_and(|n| n > 0.0),
            Self::Unless(normal) => !value.eq_ignore_ascii_case(normal),
        }
    }
}

const fn rule(name: &'static str, matters: Matters, reason: &'static str) -> Unsupported {
    Unsupported { name, matters, reason }
}

const RULES: &[Unsupported] = &[
    rule(
        "standaloneEnabled",
        Matters::Unless("true"),
        "a single server always runs as standalone; remove it",
    ),
    rule("observerMasterPort", Matters::Always, "observers follow the leader itself; remove it"),
    rule(
        "group.*",
        Matters::Always,
        "hierarchical quorums are not supported, each server has one vote; remove it",
    ),
    rule(
        "weight.*",
        Matters::Unless("1"),
        "weighted votes are not supported, each server has one vote; remove it",
    ),
    rule("oraclePath", Matters::Always, "an oracle does not decide elections; run three servers"),
    rule(
        "portUnification",
        Matters::IfTrue,
        "connections between servers use TLS or not, never both; remove it",
    ),
    rule(
        "quorum.auth.enableSasl",
        Matters::IfTrue,
        "servers do not authenticate each other by SASL; keep them on a private network",
    ),
    rule(
        "metricsProvider.className",
        Matters::Always,
        "this metrics provider is not started; metrics are at /metrics of the admin API \
         (admin.serverPort)",
    ),
    rule(
        "zookeeper.admin.portUnification",
        Matters::IfTrue,
        "the admin API takes HTTP or HTTPS, never both; give it [admin.tls] in a TOML file",
    ),
    rule(
        "zookeeper.client.portUnification",
        Matters::IfTrue,
        "clientPort takes plain text only; give TLS clients secureClientPort",
    ),
    rule(
        "zookeeper.forceSync",
        Matters::Unless("yes"),
        "every acknowledged write is synced to disk, always; remove it",
    ),
    rule(
        "zookeeper.leaderServes",
        Matters::Unless("yes"),
        "the leader serves clients too; leave it out of the clients' connect strings",
    ),
    rule(
        "zookeeper.ssl.crl",
        Matters::IfTrue,
        "revocation lists are not checked; use short-lived certificates",
    ),
    rule("zookeeper.ssl.ocsp", Matters::IfTrue, "OCSP is not asked; use short-lived certificates"),
    rule(
        "zookeeper.ssl.protocol",
        Matters::Unless("TLSv1.2"),
        "TLS 1.2 and 1.3 are offered, whatever it says; remove it",
    ),
    rule(
        "zookeeper.ssl.enabledProtocols",
        Matters::Always,
        "TLS 1.2 and 1.3 are offered, whatever it says; remove it",
    ),
    rule(
        "zookeeper.ssl.ciphersuites",
        Matters::Always,
        "the TLS library's own safe list is used; remove it",
    ),
    rule(
        "zookeeper.ssl.clientHostnameVerification",
        Matters::IfTrue,
        "a client's certificate is checked, its host name is not; use ACLs on its subject",
    ),
    rule(
        "zookeeper.ssl.authProvider",
        Matters::Unless("x509"),
        "a TLS client is known by the scheme x509 only; remove it",
    ),
    rule(
        "zookeeper.ssl.context.supplier.class",
        Matters::Always,
        "Java classes are not loaded; use ssl.keyStore and ssl.trustStore",
    ),
    rule(
        "zookeeper.letAnySaslUserDoX",
        Matters::Always,
        "is not followed, because it opens everything to any SASL user; use superUser",
    ),
    rule(
        "zookeeper.kerberos.*",
        Matters::Always,
        "Kerberos is not supported; use DIGEST-MD5 users, x509 or digest",
    ),
    rule(
        "zookeeper.enableEagerACLCheck",
        Matters::IfTrue,
        "ACLs are checked when a write is applied; remove it",
    ),
    rule(
        "zookeeper.connection_throttle_tokens",
        Matters::IfPositive,
        "new connections are not throttled by rate; use maxCnxns",
    ),
    rule(
        "zookeeper.request_throttle_max_requests",
        Matters::IfPositive,
        "requests are held back by globalOutstandingLimit only; use that",
    ),
    rule(
        "zookeeper.throttled_op_wait_time",
        Matters::IfPositive,
        "requests that waited are not refused; use globalOutstandingLimit",
    ),
    rule(
        "zookeeper.largeRequestThreshold",
        Matters::IfPositive,
        "large requests are bounded by jute.maxbuffer only; use that",
    ),
    rule(
        "zookeeper.ssl.quorum.hostnameVerification",
        Matters::Unless("true"),
        "a server's certificate must be for the name under which the others reach it; make such ones",
    ),
    rule(
        "zookeeper.ssl.quorum.clientAuth",
        Matters::Unless("need"),
        "servers always show each other certificates; remove it",
    ),
    rule(
        "zookeeper.sslQuorumReloadCertFiles",
        Matters::IfTrue,
        "certificates for connections between servers are read at the start; restart the servers, one \
         after the other",
    ),
];
