//! The audit log of a real server: who did what, and what came of it.

use std::path::Path;

use proto::{Acl, Id, MultiOp, OpCode, Request};

use serde_json::json;

use crate::admin::Watched;
use crate::admin::plugins::refuses;
use crate::client::{Client, create};
use crate::operator::wait_for;
use crate::process::Server;

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // Without the time.
    text.lines().map(|line| line.split_once(' ').expect("a time").1.to_owned()).collect()
}

fn create_as(path: &str, flags: i32) -> Request {
    match create(path, b"") {
        Request::Create(new) => Request::Create(proto::request::Create { flags, ..new }),
        other => other,
    }
}

#[test]
fn each_write_is_written_down_with_what_came_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("audit.log");
    let setting = format!("audit.file={}", file.display());
    let all = ["--set", "audit.enabled=true", "--set", &setting];
    let server = Server::start_with(&dir.path().join("data"), &all);
    let mut client = Client::connect(server.address).expect("it takes clients");
    let auth = Request::Auth { scheme: "digest".to_owned(), auth: "bob:secret".into() };
    assert_eq!(client.ask(&auth).expect("it answers").0.err, 0);
    let mut errors = Vec::new();
    let sequence = match create("/s-", b"") {
        Request::Create(new) => MultiOp::Create(proto::request::Create { flags: 2, ..new }),
        other => panic!("{other:?}"),
    };
    let missing = || MultiOp::Delete { path: "/missing".to_owned(), version: -1 };
    let acl = vec![Acl { perms: 31, id: Id::new("digest", "bob:hash") }];
    for request in [
        create("/a", b"secret data"),
        create("/a", b""),
        create_as("/e-", 3),
        Request::Multi(vec![
            sequence.clone(),
            MultiOp::Check { path: "/a".to_owned(), version: -1 },
        ]),
        Request::SetAcl { path: "/a".to_owned(), acl, version: -1 },
        Request::SetData { path: "/a".to_owned(), data: None, version: -1 },
        Request::Multi(vec![sequence, missing()]),
        Request::Delete { path: "/bad\tname".to_owned(), version: -1 },
        // Reads are not written down.
        Request::GetData { path: "/s-0000000002".to_owned(), watch: false },
    ] {
        errors.push(client.ask(&request).expect("it answers").0.err);
    }
    client.send(&Request::CloseSession).expect("it takes it");
    client.receive(OpCode::CloseSession).expect("it answers");
    wait_for("the ephemeral's end is written down", || {
        lines(&file).iter().any(|line| line.contains("OnSessionCloseOrExpire"))
    });
    let found = lines(&file);
    assert_eq!(found[0], "operation=serverStart\tresult=success");
    let session = found[1].split('\t').next().expect("a field");
    assert!(session.starts_with("session=0x1"), "{session}");
    let who = format!("{session}\tuser=127.0.0.1,bob\tip=127.0.0.1\t");
    // The ACL keeps it from setting the data: its id is none that it can prove.
    let expected = [
        "operation=create\tznode=/a\tznode_type=persistent\tresult=success",
        "operation=create\tznode=/a\tznode_type=persistent\tresult=failure\treason=NODEEXISTS",
        "operation=create\tznode=/e-0000000001\tznode_type=ephemeral_sequential\tresult=success",
        "operation=create\tznode=/s-0000000002\tznode_type=persistent_sequential\tresult=success",
        "operation=setAcl\tznode=/a\tacl=digest:bob:hash:cdrwa\tresult=success",
        "operation=setData\tznode=/a\tresult=failure\treason=NOAUTH",
        "operation=multiOperation\tresult=failure\treason=NONODE",
        "operation=delete\tznode=/bad\\u{9}name\tresult=failure\treason=NONODE",
    ];
    for (line, expected) in found[1..].iter().zip(expected) {
        assert_eq!(line, &format!("{who}{expected}"), "{errors:?}");
    }
    assert_eq!(
        found[1 + expected.len()..],
        [format!(
            "{session}\toperation=ephemeralZNodeDeletionOnSessionCloseOrExpire\tznode=/e-0000000001\tresult=success"
        )]
    );
    server.terminate();
    let found = lines(&file);
    assert_eq!(found.last().map(String::as_str), Some("operation=serverStop\tresult=success"));
    let text = std::fs::read_to_string(&file).expect("it is there");
    assert!(!text.contains("secret"), "neither passwords nor data: {text}");
}

#[test]
fn without_a_file_it_goes_into_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let to = std::fs::File::create(&log).expect("it is made");
    let all = ["--set", "audit.enabled=true"];
    let server = Server::start_logging(&dir.path().join("data"), &all, to);
    let mut client = Client::connect(server.address).expect("it takes clients");
    client.ask(&create("/a", b"")).expect("it answers");
    let text = || std::fs::read_to_string(&log).expect("it is there");
    wait_for("it is told", || text().contains("operation=create\tznode=/a"));
    assert!(text().contains("INFO audit: session=0x1"), "{}", text());
}

#[test]
fn what_a_plugin_refused_is_written_down_with_its_reason_and_what_operators_did_to_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("audit.log");
    let setting = format!("audit.file={}", file.display());
    let watched = Watched::start(&["--set", "audit.enabled=true", "--set", &setting]);
    let mut client = Client::connect(watched.server.address).expect("it takes clients");
    assert_eq!(client.ask(&create("/a", b"")).expect("it answers").0.err, 0);
    let binding = json!({"name": "quota", "mode": "enforce", "match": ["/a/**"]});
    watched.api().install(&binding, &refuses(-125, "ten are enough"));
    let create_op = |path: &str| match create(path, b"") {
        Request::Create(new) => MultiOp::Create(new),
        other => panic!("{other:?}"),
    };
    for request in [
        create("/a/1", b""),
        create("/b/1", b""),
        Request::Multi(vec![create_op("/c"), create_op("/a/2")]),
    ] {
        client.ask(&request).expect("it answers");
    }
    watched.operate("DELETE", "/v1/plugins/other", &serde_json::Value::Null);
    watched.operate("DELETE", "/v1/plugins/quota", &serde_json::Value::Null);
    let ends = |end: &str| lines(&file).iter().any(|line| line.ends_with(end));
    wait_for("all is written down", || ends("removePlugin\tresult=success\tbinding=quota"));
    let found = lines(&file);
    for end in [
        "operation=uploadModule\tresult=success",
        "operation=stagePlugin\tresult=success\tbinding=quota",
        "operation=activatePlugin\tresult=success\tbinding=quota",
        "znode=/a/1\tznode_type=persistent\tresult=failure\tbinding=quota\treason=ten are enough",
        "znode=/b/1\tznode_type=persistent\tresult=failure\treason=NONODE",
        "operation=multiOperation\tresult=failure\tbinding=quota\treason=ten are enough",
        "operation=removePlugin\tresult=failure\tbinding=other\treason=BADARGUMENTS",
    ] {
        assert!(ends(end), "{end:?} in {found:#?}");
    }
    assert!(found.iter().any(|line| line.starts_with("user=vivarium-operator\tip=127.0.0.1")));
}

#[test]
fn what_a_directory_of_plugins_asks_for_is_written_down() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, plugins) = (dir.path().join("audit.log"), dir.path().join("plugins"));
    std::fs::create_dir(&plugins).expect("a directory");
    let settings =
        [format!("audit.file={}", file.display()), format!("plugin-dir={}", plugins.display())];
    let all = ["--set", "audit.enabled=true", "--set", &settings[0], "--set", &settings[1]];
    let _server = Server::start_with(&dir.path().join("data"), &all);
    let ends = |end: &str| lines(&file).iter().any(|line| line.ends_with(end));
    std::fs::write(plugins.join("quota.wasm"), refuses(-125, "no more")).expect("a file");
    let binding = plugins.join("quota.toml");
    let text =
        "name = \"quota\"\nmodule = \"quota.wasm\"\nmode = \"enforce\"\nmatch = [\"/a/**\"]\n";
    std::fs::write(&binding, text).expect("a file");
    wait_for("it is active", || ends("activatePlugin\tresult=success\tbinding=quota"));
    std::fs::remove_file(&binding).expect("it is there");
    wait_for("it is gone", || ends("removePlugin\tresult=success\tbinding=quota"));
    let found = lines(&file);
    let is_its = |line: &String| line.starts_with("user=plugin-dir\tip=127.0.0.1\toperation=");
    for operation in ["uploadModule", "stagePlugin", "activatePlugin", "removePlugin"] {
        let mut those = found.iter().filter(|line| line.contains(operation));
        assert!(those.all(is_its), "{operation} in {found:#?}");
        assert!(found.iter().any(|line| line.contains(operation)), "{operation} in {found:#?}");
    }
}
