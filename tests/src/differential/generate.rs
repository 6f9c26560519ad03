//! Random requests over a small name space.

use bytes::{BufMut, Bytes, BytesMut};
use proto::request::{Create, SetWatches};
use proto::{MultiOp, OpCode, ReadOp, Request};

use super::request::{Draft, body};
use super::servers::Profile;
use super::values::{self, Reach};
use crate::random::Random;

/// Makes the requests of one seed.
pub(super) struct Generator {
    pub(super) random: Random,
    top: String,
    profile: Profile,
    /// Zxids that both servers had some time ago: what a client may have seen before it was away.
    pub(super) seen: [i64; 2],
}

impl Generator {
    pub(super) fn new(seed: u64, top: &str, profile: Profile) -> Self {
        Self { random: Random::new(seed), top: top.to_owned(), profile, seen: [0; 2] }
    }

    /// A request whose answer is awaited before anything else is sent.
    pub(super) fn alone(&mut self) -> Draft {
        match self.random.below(200) {
            0..=13 => self.auth(),
            14..=15 => self.sasl(),
            16..=18 => self.unknown(),
            19..=22 => self.garbage(),
            _ => {
                let draft = self.request(Reach::All);
                if self.random.percent(4) { self.malformed(draft) } else { draft }
            }
        }
    }

    /// Requests of one session that are sent together.
    pub(super) fn burst(&mut self) -> Vec<Draft> {
        let count = 3 + self.random.below(12);
        (0..count)
            .map(|_| {
                let draft = self.request(Reach::NoQuota);
                if self.random.percent(2) { self.malformed(draft) } else { draft }
            })
            .collect()
    }

    /// A request that is understood and does not end the connection.
    fn request(&mut self, reach: Reach) -> Draft {
        let random = &mut self.random;
        let path = |random: &mut Random| values::path(random, &self.top, reach);
        let watch = random.percent(35);
        let request = match random.below(200) {
            0..=44 => Request::Create(self.create(reach)),
            45..=66 => Request::Delete { path: path(random), version: values::version(random) },
            67..=82 => {
                let path = path(random);
                let data = values::data(random, &path);
                Request::SetData { path, data, version: values::version(random) }
            }
            83..=95 => Request::Exists { path: path(random), watch },
            96..=107 => Request::GetData { path: path(random), watch },
            108..=115 => Request::GetChildren { path: path(random), watch },
            116..=123 => Request::GetChildren2 { path: path(random), watch },
            124..=128 => Request::GetAcl { path: path(random) },
            129..=136 => {
                let path = path(random);
                // The roots stay open: a tree that nobody may write to shows nothing.
                if reach == Reach::NoQuota {
                    // ZooKeeper checks what is sent right behind a setACL against the old ACL or
                    // the new one, as chance has it.
                    return Request::GetAcl { path }.into();
                }
                let closed = path == self.top || path == "/" || path.starts_with("/zookeeper");
                let acl = if closed { vec![proto::Acl::world(31)] } else { values::acl(random) };
                Request::SetAcl { path, acl, version: values::version(random) }
            }
            137..=140 => Request::Sync { path: path(random) },
            141..=143 => Request::Ping,
            144..=163 => return self.multi(),
            164..=168 => return self.multi_read(),
            169..=172 => Request::AddWatch {
                path: path(random),
                mode: random.pick(&[0, 1, 0, 1, 0, 1, 2, -1]),
            },
            173..=177 => Request::RemoveWatches { path: path(random), kind: kind(random) },
            178..=182 => Request::CheckWatches { path: path(random), kind: kind(random) },
            183..=186 => return self.set_watches(),
            187..=189 => Request::GetEphemerals {
                prefix: random.pick(&[
                    self.top.clone(),
                    "/".into(),
                    String::new(),
                    format!("{}/a", self.top),
                    " ".into(),
                    "nothing".into(),
                ]),
            },
            190..=192 => Request::GetAllChildrenNumber { path: path(random) },
            193..=195 => Request::WhoAmI,
            _ => Request::Reconfig {
                joining: random.pick(&["", "server.2=127.0.0.1:2888:3888;2181", "nonsense"]).into(),
                leaving: random.pick(&["", "3"]).into(),
                new_members: String::new(),
                config_id: random.pick(&[-1, 0, 7]),
            },
        };
        request.into()
    }

    fn create(&mut self, reach: Reach) -> Create {
        let random = &mut self.random;
        let (op, flags, ttl_ms) = values::create_mode(random, self.profile == Profile::Strict);
        let path = values::path(random, &self.top, reach);
        let data = values::data(random, &path);
        Create { op, path, data, acl: values::acl(random), flags, ttl_ms }
    }

    fn multi(&mut self) -> Draft {
        let count = self.random.pick(&[0, 1, 2, 2, 3, 3, 4, 6]);
        let ops: Vec<MultiOp> = (0..count).map(|_| self.multi_op()).collect();
        if self.random.percent(10) {
            let body = body(&Request::Multi(ops.clone()));
            return self.illegal(OpCode::Multi, &body, format!("{ops:?}"));
        }
        Request::Multi(ops).into()
    }

    fn multi_op(&mut self) -> MultiOp {
        // An operation that fails fails all of them: most should not.
        let reach = Reach::NoQuota;
        match self.random.below(12) {
            0..=4 => {
                let mut create = self.create(reach);
                if self.random.percent(60) {
                    create.flags = 2;
                    create.op = self.random.pick(&[OpCode::Create, OpCode::Create2]);
                    create.ttl_ms = -1;
                    create.acl = vec![proto::Acl::world(31)];
                    create.path = format!("{}/a", self.top);
                }
                if self.profile == Profile::Full && create.flags == 4 {
                    // In a multi this makes a container, which may be reaped at any time.
                    create.flags = 0;
                }
                MultiOp::Create(create)
            }
            5..=6 => MultiOp::Delete {
                path: values::path(&mut self.random, &self.top, reach),
                version: values::version(&mut self.random),
            },
            7..=8 => {
                let path = values::path(&mut self.random, &self.top, reach);
                let data = values::data(&mut self.random, &path);
                MultiOp::SetData { path, data, version: values::version(&mut self.random) }
            }
            9 => MultiOp::SetData { path: self.top.clone(), data: None, version: -1 },
            10 => MultiOp::Check { path: self.top.clone(), version: -1 },
            _ => MultiOp::Check {
                path: values::path(&mut self.random, &self.top, reach),
                version: values::version(&mut self.random),
            },
        }
    }

    fn multi_read(&mut self) -> Draft {
        let count = self.random.pick(&[0, 1, 2, 3, 4]);
        let ops: Vec<ReadOp> = (0..count)
            .map(|_| {
                let path = values::path(&mut self.random, &self.top, Reach::NoQuota);
                if self.random.percent(60) {
                    ReadOp::GetData(path)
                } else {
                    ReadOp::GetChildren(path)
                }
            })
            .collect();
        if self.random.percent(12) {
            let body = body(&Request::MultiRead(ops.clone()));
            return self.illegal(OpCode::MultiRead, &body, format!("{ops:?}"));
        }
        Request::MultiRead(ops).into()
    }

    /// A multi or multiRead with one more operation at its end, of a kind that it may not hold.
    fn illegal(&mut self, op: OpCode, legal: &Bytes, text: String) -> Draft {
        let path = self.top.clone();
        let request = match self.random.below(6) {
            0 => Request::SetAcl { path, acl: vec![proto::Acl::world(31)], version: -1 },
            1 => Request::Exists { path, watch: false },
            2 => Request::Sync { path },
            3 if op == OpCode::Multi => Request::GetData { path, watch: false },
            3 => Request::SetData { path, data: None, version: -1 },
            4 if op == OpCode::Multi => Request::GetChildren { path, watch: false },
            4 => Request::Delete { path, version: -1 },
            _ => Request::GetChildren2 { path, watch: false },
        };
        let number = if self.random.percent(15) { 999 } else { request.opcode() as i32 };
        // The header that ends the list is 9 bytes.
        let mut out = BytesMut::from(&legal[..legal.len() - 9]);
        out.put_i32(number);
        out.put_u8(0);
        out.put_i32(-1);
        out.put_slice(&body(&request));
        out.put_slice(&legal[legal.len() - 9..]);
        let text = format!("{} of {text}, then {number}: {request:?}", op.name());
        Draft::raw(op as i32, out.freeze(), text)
    }

    fn set_watches(&mut self) -> Draft {
        let mut paths = |most: usize| -> Vec<String> {
            let count = self.random.below(most + 1);
            (0..count).map(|_| values::path(&mut self.random, &self.top, Reach::NoQuota)).collect()
        };
        let mut watches = SetWatches {
            data: paths(2),
            exist: paths(2),
            child: paths(2),
            ..SetWatches::default()
        };
        watches.persistent = paths(1);
        watches.recursive = paths(1);
        watches.relative_zxid = self.random.pick(&[0, 1, 1, i64::MAX]);
        // 1 stands for the zxid noted before, which is another on each server.
        let zxids = (watches.relative_zxid == 1).then_some(self.seen);
        let request = if self.random.percent(50) {
            Request::SetWatches2(watches)
        } else {
            (watches.persistent, watches.recursive) = (Vec::new(), Vec::new());
            Request::SetWatches(watches)
        };
        Draft { zxids, ..request.into() }
    }

    fn auth(&mut self) -> Draft {
        let random = &mut self.random;
        let choices: [(&str, &[u8]); 14] = [
            ("digest", b"bob:pw"),
            ("digest", b"bob:pw"),
            ("digest", b"bob:pw"),
            ("digest", b"ann:pw"),
            ("digest", b"ann:pw"),
            ("digest", b"super:test"),
            ("digest", b"super:test"),
            ("digest", b"super:wrong"),
            ("digest", b"nobody"),
            ("digest", b"a:b:c"),
            ("ip", b""),
            ("nosuch", b"x"),
            ("world", b"anyone"),
            ("sasl", b"jaasuser"),
        ];
        let (scheme, auth) = random.pick(&choices);
        let request = Request::Auth { scheme: scheme.into(), auth: Bytes::from_static(auth) };
        let mut draft = Draft::from(request);
        if random.percent(10) {
            draft.xid = None;
        }
        draft
    }

    /// Credentials of the superuser.
    pub(super) fn super_user() -> Draft {
        let auth = Bytes::from_static(b"super:test");
        Request::Auth { scheme: "digest".into(), auth }.into()
    }

    fn sasl(&mut self) -> Draft {
        let token: &[u8] = self.random.pick(&[&b"garbage"[..], b"username=\"x\"", b"\0\xff"]);
        Request::Sasl { token: Bytes::from_static(token) }.into()
    }

    fn unknown(&mut self) -> Draft {
        let opcode =
            self.random.pick(&[13, 13, 10, 23, 99, 108, 201, 999, 0, -1, -12, i32::MAX, i32::MIN]);
        let request = Request::Check { path: self.top.clone(), version: -1 };
        Draft::raw(opcode, body(&request), format!("operation {opcode}"))
    }

    /// Bytes that are no request: they end the connection.
    fn garbage(&mut self) -> Draft {
        let bytes: &[u8] = self.random.pick(&[
            &[0, 0, 0, 0][..],
            &[0, 0, 0, 4, 0, 0, 0, 1],
            &[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0],
            &[0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
            &[0x7f, 0xff, 0xff, 0xff],
            &[0x00, 0x10, 0x00, 0x00],
            &[0x80, 0, 0, 0],
        ]);
        Draft::garbage(bytes, format!("bytes {bytes:02x?}"))
    }

    /// The request cut short, or with a wrong length in front of its first field.
    fn malformed(&mut self, draft: Draft) -> Draft {
        let len = draft.body.len();
        let Some(op) = draft.op().filter(|_| len > 4 && draft.bytes.is_none()) else {
            return draft;
        };
        let starts_with_path = !matches!(
            op,
            OpCode::Multi
                | OpCode::MultiRead
                | OpCode::SetWatches
                | OpCode::SetWatches2
                | OpCode::Auth
        );
        let (body, how) = if starts_with_path && self.random.percent(40) {
            let length = self.random.pick(&[-2, i32::MIN, i32::MAX, 100_000, 3_000_000]);
            let mut body = BytesMut::new();
            body.put_i32(length);
            body.put_slice(&draft.body[4..]);
            (body.freeze(), format!("with a first length of {length}"))
        } else {
            let left = self.random.below(len);
            (draft.body.slice(..left), format!("cut after {left} of {len} bytes"))
        };
        let text = format!("{how}: {}", draft.text);
        Draft { body, text, ..draft }
    }
}

fn kind(random: &mut Random) -> i32 {
    random.pick(&[1, 2, 3, 4, 5, 1, 2, 3, 0, 6])
}
