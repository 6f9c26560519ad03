//! A read and the watch that it sets are one step with respect to changes, even when a change is
//! published while the read is under way.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::codec::Reader;
use proto::frame::next_frame;
use proto::header::XID_EVENT;
use proto::request::SetWatches;
use proto::{Acl, ConnectRequest, OpCode, ReplyHeader, Request, WatchEvent};
use replica::{Connection, Input, Machine, Outbox, Read, Work};
use state::command::Settings;
use state::{Batch, Command, Group, MemoryStore, NoHooks, State};

use common::{Nobody, policy};

const ME: (u32, u64) = (1, 7);

/// A Machine and its connections, with inputs applied one entry each.
struct Server {
    machine: Machine,
    index: u64,
    sequence: u64,
    sessions: i64,
}

struct Client {
    connection: Connection,
    xid: i32,
    out: BytesMut,
}

impl Server {
    fn new() -> Self {
        let state = State::open(Box::new(MemoryStore::default()), Box::new(NoHooks), 1 << 20)
            .expect("an empty store opens");
        let mut server =
            Self { machine: Machine::new(state, ME), index: 1, sequence: 0, sessions: 0 };
        server.apply(vec![
            Input::Command { command: Command::Origin { replaces: 0 }, ticket: None },
            Input::Command {
                command: Command::Bootstrap { cluster_id: 1, settings: Settings::default() },
                ticket: None,
            },
        ]);
        server
    }

    fn apply(&mut self, inputs: Vec<Input>) {
        let mut group = Group {
            origin: ME,
            first: self.sequence + 1,
            identities: vec![Vec::new()],
            commands: Vec::new(),
        };
        let mut work = Work::default();
        for input in inputs {
            self.sequence += 1;
            let (command, ticket) = match input {
                Input::Command { command, ticket } => (command, ticket),
                Input::Write { session, generation, is_local, op, ticket, .. } => (
                    Command::Write { session, generation, is_local, identities: 0, op },
                    Some(ticket),
                ),
                other => panic!("not a command: {other:?}"),
            };
            work.expect.extend(ticket.map(|ticket| (self.sequence, ticket)));
            group.commands.push(command);
        }
        self.index += 1;
        let batch = Batch { time_ms: 1, groups: vec![group], ..Batch::default() };
        work.entries.push((self.index, 1, batch.encode().into()));
        self.machine.apply(work).expect("it applies");
    }

    fn client(&mut self) -> Client {
        self.sessions += 1;
        let id = self.sessions;
        let policy = policy(60_000);
        let mut connection = Connection::new(
            Arc::clone(self.machine.published()),
            Outbox::new(id as u64, Box::new(|| {})),
            Arc::new(Nobody),
            Arc::new(policy),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            Vec::new(),
        );
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 10_000,
            session_id: 0,
            password: Bytes::from_static(&[0; 16]),
            read_only: Some(false),
        };
        let mut frame = BytesMut::new();
        request.encode(&mut frame);
        let payload = next_frame(&mut frame, 1 << 20).expect("whole").expect("whole");
        let mut inputs = Vec::new();
        connection.connect(payload, || (id, [0; 16]), &mut inputs).expect("it decodes");
        self.apply(inputs);
        let mut client = Client { connection, xid: 0, out: BytesMut::new() };
        client.connection.drain(&mut client.out, usize::MAX);
        next_frame(&mut client.out, 1 << 20).expect("whole").expect("a connect response");
        client
    }

    /// A write by another client, from request to publish.
    fn write(&mut self, client: &mut Client, request: &Request) {
        client.send(request);
        let mut inputs = Vec::new();
        assert!(client.connection.advance(&mut inputs).is_none(), "a write is no read");
        self.apply(inputs);
    }
}

impl Client {
    fn send(&mut self, request: &Request) {
        self.xid += 1;
        let mut frame = BytesMut::new();
        request.encode(self.xid, &mut frame);
        let payload = next_frame(&mut frame, 1 << 20).expect("whole").expect("whole");
        self.connection.receive(payload).expect("it decodes");
    }

    /// Sends a read and takes its view, slot and watch.
    fn take(&mut self, request: &Request) -> Read {
        self.send(request);
        self.connection.advance(&mut Vec::new()).expect("a read takes its view")
    }

    /// What is said by now: replies as `#xid err`, events as `TYPE path`.
    fn said(&mut self) -> Vec<String> {
        self.connection.drain(&mut self.out, usize::MAX);
        let mut said = Vec::new();
        while let Some(frame) = next_frame(&mut self.out, 1 << 24).expect("frames are whole") {
            let mut reader = Reader::new(frame);
            let header = ReplyHeader::decode(&mut reader).expect("a header");
            said.push(match header.xid {
                XID_EVENT => {
                    let event = WatchEvent::decode(header, &mut reader).expect("an event");
                    format!("{:?} {}", event.kind, event.path)
                }
                xid => format!("#{xid} {}", header.err),
            });
        }
        said
    }
}

fn create(path: &str) -> Request {
    Request::Create(proto::request::Create {
        op: OpCode::Create,
        path: path.to_owned(),
        data: Some(Bytes::new()),
        acl: vec![Acl::world(31)],
        flags: 0,
        ttl_ms: -1,
    })
}

fn get(path: &str) -> Request {
    Request::GetData { path: path.to_owned(), watch: true }
}

fn exists(path: &str) -> Request {
    Request::Exists { path: path.to_owned(), watch: true }
}

fn ls(path: &str) -> Request {
    Request::GetChildren { path: path.to_owned(), watch: true }
}

fn set(path: &str) -> Request {
    Request::SetData { path: path.to_owned(), data: Some(Bytes::new()), version: -1 }
}

fn delete(path: &str) -> Request {
    Request::Delete { path: path.to_owned(), version: -1 }
}

fn run(read: Read) {
    assert!(read.run().is_none(), "a small read ends in one turn");
}

#[test]
fn a_change_during_a_read_fires_its_watch_after_the_reply() {
    let mut server = Server::new();
    let (mut reader, mut writer) = (server.client(), server.client());
    server.write(&mut writer, &create("/a"));
    let read = reader.take(&get("/a"));
    server.write(&mut writer, &set("/a"));
    assert_eq!(reader.said(), [""; 0], "nothing overtakes the read");
    run(read);
    assert_eq!(reader.said(), ["#1 0", "NodeDataChanged /a"]);
    server.write(&mut writer, &set("/a"));
    assert_eq!(reader.said(), [""; 0], "the watch was used up");
}

#[test]
fn a_failed_read_takes_its_watch_and_its_event_back() {
    let mut server = Server::new();
    let (mut reader, mut writer) = (server.client(), server.client());
    let read = reader.take(&get("/a"));
    server.write(&mut writer, &create("/a"));
    run(read);
    assert_eq!(reader.said(), ["#1 -101"], "getData sets no watch where there is no znode");
    // And where nothing happened meanwhile.
    run(reader.take(&get("/b")));
    server.write(&mut writer, &create("/b"));
    assert_eq!(reader.said(), ["#2 -101"]);
    let counts = server.machine.published().watches().counts();
    assert_eq!(counts.watches, 0);
}

#[test]
fn exists_keeps_its_watch_where_there_is_no_znode() {
    let mut server = Server::new();
    let (mut reader, mut writer) = (server.client(), server.client());
    let read = reader.take(&exists("/a"));
    server.write(&mut writer, &create("/a"));
    run(read);
    assert_eq!(reader.said(), ["#1 -101", "NodeCreated /a"]);
}

#[test]
fn a_failed_read_leaves_an_earlier_watch_alone() {
    let mut server = Server::new();
    let (mut reader, mut writer) = (server.client(), server.client());
    run(reader.take(&exists("/a")));
    let read = reader.take(&get("/a"));
    server.write(&mut writer, &create("/a"));
    run(read);
    assert_eq!(reader.said(), ["#1 -101", "#2 -101", "NodeCreated /a"]);
}

#[test]
fn a_deletion_is_told_once_and_stays_if_either_watch_stays() {
    let mut server = Server::new();
    let (mut reader, mut writer) = (server.client(), server.client());
    server.write(&mut writer, &create("/a"));
    run(reader.take(&ls("/a")));
    run(reader.take(&exists("/b")));
    let read = reader.take(&get("/a"));
    server.write(&mut writer, &delete("/a"));
    run(read);
    assert_eq!(reader.said(), ["#1 0", "#2 -101", "#3 0", "NodeDeleted /a"]);
}

#[test]
fn set_watches_catches_up_and_hears_of_what_comes_meanwhile() {
    let mut server = Server::new();
    let (mut reader, mut writer) = (server.client(), server.client());
    for path in ["/a", "/b"] {
        server.write(&mut writer, &create(path));
    }
    let zxid = server.machine.published().view().zxid;
    server.write(&mut writer, &set("/a"));
    let list = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
    let read = reader.take(&Request::SetWatches(SetWatches {
        relative_zxid: zxid,
        data: list(&["/a", "/b"]),
        exist: list(&["/c"]),
        child: list(&["/a"]),
        ..SetWatches::default()
    }));
    // /a was missed: its data watch is used up by that, its child watch is not.
    server.write(&mut writer, &set("/a"));
    server.write(&mut writer, &delete("/a"));
    server.write(&mut writer, &set("/b"));
    server.write(&mut writer, &create("/c"));
    run(read);
    let expected =
        ["NodeDataChanged /a", "#1 0", "NodeDeleted /a", "NodeDataChanged /b", "NodeCreated /c"];
    assert_eq!(reader.said(), expected);
    assert_eq!(server.machine.published().watches().counts().watches, 0);
}

#[test]
fn a_watch_that_stands_in_two_lists_stays_if_one_of_them_keeps_it() {
    // A client that may not see an event keeps its exist watch, and may set a data watch later.
    let mut server = Server::new();
    let (mut writer, mut reader) = (server.client(), server.client());
    server.write(&mut writer, &create("/a"));
    let both = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
    run(reader.take(&Request::SetWatches(SetWatches {
        relative_zxid: server.machine.published().view().zxid,
        data: both(&["/a", "/b"]),
        exist: both(&["/a", "/b"]),
        ..SetWatches::default()
    })));
    server.write(&mut writer, &set("/a"));
    server.write(&mut writer, &create("/b"));
    let caught_up = ["NodeDeleted /b", "NodeCreated /a"];
    let heard = ["#1 0", "NodeDataChanged /a", "NodeCreated /b"];
    assert_eq!(reader.said(), [&caught_up[..], &heard[..]].concat());
}

#[test]
fn what_set_watches_withdraws_stays_for_a_read_that_asked_for_it_meanwhile() {
    let mut server = Server::new();
    let (mut reader, mut writer) = (server.client(), server.client());
    server.write(&mut writer, &create("/a"));
    server.write(&mut writer, &create("/b"));
    let read = reader.take(&Request::SetWatches(SetWatches {
        relative_zxid: 0,
        data: vec!["/a".to_owned()],
        child: vec!["/a".to_owned()],
        ..SetWatches::default()
    }));
    // The read behind a write takes its view while `setWatches` is under way.
    reader.send(&set("/b"));
    reader.send(&get("/a"));
    let mut inputs = Vec::new();
    assert!(reader.connection.advance(&mut inputs).is_none(), "the write is not published");
    server.apply(inputs);
    server.write(&mut writer, &set("/a"));
    assert!(reader.connection.advance(&mut Vec::new()).is_none(), "one read at a time");
    run(read);
    // Both of its lists have missed something.
    assert_eq!(reader.said(), ["NodeDataChanged /a", "NodeChildrenChanged /a", "#1 0", "#2 0"]);
    run(reader.connection.advance(&mut Vec::new()).expect("now the next read"));
    assert_eq!(reader.said(), ["#3 0", "NodeDataChanged /a"]);
    assert_eq!(server.machine.published().watches().counts().watches, 0);
}

#[test]
fn a_read_behind_writes_counts_until_it_is_answered() {
    let mut server = Server::new();
    let mut client = server.client();
    server.write(&mut client, &create("/a"));
    client.send(&set("/a"));
    client.send(&get("/a"));
    client.send(&exists("/a"));
    let mut inputs = Vec::new();
    assert!(client.connection.advance(&mut inputs).is_none(), "the write is not published");
    assert_eq!(client.connection.outstanding(), 3);
    server.apply(inputs);
    assert_eq!(client.connection.outstanding(), 2);
    let read = client.connection.advance(&mut Vec::new()).expect("the first read");
    assert_eq!(client.connection.outstanding(), 2);
    run(read);
    assert_eq!(client.connection.outstanding(), 1);
    run(client.connection.advance(&mut Vec::new()).expect("the second read"));
    assert_eq!(client.connection.outstanding(), 0);
    assert_eq!(client.said(), ["#1 0", "#2 0", "#3 0", "#4 0"]);
}

#[test]
fn later_writes_pass_a_read_that_holds_its_view() {
    let mut server = Server::new();
    let mut client = server.client();
    server.write(&mut client, &create("/a"));
    let read = client.take(&Request::GetChildren2 { path: "/".to_owned(), watch: false });
    server.write(&mut client, &create("/b"));
    client.send(&get("/b"));
    assert!(client.connection.advance(&mut Vec::new()).is_none(), "one read at a time");
    assert_eq!(client.said(), ["#1 0"]);
    let before = server.machine.published().view();
    assert!(before.node("/b").expect("the store works").is_some());
    run(read);
    client.connection.drain(&mut client.out, usize::MAX);
    let frame = next_frame(&mut client.out, 1 << 20).expect("whole").expect("the listing");
    let mut reader = Reader::new(frame);
    ReplyHeader::decode(&mut reader).expect("a header");
    let reply = proto::Reply::decode(OpCode::GetChildren2, &mut reader).expect("a listing");
    let proto::Reply::ChildrenStat(names, stat) = reply else { panic!("got {reply:?}") };
    assert_eq!((names, stat.num_children), (vec!["a".to_owned(), "zookeeper".to_owned()], 2));
    assert_eq!(client.said(), ["#3 0"]);
    run(client.connection.advance(&mut Vec::new()).expect("now the next read"));
    assert_eq!(client.said(), ["#4 0"]);
}

#[test]
fn a_big_listing_takes_turns() {
    let mut server = Server::new();
    let mut client = server.client();
    for at in 0..2500 {
        server.write(&mut client, &create(&format!("/n{at:04}")));
    }
    client.said();
    let read = client.take(&Request::GetChildren { path: "/".to_owned(), watch: false });
    let mut big = replica::BigReads::default();
    big.push(read.run().expect("2,501 names are too many for a turn"));
    assert!(!big.is_empty());
    // Other connections go on; the listing keeps its view.
    server.write(&mut client, &create("/later"));
    assert_eq!(client.said(), [""; 0]);
    while big.turn() {}
    client.connection.drain(&mut client.out, usize::MAX);
    let frame = next_frame(&mut client.out, 1 << 20).expect("whole").expect("the listing");
    let mut reader = Reader::new(frame);
    ReplyHeader::decode(&mut reader).expect("a header");
    let reply = proto::Reply::decode(OpCode::GetChildren, &mut reader).expect("a listing");
    let proto::Reply::Children(names) = reply else { panic!("got {reply:?}") };
    assert_eq!(names.len(), 2501);
    assert!(names.is_sorted());
    assert_eq!(client.said(), ["#2502 0"]);
}
