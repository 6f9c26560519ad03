//! The settings of `zoo.cfg` and the system properties that have a counterpart here.
//!
//! Invariant: a property is looked up under the exact name that the real server reads. Some of them
//! have no `zookeeper.` prefix (`jute.maxbuffer`, `readonlymode.enabled`, `znode.container.*`), so
//! that a line in `zoo.cfg` does not reach them.

use super::properties::Property;
use super::{Warning, Zoo};
use crate::config::access::{ClientAuth, KeyStore, PeerTls, Provider, StoreKind};
use crate::config::error::ConfigError;
use crate::config::sections::AllowFrom;
use crate::config::validate::FRAME_BYTES_MAX;
use crate::config::{Config, WORDS};
use proto::address::{Address, parse_port};
use std::path::PathBuf;

/// What a real server does with an empty `zoo.cfg`.
pub(super) fn zookeeper_defaults() -> Config {
    let mut config = Config { tick_time_ms: 3_000, ..Config::default() };
    config.listen.client = None;
    config.four_letter_words.enabled = vec!["srvr".into()];
    config.four_letter_words.allow_from = AllowFrom::All;
    config.auth.providers = vec![Provider::Digest, Provider::Ip];
    config.tls.client_auth = ClientAuth::Need;
    config
}

impl Zoo {
    pub(super) fn map_settings(&mut self) -> Result<(), ConfigError> {
        self.config.data_dir = self.data_dir()?.join("vivarium");
        self.map_listeners()?;
        self.map_numbers()?;
        self.map_switches();
        self.map_words();
        self.map_auth();
        self.map_tls()?;
        self.config.audit.enabled =
            self.flag("audit.enabled", "zookeeper.audit.enable") == Some(true);
        self.map_admin()
    }

    fn property(&self, name: &str) -> Option<&Property> {
        self.properties.get(name)
    }

    /// A key of the main list is never a property, nor the other way round.
    fn find(&self, name: &str) -> Option<&Property> {
        if super::is_main(name) { self.main.get(name) } else { self.properties.get(name) }
    }

    /// The value of a property or main key, noted under our name for it.
    fn take(&mut self, ours: &str, name: &str) -> Option<String> {
        let found = self.find(name)?.clone();
        self.name(ours, &found);
        Some(found.value)
    }

    /// Java's `Boolean.parseBoolean`: "true" in any case, all else is false.
    fn flag(&mut self, ours: &str, name: &str) -> Option<bool> {
        self.take(ours, name).map(|v| v.eq_ignore_ascii_case("true"))
    }

    /// A whole number of the main list or a property; hexadecimal as Java's `Integer.decode`.
    pub(super) fn integer(
        &self,
        name: &str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(found) = self.find(name) else { return Ok(None) };
        let text = found.value.trim_start_matches('+');
        let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        match parsed.filter(|n| (min..=max).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => self.bad(
                found,
                format!("a number within {min} to {max}"),
                format!("`{}`", found.value),
            ),
        }
    }

    fn map_listeners(&mut self) -> Result<(), ConfigError> {
        self.config.listen.client =
            self.listener("listen.client", "clientPort", "clientPortAddress")?;
        self.config.listen.client_tls =
            self.listener("listen.client-tls", "secureClientPort", "secureClientPortAddress")?;
        Ok(())
    }

    fn listener(
        &mut self,
        ours: &str,
        port: &str,
        host: &str,
    ) -> Result<Option<Address>, ConfigError> {
        let address = self.main.get(host).cloned();
        let Some(property) = self.main.get(port).cloned().filter(|p| p.value != "0") else {
            return match address {
                Some(address) => self.bad(&address, format!("{port} beside it"), "none"),
                None => Ok(None),
            };
        };
        let number =
            parse_port(&property.value).or_else(|why| self.bad(&property, "a port", why))?;
        self.name(ours, &property);
        Ok(Some(Address::new(address.as_ref().map_or("0.0.0.0", |a| &a.value), number)))
    }

    fn map_numbers(&mut self) -> Result<(), ConfigError> {
        let int = i32::MAX as u64;
        for key in ["snapRetainCount", "purgeInterval"] {
            // Nothing is purged by these here, but a real server refuses other text.
            self.integer(&format!("autopurge.{key}"), 0, int)?;
        }
        macro_rules! map {
            ($name:literal, $min:expr, $max:expr, $ours:literal, $field:expr) => {
                if let Some(number) = self.integer($name, $min, $max)? {
                    // The bound above is within the field's type.
                    $field = number.try_into().expect("bounded by the maximum given");
                    let _ = self.take($ours, $name);
                }
            };
        }
        map!("tickTime", 1, int, "tick-time-ms", self.config.tick_time_ms);
        let per_address = self.bound("limits.max-connections-per-address", "maxClientCnxns")?;
        let in_all = self.bound("limits.max-connections", "zookeeper.maxCnxns")?;
        let limits = &mut self.config.limits;
        limits.max_connections_per_address =
            per_address.unwrap_or(limits.max_connections_per_address);
        limits.max_connections = in_all.unwrap_or(limits.max_connections);
        map!(
            "zookeeper.globalOutstandingLimit",
            1,
            int,
            "limits.max-outstanding-requests",
            self.config.limits.max_outstanding_requests
        );
        map!(
            "jute.maxbuffer",
            1,
            int,
            "limits.max-frame-bytes",
            self.config.limits.max_frame_bytes
        );
        self.cap_frames();
        map!(
            "zookeeper.nio.sessionlessCnxnTimeout",
            1,
            int,
            "limits.sessionless-connection-timeout-ms",
            self.config.limits.sessionless_connection_timeout_ms
        );
        map!(
            "znode.container.checkIntervalMs",
            1,
            int,
            "nodes.container-check-interval-ms",
            self.config.nodes.container_check_interval_ms
        );
        map!(
            "znode.container.maxPerMinute",
            1,
            int,
            "nodes.container-deletes-per-minute",
            self.config.nodes.container_deletes_per_minute
        );
        map!(
            "znode.container.maxNeverUsedIntervalMs",
            0,
            i64::MAX as u64,
            "nodes.container-max-never-used-ms",
            self.config.nodes.container_max_never_used_ms
        );
        // -1 is how a file asks for the default of 2 and 20 ticks.
        for (key, ours) in [
            ("minSessionTimeout", "sessions.min-timeout-ms"),
            ("maxSessionTimeout", "sessions.max-timeout-ms"),
        ] {
            if self.main.get(key).is_none_or(|p| p.value == "-1") {
                continue;
            }
            let number = self.integer(key, 1, int)?;
            let _ = self.take(ours, key);
            if key.starts_with("min") {
                self.config.sessions.min_timeout_ms = number;
            } else {
                self.config.sessions.max_timeout_ms = number;
            }
        }
        Ok(())
    }

    /// A bound on connections: as in a real server, 0 and anything below is none.
    fn bound(&mut self, ours: &str, name: &str) -> Result<Option<u32>, ConfigError> {
        let negative = self.find(name).is_some_and(|p| p.value.parse::<i32>().is_ok_and(|n| n < 0));
        let number = if negative { Some(0) } else { self.integer(name, 0, i32::MAX as u64)? };
        let _ = self.take(ours, name);
        Ok(number.map(|n| u32::try_from(n).expect("bounded by the maximum given")))
    }

    /// A `jute.maxbuffer` above our own bound would keep a deployment from starting that never
    /// sends such a frame, so it is lowered, and told.
    fn cap_frames(&mut self) {
        if self.config.limits.max_frame_bytes <= FRAME_BYTES_MAX {
            return;
        }
        self.config.limits.max_frame_bytes = FRAME_BYTES_MAX;
        let property = &self.properties["jute.maxbuffer"];
        self.warnings.push(Warning {
            origin: property.origin.clone(),
            key: property.key.clone(),
            reason: format!(
                "says {}, but a request may have at most {FRAME_BYTES_MAX} bytes, which holds",
                property.value
            ),
        });
    }

    fn map_switches(&mut self) {
        macro_rules! map {
            ($name:literal, $ours:literal, $field:expr) => {
                if let Some(on) = self.flag($ours, $name) {
                    $field = on;
                }
            };
        }
        map!("localSessionsEnabled", "sessions.local", self.config.sessions.local);
        map!(
            "localSessionsUpgradingEnabled",
            "sessions.local-upgrading",
            self.config.sessions.local_upgrading
        );
        map!("reconfigEnabled", "ensemble.reconfig-enabled", self.config.ensemble.reconfig_enabled);
        map!("readonlymode.enabled", "read-only-mode", self.config.read_only_mode);
        map!("zookeeper.extendedTypesEnabled", "nodes.ttl-enabled", self.config.nodes.ttl_enabled);
        map!(
            "zookeeper.emulate353TTLNodes",
            "nodes.emulate-353-ttl",
            self.config.nodes.emulate_353_ttl
        );
        map!("zookeeper.enforceQuota", "nodes.enforce-quota", self.config.nodes.enforce_quota);
        map!(
            "zookeeper.DigestAuthenticationProvider.enabled",
            "auth.digest-enabled",
            self.config.auth.digest_enabled
        );
        map!(
            "zookeeper.enforce.auth.enabled",
            "auth.enforce.enabled",
            self.config.auth.enforce.enabled
        );
        map!(
            "zookeeper.allowSaslFailedClients",
            "auth.sasl.allow-failed-clients",
            self.config.auth.sasl.allow_failed_clients
        );
        map!(
            "zookeeper.sessionRequireClientSASLAuth",
            "auth.sasl.require",
            self.config.auth.sasl.require
        );
        map!("zookeeper.client.certReload", "tls.reload", self.config.tls.reload);
    }

    /// `srvr` is always answered, `isro` whenever there is a read-only mode: ZooKeeper's own scripts
    /// and clients need them. Words that do not exist are passed over, as by a real server.
    fn map_words(&mut self) {
        let mut words: Vec<String> = Vec::new();
        if let Some(list) =
            self.take("four-letter-words.enabled", "zookeeper.4lw.commands.whitelist")
        {
            let listed: Vec<_> = list.split(',').map(str::trim).collect();
            if listed.contains(&"*") {
                words.push("*".into());
            } else {
                words.extend(listed.iter().filter(|w| WORDS.contains(w)).map(|w| (*w).to_owned()));
            }
        }
        let forced = [("srvr", true), ("isro", self.config.read_only_mode)];
        for (word, _) in forced.iter().filter(|(_, needed)| *needed) {
            if !words.iter().any(|w| w == word || w == "*") {
                words.push((*word).into());
            }
        }
        self.config.four_letter_words.enabled = words;
    }

    fn map_auth(&mut self) {
        let digest = "zookeeper.DigestAuthenticationProvider";
        self.config.auth.super_digest = self
            .take("auth.super-digest", &format!("{digest}.superDigest"))
            .filter(|d| !d.is_empty());
        if let Some(algorithm) = self.take("auth.digest-alg", &format!("{digest}.digestAlg")) {
            let algorithm = algorithm.to_uppercase();
            self.config.auth.digest_alg = match algorithm.as_str() {
                "SHA" | "SHA1" => "SHA-1".into(),
                _ => algorithm,
            };
        }
        // The real server compares with "yes"; "true" does nothing there, and must not here.
        self.config.auth.skip_acl =
            self.take("auth.skip-acl", "zookeeper.skipACL").as_deref() == Some("yes");
        self.config.auth.x509.super_user =
            self.take("auth.x509.super-user", "zookeeper.X509AuthenticationProvider.superUser");
        if let Some(schemes) = self.take("auth.enforce.schemes", "zookeeper.enforce.auth.schemes") {
            self.config.auth.enforce.schemes = comma_list(&schemes);
        }
        let properties = self.properties.values().zip(self.properties.keys());
        self.config.auth.sasl.super_users = properties
            .filter(|(_, name)| {
                *name == "zookeeper.superUser" || name.starts_with("zookeeper.superUser.")
            })
            .map(|(property, _)| property.value.clone())
            .collect();

        let ensembles = self
            .property("zookeeper.ensembleAuthName")
            .map_or(Vec::new(), |p| comma_list(&p.value));
        let mut providers = self.config.auth.providers.clone();
        if !self.config.auth.digest_enabled {
            providers.retain(|p| *p != Provider::Digest);
        }
        if self.config.listen.client_tls.is_some() {
            providers.push(Provider::X509);
        }
        for (name, property) in &self.properties {
            if name.starts_with("zookeeper.authProvider.") {
                let provider = Provider::from_class(&property.value, &ensembles);
                if !providers.contains(&provider) {
                    let theirs = (property.key.clone(), property.origin.clone());
                    self.names.insert(format!("auth.providers.{}", providers.len()), theirs);
                    providers.push(provider);
                }
            }
        }
        self.config.auth.providers = providers;
    }

    /// Stores are looked at only for a TLS port: without one a real server never opens them.
    fn map_tls(&mut self) -> Result<(), ConfigError> {
        if self.main.get("sslQuorum").is_some_and(|p| p.value.eq_ignore_ascii_case("true")) {
            let theirs = "zookeeper.ssl.quorum";
            let keystore = self.store("ensemble.tls.keystore", &format!("{theirs}.keyStore"))?;
            let truststore =
                self.store("ensemble.tls.truststore", &format!("{theirs}.trustStore"))?;
            let tls = PeerTls { keystore, truststore, ..PeerTls::default() };
            self.config.ensemble.tls = Some(tls);
        }
        if self.config.listen.client_tls.is_none() {
            return Ok(());
        }
        if let Some(auth) = self.take("tls.client-auth", "zookeeper.ssl.clientAuth") {
            self.config.tls.client_auth = match auth.to_lowercase().as_str() {
                "none" => ClientAuth::None,
                "want" => ClientAuth::Want,
                "need" | "" => ClientAuth::Need,
                _ => {
                    let property = self.properties["zookeeper.ssl.clientAuth"].clone();
                    return self.bad(&property, "none, want or need", format!("`{auth}`"));
                }
            };
        }
        self.config.tls.keystore = self.store("tls.keystore", "zookeeper.ssl.keyStore")?;
        self.config.tls.truststore = self.store("tls.truststore", "zookeeper.ssl.trustStore")?;
        Ok(())
    }

    fn store(&mut self, ours: &str, theirs: &str) -> Result<Option<KeyStore>, ConfigError> {
        let Some(path) = self.take(&format!("{ours}.path"), &format!("{theirs}.location")) else {
            return Ok(None);
        };
        let kind = match self.property(&format!("{theirs}.type")) {
            None => StoreKind::Auto,
            Some(property) => match property.value.to_uppercase().as_str() {
                "" => StoreKind::Auto,
                "JKS" => StoreKind::Jks,
                "PEM" => StoreKind::Pem,
                "PKCS12" => StoreKind::Pkcs12,
                other => {
                    let expected =
                        "JKS, PEM or PKCS12; convert other stores with keytool -importkeystore";
                    return self.bad(property, expected, format!("`{other}`"));
                }
            },
        };
        let password = self.take(&format!("{ours}.password"), &format!("{theirs}.password"));
        let file = self.take(&format!("{ours}.password-file"), &format!("{theirs}.passwordPath"));
        let password_file = file.filter(|f| !f.is_empty()).map(PathBuf::from);
        Ok(Some(KeyStore { path: PathBuf::from(path), kind, password, password_file }))
    }

    fn map_admin(&mut self) -> Result<(), ConfigError> {
        let enabled = self.flag("admin.listen", "zookeeper.admin.enableServer");
        let host = self.take("admin.listen", "zookeeper.admin.serverAddress");
        // Only where it is asked for, as in ZooKeeper 3.10: a port that nobody named may be another's.
        let is_named = host.is_some() || self.property("zookeeper.admin.serverPort").is_some();
        if enabled == Some(false) || enabled.is_none() && !is_named {
            return Ok(());
        }
        // ZooKeeper's tells everybody.
        self.config.admin.allow_from = AllowFrom::All;
        let port = match self.property("zookeeper.admin.serverPort").cloned() {
            None => 8_080,
            Some(p) => {
                self.name("admin.listen", &p);
                parse_port(&p.value).or_else(|why| self.bad(&p, "a port", why))?
            }
        };
        self.config.admin.listen = Some(Address::new(host.as_deref().unwrap_or("0.0.0.0"), port));
        Ok(())
    }
}

fn comma_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
}
