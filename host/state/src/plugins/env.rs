//! What a plugin may read and write during a call, counted: the one [`Env`] there is, over whatever it
//! reads from.
//!
//! Invariants:
//! * Once something was refused, the call has failed, whatever the hook makes of it.

use std::sync::Arc;

use bytes::Bytes;

use super::binding::Point;
use super::registry::{Live, store_key, store_range};
use crate::fault::Fault;
use crate::hooks::{Env, EnvError, FaultKind, Node, Pairs, PluginFault};
use crate::znode::Znode;

/// How long a key of a private store may be, and a value, in bytes.
const KEY_BYTES_MAX: usize = 1 << 10;
const VALUE_BYTES_MAX: usize = 64 << 10;
/// How many pairs a scan gives at most, and how many names a list.
const SCANNED_MAX: usize = 256;
const LISTED_MAX: usize = 1_000;

/// What an environment reads from, and perhaps writes to.
pub(crate) trait Ground {
    /// The znode at a path.
    fn node(&mut self, path: &str) -> Result<Option<Arc<Znode>>, Fault>;

    /// Its data.
    fn data(&mut self, path: &str, node: &Znode) -> Result<Option<Bytes>, Fault>;

    /// Up to `most` names of its children, after `after`.
    fn children(&mut self, path: &str, after: &str, most: usize) -> Result<Vec<String>, Fault>;

    /// A row of the private stores.
    fn row(&mut self, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Up to `most` of these rows in `[from, to)`.
    fn rows(&mut self, from: &[u8], to: &[u8], most: usize) -> Result<Vec<(Bytes, Bytes)>, Fault>;

    /// How much the private store of this id holds, in bytes.
    fn store_bytes(&mut self, id: u32) -> u64;

    /// Changes a row, and how much the store of this id holds by then.
    fn put(
        &mut self,
        id: u32,
        key: Vec<u8>,
        value: Option<Bytes>,
        store_bytes: u64,
    ) -> Result<(), Fault>;
}

/// What a call has used up.
#[derive(Default)]
struct Used {
    reads: u64,
    read_bytes: u64,
    store_calls: u64,
    store_call_bytes: u64,
}

pub(crate) struct PluginEnv<'e, G> {
    ground: &'e mut G,
    live: &'e Live,
    /// What the call is about, which may be read.
    about: &'e str,
    may_write: bool,
    used: Used,
    failed: Option<EnvError>,
    fuel: Option<u64>,
    lines: Vec<String>,
}

/// What became of a call, besides its answer.
pub(crate) struct Ended {
    /// What was refused.
    pub(crate) failed: Option<EnvError>,
    /// How much fuel it took, if that was said.
    pub(crate) fuel: Option<u64>,
    pub(crate) lines: Vec<String>,
}

impl<'e, G: Ground> PluginEnv<'e, G> {
    pub(crate) fn new(ground: &'e mut G, live: &'e Live, point: Point, about: &'e str) -> Self {
        Self {
            ground,
            live,
            about,
            may_write: point != Point::Authorizer,
            used: Used::default(),
            failed: None,
            fuel: None,
            lines: Vec::new(),
        }
    }

    pub(crate) fn end(self) -> Ended {
        Ended { failed: self.failed, fuel: self.fuel, lines: self.lines }
    }

    fn do_read<T>(
        &mut self,
        path: &str,
        read: impl FnOnce(&mut Self) -> Result<T, EnvError>,
    ) -> Result<T, EnvError> {
        self.used.reads += 1;
        let result = self.may_read(path).and_then(|()| read(self));
        self.remember(result)
    }

    fn do_store<T>(
        &mut self,
        key: &[u8],
        bytes: usize,
        turn: impl FnOnce(&mut Self) -> Result<T, EnvError>,
    ) -> Result<T, EnvError> {
        self.used.store_calls += 1;
        let calls_max = self.live.plugin.limits.store_calls;
        let result = if self.used.store_calls > calls_max {
            Err(over(format!("it turned to its store more than {calls_max} times")))
        } else if key.len() > KEY_BYTES_MAX {
            Err(over(format!("a key of {} bytes; at most {KEY_BYTES_MAX}", key.len())))
        } else {
            self.count_store(bytes).and_then(|()| turn(self))
        };
        self.remember(result)
    }

    fn remember<T>(&mut self, result: Result<T, EnvError>) -> Result<T, EnvError> {
        // The first one says what it was.
        if let (Err(error), None) = (&result, &self.failed) {
            self.failed = Some(error.clone());
        }
        result
    }

    fn may_read(&self, path: &str) -> Result<(), EnvError> {
        let most = self.live.plugin.limits.reads;
        if self.used.reads > most {
            return Err(over(format!("it read more than {most} times")));
        }
        let parent = proto::path::split(self.about).map(|(parent, _)| parent);
        let is_near = path == self.about || Some(path) == parent;
        if !path.is_empty() && (is_near || self.live.may_read(path)) {
            return Ok(());
        }
        let why = format!("it read {path:.200}, which its binding's `reads` do not grant");
        Err(EnvError::Plugin(PluginFault::new(FaultKind::NotGranted, why)))
    }

    fn count_read(&mut self, bytes: usize) -> Result<(), EnvError> {
        self.used.read_bytes += bytes as u64;
        let most = self.live.plugin.limits.read_bytes;
        if self.used.read_bytes > most {
            return Err(over(format!("it read more than {most} bytes")));
        }
        Ok(())
    }

    fn count_store(&mut self, bytes: usize) -> Result<(), EnvError> {
        self.used.store_call_bytes += bytes as u64;
        let most = self.live.plugin.limits.store_call_bytes;
        if self.used.store_call_bytes > most {
            return Err(over(format!("more than {most} bytes went to and from its store")));
        }
        Ok(())
    }

    fn id(&self) -> u32 {
        self.live.plugin.id
    }

    fn put_value(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EnvError> {
        if !self.may_write {
            let why = "an authorizer may not write to its store";
            return Err(EnvError::Plugin(PluginFault::new(FaultKind::NotGranted, why)));
        }
        if value.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(over(format!("a value of more than {VALUE_BYTES_MAX} bytes")));
        }
        let id = self.id();
        let row = store_key(id, key);
        let before = self.ground.row(&row)?;
        if before.as_deref() == value {
            return Ok(());
        }
        let size = |value: Option<usize>| value.map_or(0, |bytes| (key.len() + bytes) as u64);
        let (was, is) = (size(before.map(|before| before.len())), size(value.map(<[u8]>::len)));
        let store_bytes = (self.ground.store_bytes(id) + is).saturating_sub(was);
        let most = self.live.plugin.limits.store_bytes;
        if is > was && store_bytes > most {
            return Err(over(format!("its store would hold more than {most} bytes")));
        }
        let value = value.map(Bytes::copy_from_slice);
        Ok(self.ground.put(id, row, value, store_bytes)?)
    }
}

fn over(why: String) -> EnvError {
    EnvError::Plugin(PluginFault::new(FaultKind::Limit, why))
}

impl<G: Ground> Env for PluginEnv<'_, G> {
    fn node(&mut self, path: &str) -> Result<Option<Node>, EnvError> {
        self.do_read(path, |env| {
            let Some(node) = env.ground.node(path)? else { return Ok(None) };
            env.count_read(node.data_bytes() as usize)?;
            let data = env.ground.data(path, &node)?;
            Ok(Some(Node { data, stat: node.stat() }))
        })
    }

    fn stat(&mut self, path: &str) -> Result<Option<proto::Stat>, EnvError> {
        self.do_read(path, |env| Ok(env.ground.node(path)?.map(|node| node.stat())))
    }

    fn children(
        &mut self,
        path: &str,
        after: &str,
        most: usize,
    ) -> Result<Option<Vec<String>>, EnvError> {
        self.do_read(path, |env| {
            if env.ground.node(path)?.is_none() {
                return Ok(None);
            }
            let names = env.ground.children(path, after, most.min(LISTED_MAX))?;
            env.count_read(names.iter().map(String::len).sum())?;
            Ok(Some(names))
        })
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, EnvError> {
        self.do_store(key, key.len(), |env| {
            let row = env.ground.row(&store_key(env.id(), key))?;
            env.count_store(row.as_ref().map_or(0, Bytes::len))?;
            Ok(row.map(|row| row.to_vec()))
        })
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EnvError> {
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        self.do_store(key, bytes, |env| env.put_value(key, value))
    }

    fn add(&mut self, key: &[u8], delta: i64) -> Result<i64, EnvError> {
        self.do_store(key, key.len() + 8, |env| {
            let bad =
                |why: &str| Err(EnvError::Plugin(PluginFault::new(FaultKind::BadReturn, why)));
            let before = match env.ground.row(&store_key(env.id(), key))? {
                None => 0,
                Some(row) => match <[u8; 8]>::try_from(&row[..]) {
                    Ok(number) => i64::from_le_bytes(number),
                    Err(_) => return bad("it added to a value that is no number of 8 bytes"),
                },
            };
            let Some(sum) = before.checked_add(delta) else {
                return bad("the sum does not fit a number of 8 bytes");
            };
            let number = sum.to_le_bytes();
            env.put_value(key, (sum != 0).then_some(&number[..]))?;
            Ok(sum)
        })
    }

    fn scan(&mut self, start: &[u8], end: &[u8], most: usize) -> Result<Pairs, EnvError> {
        let longest = if start.len() > end.len() { start } else { end };
        self.do_store(longest, start.len() + end.len(), |env| {
            let id = env.id();
            let from = store_key(id, start);
            let to = if end.is_empty() { store_range(id).1 } else { store_key(id, end) };
            if from >= to {
                return Ok(Vec::new());
            }
            let head = store_key(id, b"").len();
            let rows = env.ground.rows(&from, &to, most.min(SCANNED_MAX))?;
            env.count_store(rows.iter().map(|(key, value)| key.len() - head + value.len()).sum())?;
            Ok(rows.iter().map(|(key, value)| (key[head..].to_vec(), value.to_vec())).collect())
        })
    }

    fn log(&mut self, line: &str) {
        let limits = &self.live.plugin.limits;
        if self.lines.len() < limits.log_lines as usize {
            let mut end = line.len().min(limits.log_line_bytes as usize);
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            self.lines.push(line[..end].to_owned());
        }
    }

    fn spent(&mut self, fuel: u64) {
        self.fuel = Some(fuel);
    }
}
