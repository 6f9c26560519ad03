//! The bounds that clients meet together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proto::{OpCode, Request};

use crate::client::{Client, create};
use crate::process::Server;

fn outstanding(server: &Server) -> usize {
    let answer = server.word("mntr");
    let line = answer.lines().find_map(|line| line.strip_prefix("zk_outstanding_requests"));
    line.and_then(|count| count.trim().parse().ok()).expect("mntr has it")
}

/// Clients that send everything at once: whatever the bound, each gets every answer, in order.
fn flood(bound: usize, clients: usize, requests: i32) {
    let dir = tempfile::tempdir().expect("a directory");
    let set = format!("limits.max-outstanding-requests={bound}");
    let server = Server::start_with(dir.path(), &["--set", &set]);
    let mut first = Client::connect(server.address).expect("it serves");
    assert_eq!(first.ask(&create("/n", b"x")).expect("an answer").0.err, 0);
    let done = Arc::new(AtomicBool::new(false));
    let flooding: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = Client::connect(server.address).expect("it serves");
            std::thread::spawn(move || {
                let mut out = BytesMut::new();
                for xid in 1..=requests {
                    let path = "/n".to_owned();
                    match xid % 3 {
                        0 => Request::GetData { path, watch: false }.encode(xid, &mut out),
                        _ => {
                            Request::SetData { path, data: None, version: -1 }.encode(xid, &mut out)
                        }
                    }
                }
                let mut writer = client.stream.try_clone().expect("a handle");
                let writing =
                    std::thread::spawn(move || std::io::Write::write_all(&mut writer, &out));
                for xid in 1..=requests {
                    let op = if xid % 3 == 0 { OpCode::GetData } else { OpCode::SetData };
                    let (header, _) = client.receive(op).expect("every request is answered");
                    assert_eq!((header.xid, header.err), (xid, 0));
                }
                writing.join().expect("it does not panic").expect("it was all taken");
            })
        })
        .collect();
    // A client with one request at a time gets its turn meanwhile.
    let polite = {
        let (done, mut client) = (Arc::clone(&done), first);
        std::thread::spawn(move || {
            let (mut turns, mut slowest) = (0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let read = Request::GetData { path: "/n".to_owned(), watch: false };
                assert_eq!(client.ask(&read).expect("an answer").0.err, 0);
                slowest = slowest.max(asked.elapsed());
                turns += 1;
            }
            (turns, slowest)
        })
    };
    let mut most = 0;
    while !flooding.iter().all(std::thread::JoinHandle::is_finished) {
        most = most.max(outstanding(&server));
        std::thread::sleep(Duration::from_millis(2));
    }
    done.store(true, Ordering::Relaxed);
    flooding.into_iter().for_each(|client| client.join().expect("a client is served"));
    let (turns, slowest) = polite.join().expect("the polite one is served");
    // Each connection may always have one, and two may count at the same moment.
    assert!(most <= bound + 2 * (clients + 2), "{most} in progress with a bound of {bound}");
    assert!(most > 0 && turns > 3, "the load was real: {most} at a time, {turns} turns");
    assert!(slowest < Duration::from_secs(5), "one waited {slowest:?}");
    assert_eq!(outstanding(&server), 0, "all is answered");
}

#[test]
fn requests_of_all_clients_together_are_bounded() {
    flood(50, 12, 3000);
}

#[test]
fn a_bound_below_the_number_of_clients_stops_nobody() {
    flood(1, 8, 600);
}
