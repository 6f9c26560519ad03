//! The sessions that this server counts by itself: local ones, which no other server knows, and, while
//! it is read-only, those of all who read from it.
//!
//! A server that has heard of no leader for a while may be read-only: it serves old states to clients
//! that accept that, and nobody else. When there is a leader again, all of them are let go, and come
//! back for the rest.
//!
//! Invariants:
//! * Nothing here is in the log: with the process all of it is gone.
//! * A session has one connection. Attaching ends the one before it, in one step with the new one, and
//!   what comes from the old one later is not taken (`packing.rs`), nor is what comes from one whose
//!   session has expired: that is what an attach generation does for other sessions.
//! * A read-only server never says of a session that it does not know that it has expired: others may
//!   know it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::connect::PASSWORD_BYTES;
use state::View;
use state::apply::SessionRow;

use crate::mutants::MachineMutants;
use crate::outbox::{Attached, Outbox};
use crate::standstill::Looks;

/// How a server stands to its ensemble, as its Node sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// For how many milliseconds it has heard of no leader.
    pub silent_ms: i64,
    /// Whether that is too long, and clients that accept it are to be served what there is.
    pub read_only: bool,
}

impl Reach {
    /// Whether a client with this timeout is to find another server.
    pub(crate) fn is_cut_off(self, timeout_ms: i64) -> bool {
        self.silent_ms.saturating_mul(3) > timeout_ms.saturating_mul(2)
    }
}

/// What a client asks for that connects.
pub(crate) struct Asks {
    /// Its session, 0 for a new one.
    pub(crate) session: i64,
    /// Its password; `None` if what it gave cannot be one.
    pub(crate) password: Option<[u8; PASSWORD_BYTES]>,
    /// The timeout, within this server's bounds.
    pub(crate) timeout_ms: i32,
    /// Whether it accepts a read-only server.
    pub(crate) accepts_read_only: bool,
    /// Whether new sessions are local ones here.
    pub(crate) is_local: bool,
}

/// What becomes of it.
pub(crate) enum Admission {
    /// It has its session, with this password; and whether it may only read.
    Here { attached: Attached, password: [u8; PASSWORD_BYTES], read_only: bool },
    /// Its session is gone, or the password is wrong.
    Refused { read_only: bool },
    /// It is to find another server.
    Elsewhere,
    /// All servers are to know.
    ByCommand,
}

/// What becomes of a session that is to be closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It is closed.
    Closed,
    /// All servers know it, and only a leader can close it.
    NotHere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Known here alone.
    Local,
    /// The same, and a command is on its way by which all will know it.
    Upgrading,
    /// Known here alone, for as long as this server is read-only.
    Passing,
    /// Known to all; its client reads here while this server is read-only.
    Visiting,
}

struct Own {
    kind: Kind,
    password: [u8; PASSWORD_BYTES],
    timeout_ms: i32,
    /// How often it was attached.
    generation: u32,
    /// `None` until the next look: then it has its full timeout.
    expires_ms: Option<i64>,
    /// Its connection, which may have ended; and whether it may only read.
    outbox: Arc<Outbox>,
    read_only: bool,
}

/// The sessions, and who waits for one.
#[derive(Default)]
pub(crate) struct OwnSessions {
    sessions: BTreeMap<i64, Own>,
    /// Connections that wait for a command to give them a session.
    waiting: BTreeMap<u64, Arc<Outbox>>,
    reach: Reach,
    looks: Looks,
    /// The first and the last session that was made since this server is read-only.
    made: Option<(i64, i64)>,
    mutants: MachineMutants,
}

impl OwnSessions {
    /// None, with planted bugs.
    pub(crate) fn with_mutants(mutants: MachineMutants) -> Self {
        Self { mutants, ..Self::default() }
    }

    /// Gives a connection its session, if that is for this server alone to do.
    pub(crate) fn admit(
        &mut self,
        view: &View,
        outbox: &Arc<Outbox>,
        asks: &Asks,
        make: &mut dyn FnMut() -> (i64, [u8; PASSWORD_BYTES]),
    ) -> Result<Admission, state::Fault> {
        let read_only = self.reach.read_only;
        if read_only && !(asks.accepts_read_only && view.cluster_id != 0) {
            return Ok(Admission::Elsewhere);
        }
        let is_new = asks.session == 0;
        let known = self.sessions.get(&asks.session).filter(|own| own.kind != Kind::Upgrading);
        let known = known.map(|own| (own.kind, own.password, own.generation));
        let is_own = if is_new { read_only || asks.is_local } else { known.is_some() };
        if !read_only && !is_own {
            self.waiting.insert(outbox.id, Arc::clone(outbox));
            return Ok(Admission::ByCommand);
        }
        if !read_only && self.reach.is_cut_off(asks.timeout_ms.into()) {
            return Ok(Admission::Elsewhere);
        }
        let refused = Admission::Refused { read_only };
        let (kind, session, password, generation) = if is_new {
            let (session, password) = make();
            if read_only {
                self.made = Some((self.made.map_or(session, |(first, _)| first), session));
            }
            let kind = if asks.is_local { Kind::Local } else { Kind::Passing };
            (kind, session, password, 1)
        } else if let Some((kind, password, generation)) = known {
            (kind, asks.session, password, generation.wrapping_add(1))
        } else {
            match view.session(asks.session)? {
                Some(SessionRow { closing: true, .. }) => return Ok(refused),
                Some(row) => (Kind::Visiting, asks.session, row.password, 1),
                None if self.made_it(asks.session) => return Ok(refused),
                None => return Ok(Admission::Elsewhere),
            }
        };
        if !is_new && asks.password != Some(password) {
            return Ok(refused);
        }
        let timeout_ms = asks.timeout_ms;
        let (expires_ms, connection) = (None, Arc::clone(outbox));
        let own = Own {
            kind,
            password,
            timeout_ms,
            generation,
            expires_ms,
            outbox: connection,
            read_only,
        };
        if let Some(before) = self.sessions.insert(session, own) {
            before.end(self.mutants.forget_to_fence);
        }
        let attached = Attached { session, generation, timeout_ms, is_own: true };
        Ok(Admission::Here { attached, password, read_only })
    }

    /// Whether it is one that was made since this server is read-only; so nobody else ever knew it.
    fn made_it(&self, session: i64) -> bool {
        self.made.is_some_and(|(first, last)| (first..=last).contains(&session))
    }

    /// How the server stands to its ensemble now, by the caller's monotonic clock. Whoever has been
    /// silent for too long has expired, and whom this server cannot serve any more is let go.
    pub(crate) fn look(&mut self, now_ms: i64, reach: Reach) {
        let before = std::mem::replace(&mut self.reach, reach);
        if reach.read_only && !before.read_only {
            tracing::warn!(
                silent_ms = reach.silent_ms,
                "no leader is heard of: this server is read-only, for clients that accept that"
            );
            // They look for another server, or accept this one as it is.
            let waiting = std::mem::take(&mut self.waiting);
            waiting.into_values().filter(|outbox| !outbox.is_attached()).for_each(|o| o.kill());
        }
        if before.read_only && !reach.read_only && !self.mutants.keep_read_only_clients {
            tracing::info!("this server is not read-only any more; its clients are let go");
            self.made = None;
            self.sessions.values_mut().filter(|own| own.read_only).for_each(|own| own.leave());
            self.sessions.retain(|_, own| !matches!(own.kind, Kind::Passing | Kind::Visiting));
        }
        let grace_ms = self.looks.stood_still_ms(now_ms);
        self.sessions.retain(|session, own| {
            let lives = !own.has_expired(now_ms, grace_ms);
            if !lives {
                if own.kind != Kind::Visiting {
                    tracing::info!(session = format_args!("{session:#x}"), "a session expired");
                }
                own.end(self.mutants.forget_to_fence);
            } else if !own.read_only && reach.is_cut_off(own.timeout_ms.into()) {
                own.leave();
            }
            lives
        });
    }

    /// A command is to make all servers know a local session; gives its password and timeout. `None`
    /// if this is not its connection any more.
    pub(crate) fn upgrade(
        &mut self,
        session: i64,
        outbox: &Outbox,
    ) -> Option<([u8; PASSWORD_BYTES], i32)> {
        let own = self.sessions.get_mut(&session)?;
        let is_its = own.outbox.id == outbox.id && !outbox.is_dead();
        is_its.then(|| {
            own.kind = Kind::Upgrading;
            (own.password, own.timeout_ms)
        })
    }

    /// A client closes its session.
    pub(crate) fn close(&mut self, session: i64, outbox: &Outbox) -> Closing {
        let own = self.sessions.get(&session).filter(|own| own.outbox.id == outbox.id);
        match own.map(|own| own.kind) {
            Some(Kind::Visiting) => Closing::NotHere,
            Some(_) => {
                self.sessions.remove(&session);
                Closing::Closed
            }
            None => Closing::Closed,
        }
    }

    /// All servers know of a session that it was attached, or is gone.
    pub(crate) fn decided(&mut self, session: i64) {
        self.sessions.remove(&session);
    }

    /// A connection waits for a session no more.
    pub(crate) fn waits_no_more(&mut self, outbox: &Outbox) {
        self.waiting.remove(&outbox.id);
    }

    /// Whether the server is read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.reach.read_only
    }

    /// How many sessions no other server knows.
    pub(crate) fn local(&self) -> usize {
        self.sessions.values().filter(|own| own.kind != Kind::Visiting).count()
    }
}

impl Own {
    /// Ends its connection for good. No write from there is to come after what the session's next one
    /// asks for, or after it is said that the session has expired.
    fn end(&self, forget_to_fence: bool) {
        if self.kind == Kind::Local && !forget_to_fence {
            self.outbox.fence();
        }
        self.leave();
    }

    /// Ends its connection; whoever it belongs to may come back.
    fn leave(&self) {
        if !self.outbox.is_dead() {
            self.outbox.kill();
        }
    }

    fn has_expired(&mut self, now_ms: i64, grace_ms: i64) -> bool {
        self.expires_ms = self.expires_ms.map(|at_ms| at_ms.saturating_add(grace_ms));
        let heard = self.outbox.take_heard();
        match self.expires_ms {
            Some(expires_ms) if !heard => now_ms > expires_ms,
            _ => {
                self.expires_ms = Some(now_ms + i64::from(self.timeout_ms));
                false
            }
        }
    }
}
