//! One client's connection: requests in, bytes out.
//!
//! Invariants (ZooKeeper's order):
//! * Requests take effect and are answered in the order sent. Writes, and reads behind them, follow
//!   each other without waiting; a read takes its view with the entry of the last write before it,
//!   and the next write is in a later entry.
//! * One read is under way at a time; writes pass it, because it holds its view or has its place.
//! * A read that is to show what other servers have acknowledged (`sync`, and any where the policy says
//!   so) waits in its slot until the Node has found that out; the session's next write waits here.
//! * What is neither waits here until nothing is in hand, and so does all that comes after it.
//! * Nothing is decided here about the tree: writes become inputs of the Node, reads are answered
//!   from a view.

mod who;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto::codec::Reader as Decoder;
use proto::connect::PASSWORD_BYTES;
use proto::header::XID_PING;
use proto::{
    ConnectRequest, ConnectResponse, DecodeError, ErrorCode, Id, OpCode, Perms, Reply, ReplyHeader,
    Request, RequestHeader, WatchEvent,
};
use state::Command;
use state::apply::FIRST_GENERATION;
use state::hooks::Check;

use self::who::who;
pub use self::who::{Authenticator, Sasl, SaslStep};
use crate::audit::Audited;
use crate::input::Input;
use crate::mutants::ConnectionMutants;
use crate::operator::{self, Decision, OperatorReply, OperatorRequest};
use crate::outbox::{Attached, Event, Outbox, Say, Ticket, Waits};
use crate::own_sessions::{Admission, Asks, Closing};
use crate::publish::Published;
use crate::reads::{Asked, Read, watch_op};
use crate::saving::{Saving, SnapshotHeader};
use crate::waiting::{Behind, may_wait};
use crate::writes::{self, Sorted};

/// How many things are taken out of the outbox at a time.
const DRAIN_MAX: usize = 256;

/// What a server demands of its clients.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The shortest session timeout, in milliseconds.
    pub timeout_ms_min: i32,
    /// The longest session timeout, in milliseconds.
    pub timeout_ms_max: i32,
    /// Schemes of which a client must have authenticated by one; empty: none is needed.
    pub required_schemes: Vec<String>,
    /// Whether a client whose SASL exchange failed may stay.
    pub sasl_failures_allowed: bool,
    /// Whether there are other servers.
    pub ensemble: bool,
    /// Whether a new session is known to its server alone.
    pub local_sessions: bool,
    /// Whether all servers are to know such a session when it makes an ephemeral.
    pub upgrades_sessions: bool,
    /// Whether reads show whatever anybody was told before, on whichever server.
    pub linearizable: bool,
    /// Whether `reconfig` is switched on.
    pub reconfig_enabled: bool,
    /// Schemes that an ACL of a client may name, besides `world` and `auth`.
    pub acl_schemes: Vec<String>,
}

/// Counters of one connection, for operators.
#[derive(Debug, Clone, Default)]
pub struct ConnectionStats {
    /// Packets from the client.
    pub received: u64,
    /// Packets to the client.
    pub sent: u64,
    /// The last operation.
    pub last_op: Option<OpCode>,
    /// The last xid.
    pub last_xid: i32,
    /// The last zxid in a reply.
    pub last_zxid: i64,
}

/// Whether there may be more to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// The connection stays.
    Open,
    /// Send what there is, then close.
    Close,
}

/// A client's connection as a value.
pub struct Connection {
    published: Arc<Published>,
    outbox: Arc<Outbox>,
    authenticator: Arc<dyn Authenticator>,
    policy: Arc<Policy>,
    remote: IpAddr,
    identities: Arc<Vec<Id>>,
    sasl: Option<Box<dyn Sasl>>,
    connecting: bool,
    closing: bool,
    /// Whether it may only read: there is no leader.
    read_only: bool,
    /// The last linearizable read that took a slot and for which the Node was not asked yet.
    unasked: Option<Ticket>,
    /// What was asked and not begun yet, by xid.
    queue: VecDeque<(i32, Sorted)>,
    /// What was taken out of the outbox and is not encoded yet.
    saying: VecDeque<Say>,
    /// The snapshot that an operator saves over it.
    saving: Option<Arc<Saving>>,
    stats: ConnectionStats,
    mutants: ConnectionMutants,
}

impl Connection {
    /// A connection that has said nothing yet. `identities` are those that it has from the start:
    /// its address, its certificate.
    pub fn new(
        published: Arc<Published>,
        outbox: Arc<Outbox>,
        authenticator: Arc<dyn Authenticator>,
        policy: Arc<Policy>,
        remote: IpAddr,
        identities: Vec<Id>,
    ) -> Self {
        Self {
            published,
            outbox,
            authenticator,
            policy,
            remote,
            identities: Arc::new(identities),
            sasl: None,
            connecting: true,
            closing: false,
            read_only: false,
            unasked: None,
            queue: VecDeque::new(),
            saying: VecDeque::new(),
            saving: None,
            stats: ConnectionStats::default(),
            mutants: ConnectionMutants::default(),
        }
    }

    /// Plants bugs, for the tests that show that the tests find them. Never called in a server.
    pub fn with_mutants(mut self, mutants: ConnectionMutants) -> Self {
        self.mutants = mutants;
        self
    }

    /// Its outbox.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Its counters.
    pub fn stats(&self) -> &ConnectionStats {
        &self.stats
    }

    /// Whether the first packet has not come yet.
    pub fn is_new(&self) -> bool {
        self.connecting
    }

    /// How many requests were taken and not answered yet.
    pub fn outstanding(&self) -> usize {
        let inner = self.outbox.inner.lock();
        self.queue.len() + inner.in_hand()
    }

    /// The session, once it is there.
    pub fn session(&self) -> Option<Attached> {
        self.outbox.inner.lock().attached
    }

    /// Whether it may only read.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Takes the first packet. `new_session` gives the id and password of a session to make.
    ///
    /// # Errors
    /// [`DecodeError`]: close the connection.
    pub fn connect(
        &mut self,
        payload: Bytes,
        mut new_session: impl FnMut() -> (i64, [u8; PASSWORD_BYTES]),
        inputs: &mut Vec<Input>,
    ) -> Result<(), DecodeError> {
        let request = ConnectRequest::decode(payload)?;
        self.connecting = false;
        self.stats.received += 1;
        if self.published.shut().is_some() {
            self.outbox.push(Say::Close);
            return Ok(());
        }
        let zxid = self.published.view().zxid;
        if request.last_zxid_seen > zxid {
            // The client has seen a later state than this server: it must go elsewhere.
            tracing::info!(
                seen = format_args!("{:#x}", request.last_zxid_seen),
                here = format_args!("{zxid:#x}"),
                "refused a client that has seen later changes than this server has"
            );
            self.outbox.push(Say::Close);
            return Ok(());
        }
        let Policy { timeout_ms_min, timeout_ms_max, .. } = *self.policy;
        let timeout_ms = request.timeout_ms.min(timeout_ms_max).max(timeout_ms_min);
        let asks = Asks {
            session: request.session_id,
            password: <[u8; PASSWORD_BYTES]>::try_from(&request.password[..]).ok(),
            timeout_ms,
            accepts_read_only: request.read_only == Some(true),
            is_local: self.policy.local_sessions,
        };
        let admission = self.published.admit(&self.outbox, &asks, &mut new_session);
        let told = |read_only| request.read_only.map(|_| read_only);
        let (command, session, password) = match (admission, asks.password) {
            (Admission::Here { attached, password, read_only: only }, _) => {
                self.read_only = only;
                let (session, timeout_ms) = (attached.session, attached.timeout_ms);
                let read_only = told(only);
                self.outbox.push(Say::Connected { session, timeout_ms, password, read_only });
                return Ok(());
            }
            (Admission::Elsewhere, _) => {
                self.outbox.push(Say::Close);
                return Ok(());
            }
            (Admission::Refused { read_only }, _) => {
                self.outbox.push(Say::Refused { read_only: told(read_only) });
                self.outbox.push(Say::Close);
                return Ok(());
            }
            (Admission::ByCommand, _) if asks.session == 0 => {
                let (session, password) = new_session();
                (Command::OpenSession { session, password, timeout_ms }, session, password)
            }
            (Admission::ByCommand, Some(password)) => {
                let session = asks.session;
                (Command::AttachSession { session, password, timeout_ms }, session, password)
            }
            (Admission::ByCommand, None) => {
                self.outbox.push(Say::Refused { read_only: told(false) });
                self.outbox.push(Say::Close);
                return Ok(());
            }
        };
        let read_only = told(false);
        let ticket = self.outbox.push_pending(Waits::Connect { session, password, read_only });
        inputs.push(Input::Command { command, ticket: Some(ticket) });
        Ok(())
    }

    /// Takes a packet after the first. What cannot be decoded behind its header is answered, in its
    /// turn, as ZooKeeper answers it.
    ///
    /// # Errors
    /// [`DecodeError`] if not even a header is there: close the connection.
    pub fn receive(&mut self, payload: Bytes) -> Result<(), DecodeError> {
        let mut decoder = Decoder::new(payload);
        let header = RequestHeader::decode(&mut decoder)?;
        self.stats.received += 1;
        self.stats.last_xid = header.xid;
        let asked = match OpCode::from_i32(header.opcode) {
            None | Some(OpCode::Check | OpCode::CreateSession | OpCode::DeleteContainer) => {
                Sorted::Unknown
            }
            Some(op) => {
                self.stats.last_op = Some(op);
                match Request::decode(op, &mut decoder) {
                    Ok(request) => writes::sort(request, &self.policy),
                    Err(error) => {
                        tracing::info!(%error, op = op.name(), "a request cannot be decoded");
                        writes::malformed(op)
                    }
                }
            }
        };
        self.queue.push_back((header.xid, asked));
        Ok(())
    }

    /// Goes through the queue as far as the order allows: writes become `inputs`, and a read that has
    /// taken its view is given back, to be run; then call this again. Call it after
    /// [`Self::receive`], and when the outbox wakes.
    pub fn advance(&mut self, inputs: &mut Vec<Input>) -> Option<Read> {
        self.outbox.looks();
        let read = self.begin(inputs);
        // What came together is asked for together.
        inputs.extend(self.unasked.take().map(Input::Reads));
        read
    }

    fn begin(&mut self, inputs: &mut Vec<Input>) -> Option<Read> {
        loop {
            let (behind, is_behind, attached) = {
                let mut inner = self.outbox.inner.lock();
                if let Some(taken) = inner.next_read() {
                    drop(inner);
                    return Some(Read::begin(&self.published, &self.outbox, taken));
                }
                (inner.behind(), inner.last_behind.is_some(), inner.attached)
            };
            if self.closing {
                return None;
            }
            let Attached { session, generation, is_own, .. } = attached?;
            let (xid, asked) = self.queue.pop_front()?;
            if self.must_authenticate(&asked) {
                self.reply(xid, 0, Err(ErrorCode::SessionClosedRequireSaslAuth));
                self.hang_up();
                return None;
            }
            let waits = match behind {
                Behind::Nothing => false,
                Behind::Reads => true,
                Behind::Writes => !self.mutants.stale_read,
            };
            let request = match asked {
                Sorted::Write(_) | Sorted::Other(Request::Sync { .. }) if self.read_only => {
                    let zxid = self.published.view().zxid;
                    self.reply(xid, zxid, Err(ErrorCode::NotReadOnly));
                    continue;
                }
                write @ Sorted::Write(_) if is_behind => {
                    self.queue.push_front((xid, write));
                    return None;
                }
                Sorted::Write(op)
                    if is_own && self.policy.upgrades_sessions && op.makes_ephemerals() =>
                {
                    self.upgrade(session, inputs)?;
                    self.queue.push_front((xid, Sorted::Write(op)));
                    continue;
                }
                Sorted::Write(op) => {
                    let is_local = is_own;
                    let identities = Arc::clone(&self.identities);
                    let audited = self.published.audit().and_then(|audit| {
                        Audited::of(audit, &op, session, &identities, self.remote)
                    });
                    let ticket = self.outbox.push_pending(Waits::Write { xid, audited });
                    let write =
                        Input::Write { session, generation, is_local, identities, op, ticket };
                    inputs.push(write);
                    continue;
                }
                // What this server shows may be older than what another has acknowledged.
                Sorted::Other(request) if self.must_catch_up(&request) => {
                    let asked = self.asks(session, xid, request);
                    self.unasked = Some(self.outbox.push_behind(asked));
                    continue;
                }
                Sorted::Other(request)
                    if waits && behind == Behind::Writes && may_wait(&request) =>
                {
                    if let Some(Asked { request, .. }) =
                        self.outbox.push_waiting(self.asks(session, xid, request))
                    {
                        // The last of the writes was published meanwhile.
                        self.queue.push_front((xid, Sorted::Other(request)));
                    }
                    continue;
                }
                waiting if waits => {
                    self.queue.push_front((xid, waiting));
                    return None;
                }
                Sorted::Malformed => {
                    let zxid = self.published.view().zxid;
                    self.reply(xid, zxid, Err(ErrorCode::MarshallingError));
                    continue;
                }
                Sorted::Unknown => {
                    // ZooKeeper answers and hangs up; the zxid of such an answer is -1.
                    self.reply(xid, -1, Err(ErrorCode::Unimplemented));
                    self.hang_up();
                    return None;
                }
                Sorted::Other(request) => request,
            };
            match request {
                Request::Ping => self.reply(XID_PING, self.published.view().zxid, Ok(Reply::Empty)),
                Request::WhoAmI => {
                    let zxid = self.published.view().zxid;
                    let reply = Reply::WhoAmI(who(&self.identities));
                    self.reply(xid, zxid, Ok(reply));
                }
                Request::Auth { scheme, auth } => self.authenticate(xid, &scheme, &auth),
                Request::Sasl { token } => self.sasl(xid, &token),
                Request::Operator { name, body } => {
                    let read = self.operator(session, xid, (name, body), inputs);
                    if read.is_some() {
                        return read;
                    }
                }
                Request::CloseSession if is_own => {
                    let zxid = self.published.view().zxid;
                    let result = match self.published.close(session, &self.outbox) {
                        Closing::Closed => Ok(Reply::Empty),
                        Closing::NotHere => Err(ErrorCode::NotReadOnly),
                    };
                    self.reply(xid, zxid, result);
                    self.hang_up();
                }
                Request::CloseSession => {
                    self.closing = true;
                    let ticket = self.outbox.push_pending(Waits::Close { xid });
                    let generation = Some(generation);
                    let command = Command::CloseSession { session, generation };
                    inputs.push(Input::Command { command, ticket: Some(ticket) });
                }
                request if self.watch_op(xid, &request) => {}
                read => {
                    let asked = self.asks(session, xid, read);
                    return Some(Read::take(&self.published, &self.outbox, asked));
                }
            }
        }
    }

    /// Whether the answer is to show whatever anybody was told before. A server that is alone does
    /// that anyway.
    fn must_catch_up(&self, request: &Request) -> bool {
        let syncs = matches!(request, Request::Sync { .. });
        self.policy.ensemble
            && !self.read_only
            && (syncs || self.policy.linearizable && may_wait(request))
    }

    /// Has all servers know the local session; its writes from here on are those of one that they know.
    /// `None` if the session is not this connection's any more.
    fn upgrade(&mut self, session: i64, inputs: &mut Vec<Input>) -> Option<()> {
        let (password, timeout_ms) = self.published.upgrade(session, &self.outbox)?;
        let ticket = Some(self.outbox.push_pending(Waits::Upgrade));
        let command = Command::OpenSession { session, password, timeout_ms };
        inputs.push(Input::Command { command, ticket });
        let generation = FIRST_GENERATION;
        let attached = Attached { session, generation, timeout_ms, is_own: false };
        self.outbox.inner.lock().attached = Some(attached);
        Some(())
    }

    fn asks(&self, session: i64, xid: i32, request: Request) -> Asked {
        let identities = Arc::clone(&self.identities);
        Asked { session, xid, request, identities, mutants: self.mutants }
    }

    /// Answers what is about watches alone; false if it is something else.
    fn watch_op(&self, xid: i32, request: &Request) -> bool {
        let about_watches = matches!(
            request,
            Request::AddWatch { .. } | Request::RemoveWatches { .. } | Request::CheckWatches { .. }
        );
        about_watches
            && self.published.with_view(|view| {
                let mut watches = self.published.watches();
                let Some(result) = watch_op(request, &mut watches, &self.outbox) else {
                    return false;
                };
                self.outbox.push(Say::Reply { xid, zxid: view.zxid, result, charge: None });
                true
            })
    }

    fn reply(&mut self, xid: i32, zxid: i64, result: Result<Reply, ErrorCode>) {
        self.outbox.push(Say::Reply { xid, zxid, result, charge: None });
    }

    fn hang_up(&mut self) {
        self.closing = true;
        self.outbox.push(Say::Close);
    }

    fn must_authenticate(&self, asked: &Sorted) -> bool {
        let required = &self.policy.required_schemes;
        // An operator must be `super`, which is more than any scheme.
        let free = matches!(
            asked,
            Sorted::Other(Request::Auth { .. } | Request::Sasl { .. } | Request::Operator { .. })
        );
        !required.is_empty()
            && !free
            && !self.identities.iter().any(|id| required.contains(&id.scheme))
    }

    /// A request of an operator, when all earlier requests are answered; gives what is to be read for
    /// it.
    fn operator(
        &mut self,
        session: i64,
        xid: i32,
        (name, body): (String, Bytes),
        inputs: &mut Vec<Input>,
    ) -> Option<Read> {
        let view = self.published.view();
        if !self.identities.iter().any(|id| id.scheme == "super") {
            tracing::warn!(name, remote = %self.remote, "an operator's request without the right");
            self.reply(xid, view.zxid, Err(ErrorCode::NoAuth));
            return None;
        }
        let request = OperatorRequest::decode(&name, &body);
        let reply = match operator::decide(request, &view) {
            Decision::Reply(reply) => reply,
            Decision::Command(_) if self.read_only => {
                self.reply(xid, view.zxid, Err(ErrorCode::NotReadOnly));
                return None;
            }
            Decision::Command(command) => {
                tracing::info!(name, remote = %self.remote, "an operator's change");
                let audited = self.published.audit().map(|audit| {
                    Audited::of_operator(audit, &command, session, &self.identities, self.remote)
                });
                let ticket = Some(self.outbox.push_pending(Waits::Operator { xid, audited }));
                inputs.push(Input::Command { command, ticket });
                return None;
            }
            // What is asked for first is what this server shows now.
            Decision::SaveSnapshot(0) => self.save(view.index),
            Decision::SaveSnapshot(from) => self.save(from),
            Decision::NextRecord => match self.saving.clone() {
                Some(saving) => {
                    let asked = self.asks(session, xid, Request::Operator { name, body });
                    return Some(Read::record(&self.published, &self.outbox, asked, saving));
                }
                None => OperatorReply::Refused { why: "no snapshot was begun here".to_owned() },
            },
        };
        self.reply(xid, view.zxid, Ok(Reply::Operator(reply.encode().into())));
        None
    }

    /// Begins to save a snapshot that has the entry at this index.
    fn save(&mut self, from: u64) -> OperatorReply {
        let Some(source) = self.published.durable(from) else {
            return OperatorReply::SnapshotNotYet { from };
        };
        tracing::info!(index = source.meta().applied, remote = %self.remote, "saving a snapshot");
        let header = SnapshotHeader::of(source.meta());
        self.saving = Some(Arc::new(Saving::new(source)));
        OperatorReply::SnapshotBegun { header }
    }

    /// Its session, 0 if it has none yet.
    fn session_id(&self) -> i64 {
        self.session().map_or(0, |attached| attached.session)
    }

    /// Writes everything that is decided to `out`, in order; at most about `bytes_max`.
    pub fn drain(&mut self, out: &mut BytesMut, bytes_max: usize) -> Drained {
        let (view, mut session) = (self.published.view(), None);
        if !self.saying.is_empty() && self.outbox.is_dead() {
            self.saying.clear();
        }
        while out.len() < bytes_max {
            if self.saying.is_empty() {
                self.outbox.take_decided(&mut self.saying, DRAIN_MAX);
            }
            let Some(say) = self.saying.pop_front() else { return Drained::Open };
            match say {
                Say::Close => return Drained::Close,
                Say::Nothing => continue,
                Say::Event(Event { kind, path, zxid, acl, .. }) => {
                    let session = *session.get_or_insert_with(|| self.session_id());
                    let check = Check {
                        operation: OpCode::GetData as u16,
                        path: &path,
                        consulted: &path,
                        permission: Perms::READ,
                        entry: None,
                        identities: &self.identities,
                    };
                    match view.may(&acl, &check, session) {
                        Ok(true) => {}
                        Ok(false) if self.mutants.show_private_events => {}
                        Ok(false) => continue,
                        // Its client must not miss it: it comes again, and asks what it has missed.
                        Err(fault) => {
                            tracing::error!(%fault, "whether a client may see an event is not known");
                            return Drained::Close;
                        }
                    }
                    WatchEvent::encode(kind, &path, zxid, out);
                }
                Say::Reply { xid, zxid, result, charge } => {
                    self.stats.last_zxid = zxid;
                    match result {
                        Ok(reply) => reply.encode(ReplyHeader { xid, zxid, err: 0 }, out),
                        Err(code) => {
                            Reply::encode_error(ReplyHeader { xid, zxid, err: code.code() }, out);
                        }
                    }
                    // What is in `out` now is bounded by the connection.
                    drop(charge);
                }
                Say::Connected { session, timeout_ms, password, read_only } => {
                    let session_id = session;
                    ConnectResponse { timeout_ms, session_id, password, read_only }.encode(out);
                }
                Say::SaslFailed { xid, code } => {
                    // The one error that has a body: a token that is null.
                    let header = ReplyHeader { xid, zxid: 0, err: code.code() };
                    Reply::Sasl(None).encode(header, out);
                }
                Say::Refused { read_only } => ConnectResponse::expired(read_only).encode(out),
            }
            self.stats.sent += 1;
        }
        Drained::Open
    }

    /// Whether there is something to drain now.
    pub fn has_output(&self) -> bool {
        !self.saying.is_empty() || self.outbox.has_decided()
    }

    /// Forgets the connection. Its session lives on until it times out or attaches elsewhere.
    pub fn disconnect(&self) {
        self.published.disconnect(&self.outbox);
    }
}
