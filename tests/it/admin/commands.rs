//! The commands of ZooKeeper's AdminServer, held against what a real one of 3.9.5 answered
//! (`fixtures/adminserver-3.9.5.json`: one server on its own, and the leader of three).

use serde_json::Value;

use super::Watched;
use crate::client::{Client, create};
use crate::http::get;

/// What a ZooKeeper tells and Vivarium does not: the fields of a command, dotted.
const LEFT_OUT: &[&str] = &[
    // Latencies of single connections, and sizes of answers, are not counted.
    "connections.connections[].avg_latency",
    "connections.connections[].last_latency",
    "connections.connections[].last_response_time",
    "connections.connections[].max_latency",
    "connections.connections[].min_latency",
    "server_stats.client_response",
    "server_stats.server_stats.client_response_stats",
    "stats.client_response",
    "stats.server_stats.client_response_stats",
    // Neither are these.
    "server_stats.server_stats.auth_failed_count",
    "server_stats.server_stats.fsync_threshold_exceed_count",
    "server_stats.server_stats.non_mtlslocal_conn_count",
    "server_stats.server_stats.non_mtlsremote_conn_count",
    "server_stats.server_stats.provider_null",
    "stats.server_stats.auth_failed_count",
    "stats.server_stats.fsync_threshold_exceed_count",
    "stats.server_stats.non_mtlslocal_conn_count",
    "stats.server_stats.non_mtlsremote_conn_count",
    "stats.server_stats.provider_null",
    // Of Java, and of the user.
    "environment.java.version",
    "environment.os.version",
    "environment.os.memory.free",
    "environment.os.memory.max",
    "environment.os.memory.total",
    "environment.user.home",
    // Its configuration is not ours.
    "get_trace_mask.tracemask",
    "initial_configuration.initial_configuration",
];

fn fixture() -> Value {
    let text = include_str!("../fixtures/adminserver-3.9.5.json");
    serde_json::from_str(text).expect("it is JSON")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "text",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What is different in kind, and what only one of them has.
fn compare(at: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            // Its keys are sessions, paths, or servers.
            let is_map = ["_paths", "_ids", "current_config"].iter().any(|end| at.ends_with(end));
            for (key, theirs) in theirs {
                let inner = format!("{at}.{key}");
                match ours.get(key) {
                    Some(ours) => compare(&inner, theirs, ours, found),
                    None if is_map => {}
                    None => found.push(inner),
                }
            }
            for key in ours.keys().filter(|key| !theirs.contains_key(*key) && !is_map) {
                found.push(format!("{at}.{key} is ours alone"));
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if let (Some(theirs), Some(ours)) = (theirs.first(), ours.first()) {
                compare(&format!("{at}[]"), theirs, ours, found);
            }
        }
        (theirs, ours) if kind(theirs) != kind(ours) => {
            found.push(format!("{at}: {theirs} and {ours}"));
        }
        _ => {}
    }
}

#[test]
fn commands_answer_as_those_of_a_zookeeper() {
    let watched = Watched::start(&[]);
    let mut client = Client::connect(watched.server.address).expect("it takes clients");
    client.ask(&create("/a", b"")).expect("it answers");
    let proto::Request::Create(new) = create("/e", b"1") else { panic!("it is a create") };
    client
        .ask(&proto::Request::Create(proto::request::Create { flags: 1, ..new }))
        .expect("it answers");
    let watch = proto::Request::GetData { path: "/a".to_owned(), watch: true };
    client.ask(&watch).expect("it answers");
    let fixture = fixture();
    let theirs = fixture["alone"].as_object().expect("commands");
    let mut found = Vec::new();
    for (name, theirs) in theirs {
        let ours = get(watched.admin, &format!("/commands/{name}"));
        assert_eq!(ours.status, 200, "{name}");
        let mut ours = ours.json();
        if ["get_trace_mask", "initial_configuration"].contains(&&**name) {
            assert!(
                ours["error"].as_str().is_some_and(|e| e.contains("Unknown command")),
                "{ours}"
            );
            ours["error"] = Value::Null;
        }
        if name == "monitor" {
            // Of its hundreds of gauges these are told; each as ZooKeeper tells it.
            let ours = ours.as_object().expect("fields");
            let wrong: Vec<_> = ours
                .iter()
                .filter(|(key, ours)| theirs.get(key).is_none_or(|t| kind(t) != kind(ours)))
                .collect();
            assert!(wrong.is_empty(), "{wrong:?}");
            assert!(ours.len() > 20, "{ours:?}");
            continue;
        }
        compare(name, theirs, &ours, &mut found);
    }
    found.retain(|what| {
        !LEFT_OUT.contains(&&**what) && what != "environment.vivarium.version is ours alone"
    });
    assert_eq!(found, [""; 0]);
    let session =
        get(watched.admin, "/commands/cons").json()["connections"][0]["session_id"].clone();
    let session = session.as_i64().expect("it has a session");
    let answer = |name: &str| get(watched.admin, &format!("/commands/{name}")).json();
    assert_eq!(answer("dump")["session_id_to_ephemeral_paths"][session.to_string()][0], "/e");
    assert_eq!(answer("wchp")["path_to_session_ids"]["/a"][0], session);
    assert_eq!(answer("wchc")["session_id_to_watched_paths"][session.to_string()][0], "/a");
    assert_eq!(answer("wchs")["num_total_watches"], 1);
    assert_eq!(answer("isro")["read_only"], false);
    let znodes = get(watched.admin, "/v1/status").json()["tree"]["znodes"].as_u64();
    // ZooKeeper counts the root twice.
    assert_eq!(answer("srvr")["node_count"].as_u64(), znodes.map(|znodes| znodes + 1));
    assert_eq!(answer("leader")["error"], "server is not initialized");
    assert_eq!(answer("srst")["error"], Value::Null);
    assert_eq!(answer("mntr")["packets_received"], 0);
    let listed = get(watched.admin, "/commands").body;
    assert!(listed.contains("<a href=\"/commands/monitor\">monitor</a>"), "{listed}");
}

/// The same of a leader, as `ensemble.rs` has one.
pub(super) fn compare_leader(name: &str, ours: &Value) {
    let theirs = &fixture()["leader"][name];
    let mut found = Vec::new();
    compare(name, theirs, ours, &mut found);
    // What learners sent and got is not counted.
    found.retain(|what| !what.starts_with("observers.observers[]."));
    assert_eq!(found, [""; 0]);
}
