//! The watches that a session has, so that they can be set again on another connection.

use std::collections::BTreeSet;

use proto::request::SetWatches;
use proto::{ErrorCode, EventType, Request, WatchEvent};

/// How many bytes of paths one request sets again; it must stay below any server's frame limit.
const BYTES_MAX: usize = 100_000;

/// The kinds of watches, in the order of [`SetWatches`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Exist,
    Child,
    Persistent,
    Recursive,
}

/// A watch that a request asks for, or takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Data(String),
    /// A data watch if the znode is there, else an exist watch.
    Exists(String),
    Child(String),
    Persistent(String),
    Recursive(String),
    Remove(String, i32),
}

impl Asked {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::GetData { path, watch: true } => Self::Data(path.clone()),
            Request::Exists { path, watch: true } => Self::Exists(path.clone()),
            Request::GetChildren { path, watch: true }
            | Request::GetChildren2 { path, watch: true } => Self::Child(path.clone()),
            Request::AddWatch { path, mode: 0 } => Self::Persistent(path.clone()),
            Request::AddWatch { path, mode: 1 } => Self::Recursive(path.clone()),
            Request::RemoveWatches { path, kind } => Self::Remove(path.clone(), *kind),
            _ => Self::Nothing,
        }
    }
}

/// All watches of a session.
#[derive(Debug, Default)]
pub(super) struct Watches {
    sets: [BTreeSet<String>; 5],
}

impl Watches {
    fn set(&mut self, kind: Kind) -> &mut BTreeSet<String> {
        &mut self.sets[kind as usize]
    }

    /// Takes notice of an answer.
    pub(super) fn answered(&mut self, asked: Asked, err: i32) {
        let no_node = err == ErrorCode::NoNode.code();
        match asked {
            Asked::Exists(path) if no_node => {
                self.set(Kind::Exist).insert(path);
            }
            Asked::Remove(path, kind) if err == 0 => self.removed(&path, kind),
            _ if err != 0 => {}
            Asked::Data(path) | Asked::Exists(path) => {
                self.set(Kind::Data).insert(path);
            }
            Asked::Child(path) => {
                self.set(Kind::Child).insert(path);
            }
            Asked::Persistent(path) => {
                self.set(Kind::Persistent).insert(path);
            }
            Asked::Recursive(path) => {
                self.set(Kind::Recursive).insert(path);
            }
            Asked::Remove(..) | Asked::Nothing => {}
        }
    }

    /// Takes notice of an event: all but persistent watches fire once.
    pub(super) fn fired(&mut self, event: &WatchEvent) {
        let kinds: &[Kind] = match event.kind {
            EventType::NodeCreated | EventType::NodeDataChanged => &[Kind::Data, Kind::Exist],
            EventType::NodeDeleted => &[Kind::Data, Kind::Exist, Kind::Child],
            EventType::NodeChildrenChanged => &[Kind::Child],
        };
        for kind in kinds {
            self.set(*kind).remove(&event.path);
        }
    }

    fn removed(&mut self, path: &str, kind: i32) {
        let kinds: &[Kind] = match kind {
            1 => &[Kind::Child],
            2 => &[Kind::Data, Kind::Exist],
            3 => &[Kind::Data, Kind::Exist, Kind::Child, Kind::Persistent, Kind::Recursive],
            4 => &[Kind::Persistent],
            _ => &[Kind::Recursive],
        };
        for kind in kinds {
            self.set(*kind).remove(path);
        }
    }

    /// The requests that set all of them again, for what changed after `zxid`.
    pub(super) fn again(&self, zxid: i64) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut next = SetWatches { relative_zxid: zxid, ..SetWatches::default() };
        let mut bytes = 0;
        let kinds = [Kind::Data, Kind::Exist, Kind::Child, Kind::Persistent, Kind::Recursive];
        for (kind, paths) in kinds.into_iter().zip(&self.sets) {
            for path in paths {
                if bytes + path.len() > BYTES_MAX && bytes > 0 {
                    let full = SetWatches { relative_zxid: zxid, ..SetWatches::default() };
                    requests.push(request(std::mem::replace(&mut next, full)));
                    bytes = 0;
                }
                bytes += path.len() + 4;
                let list = match kind {
                    Kind::Data => &mut next.data,
                    Kind::Exist => &mut next.exist,
                    Kind::Child => &mut next.child,
                    Kind::Persistent => &mut next.persistent,
                    Kind::Recursive => &mut next.recursive,
                };
                list.push(path.clone());
            }
        }
        if bytes > 0 {
            requests.push(request(next));
        }
        requests
    }
}

/// Servers before 3.6 know only the first form.
fn request(watches: SetWatches) -> Request {
    if watches.persistent.is_empty() && watches.recursive.is_empty() {
        return Request::SetWatches(watches);
    }
    Request::SetWatches2(watches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fired_is_not_set_again() {
        let mut watches = Watches::default();
        watches.answered(Asked::Data("/a".into()), 0);
        watches.answered(Asked::Exists("/b".into()), ErrorCode::NoNode.code());
        watches.answered(Asked::Data("/c".into()), ErrorCode::NoNode.code());
        watches.answered(Asked::Child("/a".into()), 0);
        watches.answered(Asked::Recursive("/r".into()), 0);
        for (kind, path) in [(EventType::NodeDataChanged, "/a"), (EventType::NodeDataChanged, "/r")]
        {
            watches.fired(&WatchEvent { kind, path: path.into(), zxid: 1 });
        }
        let again = watches.again(9);
        let [Request::SetWatches2(set)] = &again[..] else { panic!("{again:?}") };
        assert!(set.data.is_empty() && set.relative_zxid == 9);
        assert_eq!((&set.exist[..], &set.child[..]), (&["/b".to_owned()][..], &["/a".into()][..]));
        assert_eq!(set.recursive, ["/r"]);
        watches.answered(Asked::Remove("/r".into(), 5), 0);
        assert!(matches!(&watches.again(9)[..], [Request::SetWatches(_)]));
    }

    #[test]
    fn many_are_set_in_several_requests() {
        let mut watches = Watches::default();
        for i in 0..1000 {
            watches.answered(Asked::Data(format!("/{i:0500}")), 0);
        }
        let again = watches.again(0);
        assert_eq!(again.len(), 6);
        let count = |request: &Request| match request {
            Request::SetWatches(set) => set.data.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(again.iter().map(count).sum::<usize>(), 1000);
    }
}
