//! `vivarium snapshot`: saved under load, looked at, restored, damaged, and killed in the middle.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::connect::PASSWORD_BYTES;
use proto::{OpCode, Reply, Request};

use crate::client::{Client, create};
use crate::ensemble::{Ensemble, PATIENCE, SERVERS, done, get, read, set};
use crate::process::{Server, binary, free_address, refused};

fn snapshot(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("snapshot").args(args).stdin(Stdio::null());
    command
}

fn save(address: SocketAddr, data_dir: &Path, file: &Path) -> Command {
    let mut command = snapshot(&["save", "--server", &address.to_string()]);
    command.arg("--data-dir").arg(data_dir).arg(file);
    command
}

fn restore(file: &Path, data_dir: &Path) -> Command {
    let mut command = snapshot(&["restore"]);
    command.arg(file).arg("--data-dir").arg(data_dir);
    command
}

fn ok(mut command: Command) -> String {
    let output = command.output().expect("it can be started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {error}");
    String::from_utf8(output.stdout).expect("text")
}

fn refusal(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it can be started");
    assert_eq!(status.code(), Some(1), "{command:?} did not fail");
    assert!(stdout.is_empty(), "a refusal stands on standard error");
    String::from_utf8(stderr).expect("text")
}

/// What `snapshot inspect` says of something.
fn inspected(file: &Path, what: &str) -> String {
    let mut command = snapshot(&["inspect"]);
    command.arg(file);
    let text = ok(command);
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    line.unwrap_or_else(|| panic!("no {what}: {text}")).trim().to_owned()
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
}

/// A server with so many znodes of so many bytes below `/n`.
fn filled(dir: &Path, znodes: usize, bytes: usize) -> Server {
    let server = Server::start(dir);
    let mut client = Client::connect(server.address).expect("it serves");
    client.ask(&create("/n", b"")).expect("an answer");
    let data = vec![7; bytes];
    for at in 0..znodes {
        client.send(&create(&format!("/n/{at:06}"), &data)).expect("it is open");
        if at >= 500 {
            client.receive(OpCode::Create).expect("an answer");
        }
    }
    for _ in 0..znodes.min(500) {
        client.receive(OpCode::Create).expect("an answer");
    }
    server
}

#[test]
fn saved_under_load_and_restored() {
    let dir = tempfile::tempdir().expect("a directory");
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let file = dir.path().join("a.snapshot");
    let server = filled(&old, 3000, 2000);
    let address = server.address;
    // Somebody holds a lock.
    let none = Bytes::from_static(&[0; PASSWORD_BYTES]);
    let (mut holder, session) = Client::attach(address, 40_000, 0, none).expect("it serves");
    let Request::Create(mut lock) = create("/lock", b"mine") else { unreachable!() };
    lock.flags = 1;
    assert_eq!(holder.ask(&Request::Create(lock)).expect("an answer").0.err, 0);
    let stop = AtomicBool::new(false);
    let acknowledged = Mutex::new(BTreeSet::new());
    let seen = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (stop, acknowledged) = (&stop, &acknowledged);
                scope.spawn(move || {
                    let mut client = Client::connect(address).expect("it serves");
                    let (mut at, mut seen) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        let path = format!("/w{writer}-{at:06}");
                        let made = client.ask(&create(&path, &[1; 1500])).expect("an answer").0;
                        assert_eq!(made.err, 0);
                        acknowledged.lock().expect("nobody panics").insert(path);
                        (at, seen) = (at + 1, made.zxid);
                    }
                    seen
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let before = acknowledged.lock().expect("nobody panics").clone();
        let told = ok(save(address, &old, &file));
        assert!(told.contains("znodes") && told.contains("zxid 0x"), "{told}");
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        let seen = writers.into_iter().map(|writer| writer.join().expect("its server lives")).max();
        *acknowledged.lock().expect("nobody panics") = before;
        seen.expect("there are writers")
    });
    let acknowledged = acknowledged.into_inner().expect("nobody panics");
    assert!(acknowledged.len() > 20, "the load was real: {}", acknowledged.len());
    server.kill();

    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&file).expect("it is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600, "it holds secrets");
    let znodes: usize = inspected(&file, "znodes").parse().expect("a number");
    assert!(znodes > 3000 + acknowledged.len(), "{znodes}");
    assert_eq!(inspected(&file, "ephemerals"), "1");
    inspected(&file, "every checksum and the digest are right");

    ok(restore(&file, &new));
    let why = refusal(restore(&file, &new));
    assert!(why.contains("not empty"), "{why}");
    let server = Server::start(&new);
    // Somebody who saw the last of what was lost is taken, and nobody else's session is gone.
    let password = Bytes::copy_from_slice(&session.password);
    let attached = Client::attach_after(server.address, 40_000, session.session_id, password, seen);
    let (mut client, attached) = attached.expect("it is not behind what its clients have seen");
    assert_eq!(attached.session_id, session.session_id, "sessions live on");
    let Some(Reply::Data(Some(data), stat)) = done(&mut client, &get("/lock")) else {
        panic!("no lock")
    };
    assert_eq!((&data[..], stat.ephemeral_owner), (&b"mine"[..], session.session_id));
    for path in &acknowledged {
        done(&mut client, &get(path));
    }
    for at in (0..3000).step_by(100) {
        done(&mut client, &get(&format!("/n/{at:06}")));
    }
    let made = client.ask(&create("/after", b"")).expect("an answer").0;
    assert!(made.err == 0 && made.zxid > seen, "{made:?} after {seen:#x}");
    // It is a server like any other: what it wrote since is there after a kill.
    server.kill();
    let server = Server::start(&new);
    let mut client = Client::connect(server.address).expect("it serves");
    done(&mut client, &get("/after"));
    let again = dir.path().join("again.snapshot");
    ok(save(server.address, &new, &again));
    let ensemble = |file: &Path| inspected(file, "ensemble");
    assert_ne!(ensemble(&file), ensemble(&again), "it is a new one");
}

#[test]
fn only_operators_save() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = filled(&dir.path().join("data"), 10, 10);
    let file = dir.path().join("a.snapshot");
    let mut command = save(server.address, dir.path(), &file);
    command.args(["--auth", "digest:somebody:else"]);
    let why = refusal(command);
    assert!(why.contains("refuses") && why.contains("saved by operators"), "{why}");
    assert_eq!(entries(dir.path()), ["data"]);
}

#[test]
fn what_is_damaged_is_found_and_restored_nowhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, file) = (dir.path().join("data"), dir.path().join("a.snapshot"));
    let server = filled(&data, 300, 3000);
    ok(save(server.address, &data, &file));
    let whole = std::fs::read(&file).expect("it is there");
    let (bad, new) = (dir.path().join("bad.snapshot"), dir.path().join("new"));
    let wrong = |bytes: &[u8], expected: &str| {
        std::fs::write(&bad, bytes).expect("it can be written");
        let mut inspect = snapshot(&["inspect"]);
        inspect.arg(&bad);
        let why = refusal(inspect);
        assert!(why.contains(expected) && why.lines().count() == 1, "{expected}: {why}");
        let why = refusal(restore(&bad, &new));
        assert!(why.contains(expected), "{expected}: {why}");
        assert!(!new.exists() || entries(&new).is_empty(), "{:?}", entries(&new));
    };
    wrong(b"", "is not a snapshot");
    wrong(b"PK\x03\x04 something else", "is not a snapshot");
    let lengths = [13, 20, 200, whole.len() / 3, whole.len() / 2, whole.len() - 1];
    lengths.iter().for_each(|length| wrong(&whole[..*length], "is damaged"));
    for at in [13, 17, 60, whole.len() / 3, whole.len() / 2, whole.len() - 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        wrong(&bytes, "is damaged");
    }
    wrong(&[&whole[..], b"more"].concat(), "is damaged");
    wrong(&[&whole[..], &whole[12..]].concat(), "is damaged");
    let mut newer = whole.clone();
    newer[11] = 9;
    wrong(&newer, "use a newer program");
    ok(restore(&file, &new));

    // Neither does one that is not empty change.
    let other = dir.path().join("other");
    std::fs::create_dir(&other).expect("a directory");
    std::fs::write(other.join("mine"), "x").expect("it can be written");
    let why = refusal(restore(&file, &other));
    assert!(why.contains("not empty"), "{why}");
    assert_eq!(entries(&other), ["mine"]);
}

#[test]
fn killed_in_the_middle_there_is_all_or_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, file) = (dir.path().join("data"), dir.path().join("a.snapshot"));
    let server = filled(&data, 12_000, 4000);
    let began = Instant::now();
    ok(save(server.address, &data, &file));
    let takes = began.elapsed();
    for part in 1..=5 {
        std::fs::remove_file(&file).expect("it is there");
        let mut saving = save(server.address, &data, &file).stdout(Stdio::null()).spawn();
        let saving = saving.as_mut().expect("it can be started");
        std::thread::sleep(takes * part / 6);
        saving.kill().expect("it is our child");
        saving.wait().expect("it is our child");
        if file.exists() {
            inspected(&file, "every checksum");
        } else {
            ok(save(server.address, &data, &file));
        }
    }
    // The server goes: nothing is left.
    let file2 = dir.path().join("b.snapshot");
    let mut saving = save(server.address, &data, &file2);
    let mut saving = saving.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(takes / 2);
    server.kill();
    let saved = saving.wait().expect("it is our child").success();
    assert_eq!(file2.exists(), saved);
    let left =
        entries(dir.path()).into_iter().filter(|name| name.starts_with("b.snapshot.new")).count();
    assert_eq!(left, 0);

    let began = Instant::now();
    ok(restore(&file, &dir.path().join("whole")));
    let (takes, mut unfinished) = (began.elapsed(), 0);
    for part in 1..=5 {
        let new = dir.path().join(format!("new{part}"));
        let mut restoring = restore(&file, &new).stdout(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(takes * part / 6);
        restoring.kill().expect("it is our child");
        restoring.wait().expect("it is our child");
        if new.join("restoring").exists() {
            unfinished += 1;
            let output = refused(&new, free_address(), &[]);
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(why.contains("restore it again"), "{why}");
        }
        if !new.join("format").exists() || new.join("restoring").exists() {
            ok(restore(&file, &new));
        }
        let server = Server::start(&new);
        let mut client = Client::connect(server.address).expect("it serves");
        let Some(Reply::Children(names)) = client
            .ask(&Request::GetChildren { path: "/n".to_owned(), watch: false })
            .expect("an answer")
            .1
        else {
            panic!("/n is gone")
        };
        assert_eq!(names.len(), 12_000);
    }
    assert!(unfinished > 0, "none was killed in the middle, of {takes:?}");
}

#[test]
fn restored_as_three() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, file) = (dir.path().join("data"), dir.path().join("a.snapshot"));
    let server = filled(&data, 200, 2000);
    ok(save(server.address, &data, &file));
    drop(server);

    let mut ensemble = Ensemble::lay_out("");
    // On two of them: neither begins.
    ok(restore(&file, &ensemble.data(0)));
    ok(restore(&file, &ensemble.data(1)));
    (0..SERVERS).for_each(|at| ensemble.start_one(at));
    let deadline = Instant::now() + PATIENCE;
    while !ensemble.log(0).contains("empty the data directory of one of them") {
        assert!(Instant::now() < deadline, "{}", ensemble.log(0));
        std::thread::sleep(Duration::from_millis(50));
    }
    ensemble.kill(1);
    assert!(!ensemble.log(0).contains("vivarium is serving"));
    std::fs::remove_dir_all(ensemble.data(1)).expect("it is there");
    ensemble.start_one(1);
    assert_eq!(ensemble.leader(), 0, "nobody else can lead at first");
    for at in 0..SERVERS {
        let mut client = ensemble.connect(at);
        assert_eq!(read(&mut client, "/n/000199").len(), 2000);
    }
    let deadline = Instant::now() + PATIENCE;
    while ensemble.log(0).matches("step=Voter(").count() < SERVERS - 1 {
        assert!(Instant::now() < deadline, "not all vote: {}", ensemble.log(0));
        std::thread::sleep(Duration::from_millis(100));
    }
    // Any one may die.
    for at in [0, 2, 1] {
        ensemble.kill(at);
        ensemble.leader();
        let text = format!("without {at}");
        done(&mut ensemble.connect((at + 1) % SERVERS), &set("/n", &text));
        assert_eq!(read(&mut ensemble.connect((at + 2) % SERVERS), "/n"), text);
        ensemble.start_one(at);
        assert_eq!(read(&mut ensemble.connect(at), "/n"), text);
    }
}
