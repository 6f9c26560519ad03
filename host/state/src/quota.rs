//! Quotas, as ZooKeeper keeps them: znodes under `/zookeeper/quota`, made by the client's tools.
//!
//! `zookeeper_limits` beside a path's shadow says what is allowed, `zookeeper_stats` says what is
//! used. The server changes the latter in place, without a version or an event.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::ErrorCode;

use crate::fault::Fault;
use crate::ops::Stop;
use crate::txn::Txn;

pub(crate) const ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// The paths that have a quota.
#[derive(Debug, Default)]
pub(crate) struct QuotaPaths {
    paths: BTreeSet<String>,
    /// What the command under way added (true) or removed, to be undone if it fails.
    undo: Vec<(String, bool)>,
}

impl QuotaPaths {
    /// Takes notice of a znode that was created.
    pub(crate) fn created(&mut self, path: &str) {
        if let Some(limited) = limited(path, LIMITS)
            && self.paths.insert(limited.to_owned())
        {
            self.undo.push((limited.to_owned(), true));
        }
    }

    pub(crate) fn deleted(&mut self, path: &str) {
        if let Some(limited) = limited(path, LIMITS)
            && self.paths.remove(limited)
        {
            self.undo.push((limited.to_owned(), false));
        }
    }

    /// The command under way is done.
    pub(crate) fn settle(&mut self) {
        self.undo.clear();
    }

    /// The command under way failed: nothing is left of it.
    pub(crate) fn rollback(&mut self) {
        while let Some((path, added)) = self.undo.pop() {
            if added {
                self.paths.remove(&path);
            } else {
                self.paths.insert(path);
            }
        }
    }

    /// The nearest path at or above `path` that has a quota.
    fn nearest<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.paths.is_empty() {
            return None;
        }
        let mut at = path;
        while at.len() > 1 {
            if self.paths.contains(at) {
                return Some(at);
            }
            at = proto::path::split(at)?.0;
        }
        None
    }
}

/// The path whose quota's znode of this name `path` is.
fn limited<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    path.strip_prefix(ROOT)?.strip_suffix(name)?.strip_suffix('/').filter(|p| !p.is_empty())
}

/// The numbers of a limits or stats znode; -1 where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Track {
    count: i64,
    bytes: i64,
    hard_count: i64,
    hard_bytes: i64,
}

impl Track {
    fn parse(data: Option<&[u8]>) -> Self {
        let mut track = Self { count: -1, bytes: -1, hard_count: -1, hard_bytes: -1 };
        let text = String::from_utf8_lossy(data.unwrap_or_default());
        for part in text.split([',', ';']) {
            let mut words = part.split('=');
            let (Some(key), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) else {
                continue;
            };
            match key {
                "count" => track.count = value,
                "bytes" => track.bytes = value,
                "countHardLimit" => track.hard_count = value,
                "byteHardLimit" => track.hard_bytes = value,
                _ => {}
            }
        }
        track
    }
}

impl std::fmt::Display for Track {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "count={},bytes={}", self.count, self.bytes)
    }
}

fn znode_of(limited: &str, name: &str) -> String {
    format!("{ROOT}{limited}/{name}")
}

fn track(txn: &mut Txn<'_>, path: &str) -> Result<Option<Track>, Fault> {
    let Some(node) = txn.node(path)? else { return Ok(None) };
    let data = txn.data(path, &node)?;
    Ok(Some(Track::parse(data.as_deref())))
}

/// Whether a change of so many znodes and bytes is within the hard quota.
pub(crate) fn check(
    txn: &mut Txn<'_>,
    quotas: &QuotaPaths,
    path: &str,
    bytes: i64,
    count: i64,
) -> Result<(), Stop> {
    if !txn.settings.enforce_quota {
        return Ok(());
    }
    let Some(limited) = quotas.nearest(path) else { return Ok(()) };
    let Some(limits) = track(txn, &znode_of(limited, LIMITS))? else { return Ok(()) };
    let Some(used) = track(txn, &znode_of(limited, STATS))? else { return Ok(()) };
    let over = |used: i64, change: i64, limit: i64| {
        change != 0 && limit > -1 && used.saturating_add(change) > limit
    };
    if over(used.count, count, limits.hard_count) || over(used.bytes, bytes, limits.hard_bytes) {
        return Err(ErrorCode::QuotaExceeded.into());
    }
    Ok(())
}

/// Adds to the usage of the quota that `path` is under, if it is under one.
pub(crate) fn add(
    txn: &mut Txn<'_>,
    quotas: &QuotaPaths,
    path: &str,
    bytes: i64,
    count: i64,
) -> Result<(), Fault> {
    let Some(limited) = quotas.nearest(path) else { return Ok(()) };
    let stats = znode_of(limited, STATS);
    let Some(mut used) = track(txn, &stats)? else { return Ok(()) };
    used.count += count;
    used.bytes += bytes;
    write(txn, &stats, &used)
}

/// Counts afresh where `path` is the usage of a path's quota that was just created.
pub(crate) fn recount(txn: &mut Txn<'_>, path: &str) -> Result<(), Fault> {
    let Some(limited) = limited(path, STATS) else { return Ok(()) };
    let (count, bytes) = txn.subtree(limited)?;
    write(txn, path, &Track { count, bytes, hard_count: -1, hard_bytes: -1 })
}

fn write(txn: &mut Txn<'_>, path: &str, used: &Track) -> Result<(), Fault> {
    let Some(node) = txn.node(path)? else { return Ok(()) };
    let mut node = (*node).clone();
    let long = node.set_data(Some(Bytes::from(used.to_string())));
    assert!(long.is_none(), "two numbers are short");
    txn.put_node(path, Some(node))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_in_both_forms() {
        let soft = Track::parse(Some(b"count=3,bytes=-1"));
        assert_eq!(soft, Track { count: 3, bytes: -1, hard_count: -1, hard_bytes: -1 });
        let hard = Track::parse(Some(b"count=3,bytes=-1=;byteHardLimit=-1;countHardLimit=2"));
        assert_eq!(hard, Track { count: 3, bytes: -1, hard_count: 2, hard_bytes: -1 });
    }

    #[test]
    fn the_nearest_quota_counts() {
        let mut quotas = QuotaPaths::default();
        quotas.created("/zookeeper/quota/a/zookeeper_limits");
        quotas.created("/zookeeper/quota/zookeeper_limits");
        assert_eq!(quotas.nearest("/a/b/c"), Some("/a"));
        assert_eq!(quotas.nearest("/a"), Some("/a"));
        assert_eq!(quotas.nearest("/ab"), None);
        quotas.deleted("/zookeeper/quota/a/zookeeper_limits");
        assert_eq!(quotas.nearest("/a"), None);
    }
}
