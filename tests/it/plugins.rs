//! Plugins as an operator has them: three servers, real modules, the command line, a watched directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use proto::{ErrorCode, MultiOp, Request};

use crate::client::{Client, create};
use crate::ensemble::{Ensemble, PATIENCE, SERVERS, done, set};
use crate::process::binary;

/// The component of a plugin of this repository, built once.
fn component(name: &str) -> PathBuf {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = BUILT.get_or_init(|| tempfile::tempdir().expect("a directory"));
    let out = dir.path().join(format!("{name}.wasm"));
    if !out.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(name);
        let mut build = Command::new(binary());
        build.args(["plugin", "build"]).arg(source).arg("--out").arg(&out);
        let built = build.output().expect("it can be started");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    out
}

/// `vivarium plugin ...` as the operator of one of the servers.
pub(crate) fn plugin(ensemble: &Ensemble, at: usize, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("plugin").args(args);
    command.args(["--server", &ensemble.clients[at].to_string()]);
    command.arg("--data-dir").arg(ensemble.data(at));
    command.output().expect("it can be started")
}

pub(crate) fn said(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it failed: {error}");
    String::from_utf8(output.stdout).expect("text")
}

pub(crate) fn refusal(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "it did not fail");
    String::from_utf8(output.stderr).expect("text")
}

/// A binding of `tenant-quota`, with its module beside it.
fn quota(dir: &Path, max_nodes: u32, more: &str) -> PathBuf {
    let module = dir.join("tenant_quota.wasm");
    if !module.exists() {
        std::fs::copy(component("tenant-quota"), &module).expect("it was built");
    }
    let text = format!(
        "name = \"tenant-quota\"\nmodule = \"tenant_quota.wasm\"\nmode = \"enforce\"\n\
         match = [\"/tenants/**\"]\nops = [\"create\", \"set\", \"delete\"]\n{more}\n\
         [settings]\nmax-nodes = {max_nodes}\n"
    );
    let file = dir.join("tenant-quota.toml");
    let new = dir.join(".new");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &file)).expect("a file");
    file
}

/// The code of a create's answer.
fn creates(client: &mut Client, path: &str) -> i32 {
    client.ask(&create(path, b"x")).expect("the connection stays").0.err
}

/// Waits until something holds.
pub(crate) fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what} takes longer than {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A client of a server that was just started.
fn reconnect(ensemble: &Ensemble, at: usize) -> Client {
    let mut client = None;
    wait("its start", || {
        client = Client::connect(ensemble.clients[at]).ok();
        client.is_some()
    });
    client.expect("it is connected")
}

const REFUSED: i32 = -125;

#[test]
fn a_quota_is_installed_holds_everywhere_and_is_rolled_back() {
    let mut ensemble = Ensemble::start();
    let dir = tempfile::tempdir().expect("a directory");
    let mut clients: Vec<Client> = (0..SERVERS).map(|at| ensemble.connect(at)).collect();
    // There is a tree before there is a plugin.
    for path in ["/tenants", "/tenants/a", "/tenants/a/1", "/tenants/a/2", "/tenants/b"] {
        done(&mut clients[0], &create(path, b""));
    }
    let file = quota(dir.path(), 4, "");
    let file = file.to_str().expect("text");
    let installed = said(plugin(&ensemble, 0, &["install", file]));
    assert_eq!(installed, "tenant-quota, generation 1: enforce, on all servers\n");

    // It has counted what was there, and decides on every server.
    assert_eq!(creates(&mut clients[1], "/tenants/a/3"), 0);
    for client in &mut clients {
        assert_eq!(creates(client, "/tenants/a/4"), REFUSED);
        assert_eq!(creates(client, "/elsewhere-not-there/x"), ErrorCode::NoNode.code());
    }
    // A multi counts as a whole, and what it refused is not counted.
    let ops = ["/tenants/b/1", "/tenants/a/4"].map(|path| match create(path, b"") {
        Request::Create(create) => MultiOp::Create(create),
        other => panic!("{other:?}"),
    });
    let (_, reply) = clients[2].ask(&Request::Multi(ops.to_vec())).expect("the connection stays");
    let said_of = format!("{reply:?}");
    assert!(said_of.contains("-125"), "{said_of}");
    for at in 1..=3 {
        assert_eq!(creates(&mut clients[2], &format!("/tenants/b/{at}")), 0);
    }
    assert_eq!(creates(&mut clients[2], "/tenants/b/4"), REFUSED);
    done(&mut clients[0], &Request::Delete { path: "/tenants/b/1".into(), version: -1 });
    assert_eq!(creates(&mut clients[1], "/tenants/b/4"), 0);

    // Another limit, then back, then nothing but a warning.
    let file = quota(dir.path(), 5, "");
    said(plugin(&ensemble, 1, &["install", file.to_str().expect("text")]));
    assert_eq!(creates(&mut clients[2], "/tenants/a/4"), 0);
    let back = said(plugin(&ensemble, 2, &["rollback", "tenant-quota"]));
    assert_eq!(back, "tenant-quota: back to generation 1, on all servers\n");
    done(&mut clients[0], &Request::Delete { path: "/tenants/a/4".into(), version: -1 });
    for client in &mut clients {
        assert_eq!(creates(client, "/tenants/a/4"), REFUSED);
    }
    let log = said(plugin(&ensemble, 1, &["log", "tenant-quota", "--path", "/tenants/a/4"]));
    assert!(log.contains("deny -125, refused"), "{log}");
    let explained = said(plugin(&ensemble, 0, &["explain", "/tenants/a/4", "create"]));
    assert!(
        explained.starts_with("1. guard tenant-quota (enforce), by /tenants/**"),
        "{explained}"
    );
    said(plugin(&ensemble, 0, &["mode", "tenant-quota", "warn"]));
    assert_eq!(creates(&mut clients[1], "/tenants/a/4"), 0);
    said(plugin(&ensemble, 0, &["mode", "tenant-quota", "enforce"]));

    // It outlives its servers.
    for at in 0..SERVERS {
        ensemble.kill(at);
        ensemble.start_one(at);
        assert_eq!(creates(&mut reconnect(&ensemble, at), "/tenants/a/5"), REFUSED);
    }
    let listed = said(plugin(&ensemble, 2, &["list"]));
    assert!(listed.contains("tenant-quota") && listed.contains("enforce"), "{listed}");
    said(plugin(&ensemble, 0, &["remove", "tenant-quota"]));
    assert_eq!(creates(&mut ensemble.connect(1), "/tenants/a/5"), 0);
    assert_eq!(said(plugin(&ensemble, 2, &["list", "--json"])), "[]\n");
}

#[test]
fn in_the_shadow_a_guard_is_asked_beside_the_writes() {
    let ensemble = Ensemble::start();
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::copy(component("size-limit-c"), dir.path().join("guard.wasm")).expect("it was built");
    let file = dir.path().join("guard.toml");
    let text = "name = \"size\"\nmodule = \"guard.wasm\"\nmode = \"shadow\"\nmatch = [\"/**\"]\n\
                [settings]\nmax-bytes = 4\n";
    std::fs::write(&file, text).expect("a file");
    let installed = said(plugin(&ensemble, 1, &["install", file.to_str().expect("text")]));
    assert!(installed.contains("generation 1: shadow"), "{installed}");
    let mut client = ensemble.connect(0);
    done(&mut client, &create("/n", b""));
    done(&mut client, &set("/n", "longer"));
    done(&mut client, &set("/n", "four"));
    for at in 0..SERVERS {
        let mut log = String::new();
        wait("its word", || {
            log = said(plugin(&ensemble, at, &["log", "size"]));
            !log.is_empty()
        });
        assert!(log.contains("deny -8, shadow"), "{log}");
        assert_eq!(log.matches("deny").count(), 1, "{log}");
    }
    said(plugin(&ensemble, 2, &["mode", "size", "enforce"]));
    let refused = client.ask(&set("/n", "longer")).expect("the connection stays").0.err;
    assert_eq!(refused, ErrorCode::BadArguments.code());
}

#[test]
fn what_is_wrong_with_a_binding_is_said_and_changes_nothing() {
    let ensemble = Ensemble::start();
    let dir = tempfile::tempdir().expect("a directory");
    let path = |file: &Path| file.to_str().expect("text").to_owned();
    for (more, expected) in [
        ("on-falt = \"deny\"", "unknown field `on-falt`"),
        ("reads = [\"limits\"]", "limits"),
        ("schemes = [\"digest\"]", "built in"),
        ("schemes = [\"token\"]", "exports no authorizer"),
        ("points = [\"authorizer\"]", "exports no authorizer"),
    ] {
        let file = quota(dir.path(), 4, more);
        let why = refusal(plugin(&ensemble, 0, &["install", &path(&file)]));
        assert!(why.contains(expected), "{more}: {why}");
    }
    // Settings that the plugin does not take.
    let file = quota(dir.path(), 4, "");
    let text = std::fs::read_to_string(&file).expect("it is there");
    let wrong = text.replace("max-nodes", "max-notes");
    std::fs::write(&file, wrong).expect("a file");
    let why = refusal(plugin(&ensemble, 0, &["install", &path(&file)]));
    assert!(why.contains("max-notes") && why.contains("nothing was changed"), "{why}");
    // Modules that are none.
    let module = dir.path().join("tenant_quota.wasm");
    let good = std::fs::read(&module).expect("it is there");
    for (bytes, expected) in [
        (&good[..good.len() / 2], "not valid"),
        (b"\0asm\x01\0\0\0", "core module"),
        (b"#!/bin/sh\n", "not valid"),
        (&vec![0; 5 << 20][..], "expected 1 to 4194304"),
    ] {
        std::fs::write(&module, bytes).expect("a file");
        std::fs::write(&file, &text).expect("a file");
        let why = refusal(plugin(&ensemble, 0, &["install", &path(&file)]));
        assert!(why.contains(expected), "{expected}: {why}");
    }
    let listed = said(plugin(&ensemble, 0, &["status"]));
    assert!(!listed.contains("active: generation"), "{listed}");
    let why = refusal(plugin(&ensemble, 1, &["mode", "none", "off"]));
    assert!(why.contains("there is no binding \"none\""), "{why}");
    assert_eq!(creates(&mut ensemble.connect(0), "/tenants"), 0);
}

#[test]
fn a_directory_is_watched_and_old_files_undo_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut ensemble =
        Ensemble::start_with(&format!("plugin-dir = {:?}\n", dir.path().to_string_lossy()));
    let mut client = ensemble.connect(0);
    for path in ["/tenants", "/tenants/a"] {
        done(&mut client, &create(path, b""));
    }
    let generation = |ensemble: &Ensemble, at: usize| {
        let shown = said(plugin(ensemble, at, &["status"]));
        let active = shown.lines().find_map(|line| line.trim().strip_prefix("active: generation "));
        active.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok())
    };
    let file = quota(dir.path(), 2, "");
    wait("the first version", || generation(&ensemble, 1) == Some(1));
    wait("its counting", || said(plugin(&ensemble, 1, &["list"])).contains(" active"));
    assert_eq!(creates(&mut client, "/tenants/a/1"), 0);
    assert_eq!(creates(&mut client, "/tenants/a/2"), REFUSED);
    quota(dir.path(), 3, "");
    wait("the second version", || generation(&ensemble, 2) == Some(2));
    assert_eq!(creates(&mut client, "/tenants/a/2"), 0);

    // A mistake changes nothing, and is told.
    let text = std::fs::read_to_string(&file).expect("it is there");
    std::fs::write(&file, text.replace("mode =", "mood =")).expect("a file");
    wait("the server's word", || ensemble.log(0).contains("unknown field `mood`"));
    assert_eq!(generation(&ensemble, 0), Some(2));
    std::fs::write(&file, &text).expect("a file");

    // Rolled back, it stays so, whoever starts again with the same files.
    said(plugin(&ensemble, 0, &["rollback", "tenant-quota"]));
    for at in 0..SERVERS {
        ensemble.kill(at);
        ensemble.start_one(at);
        reconnect(&ensemble, at);
    }
    let mut client = ensemble.connect(1);
    wait("the servers' word", || {
        (0..SERVERS).all(|at| ensemble.log(at).contains("is older than what is called"))
    });
    assert_eq!(generation(&ensemble, 1), Some(1));
    assert_eq!(creates(&mut client, "/tenants/a/3"), REFUSED);

    // New content is taken; when its file goes, the binding goes.
    quota(dir.path(), 9, "");
    wait("the third version", || generation(&ensemble, 2) == Some(3));
    std::fs::remove_file(&file).expect("it is there");
    wait("the removal", || said(plugin(&ensemble, 2, &["list", "--json"])) == "[]\n");
    for at in 3..20 {
        assert_eq!(creates(&mut client, &format!("/tenants/a/{at}")), 0);
    }
    done(&mut client, &set("/tenants/a", "x"));
}
