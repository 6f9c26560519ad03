//! What is the same thing under two numbers: zxids, session ids, times.
//!
//! What is asserted:
//! * Every write attempt takes one zxid on both servers, whether it succeeds or fails, so that
//!   between two attaches Vivarium's zxids are ZooKeeper's plus a constant. An attach of an existing
//!   session is a write in Vivarium and none in ZooKeeper: the constant then grows by one. A zxid
//!   that does not fit is a mismatch.
//! * zxids of 0 and below are the same on both: system znodes, auth replies (0), caught-up events
//!   and unknown operations (-1).
//! * A time is that of a zxid: on each server every stat that names a zxid gives it the same time,
//!   and the time is within the run.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::Stat;

/// Which of the two servers said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The real one.
    ZooKeeper,
    /// Ours.
    Vivarium,
}

impl Side {
    /// Both.
    pub(super) const BOTH: [Self; 2] = [Self::ZooKeeper, Self::Vivarium];
}

/// A number of Vivarium's that stands for nothing known of ZooKeeper's.
const UNKNOWN: i64 = i64::MIN;
/// What a plausible time is shown as.
const PLAUSIBLE: i64 = 1;
/// How far a time may be from now, in milliseconds: longer than any run.
const AGE_MS_MAX: i64 = 1_800_000;

/// The mapping of one pair of servers, from Vivarium's numbers to ZooKeeper's.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    /// From which zxid of ZooKeeper's on, Vivarium's are how much higher.
    offsets: Vec<(i64, i64)>,
    sessions: HashMap<i64, i64>,
    times: [HashMap<i64, i64>; 2],
    /// The last zxids seen in headers.
    last: [i64; 2],
}

impl Mapping {
    /// The same state, told by both: the constant is learnt from the first, and must hold then.
    pub(super) fn learn(&mut self, zookeeper: i64, vivarium: i64) {
        if self.offsets.is_empty() {
            self.offsets.push((1, vivarium - zookeeper));
        }
    }

    /// Vivarium has taken `more` zxids than ZooKeeper in the last step.
    pub(super) fn shift(&mut self, more: i64) {
        let from = self.last[Side::ZooKeeper as usize] + 1;
        let offset = self.offsets.last().map_or(0, |(_, offset)| *offset) + more;
        match self.offsets.last_mut() {
            Some(last) if last.0 == from => last.1 = offset,
            _ => self.offsets.push((from, offset)),
        }
    }

    /// Two ids name the same session.
    pub(super) fn session(&mut self, zookeeper: i64, vivarium: i64) {
        self.sessions.insert(vivarium, zookeeper);
    }

    /// ZooKeeper's id of a session of Vivarium's; 0 is none.
    pub(super) fn zookeeper_session(&self, vivarium: i64) -> i64 {
        if vivarium == 0 { 0 } else { self.sessions.get(&vivarium).copied().unwrap_or(UNKNOWN) }
    }

    /// The last zxid that a header of this server held.
    pub(super) fn last(&self, side: Side) -> i64 {
        self.last[side as usize]
    }

    /// Notes a header's zxid.
    pub(super) fn heard(&mut self, side: Side, zxid: i64) {
        let last = &mut self.last[side as usize];
        *last = zxid.max(*last);
    }

    /// A zxid as ZooKeeper numbers it.
    pub(super) fn zxid(&self, side: Side, zxid: i64) -> i64 {
        if zxid <= 0 || side == Side::ZooKeeper {
            return zxid;
        }
        let mut until = i64::MAX;
        for (from, offset) in self.offsets.iter().rev() {
            let candidate = zxid - offset;
            if candidate >= *from {
                return if candidate < until { candidate } else { UNKNOWN };
            }
            until = *from;
        }
        UNKNOWN
    }

    /// The zxid of a reply's header: the last one processed, which on Vivarium's side may be an
    /// attach that ZooKeeper does not count.
    pub(super) fn header_zxid(&self, side: Side, zxid: i64) -> i64 {
        match self.offsets.last() {
            Some((from, offset)) if side == Side::Vivarium && zxid == from - 1 + offset => from - 1,
            _ => self.zxid(side, zxid),
        }
    }

    /// A stat as ZooKeeper numbers it, its times reduced to whether they are plausible.
    ///
    /// # Errors
    /// What is wrong with a time.
    pub(super) fn stat(&mut self, side: Side, stat: &Stat) -> Result<Stat, String> {
        Ok(Stat {
            czxid: self.zxid(side, stat.czxid),
            mzxid: self.zxid(side, stat.mzxid),
            pzxid: self.zxid(side, stat.pzxid),
            ctime: self.time(side, stat.czxid, stat.ctime)?,
            mtime: self.time(side, stat.mzxid, stat.mtime)?,
            ephemeral_owner: match (side, stat.ephemeral_owner) {
                (Side::Vivarium, owner) => self.zookeeper_session(owner),
                (_, owner) => owner,
            },
            ..*stat
        })
    }

    fn time(&mut self, side: Side, zxid: i64, time: i64) -> Result<i64, String> {
        if zxid == 0 {
            return Ok(time);
        }
        let known = *self.times[side as usize].entry(zxid).or_insert(time);
        if known != time {
            return Err(format!("{side:?} dates zxid {zxid:#x} {time}, and {known} before"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if (now - time).abs() > AGE_MS_MAX {
            return Err(format!("{side:?} dates zxid {zxid:#x} {time}; it is {now} now"));
        }
        Ok(PLAUSIBLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attach_moves_what_follows_by_one() {
        let mut mapping = Mapping::default();
        mapping.learn(5, 105);
        mapping.heard(Side::ZooKeeper, 7);
        assert_eq!(mapping.zxid(Side::Vivarium, 107), 7);
        mapping.shift(1);
        assert_eq!(mapping.zxid(Side::Vivarium, 107), 7);
        assert_eq!(mapping.zxid(Side::Vivarium, 108), UNKNOWN);
        assert_eq!(mapping.header_zxid(Side::Vivarium, 108), 7);
        assert_eq!(mapping.zxid(Side::Vivarium, 109), 8);
        mapping.shift(1);
        assert_eq!(mapping.header_zxid(Side::Vivarium, 109), 7);
        assert_eq!(mapping.zxid(Side::Vivarium, 110), 8);
        assert_eq!(mapping.zxid(Side::Vivarium, 0), 0);
        assert_eq!(mapping.zxid(Side::Vivarium, -1), -1);
    }
}
