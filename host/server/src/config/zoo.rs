//! ZooKeeper's own configuration: `zoo.cfg`, `myid`, a dynamic file, and Java system properties.
//!
//! Read as a real 3.9 server reads them. A key of its main list is a setting; any other key becomes
//! the system property `zookeeper.<key>` and wins over a `-D` of the same name; properties that mean
//! nothing here are passed over in silence, those that change behaviour and are not supported give
//! one [`Warning`] each ([`unsupported`]).
//!
//! Invariants:
//! * Defaults are ZooKeeper's (tick 3,000 ms, only `srvr` whitelisted, every address listened on),
//!   except that TTL nodes are on unless switched off.
//! * Nothing of ZooKeeper's own data (`version-2`) is read or written: ours is in
//!   `<dataDir>/vivarium`.

mod properties;
mod settings;
mod unsupported;

use super::Config;
use super::error::{ConfigError, Origin};
use super::sections::EnsembleServer;
use super::{Address, jaas, validate, without_effect};
use properties::Property;
use proto::server_spec::FORM;
use proto::{Role, ServerSpec};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A setting that a ZooKeeper would follow and Vivarium does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it is set.
    pub origin: Origin,
    /// The key or property.
    pub key: String,
    /// What differs, and what to do.
    pub reason: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.key, self.reason)
    }
}

/// Reads `zoo.cfg` at `path`, with `java_properties` as a `-D` each. Blocks on disk.
///
/// # Errors
/// [`ConfigError`] where a real server refuses to start, and where a value cannot be taken over.
pub fn from_zoo_cfg(
    path: &Path,
    java_properties: &[(String, String)],
) -> Result<(Config, Vec<Warning>), ConfigError> {
    let mut zoo = Zoo::read(path, java_properties)?;
    zoo.map_settings()?;
    zoo.map_servers()?;
    zoo.map_jaas()?;
    zoo.warnings.extend(unsupported::warnings(&zoo.main, &zoo.properties));
    let Zoo { mut config, mut warnings, names, .. } = zoo;
    // What only a default sets, such as the admin server, nobody asked for: it gives no warning.
    for (ours, reason) in without_effect::find(&config) {
        if let Some((key, origin)) = names.get(&ours).cloned() {
            warnings.push(Warning { origin, key, reason });
        }
    }
    let origin_of = |key: &str| names.get(key).map_or(Origin::Default, |(_, o)| o.clone());
    validate::validate(&mut config, &origin_of).map_err(|e| in_zookeepers_words(e, &names))?;
    Ok((config, warnings))
}

/// The file half read: settings to be mapped, and what came of them so far.
struct Zoo {
    /// The file itself, for keys that are missing from it.
    file: Origin,
    /// Keys of the main list.
    main: BTreeMap<String, Property>,
    /// System properties, by full name.
    properties: BTreeMap<String, Property>,
    config: Config,
    warnings: Vec<Warning>,
    /// Our key -> ZooKeeper's name for it, and where it was set.
    names: BTreeMap<String, (String, Origin)>,
}

impl Zoo {
    fn read(path: &Path, java: &[(String, String)]) -> Result<Self, ConfigError> {
        let file = Origin::File(Arc::from(path.display().to_string()), 0);
        let mut properties: BTreeMap<_, _> = java
            .iter()
            .map(|(key, value)| {
                let (key, value) = (key.clone(), value.trim().to_owned());
                let origin = Origin::Property(key.clone());
                (key.clone(), Property { key, value, origin })
            })
            .collect();
        let mut main = BTreeMap::<String, Property>::new();
        let mut warnings = Vec::new();
        for property in properties::read(path)? {
            if is_main(&property.key) {
                let (key, again) = (property.key.clone(), property.origin.clone());
                if let Some(first) = main.insert(key.clone(), property) {
                    let reason =
                        format!("is set again at {again}, which holds; remove one of them");
                    warnings.push(Warning { origin: first.origin, key, reason });
                }
            } else {
                let name = format!("zookeeper.{}", property.key);
                warnings.extend(unsupported::misplaced(&property));
                properties.insert(name, property);
            }
        }
        let config = settings::zookeeper_defaults();
        Ok(Self { file, main, properties, config, warnings, names: BTreeMap::new() })
    }

    fn bad<T>(
        &self,
        property: &Property,
        expected: impl Into<String>,
        got: impl fmt::Display,
    ) -> Result<T, ConfigError> {
        Err(ConfigError::Value {
            origin: property.origin.clone(),
            key: property.key.clone(),
            expected: expected.into(),
            got: got.to_string(),
        })
    }

    fn missing<T>(&self, key: &str, expected: &str) -> Result<T, ConfigError> {
        Err(ConfigError::Value {
            origin: self.file.clone(),
            key: key.into(),
            expected: expected.into(),
            got: "none".into(),
        })
    }

    /// Notes that our key `ours` was set by `property`.
    fn name(&mut self, ours: &str, property: &Property) {
        self.names.insert(ours.into(), (property.key.clone(), property.origin.clone()));
    }

    fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        match self.main.get("dataDir").filter(|p| !p.value.is_empty()) {
            Some(property) => Ok(PathBuf::from(&property.value)),
            None => self.missing("dataDir", "a directory, because a server must keep its data"),
        }
    }

    /// `server.N` lines, of the file or of the dynamic file it names; then who this server is.
    fn map_servers(&mut self) -> Result<(), ConfigError> {
        let mut lines: Vec<Property> =
            self.main.values().filter(|p| is_membership(&p.key)).cloned().collect();
        if let Some(dynamic) = self.main.get("dynamicConfigFile") {
            if let Some(line) = lines.first() {
                return self.bad(
                    line,
                    "it in the dynamic configuration file, because dynamicConfigFile is set",
                    "it here",
                );
            }
            lines = properties::read(Path::new(&dynamic.value))?;
            if let Some(line) = lines.iter().find(|p| !is_membership(&p.key) && p.key != "version")
            {
                return self.bad(
                    line,
                    "only server.N, group.N, weight.N and version in a dynamic file",
                    "another key",
                );
            }
        }
        for line in &lines {
            let Some(id) = line.key.strip_prefix("server.") else { continue };
            let Some(id) = id.parse().ok().filter(|id| *id <= super::SERVER_ID_MAX) else {
                return self.bad(line, "server.N with N within 0 to 254", format!("server.{id}"));
            };
            let spec = line
                .value
                .parse()
                .or_else(|why: String| self.bad(line, FORM, format!("`{}` ({why})", line.value)))?;
            let ServerSpec { peer, election, client, role } = spec;
            let server = EnsembleServer { id, peer, election, client, role };
            if self.config.ensemble.servers.iter().any(|s| s.id == id) {
                return self.bad(line, "an id that no other server has", format!("{id} twice"));
            }
            self.config.ensemble.servers.push(server);
        }
        self.config.ensemble.servers.sort_by_key(|s| s.id);
        self.map_identity()
    }

    fn map_identity(&mut self) -> Result<(), ConfigError> {
        let servers = self.config.ensemble.servers.clone();
        let standalone_enabled =
            self.main.get("standaloneEnabled").is_none_or(|p| p.value != "false");
        let voters = servers.iter().filter(|s| s.role == Role::Participant).count();
        if voters <= 1 && servers.len() > 1 && standalone_enabled {
            return self.missing("server.N", "observers only beside at least two participants");
        }
        // A single server line, with which some deployments start, still is a server on its own.
        let distributed = voters > 1 || (!standalone_enabled && !servers.is_empty());
        if distributed {
            for key in ["initLimit", "syncLimit"] {
                if self.integer(key, 1, i32::MAX as u64)?.is_none() {
                    return self
                        .missing(key, "a number of ticks, because there are several servers");
                }
            }
        }
        let my_id = self.my_id()?;
        match (&servers[..], my_id) {
            ([], my_id) => self.config.server_id = my_id.unwrap_or(self.config.server_id),
            ([one], Some(id)) if !distributed && one.id != id => {
                self.config.server_id = one.id;
                self.warnings.push(Warning {
                    origin: self.names["server-id"].1.clone(),
                    key: "myid".into(),
                    reason: format!(
                        "says {id}, but the only server line is server.{}, which is used; make \
                         them agree",
                        one.id
                    ),
                });
            }
            ([one], None) if !distributed => self.config.server_id = one.id,
            (_, Some(id)) => self.config.server_id = id,
            (_, None) => {
                let file = self.data_dir()?.join("myid").display().to_string();
                return Err(ConfigError::Unreadable {
                    origin: self.file.clone(),
                    key: "server.N".into(),
                    path: file,
                    reason: "no file; it holds this server's number, one of the N in server.N"
                        .into(),
                });
            }
        }
        let own = servers.iter().find(|s| s.id == self.config.server_id);
        own.map_or(Ok(()), |own| self.map_own_client_port(own))?;
        if !distributed {
            self.config.ensemble.servers.clear();
        }
        Ok(())
    }

    /// The client port may stand in this server's own `server.N` line, alone or the same twice.
    fn map_own_client_port(&mut self, own: &EnsembleServer) -> Result<(), ConfigError> {
        let key = format!("server.{}", own.id);
        match (&own.client, &self.config.listen.client) {
            (Some(client), Some(listen)) if !same_listener(listen, client) => {
                let expected = format!("{client}, as in {key}");
                match self.main.get("clientPort").cloned() {
                    Some(property) => self.bad(&property, expected, listen),
                    None => self.missing("clientPort", &expected),
                }
            }
            (Some(client), _) => {
                self.config.listen.client = Some(client.clone());
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    fn my_id(&mut self) -> Result<Option<u8>, ConfigError> {
        let path = self.data_dir()?.join("myid");
        let name: Arc<str> = Arc::from(path.display().to_string());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                return Err(ConfigError::Unreadable {
                    origin: Origin::File(name.clone(), 0),
                    key: "myid".into(),
                    path: name.to_string(),
                    reason: e.to_string(),
                });
            }
        };
        let value = text.lines().next().unwrap_or_default().trim().to_owned();
        let property = Property { key: "myid".into(), value, origin: Origin::File(name, 1) };
        self.name("server-id", &property);
        match property.value.parse().ok().filter(|id| *id <= super::SERVER_ID_MAX) {
            Some(id) => Ok(Some(id)),
            None => {
                self.bad(&property, "a number within 0 to 254", format!("`{}`", property.value))
            }
        }
    }

    /// The SASL users of the JAAS file; validation reads them, here only what it cannot take is
    /// named.
    fn map_jaas(&mut self) -> Result<(), ConfigError> {
        let Some(file) = self.properties.get("java.security.auth.login.config").cloned() else {
            return Ok(());
        };
        let sasl = &mut self.config.auth.sasl;
        if let Some(name) = self.properties.get("zookeeper.sasl.serverconfig") {
            sasl.jaas_section = name.value.clone();
        }
        let section_name = sasl.jaas_section.clone();
        let path = PathBuf::from(&file.value);
        // A JVM reads this file when a client first uses SASL; one that is not there is no error,
        // and start scripts name it whether it is there or not.
        if !path.is_file() {
            self.warnings.push(Warning {
                origin: Origin::File(Arc::from(file.value.as_str()), 0),
                key: file.key.clone(),
                reason: "there is no such file; no client can authenticate by SASL".into(),
            });
            return Ok(());
        }
        sasl.jaas_file = Some(path.clone());
        self.name("auth.sasl.jaas-file", &file);
        {
            let section = jaas::digest_users(&path, &section_name)?;
            for class in section.other_modules {
                self.warnings.push(Warning {
                    origin: Origin::File(Arc::from(file.value.as_str()), 0),
                    key: class,
                    reason: "this login module is not supported; clients can authenticate by \
                             DigestLoginModule users, by x509 or by digest"
                        .into(),
                });
            }
        }
        Ok(())
    }
}

/// The listener of clientPort and the address in server.N are the same if the ports are and the
/// listener takes every address or just that one.
fn same_listener(listen: &Address, client: &Address) -> bool {
    listen.port == client.port && (listen.host == "0.0.0.0" || listen.host == client.host)
}

fn is_membership(key: &str) -> bool {
    ["server.", "group.", "weight."].iter().any(|prefix| key.starts_with(prefix))
}

/// Keys that a real server handles itself; all others become system properties.
fn is_main(key: &str) -> bool {
    MAIN_KEYS.contains(&key)
        || is_membership(key)
        || key.starts_with("quorum.auth.")
        || key.starts_with("metricsProvider.")
        || key.starts_with("multiAddress.")
}

const MAIN_KEYS: &[&str] = &[
    "dataDir",
    "dataLogDir",
    "clientPort",
    "clientPortAddress",
    "clientPortListenBacklog",
    "secureClientPort",
    "secureClientPortAddress",
    "observerMasterPort",
    "localSessionsEnabled",
    "localSessionsUpgradingEnabled",
    "tickTime",
    "maxClientCnxns",
    "minSessionTimeout",
    "maxSessionTimeout",
    "initLimit",
    "syncLimit",
    "connectToLearnerMasterLimit",
    "electionAlg",
    "quorumListenOnAllIPs",
    "peerType",
    "syncEnabled",
    "dynamicConfigFile",
    "autopurge.snapRetainCount",
    "autopurge.purgeInterval",
    "standaloneEnabled",
    "reconfigEnabled",
    "sslQuorum",
    "portUnification",
    "sslQuorumReloadCertFiles",
    "quorum.cnxn.threads.size",
    "jvm.pause.info-threshold.ms",
    "jvm.pause.warn-threshold.ms",
    "jvm.pause.sleep.time.ms",
    "jvm.pause.monitor",
    "oraclePath",
];

/// Puts ZooKeeper's key in place of ours, where one set it.
fn in_zookeepers_words(
    mut error: ConfigError,
    names: &BTreeMap<String, (String, Origin)>,
) -> ConfigError {
    if let ConfigError::Value { key, .. } | ConfigError::Unreadable { key, .. } = &mut error
        && let Some((theirs, _)) = names.get(key)
    {
        *key = theirs.clone();
    }
    error
}

#[cfg(test)]
mod tests;
