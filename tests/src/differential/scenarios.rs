//! What chance would not bring about: quotas, the passing of time, odd connects, and the intended
//! differences, each once.

use bytes::{BufMut, Bytes, BytesMut};
use proto::request::Create;
use proto::{Acl, ConnectRequest, EventType, MultiOp, OpCode, Request};

use super::mapping::Side;
use super::request::{Draft, body};
use super::run::{LONG_MS, Mismatch, Run};
use super::session;
use super::told::Told;

fn create(path: String, op: OpCode, flags: i32, ttl_ms: i64, data: &str) -> Create {
    let data = Some(Bytes::copy_from_slice(data.as_bytes()));
    Create { op, path, data, acl: vec![Acl::world(31)], flags, ttl_ms }
}

fn plain(path: String, data: &str) -> Draft {
    Request::Create(create(path, OpCode::Create, 0, -1, data)).into()
}

fn delete(path: String) -> Draft {
    Request::Delete { path, version: -1 }.into()
}

/// Whether a deletion of `path` was told, and what comes after it.
fn deleted(path: &str) -> impl Fn(&[Told]) -> bool {
    move |told| {
        told.iter().any(|told| {
            matches!(told, Told::Event { kind: EventType::NodeDeleted, path: at, .. } if at == path)
        })
    }
}

impl Run<'_> {
    /// The znodes that a seed begins with: `top`, and below it two with quotas, hard and soft.
    pub(super) fn prepare(&mut self, top: &str) -> Result<(), Mismatch> {
        self.step(0, &[plain(top.to_owned(), "")])?;
        self.step(0, &[plain(format!("/zookeeper/quota{top}"), "")])?;
        let limits = [
            ("hard", "count=-1,bytes=-1=;byteHardLimit=60;countHardLimit=5"),
            ("soft", "count=2,bytes=10"),
        ];
        for (name, limits) in limits {
            self.quota(top, name, limits)?;
        }
        // Too many bytes, then as many as there may be, then too many of both kinds.
        for (name, bytes) in [("big", 61), ("fits", 60), ("more", 1), ("none", 0)] {
            let draft = plain(format!("{top}/hard/{name}"), &"x".repeat(bytes));
            self.step(0, &[draft])?;
        }
        let path = format!("{top}/hard/fits");
        let data = Some(Bytes::from(vec![b'x'; 61]));
        self.step(0, &[Request::SetData { path: path.clone(), data, version: -1 }.into()])?;
        self.step(0, &[Request::SetData { path, data: None, version: -1 }.into()])
    }

    /// A znode with a quota, as `setquota` makes it.
    fn quota(&mut self, top: &str, name: &str, limits: &str) -> Result<(), Mismatch> {
        self.step(0, &[plain(format!("{top}/{name}"), "")])?;
        let quota = format!("/zookeeper/quota{top}/{name}");
        self.step(0, &[plain(quota.clone(), "")])?;
        self.step(0, &[plain(format!("{quota}/zookeeper_limits"), limits)])?;
        self.step(0, &[plain(format!("{quota}/zookeeper_stats"), "count=0,bytes=0")])?;
        let stats = format!("{quota}/zookeeper_stats");
        self.step(0, &[Request::GetData { path: stats, watch: false }.into()])
    }

    /// A session that falls silent: its ephemerals go, and so does it. `leaves` says whether its
    /// connection is gone before, or closed by the server.
    pub(super) fn expiry(&mut self, top: &str, leaves: bool) -> Result<(), Mismatch> {
        let path = format!("{top}/expires");
        let who = self.open("expiring", &session::new_session(1500))?;
        let watch = Request::AddWatch { path: top.to_owned(), mode: 1 };
        self.step(
            0,
            &[watch.into(), Request::GetChildren { path: top.into(), watch: true }.into()],
        )?;
        let ephemeral = create(path.clone(), OpCode::Create, 1, -1, "");
        self.step(who, &[Request::Create(ephemeral).into()])?;
        let sequential = create(format!("{path}-"), OpCode::Create2, 3, -1, "");
        self.step(who, &[Request::Create(sequential).into()])?;
        let mut expiring = self.sessions.remove(who);
        if leaves {
            expiring.wires = None;
        }
        self.wait_for(0, deleted(&path))?;
        let told = Side::BOTH.map(|side| expiring.hear(side, &[Request::Ping.into()]));
        if !leaves && told.iter().any(|told| *told != [Told::Closed]) {
            let [z, v] = told.map(|told| format!("{told:?}"));
            return Err(self.mismatch("the connection of an expired session", &z, &v));
        }
        self.tally.other("sessions expired");
        let requests = expiring.attach(self.last(), 1500);
        self.connect("an expired session", &requests.map(|r| session::frame(&r)), true)?;
        let kind = 3;
        self.step(0, &[Request::RemoveWatches { path: top.to_owned(), kind }.into()])
    }

    /// A container that loses its last child, and a TTL node that nobody sets.
    pub(super) fn reaping(&mut self, top: &str) -> Result<(), Mismatch> {
        let watch = Request::AddWatch { path: top.to_owned(), mode: 1 };
        self.step(0, &[watch.into()])?;
        let container = format!("{top}/container");
        let made = create(container.clone(), OpCode::CreateContainer, 4, -1, "");
        self.step(1, &[Request::Create(made).into()])?;
        self.step(1, &[plain(format!("{container}/child"), "")])?;
        self.ask(1, &[delete(format!("{container}/child"))])?;
        self.wait_for(0, deleted(&container))?;
        self.tally.other("containers reaped");

        let ttl = format!("{top}/ttl");
        let made = create(ttl.clone(), OpCode::CreateTtl, 5, 300, "");
        self.ask(1, &[Request::Create(made).into()])?;
        self.wait_for(0, deleted(&ttl))?;
        self.tally.other("TTL nodes reaped");
        self.step(0, &[Request::RemoveWatches { path: top.to_owned(), kind: 3 }.into()])
    }

    /// First packets of every kind. None of them leaves a session behind.
    pub(super) fn odd_connects(&mut self) -> Result<(), Mismatch> {
        let new = session::new_session;
        let opened: [(&str, ConnectRequest); 7] = [
            ("a timeout of 0", new(0)),
            ("a negative timeout", new(-5)),
            ("a timeout that is too long", new(i32::MAX)),
            ("without the read-only byte", ConnectRequest { read_only: None, ..new(5000) }),
            ("content with read-only", ConnectRequest { read_only: Some(true), ..new(5000) }),
            ("another protocol", ConnectRequest { protocol_version: 7, ..new(5000) }),
            (
                "a short password",
                ConnectRequest { password: Bytes::from_static(b"x"), ..new(5000) },
            ),
        ];
        for (text, request) in opened {
            let who = self.open(text, &request)?;
            self.barrier()?;
            self.close(who)?;
        }
        let mut last = self.last();
        let unknown = last.map(|last| ConnectRequest {
            session_id: 0x1234,
            last_zxid_seen: last,
            read_only: None,
            ..new(5000)
        });
        self.connect("an unknown session", &unknown.map(|r| session::frame(&r)), true)?;
        last = last.map(|last| last + 1000);
        let ahead = last.map(|last| ConnectRequest { last_zxid_seen: last, ..new(5000) });
        self.connect("from the future", &ahead.map(|r| session::frame(&r)), false)?;
        let whole = session::frame(&new(5000));
        for len in [0, 4, 20, 43] {
            let mut cut = BytesMut::new();
            cut.put_i32(len);
            cut.put_slice(&whole[4..4 + usize::try_from(len).expect("short")]);
            let cut = cut.freeze();
            self.connect(&format!("cut after {len} bytes"), &[cut.clone(), cut], false)?;
        }
        for bytes in [&[0xff; 8][..], &[0x7f, 0, 0, 0], b"GET / HTTP/1.1\r\n\r\n"] {
            let bytes = Bytes::copy_from_slice(bytes);
            self.connect(&format!("{bytes:?}"), &[bytes.clone(), bytes], false)?;
        }
        self.barrier()
    }

    /// A multi that goes over a hard quota only as a whole.
    pub(super) fn quota_in_multi(&mut self, top: &str) -> Result<(), Mismatch> {
        self.quota(top, "tight", "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=2")?;
        let paths = [format!("{top}/tight/1"), format!("{top}/tight/2")];
        let made = |path: &String| MultiOp::Create(create(path.clone(), OpCode::Create, 0, -1, ""));
        let both = Request::Multi(paths.iter().map(made).collect());
        self.step(0, &[Draft::from(both).when("quota-in-multi")])?;
        for path in paths {
            self.step(0, &[delete(path).when("after-quota-in-multi")])?;
        }
        self.step(0, &[delete(format!("{top}/tight"))])
    }

    /// A path that is longer than Vivarium's store takes.
    pub(super) fn long_path(&mut self, top: &str) -> Result<(), Mismatch> {
        let path = format!("{top}/a/{}", "x".repeat(70_000));
        self.step(0, &[Request::Exists { path: path.clone(), watch: false }.into()])?;
        // A parent of its own, which goes again: only ZooKeeper's has had a child.
        self.step(0, &[plain(format!("{top}/long"), "")])?;
        let path = format!("{top}/long/{}", "x".repeat(70_000));
        self.step(0, &[plain(path.clone(), "").when("long-path")])?;
        self.step(0, &[delete(path).when("long-path")])?;
        self.step(0, &[delete(format!("{top}/long"))])
    }

    /// A client that asks for what only the server itself should do.
    pub(super) fn internal(&mut self, top: &str) -> Result<(), Mismatch> {
        // ZooKeeper reads the session's new timeout from the body.
        let body_of_create = Bytes::copy_from_slice(&LONG_MS.to_be_bytes());
        let draft = Draft::raw(OpCode::CreateSession as i32, body_of_create, "createSession");
        self.step(1, &[draft])?;
        self.attach(1)?;
        self.barrier()?;
        let write = body(&Request::Multi(vec![MultiOp::Delete { path: top.into(), version: 99 }]));
        self.step(1, &[Draft::raw(OpCode::MultiRead as i32, write, "a delete in a multiRead")])?;
        let request = Request::DeleteContainer { path: format!("{top}/nosuch") };
        let draft =
            Draft::raw(OpCode::DeleteContainer as i32, body(&request), format!("{request:?}"));
        self.step(1, &[draft])?;
        self.attach(1)?;
        self.barrier()
    }
}
