//! What is not the protocol closes one connection, and never ends a server.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::{ErrorCode, OpCode, Reply, Request};

use crate::client::{Client, create};
use crate::process::{Server, refused};

/// Sends raw bytes; true if the server closes the connection without an answer.
fn closes(server: &Server, bytes: &[u8]) -> bool {
    let mut client = Client::open(server.address).expect("it listens");
    client.stream.write_all(bytes).expect("it takes bytes");
    let mut answer = Vec::new();
    match client.stream.read_to_end(&mut answer) {
        Ok(_) => answer.is_empty(),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn malformed_frames_close_their_connection_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path());
    let mut other = Client::connect(server.address).expect("it serves");
    assert!(closes(&server, &i32::MAX.to_be_bytes()), "an oversized frame");
    assert!(closes(&server, &(-1i32).to_be_bytes()), "a negative length");
    assert!(closes(&server, b"\0\0\0\x03abc"), "a connect request of three bytes");
    assert!(closes(&server, b"GET / HTTP/1.1\r\n\r\n"), "another protocol");
    for bytes in
        [&b"\0\0\0\x02ab"[..], &i32::MIN.to_be_bytes(), &(1i32 << 20).to_be_bytes(), &[0xff; 64]]
    {
        let mut client = Client::connect(server.address).expect("it serves");
        client.stream.write_all(bytes).expect("it takes bytes");
        assert!(client.frame().is_err(), "{bytes:x?} after the session began");
    }
    // Frames that end early, at every length, and the client leaves.
    let mut whole = bytes::BytesMut::new();
    create("/never", b"x").encode(7, &mut whole);
    for length in 0..whole.len() {
        let mut client = Client::connect(server.address).expect("it serves");
        client.stream.write_all(&whole[..length]).expect("it takes bytes");
    }
    let exists = Request::Exists { path: "/never".to_owned(), watch: false };
    assert_eq!(other.ask(&exists).expect("it serves").0.err, ErrorCode::NoNode.code());
    assert_eq!(other.ask(&Request::Ping).expect("it serves").0.err, 0);
    assert!(server.runs());
}

#[test]
fn a_frame_that_drips_in_is_still_a_frame() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    let mut out = bytes::BytesMut::new();
    create("/slow", b"x").encode(7, &mut out);
    for byte in out {
        client.stream.write_all(&[byte]).expect("it takes bytes");
        std::thread::sleep(Duration::from_millis(2));
    }
    let (header, reply) = client.receive(OpCode::Create).expect("an answer");
    assert_eq!((header.xid, reply), (7, Some(Reply::Path("/slow".to_owned()))));
}

#[test]
fn bodies_that_lie_about_their_lengths_are_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path());
    let bodies: [&[u8]; 5] = [
        &i32::MAX.to_be_bytes(),
        &i32::MIN.to_be_bytes(),
        b"\0\0\0\x02/a\x7f\xff\xff\xff",
        b"\0\0\0\x02\xff\xfe",
        b"",
    ];
    for opcode in [OpCode::Create, OpCode::GetData, OpCode::Multi, OpCode::MultiRead] {
        for body in bodies {
            let mut client = Client::connect(server.address).expect("it serves");
            let length = i32::try_from(8 + body.len()).expect("it is short").to_be_bytes();
            let head = [length, 5i32.to_be_bytes(), (opcode as i32).to_be_bytes()].concat();
            client.stream.write_all(&[&head, body].concat()).expect("it takes bytes");
            // The session ends, or the answer is an error; for a multi, that can be a list of none.
            let multi = matches!(opcode, OpCode::Multi | OpCode::MultiRead);
            if let Ok((header, _)) = client.receive(OpCode::Ping) {
                assert!(header.err != 0 || multi, "{opcode:?} {body:x?}");
            }
        }
    }
    let mut client = Client::connect(server.address).expect("it serves");
    assert_eq!(client.ask(&Request::Ping).expect("an answer").0.err, 0);
    assert!(server.runs());
}

#[test]
fn unknown_operations_are_answered_and_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    client.stream.write_all(b"\0\0\0\x08\0\0\0\x05\0\0\x03\xe7").expect("it takes bytes");
    let (header, _) = client.receive(OpCode::Ping).expect("an answer");
    assert_eq!((header.xid, header.zxid), (5, -1));
    assert_eq!(header.err, ErrorCode::Unimplemented.code());
    assert!(client.frame().is_err(), "the connection is closed");
}

#[test]
fn bad_paths_are_bad_arguments() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    let long = format!("/{}", "x".repeat(70_000));
    for path in ["/a\0b", "/..", "/.", "/a\u{e000}", "//", "x", "", &long] {
        let (header, _) = client.ask(&create(path, b"")).expect("an answer");
        assert_eq!(header.err, ErrorCode::BadArguments.code(), "{path:.20}");
        let read = Request::GetData { path: path.to_owned(), watch: false };
        if !path.is_empty() {
            let (header, _) = client.ask(&read).expect("an answer");
            assert_eq!(header.err, ErrorCode::NoNode.code(), "{path:.20}");
        }
    }
    // A surrogate is no text in UTF-8: "/" and the three bytes that U+D800 would have.
    let mut raw = bytes::BytesMut::new();
    create("/abc", b"").encode(77, &mut raw);
    let at = raw.windows(4).position(|four| four == b"/abc").expect("the path");
    raw[at + 1..at + 4].copy_from_slice(b"\xed\xa0\x80");
    client.stream.write_all(&raw).expect("it takes bytes");
    let refused = client.receive(OpCode::Create).map(|(header, _)| header.err);
    assert_ne!(refused.unwrap_or(-1), 0, "a surrogate in a path");
    assert!(server.runs());
}

#[test]
fn a_client_that_never_reads_harms_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path());
    let mut other = Client::connect(server.address).expect("it serves");
    let (header, _) = other.ask(&create("/big", &[b'x'; 500_000])).expect("an answer");
    assert_eq!(header.err, 0);
    let mut silent = Client::connect(server.address).expect("it serves");
    silent.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    for _ in 0..200 {
        if silent.send(&Request::GetData { path: "/big".to_owned(), watch: false }).is_err() {
            break;
        }
    }
    for _ in 0..10 {
        let read = Request::GetData { path: "/big".to_owned(), watch: false };
        assert_eq!(other.ask(&read).expect("it serves others").0.err, 0);
    }
    assert!(server.runs());
}

#[test]
fn replies_for_clients_that_never_read_take_little_memory() {
    const CLIENTS: usize = 4;
    const READS: usize = 900;
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path());
    let mut other = Client::connect(server.address).expect("it serves");
    assert_eq!(other.ask(&create("/big", &[b'x'; 500_000])).expect("an answer").0.err, 0);
    let read = Request::GetData { path: "/big".to_owned(), watch: false };
    let before = server.memory_bytes();
    let silent: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect(server.address).expect("it serves");
            let mut requests = bytes::BytesMut::new();
            (0..READS).for_each(|xid| read.encode(1 + xid as i32, &mut requests));
            // One write: the server meets them all at once.
            client.stream.write_all(&requests).expect("it takes requests");
            client
        })
        .collect();
    for _ in 0..50 {
        assert_eq!(other.ask(&read).expect("it serves others").0.err, 0);
        std::thread::sleep(Duration::from_millis(20));
        let grown = server.memory_bytes().saturating_sub(before);
        // All the replies would be 1.8 GB.
        assert!(grown < CLIENTS * (40 << 20), "{} MiB more", grown >> 20);
    }
    // One that reads after all gets every reply, in order.
    let mut late = silent.into_iter().next().expect("a client");
    for xid in 1..=READS as i32 {
        assert_eq!(late.receive(OpCode::GetData).expect("an answer").0.xid, xid);
    }
    assert!(server.runs());
}

#[test]
fn events_for_a_client_that_never_reads_end_its_connection() {
    /// Four times of what may wait, with long paths so that it is soon reached.
    const EVENTS: usize = 4 * (16 << 20) / PATH_BYTES;
    const PATH_BYTES: usize = 30_000;
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path());
    let mut silent = Client::connect(server.address).expect("it serves");
    let everything = Request::AddWatch { path: "/".to_owned(), mode: 1 };
    assert_eq!(silent.ask(&everything).expect("an answer").0.err, 0);
    let mut other = Client::connect(server.address).expect("it serves");
    let path = format!("/{}", "x".repeat(PATH_BYTES));
    assert_eq!(other.ask(&create(&path, b"")).expect("an answer").0.err, 0);
    let before = server.memory_bytes();
    let set = Request::SetData { path, data: None, version: -1 };
    for _ in 0..EVENTS {
        assert_eq!(other.ask(&set).expect("it serves others").0.err, 0);
    }
    let grown = server.memory_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{} MiB more", grown >> 20);
    let mut events = 0;
    while silent.frame().is_ok() {
        events += 1;
    }
    assert!(events < EVENTS, "all {events} events were kept");
    assert!(server.runs());
}

#[test]
fn a_megabyte_of_names_is_listed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    client.ask(&create("/many", b"")).expect("an answer");
    let names: Vec<String> = (0..2200).map(|i| format!("{i:0500}")).collect();
    for name in &names {
        client.send(&create(&format!("/many/{name}"), b"")).expect("it takes requests");
    }
    for _ in &names {
        assert_eq!(client.receive(OpCode::Create).expect("an answer").0.err, 0);
    }
    let list = Request::GetChildren { path: "/many".to_owned(), watch: false };
    let (_, reply) = client.ask(&list).expect("an answer");
    assert_eq!(reply, Some(Reply::Children(names)));
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path());
    // It listens before it has opened its data.
    Client::connect(server.address).expect("it serves");
    let free = "127.0.0.1:0".parse().expect("an address");
    let output = refused(dir.path(), free, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("in use by another server"), "{said}");
    assert!(server.runs());
}

/// Every file below a directory, by its path.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut todo = vec![dir.to_owned()];
    let mut out = BTreeMap::new();
    while let Some(here) = todo.pop() {
        for entry in std::fs::read_dir(&here).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else {
                out.insert(path.clone(), std::fs::read(&path).expect("a file"));
            }
        }
    }
    out
}

#[test]
fn data_of_a_newer_version_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    assert_eq!(client.ask(&create("/kept", b"x")).expect("an answer").0.err, 0);
    server.kill();
    let format = dir.path().join("format");
    let ours = std::fs::read(&format).expect("every data directory has it");
    std::fs::write(&format, "5\n").expect("a file");
    let before = files(dir.path());
    let free = "127.0.0.1:0".parse().expect("an address");
    let output = refused(dir.path(), free, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("format 5") && said.contains("newer program"), "{said}");
    assert!(files(dir.path()) == before, "something was changed");
    std::fs::write(&format, ours).expect("a file");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    let read = Request::GetData { path: "/kept".to_owned(), watch: false };
    assert_eq!(client.ask(&read).expect("an answer").0.err, 0);
}

#[test]
fn a_port_in_use_is_said_plainly_and_touches_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let other = tempfile::tempdir().expect("a directory");
    let data = other.path().join("data");
    let output = refused(&data, server.address, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot listen on"), "{said}");
    assert!(!data.exists());
}

#[test]
fn a_wrong_configuration_names_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let free = "127.0.0.1:0".parse().expect("an address");
    // What is written, and what is said of it: its line, and the nearest name or what is expected.
    let cases = [
        ("tick-time-ms = 2000\n[limits]\nmax-frame-byte = 5\n", ":3", "max-frame-bytes"),
        ("\n[limit]\nmax-frame-bytes = 5\n", ":2", "limits"),
        ("tick-time-ms = \"2 parsecs\"\n", ":1", "tick-time-ms"),
        ("\n\ntick-time-ms = true\n", ":3", "tick-time-ms"),
        ("[storage]\nlog-segment-bytes = \"64 lightyears\"\n", ":2", "log-segment-bytes"),
        ("[limits]\nmax-frame-bytes = 7\n", ":2", "max-frame-bytes"),
        ("tick-time-ms = \n", ":1", "vivarium.toml"),
        (
            "[listen]\nclient-tls = \"127.0.0.1:0\"\n[tls]\ncert = \"/nowhere/cert.pem\"\n\
             key = \"/nowhere/key.pem\"\n",
            "/nowhere/",
            "cert.pem",
        ),
    ];
    for (text, one, other) in cases {
        let file = dir.path().join("vivarium.toml");
        std::fs::write(&file, text).expect("a file");
        let file = file.to_string_lossy().into_owned();
        let output = refused(&dir.path().join("data"), free, &["--config", &file]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(one) && said.contains(other), "{text}: {said}");
        assert!(!dir.path().join("data").exists(), "{text}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let free = "127.0.0.1:0".parse().expect("an address");
    let data = dir.path().join("data");
    for flag in ["--config", "--zoo-cfg"] {
        let output = refused(&data, free, &[flag, "/nowhere/config"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("/nowhere/config"), "{said}");
        assert!(!data.exists());
    }
    let output = refused(&data, free, &["--set", "limits.max-frame-byte=5"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("max-frame-bytes"), "{said}");
}
