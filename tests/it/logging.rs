//! What the server says in its log.

use proto::{OpCode, Request};
use serde_json::Value;

use crate::client::{Client, create};
use crate::process::Server;

#[test]
fn slow_requests_are_named_in_json() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log.json");
    let file = std::fs::File::create(&log).expect("a file");
    let more = ["--set", "logging.format=json", "--set", "logging.slow-request-warn-ms=1"];
    let server = Server::start_logging(&dir.path().join("data"), &more, file);
    let mut client = Client::connect(server.address).expect("it serves");
    assert_eq!(client.ask(&create("/slow", b"")).expect("an answer").0.err, 0);
    let set = Request::SetData {
        path: "/slow".to_owned(),
        data: Some(vec![b'x'; 400_000].into()),
        version: -1,
    };
    for _ in 0..50 {
        client.send(&set).expect("it takes requests");
    }
    for _ in 0..50 {
        assert_eq!(client.receive(OpCode::SetData).expect("an answer").0.err, 0);
    }
    server.terminate();
    let text = std::fs::read_to_string(&log).expect("a log");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let says = |line: &Value, text: &str| line["fields"]["message"] == text;
    assert!(lines.iter().any(|line| says(line, "vivarium is serving")), "{text}");
    let slow =
        lines.iter().find(|line| says(line, "a slow request") && line["fields"]["op"] == "setData");
    let fields = &slow.unwrap_or_else(|| panic!("no slow request is named: {text}"))["fields"];
    assert_eq!(fields["path"], "/slow");
    assert!(fields["took_ms"].as_u64().is_some_and(|ms| ms >= 1), "{fields}");
    assert!(fields["session"].as_str().is_some_and(|id| id.starts_with("0x")), "{fields}");
}
