//! The admin API of real servers: that it is what its document says, who may do what, and that its
//! answers are right.

mod commands;
mod described;
mod ensemble;
pub(crate) mod plugins;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::client::{Client, create};
use crate::http::{self, Answer, get};
use crate::operator::wait_for;
use crate::process::{Server, free_address, refused};

/// A server with an admin API.
pub(crate) struct Watched {
    pub(crate) server: Server,
    pub(crate) admin: SocketAddr,
    pub(crate) dir: tempfile::TempDir,
}

impl Watched {
    pub(crate) fn start(more: &[&str]) -> Self {
        let (dir, admin) = (tempfile::tempdir().expect("a directory"), free_address());
        let listen = format!("admin.listen={admin}");
        let all = [&["--set", &listen], more].concat();
        let server = Server::start_with(&dir.path().join("data"), &all);
        let token = dir.path().join("data/operator.token");
        // It takes connections before it has its data.
        wait_for("there is a token", || token.exists());
        Self { server, admin, dir }
    }

    /// Its admin API, as an operator has it.
    pub(crate) fn api(&self) -> Api {
        Api { admin: self.admin, token: self.dir.path().join("data/operator.token") }
    }

    /// The header of an operator.
    pub(crate) fn operator(&self) -> String {
        self.api().operator()
    }

    /// What an operator is answered.
    pub(crate) fn operate(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.api().operate(method, path, body)
    }
}

/// A server's admin API, and the token for it.
pub(crate) struct Api {
    pub(crate) admin: SocketAddr,
    pub(crate) token: PathBuf,
}

impl Api {
    /// The header of an operator.
    pub(crate) fn operator(&self) -> String {
        token_header(&self.token)
    }

    /// What an operator is answered.
    pub(crate) fn operate(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::ask(self.admin, method, path, &[&self.operator()], &body).expect("it answers")
    }

    /// What a path shows.
    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.admin, path)
    }
}

fn token_header(file: &Path) -> String {
    let token = std::fs::read_to_string(file).expect("there is a token");
    format!("Authorization: Bearer {}", token.trim())
}

/// What was said by a server that refused to start.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A metric's value, by its name with its labels.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

#[test]
fn who_has_proven_nothing_may_look_from_here_and_change_nothing() {
    let watched = Watched::start(&[]);
    let ask = |method: &str, path: &str, head: &[&str]| {
        http::ask(watched.admin, method, path, head, "{}").expect("it answers")
    };
    assert_eq!(ask("GET", "/v1/settings", &[]).status, 200);
    // A page in a browser on this machine, whose name leads here.
    let page = "Host: evil.example:8080";
    assert_eq!(ask("GET", "/v1/settings", &[page]).status, 401);
    assert_eq!(ask("GET", "/livez", &[page]).status, 200);
    for path in ["/v1/settings", "/v1/members/2/promote"] {
        let method = if path.ends_with("settings") { "PATCH" } else { "POST" };
        let answer = ask(method, path, &[]);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
        assert!(answer.error().contains("operator.token"), "{answer:?}");
    }
    let operator = watched.operator();
    for wrong in
        ["Authorization: Bearer 00", "Authorization: Basic eA==", &operator[..operator.len() - 1]]
    {
        for method in ["GET", "PATCH"] {
            assert_eq!(ask(method, "/v1/settings", &[wrong]).status, 401, "{wrong}");
        }
    }
    assert_eq!(ask("GET", "/v1/settings", &[page, &operator]).status, 200);
    assert_eq!(watched.operate("GET", "/v1/settings", &json!({})).json()["ttl-nodes"], "true");
    let changed = watched.operate("PATCH", "/v1/settings", &json!({"ttl-nodes": "false"})).json();
    assert_eq!(
        (&changed["before"]["ttl-nodes"], &changed["after"]["ttl-nodes"]),
        (&json!("true"), &json!("false"))
    );
    assert_eq!(get(watched.admin, "/v1/settings").json()["ttl-nodes"], "false");
}

#[test]
fn a_token_of_a_file_lasts_and_may_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").expect("it can be written");
    let setting = format!("admin.token-file={}", file.display());
    let watched = Watched::start(&["--set", &setting]);
    let change = |header: &str| {
        let body = json!({"skip-acl": "false"}).to_string();
        http::ask(watched.admin, "PATCH", "/v1/settings", &[header], &body)
            .expect("it answers")
            .status
    };
    let first = token_header(&file);
    assert_eq!(change(&first), 200);
    std::fs::write(&file, "another one, which is long enough!\n").expect("it can be written");
    assert_eq!((change(&first), change(&token_header(&file))), (401, 200));
    // Whatever happens to the file, nobody gets in with less.
    std::fs::write(&file, "\n").expect("it can be written");
    assert_eq!((change("Authorization: Bearer "), change(&watched.operator())), (401, 200));

    std::fs::write(&file, "short").expect("it can be written");
    let output = refused(dir.path(), free_address(), &["--set", &setting]);
    assert!(said(&output).contains("at least 32 bytes, got one of 5"), "{}", said(&output));
}

#[test]
fn a_port_that_is_taken_is_told() {
    let watched = Watched::start(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let listen = format!("admin.listen={}", watched.admin);
    let output = refused(&dir.path().join("data"), free_address(), &["--set", &listen]);
    assert!(said(&output).contains("(`admin.listen`)"), "{}", said(&output));
    assert!(!dir.path().join("data").exists(), "it leaves no trace");
}

#[test]
fn what_is_no_request_is_answered_in_words() {
    let watched = Watched::start(&[]);
    let operate = |method: &str, path: &str, body: &str| {
        let operator = watched.operator();
        http::ask(watched.admin, method, path, &[&operator], body).expect("it answers")
    };
    let long = "x".repeat(100_000);
    for (method, path, body, status, why) in [
        ("GET", "/nothing", "", 404, "openapi.json"),
        ("POST", "/v1/settings", "", 405, "does not take that method"),
        ("PATCH", "/v1/settings", "{", 400, "EOF"),
        ("PATCH", "/v1/settings", &long, 413, "length limit"),
        ("PATCH", "/v1/settings", "{\"ttl-nodes\": 7}", 400, "a string"),
        ("PATCH", "/v1/settings", "{\"tll-nodes\": \"true\"}", 422, "did you mean ttl-nodes?"),
        ("PATCH", "/v1/settings", "{}", 422, "at least one"),
        ("POST", "/v1/members", "{\"id\": 2}", 400, "missing field `peer`"),
        ("POST", "/v1/members", "{\"id\": 2, \"peer\": [\"x\"], \"client\": \"y:1\"}", 400, "x"),
        ("DELETE", "/v1/members/two", "", 400, "a server's id"),
        ("DELETE", "/v1/members/7", "", 422, "expected one of the servers"),
    ] {
        let answer = operate(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.error().contains(why), "{method} {path}: {answer:?}");
    }
    assert_eq!(get(watched.admin, "/v1/settings").json()["ttl-nodes"], "true");
}

#[test]
fn metrics_count_what_clients_did() {
    let watched = Watched::start(&[]);
    let born = metric(&get(watched.admin, "/metrics").body, "vivarium_znodes").expect("a count");
    let mut client = Client::connect(watched.server.address).expect("it takes clients");
    for at in 0..7 {
        assert_eq!(client.ask(&create(&format!("/n{at}"), b"x")).expect("it answers").0.err, 0);
    }
    // Sent in one piece: each is counted as what it is all the same.
    let get_data = proto::Request::GetData { path: "/n0".to_owned(), watch: true };
    for _ in 0..5 {
        client.send(&get_data).expect("it takes it");
        client.send(&proto::Request::Ping).expect("it takes it");
    }
    for _ in 0..5 {
        client.receive(proto::OpCode::GetData).expect("it answers");
        client.receive(proto::OpCode::Ping).expect("it answers");
    }
    let text = || {
        let answer = get(watched.admin, "/metrics");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        answer.body
    };
    let count = |text: &str, op: &str| {
        metric(text, &format!("vivarium_request_duration_seconds_count{{op=\"{op}\"}}"))
    };
    wait_for("all are counted", || count(&text(), "ping") == Some(5.0));
    let text = text();
    for (op, expected) in [("create", 7.0), ("getData", 5.0), ("connect", 1.0), ("delete", 0.0)] {
        assert_eq!(count(&text, op), Some(expected), "{op}: {text}");
    }
    let value = |name: &str| metric(&text, name).unwrap_or_else(|| panic!("no {name}: {text}"));
    assert_eq!(value("vivarium_watches"), 1.0);
    assert_eq!(value("vivarium_connections"), 1.0);
    assert_eq!(value("vivarium_znodes"), born + 7.0);
    assert_eq!(value("vivarium_ready"), 1.0);
    assert_eq!(value("vivarium_packets_received_total"), 18.0);
    for histogram in ["fsync", "apply", "proposal"] {
        let count = value(&format!("vivarium_{histogram}_duration_seconds_count"));
        let last = value(&format!("vivarium_{histogram}_duration_seconds_bucket{{le=\"+Inf\"}}"));
        let sum = value(&format!("vivarium_{histogram}_duration_seconds_sum"));
        assert!(count >= 7.0 && last == count && sum > 0.0, "{histogram}: {text}");
    }
    assert!(
        value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") > 0.0
    );
    let named = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for name in named.filter_map(|line| line.split(' ').next()) {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
}

#[test]
fn it_is_alive_and_not_ready_while_it_has_no_data() {
    // One of two founders: the other one does not come.
    let (dir, admin, mine) =
        (tempfile::tempdir().expect("a directory"), free_address(), free_address());
    let config = dir.path().join("vivarium.toml");
    let servers: String = [mine, free_address()]
        .iter()
        .enumerate()
        .map(|(at, peer)| format!("[[ensemble.servers]]\nid = {}\npeer = [\"{peer}\"]\n", at + 1))
        .collect();
    let text = format!("[admin]\nlisten = \"{admin}\"\n{servers}");
    std::fs::write(&config, text).expect("it can be written");
    let config = config.to_string_lossy().into_owned();
    let data = dir.path().join("data");
    let _server = Server::start_at(&data, free_address(), &["--config", &config], Stdio::null());
    let ask = |path: &str| http::ask(admin, "GET", path, &[], "");
    wait_for("it lives", || ask("/livez").is_ok_and(|answer| answer.status == 200));
    let ready = ask("/readyz").expect("it answers");
    assert_eq!((ready.status, &ready.json()["ok"]), (503, &json!(false)));
    assert!(ready.body.contains("waits for others"), "{ready:?}");
    assert_eq!(ask("/v1/status").expect("it answers").status, 503);
}
