//! Sessions: made, attached to a connection, closed.
//!
//! A close fences the session and deletes up to [`EPHEMERALS_PER_ENTRY`] of its ephemerals in its
//! own zxid; the rest follow in entries of as many, so that no session is too large to close.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::ErrorCode;

use crate::apply::{FIRST_GENERATION, SessionRow};
use crate::change::{Answer, Change};
use crate::fault::Fault;
use crate::keys::{self, Keyspace};
use crate::ops::{By, remove};
use crate::quota::QuotaPaths;
use crate::txn::Txn;

/// How many ephemerals one entry deletes.
pub(crate) const EPHEMERALS_PER_ENTRY: usize = 2000;

/// The sessions, kept in memory beside their rows.
pub(crate) type Sessions = BTreeMap<i64, SessionRow>;

fn put(
    txn: &mut Txn<'_>,
    sessions: &mut Sessions,
    session: i64,
    row: Option<SessionRow>,
) -> Result<(), Fault> {
    let bytes = row.as_ref().map(|row| {
        Bytes::from(rmp_serde::to_vec(row).expect("a session's row can always be encoded"))
    });
    match row {
        Some(row) => sessions.insert(session, row),
        None => sessions.remove(&session),
    };
    txn.put_row(Keyspace::Sessions, keys::number(session).to_vec(), bytes)
}

pub(crate) fn open(
    txn: &mut Txn<'_>,
    sessions: &mut Sessions,
    session: i64,
    password: [u8; 16],
    timeout_ms: i32,
) -> Result<Answer, Fault> {
    if sessions.contains_key(&session) {
        return Ok(Answer::NoSession);
    }
    let generation = FIRST_GENERATION;
    let row = SessionRow { password, timeout_ms, generation, closing: false };
    put(txn, sessions, session, Some(row))?;
    txn.changes.push(Change::SessionAttached { session, timeout_ms, generation });
    Ok(Answer::Attached { timeout_ms, generation })
}

pub(crate) fn attach(
    txn: &mut Txn<'_>,
    sessions: &mut Sessions,
    session: i64,
    password: [u8; 16],
    timeout_ms: i32,
) -> Result<Answer, Fault> {
    let row = match sessions.get(&session) {
        Some(row) if row.password == password && !row.closing => row.clone(),
        _ => return Ok(Answer::NoSession),
    };
    let generation = row.generation.wrapping_add(1);
    put(txn, sessions, session, Some(SessionRow { timeout_ms, generation, ..row }))?;
    txn.changes.push(Change::SessionAttached { session, timeout_ms, generation });
    Ok(Answer::Attached { timeout_ms, generation })
}

/// Whether a session may still write, under this attach generation.
pub(crate) fn check(sessions: &Sessions, session: i64, generation: u32) -> Result<(), ErrorCode> {
    match sessions.get(&session) {
        Some(row) if row.closing => Err(ErrorCode::SessionExpired),
        Some(row) if row.generation != generation => Err(ErrorCode::SessionMoved),
        Some(_) => Ok(()),
        None => Err(ErrorCode::SessionExpired),
    }
}

pub(crate) fn close(
    txn: &mut Txn<'_>,
    sessions: &mut Sessions,
    quotas: &mut QuotaPaths,
    session: i64,
    generation: Option<u32>,
) -> Result<Answer, Fault> {
    let Some(row) = sessions.get(&session) else { return Ok(Answer::NoSession) };
    if row.closing {
        return Ok(Answer::NoSession);
    }
    if generation.is_some_and(|generation| generation != row.generation) {
        return Ok(Answer::Reply(Err(ErrorCode::SessionMoved)));
    }
    let row = SessionRow { closing: true, ..row.clone() };
    put(txn, sessions, session, Some(row))?;
    txn.changes.push(Change::SessionClosing { session });
    go_on_closing(txn, sessions, quotas, session)
}

/// Deletes the next ephemerals of a closing session, and the session with the last of them.
pub(crate) fn go_on_closing(
    txn: &mut Txn<'_>,
    sessions: &mut Sessions,
    quotas: &mut QuotaPaths,
    session: i64,
) -> Result<Answer, Fault> {
    if !sessions.get(&session).is_some_and(|row| row.closing) {
        return Ok(Answer::NoSession);
    }
    let from = keys::number(session).to_vec();
    let to = session.checked_add(1).map_or(vec![0xff; 9], |next| keys::number(next).to_vec());
    let most = EPHEMERALS_PER_ENTRY + 1;
    let mut found = txn.keys(Keyspace::Ephemerals, &from, &to, most)?;
    if txn.mutants.close_forgets_ephemerals {
        found.clear();
    }
    for key in found.iter().take(EPHEMERALS_PER_ENTRY) {
        let path = key.get(8..).and_then(|path| std::str::from_utf8(path).ok());
        let path = path.ok_or_else(|| Fault::Damaged {
            keyspace: "ephemerals",
            why: "a path is not UTF-8".to_owned(),
        })?;
        if !remove(txn, quotas, By::SESSION_END, path)? {
            txn.put_row(Keyspace::Ephemerals, key.clone(), None)?;
        }
    }
    if found.len() > EPHEMERALS_PER_ENTRY {
        return Ok(Answer::Closing { session });
    }
    put(txn, sessions, session, None)?;
    txn.changes.push(Change::SessionClosed { session });
    Ok(Answer::Done)
}
