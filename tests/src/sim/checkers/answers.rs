//! Every reply says what is so: a write's what its command did, a read's what the tree held as of the
//! zxid that stands in the reply.

use proto::{ErrorCode, Request};

use super::{Checker, Known};
use crate::sim::counts::Counts;
use crate::sim::history::{Event, Zxid};

/// Compares each reply with the model's.
pub(super) struct Answers;

impl Checker for Answers {
    fn name(&self) -> &'static str {
        "every reply says what is so"
    }

    fn observe(
        &mut self,
        event: &Event,
        known: &Known<'_>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let Event::Replied { conn, number, zxid, result } = event else { return Ok(()) };
        if known.tainted.contains(conn) {
            return Ok(());
        }
        counts.replies += 1;
        let connection = known.connections.get(*conn);
        let asked = &connection.sent[*number];
        let changes = asked.is_write || matches!(asked.request, Request::Sync { .. });
        if connection.reads_only && changes {
            return match result {
                Err(ErrorCode::NotReadOnly) => Ok(()),
                other => {
                    Err(format!("a read-only server answers {:?} by {other:?}", asked.request))
                }
            };
        }
        if asked.is_write {
            let done = known.model.done(connection, asked.writes_before);
            let done = done.ok_or_else(|| format!("{:?} is not in the log", asked.request))?;
            if (done.zxid, &done.result) != (*zxid, result) {
                return Err(format!(
                    "the reply to {:?} is {} {result:?}, must be {} {:?}",
                    asked.request,
                    Zxid(*zxid),
                    Zxid(done.zxid),
                    done.result
                ));
            }
            return Ok(());
        }
        if matches!(asked.request, Request::CloseSession | Request::Auth { .. }) {
            return match result {
                Ok(_) => Ok(()),
                // A session that others know is not for it to close.
                Err(ErrorCode::NotReadOnly) if connection.reads_only => Ok(()),
                Err(code) => Err(format!("{:?} was refused: {code:?}", asked.request)),
            };
        }
        let Some(snapshot) = known.model.at_zxid(*zxid) else {
            return Err(format!("a read at {}, where no entry ends", Zxid(*zxid)));
        };
        let (session, reader) = (connection.session, connection.reader);
        let expected = known.model.read(snapshot, session, reader, &asked.request);
        if let Some(expected) = expected
            && expected != *result
        {
            return Err(format!(
                "the reply to {:?} at {} is {result:?}, must be {expected:?}",
                asked.request,
                Zxid(*zxid)
            ));
        }
        Ok(())
    }
}
