//! `multi`: all or nothing, in one zxid.

use proto::{ErrorCode, MultiResult, Reply};

use crate::command::Op;
use crate::ops::{Context, Stop, single};
use crate::txn::Txn;

/// Runs the operations in order; each sees what those before it did. A failed multi is a reply, not
/// an error: every operation has its result, 0 before the one that failed.
pub(crate) fn multi(txn: &mut Txn<'_>, cx: &mut Context<'_>, ops: Vec<Op>) -> Result<Reply, Stop> {
    let (mark, count) = (txn.mark(), ops.len());
    let mut results = Vec::with_capacity(count);
    for (at, op) in ops.into_iter().enumerate() {
        let deletes = matches!(op, Op::Delete { .. });
        txn.plugins.operation = (at as u32, count as u32);
        match single(txn, cx, op) {
            Ok(reply) => results.push(result(deletes, reply)),
            Err(Stop::Fault(fault)) => return Err(fault.into()),
            Err(Stop::Rejected(code)) => {
                if !txn.mutants.multi_keeps_its_first_part {
                    txn.rollback(&mark);
                }
                cx.quotas.rollback();
                return Ok(Reply::Multi(failed(count, at, code)));
            }
        }
    }
    Ok(Reply::Multi(results))
}

fn result(deletes: bool, reply: Reply) -> MultiResult {
    match reply {
        Reply::Path(path) => MultiResult::Create(path),
        Reply::PathStat(path, stat) => MultiResult::Create2(path, stat),
        Reply::Stat(stat) => MultiResult::SetData(stat),
        _ if deletes => MultiResult::Delete,
        _ => MultiResult::Check,
    }
}

fn failed(count: usize, at: usize, code: ErrorCode) -> Vec<MultiResult> {
    (0..count)
        .map(|i| match i.cmp(&at) {
            std::cmp::Ordering::Less => MultiResult::Error(0),
            std::cmp::Ordering::Equal => MultiResult::Error(code.code()),
            std::cmp::Ordering::Greater => {
                MultiResult::Error(ErrorCode::RuntimeInconsistency.code())
            }
        })
        .collect()
}
