//! Settings that are read and checked and that this version does not follow.
//!
//! An operator who sets one believes that it holds, so each is named at the start. Whoever makes a
//! setting work deletes its lines here.
//!
//! Invariant: the defaults give no warning.

use super::Config;
use super::access::Provider;

/// The keys that are set to no effect, dotted, each with what happens instead and what to do.
pub(super) fn find(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut add = |key: &str, reason: &str| found.push((key.to_owned(), reason.to_owned()));
    if config.sessions.local && !config.is_ensemble() {
        add(
            "sessions.local",
            "there is no other server that would not know of a session: each may have ephemerals",
        );
    }
    if config.sessions.local_upgrading && !config.sessions.local {
        add("sessions.local-upgrading", "there are no local sessions; set sessions.local too");
    }
    if config.nodes.emulate_353_ttl {
        add(
            "nodes.emulate-353-ttl",
            "a longer TTL than 2^40-1 ms is refused, whatever it says; remove it",
        );
    }
    if config.nodes.container_max_never_used_ms > 0 {
        add(
            "nodes.container-max-never-used-ms",
            "a container that never had a child stays; delete it by hand",
        );
    }
    if config.admin.listen.is_none()
        && (config.admin.tls.is_some() || config.admin.token_file.is_some())
    {
        add("admin.listen", "is not set, so that there is no admin API; set it, or remove [admin]");
    }
    if config.audit.file.is_some() && !config.audit.enabled {
        add("audit.file", "no audit log is written; set audit.enabled too");
    }
    for (index, provider) in config.auth.providers.iter().enumerate() {
        if matches!(provider, Provider::Key | Provider::Unknown(_)) {
            add(
                &format!("auth.providers.{index}"),
                "is not a provider that this server has: clients that authenticate by it are \
                 refused; use digest, sasl, x509 or ip",
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(config: &Config) -> Vec<String> {
        find(config).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn each_is_named_and_nothing_by_default() {
        let mut config = Config::default();
        assert_eq!(keys(&config), [""; 0]);
        config.sessions.local = true;
        config.nodes.emulate_353_ttl = true;
        config.nodes.container_max_never_used_ms = 1;
        config.admin.token_file = Some("token".into());
        config.audit.file = Some("audit.log".into());
        config.auth.providers =
            vec![Provider::Digest, Provider::Key, Provider::Unknown("a.B".into())];
        let expected = [
            "sessions.local",
            "nodes.emulate-353-ttl",
            "nodes.container-max-never-used-ms",
            "admin.listen",
            "audit.file",
            "auth.providers.1",
            "auth.providers.2",
        ];
        assert_eq!(keys(&config), expected);
        let shown = config.without_effect()[0].to_string();
        assert!(shown.starts_with("configuration: sessions.local: there is no other"), "{shown}");
    }
}
