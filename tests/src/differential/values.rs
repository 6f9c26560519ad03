//! Paths, data, ACLs, flags and versions to choose from: a small space, so that sessions collide,
//! and everything that is against a rule.

use bytes::Bytes;
use proto::{Acl, Id, OpCode};

use crate::random::Random;

/// Where a znode of the test may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everywhere.
    All,
    /// Not where quotas count: ZooKeeper checks a quota against the znodes that are there when a
    /// request arrives, not when it is applied, so that requests sent together may pass it.
    NoQuota,
}

/// `bob` and `ann`, as an ACL names them when their password is `pw`.
pub(super) const DIGESTS: [&str; 2] =
    ["bob:ikIaKsbtGweaHnb/jKn7OHqbunM=", "ann:RYbu6l5aZwqon8VWmkcGvezdzfc="];

/// A path below `top`, or one that is not.
pub(super) fn path(random: &mut Random, top: &str, reach: Reach) -> String {
    let name = |random: &mut Random| match (random.below(24), reach) {
        (0..=7, _) => "a".to_owned(),
        (8..=14, _) => "b".to_owned(),
        (15..=18, _) => "c".to_owned(),
        (19, _) => format!("a{:010}", random.below(4)),
        (20, _) => format!("{:010}", random.below(6)),
        (21, _) => "ü 中".to_owned(),
        (_, Reach::NoQuota) => "b".to_owned(),
        (22, Reach::All) => "hard".to_owned(),
        (_, Reach::All) => "soft".to_owned(),
    };
    match random.below(100) {
        0..=87 => {
            let depth = random.pick(&[1, 1, 1, 2, 2, 2, 3, 0]);
            (0..depth).fold(top.to_owned(), |path, _| path + "/" + &name(random))
        }
        88..=93 => system_path(random, top, reach),
        _ => invalid_path(random, top),
    }
}

fn system_path(random: &mut Random, top: &str, reach: Reach) -> String {
    let quota = match reach {
        Reach::NoQuota => 4,
        Reach::All => 9,
    };
    match random.below(quota) {
        0 => "/".into(),
        1 => "/zookeeper".into(),
        2 => "/zookeeper/config".into(),
        3 => "/zookeeper/quota".into(),
        4 => format!("/zookeeper/quota{top}"),
        5 => format!("/zookeeper/quota{top}/hard/zookeeper_limits"),
        6 => format!("/zookeeper/quota{top}/soft/zookeeper_stats"),
        _ => format!("/zookeeper/quota{top}/hard/zookeeper_stats"),
    }
}

fn invalid_path(random: &mut Random, top: &str) -> String {
    match random.below(15) {
        0 => String::new(),
        1 => "a".into(),
        2 => format!("{top}/"),
        3 => format!("{top}//a"),
        4 => format!("{top}/./a"),
        5 => format!("{top}/a/.."),
        6 => format!("{top}/a\0b"),
        7 => format!("{top}/\u{1}"),
        8 => format!("{top}/\u{7f}x"),
        9 => format!("{top}/\u{e000}"),
        10 => format!("{top}/\u{ffff}"),
        11 => format!("{top}/\u{1f600}"),
        12 => "//".into(),
        13 => format!("{top}/a/b/"),
        _ => format!("{top}/..."),
    }
}

/// Data of a znode. Quotas are always well-formed: others end a ZooKeeper.
pub(super) fn data(random: &mut Random, path: &str) -> Option<Bytes> {
    if path.starts_with("/zookeeper/quota/") {
        let hard = "count=-1,bytes=-1=;byteHardLimit=90;countHardLimit=4";
        return Some(random.pick(&["count=3,bytes=40", "count=-1,bytes=-1", hard]).into());
    }
    match random.below(10) {
        0 => None,
        1 => Some(Bytes::new()),
        2 => Some(Bytes::from(vec![b'x'; 2000])),
        3 => Some(Bytes::from(vec![0xff; 40])),
        n => Some(Bytes::from(vec![b'd'; n])),
    }
}

/// A version: any, right often enough, or wrong.
pub(super) fn version(random: &mut Random) -> i32 {
    random.pick(&[-1, -1, -1, -1, -1, 0, 0, 0, 1, 1, 2, 3, -2, i32::MAX, i32::MIN])
}

/// An ACL: open most of the time, so that the tree does not freeze.
pub(super) fn acl(random: &mut Random) -> Vec<Acl> {
    if random.percent(72) {
        return vec![Acl::world(31)];
    }
    if random.percent(4) {
        return Vec::new();
    }
    let count = random.pick(&[1, 1, 1, 2, 3]);
    let mut acl: Vec<Acl> = (0..count).map(|_| entry(random)).collect();
    if random.percent(20) {
        acl.push(acl[0].clone());
    }
    acl
}

fn entry(random: &mut Random) -> Acl {
    let perms = random.pick(&[31, 31, 31, 1, 1, 2, 4, 8, 16, 3, 15, 30, 0, 63, -1]);
    let (scheme, id) = match random.below(30) {
        0..=5 => ("world", "anyone"),
        6..=9 => ("auth", ""),
        10..=12 => ("digest", DIGESTS[0]),
        13..=14 => ("digest", DIGESTS[1]),
        15 => ("ip", "127.0.0.1"),
        16 => ("ip", "127.0.0.0/8"),
        17 => ("ip", random.pick(&["10.0.0.0/8", "::1", "::/0", "1.2.3.4", "127.0.0.1/0"])),
        18 => {
            ("ip", random.pick(&["127.0.0.1/33", "127.0.0", "x", "", "127.0.0.1/", "1.2.3.4/-1"]))
        }
        19 => ("digest", random.pick(&["bob", "bob:a:b", "", ":", "bob:", ":x"])),
        20 => ("world", random.pick(&["someone", "", "Anyone"])),
        21 => ("sasl", random.pick(&["jaasuser", "", "super"])),
        22 => ("x509", random.pick(&["CN=someone", "", "nonsense"])),
        23 => ("nosuch", "id"),
        24 => ("", ""),
        25 => ("super", "super"),
        26 => ("auth", "ignored"),
        27 => ("key", "x"),
        _ => ("world", "anyone"),
    };
    Acl { perms, id: Id::new(scheme, id) }
}

/// One of the four creates, with flags and a time to live that mostly fit it.
pub(super) fn create_mode(random: &mut Random, containers: bool) -> (OpCode, i32, i64) {
    let hours = random.pick(&[3_600_000, 7_200_000, 86_400_000, (1 << 40) - 1]);
    match random.below(40) {
        0..=9 => (OpCode::Create, random.pick(&[0, 0, 0, 1, 2, 3]), -1),
        10..=17 => (OpCode::Create2, random.pick(&[0, 0, 1, 2, 3]), -1),
        18..=22 => (OpCode::Create, random.pick(&[1, 1, 3]), -1),
        23..=25 => (OpCode::CreateTtl, random.pick(&[5, 6]), hours),
        26 => (OpCode::CreateTtl, random.pick(&[5, 6]), random.pick(&[0, -1, i64::MIN, 1 << 40])),
        // A ttl of -1 with any of these but 7 kills a ZooKeeper 3.9.5.
        27 => (OpCode::CreateTtl, random.pick(&[0, 1, 4, 7]), random.pick(&[0, 3_600_000])),
        28 => (OpCode::Create, random.pick(&[4, 5, 6, 7, -1, 8, i32::MAX, i32::MIN]), -1),
        29 => (OpCode::Create2, random.pick(&[4, 5, 6, 7, -1]), -1),
        30..=32 if containers => (OpCode::CreateContainer, 4, -1),
        33 if containers => (OpCode::CreateContainer, random.pick(&[0, 1, 2, 5, 9]), -1),
        33 => (OpCode::CreateContainer, random.pick(&[5, 6, 7, 9, -1]), -1),
        _ => (OpCode::Create, 0, -1),
    }
}
