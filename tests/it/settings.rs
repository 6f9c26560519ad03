//! `vivarium settings` against a real server: who may, what is refused, and what stays.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::process::{Server, binary, free_address};

const DIGEST: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

fn run(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["settings", "--server"]).arg(server.address.to_string()).args(args);
    command.output().expect("it can be started")
}

/// Runs it as an operator on the server's machine.
fn operator(server: &Server, dir: &Path, args: &[&str]) -> Output {
    let dir = dir.to_string_lossy();
    run(server, &[&["--data-dir", &dir], args].concat())
}

fn stdout(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it failed: {error}");
    String::from_utf8(output.stdout).expect("text")
}

fn refusal(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "it did not fail");
    assert!(output.stdout.is_empty(), "a refusal stands on standard error");
    String::from_utf8(output.stderr).expect("text")
}

fn shell(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["shell", "--server"]).arg(server.address.to_string()).args(args);
    command.output().expect("it can be started")
}

#[test]
fn a_change_is_shown_takes_effect_and_survives_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let shown = stdout(operator(&server, dir.path(), &[]));
    let born = "apply-version = 2\nenforce-quota = false\nskip-acl = false\nsuper-digest = none\n\
                ttl-nodes = true\n";
    let others: String = shown
        .lines()
        .filter(|line| !line.starts_with("plugin-"))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(others, born);
    assert!(shown.contains("plugin-grants = none\n"), "{shown}");
    assert!(shown.contains("plugin-reads = 64\n"), "{shown}");
    assert!(shell(&server, &["create", "-t", "60000", "/ttl"]).status.success());

    let changed = stdout(operator(&server, dir.path(), &["set", "ttl-nodes=false"]));
    assert!(changed.contains("ttl-nodes = false (was true)\n"), "{changed}");
    assert!(changed.contains("skip-acl = false\n"), "{changed}");
    assert!(!shell(&server, &["create", "-t", "60000", "/ttl2"]).status.success());

    let address = server.address;
    server.kill();
    let server = Server::start_at(dir.path(), address, &[], Stdio::null());
    let shown = stdout(operator(&server, dir.path(), &["--json", "show"]));
    assert!(shown.contains(r#""ttl-nodes":"false""#), "{shown}");
    assert!(!shell(&server, &["create", "-t", "60000", "/ttl2"]).status.success());
}

#[test]
fn what_is_wrong_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    for (pairs, expected) in [
        (&["skip-acl=true", "tll-nodes=false"][..], "did you mean ttl-nodes?"),
        (&["skip-acl=perhaps"], "expected true or false, got \"perhaps\""),
        (&["super-digest=super:password"], "user:base64(hash(user:password))"),
        (&["skip-acl"], "expected KEY=VALUE"),
        (&["skip-acl=true", "skip-acl=false"], "given twice"),
    ] {
        let why = refusal(operator(&server, dir.path(), &[&["set"], pairs].concat()));
        assert!(why.contains(expected), "{pairs:?}: {why}");
        assert!(!why.contains("super:password"), "a password is repeated: {why}");
    }
    let shown = stdout(operator(&server, dir.path(), &["show"]));
    assert!(shown.contains("skip-acl = false\n"), "a refused change had an effect: {shown}");
}

#[test]
fn only_operators_are_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    // It is there when the server answers.
    stdout(operator(&server, dir.path(), &["show"]));
    let token = dir.path().join("operator.token");
    let mode = std::fs::metadata(&token).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let elsewhere = tempfile::tempdir().expect("a directory");
    let why = refusal(operator(&server, elsewhere.path(), &["show"]));
    assert!(why.contains("--data-dir") && why.contains("--auth digest:super"), "{why}");
    let why = refusal(run(&server, &["--auth", "digest:somebody:else", "show"]));
    assert!(why.contains("refuses"), "{why}");
    std::fs::write(elsewhere.path().join("operator.token"), "0".repeat(64)).expect("a file");
    let why = refusal(operator(&server, elsewhere.path(), &["show"]));
    assert!(why.contains("does not take the operator's token"), "{why}");

    // The token of an earlier start is worth nothing.
    let old = std::fs::read(&token).expect("it is there");
    let address = server.address;
    server.kill();
    let server = Server::start_at(dir.path(), address, &[], Stdio::null());
    stdout(operator(&server, dir.path(), &["show"]));
    assert_ne!(std::fs::read(&token).expect("it is there"), old);
    std::fs::write(elsewhere.path().join("operator.token"), old).expect("a file");
    refusal(operator(&server, elsewhere.path(), &["show"]));
    stdout(operator(&server, dir.path(), &["show"]));
}

#[test]
fn the_super_digest_is_the_clusters() {
    let dir = tempfile::tempdir().expect("a directory");
    let address = free_address();
    let seeded = ["--set", &format!("auth.super-digest={DIGEST}")];
    let server = Server::start_at(dir.path(), address, &seeded, Stdio::null());
    let me = ["--auth", "digest:super:test"];
    let may = |server: &Server| run(server, &[&me[..], &["show"]].concat()).status.success();
    assert!(may(&server), "the configuration seeds it");
    assert!(shell(&server, &["create", "/mine", "x", "digest:u:h:r"]).status.success());
    assert!(!shell(&server, &["get", "/mine"]).status.success());
    assert!(shell(&server, &[&me[..], &["get", "/mine"]].concat()).status.success());

    stdout(operator(&server, dir.path(), &["set", "super-digest=none"]));
    assert!(!may(&server), "a change holds at once");
    server.kill();
    let server = Server::start_at(dir.path(), address, &seeded, Stdio::null());
    assert!(!may(&server), "the configuration is only the seed");
    let changed =
        stdout(operator(&server, dir.path(), &["set", &format!("super-digest={DIGEST}")]));
    assert!(changed.contains("super-digest = super:D/In... (was none)\n"), "{changed}");
    assert!(may(&server), "a change holds at once");
}
