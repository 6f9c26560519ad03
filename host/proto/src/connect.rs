//! The first packet in each direction, which has no header.
//!
//! The trailing `readOnly` byte is optional: a client older than 3.4 leaves it out, and a server
//! must then leave it out of its response (ZOOKEEPER-4814).

use bytes::{Bytes, BytesMut};

use crate::codec::{Reader, frame};
use crate::error::DecodeError;

/// How long a session's password is, in bytes.
pub const PASSWORD_BYTES: usize = 16;

/// A client's first packet: a new session, or an existing one by id and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Always 0.
    pub protocol_version: i32,
    /// The largest zxid that the client has seen, on any server.
    pub last_zxid_seen: i64,
    /// The session timeout that the client asks for, in milliseconds.
    pub timeout_ms: i32,
    /// 0 for a new session.
    pub session_id: i64,
    /// 16 bytes; zeros for a new session.
    pub password: Bytes,
    /// Whether the client is content with a read-only server; `None` if the byte was left out.
    pub read_only: Option<bool>,
}

/// The server's answer. A timeout of 0 says that the session is not known (any more).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResponse {
    /// The negotiated session timeout in milliseconds, or 0: the session has expired.
    pub timeout_ms: i32,
    /// The session's id.
    pub session_id: i64,
    /// The session's password.
    pub password: [u8; PASSWORD_BYTES],
    /// Whether the server is read-only; `None` if the request left the byte out.
    pub read_only: Option<bool>,
}

impl ConnectRequest {
    /// Decodes a frame's payload.
    ///
    /// # Errors
    /// [`DecodeError`] if it is truncated.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        Ok(Self {
            protocol_version: r.int()?,
            last_zxid_seen: r.long()?,
            timeout_ms: r.int()?,
            session_id: r.long()?,
            password: r.buffer()?.unwrap_or_default(),
            read_only: if r.remaining() > 0 { Some(r.boolean()?) } else { None },
        })
    }

    /// Appends the request as a whole frame.
    pub fn encode(&self, out: &mut BytesMut) {
        frame(out, |w| {
            w.int(self.protocol_version);
            w.long(self.last_zxid_seen);
            w.int(self.timeout_ms);
            w.long(self.session_id);
            w.buffer(Some(&self.password));
            if let Some(read_only) = self.read_only {
                w.boolean(read_only);
            }
        });
    }
}

impl ConnectResponse {
    /// The answer to a session that is unknown or expired, or whose password is wrong.
    pub fn expired(read_only: Option<bool>) -> Self {
        Self { timeout_ms: 0, session_id: 0, password: [0; PASSWORD_BYTES], read_only }
    }

    /// Decodes a frame's payload.
    ///
    /// # Errors
    /// [`DecodeError`] if it is truncated, or the password is not of 16 bytes.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let _protocol_version = r.int()?;
        let timeout_ms = r.int()?;
        let session_id = r.long()?;
        let password = r.buffer()?.unwrap_or_default();
        let len = i32::try_from(password.len()).unwrap_or(i32::MAX);
        Ok(Self {
            timeout_ms,
            session_id,
            password: password
                .as_ref()
                .try_into()
                .map_err(|_| DecodeError::Length { what: "password", len })?,
            read_only: if r.remaining() > 0 { Some(r.boolean()?) } else { None },
        })
    }

    /// Appends the response as a whole frame.
    pub fn encode(&self, out: &mut BytesMut) {
        frame(out, |w| {
            w.int(0);
            w.int(self.timeout_ms);
            w.long(self.session_id);
            w.buffer(Some(&self.password));
            if let Some(read_only) = self.read_only {
                w.boolean(read_only);
            }
        });
    }
}
