//! Plugins that mean no good, on three servers: each gets what `host/plugin/FAULTS.md` says, on all of them alike,
//! and whoever has nothing to do with them notices nothing.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::{ErrorCode, Request};

use crate::client::{Client, create};
use crate::ensemble::{Ensemble, SERVERS, done, set};
use crate::guest::{guard, guard_module};
use crate::plugins::{plugin, refusal, said};

/// Nobody waits longer for a write of their own while plugins misbehave; servers share the machine with
/// other tests.
const WAITS_MAX: Duration = Duration::from_secs(5);

/// What they do, and the fault that it is.
fn faulty() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let recurses = "(func $again (param i32) (result i32)
        (i32.add (i32.const 1) (call $again (local.get 0))))";
    let grows =
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";
    let tables = "(loop (br_if 0 (i32.ne
        (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) (unreachable)";
    let much = "(drop (memory.grow (i32.const 32)))
        (call $deny (i32.const -102) (i32.const 0) (i32.const 1500000))";
    let no_text = "(i32.store (i32.const 2048) (i32.const 0xfffefdfc))
        (call $deny (i32.const -102) (i32.const 2048) (i32.const 4))";
    let calls = "(loop (drop (call $time-ms)) (br 0)) (unreachable)";
    let reads = "(call $tree-get (i32.const 2048) (i32.const 7) (i32.const 3072)) (call $allow)";
    vec![
        ("spins", guard("", "(loop (br 0)) (unreachable)"), "out of fuel"),
        ("recurses", guard(recurses, "(call $again (i32.const 0))"), "out of fuel"),
        ("grows", guard("", grows), "out of memory"),
        ("tables", guard("(table $t 1 funcref)", tables), "out of memory"),
        ("panics", guard("", "(unreachable)"), "trap"),
        ("returns-much", guard("", much), "bad return"),
        ("returns-no-text", guard("", no_text), "bad return"),
        ("calls", guard("", calls), "over a limit"),
        ("reads", guard(r#"(data (i32.const 2048) "/secret")"#, reads), "not granted"),
    ]
}

/// Files that are no plugins, and what is said of them.
fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = guard("", "(call $allow)");
    let foreign = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#;
    let locals: String = (0..1200).map(|n| format!("(local $v{n} i64)")).collect();
    let frame = guard_module(&format!("(func $big {locals})"), "(call $big) (call $allow)");
    vec![
        ("truncated", whole[..whole.len() / 2].to_vec(), "not valid"),
        ("foreign", wat::parse_str(foreign).expect("valid text"), "wasi:clocks/wall-clock@0.2.0"),
        ("frame", crate::guest::component(&["guarding"], &frame), "8192"),
        ("enormous", vec![0; 100 << 20], "104857600 bytes"),
    ]
}

/// Tells others to stop when it goes, also by a panic.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn binding(dir: &Path, name: &str, module: &[u8]) -> String {
    fs::write(dir.join(format!("{name}.wasm")), module).expect("a file");
    let text = format!(
        "name = \"{name}\"\nmodule = \"{name}.wasm\"\nmode = \"enforce\"\nmatch = [\"/{name}/**\"]\n"
    );
    let file = dir.join(format!("{name}.toml"));
    fs::write(&file, text).expect("a file");
    file.to_str().expect("text").to_owned()
}

#[test]
fn each_gets_its_outcome_and_nobody_else_notices() {
    let ensemble = Ensemble::start();
    let dir = tempfile::tempdir().expect("a directory");
    let mut clients: Vec<Client> = (0..SERVERS).map(|at| ensemble.connect(at)).collect();
    done(&mut clients[0], &create("/bystander", b""));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut bystander = ensemble.connect(1);
        let stop = &stop;
        let waits = scope.spawn(move || {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                done(&mut bystander, &set("/bystander", "x"));
                longest = longest.max(began.elapsed());
            }
            longest
        });
        let stops = Stops(stop);
        let hostile = faulty();
        for (name, module, _) in &hostile {
            let installed =
                said(plugin(&ensemble, 0, &["install", &binding(dir.path(), name, module)]));
            assert!(installed.contains("enforce, on all servers"), "{installed}");
            done(&mut clients[0], &create(&format!("/{name}"), b""));
        }
        for (at, client) in clients.iter_mut().enumerate() {
            for (name, ..) in &hostile {
                let request = create(&format!("/{name}/{at}"), b"x");
                let code = client.ask(&request).expect("the connection stays").0.err;
                assert_eq!(code, ErrorCode::SystemError.code(), "{name}, by server {at}");
            }
        }
        let last = create("/last", b"");
        done(&mut clients[0], &last);
        for (name, _, fault) in &hostile {
            let logs: Vec<String> = (0..SERVERS)
                .map(|at| {
                    done(&mut clients[at], &Request::Sync { path: "/last".to_owned() });
                    said(plugin(&ensemble, at, &["log", name, "--json"]))
                })
                .collect();
            let faults: Vec<serde_json::Value> =
                logs[0].lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            assert_eq!(faults.len(), SERVERS, "{name}: {}", logs[0]);
            for fault_of in &faults {
                assert_eq!(fault_of["said"], format!("fault {fault}"), "{name}: {fault_of}");
                assert_eq!(fault_of["effect"], "refused", "{name}: {fault_of}");
            }
            let essence = |log: &String| -> Vec<String> {
                let of = |line: &str| {
                    let said: serde_json::Value = serde_json::from_str(line).expect("JSON");
                    format!("{} {} {}", said["zxid"], said["path"], said["said"])
                };
                log.lines().map(of).collect()
            };
            let all: Vec<_> = logs.iter().map(essence).collect();
            assert!(all.iter().all(|one| *one == all[0]), "{name}: {all:?}");
        }
        for (name, module, expected) in refused() {
            let why =
                refusal(plugin(&ensemble, 0, &["install", &binding(dir.path(), name, &module)]));
            assert!(why.contains(expected), "{name}: {why}");
        }
        drop(stops);
        let longest = waits.join().expect("its writes are answered");
        println!("the bystander waited {longest:?} at most");
        assert!(longest < WAITS_MAX, "the bystander waited {longest:?}");
    });
    // Their states are the same still: none is healed, none is taken out.
    std::thread::sleep(Duration::from_secs(3));
    done(&mut clients[0], &set("/bystander", "y"));
    for at in 0..SERVERS {
        let log = ensemble.log(at);
        for word in ["is not what the log makes of it", "panicked", "states differ"] {
            assert!(!log.contains(word), "server {at}: {log}");
        }
    }
}
