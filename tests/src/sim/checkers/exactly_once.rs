//! Nothing is applied twice, left out or exchanged: the writes of a connection stand in the log as
//! they were sent, from the first on, and no value that was written ever stands there again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use bytes::Bytes;
use proto::{MultiOp, Request};
use state::Op;

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::Event;

/// How many writes of each session's generation were looked at, and the values in them.
#[derive(Default)]
pub(super) struct ExactlyOnce {
    seen: BTreeMap<(i64, u32), usize>,
    values: BTreeSet<Bytes>,
}

impl Checker for ExactlyOnce {
    fn name(&self) -> &'static str {
        "every write is applied once, in the order sent"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let Event::Committed { first: true, index, .. } = event else { return Ok(()) };
        for (key, done) in &known.model.writes {
            let seen = self.seen.insert(*key, done.len()).unwrap_or_default();
            if seen == done.len() {
                continue;
            }
            let (session, generation) = *key;
            let conn = known.connections.attached.get(key).ok_or_else(|| {
                format!("entry {index}: a write of {session:#x}.{generation}, which nobody has")
            })?;
            let connection = known.connections.get(*conn);
            let sent = connection.sent.iter().filter(|asked| asked.is_write);
            let before = connection.writes_before(generation);
            let sent: Vec<&Request> = sent.map(|asked| &asked.request).skip(before).collect();
            for (at, done) in done.iter().enumerate().skip(seen) {
                let same = sent.get(at).is_some_and(|request| is_same(request, &done.op));
                if !same {
                    return Err(format!(
                        "entry {index}: write {at} of connection {conn} is {:?}, sent was {:?}",
                        done.op,
                        sent.get(at)
                    ));
                }
                if done.result == Err(proto::ErrorCode::SessionMoved) {
                    counts.fenced += 1;
                }
                self.values(&done.op)?;
            }
        }
        Ok(())
    }
}

impl ExactlyOnce {
    fn values(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Create { data: Some(data), .. } | Op::SetData { data: Some(data), .. }
                if !self.values.insert(data.clone()) =>
            {
                return Err(format!("the value {data:?} was written twice"));
            }
            Op::Multi(ops) => ops.iter().try_for_each(|op| self.values(op))?,
            _ => {}
        }
        Ok(())
    }
}

fn is_same(request: &Request, op: &Op) -> bool {
    match (request, op) {
        (Request::Create(new), Op::Create { path, data, flags, ttl_ms, .. }) => {
            (&new.path, &new.data, &new.flags, &new.ttl_ms) == (path, data, flags, ttl_ms)
        }
        (Request::Delete { path, version }, Op::Delete { path: p, version: v }) => {
            (path, version) == (p, v)
        }
        (
            Request::SetData { path, data, version },
            Op::SetData { path: p, data: d, version: v },
        ) => (path, data, version) == (p, d, v),
        (Request::SetAcl { path, version, acl }, Op::SetAcl { path: p, version: v, acl: a }) => {
            (path, version, acl.len()) == (p, v, a.len())
        }
        (Request::Multi(asked), Op::Multi(ops)) => {
            let one = |(asked, op): (&MultiOp, &Op)| match (asked, op) {
                (MultiOp::Create(new), Op::Create { path, data, flags, .. }) => {
                    (&new.path, &new.data, &new.flags) == (path, data, flags)
                }
                (MultiOp::Delete { path, version }, Op::Delete { path: p, version: v })
                | (MultiOp::Check { path, version }, Op::Check { path: p, version: v }) => {
                    (path, version) == (p, v)
                }
                (
                    MultiOp::SetData { path, data, version },
                    Op::SetData { path: p, data: d, version: v },
                ) => (path, data, version) == (p, d, v),
                _ => false,
            };
            asked.len() == ops.len() && asked.iter().zip(ops).all(one)
        }
        _ => false,
    }
}
