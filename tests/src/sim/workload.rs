//! What clients ask for: few paths, so that they meet; bursts, so that reads stand between writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::request::Create;
use proto::{MultiOp, OpCode, ReadOp, Request};
use replica::log::SimRng;

use super::model;

/// Where nearly everything happens.
pub const ROOT: &str = "/s";
const DIRS: [&str; 3] = ["/s/a", "/s/b", "/s/c"];
/// Where the ephemerals of a session with very many go.
pub const CROWD: &str = "/s/crowd";
/// How many of them one multi creates.
const CROWD_PER_MULTI: u64 = 150;

/// What one client knows, as far as it matters for what it asks.
#[derive(Debug, Default)]
pub struct Knows {
    /// Sequential znodes that it made and has not deleted.
    pub sequential: Vec<String>,
    /// Versions that it has seen.
    pub versions: BTreeMap<String, i32>,
}

/// Makes requests.
pub struct Workload {
    /// Whether there are plugins, one of which decides who gets in somewhere.
    plugins: bool,
    tokens: u64,
}

/// A znode below [`model::GATED`].
fn gated(rng: &mut SimRng) -> String {
    format!("{}/x{}", model::GATED, rng.below(4))
}

fn pick<'a>(rng: &mut SimRng, from: &[&'a str]) -> &'a str {
    from[rng.below(from.len() as u64) as usize]
}

/// A directory, or a znode in one.
fn path(rng: &mut SimRng) -> String {
    let dir = pick(rng, &DIRS);
    if rng.chance(20) { dir.to_owned() } else { format!("{dir}/x{}", rng.below(3)) }
}

fn leaf(rng: &mut SimRng) -> String {
    format!("{}/x{}", pick(rng, &DIRS), rng.below(3))
}

impl Workload {
    /// One that has asked for nothing yet; with plugins, or without.
    pub fn new(plugins: bool) -> Self {
        Self { plugins, tokens: 0 }
    }

    /// Data that no other write has; now and then too long to stand in a znode's row.
    fn data(&mut self, rng: &mut SimRng) -> Option<Bytes> {
        self.tokens += 1;
        let mut data = format!("v{}", self.tokens).into_bytes();
        if rng.chance(4) {
            data.resize(data.len() + 1100, b'.');
        }
        Some(Bytes::from(data))
    }

    fn create(&mut self, rng: &mut SimRng, path: String, op: OpCode, flags: i32) -> Create {
        let data = self.data(rng);
        let acl = model::acl(rng.chance(15));
        let ttl_ms = if flags == 5 { 300 + rng.below(3000) as i64 } else { -1 };
        Create { op, path, data, acl, flags, ttl_ms }
    }

    fn any_create(&mut self, rng: &mut SimRng) -> Create {
        let two = if rng.chance(50) { OpCode::Create } else { OpCode::Create2 };
        match rng.below(20) {
            0 => {
                let path = format!("{ROOT}/k{}", rng.below(2));
                self.create(rng, path, OpCode::CreateContainer, 4)
            }
            1 => {
                let path = format!("{ROOT}/k{}/c", rng.below(2));
                self.create(rng, path, two, 0)
            }
            2 => {
                let path = format!("{ROOT}/t{}", rng.below(2));
                self.create(rng, path, OpCode::CreateTtl, 5)
            }
            3 => {
                let path = pick(rng, &DIRS).to_owned();
                self.create(rng, path, two, 0)
            }
            4 => {
                let path = format!("{}/y", leaf(rng));
                self.create(rng, path, two, 0)
            }
            5 | 6 => {
                let path = format!("{}/n-", pick(rng, &DIRS));
                self.create(rng, path, two, 2)
            }
            7 | 8 => {
                let path = format!("{}/e-", pick(rng, &DIRS));
                self.create(rng, path, two, 3)
            }
            9..=13 => {
                let path = leaf(rng);
                self.create(rng, path, two, 1)
            }
            _ => {
                let path = leaf(rng);
                self.create(rng, path, two, 0)
            }
        }
    }

    fn delete(&mut self, rng: &mut SimRng, knows: &mut Knows) -> (String, i32) {
        if rng.chance(30)
            && let Some(path) = knows.sequential.pop()
        {
            return (path, -1);
        }
        match rng.below(12) {
            0 => (format!("{ROOT}/k{}/c", rng.below(2)), -1),
            1 => (pick(rng, &DIRS).to_owned(), -1),
            2 => (format!("{}/y", leaf(rng)), -1),
            _ => {
                let path = leaf(rng);
                let version = self.version(rng, knows, &path);
                (path, version)
            }
        }
    }

    fn version(&self, rng: &mut SimRng, knows: &Knows, path: &str) -> i32 {
        match rng.below(4) {
            0 => knows.versions.get(path).copied().unwrap_or(0),
            _ => -1,
        }
    }

    fn set(&mut self, rng: &mut SimRng, knows: &Knows) -> (String, Option<Bytes>, i32) {
        let path = if rng.chance(10) { format!("{ROOT}/t0") } else { path(rng) };
        let version = self.version(rng, knows, &path);
        (path, self.data(rng), version)
    }

    fn multi(&mut self, rng: &mut SimRng, knows: &mut Knows) -> Request {
        let mut ops = Vec::new();
        for _ in 0..1 + rng.below(4) {
            ops.push(match rng.below(8) {
                0..=2 => MultiOp::Create(self.any_create(rng)),
                3 => {
                    let (path, version) = self.delete(rng, knows);
                    MultiOp::Delete { path, version }
                }
                4 => MultiOp::Check { path: path(rng), version: -1 },
                _ => {
                    let (path, data, version) = self.set(rng, knows);
                    MultiOp::SetData { path, data, version }
                }
            });
        }
        if rng.chance(25) {
            // Certain to fail, after all the others.
            ops.push(MultiOp::Delete { path: format!("{ROOT}/none"), version: -1 });
        }
        Request::Multi(ops)
    }

    /// A write where a plugin decides who gets in. Nobody watches there: whom it lets in changes.
    fn gated_write(&mut self, rng: &mut SimRng) -> Request {
        let path = gated(rng);
        match rng.below(8) {
            0..=2 => {
                let new = self.create(rng, path, OpCode::Create, 0);
                let badge = rng.chance(50);
                let acl = if badge { model::badge_acl() } else { model::acl(false) };
                Request::Create(Create { acl, ..new })
            }
            3 | 4 => Request::Delete { path, version: -1 },
            5 => {
                let (data, other) = (self.data(rng), gated(rng));
                let set = MultiOp::SetData { path, data, version: -1 };
                Request::Multi(vec![set, MultiOp::Delete { path: other, version: -1 }])
            }
            _ => Request::SetData { path, data: self.data(rng), version: -1 },
        }
    }

    fn gated_read(rng: &mut SimRng) -> Request {
        let path = gated(rng);
        match rng.below(5) {
            0 => Request::Exists { path, watch: false },
            1 => Request::GetChildren { path, watch: false },
            2 => Request::MultiRead(vec![ReadOp::GetData(path), ReadOp::GetData(gated(rng))]),
            _ => Request::GetData { path, watch: false },
        }
    }

    /// A write.
    pub fn write(&mut self, rng: &mut SimRng, knows: &mut Knows) -> Request {
        if self.plugins && rng.chance(15) {
            return self.gated_write(rng);
        }
        match rng.below(20) {
            0..=6 => Request::Create(self.any_create(rng)),
            7..=9 => {
                let (path, version) = self.delete(rng, knows);
                Request::Delete { path, version }
            }
            10..=15 => {
                let (path, data, version) = self.set(rng, knows);
                Request::SetData { path, data, version }
            }
            16 => {
                let acl = model::acl(rng.chance(40));
                Request::SetAcl { path: path(rng), acl, version: -1 }
            }
            _ => self.multi(rng, knows),
        }
    }

    /// A read, with a watch more often than not.
    pub fn read(&mut self, rng: &mut SimRng) -> Request {
        if self.plugins && rng.chance(10) {
            return Self::gated_read(rng);
        }
        let watch = rng.chance(60);
        let at = path(rng);
        match rng.below(24) {
            0..=5 => Request::GetData { path: at, watch },
            6..=9 => Request::Exists { path: at, watch },
            10..=12 => Request::GetChildren { path: at, watch },
            13 | 14 => Request::GetChildren2 { path: at, watch },
            15 => Request::AddWatch { path: at, mode: 0 },
            16 => {
                let path =
                    if rng.chance(30) { ROOT.to_owned() } else { pick(rng, &DIRS).to_owned() };
                Request::AddWatch { path, mode: 1 }
            }
            17 => Request::RemoveWatches { path: at, kind: 1 + rng.below(5) as i32 },
            18 => Request::CheckWatches { path: at, kind: 1 + rng.below(5) as i32 },
            19 => Request::GetAcl { path: at },
            20 => Request::GetAllChildrenNumber { path: pick(rng, &DIRS).to_owned() },
            21 => Request::GetEphemerals { prefix: "/".to_owned() },
            22 => Request::Sync { path: at },
            _ => {
                let ops = vec![ReadOp::GetData(at), ReadOp::GetChildren(path(rng))];
                Request::MultiRead(ops)
            }
        }
    }

    /// Some requests at once. Often writes of a znode and reads by turns, of it or of another one.
    pub fn burst(&mut self, rng: &mut SimRng, knows: &mut Knows) -> Vec<Request> {
        if rng.chance(25) {
            let (written, other) = (path(rng), path(rng));
            let set = |workload: &mut Self, rng: &mut SimRng| Request::SetData {
                path: written.clone(),
                data: workload.data(rng),
                version: -1,
            };
            let mut burst = vec![set(self, rng)];
            for _ in 0..1 + rng.below(4) {
                let watch = rng.chance(60);
                let path = if rng.chance(70) { written.clone() } else { other.clone() };
                burst.push(match rng.chance(70) {
                    true => Request::GetData { path, watch },
                    false => Request::Exists { path, watch },
                });
                burst.push(set(self, rng));
            }
            return burst;
        }
        let requests = 1 + rng.below(5);
        let one = |_| if rng.chance(50) { self.write(rng, knows) } else { self.read(rng) };
        (0..requests).map(one).collect()
    }

    /// What makes the znodes that all others need.
    pub fn first(&mut self, rng: &mut SimRng) -> Vec<Request> {
        let gated = self.plugins.then_some(model::GATED);
        let all = [ROOT].into_iter().chain(DIRS).chain([CROWD]).chain(gated);
        let acl = model::acl(false);
        all.map(|path| {
            let new = self.create(rng, path.to_owned(), OpCode::Create, 0);
            Request::Create(Create { acl: acl.clone(), ..new })
        })
        .collect()
    }

    /// A multi of many ephemerals.
    pub fn crowd(&mut self, rng: &mut SimRng) -> Request {
        let one = |_| {
            let path = format!("{CROWD}/e{}", self.tokens + 1);
            MultiOp::Create(self.create(rng, path, OpCode::Create, 1))
        };
        Request::Multi((0..CROWD_PER_MULTI).map(one).collect())
    }
}
