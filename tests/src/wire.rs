//! One connection to one server: bytes out, frames in, never longer than a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proto::frame::next_frame;

/// How long an answer may take. A server that says nothing at all is heard as [`Heard::Silence`].
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What came next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A frame's payload.
    Frame(Bytes),
    /// The server has closed the connection.
    Closed,
    /// Nothing before the deadline.
    Silence,
}

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    input: BytesMut,
    closed: bool,
}

impl Wire {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input: BytesMut::new(), closed: false })
    }

    /// Sends bytes. A failure is not told here: what the server said before it is read first, then
    /// the connection is heard to be closed.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame.
    pub(crate) fn hear(&mut self, deadline: Instant) -> Heard {
        loop {
            match next_frame(&mut self.input, 64 << 20) {
                Ok(Some(frame)) => return Heard::Frame(frame),
                Ok(None) => {}
                Err(_) => return Heard::Closed,
            }
            if self.closed {
                return Heard::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            let mut chunk = [0; 16 << 10];
            let read = self.stream.set_read_timeout(Some(left));
            match read.and_then(|()| self.stream.read(&mut chunk)) {
                Ok(0) => self.closed = true,
                Ok(n) => self.input.extend_from_slice(&chunk[..n]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => self.closed = true,
                },
            }
        }
    }
}
