//! A session with a server, from the client's side: what `shell` and `settings` talk through.
//!
//! We have a client of our own, over `proto`, because an operator's requests are an operation that
//! no client library has; one client for all tools is less than two.
//!
//! Invariants:
//! * Requests are sent and answered in the order in which they were asked.
//! * A notice is given before the answer to any request that was answered after it.
//! * A request is never sent twice: one that was under way when a connection broke fails with
//!   [`AskError::Lost`], and whether it took effect is not known.

mod dial;
mod link;
mod session;
mod target;
mod watches;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use proto::{DecodeError, ErrorCode, Reply, Request, WatchEvent};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::dial::{TlsFiles, tls_connector};
pub(crate) use self::session::Status;
pub(crate) use self::target::Target;

/// Requests that may wait to be sent.
const CALLS_MAX: usize = 256;

/// How to reach a server, and as whom.
#[derive(Clone)]
pub(crate) struct Options {
    /// Where.
    pub(crate) target: Target,
    /// The session timeout to ask for; a connection is waited for as long.
    pub(crate) timeout: Duration,
    /// Whether a server without a quorum is good enough.
    pub(crate) read_only: bool,
    /// Credentials: scheme and secret.
    pub(crate) auth: Vec<(String, Vec<u8>)>,
    /// How to speak TLS; `None` for plain text.
    pub(crate) tls: Option<tokio_rustls::TlsConnector>,
    /// Whether to connect again after a connection is lost.
    pub(crate) reconnect: bool,
}

/// What a session tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A watch fired.
    Event(WatchEvent),
    /// The session is served by this server.
    Connected {
        /// Its address, as it was given.
        server: String,
        /// The session.
        session: i64,
        /// Whether the server is read-only: it has no leader.
        read_only: bool,
    },
    /// Servers answer, but none takes the session yet; they are tried until the timeout.
    Waiting(String),
    /// The connection is lost; another one is tried.
    Lost(String),
    /// The session has expired; a new one is opened.
    Expired,
    /// Credentials were refused; the session has ended.
    AuthFailed,
}

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AskError {
    /// The server's answer is an error.
    #[error("{}", name_of(*.0))]
    Code(i32),
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// There is no connection.
    #[error("not connected")]
    NotConnected,
}

impl AskError {
    /// Whether the server's answer is this error.
    pub(crate) fn is(&self, code: ErrorCode) -> bool {
        *self == Self::Code(code.code())
    }
}

/// The name of an error, or its number.
pub(crate) fn name_of(code: i32) -> String {
    ErrorCode::from_i32(code).map_or_else(|| format!("error {code}"), |code| code.name().to_owned())
}

/// Why a session cannot be opened.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// No server could be reached.
    #[error("{0}")]
    Unreachable(String),
    /// What came is not the protocol.
    #[error("{server} does not speak the protocol: {why}; is it a ZooKeeper client port?")]
    Protocol {
        /// Which server.
        server: String,
        /// What is wrong.
        why: DecodeError,
    },
    /// The server refused credentials.
    #[error("authentication by scheme {0} was refused")]
    Auth(String),
}

type Answer = Result<Reply, AskError>;
type Notify = Box<dyn Fn(Notice) + Send>;

enum Call {
    Ask { request: Request, answer: oneshot::Sender<Answer> },
    Close { done: oneshot::Sender<()> },
}

/// A session. Cheap to clone; ends by [`Session::close`], or when all clones are gone.
#[derive(Clone)]
pub(crate) struct Session {
    calls: mpsc::Sender<Call>,
    status: Arc<parking_lot::Mutex<Status>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?})", self.status.lock())
    }
}

impl Session {
    /// Opens a session. `notify` is called from a task and should not take long.
    ///
    /// # Errors
    /// [`OpenError`] if no server took it in time.
    pub(crate) async fn open(options: Options, notify: Notify) -> Result<Self, OpenError> {
        let (calls, inbox) = mpsc::channel(CALLS_MAX);
        let status = session::start(options, notify, inbox).await?;
        Ok(Self { calls, status })
    }

    /// Where it is served, and whether it is.
    pub(crate) fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Sends a request; its answer comes later. Waits only while too many are under way.
    pub(crate) async fn start(&self, request: Request) -> Pending {
        let (answer, pending) = oneshot::channel();
        // Where the session has ended, the answer's sender is dropped with the call.
        let _ = self.calls.send(Call::Ask { request, answer }).await;
        Pending(pending)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&self, request: Request) -> Answer {
        self.start(request).await.wait().await
    }

    /// Proves to be somebody; also after a reconnect.
    pub(crate) async fn authenticate(&self, scheme: &str, secret: &[u8]) -> Result<(), AskError> {
        let (scheme, auth) = (scheme.to_owned(), bytes::Bytes::copy_from_slice(secret));
        self.ask(Request::Auth { scheme, auth }).await.map(|_| ())
    }

    /// Closes the session: its ephemerals and watches go.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.calls.send(Call::Close { done }).await.is_ok() {
            // An error says that it had ended already.
            let _ = closed.await;
        }
    }
}

/// An answer that has not come yet.
pub(crate) struct Pending(oneshot::Receiver<Answer>);

impl Pending {
    pub(crate) async fn wait(self) -> Answer {
        self.0.await.unwrap_or(Err(AskError::NotConnected))
    }
}
