//! What is not the protocol closes one connection, and never ends a server.

use std::io::{Read, Write};
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
    let mut client = Client::connect(server.address).expect("it serves");
    client.stream.write_all(b"\0\0\0\x02ab").expect("it takes bytes");
    assert!(client.frame().is_err(), "a request without a header");
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
    for path in ["/a\0b", "/..", "/a\u{e000}", "x", "", &long] {
        let (header, _) = client.ask(&create(path, b"")).expect("an answer");
        assert_eq!(header.err, ErrorCode::BadArguments.code(), "{path:.20}");
        let read = Request::GetData { path: path.to_owned(), watch: false };
        if !path.is_empty() {
            let (header, _) = client.ask(&read).expect("an answer");
            assert_eq!(header.err, ErrorCode::NoNode.code(), "{path:.20}");
        }
    }
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
    let free = "127.0.0.1:0".parse().expect("an address");
    let output = refused(dir.path(), free, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("in use by another server"), "{said}");
    assert!(server.runs());
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
    let cases = [
        ("[limits]\nmax-frame-byte = 5\n", "max-frame-bytes"),
        ("tick-time-ms = \"2 parsecs\"\n", "tick-time-ms"),
        ("[tls]\ncert = \"/nowhere/cert.pem\"\nkey = \"/nowhere/key.pem\"\n", "/nowhere/"),
    ];
    for (text, expected) in cases {
        let file = dir.path().join("vivarium.toml");
        std::fs::write(&file, text).expect("a file");
        let file = file.to_string_lossy().into_owned();
        let output = refused(&dir.path().join("data"), free, &["--config", &file]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected), "{text}: {said}");
    }
}
