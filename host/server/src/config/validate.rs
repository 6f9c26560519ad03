//! What no single value can show: ranges, values that contradict each other, files that must exist.

use super::access::{DIGEST_ALGS, KeyStore, Provider};
use super::error::{ConfigError, Origin, nearest};
use super::sections::WORDS;
use super::{Config, SERVER_ID_MAX, jaas};
use proto::Role;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Checks `config` and reads the JAAS file it names. `origin_of` finds a key's place for errors.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn validate(
    config: &mut Config,
    origin_of: &dyn Fn(&str) -> Origin,
) -> Result<(), ConfigError> {
    let check = Check { origin_of };
    check.numbers(config)?;
    check.words(config)?;
    check.ensemble(config)?;
    check.auth(config)?;
    check.tls(config)?;
    check.token(config)?;
    if let Some(file) = &config.auth.sasl.jaas_file {
        check.readable("auth.sasl.jaas-file", file)?;
        let users = jaas::digest_users(file, &config.auth.sasl.jaas_section)?.users;
        for (name, password) in users {
            // What the configuration says itself wins over the file it names.
            config.auth.sasl.users.entry(name).or_insert(password);
        }
    }
    Ok(())
}

/// Upper bound of `limits.max-frame-bytes`: one command has to fit into one log entry.
pub(super) const FRAME_BYTES_MAX: u64 = 64 << 20;

/// The shortest token of operators, in bytes: 128 bits in hexadecimal.
pub(crate) const TOKEN_BYTES_MIN: usize = 32;

struct Check<'a> {
    origin_of: &'a dyn Fn(&str) -> Origin,
}

impl Check<'_> {
    fn bad<T>(
        &self,
        key: &str,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Result<T, ConfigError> {
        Err(ConfigError::Value {
            origin: (self.origin_of)(key),
            key: key.to_owned(),
            expected: expected.into(),
            got: got.to_string(),
        })
    }

    fn within(&self, key: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
        if (min..=max).contains(&value) {
            return Ok(());
        }
        self.bad(key, format!("a value within {min} to {max}"), value)
    }

    fn numbers(&self, c: &Config) -> Result<(), ConfigError> {
        let timeout_max = i32::MAX as u64;
        self.within("server-id", c.server_id.into(), 0, SERVER_ID_MAX.into())?;
        self.within("tick-time-ms", c.tick_time_ms, 1, timeout_max / 20)?;
        let (min, max) = (c.min_session_timeout_ms(), c.max_session_timeout_ms());
        self.within("sessions.min-timeout-ms", min, 1, timeout_max)?;
        self.within("sessions.max-timeout-ms", max, 1, timeout_max)?;
        if min > max {
            let key = if c.sessions.min_timeout_ms.is_some() { "min" } else { "max" };
            return self.bad(
                &format!("sessions.{key}-timeout-ms"),
                "a lower bound of session timeouts that is not above the upper one",
                format!("{min} ms as the lower and {max} ms as the upper bound"),
            );
        }
        // A frame has to hold a request at all.
        let frame = c.limits.max_frame_bytes;
        self.within("limits.max-frame-bytes", frame, 1_024, FRAME_BYTES_MAX)?;
        for (key, value) in [
            ("limits.max-outstanding-requests", c.limits.max_outstanding_requests),
            ("limits.max-outstanding-per-connection", c.limits.max_outstanding_per_connection),
            ("nodes.container-deletes-per-minute", c.nodes.container_deletes_per_minute),
        ] {
            self.within(key, value.into(), 1, u32::MAX.into())?;
        }
        self.within(
            "nodes.container-check-interval-ms",
            c.nodes.container_check_interval_ms,
            1,
            timeout_max,
        )?;
        let segment = c.storage.log_segment_bytes;
        self.within("storage.log-segment-bytes", segment, 1 << 20, 1 << 30)?;
        self.within(
            "storage.log-retain-bytes",
            c.storage.log_retain_bytes,
            segment,
            i64::MAX as u64,
        )?;
        self.within("storage.cache-bytes", c.storage.cache_bytes, 1 << 20, i64::MAX as u64)
    }

    fn words(&self, c: &Config) -> Result<(), ConfigError> {
        for word in &c.four_letter_words.enabled {
            if word != "*" && !WORDS.contains(&word.as_str()) {
                let near = nearest(word, WORDS)
                    .map_or(String::new(), |n| format!(" (did you mean \"{n}\"?)"));
                return self.bad(
                    "four-letter-words.enabled",
                    format!("\"*\" or words of {}", WORDS.join(", ")),
                    format!("\"{word}\"{near}"),
                );
            }
        }
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        for directive in c.logging.level.split(',') {
            let level = directive.rsplit('=').next().unwrap_or_default().trim().to_lowercase();
            if !levels.contains(&level.as_str()) {
                return self.bad(
                    "logging.level",
                    format!(
                        "one of {}, or directives such as \"info,server=debug\"",
                        levels.join(", ")
                    ),
                    format!("\"{directive}\""),
                );
            }
        }
        Ok(())
    }

    /// A token that can be guessed is none.
    fn token(&self, c: &Config) -> Result<(), ConfigError> {
        let Some(file) = &c.admin.token_file else { return Ok(()) };
        let key = "admin.token-file";
        self.readable(key, file)?;
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let bytes = text.lines().next().unwrap_or_default().trim().len();
        if bytes < TOKEN_BYTES_MIN {
            return self.bad(
                key,
                format!("a file whose first line is a token of at least {TOKEN_BYTES_MIN} bytes"),
                format!("one of {bytes}"),
            );
        }
        Ok(())
    }

    fn ensemble(&self, c: &Config) -> Result<(), ConfigError> {
        let key = "ensemble.servers";
        let servers = &c.ensemble.servers;
        let mut seen = BTreeSet::new();
        for (index, server) in servers.iter().enumerate() {
            let at = format!("{key}.{index}.id");
            self.within(&at, server.id.into(), 0, SERVER_ID_MAX.into())?;
            if !seen.insert(server.id) {
                return self.bad(
                    &at,
                    "an id that no other server has",
                    format!("{} twice", server.id),
                );
            }
            if server.peer.is_empty() {
                return self.bad(&format!("{key}.{index}.peer"), "at least one address", "none");
            }
        }
        if !servers.is_empty() && !seen.contains(&c.server_id) {
            return self.bad(
                "server-id",
                format!("one of the ids in [[ensemble.servers]] ({seen:?})"),
                c.server_id,
            );
        }
        if !servers.is_empty() && servers.iter().all(|s| s.role == Role::Observer) {
            return self.bad(
                key,
                "at least one server with the role \"participant\"",
                "observers only",
            );
        }
        Ok(())
    }

    fn auth(&self, c: &Config) -> Result<(), ConfigError> {
        if !DIGEST_ALGS.contains(&c.auth.digest_alg.as_str()) {
            return self.bad(
                "auth.digest-alg",
                format!("one of {}", DIGEST_ALGS.join(", ")),
                format!("\"{}\"", c.auth.digest_alg),
            );
        }
        if let Some(digest) = &c.auth.super_digest {
            let parts: Vec<_> = digest.split(':').collect();
            if parts.len() != 2 || parts.iter().any(|p| p.is_empty()) {
                // The value is a secret of sorts: it is not repeated.
                return self.bad(
                    "auth.super-digest",
                    "`user:base64(hash(user:password))`",
                    "text of another form",
                );
            }
        }
        if c.auth.enforce.enabled && c.auth.enforce.schemes.is_empty() {
            return self.bad(
                "auth.enforce.schemes",
                "at least one scheme, because enforce is enabled",
                "none",
            );
        }
        for scheme in &c.auth.enforce.schemes {
            let known = c.auth.providers.iter().any(|p| match p {
                Provider::Ensemble(_) => scheme == "ensemble",
                other => *scheme == other.to_string(),
            });
            if !known && !matches!(scheme.as_str(), "sasl" | "digest" | "ip") {
                return self.bad(
                    "auth.enforce.schemes",
                    "schemes listed in auth.providers",
                    format!("\"{scheme}\""),
                );
            }
        }
        Ok(())
    }

    /// The files of a certificate, its key and those that are trusted, or the stores in their place.
    fn identity(
        &self,
        at: &str,
        (cert, key, ca): (&Option<PathBuf>, &Option<PathBuf>, &Option<PathBuf>),
        (keystore, truststore): (&Option<KeyStore>, &Option<KeyStore>),
    ) -> Result<(), ConfigError> {
        for (name, file) in [("cert", cert), ("key", key), ("ca", ca)] {
            if let Some(file) = file {
                self.readable(&format!("{at}.{name}"), file)?;
            }
        }
        for (name, store) in [("keystore", keystore), ("truststore", truststore)] {
            if let Some(store) = store {
                self.store(&format!("{at}.{name}"), store)?;
            }
        }
        if cert.is_some() != key.is_some() {
            let (there, missing) = if cert.is_some() { ("cert", "key") } else { ("key", "cert") };
            let expected = format!("`{missing}` beside it in [{at}]");
            return self.bad(&format!("{at}.{there}"), expected, "none");
        }
        if cert.is_some() && keystore.is_some() {
            let expected = "either `cert` and `key` or a keystore";
            return self.bad(&format!("{at}.keystore"), expected, "both");
        }
        if ca.is_some() && truststore.is_some() {
            return self.bad(&format!("{at}.truststore"), "either `ca` or a truststore", "both");
        }
        Ok(())
    }

    fn tls(&self, c: &Config) -> Result<(), ConfigError> {
        let tls = &c.tls;
        self.identity("tls", (&tls.cert, &tls.key, &tls.ca), (&tls.keystore, &tls.truststore))?;
        if let Some(peer) = &c.ensemble.tls {
            let stores = (&peer.keystore, &peer.truststore);
            self.identity("ensemble.tls", (&peer.cert, &peer.key, &peer.ca), stores)?;
            let is_whole = (peer.cert.is_some() || peer.keystore.is_some())
                && (peer.ca.is_some() || peer.truststore.is_some());
            if !is_whole {
                let expected = "`cert` and `key`, or a keystore, and `ca`, or a truststore: servers \
                                show each other certificates";
                return self.bad("ensemble.tls", expected, "not both");
            }
        }
        if let Some(admin) = &c.admin.tls {
            let stores = (&admin.keystore, &admin.truststore);
            self.identity("admin.tls", (&admin.cert, &admin.key, &admin.ca), stores)?;
            if admin.cert.is_none() && admin.keystore.is_none() {
                return self.bad("admin.tls", "`cert` and `key`, or a keystore", "neither");
            }
        }
        if c.listen.client_tls.is_some() && tls.cert.is_none() && tls.keystore.is_none() {
            return self.bad(
                "listen.client-tls",
                "a certificate in [tls] (`cert` and `key`, or a keystore)",
                "none",
            );
        }
        if c.listen.client.is_none() && c.listen.client_tls.is_none() {
            return self.bad(
                "listen.client",
                "at least one of `client` and `client-tls`",
                "neither",
            );
        }
        Ok(())
    }

    fn store(&self, key: &str, store: &KeyStore) -> Result<(), ConfigError> {
        self.readable(&format!("{key}.path"), &store.path)?;
        if let Some(file) = &store.password_file {
            self.readable(&format!("{key}.password-file"), file)?;
        }
        if store.resolved_kind().is_none() {
            let expected = "a file that ends in .jks, .pem, .p12 or .pfx, or a `type` beside it";
            return self.bad(&format!("{key}.path"), expected, store.path.display());
        }
        Ok(())
    }

    fn readable(&self, key: &str, path: &Path) -> Result<(), ConfigError> {
        let reason = match std::fs::File::open(path).and_then(|f| f.metadata()) {
            Ok(meta) if meta.is_dir() => "it is a directory".to_owned(),
            Ok(_) => return Ok(()),
            Err(e) => e.to_string(),
        };
        Err(ConfigError::Unreadable {
            origin: (self.origin_of)(key),
            key: key.to_owned(),
            path: path.display().to_string(),
            reason,
        })
    }
}
