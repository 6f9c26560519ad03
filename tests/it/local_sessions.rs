//! Sessions that only their server knows.

use std::time::Duration;

use bytes::Bytes;
use proto::connect::PASSWORD_BYTES;
use proto::{ConnectResponse, ErrorCode, Reply, Request};

use crate::client::{Client, create};
use crate::ensemble::{Ensemble, SERVERS, done, get, read, set};

const NO_PASSWORD: Bytes = Bytes::from_static(&[0; PASSWORD_BYTES]);

fn ephemeral(path: &str) -> Request {
    match create(path, b"") {
        Request::Create(new) => Request::Create(proto::request::Create { flags: 1, ..new }),
        other => other,
    }
}

fn attach(
    ensemble: &Ensemble,
    at: usize,
    timeout_ms: i32,
    session: Option<&ConnectResponse>,
) -> (Client, ConnectResponse) {
    let password = session.map_or(NO_PASSWORD, |known| Bytes::copy_from_slice(&known.password));
    let session = session.map_or(0, |known| known.session_id);
    Client::attach(ensemble.clients[at], timeout_ms, session, password).expect("it answers")
}

fn monitored(ensemble: &Ensemble, at: usize, name: &str) -> String {
    let told = ensemble.servers[at].as_ref().expect("it runs").word("mntr");
    let line = told.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn a_local_session_is_of_its_server_alone() {
    let mut ensemble = Ensemble::start_with("tick-time-ms = 500\nsessions.local = true\n");
    let leader = ensemble.leader();
    for at in 0..SERVERS {
        let other = (at + 1) % SERVERS;
        let (mut client, mine) = attach(&ensemble, at, 10_000, None);
        assert_eq!(mine.session_id >> 56, at as i64 + 1, "as a session that all know");
        let path = format!("/n{at}");
        done(&mut client, &create(&path, b"one"));
        let (header, _) = client.ask(&ephemeral("/e")).expect("the connection stays");
        assert_eq!(header.err, ErrorCode::EphemeralOnLocalSession.code());
        // To come and go costs no entry.
        let zxid = ensemble.said(at, "Zxid:");
        for _ in 0..10 {
            done(&mut attach(&ensemble, at, 10_000, None).0, &Request::CloseSession);
        }
        assert_eq!(ensemble.said(at, "Zxid:"), zxid);
        assert_eq!(attach(&ensemble, other, 10_000, Some(&mine)).1.timeout_ms, 0, "unknown there");
        let (mut again, same) = attach(&ensemble, at, 10_000, Some(&mine));
        assert_eq!(same.session_id, mine.session_id);
        assert!(client.ask(&get(&path)).is_err(), "its old connection has ended");
        done(&mut again, &set(&path, "two"));
        let seen = attach(&ensemble, other, 10_000, None);
        assert_eq!(read(&mut { seen.0 }, &path), "two");
        assert_eq!(monitored(&ensemble, at, "zk_global_sessions"), "0");
        assert_ne!(monitored(&ensemble, at, "zk_local_sessions"), "0");
        let mut wrong = mine.clone();
        wrong.password[0] ^= 1;
        assert_eq!(attach(&ensemble, at, 10_000, Some(&wrong)).1.timeout_ms, 0);

        // It ends by its timeout, there and nowhere else.
        let (_silent, short) = attach(&ensemble, at, 1000, None);
        std::thread::sleep(Duration::from_millis(2000));
        assert_eq!(attach(&ensemble, at, 1000, Some(&short)).1.timeout_ms, 0);
    }

    // It outlives the leader, and not its own server.
    let at = (leader + 1) % SERVERS;
    let (mut client, mine) = attach(&ensemble, at, 10_000, None);
    ensemble.kill(leader);
    done(&mut client, &set("/n0", "three"));
    ensemble.start_one(leader);
    ensemble.kill(at);
    ensemble.start_one(at);
    ensemble.leader();
    assert_eq!(attach(&ensemble, at, 10_000, Some(&mine)).1.timeout_ms, 0);
}

#[test]
fn a_local_session_that_makes_an_ephemeral_is_made_known_to_all() {
    let ensemble = Ensemble::start_with("sessions.local = true\nsessions.local-upgrading = true\n");
    let leader = ensemble.leader();
    for at in [leader, (leader + 1) % SERVERS] {
        let other = (at + 1) % SERVERS;
        let (mut client, mine) = attach(&ensemble, at, 10_000, None);
        // All of it at once: the session is known in time.
        let requests =
            [create("/a", b""), ephemeral("/e"), set("/a", "x"), get("/e"), ephemeral("/f")];
        for request in &requests {
            client.send(request).expect("it is sent");
        }
        for request in &requests {
            let (header, reply) = client.receive(request.opcode()).expect("it is answered");
            assert_eq!(header.err, 0, "{request:?}");
            if let Some(Reply::Data(_, stat)) = reply {
                assert_eq!(stat.ephemeral_owner, mine.session_id);
            }
        }
        assert_eq!(monitored(&ensemble, at, "zk_global_sessions"), "1");
        let (mut moved, same) = attach(&ensemble, other, 10_000, Some(&mine));
        assert_eq!(same.session_id, mine.session_id, "it is known there");
        done(&mut moved, &Request::Delete { path: "/a".to_owned(), version: -1 });
        done(&mut moved, &Request::CloseSession);
        let (mut looks, _) = attach(&ensemble, at, 10_000, None);
        done(&mut looks, &Request::Sync { path: "/".to_owned() });
        let (header, _) = looks.ask(&get("/e")).expect("the connection stays");
        assert_eq!(header.err, ErrorCode::NoNode.code(), "it died with its session");
    }
}
