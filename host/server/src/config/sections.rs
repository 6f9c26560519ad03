//! The sections of the configuration that are neither access nor TLS.
//!
//! Each field says its unit, its default, and what the bound means when it is met.

use std::path::PathBuf;

use super::access::{PeerTls, Tls};
use super::units::{bytes, ms, ms_opt, or_none};
use proto::{Address, Role, ServerSpec};
use serde::{Deserialize, Serialize};

/// `[listen]`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Listen {
    /// Plain-text client port. `"none"` closes it. Default `127.0.0.1:2181`.
    #[serde(with = "or_none")]
    pub client: Option<Address>,
    /// TLS client port; needs `[tls]`. Default none.
    pub client_tls: Option<Address>,
}

impl Default for Listen {
    fn default() -> Self {
        Self { client: Some(Address::new("127.0.0.1", 2181)), client_tls: None }
    }
}

/// `[sessions]`: what the server grants to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sessions {
    /// Lower bound of a session's timeout, milliseconds. Default: 2 ticks.
    #[serde(with = "ms_opt")]
    pub min_timeout_ms: Option<u64>,
    /// Upper bound of a session's timeout, milliseconds. Default: 20 ticks.
    #[serde(with = "ms_opt")]
    pub max_timeout_ms: Option<u64>,
    /// New sessions are known to this server only: cheaper, without ephemerals, and gone when it
    /// stops. Default false.
    pub local: bool,
    /// A local session that creates an ephemeral becomes a global one. Default false.
    pub local_upgrading: bool,
}

/// `[limits]`: bounds on what clients may ask of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limits {
    /// Longest request, bytes without the length prefix (ZooKeeper's `jute.maxbuffer`); a longer
    /// one closes its connection. Default 1,048,575. The cluster's value is set at bootstrap.
    #[serde(with = "bytes")]
    pub max_frame_bytes: u64,
    /// Client connections from one address; 0 is no bound. One more is closed. Default 60.
    pub max_connections_per_address: u32,
    /// Client connections in all; 0 is no bound. One more is closed. Default 0.
    pub max_connections: u32,
    /// Requests of all clients in progress; beyond it sockets are not read. Default 1,000.
    pub max_outstanding_requests: u32,
    /// Requests of one connection in progress; beyond it that socket is not read. Default 1,000.
    pub max_outstanding_per_connection: u32,
    /// How long a connection may live without asking for a session, milliseconds. Default 10,000.
    #[serde(with = "ms")]
    pub sessionless_connection_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 1_048_575,
            max_connections_per_address: 60,
            max_connections: 0,
            max_outstanding_requests: 1_000,
            max_outstanding_per_connection: 1_000,
            sessionless_connection_timeout_ms: 10_000,
        }
    }
}

/// `[four-letter-words]`: ZooKeeper's plain-text commands on the client port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FourLetterWords {
    /// The words that are answered; `["*"]` is all of [`WORDS`]. Default `["*"]`.
    pub enabled: Vec<String>,
    /// Whose words are answered: `"local"` (loopback addresses) or `"all"`. Default `"local"`.
    pub allow_from: AllowFrom,
}

impl Default for FourLetterWords {
    fn default() -> Self {
        Self { enabled: vec!["*".into()], allow_from: AllowFrom::Local }
    }
}

impl FourLetterWords {
    /// Whether `word` is in the whitelist.
    pub fn is_enabled(&self, word: &str) -> bool {
        self.enabled.iter().any(|w| w == word || (w == "*" && WORDS.contains(&word)))
    }
}

/// Every four-letter word there is.
pub const WORDS: &[&str] = &[
    "ruok", "isro", "srvr", "stat", "cons", "conf", "envi", "mntr", "wchs", "wchc", "wchp", "dump",
    "dirs", "hash", "crst", "srst", "gtmk", "stmk",
];

/// Whose four-letter words are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowFrom {
    /// Loopback addresses only.
    Local,
    /// Every address.
    All,
}

/// How a read relates to writes acknowledged elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reads {
    /// From this server's state, as ZooKeeper does: never behind the session, maybe behind others.
    #[default]
    Local,
    /// Never behind any acknowledged write, at the cost of a round trip to the leader.
    Linearizable,
}

/// `[logging]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Logging {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,server=debug`.
    /// Default `info`.
    pub level: String,
    /// `"text"` for people or `"json"`, an object a line. Default `"text"`.
    pub format: LogFormat,
    /// A request that took longer is named in the log, milliseconds; 0 names none. Default 1,000.
    #[serde(with = "ms")]
    pub slow_request_warn_ms: u64,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text, slow_request_warn_ms: 1_000 }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[nodes]`: rules about znodes. They seed the replicated settings when a cluster is born; later
/// the replicated values hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Nodes {
    /// Nodes with a time to live may be created. Default true (in ZooKeeper: false).
    pub ttl_enabled: bool,
    /// TTLs up to 2^60-1 ms instead of 2^40-1, as ZooKeeper's `emulate353TTLNodes`. Default false.
    pub emulate_353_ttl: bool,
    /// Hard quotas refuse writes instead of only being logged. Default false.
    pub enforce_quota: bool,
    /// How often empty containers and outlived TTL nodes are looked for, milliseconds, at least 1.
    /// Default 60,000.
    #[serde(with = "ms")]
    pub container_check_interval_ms: u64,
    /// How many of them are deleted in a minute, at least 1. Default 10,000.
    pub container_deletes_per_minute: u32,
    /// A container that never had a child is deleted after this, milliseconds; 0 is never.
    /// Default 0.
    #[serde(with = "ms")]
    pub container_max_never_used_ms: u64,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            ttl_enabled: true,
            emulate_353_ttl: false,
            enforce_quota: false,
            container_check_interval_ms: 60_000,
            container_deletes_per_minute: 10_000,
            container_max_never_used_ms: 0,
        }
    }
}

/// `[storage]`: the log and the caches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Storage {
    /// Size of a log segment, bytes, preallocated. 1 MiB to 1 GiB. Default 64 MiB.
    #[serde(with = "bytes")]
    pub log_segment_bytes: u64,
    /// Log kept behind what the store has made durable, bytes; older segments are trimmed. At least
    /// a segment. Default 256 MiB.
    #[serde(with = "bytes")]
    pub log_retain_bytes: u64,
    /// Memory for the store's blocks and decoded nodes together, bytes, at least 1 MiB.
    /// Default 72 MiB.
    #[serde(with = "bytes")]
    pub cache_bytes: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self { log_segment_bytes: 64 << 20, log_retain_bytes: 256 << 20, cache_bytes: 72 << 20 }
    }
}

/// `[admin]`: the HTTP API, on a port of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Admin {
    /// Where it is served. Default none.
    pub listen: Option<Address>,
    /// Who may look without proving anything: `"local"` (loopback addresses) or `"all"`. Health is told
    /// to everybody; who changes something proves to be an operator. Default `"local"`.
    pub allow_from: AllowFrom,
    /// A file whose first line is a token of operators, beside `operator.token` in the data directory.
    /// It may change while the server runs. Default none.
    pub token_file: Option<PathBuf>,
    /// `[admin.tls]`. Default: none, HTTP in the clear.
    pub tls: Option<Tls>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: None, allow_from: AllowFrom::Local, token_file: None, tls: None }
    }
}

/// `[audit]`: who wrote what, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Audit {
    /// Whether there is such a log. Default false.
    pub enabled: bool,
    /// The file that it is appended to. Default none: it goes into the server's log, with the target
    /// `audit`.
    pub file: Option<PathBuf>,
}

/// `[ensemble]`: the servers that form a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ensemble {
    /// Where other servers connect. Default: this server's own `peer` addresses.
    pub peer_listen: Option<Address>,
    /// Clients with the right may change who takes part (`reconfig`). Default false.
    pub reconfig_enabled: bool,
    /// `[ensemble.tls]`. Default: none, servers speak in the clear.
    pub tls: Option<PeerTls>,
    /// `[[ensemble.servers]]`. Default: none, a server on its own.
    pub servers: Vec<EnsembleServer>,
}

impl Ensemble {
    /// How many servers vote; a server on its own does.
    pub fn voters(&self) -> usize {
        let voters = self.servers.iter().filter(|s| s.role == Role::Participant).count();
        if self.servers.is_empty() { 1 } else { voters }
    }
}

/// `[[ensemble.servers]]`: one server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EnsembleServer {
    /// Its `server-id`, 0 to 254, unique.
    pub id: u8,
    /// Where it listens for other servers; several if it has several networks.
    pub peer: Vec<Address>,
    /// ZooKeeper's election addresses, one for each of `peer`. Only shown to clients, in
    /// `/zookeeper/config`. Default: none.
    #[serde(default)]
    pub election: Vec<Address>,
    /// Where it listens for clients. Default: none known.
    pub client: Option<Address>,
    /// `"participant"` votes, `"observer"` only follows. Default `"participant"`.
    #[serde(default)]
    pub role: Role,
}

impl EnsembleServer {
    /// The same as ZooKeeper's clients see it.
    pub fn spec(&self) -> ServerSpec {
        let Self { peer, election, client, role, .. } = self.clone();
        ServerSpec { peer, election, client, role }
    }
}
