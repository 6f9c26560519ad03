//! Tests of ZooKeeper's configuration as people and test harnesses write it.

use super::*;
use crate::config::{AllowFrom, ClientAuth, Overrides, Provider, StoreKind};
use std::fs;
use tempfile::TempDir;

/// A directory with a `zoo.cfg` in which `DIR` stands for the directory, and `myid` if given.
fn deployment(cfg: &str, my_id: Option<&str>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    if let Some(my_id) = my_id {
        fs::write(dir.path().join("data/myid"), my_id).unwrap();
    }
    fs::write(dir.path().join("zoo.cfg"), cfg.replace("DIR", &dir.path().display().to_string()))
        .unwrap();
    dir
}

fn read(dir: &TempDir, java: &[(&str, &str)]) -> Result<(Config, Vec<Warning>), ConfigError> {
    let java: Vec<_> = java.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    from_zoo_cfg(&dir.path().join("zoo.cfg"), &java)
}

fn loaded(cfg: &str, java: &[(&str, &str)]) -> (Config, Vec<Warning>) {
    read(&deployment(cfg, None), java).unwrap()
}

fn refused(cfg: &str, my_id: Option<&str>) -> String {
    let dir = deployment(cfg, my_id);
    let error = read(&dir, &[]).unwrap_err().to_string();
    error.replace(&dir.path().display().to_string(), "DIR")
}

const BASE: &str = "dataDir=DIR/data\nclientPort=2181\n";

/// As kazoo's harness writes it for one server, entries for local sessions and reconfig included.
const KAZOO: &str = "
tickTime=2000
dataDir=DIR/data
clientPort=20000
secureClientPort=20004
maxClientCnxns=0
admin.serverPort=20003
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider
ssl.keyStore.location=DIR/keystore.jks
ssl.keyStore.password=apassword
ssl.trustStore.location=DIR/truststore.jks
ssl.trustStore.password=apassword
localSessionsEnabled=true
localSessionsUpgradingEnabled=true
4lw.commands.whitelist=*
reconfigEnabled=true

";

#[test]
fn kazoos_harness() {
    let dir = deployment(KAZOO, Some("1"));
    let jaas = dir.path().join("jaas.conf");
    let users = "Server {\n org.apache.zookeeper.server.auth.DigestLoginModule required\n \
        user_super=\"super_secret\"\n user_jaasuser=\"jaas_password\";\n};";
    fs::write(&jaas, users).unwrap();
    fs::write(dir.path().join("keystore.jks"), "k").unwrap();
    fs::write(dir.path().join("truststore.jks"), "t").unwrap();
    let java = [
        ("file.encoding", "UTF-8"),
        ("readonlymode.enabled", "true"),
        ("zookeeper.log.dir", "x"),
        ("zookeeper.root.logger", "INFO,CONSOLE"),
        ("java.security.auth.login.config", jaas.to_str().unwrap()),
        (
            "zookeeper.DigestAuthenticationProvider.superDigest",
            "super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
        ),
    ];
    let (config, warnings) = read(&dir, &java).unwrap();
    assert_eq!((config.tick_time_ms, config.server_id), (2_000, 1));
    assert_eq!(config.data_dir, dir.path().join("data/vivarium"));
    assert_eq!(config.listen.client, Some(Address::new("0.0.0.0", 20_000)));
    assert_eq!(config.listen.client_tls, Some(Address::new("0.0.0.0", 20_004)));
    assert_eq!(config.limits.max_connections_per_address, 0);
    assert_eq!(config.admin.listen, Some(Address::new("0.0.0.0", 20_003)));
    assert_eq!(config.admin.allow_from, AllowFrom::All);
    assert_eq!(
        config.auth.providers,
        [Provider::Digest, Provider::Ip, Provider::X509, Provider::Sasl]
    );
    let keystore = config.tls.keystore.as_ref().unwrap();
    assert_eq!(keystore.resolved_kind(), Some(StoreKind::Jks));
    assert_eq!(keystore.resolved_password().unwrap(), "apassword");
    assert_eq!(config.tls.client_auth, ClientAuth::Need);
    assert!(config.sessions.local && config.sessions.local_upgrading);
    assert!(config.ensemble.reconfig_enabled && config.read_only_mode && config.nodes.ttl_enabled);
    assert!(config.four_letter_words.is_enabled("wchp"));
    assert_eq!(config.four_letter_words.allow_from, AllowFrom::All);
    assert_eq!(config.auth.sasl.users["jaasuser"], "jaas_password");
    assert_eq!(config.auth.super_digest.as_deref(), Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU="));
    let told: Vec<_> = warnings.iter().map(|w| w.key.as_str()).collect();
    assert_eq!(told, ["localSessionsEnabled"]);
    assert!(config.require_supported().is_ok());
    // What a zoo.cfg says can be laid under environment and flags, and printed.
    let again = config.overlaid([], &Overrides::default()).unwrap();
    assert_eq!(again, config);
    assert!(!config.effective_toml().contains("apassword"));
}

#[test]
fn links_between_servers_by_tls() {
    let cfg = format!(
        "{BASE}initLimit=4\nsyncLimit=2\nserver.1=a:1:2\nserver.2=b:1:2\nsslQuorum=true\n\
         ssl.quorum.keyStore.location=DIR/k.p12\nssl.quorum.keyStore.password=apassword\n\
         ssl.quorum.trustStore.location=DIR/t.p12\nssl.quorum.hostnameVerification=false\n"
    );
    let dir = deployment(&cfg, Some("1\n"));
    for store in ["k.p12", "t.p12"] {
        fs::write(dir.path().join(store), "x").unwrap();
    }
    let (config, warnings) = read(&dir, &[]).unwrap();
    let tls = config.ensemble.tls.as_ref().unwrap();
    assert_eq!(tls.keystore.as_ref().unwrap().resolved_password().unwrap(), "apassword");
    assert_eq!(tls.truststore.as_ref().unwrap().resolved_kind(), Some(StoreKind::Pkcs12));
    let told: Vec<_> = warnings.iter().map(|w| w.key.as_str()).collect();
    assert_eq!(told, ["ssl.quorum.hostnameVerification"]);
    assert!(!config.effective_toml().contains("apassword"));
    let without: String = cfg
        .lines()
        .filter(|line| !line.contains("Store."))
        .fold(String::new(), |all, line| all + line + "\n");
    let error = refused(&without, Some("1\n"));
    assert!(error.contains("servers show each other certificates"), "{error}");
}

#[test]
fn kazoos_three_servers() {
    let cfg = format!(
        "{BASE}initLimit=4\nsyncLimit=2\nserver.1=localhost:20002:20001:participant\n\
         server.2=localhost:20012:20011:participant\nserver.3=localhost:20022:20021:participant\npeerType=participant\n"
    );
    let (config, warnings) = read(&deployment(&cfg, Some("2\n")), &[]).unwrap();
    assert_eq!((config.server_id, config.ensemble.voters()), (2, 3));
    assert_eq!(config.ensemble.servers[1].peer, [Address::new("localhost", 20_012)]);
    assert_eq!(config.ensemble.servers[1].election, [Address::new("localhost", 20_011)]);
    // As in ZooKeeper, only what stands in a server line is shown to clients.
    assert_eq!(config.ensemble.servers[1].client, None);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(config.require_supported().is_ok());
    assert!(refused(&cfg, None).contains("DIR/data/myid, got \"no file; it holds"));
    assert!(
        refused(&cfg, Some("two"))
            .contains("DIR/data/myid:1: myid: expected a number within 0 to 254, got `two`")
    );
    assert!(refused(&cfg, Some("255")).contains("myid: expected a number within 0 to 254"));
    let error = refused(&cfg, Some("7"));
    assert!(error.starts_with("DIR/data/myid:1: myid: expected one of the ids"), "{error}");
    assert!(
        refused(&cfg.replace("initLimit=4", ""), Some("1"))
            .contains("initLimit: expected a number of ticks")
    );
    let observers = cfg
        .replace("20012:20011:participant", "20012:20011:observer")
        .replace("20022:20021:participant", "20022:20021:observer");
    assert!(refused(&observers, Some("1")).contains("observers only beside"));
}

#[test]
fn defaults_are_zookeepers() {
    let (config, warnings) = loaded(BASE, &[]);
    assert_eq!((config.tick_time_ms, config.server_id), (3_000, 1));
    assert_eq!((config.min_session_timeout_ms(), config.max_session_timeout_ms()), (6_000, 60_000));
    assert_eq!(config.limits.max_connections_per_address, 60);
    assert_eq!(config.four_letter_words.enabled, ["srvr"]);
    assert_eq!(config.auth.providers, [Provider::Digest, Provider::Ip]);
    assert!(config.nodes.ttl_enabled && !config.read_only_mode);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn the_client_port_may_stand_in_the_server_line() {
    let cfg = "dataDir=DIR/data\nserver.5=127.0.0.1:2888:3888;127.0.0.1:2181\n";
    let (config, _) = loaded(cfg, &[]);
    assert_eq!(
        (config.server_id, config.listen.client),
        (5, Some(Address::new("127.0.0.1", 2_181)))
    );
    let (config, _) = loaded(&format!("{cfg}clientPort=2181\n"), &[]);
    assert_eq!(config.listen.client, Some(Address::new("127.0.0.1", 2_181)));
    let error = refused(&format!("{cfg}clientPort=2182\n"), Some("5"));
    assert_eq!(
        error,
        "DIR/zoo.cfg:3: clientPort: expected 127.0.0.1:2181, as in server.5, got 0.0.0.0:2182"
    );
    // A server on its own needs no myid; one that differs is named.
    let (config, warnings) = read(&deployment(cfg, Some("6")), &[]).unwrap();
    assert_eq!((config.server_id, warnings.len()), (5, 1));
    assert!(warnings[0].reason.contains("says 6"), "{}", warnings[0]);
}

#[test]
fn of_a_key_given_twice_the_last_holds_with_a_warning() {
    let (config, warnings) =
        loaded(&format!("{BASE}tickTime=1000\ntickTime=1500\nx=1\nx=2\n"), &[]);
    assert_eq!(config.tick_time_ms, 1_500);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].to_string().contains("zoo.cfg:3: tickTime: is set again at"),
        "{}",
        warnings[0]
    );
}

#[test]
fn a_dynamic_file() {
    let cfg = format!("{BASE}initLimit=4\nsyncLimit=2\ndynamicConfigFile=DIR/dyn\n");
    let dir = deployment(&cfg, Some("1"));
    fs::write(dir.path().join("dyn"), "server.1=a:1:2;2181\nserver.2=b:1:2;2181\nversion=100\n")
        .unwrap();
    let (config, _) = read(&dir, &[]).unwrap();
    assert_eq!(config.ensemble.servers.len(), 2);
    fs::write(dir.path().join("dyn"), "server.1=a:1:2;2181\ntickTime=1\n").unwrap();
    assert!(
        read(&dir, &[])
            .unwrap_err()
            .to_string()
            .contains("dyn:2: tickTime: expected only server.N")
    );
    let error = refused(&format!("{cfg}server.1=a:1:2\n"), Some("1"));
    assert!(error.contains("zoo.cfg:6: server.1: expected it in the dynamic"), "{error}");
}

#[test]
fn properties_of_the_file_win_and_have_their_real_names() {
    let cfg = format!(
        "{BASE}enforceQuota=true\nskipACL=yes\nmaxCnxns=9\nextendedTypesEnabled=false\nsuperUser=ann\n\
         authProvider.7=com.example.Custom\nauthProvider.8=org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider\n\
         ensembleAuthName=blue, green\nDigestAuthenticationProvider.digestAlg=sha3-256\nunknownThing=1\nsnapCount=5\n"
    );
    let java = [
        ("zookeeper.enforceQuota", "false"),
        ("zookeeper.superUser.2", "bob"),
        ("jute.maxbuffer", "0x1FFFFF"),
        ("zookeeper.nio.sessionlessCnxnTimeout", "500"),
        ("znode.container.checkIntervalMs", "1"),
        ("znode.container.maxPerMinute", "77"),
        ("zookeeper.globalOutstandingLimit", "50"),
        ("zookeeper.emulate353TTLNodes", "true"),
        ("zookeeper.sessionRequireClientSASLAuth", "TRUE"),
        ("zookeeper.allowSaslFailedClients", "true"),
        ("zookeeper.enforce.auth.enabled", "true"),
        ("zookeeper.enforce.auth.schemes", "sasl,digest"),
        ("zookeeper.X509AuthenticationProvider.superUser", "CN=x"),
        ("zookeeper.4lw.commands.whitelist", "ruok, nope,stat"),
    ];
    let (config, warnings) = loaded(&cfg, &java);
    assert!(config.nodes.enforce_quota && config.auth.skip_acl && !config.nodes.ttl_enabled);
    assert_eq!((config.limits.max_connections, config.limits.max_frame_bytes), (9, 0x1F_FFFF));
    assert_eq!(config.auth.sasl.super_users, ["ann", "bob"]);
    let custom = Provider::Unknown("com.example.Custom".into());
    let ensemble = Provider::Ensemble(vec!["blue".into(), "green".into()]);
    assert_eq!(config.auth.providers, [Provider::Digest, Provider::Ip, custom, ensemble]);
    assert_eq!(config.auth.digest_alg, "SHA3-256");
    assert_eq!(config.limits.sessionless_connection_timeout_ms, 500);
    assert_eq!(
        (config.nodes.container_check_interval_ms, config.nodes.container_deletes_per_minute),
        (1, 77)
    );
    assert_eq!(config.limits.max_outstanding_requests, 50);
    assert!(
        config.nodes.emulate_353_ttl
            && config.auth.sasl.require
            && config.auth.sasl.allow_failed_clients
    );
    assert_eq!(config.auth.enforce.schemes, ["sasl", "digest"]);
    assert_eq!(config.auth.x509.super_user.as_deref(), Some("CN=x"));
    assert_eq!(config.four_letter_words.enabled, ["ruok", "stat", "srvr"]);
    let told: Vec<_> = warnings.iter().map(|w| w.key.as_str()).collect();
    assert_eq!(told, ["zookeeper.emulate353TTLNodes", "authProvider.7"]);
    assert_eq!(config.overlaid([], &Overrides::default()).unwrap(), config);
    // "true" is not the word that switches ACLs off.
    assert!(!loaded(BASE, &[("zookeeper.skipACL", "true")]).0.auth.skip_acl);
    let (config, _) = loaded(BASE, &[("zookeeper.DigestAuthenticationProvider.enabled", "false")]);
    assert_eq!(config.auth.providers, [Provider::Ip]);
    // A setting of the main list is not taken from a property.
    assert_eq!(loaded(BASE, &[("tickTime", "5")]).0.tick_time_ms, 3_000);
}

#[test]
fn one_warning_for_each_thing_that_is_not_supported() {
    let cfg = format!(
        "{BASE}dataLogDir=DIR/log\nforceSync=no\nssl.crl=true\nssl.ocsp=false\nweight.1=2\nweight.2=3\n\
         jute.maxbuffer=5\nzookeeper.skipACL=yes\nautopurge.purgeInterval=24\nsslQuorum=false\n"
    );
    let dir = deployment(&cfg, None);
    fs::create_dir(dir.path().join("data/version-2")).unwrap();
    fs::write(dir.path().join("data/version-2/log.1"), "x").unwrap();
    let (config, warnings) = read(&dir, &[]).unwrap();
    let mut keys: Vec<_> = warnings.iter().map(|w| w.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "dataDir",
            "dataLogDir",
            "forceSync",
            "jute.maxbuffer",
            "ssl.crl",
            "weight.1",
            "zookeeper.skipACL"
        ]
    );
    assert_eq!((config.limits.max_frame_bytes, config.auth.skip_acl), (1_048_575, false));
    assert_eq!(fs::read_to_string(dir.path().join("data/version-2/log.1")).unwrap(), "x");
    let shown = warnings.iter().find(|w| w.key == "forceSync").unwrap().to_string();
    assert!(shown.contains("zoo.cfg:4: forceSync: every acknowledged write is synced"), "{shown}");
}

#[test]
fn values_beyond_our_bounds_do_not_keep_a_deployment_from_starting() {
    let (config, warnings) = loaded(
        &format!("{BASE}maxClientCnxns=-1\nmaxCnxns=-5\n"),
        &[("jute.maxbuffer", "104857600")],
    );
    let limits = &config.limits;
    assert_eq!((limits.max_connections_per_address, limits.max_connections), (0, 0));
    assert_eq!(limits.max_frame_bytes, 64 << 20);
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "java property jute.maxbuffer: jute.maxbuffer: says 104857600, but a request may have at \
          most 67108864 bytes, which holds"
        ]
    );
    let exact = loaded(BASE, &[("jute.maxbuffer", "67108864")]);
    assert_eq!((exact.0.limits.max_frame_bytes, exact.1.len()), (64 << 20, 0));
}

#[test]
fn what_is_taken_over_to_no_effect_is_told_by_its_own_name() {
    let cfg = format!(
        "{BASE}authProvider.2=org.apache.zookeeper.server.auth.KeyAuthenticationProvider\n\
         admin.enableServer=false\nadmin.serverPort=9\n"
    );
    let (_, warnings) = loaded(&cfg, &[("znode.container.maxNeverUsedIntervalMs", "60000")]);
    let told: Vec<_> = warnings.iter().map(|w| w.key.as_str()).collect();
    assert_eq!(told, ["znode.container.maxNeverUsedIntervalMs", "authProvider.2"]);
    assert!(warnings[1].to_string().contains("zoo.cfg:3: authProvider.2: is not a provider"));
}

#[test]
fn an_admin_server_is_there_where_it_is_asked_for() {
    for (lines, expected) in [
        ("", None),
        ("admin.enableServer=true\n", Some(Address::new("0.0.0.0", 8_080))),
        ("admin.serverAddress=127.0.0.1\n", Some(Address::new("127.0.0.1", 8_080))),
        ("admin.serverPort=9\n", Some(Address::new("0.0.0.0", 9))),
        ("admin.serverPort=9\nadmin.enableServer=false\n", None),
    ] {
        let (config, warnings) = loaded(&format!("{BASE}{lines}audit.enable=true\n"), &[]);
        assert_eq!((config.admin.listen, warnings.len()), (expected, 0), "{lines}");
        assert!(config.audit.enabled);
    }
}

#[test]
fn bad_input_names_file_line_and_key() {
    for (line, expected) in [
        (
            "clientPort=70000",
            "DIR/zoo.cfg:3: clientPort: expected a port, got the port 70000 is not within 0 to 65535",
        ),
        ("clientPort=abc", "clientPort: expected a port, got the port `abc` is not a number"),
        (
            "tickTime=2s",
            "DIR/zoo.cfg:3: tickTime: expected a number within 1 to 2147483647, got `2s`",
        ),
        (
            "maxClientCnxns=many",
            "maxClientCnxns: expected a number within 0 to 2147483647, got `many`",
        ),
        ("server.x=a:1:2", "server.x: expected server.N with N within 0 to 254, got server.x"),
        ("server.300=a:1:2", "got server.300"),
        ("server.1=a:1", "DIR/zoo.cfg:3: server.1: expected host:peerPort:electionPort"),
        (
            "server.1=a:1:2\nserver.01=b:1:2",
            "server.1: expected an id that no other server has, got 1 twice",
        ),
        (
            "secureClientPort=5\nssl.keyStore.location=DIR/gone.jks",
            "DIR/zoo.cfg:4: ssl.keyStore.location: expected a readable file at DIR/gone.jks",
        ),
        ("secureClientPort=5", "DIR/zoo.cfg:3: secureClientPort: expected a certificate"),
        (
            "secureClientPort=5\nssl.clientAuth=maybe",
            "ssl.clientAuth: expected none, want or need, got `maybe`",
        ),
        (
            "secureClientPort=5\nssl.keyStore.location=x\nssl.keyStore.type=BCFKS",
            "ssl.keyStore.type: expected JKS, PEM or PKCS12",
        ),
        (
            "secureClientPortAddress=127.0.0.1",
            "secureClientPortAddress: expected secureClientPort beside it",
        ),
        ("minSessionTimeout=90000", "DIR/zoo.cfg:3: minSessionTimeout: expected a lower bound"),
        (
            "DigestAuthenticationProvider.digestAlg=CRC",
            "DigestAuthenticationProvider.digestAlg: expected one of SHA-1",
        ),
        ("x=\\u12", "DIR/zoo.cfg:3: expected four hexadecimal digits"),
    ] {
        let error = refused(&format!("{BASE}{line}\n"), None);
        assert!(error.contains(expected), "{line}\n  {error}\n  {expected}");
    }
    assert!(refused("clientPort=1\n", None).contains("DIR/zoo.cfg: dataDir: expected a directory"));
    assert!(
        refused("dataDir=DIR/data\n", None)
            .contains("expected at least one of `client` and `client-tls`")
    );
    assert!(refused(BASE, Some("x")).contains("myid:1: myid: expected a number"));
    let dir = deployment(BASE, None);
    let (config, warnings) =
        read(&dir, &[("java.security.auth.login.config", "/nowhere/jaas")]).expect("a warning");
    assert_eq!(config.auth.sasl.jaas_file, None);
    assert!(warnings.iter().any(|w| w.to_string().contains("no such file")), "{warnings:?}");
}
