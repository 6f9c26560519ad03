//! Tests of layers, errors, and the annotated example.

use super::*;
use std::collections::BTreeSet;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_tree(Node::from_toml(text, "vivarium.toml")?)
}

fn refused(text: &str) -> String {
    parse(text).expect_err("the configuration should have been refused").to_string()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

const EXAMPLE: &str = include_str!("../../../../config/single.toml");

/// The example with every commented-out key in force. Prose starts with a capital, a quote or a word
/// that no `=` follows at once.
fn example_uncommented() -> String {
    let uncomment = |line: &str| {
        let Some(rest) = line.strip_prefix("# ") else { return line.to_owned() };
        let key = rest.split(" = ").next().unwrap_or_default();
        let setting = rest.contains(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if setting || rest.starts_with('[') { rest.to_owned() } else { line.to_owned() }
    };
    EXAMPLE.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

/// A configuration in which everything optional is there, spelled out so that a new field breaks it.
fn full() -> Config {
    let store = KeyStore {
        path: "k.p12".into(),
        kind: StoreKind::Auto,
        password: Some("p".into()),
        password_file: Some("f".into()),
    };
    let address = Some(Address::new("h", 1));
    let tls = Tls {
        cert: Some("c".into()),
        key: Some("k".into()),
        ca: Some("a".into()),
        client_auth: ClientAuth::Need,
        reload: true,
        keystore: Some(store.clone()),
        truststore: Some(store.clone()),
    };
    Config {
        listen: Listen { client: address.clone(), client_tls: address.clone() },
        sessions: Sessions {
            min_timeout_ms: Some(1),
            max_timeout_ms: Some(2),
            local: true,
            local_upgrading: true,
        },
        admin: Admin {
            listen: address.clone(),
            allow_from: AllowFrom::All,
            token_file: Some("token".into()),
            tls: Some(tls.clone()),
        },
        audit: Audit { enabled: true, file: Some("audit.log".into()) },
        auth: Auth {
            super_digest: Some("s".into()),
            sasl: Sasl { jaas_file: Some("j".into()), ..Sasl::default() },
            x509: X509 { super_user: Some("x".into()) },
            ..Auth::default()
        },
        tls,
        ensemble: Ensemble {
            peer_listen: address.clone(),
            reconfig_enabled: true,
            tls: Some(PeerTls {
                cert: Some("c".into()),
                key: Some("k".into()),
                ca: Some("a".into()),
                keystore: Some(store.clone()),
                truststore: Some(store),
            }),
            servers: vec![EnsembleServer {
                id: 1,
                peer: vec![Address::new("h", 1)],
                election: vec![Address::new("h", 1)],
                client: address,
                role: Role::Observer,
            }],
        },
        plugin_dir: Some("p".into()),
        ..Config::default()
    }
}

fn keys(value: &toml::Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                keys(value, &format!("{path}.{key}"), out);
                out.insert(format!("{path}.{key}"));
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| keys(item, path, out)),
        _ => {}
    }
}

#[test]
fn the_example_holds_the_defaults() {
    assert_eq!(parse(EXAMPLE).unwrap(), Config::default());
}

#[test]
fn the_example_shows_every_key_and_no_other() {
    let uncommented = example_uncommented();
    // Decoding proves that each commented key exists and takes the value shown.
    let _: Config = decode::decode(Node::from_toml(&uncommented, "single.toml").unwrap()).unwrap();
    let (mut shown, mut known) = (BTreeSet::new(), BTreeSet::new());
    keys(&toml::from_str(&uncommented).unwrap(), "", &mut shown);
    keys(&toml::Value::try_from(full()).unwrap(), "", &mut known);
    shown.retain(|key| !key.starts_with(".auth.sasl.users."));
    assert_eq!(shown, known);
}

#[test]
fn every_key_of_the_example_is_explained() {
    let mut explained = false;
    for (number, line) in EXAMPLE.lines().enumerate() {
        let setting = line.trim_start_matches("# ").split_once(" = ");
        let setting = setting.is_some_and(|(k, _)| {
            k.chars().all(|c| c.is_ascii_lowercase() || "-0123456789".contains(c))
        });
        if setting {
            assert!(explained, "single.toml:{}: no comment above `{line}`", number + 1);
        }
        // A group of keys may share the comment above it; a blank line ends the group.
        explained = !line.is_empty() && (explained || line.starts_with('#'));
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let config = Config { tick_time_ms: 3_000, ..full() };
    let printed = toml::to_string(&config).unwrap();
    let again: Config = decode::decode(Node::from_toml(&printed, "printed").unwrap()).unwrap();
    assert_eq!(again, config);
    let mut closed = Config::default();
    closed.listen.client = None;
    let again: Config =
        decode::decode(Node::from_toml(&closed.effective_toml(), "p").unwrap()).unwrap();
    assert_eq!(again, closed);
}

#[test]
fn secrets_are_not_printed() {
    let mut config = full();
    config.auth.super_digest = Some("super:hunter2".into());
    config.auth.sasl.users.insert("alice".into(), "hunter2".into());
    for store in [&mut config.tls.keystore, &mut config.tls.truststore].into_iter().flatten() {
        store.password = Some("hunter2".into());
    }
    let printed = config.effective_toml();
    assert!(!printed.contains("hunter2") && printed.contains("alice"), "{printed}");
}

#[test]
fn units() {
    let config = parse(
        "tick-time-ms = \"3s\"\n[sessions]\nmin-timeout-ms = \"500 ms\"\nmax-timeout-ms = \"1m\"\n\
         [limits]\nmax-frame-bytes = \"4MiB\"\n[storage]\ncache-bytes = \"10MB\"",
    )
    .unwrap();
    assert_eq!((config.tick_time_ms, config.min_session_timeout_ms()), (3_000, 500));
    assert_eq!((config.max_session_timeout_ms(), config.limits.max_frame_bytes), (60_000, 4 << 20));
    assert_eq!(config.storage.cache_bytes, 10_000_000);
    for wrong in
        ["\"2 parsecs\"", "\"64MiB\"", "-1", "1.5", "true", "\"\"", "\"9223372036854775807d\""]
    {
        let error = refused(&format!("\ntick-time-ms = {wrong}"));
        assert!(error.starts_with("vivarium.toml:2: tick-time-ms: expected a duration"), "{error}");
    }
    let error = refused("[limits]\nmax-frame-bytes = \"2s\"");
    assert!(error.contains("vivarium.toml:2: limits.max-frame-bytes: expected a size"), "{error}");
    assert!(error.contains("got string \"2s\""), "{error}");
}

#[test]
fn unknown_keys_name_the_nearest() {
    let error = refused("data-dir = \"x\"\n[limits]\n\nmax-frame-byte = 5");
    assert_eq!(
        error,
        "vivarium.toml:4: unknown key `max-frame-byte` in [limits]: did you mean `max-frame-bytes`?"
    );
    assert!(refused("[limit]").contains("unknown key `limit`: did you mean `limits`?"));
    let error = refused("[auth.sasl]\nzzz = 1");
    assert!(error.contains("in [auth.sasl]: known keys here are jaas-file,"), "{error}");
    let error = refused("[[ensemble.servers]]\nid = 1\npeers = [\"a:1\"]");
    assert!(
        error.contains("vivarium.toml:3: unknown key `peers`") && error.contains("`peer`"),
        "{error}"
    );
}

#[test]
fn wrong_types_and_values() {
    for (text, expected) in [
        ("server-id = \"one\"", "vivarium.toml:1: server-id: expected u8, got string \"one\""),
        (
            "server-id = 255",
            "vivarium.toml:1: server-id: expected a value within 0 to 254, got 255",
        ),
        ("server-id = 256", "server-id: expected u8, got integer `256`"),
        ("read-only-mode = \"yes\"", "read-only-mode: expected true or false, got string \"yes\""),
        (
            "reads = \"linearisable\"",
            "expected one of \"local\", \"linearizable\", got \"linearisable\" (did you mean \"linearizable\"?)",
        ),
        (
            "listen = 3",
            "listen: expected a table with the keys client, client-tls, got integer `3`",
        ),
        (
            "[listen]\nclient = \"127.0.0.1:70000\"",
            "vivarium.toml:2: listen.client: expected an address such as \"127.0.0.1:2181\" or \"[::1]:2181\" (the port 70000 is not within 0 to 65535)",
        ),
        ("[listen]\nclient = \"::1:2181\"", "IPv6 address stands in brackets"),
        (
            "[listen]\nclient = \"none\"",
            "listen.client: expected at least one of `client` and `client-tls`, got neither",
        ),
        (
            "[four-letter-words]\nenabled = [\"rouk\"]",
            "vivarium.toml:2: four-letter-words.enabled: expected \"*\" or words of ruok",
        ),
        ("[four-letter-words]\nenabled = \"ruok\"", "expected a list, such as"),
        ("[logging]\nlevel = \"inof\"", "logging.level: expected one of off, error"),
        (
            "[sessions]\nmin-timeout-ms = \"10m\"",
            "vivarium.toml:2: sessions.min-timeout-ms: expected a lower bound",
        ),
        ("[auth]\ndigest-alg = \"MD5\"", "auth.digest-alg: expected one of SHA-1"),
        (
            "[auth]\nproviders = [\"digets\"]",
            "vivarium.toml:2: auth.providers.0: expected \"digest\"",
        ),
        ("[auth.enforce]\nenabled = true", "auth.enforce.schemes: expected at least one scheme"),
        (
            "[storage]\nlog-retain-bytes = \"1MiB\"",
            "storage.log-retain-bytes: expected a value within 67108864",
        ),
        ("a b", "vivarium.toml:1: expected TOML:"),
        ("server-id = 1\nserver-id = 2", "vivarium.toml:2: expected TOML: duplicate key"),
        (
            "server-id = 99999999999999999999",
            "vivarium.toml:1: expected a number of at most 64 bits",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}\n  {error}\n  {expected}");
    }
}

#[test]
fn paths_must_exist_and_fit_together() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.pem");
    std::fs::write(&file, "x").unwrap();
    let (here, gone) = (file.display(), dir.path().join("gone.pem"));
    let error = refused(&format!("[tls]\ncert = \"{here}\"\nkey = \"{}\"", gone.display()));
    assert!(error.starts_with("vivarium.toml:3: tls.key: expected a readable file at"), "{error}");
    assert!(error.contains("gone.pem"), "{error}");
    let error = refused(&format!("[tls]\nca = \"{}\"", dir.path().display()));
    assert!(error.contains("it is a directory"), "{error}");
    let error = refused(&format!("[tls]\ncert = \"{here}\""));
    assert!(error.contains("vivarium.toml:2: tls.cert: expected `key` beside it"), "{error}");
    let error = refused("[listen]\nclient-tls = \"127.0.0.1:2281\"");
    assert!(
        error.contains("vivarium.toml:2: listen.client-tls: expected a certificate"),
        "{error}"
    );
    let tls =
        format!("[listen]\nclient-tls = \"[::1]:0\"\n[tls]\ncert = \"{here}\"\nkey = \"{here}\"");
    assert_eq!(parse(&tls).unwrap().listen.client_tls.unwrap(), Address::new("::1", 0));
}

#[test]
fn environment_goes_over_the_file_and_flags_over_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("v.toml");
    std::fs::write(&file, "server-id = 1\ntick-time-ms = 1000\n[limits]\nmax-connections = 7\n")
        .unwrap();
    let vars = env(&[
        ("HOME", "/root"),
        ("VIVARIUM_CONFIG", "elsewhere"),
        ("VIVARIUM_SERVER_ID", "2"),
        ("VIVARIUM_READ_ONLY_MODE", "true"),
        ("VIVARIUM_LIMITS__MAX_FRAME_BYTES", "2MiB"),
        ("VIVARIUM_FOUR_LETTER_WORDS__ENABLED", "ruok, srvr"),
        ("VIVARIUM_AUTH__SASL__USERS", "{ alice = \"a\" }"),
        ("VIVARIUM_LISTEN__CLIENT_TLS", "none"),
        ("VIVARIUM_READS", "linearizable"),
    ]);
    let mut flags = Overrides::default();
    flags.set("--server-id", "server-id", "3");
    flags.set("--set", "auth.super-digest", "super:x");
    let config = Config::load(Some(&file), vars.clone(), &flags).unwrap();
    assert_eq!((config.server_id, config.tick_time_ms), (3, 1_000));
    assert_eq!((config.limits.max_connections, config.limits.max_frame_bytes), (7, 2 << 20));
    assert_eq!(config.four_letter_words.enabled, ["ruok", "srvr"]);
    assert_eq!(config.auth.sasl.users["alice"], "a");
    assert!(config.read_only_mode && config.reads == Reads::Linearizable);
    assert_eq!(config.auth.super_digest.as_deref(), Some("super:x"));
    assert_eq!(Config::load(None, vars, &Overrides::default()).unwrap().server_id, 2);
    assert_eq!(Config::load(None, [], &Overrides::default()).unwrap(), Config::default());
    // What is loaded can be laid over once more, secrets included.
    assert_eq!(config.overlaid([], &Overrides::default()).unwrap(), config);
}

#[test]
fn errors_of_environment_and_flags_name_them() {
    let load = |vars: &[(&str, &str)], flags: &Overrides| {
        Config::load(None, env(vars), flags).unwrap_err().to_string()
    };
    let none = Overrides::default();
    let error = load(&[("VIVARIUM_LIMITS__MAX_FRAME_BYTE", "1")], &none);
    assert_eq!(
        error,
        "unknown environment variable VIVARIUM_LIMITS__MAX_FRAME_BYTE: did you mean VIVARIUM_LIMITS__MAX_FRAME_BYTES?"
    );
    let error = load(&[("VIVARIUM_DATADIR", "x")], &none);
    assert!(error.ends_with("did you mean VIVARIUM_DATA_DIR?"), "{error}");
    let error = load(&[("VIVARIUM_TICK_TIME_MS", "2 parsecs")], &none);
    assert!(
        error.starts_with(
            "environment variable VIVARIUM_TICK_TIME_MS: tick-time-ms: expected a duration"
        ),
        "{error}"
    );
    let mut flags = Overrides::default();
    flags.set("--set", "limits.max-conections", "1");
    let error = load(&[], &flags);
    assert_eq!(
        error,
        "flag --set: unknown key `max-conections` in [limits]: did you mean `max-connections`?"
    );
    let gone = Config::load(Some(Path::new("gone.toml")), [], &none).unwrap_err().to_string();
    assert!(gone.contains("expected a readable file at gone.toml"), "{gone}");
}

#[test]
fn ensembles() {
    let three = "server-id = 2\n[[ensemble.servers]]\nid = 1\npeer = [\"a:1\"]\n\
        [[ensemble.servers]]\nid = 2\npeer = [\"b:1\", \"b2:1\"]\nclient = \"b:2181\"\n\
        [[ensemble.servers]]\nid = 3\npeer = [\"c:1\"]\nrole = \"observer\"\n";
    let config = parse(three).unwrap();
    assert_eq!(config.ensemble.voters(), 2);
    let error = config.require_supported().unwrap_err().to_string();
    assert!(error.contains("no observers") && error.contains("server 3 as an observer"), "{error}");
    assert!(Config::default().require_supported().is_ok());
    let error = refused(&three.replace("id = 3", "id = 1"));
    assert!(
        error.contains("vivarium.toml:10: ensemble.servers.2.id: expected an id that no other"),
        "{error}"
    );
    let error = refused(&three.replace("server-id = 2", "server-id = 9"));
    assert!(error.contains("vivarium.toml:1: server-id: expected one of the ids"), "{error}");
    let error = refused("[[ensemble.servers]]\nid = 1");
    assert!(
        error.contains("vivarium.toml:1: ensemble.servers.0: expected a key `peer`, got none"),
        "{error}"
    );
    let error = refused("[[ensemble.servers]]\nid = 1\npeer = [\"a:1\"]\nrole = \"observer\"");
    assert!(error.contains("at least one server with the role"), "{error}");
}

#[test]
fn the_seed_carries_what_decides_outcomes() {
    let config = parse(
        "[nodes]\nttl-enabled = false\nenforce-quota = true\n[auth]\nsuper-digest = \"super:a\"\nskip-acl = true",
    )
    .unwrap();
    let seed = config.seed_settings();
    assert!(!seed.ttl_enabled && seed.enforce_quota && seed.skip_acl);
    assert_eq!(seed.super_digests, ["super:a"]);
    assert_eq!((seed.min_session_timeout_ms, seed.max_session_timeout_ms), (4_000, 40_000));
    assert_eq!((seed.max_frame_bytes, seed.container_check_interval_ms), (1_048_575, 60_000));
}

#[test]
fn jaas_users_join_the_inline_ones() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jaas.conf");
    std::fs::write(&file, "S { x.DigestLoginModule required user_a=\"file\" user_b=\"file\"; };")
        .unwrap();
    let text = format!(
        "[auth.sasl]\njaas-section = \"S\"\njaas-file = \"{}\"\n[auth.sasl.users]\na = \"inline\"",
        file.display()
    );
    let users = parse(&text).unwrap().auth.sasl.users;
    assert_eq!((users["a"].as_str(), users["b"].as_str()), ("inline", "file"));
}
