//! The task behind a session: one connection at a time, pings, and a new connection when it breaks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::codec::Reader;
use proto::connect::PASSWORD_BYTES;
use proto::header::{XID_AUTH, XID_EVENT, XID_PING, XID_SET_WATCHES};
use proto::{
    ConnectRequest, ConnectResponse, ErrorCode, OpCode, Reply, ReplyHeader, Request, WatchEvent,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::dial::dial;
use super::link::{Link, Moved};
use super::watches::{Asked, Watches};
use super::{Answer, AskError, Call, Notice, Notify, OpenError, Options};

/// How long one server may take to be connected to while others are left to try.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// The pause between rounds over all servers.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a server may take to say good-bye.
const CLOSE_MAX: Duration = Duration::from_secs(3);
/// Requests under way, and bytes not sent yet, beyond which no more are taken.
const PENDING_MAX: usize = 1000;
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Where a session is served, and whether it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// The server that serves it, or did last.
    pub(crate) server: String,
    /// The session's id.
    pub(crate) session: i64,
    /// Whether there is a connection.
    pub(crate) connected: bool,
    /// Whether the server is one without a quorum.
    pub(crate) read_only: bool,
}

struct Waiting {
    xid: i32,
    op: OpCode,
    asked: Asked,
    /// For credentials: kept for the next connection when they are accepted.
    credentials: Option<(String, Bytes)>,
    /// Nobody waits for what the task asks by itself.
    answer: Option<oneshot::Sender<Answer>>,
}

struct Task {
    options: Options,
    notify: Notify,
    calls: mpsc::Receiver<Call>,
    status: Arc<Mutex<Status>>,
    password: [u8; PASSWORD_BYTES],
    /// Whether a server that is not read-only has taken the session.
    is_known: bool,
    timeout: Duration,
    zxid: i64,
    xid: i32,
    watches: Watches,
    waiting: VecDeque<Waiting>,
    /// Answers to these may overtake others.
    authenticating: VecDeque<Waiting>,
}

/// Why a connection is over.
enum End {
    Closed,
    Lost(String),
    AuthFailed,
}

/// Why a server did not take the session.
enum Refused {
    Unreachable(String),
    Open(OpenError),
}

/// Connects, and leaves a task that serves `calls`.
pub(super) async fn start(
    options: Options,
    notify: Notify,
    calls: mpsc::Receiver<Call>,
) -> Result<Arc<Mutex<Status>>, OpenError> {
    let status = Status { server: String::new(), session: 0, connected: false, read_only: false };
    let status = Arc::new(Mutex::new(status));
    let mut task = Task {
        timeout: options.timeout,
        options,
        notify,
        calls,
        status: Arc::clone(&status),
        password: [0; PASSWORD_BYTES],
        is_known: false,
        zxid: 0,
        xid: 0,
        watches: Watches::default(),
        waiting: VecDeque::new(),
        authenticating: VecDeque::new(),
    };
    let deadline = Instant::now() + task.timeout;
    let mut told = false;
    let link = loop {
        match task.round().await {
            Ok(link) => break link,
            Err(Refused::Open(error)) => return Err(error),
            // Servers that answer but do not serve yet may do so soon; absent ones will not.
            Err(Refused::Unreachable(why)) => {
                let serves_soon = why.contains(HUNG_UP);
                if !serves_soon || Instant::now() + PAUSE > deadline {
                    return Err(OpenError::Unreachable(why));
                }
                if !std::mem::replace(&mut told, true) {
                    (task.notify)(Notice::Waiting(why));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    let link = task.introduce(link).await?;
    tokio::spawn(task.run(link));
    Ok(status)
}

const HUNG_UP: &str = "the server hung up";

impl Task {
    /// Tries every server once.
    async fn round(&mut self) -> Result<Link, Refused> {
        let mut failures = Vec::new();
        for server in self.options.target.servers.clone() {
            let attempt = timeout(DIAL_MAX.min(self.options.timeout), self.attach(&server)).await;
            match attempt {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(Refused::Unreachable(why))) => failures.push(format!("{server}: {why}")),
                Ok(Err(open)) => return Err(open),
                Err(_) => failures.push(format!("{server}: no answer in time")),
            }
        }
        let why = failures.join("; ");
        Err(Refused::Unreachable(format!("no server answers ({why}); is one running there?")))
    }

    /// Connects to one server and brings the session there; a session that has expired is replaced.
    async fn attach(&mut self, server: &str) -> Result<Link, Refused> {
        let tls = self.options.tls.clone();
        loop {
            let mut link = dial(server, tls.as_ref()).await.map_err(Refused::Unreachable)?;
            // One that a read-only server made is not known to others.
            let session_id = if self.is_known { self.status.lock().session } else { 0 };
            let timeout_ms = i32::try_from(self.options.timeout.as_millis()).unwrap_or(i32::MAX);
            let request = ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: self.zxid,
                timeout_ms,
                session_id,
                password: Bytes::copy_from_slice(&self.password),
                read_only: Some(self.options.read_only),
            };
            request.encode(&mut link.output);
            let frame = link.frame().await.map_err(Refused::Unreachable)?;
            let response = ConnectResponse::decode(frame).map_err(|why| {
                Refused::Open(OpenError::Protocol { server: server.to_owned(), why })
            })?;
            if response.timeout_ms <= 0 {
                (self.notify)(Notice::Expired);
                self.status.lock().session = 0;
                self.is_known = false;
                self.password = [0; PASSWORD_BYTES];
                self.watches = Watches::default();
                continue;
            }
            self.timeout = Duration::from_millis(u64::from(response.timeout_ms.unsigned_abs()));
            self.password = response.password;
            self.is_known |= response.read_only != Some(true);
            *self.status.lock() = Status {
                server: server.to_owned(),
                session: response.session_id,
                connected: true,
                read_only: response.read_only == Some(true),
            };
            return Ok(link);
        }
    }

    /// Proves who the first connection is, so that wrong credentials are an error of opening.
    async fn introduce(&mut self, mut link: Link) -> Result<Link, OpenError> {
        for (scheme, secret) in self.options.auth.clone() {
            let request =
                Request::Auth { scheme: scheme.clone(), auth: Bytes::copy_from_slice(&secret) };
            request.encode(XID_AUTH, &mut link.output);
            let answer = timeout(self.timeout, link.frame()).await;
            let frame = match answer {
                Ok(Ok(frame)) => frame,
                Ok(Err(why)) => {
                    return Err(OpenError::Unreachable(format!("{}: {why}", link.server)));
                }
                Err(_) => {
                    return Err(OpenError::Unreachable(format!("{}: no answer", link.server)));
                }
            };
            let server = link.server.clone();
            let header = ReplyHeader::decode(&mut Reader::new(frame))
                .map_err(|why| OpenError::Protocol { server, why })?;
            if header.err != 0 {
                return Err(OpenError::Auth(scheme));
            }
        }
        Ok(link)
    }

    async fn run(mut self, mut link: Link) {
        loop {
            let Status { server, session, read_only, .. } = self.status.lock().clone();
            (self.notify)(Notice::Connected { server, session, read_only });
            let end = self.serve(link).await;
            self.status.lock().connected = false;
            let why = match end {
                End::Closed => return,
                End::AuthFailed => {
                    (self.notify)(Notice::AuthFailed);
                    return self.fail("authentication failed");
                }
                End::Lost(why) => why,
            };
            self.fail(&why);
            if !self.options.reconnect {
                return;
            }
            (self.notify)(Notice::Lost(why));
            let Some(next) = self.reconnect().await else { return };
            link = next;
        }
    }

    /// Everything under way has an unknown outcome.
    fn fail(&mut self, why: &str) {
        let (waiting, more) = (self.waiting.drain(..), self.authenticating.drain(..));
        for waiting in waiting.chain(more) {
            if let Some(answer) = waiting.answer {
                let _ = answer.send(Err(AskError::Lost(why.to_owned())));
            }
        }
    }

    /// Tries until a server takes the session; requests fail meanwhile. `None` if nobody wants it.
    async fn reconnect(&mut self) -> Option<Link> {
        loop {
            match self.round().await {
                Ok(mut link) => {
                    for (scheme, secret) in self.options.auth.clone() {
                        let request = Request::Auth { scheme, auth: secret.into() };
                        self.send(&mut link, &request, None);
                    }
                    for request in self.watches.again(self.zxid) {
                        self.send(&mut link, &request, None);
                    }
                    return Some(link);
                }
                Err(Refused::Open(error)) => (self.notify)(Notice::Lost(error.to_string())),
                Err(Refused::Unreachable(_)) => {}
            }
            let until = Instant::now() + PAUSE;
            loop {
                tokio::select! {
                    call = self.calls.recv() => match call? {
                        Call::Ask { answer, .. } => {
                            let _ = answer.send(Err(AskError::NotConnected));
                        }
                        Call::Close { .. } => return None,
                    },
                    () = sleep_until(until) => break,
                }
            }
        }
    }

    fn send(
        &mut self,
        link: &mut Link,
        request: &Request,
        answer: Option<oneshot::Sender<Answer>>,
    ) {
        let xid = match request {
            Request::Auth { .. } => XID_AUTH,
            Request::SetWatches(_) | Request::SetWatches2(_) => XID_SET_WATCHES,
            _ => {
                self.xid = self.xid.checked_add(1).unwrap_or(1);
                self.xid
            }
        };
        request.encode(xid, &mut link.output);
        let credentials = match request {
            Request::Auth { scheme, auth } => Some((scheme.clone(), auth.clone())),
            _ => None,
        };
        let asked = Asked::of(request);
        let waiting = Waiting { xid, op: request.opcode(), asked, credentials, answer };
        match xid {
            XID_AUTH => self.authenticating.push_back(waiting),
            _ => self.waiting.push_back(waiting),
        }
    }

    async fn serve(&mut self, mut link: Link) -> End {
        let mut heard = Instant::now();
        let mut sent = Instant::now();
        let mut closing: Option<(oneshot::Sender<()>, Instant)> = None;
        loop {
            let (ping, dead) = (sent + self.timeout / 3, heard + self.timeout * 2 / 3);
            let takes_more = closing.is_none()
                && self.waiting.len() < PENDING_MAX
                && link.output.len() < OUTPUT_BYTES_MAX;
            let patience = closing.as_ref().map_or(dead, |(_, until)| *until);
            tokio::select! {
                moved = link.advance() => match moved {
                    Ok(Moved::Sent) => {}
                    Ok(Moved::Frame(frame)) => {
                        heard = Instant::now();
                        match self.receive(frame) {
                            Ok(()) => {}
                            Err(end) => return end,
                        }
                    }
                    Err(_) if closing.is_some() => return End::Closed,
                    Err(why) => return End::Lost(why),
                },
                call = self.calls.recv(), if takes_more => match call {
                    Some(Call::Ask { request, answer }) => {
                        sent = Instant::now();
                        self.send(&mut link, &request, Some(answer));
                    }
                    Some(Call::Close { done }) => {
                        self.send(&mut link, &Request::CloseSession, None);
                        closing = Some((done, Instant::now() + CLOSE_MAX));
                    }
                    None => {
                        let (done, _) = oneshot::channel();
                        self.send(&mut link, &Request::CloseSession, None);
                        closing = Some((done, Instant::now() + CLOSE_MAX));
                    }
                },
                () = sleep_until(ping) => {
                    sent = Instant::now();
                    Request::Ping.encode(XID_PING, &mut link.output);
                }
                () = sleep_until(patience) => {
                    return match closing {
                        Some(_) => End::Closed,
                        None => End::Lost("the server was silent for too long".to_owned()),
                    };
                }
            }
            if closing.is_some() && self.waiting.is_empty() {
                return End::Closed;
            }
        }
    }

    fn receive(&mut self, frame: Bytes) -> Result<(), End> {
        let malformed = |e: proto::DecodeError| End::Lost(format!("a malformed reply: {e}"));
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).map_err(malformed)?;
        self.zxid = self.zxid.max(header.zxid);
        let waiting = match header.xid {
            XID_PING => return Ok(()),
            XID_EVENT => {
                let event = WatchEvent::decode(header, &mut reader).map_err(malformed)?;
                self.watches.fired(&event);
                (self.notify)(Notice::Event(event));
                return Ok(());
            }
            XID_AUTH => self.authenticating.pop_front(),
            _ => self.waiting.pop_front(),
        };
        let Some(waiting) = waiting.filter(|waiting| waiting.xid == header.xid) else {
            return Err(End::Lost(format!("a reply to nothing that was asked ({})", header.xid)));
        };
        self.watches.answered(waiting.asked, header.err);
        let answer = match header.err {
            0 => Ok(Reply::decode(waiting.op, &mut reader).map_err(malformed)?),
            code => Err(AskError::Code(code)),
        };
        let refused = header.err == ErrorCode::AuthFailed.code();
        if let Some((scheme, auth)) = waiting.credentials
            && answer.is_ok()
            && !self.options.auth.iter().any(|(s, a)| *s == scheme && *a == auth)
        {
            self.options.auth.push((scheme, auth.to_vec()));
        }
        if let Some(sender) = waiting.answer {
            // Whoever asked may have left.
            let _ = sender.send(answer);
        }
        if refused && header.xid == XID_AUTH {
            return Err(End::AuthFailed);
        }
        Ok(())
    }
}
