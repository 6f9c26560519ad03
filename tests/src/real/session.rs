//! A session of a client that knows several servers: it outlives its connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proto::codec::Reader;
use proto::connect::PASSWORD_BYTES;
use proto::header::XID_EVENT;
use proto::{ConnectRequest, ConnectResponse, Reply, ReplyHeader, Request, WatchEvent};

use crate::wire::{Heard, Wire};

/// How long to wait before the next server is tried.
const PAUSE: Duration = Duration::from_millis(10);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The connection is gone, or the server is silent: whether the request was carried out is not
    /// known.
    Lost,
    /// The session has expired.
    Expired,
    /// No server took the session in time.
    NoServer,
    /// A server said what it must not say.
    Wrong(String),
}

/// An answer: its header, and its body where there was no error.
pub type Answer = (ReplyHeader, Option<Reply>);

/// A session.
pub struct Session {
    servers: Vec<SocketAddr>,
    /// Which of the servers it is connected to, or was.
    at: usize,
    wire: Option<Wire>,
    connections: u64,
    id: i64,
    password: Bytes,
    timeout: Duration,
    /// How long a server may be silent before another one is tried.
    patience: Duration,
    /// The largest zxid that it was told.
    pub last_zxid: i64,
    xid: i32,
    /// Events that came and were not taken.
    pub events: Vec<WatchEvent>,
}

impl Session {
    /// A session that is opened with the first attach, at `servers[at]` if that one serves.
    pub fn new(servers: &[SocketAddr], at: usize, timeout: Duration, patience: Duration) -> Self {
        Self {
            servers: servers.to_vec(),
            at,
            wire: None,
            connections: 0,
            id: 0,
            password: Bytes::from_static(&[0; PASSWORD_BYTES]),
            timeout,
            patience,
            last_zxid: 0,
            xid: 0,
            events: Vec::new(),
        }
    }

    /// Its id; 0 before it was opened.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The server that it is connected to.
    pub fn server(&self) -> Option<usize> {
        self.wire.as_ref().map(|_| self.at)
    }

    /// Which of its connections this is, or was the last.
    pub fn connection(&self) -> u64 {
        self.connections
    }

    /// Closes the connection, not the session; the next attach begins with the next server.
    pub fn leave(&mut self) {
        self.leave_for((self.at + 1) % self.servers.len());
    }

    /// Closes the connection, not the session; the next attach begins with `servers[at]`.
    pub fn leave_for(&mut self, at: usize) {
        self.wire = None;
        self.at = at;
    }

    /// Opens the session, or attaches it to the next server that takes it, beginning with the last
    /// one. Gives the server.
    ///
    /// # Errors
    /// [`Trouble::Expired`], and [`Trouble::NoServer`] at the deadline.
    pub fn attach(&mut self, deadline: Instant) -> Result<usize, Trouble> {
        loop {
            if self.attach_once()? {
                return Ok(self.at);
            }
            self.at = (self.at + 1) % self.servers.len();
            if Instant::now() >= deadline {
                return Err(Trouble::NoServer);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn attach_once(&mut self) -> Result<bool, Trouble> {
        self.wire = None;
        let Ok(mut wire) = Wire::open(self.servers[self.at]) else { return Ok(false) };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX),
            session_id: self.id,
            password: self.password.clone(),
            read_only: Some(false),
        };
        let mut out = BytesMut::new();
        request.encode(&mut out);
        wire.send(&out);
        let Heard::Frame(frame) = wire.hear(Instant::now() + self.patience) else {
            return Ok(false);
        };
        let response = ConnectResponse::decode(frame).map_err(|e| Trouble::Wrong(e.to_string()))?;
        if response.timeout_ms == 0 {
            return Err(Trouble::Expired);
        }
        if self.id != 0 && response.session_id != self.id {
            let text = format!("asked for session {:#x}, got {:#x}", self.id, response.session_id);
            return Err(Trouble::Wrong(text));
        }
        self.id = response.session_id;
        self.password = Bytes::copy_from_slice(&response.password);
        self.wire = Some(wire);
        self.connections += 1;
        Ok(true)
    }

    /// Asks and waits for the answer; events that come before it are kept.
    ///
    /// # Errors
    /// [`Trouble::Lost`] with the connection, and [`Trouble::Wrong`].
    pub fn ask(&mut self, request: &Request) -> Result<Answer, Trouble> {
        let result = self.ask_wire(request);
        if result.is_err() {
            self.wire = None;
        }
        result
    }

    fn ask_wire(&mut self, request: &Request) -> Result<Answer, Trouble> {
        self.xid += 1;
        let xid = match request {
            Request::SetWatches(_) | Request::SetWatches2(_) => proto::header::XID_SET_WATCHES,
            Request::Ping => proto::header::XID_PING,
            _ => self.xid,
        };
        let mut out = BytesMut::new();
        request.encode(xid, &mut out);
        self.wire.as_mut().ok_or(Trouble::Lost)?.send(&out);
        let deadline = Instant::now() + self.patience;
        loop {
            let (header, mut reader) = self.hear(deadline)?.ok_or(Trouble::Lost)?;
            if header.xid == XID_EVENT {
                self.keep(header, &mut reader)?;
                continue;
            }
            if header.xid != xid {
                let text = format!("expected the answer to {xid}, got that to {}", header.xid);
                return Err(Trouble::Wrong(text));
            }
            if header.zxid > 0 {
                if header.zxid < self.last_zxid {
                    let (was, now) = (self.last_zxid, header.zxid);
                    return Err(Trouble::Wrong(format!("zxid {now:#x} after {was:#x}")));
                }
                self.last_zxid = header.zxid;
            }
            if header.err != 0 {
                return Ok((header, None));
            }
            let reply = Reply::decode(request.opcode(), &mut reader);
            let reply = reply.map_err(|error| Trouble::Wrong(error.to_string()))?;
            return Ok((header, Some(reply)));
        }
    }

    /// Waits for one event, or for the deadline; what came is in `events`.
    ///
    /// # Errors
    /// As [`Session::ask`].
    pub fn wait_event(&mut self, deadline: Instant) -> Result<(), Trouble> {
        let result = match self.hear(deadline) {
            Ok(Some((header, mut reader))) if header.xid == XID_EVENT => {
                self.keep(header, &mut reader)
            }
            Ok(Some((header, _))) => Err(Trouble::Wrong(format!("an answer to {}", header.xid))),
            Ok(None) => Ok(()),
            Err(trouble) => Err(trouble),
        };
        if result.is_err() {
            self.wire = None;
        }
        result
    }

    fn keep(&mut self, header: ReplyHeader, reader: &mut Reader) -> Result<(), Trouble> {
        let event = WatchEvent::decode(header, reader);
        self.events.push(event.map_err(|error| Trouble::Wrong(error.to_string()))?);
        Ok(())
    }

    fn hear(&mut self, deadline: Instant) -> Result<Option<(ReplyHeader, Reader)>, Trouble> {
        match self.wire.as_mut().ok_or(Trouble::Lost)?.hear(deadline) {
            Heard::Silence => Ok(None),
            Heard::Closed => Err(Trouble::Lost),
            Heard::Frame(frame) => {
                let mut reader = Reader::new(frame);
                let header = ReplyHeader::decode(&mut reader);
                let header = header.map_err(|error| Trouble::Wrong(error.to_string()))?;
                Ok(Some((header, reader)))
            }
        }
    }
}
