//! Plugins that would take a server from its clients or from its operator.

use std::process::Command;

use bytes::Bytes;
use proto::connect::PASSWORD_BYTES;
use proto::{OpCode, Request};
use serde_json::json;

use crate::admin::plugins::refuses;
use crate::admin::{Watched, metric};
use crate::client::{Client, create};
use crate::guest;
use crate::operator::wait_for;
use crate::process::binary;

/// `vivarium plugin ...` as the operator of the server.
fn plugin(watched: &Watched, args: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.arg("plugin").args(args);
    command.args(["--server", &watched.server.address.to_string()]);
    command.arg("--data-dir").arg(watched.dir.path().join("data"));
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn ephemeral(path: &str) -> Request {
    match create(path, b"") {
        Request::Create(new) => Request::Create(proto::request::Create { flags: 1, ..new }),
        other => panic!("{other:?}"),
    }
}

fn code(client: &mut Client, request: &Request) -> i32 {
    client.ask(request).expect("the connection stays").0.err
}

fn exists(path: &str) -> Request {
    Request::Exists { path: path.to_owned(), watch: false }
}

#[test]
fn a_guard_that_denies_everything_keeps_no_session_alive_and_no_operator_out() {
    let watched = Watched::start(&[]);
    let connect = || Client::connect(watched.server.address).expect("it takes clients");
    let (mut client, mut leaves) = (connect(), connect());
    let none = Bytes::from_static(&[0; PASSWORD_BYTES]);
    // The shortest that there is.
    let (mut dies, _) =
        Client::attach(watched.server.address, 4000, 0, none).expect("it takes clients");
    assert_eq!(code(&mut client, &create("/a", b"")), 0);
    assert_eq!(code(&mut leaves, &ephemeral("/a/leaves")), 0);
    assert_eq!(code(&mut dies, &ephemeral("/a/dies")), 0);
    let binding = json!({"name": "no", "mode": "enforce", "match": ["/**"]});
    watched.api().install(&binding, &refuses(-8, "never"));

    for request in [
        create("/b", b""),
        Request::SetData { path: "/a".to_owned(), data: None, version: -1 },
        Request::Delete { path: "/a/dies".to_owned(), version: -1 },
    ] {
        assert_eq!(code(&mut client, &request), -8, "{request:?}");
    }
    // Sessions begin and end all the same, and take their ephemerals with them.
    drop(connect());
    leaves.send(&Request::CloseSession).expect("it takes it");
    leaves.receive(OpCode::CloseSession).expect("it answers");
    assert_eq!(code(&mut client, &exists("/a/leaves")), -101);
    drop(dies);
    wait_for("a session expires", || code(&mut client, &exists("/a/dies")) == -101);

    let said = plugin(&watched, &["mode", "no", "off"]);
    assert_eq!(said, "no, generation 1: off, on all servers\n");
    assert_eq!(code(&mut client, &create("/b", b"")), 0);
}

#[test]
fn an_authorizer_that_denies_everything_keeps_no_operator_out() {
    let watched = Watched::start(&[]);
    let mut client = Client::connect(watched.server.address).expect("it takes clients");
    assert_eq!(code(&mut client, &create("/a", b"")), 0);
    let denies = guest::authorizer("", "unreachable", "(i32.const 2)");
    let binding = json!({"name": "no", "mode": "enforce", "match": ["/**"]});
    watched.api().install(&binding, &denies);
    let get = |path: &str| Request::GetData { path: path.to_owned(), watch: false };
    assert_eq!(code(&mut client, &get("/a")), -102);
    assert_eq!(code(&mut client, &create("/b", b"")), -102);
    assert_eq!(code(&mut client, &get("/zookeeper/plugins/no")), 0, "that is nobody's to deny");
    let listed = plugin(&watched, &["list"]);
    assert!(listed.contains("enforce"), "{listed}");
    plugin(&watched, &["remove", "no"]);
    assert_eq!(code(&mut client, &get("/a")), 0);
}

#[test]
fn a_guard_that_always_traps_is_switched_off_by_the_servers_and_counted() {
    let watched = Watched::start(&[]);
    let api = watched.api();
    let mut client = Client::connect(watched.server.address).expect("it takes clients");
    assert_eq!(code(&mut client, &create("/a", b"")), 0);
    let fine = json!({"name": "fine", "mode": "enforce", "match": ["/a/**"], "ops": ["set"]});
    api.install(&fine, &refuses(-125, "ten are enough"));
    let traps = json!({"name": "traps", "mode": "enforce", "match": ["/a/**"], "ops": ["create"]});
    api.install(&traps, &guest::guard("", "unreachable"));
    // By default after 16 faults among its last 64 calls.
    for at in 0..16 {
        assert_eq!(code(&mut client, &create(&format!("/a/{at}"), b"")), -1, "{at}");
    }
    assert_eq!(code(&mut client, &create("/a/b", b"")), 0);
    let set = Request::SetData { path: "/a/b".to_owned(), data: None, version: -1 };
    assert_eq!(code(&mut client, &set), -125);
    let why = api.get("/v1/plugins/traps").json()["quarantine"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("16 of its last 64 calls")), "{why}");
    let status = plugin(&watched, &["status", "traps"]);
    assert!(status.contains("switched off by the servers: 16 of its last 64"), "{status}");

    let metrics = api.get("/metrics").body;
    let of = |name: &str, binding: &str| {
        metric(&metrics, &format!("vivarium_plugin_{name}{{binding=\"{binding}\"}}"))
    };
    for (name, traps, fine) in [
        ("calls_total", 16.0, 1.0),
        ("denials_total", 0.0, 1.0),
        ("faults_total", 16.0, 0.0),
        ("quarantined", 1.0, 0.0),
        ("generation", 1.0, 1.0),
        ("store_bytes", 0.0, 0.0),
        ("call_duration_seconds_count", 16.0, 1.0),
    ] {
        assert_eq!((of(name, "traps"), of(name, "fine")), (Some(traps), Some(fine)), "{name}");
    }
    let fuel = |binding| of("fuel_total", binding).expect("it is counted");
    assert!(fuel("traps") >= 16e6, "a fault takes all that it may: {metrics}");
    assert!(fuel("fine") > 0.0 && fuel("fine") < 1e6, "{metrics}");
    assert!(of("call_duration_seconds_sum", "traps").is_some_and(|sum| sum > 0.0));
    // An operator's word ends the quarantine; the plugin is as it was.
    plugin(&watched, &["mode", "traps", "warn"]);
    assert_eq!(code(&mut client, &create("/a/c", b"")), 0);
}
