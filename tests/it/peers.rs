//! What servers of an ensemble refuse, from each other and from strangers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proto::{Reply, Request};
use replica::peer::PEER_FORMAT;
use tests::real::ensemble::{Ensemble, Program};

use crate::client::{Client, create};
use crate::operator::{PATIENCE, operator, wait_for};
use crate::process::{Server, binary, free_address};

const SERVERS: usize = 3;
/// In which servers try again so often that what is said each time would be said often.
const WHILE: Duration = Duration::from_secs(2);

fn lay_out() -> Ensemble {
    Ensemble::lay_out(Program::Vivarium(binary()), SERVERS, false).expect("it can be written")
}

fn start() -> Ensemble {
    let mut ensemble = lay_out();
    (0..SERVERS).for_each(|at| ensemble.start(at).expect("it starts"));
    ensemble.wait().expect("all serve");
    ensemble
}

fn done(address: SocketAddr, request: &Request) -> Option<Reply> {
    let mut client = Client::connect(address).expect("it takes clients");
    let (header, reply) = client.ask(request).expect("the connection stays");
    assert_eq!(header.err, 0, "{request:?}");
    reply
}

/// How many lines of a server's log have all of these words.
fn lines(ensemble: &Ensemble, at: usize, words: &[&str]) -> usize {
    let log = ensemble.log(at);
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

/// A frame as servers send them to each other.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    [&length[..], &crc32c::crc32c(payload).to_be_bytes(), payload].concat()
}

/// Says something to a server where others call; gives what it answers before it hangs up.
fn call(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("it takes bytes");
    let mut answer = Vec::new();
    // It may have hung up with bytes unread, which resets the connection.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn strangers_and_other_versions_are_refused_and_told_of_once() {
    let mut ensemble = start();
    let before = ensemble.leader();
    let address = ensemble.peers[0];
    for format in [PEER_FORMAT - 1, PEER_FORMAT + 1] {
        let hello = [&b"vvrm"[..], &format.to_be_bytes(), b"what only that version knows"].concat();
        let why = format!("expected format {PEER_FORMAT} of messages, got {format}");
        for _ in 0..5 {
            let answer = call(address, &frame(&hello));
            assert!(answer.contains(&why), "the caller is told too: {answer}");
        }
        assert_eq!(lines(&ensemble, 0, &["a peer's call was refused", &why]), 1);
    }
    let damaged = [&b"vvrm"[..], &PEER_FORMAT.to_be_bytes(), b"not what it should be"].concat();
    for (bytes, why) in [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "no server of an ensemble"),
        (frame(b"hello"), "expected a server of an ensemble, got somebody else"),
        (frame(&damaged), "a peer's call was refused"),
        ([frame(b"vvrm")[..4].to_vec(), b"0000vvrm".to_vec()].concat(), "a frame's checksum"),
    ] {
        call(address, &bytes);
        assert!(lines(&ensemble, 0, &[why]) >= 1, "{why}");
    }
    for address in &ensemble.clients {
        let path = format!("/after-{}", address.port());
        done(*address, &create(&path, b""));
    }
    assert_eq!(ensemble.wait().ok(), before, "nothing came of it");
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.expect("there is a cp").success());
}

#[test]
fn a_second_server_with_an_id_takes_no_part() {
    let mut ensemble = start();
    let second = (ensemble.leader().expect("somebody leads") + 1) % SERVERS;
    ensemble.terminate(second).expect("it stops");
    copy(&ensemble.home(second).join("data"), &ensemble.home(second).join("copy"));
    ensemble.start(second).expect("it starts");
    ensemble.wait().expect("all serve");
    let config = ensemble.config(second).display().to_string();
    let peer_listen = format!("ensemble.peer-listen={}", free_address());
    let log_path = ensemble.home(second).join("log-of-the-copy");
    let log = std::fs::File::create(&log_path).expect("a file");
    let more = ["--config", &config, "--set", &peer_listen];
    let copy = Server::start_at(&ensemble.home(second).join("copy"), free_address(), &more, log);
    let why = format!("expected the server {} that answers where it is known to be", second + 1);
    wait_for("the copy is told why", || {
        let told = std::fs::read_to_string(&log_path).expect("it is there");
        told.matches(&why).count() == SERVERS - 1
    });
    std::thread::sleep(WHILE);
    for other in (0..SERVERS).filter(|at| *at != second) {
        assert_eq!(lines(&ensemble, other, &[&why]), 1, "server {other} tells once");
    }
    assert!(copy.word("srvr").contains("Mode: looking"), "nobody speaks with it");
    for at in 0..SERVERS {
        done(ensemble.clients[at], &create(&format!("/n{at}"), b""));
    }
    // The copy may ask for votes for ever: nobody hears it.
    let leader = ensemble.leader().expect("somebody leads");
    ensemble.kill(leader).expect("it runs");
    wait_for("the two others elect a leader", || ensemble.leader().is_some());
    done(ensemble.clients[second], &create("/after", b""));
    assert!(copy.word("srvr").contains("Mode: looking"));
}

#[test]
fn a_peer_that_is_missing_is_waited_for_and_told_of_once() {
    let mut ensemble = lay_out();
    (0..2).for_each(|at| ensemble.start(at).expect("it starts"));
    let waits = ["waiting for a server", "server=3"];
    let tries = ["a server cannot be reached; trying on", "server=3"];
    wait_for("they say whom they wait for", || (0..2).all(|at| lines(&ensemble, at, &waits) == 1));
    std::thread::sleep(WHILE);
    for at in 0..2 {
        assert_eq!(lines(&ensemble, at, &waits), 1, "it is said once");
        assert_eq!(ensemble.mode(at), None, "nobody serves");
    }
    ensemble.start(2).expect("it starts");
    ensemble.wait().expect("all serve");
    ensemble.kill(2).expect("it runs");
    wait_for("they say whom they miss", || (0..2).all(|at| lines(&ensemble, at, &tries) == 1));
    std::thread::sleep(WHILE);
    for at in 0..2 {
        assert_eq!(lines(&ensemble, at, &tries), 1, "it is said once");
        done(ensemble.clients[at], &create(&format!("/n{at}"), b""));
    }
}

#[test]
fn settings_of_the_files_that_differ_are_told_and_do_not_hold() {
    let mut ensemble = lay_out();
    ensemble.configure(2, "[nodes]\nttl-enabled = false\n").expect("it can be written");
    (0..SERVERS).for_each(|at| ensemble.start(at).expect("it starts"));
    ensemble.wait().expect("all serve");
    // The founder's settings hold: whoever that was.
    let holds: Vec<String> = (0..SERVERS)
        .map(|at| {
            let said = operator(&ensemble, at, "settings", &[]).expect("they are shown");
            said.lines().find(|line| line.starts_with("ttl-nodes")).unwrap_or(&said).to_owned()
        })
        .collect();
    assert_eq!((&holds[1], &holds[2]), (&holds[0], &holds[0]));
    for (at, configured) in ["true", "true", "false"].iter().enumerate() {
        let differs = !holds[at].ends_with(configured);
        let words = ["the configuration differs from the cluster's settings", "ttl-nodes"];
        wait_for("it warns", || lines(&ensemble, at, &words) == usize::from(differs));
    }
}
