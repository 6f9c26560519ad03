//! Client connections: an accept loop, and one task for each client that moves bytes between its
//! socket and its `Connection`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hashbrown::HashMap;
use parking_lot::Mutex;
use proto::frame::next_frame;
use proto::{Id, four_letter as words};
use replica::connection::Drained;
use replica::{Attached, Authenticator, Connection, Input, Outbox, Policy, Published, Read};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

use crate::audit::AuditLog;
use crate::client_threads::{Bell, ClientThreads};
use crate::four_letter::{self, Asked};
use crate::mailbox::Mailbox;
use crate::plugins::Meters;
use crate::slow::Waiting;
use crate::stats::{Stats, Told};
use crate::threads::{Part, clock_ms};
use crate::watched::Watched;

/// Bytes that may wait for a client to read them before nothing more is read from it.
const OUT_BYTES_MAX: usize = 1 << 20;
/// How many reads are answered before what they gave is encoded.
const READS_MAX: usize = 16;
/// How many requests a connection counts before it takes them.
const RESERVED_MAX: usize = 16;
/// The longest time that a client without a session may take no byte of what is sent to it.
const STALLED_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to read the last that is said to it.
pub(crate) const FLUSH_MAX: Duration = Duration::from_secs(5);
/// How much one read takes from a socket.
const READ_BYTES: usize = 64 << 10;

/// The bounds that a client meets.
#[derive(Debug, Clone)]
pub(crate) struct ClientLimits {
    pub(crate) frame_bytes_max: usize,
    pub(crate) per_address_max: usize,
    pub(crate) connections_max: usize,
    /// Requests in progress of one connection, and of all of them.
    pub(crate) outstanding_max: usize,
    pub(crate) all_outstanding_max: usize,
    pub(crate) sessionless: Duration,
    pub(crate) slow: Duration,
}

/// What all clients' tasks share.
pub(crate) struct Clients {
    pub(crate) inputs: Arc<Mailbox<Input>>,
    pub(crate) big_reads: Arc<Mailbox<Read>>,
    pub(crate) published: Arc<Published>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) policy: Arc<Policy>,
    /// Whether a client is who its certificate says.
    pub(crate) x509: bool,
    /// The certificate's subject that passes every ACL.
    pub(crate) x509_super: Option<String>,
    pub(crate) limits: ClientLimits,
    pub(crate) stats: Arc<Stats>,
    pub(crate) four_letter: four_letter::Answers,
    pub(crate) next_session: AtomicU64,
    pub(crate) next_connection: AtomicU64,
    pub(crate) addresses: Mutex<HashMap<std::net::IpAddr, usize>>,
    pub(crate) stopping: watch::Receiver<bool>,
    /// Whether clients are let in: what a start has to replay is applied.
    pub(crate) serves: AtomicBool,
    /// Whether they are about to be let go.
    pub(crate) stops: AtomicBool,
    pub(crate) watched: Arc<Watched>,
    pub(crate) audit: Option<Arc<AuditLog>>,
    /// What calls of plugins take.
    pub(crate) meters: Arc<Meters>,
}

/// Accepts clients until the server stops.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    clients: Arc<Clients>,
    threads: Arc<ClientThreads>,
) {
    let mut stopping = clients.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: give others time to leave.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let clients = Arc::clone(&clients);
        let Some(place) = Place::take(&clients, remote) else {
            clients.stats.rejected.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%remote, "too many connections; one was refused");
            continue;
        };
        let tls = tls.as_ref().map(|current| TlsAcceptor::from(Arc::clone(&current.borrow())));
        let served = threads.serve(stream, move |stream, bell| async move {
            match tls {
                None => {
                    let (reader, writer) = stream.into_split();
                    serve(reader, writer, (remote, false), Vec::new(), (&clients, bell)).await;
                }
                Some(tls) => serve_tls(&tls, stream, remote, (&clients, bell)).await,
            }
            drop(place);
        });
        if let Err(error) = served {
            tracing::warn!(%error, %remote, "a connection could not be served");
        }
    }
}

/// A connection's place under the limits; given back when dropped.
struct Place {
    clients: Arc<Clients>,
    remote: std::net::IpAddr,
}

impl Place {
    fn take(clients: &Arc<Clients>, remote: SocketAddr) -> Option<Self> {
        let limits = &clients.limits;
        let mut addresses = clients.addresses.lock();
        let all: usize = addresses.values().sum();
        let here = addresses.entry(remote.ip()).or_default();
        let over = |count: usize, max: usize| max != 0 && count >= max;
        if over(*here, limits.per_address_max) || over(all, limits.connections_max) {
            return None;
        }
        *here += 1;
        Some(Self { clients: Arc::clone(clients), remote: remote.ip() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.clients.addresses.lock();
        if let Some(count) = addresses.get_mut(&self.remote) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.remote);
            }
        }
    }
}

async fn serve_tls(
    tls: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    (clients, bell): (&Arc<Clients>, Arc<Bell>),
) {
    let handshake = tokio::time::timeout(clients.limits.sessionless, tls.accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%remote, %error, "a TLS handshake failed"),
        Err(_) => return tracing::info!(%remote, "a TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let mut identities = Vec::new();
    let certificate = certificate.filter(|_| clients.x509);
    if let Some(name) = certificate.and_then(|certificate| crate::tls::rfc2253(certificate)) {
        if clients.x509_super.as_ref() == Some(&name) {
            identities.push(Id::new("super", name.clone()));
        }
        identities.push(Id::new("x509", name));
    }
    let (reader, writer) = tokio::io::split(stream);
    serve(reader, writer, (remote, true), identities, (clients, bell)).await;
}

async fn serve(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    (remote, is_secure): (SocketAddr, bool),
    mut identities: Vec<Id>,
    (clients, bell): (&Arc<Clients>, Arc<Bell>),
) {
    let notify = Arc::new(Notify::new());
    let task = Arc::clone(&notify);
    let id = clients.next_connection.fetch_add(1, Ordering::Relaxed);
    let outbox = Outbox::new(id, Box::new(move || bell.ring(&task)));
    let ip = remote.ip().to_canonical();
    identities.insert(0, Id::new("ip", ip.to_string()));
    let connection = Connection::new(
        Arc::clone(&clients.published),
        outbox,
        Arc::clone(&clients.authenticator),
        Arc::clone(&clients.policy),
        ip,
        identities,
    );
    let (since_ms, from) = (clock_ms(), remote.to_string());
    let told = Told { remote: from, is_secure, since_ms, ..Told::default() };
    let told = clients.stats.connected(id, told);
    let mut task = Task {
        connection,
        clients,
        told,
        remote,
        input: BytesMut::new(),
        output: BytesMut::new(),
        inputs: Vec::new(),
        waiting: Waiting::new(clients.limits.slow),
        counted: (0, 0),
        outstanding: 0,
        held: false,
        leave_by: None,
    };
    let end = task.run(&mut reader, &mut writer, &notify).await;
    tracing::debug!(%remote, ?end, "a connection ended");
    task.count(0);
    task.connection.disconnect();
    clients.stats.disconnected(id);
    // What was said is sent as far as the client takes it. What it sent meanwhile is taken off the
    // socket: closing one with unread bytes resets it, and throws away what was not sent yet.
    let parting = async {
        let mut rest = Vec::with_capacity(READ_BYTES);
        if writer.shutdown().await.is_ok() && !matches!(end, End::Gone) {
            while reader.read_buf(&mut rest).await.is_ok_and(|bytes| bytes > 0) {
                rest.clear();
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), parting).await;
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The client left, or the network failed.
    Gone,
    /// The server is done with it.
    Done,
    /// It sent what is not the protocol.
    Malformed,
    /// It did not begin a session in time.
    Silent,
    /// It took no byte of what was sent to it for as long as its session may be silent.
    Stalled,
    /// This server is not of the ensemble any more.
    Removed,
}

struct Task<'a> {
    connection: Connection,
    clients: &'a Arc<Clients>,
    told: Arc<Mutex<Told>>,
    remote: SocketAddr,
    input: BytesMut,
    output: BytesMut,
    inputs: Vec<Input>,
    waiting: Waiting,
    /// Packets received and sent that the server's counters know of.
    counted: (u64, u64),
    outstanding: usize,
    /// Whether `input` may hold whole frames that had no room.
    held: bool,
    /// Set when the server stops: nothing more is taken, and what was taken is answered until then.
    leave_by: Option<tokio::time::Instant>,
}

impl Task<'_> {
    async fn run(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        notify: &Notify,
    ) -> End {
        let deadline = tokio::time::Instant::now() + self.clients.limits.sessionless;
        let mut stopping = self.clients.stopping.clone();
        let mut stalled_since = tokio::time::Instant::now();
        loop {
            let leaves = self.leave_by.is_some();
            if leaves && self.outstanding == 0 && self.output.is_empty() {
                return End::Done;
            }
            let session = self.connection.session();
            let attached = session.is_some();
            let patience = session.map_or(STALLED_MAX, |attached| {
                Duration::from_millis(u64::try_from(attached.timeout_ms).unwrap_or_default())
            });
            if self.output.is_empty() {
                stalled_since = tokio::time::Instant::now();
            }
            let has_room = self.room() > 0;
            // Frames that had no room come before anything else that the client sends.
            let resumes = self.held && has_room;
            let mut arrived = false;
            // What was decoded still points into the buffer: a new one is made when it is used up.
            if self.input.capacity() - self.input.len() < READ_BYTES / 8 {
                self.input.reserve(READ_BYTES);
            }
            tokio::select! {
                biased;
                written = writer.write_buf(&mut self.output), if !self.output.is_empty() => {
                    if !written.is_ok_and(|bytes| bytes > 0) {
                        return End::Gone;
                    }
                    stalled_since = tokio::time::Instant::now();
                }
                () = std::future::ready(()), if resumes => arrived = true,
                () = notify.notified() => {}
                read = reader.read_buf(&mut self.input), if has_room => {
                    if !read.is_ok_and(|bytes| bytes > 0) {
                        return End::Gone;
                    }
                    arrived = true;
                }
                _ = stopping.changed(), if !leaves => {
                    self.leave_by = Some(tokio::time::Instant::now() + FLUSH_MAX);
                }
                () = tokio::time::sleep_until(self.leave_by.unwrap_or(deadline)), if leaves => {
                    return End::Done;
                }
                () = tokio::time::sleep_until(deadline), if !attached => return End::Silent,
                () = tokio::time::sleep_until(stalled_since + patience),
                    if !self.output.is_empty() =>
                {
                    tracing::warn!(
                        remote = %self.remote,
                        stalled_ms = patience.as_millis(),
                        "a client reads nothing of what is sent to it; its connection is closed"
                    );
                    return End::Stalled;
                }
            }
            let end = self.work(arrived);
            if let Some(end) = end {
                // What was answered before is still sent.
                let flush = writer.write_all_buf(&mut self.output);
                let _ = tokio::time::timeout(FLUSH_MAX, flush).await;
                return end;
            }
        }
    }

    /// Takes what arrived, answers what can be answered, and encodes what can be said; gives the
    /// reason if the connection is to end after that.
    fn work(&mut self, arrived: bool) -> Option<End> {
        if arrived {
            match self.take_frames() {
                Ok(None) => {}
                Ok(Some(asked)) => {
                    let words = &self.clients.four_letter;
                    let answer = words.answer(&asked, self.remote, self.clients);
                    self.output.extend_from_slice(answer.as_bytes());
                    return Some(End::Done);
                }
                Err(end) => return Some(end),
            }
        }
        let mut drained = self.connection.drain(&mut self.output, OUT_BYTES_MAX);
        // Nothing is read for a client that does not take what was read before.
        while drained == Drained::Open && self.output.len() < OUT_BYTES_MAX {
            let more = match self.answer_reads() {
                Ok(more) => more,
                Err(end) => return Some(end),
            };
            drained = self.connection.drain(&mut self.output, OUT_BYTES_MAX);
            if !more {
                break;
            }
        }
        self.count(self.connection.outstanding());
        (drained == Drained::Close).then_some(End::Done)
    }

    /// How many more requests may be taken.
    fn room(&self) -> usize {
        self.room_beside(self.clients.stats.outstanding.load(Ordering::Relaxed))
    }

    /// The same, when `all` are in flight on all connections. A connection without any may always
    /// take one, so that each comes on however many others there are.
    fn room_beside(&self, all: i64) -> usize {
        if self.output.len() >= OUT_BYTES_MAX || self.leave_by.is_some() {
            return 0;
        }
        let limits = &self.clients.limits;
        let all = usize::try_from(all).unwrap_or_default();
        let own = limits.outstanding_max.saturating_sub(self.outstanding);
        let shared = limits.all_outstanding_max.saturating_sub(all);
        own.min(shared).max(usize::from(self.outstanding == 0))
    }

    /// Counts a few requests before they are taken, so that no other connection takes that room at
    /// the same moment; `count` gives back what was not needed.
    fn reserve(&mut self) -> usize {
        let mut room = 0;
        let all = &self.clients.stats.outstanding;
        let reserved = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
            room = self.room_beside(all).min(RESERVED_MAX);
            Some(all + room as i64)
        });
        debug_assert!(reserved.is_ok(), "it is never refused");
        self.outstanding += room;
        room
    }

    /// Answers up to [`READS_MAX`] reads and passes the writes on; true if there may be more.
    fn answer_reads(&mut self) -> Result<bool, End> {
        let mut more = true;
        for _ in 0..READS_MAX {
            let Some(read) = self.connection.advance(&mut self.inputs) else {
                more = false;
                break;
            };
            if let Some(big) = read.run()
                && !self.clients.big_reads.put([big])
            {
                return Err(End::Done);
            }
        }
        if !self.inputs.is_empty() && !self.clients.inputs.put(self.inputs.drain(..)) {
            return Err(End::Done);
        }
        Ok(more)
    }

    fn take_frames(&mut self) -> Result<Option<Asked>, End> {
        if self.connection.is_new()
            && let Some(first) = self.input.first_chunk::<4>()
            && let Some(word) = words::parse(*first)
        {
            self.input.advance(4);
            return Ok(Some(Asked { word, argument: self.input.split().freeze() }));
        }
        let malformed = |error: proto::DecodeError, remote: &SocketAddr| {
            tracing::info!(%error, %remote, "a malformed packet; its connection is closed");
            End::Malformed
        };
        let mut heard = false;
        let mut room = 0;
        self.held = true;
        loop {
            if room == 0 {
                room = self.reserve();
            }
            if room == 0 {
                break;
            }
            room -= 1;
            let frame = next_frame(&mut self.input, self.clients.limits.frame_bytes_max);
            let Some(payload) = frame.map_err(|e| malformed(e, &self.remote))? else {
                self.held = false;
                break;
            };
            heard = true;
            self.waiting.arrives(&payload, self.connection.is_new());
            let result = if self.connection.is_new() {
                let clients = self.clients;
                if !Part::serves(&clients.four_letter.part) {
                    return Err(End::Removed);
                }
                let new = || new_session(clients);
                self.connection.connect(payload, new, &mut self.inputs)
            } else {
                self.connection.receive(payload)
            };
            result.map_err(|e| malformed(e, &self.remote))?;
        }
        if heard {
            self.connection.outbox().hear();
            self.waiting.arrived(self.connection.stats().received);
        }
        Ok(None)
    }

    /// Brings the server's counters up to date.
    fn count(&mut self, outstanding: usize) {
        let stats = self.connection.stats();
        let server = &self.clients.stats;
        let (received, sent) = (stats.received - self.counted.0, stats.sent - self.counted.1);
        let outstanding_change = outstanding as i64 - self.outstanding as i64;
        self.outstanding = outstanding;
        if received == 0 && sent == 0 && outstanding_change == 0 {
            return;
        }
        server.received.fetch_add(received, Ordering::Relaxed);
        server.sent.fetch_add(sent, Ordering::Relaxed);
        server.outstanding.fetch_add(outstanding_change, Ordering::Relaxed);
        let answered = stats.received - outstanding as u64;
        let session = self.connection.session();
        let who = (self.remote, session.map_or(0, |attached| attached.session));
        let each = |slot, count, us| server.answered(slot, count, us);
        self.waiting.answered(answered, who, each);
        self.counted = (stats.received, stats.sent);
        let mut told = self.told.lock();
        told.queued = outstanding;
        told.received += received;
        told.sent += sent;
        if let Some(Attached { session, timeout_ms, .. }) = session {
            (told.session, told.timeout_ms) = (session, timeout_ms);
        }
        (told.last_op, told.last_xid) = (stats.last_op, stats.last_xid);
        told.last_zxid = stats.last_zxid;
    }
}

/// A new session's id, unique among those of this server, and a random password.
fn new_session(clients: &Clients) -> (i64, [u8; 16]) {
    let session = clients.next_session.fetch_add(1, Ordering::Relaxed) as i64;
    let mut password = [0; 16];
    if let Err(error) = getrandom::fill(&mut password) {
        tracing::error!(%error, "the system has no randomness; a session gets a weak password");
        password[..8].copy_from_slice(&clock_ms().to_be_bytes());
    }
    (session, password)
}
