//! `kill -9` under load: every acknowledged write is found again, none twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::{OpCode, Reply, Request};

use crate::client::{Client, create};
use crate::process::Server;

/// Kills by default; `TEST_KILLS` asks for more.
const KILLS: usize = 10;

/// Creates sequential znodes until the server dies; gives the names that were acknowledged.
fn writer(address: std::net::SocketAddr, stop: &AtomicBool) -> (Vec<String>, usize) {
    let mut acknowledged = Vec::new();
    let mut sent = 0;
    let Ok(mut client) = Client::connect(address) else { return (acknowledged, sent) };
    let Request::Create(mut new) = create("/load/n-", b"value") else { unreachable!() };
    new.flags = 2;
    let request = Request::Create(new);
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..8 {
            if client.send(&request).is_err() {
                return (acknowledged, sent);
            }
            sent += 1;
        }
        for _ in 0..8 {
            match client.receive(OpCode::Create) {
                Ok((_, Some(Reply::Path(path)))) => acknowledged.push(path),
                _ => return (acknowledged, sent),
            }
        }
    }
    (acknowledged, sent)
}

#[test]
fn no_acknowledged_write_is_lost_or_doubled() {
    let kills = std::env::var("TEST_KILLS").ok().and_then(|n| n.parse().ok());
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    client.ask(&create("/load", b"")).expect("an answer");
    let mut known = BTreeSet::new();
    let mut sent_all = 0;
    for round in 0..kills.unwrap_or(KILLS) {
        let stop = Arc::new(AtomicBool::new(false));
        let address = server.address;
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || writer(address, &stop))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100 + 37 * (round as u64 % 10)));
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let (acknowledged, sent) = writer.join().expect("a writer does not panic");
            sent_all += sent;
            for path in acknowledged {
                assert!(known.insert(path.clone()), "{path} was acknowledged twice");
            }
        }
        server = Server::start(dir.path());
        let mut client = Client::connect(server.address).expect("it serves again");
        let list = Request::GetChildren { path: "/load".to_owned(), watch: false };
        let Some(Reply::Children(names)) = client.ask(&list).expect("an answer").1 else {
            panic!("/load is gone");
        };
        let found: BTreeSet<String> = names.iter().map(|name| format!("/load/{name}")).collect();
        let lost: Vec<_> = known.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
        assert!(found.len() <= sent_all, "more znodes than were ever asked for");
    }
    assert!(known.len() > 100, "the load was real: {} writes", known.len());
}
