//! The configuration of one server: what it is, where it comes from, what is wrong with it.
//!
//! Three layers, each over the one before: a TOML file (or ZooKeeper's own `zoo.cfg`,
//! [`from_zoo_cfg`]), the environment (`VIVARIUM_LIMITS__MAX_FRAME_BYTES`), flags ([`Overrides`]).
//!
//! Invariants:
//! * A key that no setting has is refused in every layer, with the nearest name; only `zoo.cfg` is
//!   lenient, because a real server is.
//! * A [`Config`] from here has been checked: ranges, contradictions, and that every file it names
//!   can be read.
//! * What decides outcomes inside the replicated state ([`SeedSettings`]) is only a seed: once a
//!   cluster is born, its replicated settings hold and the file's are compared with them.
//! * Relative paths are relative to the directory the process was started in.

mod access;
mod decode;
mod error;
mod jaas;
mod sections;
mod tree;
mod units;
mod validate;
mod without_effect;
mod zoo;

pub use access::{
    Auth, ClientAuth, Enforce, KeyStore, PeerTls, Provider, Sasl, StoreKind, Tls, X509,
};
pub use error::{ConfigError, Origin};
pub use proto::{Address, Role};
pub use sections::{
    Admin, AllowFrom, Audit, Ensemble, EnsembleServer, FourLetterWords, Limits, Listen, LogFormat,
    Logging, Nodes, Reads, Sessions, Storage, WORDS,
};
pub(crate) use validate::TOKEN_BYTES_MIN;
pub use zoo::{Warning, from_zoo_cfg};

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tree::{Node, Value};

/// Everything an operator can set. `config/single.toml` shows each key with its unit and default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Unique in the ensemble, 0 to 254; the high byte of its sessions' ids. Default 1.
    pub server_id: u8,
    /// Everything the server keeps. Created if missing. Default `./vivarium-data`.
    pub data_dir: PathBuf,
    /// ZooKeeper's unit of time, milliseconds: session timeouts are bounded and expire by it.
    /// Default 2,000.
    #[serde(with = "units::ms")]
    pub tick_time_ms: u64,
    /// `"local"` or `"linearizable"`. Default `"local"`.
    pub reads: Reads,
    /// Without a leader for 2 s, or a tick if that is longer, serve reads to clients that accept a
    /// read-only server. Default false.
    pub read_only_mode: bool,
    /// `[listen]`
    pub listen: Listen,
    /// `[sessions]`
    pub sessions: Sessions,
    /// `[limits]`
    pub limits: Limits,
    /// `[nodes]`
    pub nodes: Nodes,
    /// `[storage]`
    pub storage: Storage,
    /// `[four-letter-words]`
    pub four_letter_words: FourLetterWords,
    /// `[logging]`
    pub logging: Logging,
    /// `[admin]`
    pub admin: Admin,
    /// `[audit]`
    pub audit: Audit,
    /// `[auth]`
    pub auth: Auth,
    /// `[tls]`
    pub tls: Tls,
    /// `[ensemble]`
    pub ensemble: Ensemble,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_id: 1,
            data_dir: PathBuf::from("./vivarium-data"),
            tick_time_ms: 2_000,
            reads: Reads::default(),
            read_only_mode: false,
            listen: Listen::default(),
            sessions: Sessions::default(),
            limits: Limits::default(),
            nodes: Nodes::default(),
            storage: Storage::default(),
            four_letter_words: FourLetterWords::default(),
            logging: Logging::default(),
            admin: Admin::default(),
            audit: Audit::default(),
            auth: Auth::default(),
            tls: Tls::default(),
            ensemble: Ensemble::default(),
        }
    }
}

/// Highest server id: above it a session's id could look like a TTL.
pub const SERVER_ID_MAX: u8 = 254;

impl Config {
    /// Loads `file` (defaults if `None`), then the environment, then flags. Blocks on disk.
    ///
    /// `environment` may hold every variable of the process; only `VIVARIUM_*` is looked at.
    ///
    /// # Errors
    /// [`ConfigError`] with the place of the first thing that is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut tree = match file {
            None => Node::empty(Origin::Default),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
                    origin: Origin::Default,
                    key: String::new(),
                    path: name.clone(),
                    reason: e.to_string(),
                })?;
                Node::from_toml(&text, &name)?
            }
        };
        tree.overlay(environment_tree(environment));
        tree.overlay(overrides.tree());
        Self::from_tree(tree)
    }

    /// Lays the environment and flags over this configuration, which may come from
    /// [`from_zoo_cfg`]. Blocks on disk.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn overlaid(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let typed = toml::Value::try_from(self).map_err(|e| ConfigError::Syntax {
            origin: Origin::Default,
            message: format!("expected values that TOML can hold, got {e}"),
        })?;
        let mut tree = Node::from_typed(&typed);
        tree.overlay(environment_tree(environment));
        tree.overlay(overrides.tree());
        Self::from_tree(tree)
    }

    fn from_tree(tree: Node) -> Result<Self, ConfigError> {
        let mut config: Self = decode::decode(tree.clone())?;
        validate::validate(&mut config, &|key| tree.origin_of(key))?;
        Ok(config)
    }

    /// What holds after all layers, as TOML, every secret replaced by `(hidden)`; for
    /// `check-config`.
    ///
    /// # Panics
    /// If a path is not UTF-8; those of a loaded configuration are, because they were text.
    pub fn effective_toml(&self) -> String {
        let mut shown = self.clone();
        shown.auth.hide_secrets();
        shown.tls.hide_secrets();
        shown.admin.tls.iter_mut().for_each(Tls::hide_secrets);
        shown.ensemble.tls.iter_mut().for_each(PeerTls::hide_secrets);
        toml::to_string(&shown).expect("every field is a value that TOML can hold")
    }

    /// Whether there are other servers.
    pub fn is_ensemble(&self) -> bool {
        !self.ensemble.servers.is_empty()
    }

    /// Lower bound of a session's timeout, milliseconds.
    pub fn min_session_timeout_ms(&self) -> u64 {
        self.sessions.min_timeout_ms.unwrap_or(self.tick_time_ms * 2)
    }

    /// Upper bound of a session's timeout, milliseconds.
    pub fn max_session_timeout_ms(&self) -> u64 {
        self.sessions.max_timeout_ms.unwrap_or(self.tick_time_ms * 20)
    }

    /// The part that seeds the replicated settings when a cluster is born.
    pub fn seed_settings(&self) -> SeedSettings {
        SeedSettings {
            ttl_enabled: self.nodes.ttl_enabled,
            emulate_353_ttl: self.nodes.emulate_353_ttl,
            enforce_quota: self.nodes.enforce_quota,
            super_digests: self.auth.super_digest.iter().cloned().collect(),
            skip_acl: self.auth.skip_acl,
            max_frame_bytes: self.limits.max_frame_bytes,
            min_session_timeout_ms: self.min_session_timeout_ms(),
            max_session_timeout_ms: self.max_session_timeout_ms(),
            container_check_interval_ms: self.nodes.container_check_interval_ms,
            container_deletes_per_minute: self.nodes.container_deletes_per_minute,
            container_max_never_used_ms: self.nodes.container_max_never_used_ms,
        }
    }

    /// What is set and not followed by this version, for the log and `check-config`; what
    /// [`from_zoo_cfg`] warns of by ZooKeeper's names is in here too.
    pub fn without_effect(&self) -> Vec<Warning> {
        let warning = |(key, reason)| Warning { origin: Origin::Default, key, reason };
        without_effect::find(self).into_iter().map(warning).collect()
    }

    /// Refuses an ensemble that this version cannot be part of.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if `ensemble.servers` has an observer.
    pub fn require_supported(&self) -> Result<(), ConfigError> {
        let observer = self.ensemble.servers.iter().find(|s| s.role == Role::Observer);
        let Some(observer) = observer else { return Ok(()) };
        Err(ConfigError::Value {
            origin: Origin::Default,
            key: "ensemble.servers".into(),
            expected: "participants only: this version has no observers; leave them out of every \
                       server's `[[ensemble.servers]]`, or `server.N` lines"
                .into(),
            got: format!("server {} as an observer", observer.id),
        })
    }
}

/// What a configuration says about settings that are replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedSettings {
    /// TTL nodes may be created.
    pub ttl_enabled: bool,
    /// The wider range of TTLs.
    pub emulate_353_ttl: bool,
    /// Hard quotas refuse writes.
    pub enforce_quota: bool,
    /// Digest ids that pass every ACL, `user:base64`.
    pub super_digests: Vec<String>,
    /// No ACL is checked.
    pub skip_acl: bool,
    /// Longest request, bytes.
    pub max_frame_bytes: u64,
    /// Lower bound of session timeouts, milliseconds.
    pub min_session_timeout_ms: u64,
    /// Upper bound of session timeouts, milliseconds.
    pub max_session_timeout_ms: u64,
    /// How often containers and TTL nodes are looked through, milliseconds.
    pub container_check_interval_ms: u64,
    /// Deletions of them in a minute.
    pub container_deletes_per_minute: u32,
    /// Age at which a never used container goes, milliseconds; 0 is never.
    pub container_max_never_used_ms: u64,
}

/// Values given on the command line, the last layer.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Vec<(String, String, String)>);

impl Overrides {
    /// Sets the dotted `key` (`limits.max-frame-bytes`) to `value`, given by `flag` (`--data-dir`).
    /// A later call for the same key wins.
    pub fn set(&mut self, flag: &str, key: &str, value: &str) {
        self.0.push((flag.to_owned(), key.to_owned(), value.to_owned()));
    }

    fn tree(&self) -> Node {
        let mut tree = Node::empty(Origin::Default);
        for (flag, key, value) in &self.0 {
            let path: Vec<_> = key.split('.').map(str::to_owned).collect();
            tree.set_raw(&path, value, &Origin::Flag(flag.clone()));
        }
        tree
    }
}

/// Variables of the prefix that other parts of the program read.
pub const RESERVED_ENVIRONMENT: &[&str] =
    &["VIVARIUM_CONFIG", "VIVARIUM_ZOO_CFG", "VIVARIUM_JAVA_PROPERTY", "VIVARIUM_SERVERS"];

fn environment_tree(environment: impl IntoIterator<Item = (String, String)>) -> Node {
    let mut tree = Node { origin: Origin::Default, value: Value::Table(Default::default()) };
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix("VIVARIUM_") else { continue };
        if RESERVED_ENVIRONMENT.contains(&name.as_str()) {
            continue;
        }
        let path: Vec<_> =
            rest.split("__").map(|part| part.to_lowercase().replace('_', "-")).collect();
        tree.set_raw(&path, &value, &Origin::Env(name.clone()));
    }
    tree
}

#[cfg(test)]
mod tests;
