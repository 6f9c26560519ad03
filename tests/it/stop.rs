//! A graceful stop: every write that was applied was also answered.

use std::time::Duration;

use bytes::BytesMut;
use proto::{OpCode, Reply, Request};

use crate::client::{Client, create};
use crate::process::Server;

const CLIENTS: usize = 6;
const IN_FLIGHT: usize = 200;

fn set(client: usize) -> Request {
    Request::SetData { path: format!("/c{client}"), data: Some(vec![7; 500].into()), version: -1 }
}

/// Keeps many writes in flight until the server hangs up; counts the answers.
fn answered(client: usize, mut connection: Client) -> i32 {
    let mut out = BytesMut::new();
    let (mut sent, mut answers) = (0, 0);
    let mut open = true;
    loop {
        while open && sent - answers < IN_FLIGHT as i32 {
            sent += 1;
            set(client).encode(sent, &mut out);
        }
        open &= std::io::Write::write_all(&mut connection.stream, &out.split()).is_ok();
        match connection.receive(OpCode::SetData) {
            Ok((header, _)) => {
                answers += 1;
                assert_eq!((header.xid, header.err), (answers, 0));
            }
            Err(_) => return answers,
        }
    }
}

#[test]
fn what_is_in_flight_is_answered_before_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let idle = Client::connect(server.address).expect("it serves");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut connection = Client::connect(server.address).expect("it serves");
            let path = format!("/c{client}");
            assert_eq!(connection.ask(&create(&path, b"")).expect("an answer").0.err, 0);
            std::thread::spawn(move || answered(client, connection))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(700));
    server.terminate();
    drop(idle);
    let answers: Vec<_> =
        clients.into_iter().map(|client| client.join().expect("it ends")).collect();
    let server = Server::start(dir.path());
    let mut connection = Client::connect(server.address).expect("it serves again");
    for (client, answers) in answers.into_iter().enumerate() {
        let exists = Request::Exists { path: format!("/c{client}"), watch: false };
        let Some(Reply::Stat(stat)) = connection.ask(&exists).expect("an answer").1 else {
            panic!("/c{client} is gone");
        };
        assert!(answers > IN_FLIGHT as i32, "the load was real: {answers}");
        assert_eq!(stat.version, answers, "writes applied and answered, /c{client}");
    }
}
