//! A znode that one client alone writes, so that it always knows what must be there: data, version
//! and, by multi, another znode for each second write. It also makes sequential znodes.

use proto::multi::{MultiOp, MultiResult};
use proto::{CreateMode, ErrorCode, Reply, Request};

use super::context::{Client, Context};
use crate::random::Random;
use crate::real::requests::{create, create_op, exists, get, set, sync};

/// How many sequential znodes of a client are there at most.
const SEQUENCE_MAX: usize = 20;

pub(super) fn path(number: usize) -> String {
    format!("/registers/{number}")
}

pub(super) fn lay_out(client: &mut Client<'_>, number: usize) {
    client.must(&create(&path(number), "0", CreateMode::Persistent));
}

struct Register<'a> {
    client: Client<'a>,
    number: usize,
    path: String,
    version: i32,
    /// Counts sequential znodes.
    made: usize,
    /// Those that are there, oldest first.
    sequence: Vec<String>,
}

pub(super) fn run(context: &Context, number: usize) {
    let mut random = Random::new(number as u64);
    let mut register = Register {
        client: Client::new(context, "register", number),
        number,
        path: path(number),
        version: 0,
        made: 0,
        sequence: Vec::new(),
    };
    while context.goes_on() {
        match random.below(10) {
            0..2 => register.set(register.version),
            // Nothing but the order of the session's connections keeps one that is late from counting.
            2..4 => register.set(-1),
            4..6 => register.multi(),
            6..8 => register.read(),
            _ => register.sequential(),
        }
    }
    let data = register.version.to_string();
    context.left().there.insert(register.path.clone(), data);
    register.client.close();
}

impl Register<'_> {
    fn fail(&self, text: &str) {
        self.client.context.fail(&format!("{}, version {}: {text}", self.path, self.version));
    }

    fn set(&mut self, version: i32) {
        let next = self.version + 1;
        match self.client.ask(&set(&self.path, &next.to_string(), version)) {
            Some((_, Some(Reply::Stat(stat)))) if stat.version == next => self.version = next,
            Some(other) => self.fail(&format!("a set gave {other:?}")),
            None => {
                self.find_out();
            }
        }
    }

    /// Sets, and creates or deletes another znode; both or neither.
    fn multi(&mut self) {
        let next = self.version + 1;
        let other = format!("/multi/{}-{next}", self.number);
        let ops = vec![
            MultiOp::Create(create_op(&other, "", CreateMode::Persistent)),
            MultiOp::SetData {
                path: self.path.clone(),
                data: Some(next.to_string().into()),
                version: self.version,
            },
        ];
        let done = match self.client.ask(&Request::Multi(ops)) {
            Some((_, Some(Reply::Multi(results)))) => match &results[..] {
                [MultiResult::Create(_), MultiResult::SetData(stat)] if stat.version == next => {
                    self.version = next;
                    true
                }
                _ => return self.fail(&format!("a multi gave {results:?}")),
            },
            Some(answer) => return self.fail(&format!("a multi gave {answer:?}")),
            None => match self.find_out() {
                Some(done) => done,
                None => return,
            },
        };
        let there = loop {
            match self.client.ask(&exists(&other)) {
                Some((header, _)) => break header.err == 0,
                None if !self.client.context.goes_on() => return,
                None => {}
            }
        };
        if there != done {
            self.fail(&format!("a multi: the set was done: {done}, the create: {there}"));
        }
        if there {
            self.delete(&other);
        }
    }

    /// Whether the set that has no answer was carried out. The session was attached again since:
    /// what its earlier connection sent can no more be.
    fn find_out(&mut self) -> Option<bool> {
        let (data, version) = self.look()?;
        let done = version == self.version + 1;
        if !(done || version == self.version) || data != version.to_string() {
            self.fail(&format!("after a set without an answer it is {data:?}, version {version}"));
            return None;
        }
        self.client.context.count(if done { "unanswered, done" } else { "unanswered, not done" });
        self.version = version;
        Some(done)
    }

    fn look(&mut self) -> Option<(String, i32)> {
        match self.client.must(&get(&self.path, false))? {
            Reply::Data(data, stat) => {
                let data = data.unwrap_or_default();
                Some((String::from_utf8_lossy(&data).into_owned(), stat.version))
            }
            other => {
                self.fail(&format!("a get gave {other:?}"));
                None
            }
        }
    }

    fn read(&mut self) {
        if let Some(seen) = self.look()
            && seen != (self.version.to_string(), self.version)
        {
            self.fail(&format!("reads {seen:?}"));
        }
    }

    /// Makes a sequential znode; if there is no answer, the check at the end looks for it.
    fn sequential(&mut self) {
        self.made += 1;
        let data = format!("{}:{}", self.number, self.made);
        let mode = CreateMode::PersistentSequential;
        match self.client.ask(&create("/sequence/n-", &data, mode)) {
            Some((_, Some(Reply::Path(path)))) => {
                if let Some(other) = self.client.context.left().sequence.insert(path.clone(), data)
                {
                    self.fail(&format!("{path} was made before, with {other}"));
                }
                self.sequence.push(path);
            }
            Some(answer) => self.fail(&format!("a create gave {answer:?}")),
            None => self.client.context.left().sequence_unknown.push(data),
        }
        if self.sequence.len() > SEQUENCE_MAX {
            let oldest = self.sequence.remove(0);
            if self.delete(&oldest) {
                self.client.context.left().sequence.remove(&oldest);
            }
        }
    }

    /// Deletes what is there; whether it is gone for sure.
    fn delete(&mut self, path: &str) -> bool {
        let mut again = false;
        loop {
            match self.client.ask(&Request::Delete { path: path.to_owned(), version: -1 }) {
                Some((header, _)) if header.err == 0 => return true,
                Some((header, _)) if again && header.err == ErrorCode::NoNode.code() => {
                    return true;
                }
                Some((header, _)) => {
                    self.fail(&format!("a delete of {path} gave {}", header.err));
                    return false;
                }
                None if !self.client.context.failures().is_empty() => return false,
                None => again = true,
            }
        }
    }
}

/// Everything that was acknowledged is there, and each sequential znode once.
pub(super) fn check(context: &Context) {
    let mut client = Client::new(context, "check", 0);
    client.must(&sync("/"));
    let there = context.left().there.clone();
    for (path, data) in there {
        match client.must(&get(&path, false)) {
            Some(Reply::Data(Some(found), _)) if found == data.as_bytes() => {}
            other => context.fail(&format!("{path}: expected {data}, got {other:?}")),
        }
    }
    let children = Request::GetChildren { path: "/sequence".to_owned(), watch: false };
    let Some(Reply::Children(names)) = client.must(&children) else { return };
    let mut expected = context.left().sequence.clone();
    let mut unknown = std::mem::take(&mut context.left().sequence_unknown);
    for name in names {
        let path = format!("/sequence/{name}");
        let Some(Reply::Data(Some(data), _)) = client.must(&get(&path, false)) else { continue };
        let data = String::from_utf8_lossy(&data).into_owned();
        if expected.remove(&path).is_some_and(|expected| expected == data) {
            continue;
        }
        match unknown.iter().position(|one| *one == data) {
            // Once: a second one would be a write carried out twice.
            Some(at) => drop(unknown.swap_remove(at)),
            None => context.fail(&format!("{path} with {data} is not expected")),
        }
    }
    for (path, data) in expected {
        context.fail(&format!("{path} with {data} was acknowledged and is not there"));
    }
    client.close();
}
