//! A server that is cut off serves old states to clients that accept that, and to nobody else.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::connect::PASSWORD_BYTES;
use proto::{ConnectResponse, ErrorCode, Reply, Request};

use crate::client::{Client, create};
use crate::ensemble::{Ensemble, PATIENCE, SERVERS, done, get, set};
use crate::process::binary;

/// For how long no leader is heard of before a server is read-only.
const AFTER: Duration = Duration::from_secs(2);
const NO_PASSWORD: Bytes = Bytes::from_static(&[0; PASSWORD_BYTES]);

fn word(ensemble: &Ensemble, at: usize, word: &str) -> String {
    ensemble.servers[at].as_ref().expect("it runs").word(word)
}

fn wait_for(ensemble: &Ensemble, at: usize, takes: &str) {
    let deadline = Instant::now() + PATIENCE;
    while word(ensemble, at, "isro") != takes {
        assert!(Instant::now() < deadline, "server {at} never says that it is {takes}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn reader(ensemble: &Ensemble, at: usize, session: i64, password: &Bytes) -> Option<Reading> {
    let attached = Client::attach_to_read(ensemble.clients[at], 30_000, session, password.clone());
    attached.ok()
}

type Reading = (Client, ConnectResponse);

fn data(client: &mut Client, path: &str) -> String {
    match done(client, &get(path)) {
        Some(Reply::Data(Some(data), _)) => String::from_utf8_lossy(&data).into_owned(),
        other => panic!("no data: {other:?}"),
    }
}

fn shell(ensemble: &Ensemble, at: usize, words: &[&str]) -> Output {
    let server = ensemble.clients[at].to_string();
    let mut command = Command::new(binary());
    command.args(["shell", "--timeout", "5s", "--server", &server]).args(words);
    command.output().expect("it runs")
}

#[test]
fn a_server_that_is_cut_off_lets_those_read_who_accept_it() {
    let mut ensemble = Ensemble::start_with("read-only-mode = true\n");
    let leader = ensemble.leader();
    let (at, others) = (leader, [(leader + 1) % SERVERS, (leader + 2) % SERVERS]);
    let (mut client, mine) =
        Client::attach(ensemble.clients[at], 30_000, 0, NO_PASSWORD).expect("it takes clients");
    done(&mut client, &create("/a", b"old"));
    assert_eq!(word(&ensemble, at, "isro"), "rw");
    // Where there is a leader, a client that would accept less gets all.
    let (mut reads, response) = reader(&ensemble, at, 0, &NO_PASSWORD).expect("it is served");
    assert_eq!(response.read_only, Some(false));
    done(&mut reads, &set("/a", "one"));

    others.iter().for_each(|other| ensemble.kill(*other));
    let cut_off = Instant::now();
    wait_for(&ensemble, at, "ro");
    assert!(cut_off.elapsed() > AFTER - Duration::from_millis(100), "{:?}", cut_off.elapsed());

    let (mut reads, response) = reader(&ensemble, at, 0, &NO_PASSWORD).expect("it is served");
    assert_eq!((response.read_only, response.timeout_ms), (Some(true), 30_000));
    assert_eq!(data(&mut reads, "/a"), "one");
    for change in [set("/a", "two"), create("/b", b""), Request::Sync { path: "/a".to_owned() }] {
        let (header, _) = reads.ask(&change).expect("the connection stays");
        assert_eq!(header.err, ErrorCode::NotReadOnly.code(), "{change:?}");
    }
    // A session that all know reads, too; and with another password it does not.
    let (mut again, response) =
        reader(&ensemble, at, mine.session_id, &Bytes::copy_from_slice(&mine.password))
            .expect("it is served");
    assert_eq!((response.session_id, response.read_only), (mine.session_id, Some(true)));
    assert_eq!(data(&mut again, "/a"), "one");
    let (_, response) =
        reader(&ensemble, at, mine.session_id, &NO_PASSWORD).expect("it is answered");
    assert_eq!(response.timeout_ms, 0);
    // Whoever wants more is to look elsewhere, and so is whose session may be known there.
    assert!(Client::attach(ensemble.clients[at], 30_000, 0, NO_PASSWORD).is_err());
    assert!(reader(&ensemble, at, 0x1234, &NO_PASSWORD).is_none());

    let told = word(&ensemble, at, "srvr");
    assert!(told.contains("READ-ONLY mode; serving only read-only clients\n"), "{told}");
    assert!(told.contains("Mode: read-only\n"), "{told}");
    let told = word(&ensemble, at, "mntr");
    assert!(told.contains("zk_server_state\tread-only\n"), "{told}");
    let shown = shell(&ensemble, at, &["--read-only", "get", "/a"]);
    let (out, told) = (text(&shown.stdout), text(&shown.stderr));
    assert!(out == "one\n" && told.contains("read-only: it has no leader"), "{out} {told}");
    let refused = shell(&ensemble, at, &["--read-only", "set", "/a", "two"]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("takes no changes"), "{}", text(&refused.stderr));

    // There is a leader again: who reads is let go, and who did not is served as before.
    ensemble.start_one(others[0]);
    assert!(reads.frame().is_err() && again.frame().is_err(), "they are let go");
    wait_for(&ensemble, at, "rw");
    let password = Bytes::copy_from_slice(&mine.password);
    let (mut client, response) =
        Client::attach(ensemble.clients[at], 30_000, mine.session_id, password)
            .expect("it is served");
    assert_eq!(response.session_id, mine.session_id);
    done(&mut client, &set("/a", "two"));

    // One that starts alone serves what it knows to be committed: what came before its last write.
    done(&mut client, &create("/b", b""));
    ensemble.kill(others[0]);
    ensemble.kill(at);
    ensemble.start_one(at);
    wait_for(&ensemble, at, "ro");
    let (mut reads, _) = reader(&ensemble, at, 0, &NO_PASSWORD).expect("it is served");
    assert_eq!(data(&mut reads, "/a"), "two");
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is text")
}

#[test]
fn no_election_makes_a_server_read_only() {
    let mut ensemble = Ensemble::start_with("read-only-mode = true\n");
    let leader = ensemble.leader();
    ensemble.kill(leader);
    let killed = Instant::now();
    while killed.elapsed() < AFTER + Duration::from_secs(1) {
        for at in (0..SERVERS).filter(|at| *at != leader) {
            assert_ne!(word(&ensemble, at, "isro"), "ro");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ensemble.leader();
}

#[test]
fn a_server_without_data_serves_nobody() {
    let mut ensemble = Ensemble::lay_out("read-only-mode = true\n");
    ensemble.start_one(0);
    std::thread::sleep(AFTER + Duration::from_secs(1));
    let client = Client::open(ensemble.clients[0]).expect("it listens");
    let wait = Duration::from_millis(500);
    client.stream.set_read_timeout(Some(wait)).expect("a socket");
    drop(client);
    let asked = std::thread::spawn({
        let address = ensemble.clients[0];
        move || Client::attach_to_read(address, 30_000, 0, NO_PASSWORD).is_ok()
    });
    std::thread::sleep(wait);
    assert!(!asked.is_finished() || !asked.join().expect("it asks"), "an empty server serves");
}
