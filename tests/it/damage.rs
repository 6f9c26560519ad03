//! Files of a server that does not run are cut short, changed by one bit, or removed, every kind of them:
//! what it serves then is right, wherever it has it from, or it refuses and says why.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use replica::log::SimRng;

use crate::client::{Client, create};
use crate::ensemble::{Ensemble, PATIENCE, SERVERS, done, read, set};
use crate::process::{Server, binary, free_address, serve};

/// So many in the usual run; `TEST_DAMAGES` asks for more.
const TRIALS: usize = 22;
const ZNODES: usize = 120;
const STORAGE: &str = "storage.log-segment-bytes = \"1MiB\"\nstorage.log-retain-bytes = \"1MiB\"\n";

fn trials() -> usize {
    std::env::var("TEST_DAMAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(TRIALS)
}

/// Enough for tables of the store, and for a log that is trimmed.
fn fill(client: &mut Client) {
    for at in 0..ZNODES {
        done(client, &create(&format!("/n{at}"), &vec![b'x'; if at < 24 { 500_000 } else { 50 }]));
    }
    done(client, &create("/last", b"0"));
}

/// Everything is there as it was written.
fn check(client: &mut Client, last: &str) {
    assert_eq!(read(client, "/last"), last);
    for at in 0..ZNODES {
        let data = read(client, &format!("/n{at}"));
        assert!(data.bytes().all(|byte| byte == b'x'), "/n{at} is another");
        assert_eq!(data.len(), if at < 24 { 500_000 } else { 50 }, "/n{at}");
    }
}

/// The files of a data directory, by their kinds.
fn kinds(data: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(data).expect("below it").to_string_lossy().into_owned();
            match name.as_str() {
                "damaged" | "lock" | "operator.token" => {}
                _ if path.is_dir() => dirs.push(path),
                _ if name.ends_with("lock") || name.ends_with("spare") => {}
                _ => {
                    let kind = name.chars().filter(|c| !c.is_ascii_digit()).collect();
                    kinds.entry(kind).or_default().push(path);
                }
            }
        }
    }
    kinds.values_mut().for_each(|files| files.sort());
    kinds
}

/// Damages a file of the kind whose turn it is; gives the file and what was done.
fn damage(data: &Path, turn: usize, rng: &mut SimRng) -> (PathBuf, String) {
    let kinds = kinds(data);
    let (_, files) = kinds.iter().nth(turn % kinds.len()).expect("there is one");
    let path = files[rng.below(files.len() as u64) as usize].clone();
    let content = fs::read(&path).expect("a file");
    // What is allocated in advance holds nothing.
    let written = content.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    let file = fs::OpenOptions::new().write(true).open(&path).expect("it opens");
    let at = rng.below(written.max(1));
    let what = match rng.below(4) {
        0 => {
            file.set_len(at).expect("it is cut");
            format!("cut to {at} of {written} bytes")
        }
        1 => {
            fs::remove_file(&path).expect("it goes");
            "removed".to_owned()
        }
        _ => {
            let bit = rng.below(8);
            let byte = content.get(at as usize).copied().unwrap_or_default() ^ 1 << bit;
            file.write_all_at(&[byte], at).expect("it is changed");
            format!("bit {bit} of byte {at} of {written} changed")
        }
    };
    (path.clone(), format!("{}: {what}", path.strip_prefix(data).expect("below it").display()))
}

/// Waits until a server takes clients, or has ended.
fn serves(server: &mut Child, address: std::net::SocketAddr, what: &str) -> Option<Client> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if server.try_wait().expect("it is our child").is_some() {
            return None;
        }
        if let Ok(client) = Client::connect(address) {
            return Some(client);
        }
        assert!(Instant::now() < deadline, "{what}: it neither serves nor ends");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end(mut server: Child) {
    // It may have ended.
    let _ = server.kill();
    server.wait().expect("it is our child");
}

fn raft_id(data: &Path) -> Option<String> {
    fs::read_to_string(data.join("raft-id")).ok()
}

#[test]
fn one_of_three_serves_what_is_right_or_says_why_not() {
    let mut ensemble = Ensemble::start_with(STORAGE);
    let bad = (ensemble.leader() + 1) % SERVERS;
    let other = (bad + 1) % SERVERS;
    fill(&mut ensemble.connect(other));
    let (data, log) = (ensemble.data(bad), ensemble.dir.path().join("damaged-log"));
    let more = ensemble.arguments(bad);
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let mut rng = SimRng::new(7);
    // All of it is in the store.
    let mut running = None;
    ensemble.servers[bad].take().expect("it runs").terminate();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for trial in 0..trials() {
        if let Some(child) = running.take() {
            let child: Child = child;
            if trial % 2 == 0 {
                let told = Command::new("kill").arg(child.id().to_string()).status();
                assert!(told.expect("there is a kill").success());
                child.wait_with_output().expect("it ends");
            } else {
                end(child);
            }
        }
        let before = raft_id(&data);
        let (file, what) = damage(&data, trial, &mut rng);
        println!("{what}");
        let last = trial.to_string();
        done(&mut ensemble.connect(other), &set("/last", &last));
        let out = fs::File::create(&log).expect("a file");
        let mut child =
            serve(&data, ensemble.clients[bad], &more).stderr(out).spawn().expect("it starts");
        let client = serves(&mut child, ensemble.clients[bad], &what);
        let told = || fs::read_to_string(&log).expect("it was started");
        let outcome = match client {
            Some(mut client) => {
                // What only a read shows is found then: it lets its clients go, and heals.
                while catch_unwind(AssertUnwindSafe(|| check(&mut client, &last))).is_err() {
                    assert!(told().contains("damaged"), "{what}: {}", told());
                    client = serves(&mut child, ensemble.clients[bad], &what).expect("it heals");
                }
                let is_new = before.is_some() && raft_id(&data) != before;
                let is_of_state =
                    file.starts_with(data.join("log")) || !file.starts_with(data.join("state"));
                assert!(
                    !is_new || is_of_state || told().contains("log is of no use"),
                    "{what}: its vote is gone"
                );
                match (is_new, told().contains("took the place of this one's")) {
                    (true, _) => "took part anew",
                    (false, true) => "healed",
                    (false, false) => "whole",
                }
            }
            None => {
                child.wait().expect("it is our child");
                let told = told();
                assert!(told.contains("damage") || told.contains("expected"), "{what}: {told}");
                fs::remove_dir_all(&data).expect("its operator empties it");
                let out = fs::File::create(&log).expect("a file");
                child = serve(&data, ensemble.clients[bad], &more)
                    .stderr(out)
                    .spawn()
                    .expect("it starts");
                let client = serves(&mut child, ensemble.clients[bad], &what);
                check(&mut client.expect("it is let in"), &last);
                "refused"
            }
        };
        println!("  {outcome}");
        assert!(!told().contains("panicked"), "{what}: {}", told());
        *counts.entry(outcome.to_owned()).or_default() += 1;
        running = Some(child);
    }
    running.into_iter().for_each(end);
    println!("{counts:?}");
    let least = if trials() >= TRIALS { 1 } else { 0 };
    for outcome in ["whole", "healed", "took part anew"] {
        assert!(counts.get(outcome).copied().unwrap_or_default() >= least, "{counts:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg("--sparse=always").args([from, to]).status();
    assert!(copied.expect("there is a cp").success());
}

#[test]
fn alone_it_serves_all_of_it_or_refuses() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = dir.path().join("whole");
    let config = dir.path().join("config.toml");
    fs::write(&config, STORAGE).expect("a file");
    let more = ["--config", config.to_str().expect("text")];
    let server = Server::start_with(&whole, &more);
    fill(&mut Client::connect(server.address).expect("it serves"));
    server.terminate();
    let mut rng = SimRng::new(11);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for trial in 0..trials() {
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        copy(&whole, &data);
        let (_, what) = damage(&data, trial, &mut rng);
        let out = fs::File::create(&log).expect("a file");
        let address = free_address();
        let mut child = serve(&data, address, &more).stderr(out).spawn().expect("it starts");
        let told = || fs::read_to_string(&log).expect("it was started");
        let outcome = match serves(&mut child, address, &what) {
            Some(mut client) => {
                // It may find damage only when it reads.
                let checked = catch_unwind(AssertUnwindSafe(|| check(&mut client, "0")));
                let found = || told().contains("damaged");
                assert!(checked.is_ok() || found(), "{what}: {}", told());
                if checked.is_ok() { "whole" } else { "found by reading" }
            }
            None => {
                let told = told();
                let says = ["damage", "expected the number"].iter().any(|said| told.contains(said));
                assert!(says && told.contains("backup"), "{what}: {told}");
                "refused"
            }
        };
        end(child);
        println!("{what}: {outcome}");
        assert!(!told().contains("panicked"), "{what}: {}", told());
        *counts.entry(outcome).or_default() += 1;
        fs::remove_dir_all(&data).expect("it goes");
    }
    println!("{counts:?}");
    assert!(counts.contains_key("refused") && counts.contains_key("whole"), "{counts:?}");

    // All was in the state when it stopped: that goes on without the log.
    damage_log(&whole);
    let recover = Command::new(binary())
        .args(["recover", "--force-single", "--yes", "--server-id", "1", "--data-dir"])
        .arg(&whole)
        .args(more)
        .output()
        .expect("it can be started");
    assert!(recover.status.success(), "{}", String::from_utf8_lossy(&recover.stderr));
    let server = Server::start_with(&whole, &more);
    check(&mut Client::connect(server.address).expect("it serves"), "0");
}

/// Changes a bit in the first record of the last segment of a log.
fn damage_log(data: &Path) {
    let kinds = kinds(data);
    let (_, files) = kinds.iter().find(|(kind, _)| kind.ends_with(".segment")).expect("a log");
    let path = files.last().expect("a segment");
    let content = fs::read(path).expect("a file");
    let file = fs::OpenOptions::new().write(true).open(path).expect("it opens");
    file.write_all_at(&[content[540] ^ 16], 540).expect("it is changed");
}

#[test]
fn a_majority_of_damaged_logs_is_no_empty_ensemble() {
    let mut ensemble = Ensemble::start();
    let leader = ensemble.leader();
    let mut client = ensemble.connect(leader);
    (0..20).for_each(|at| drop(done(&mut client, &create(&format!("/n{at}"), b"x"))));
    for at in 0..SERVERS {
        ensemble.servers[at].take().expect("it runs").terminate();
    }
    for damaged in [vec![0, 1], vec![2]] {
        let ids: Vec<_> = (0..SERVERS).map(|at| raft_id(&ensemble.data(at))).collect();
        damaged.iter().for_each(|at| damage_log(&ensemble.data(*at)));
        (0..SERVERS).for_each(|at| ensemble.start_one(at));
        let deadline = Instant::now() + PATIENCE;
        for at in &damaged {
            while !ensemble.log(*at).contains("nobody has let it in again") {
                assert!(Instant::now() < deadline, "{}", ensemble.log(*at));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        for (at, id) in ids.iter().enumerate() {
            let log = ensemble.log(at);
            let serves = log.contains("vivarium is serving");
            assert!(!serves || !damaged.contains(&at), "{log}");
            assert!(
                !log.contains("found an ensemble") && !log.contains("this server leads"),
                "{log}"
            );
            ensemble.kill(at);
            assert_eq!(raft_id(&ensemble.data(at)), *id);
            assert!(!ensemble.data(at).join("damaged").exists(), "nothing was changed");
        }
    }
    // The last resort: what one has by itself.
    let more = ensemble.arguments(1);
    let data = ensemble.data(1).display().to_string();
    let recover = Command::new(binary())
        .args(["recover", "--force-single", "--yes", "--data-dir", &data])
        .args(&more)
        .output()
        .expect("it can be started");
    let told = String::from_utf8_lossy(&recover.stdout).into_owned();
    assert!(recover.status.success(), "{}", String::from_utf8_lossy(&recover.stderr));
    assert!(told.contains("no log that is of use") && told.contains("LOST"), "{told}");
    assert!(ensemble.data(1).join("damaged").exists());
    ensemble.start_one(1);
    assert_eq!(ensemble.leader(), 1);
    let mut client = ensemble.connect(1);
    (0..20).for_each(|at| assert_eq!(read(&mut client, &format!("/n{at}")), "x"));
    for at in [0, 2] {
        fs::remove_dir_all(ensemble.data(at)).expect("its operator empties it");
        ensemble.start_one(at);
        let deadline = Instant::now() + PATIENCE;
        let mut client = loop {
            match Client::connect(ensemble.clients[at]) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "server {at}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(read(&mut client, "/n7"), "x");
    }
}
