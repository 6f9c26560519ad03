//! How messages leave: whoever has them writes them to the socket himself, as far as it takes them at
//! once. That spares a wake-up of another thread, which costs as much as the message. What the socket
//! does not take, and all that goes by TLS, waits for the link's thread.
//!
//! Invariants:
//! * Bytes leave in the order in which they were given; nothing is written past what waits.
//! * Of what was given together all leaves or nothing, while the connection lasts.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::SendFlags;

use crate::mailbox::Mailbox;

/// How much may wait for a peer that does not take it before more is dropped, in pieces.
const WAITING_MAX: usize = 10_000;
/// How long the link's thread sleeps, if nothing wakes it.
const REST: Duration = Duration::from_secs(2);

/// The way to a peer.
pub(super) struct Way {
    now: Mutex<Now>,
    /// What the link's thread is to write; `None` when the connection has ended.
    waiting: Mailbox<Option<Vec<u8>>>,
}

#[derive(Default)]
struct Now {
    /// The socket, if there is a connection that can be written to like this.
    stream: Option<TcpStream>,
    /// Whether the link's thread has something to write.
    waits: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self { now: Mutex::default(), waiting: Mailbox::new(usize::MAX) }
    }
}

impl Way {
    /// A connection begins, or there is none any more: what waited is dropped. Without a `stream`
    /// everything is left to the link's thread.
    pub(super) fn begin(&self, stream: Option<TcpStream>) {
        let mut now = self.now.lock();
        *now = Now { stream, waits: false };
        self.waiting.take(&mut Vec::new(), Duration::ZERO);
    }

    /// The link's thread is to leave [`Self::write_waiting`].
    pub(super) fn end(&self) {
        self.waiting.put([None]);
    }

    /// Sends some bytes. Does not block.
    pub(super) fn send(&self, mut bytes: Vec<u8>) {
        let mut now = self.now.lock();
        if let Some(stream) = now.stream.as_ref().filter(|_| !now.waits) {
            match rustix::net::send(stream, &bytes, SendFlags::DONTWAIT) {
                Ok(sent) if sent == bytes.len() => return,
                Ok(sent) => drop(bytes.drain(..sent)),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // Whoever reads from the connection notices that it has ended.
                Err(_) => return,
            }
        } else if self.waiting.len() >= WAITING_MAX {
            return;
        }
        now.waits = true;
        self.waiting.put([Some(bytes)]);
    }

    /// Writes what waits, until the connection has ended.
    pub(super) fn write_waiting(&self, mut stream: impl Write) -> io::Error {
        let (mut waiting, mut bytes) = (Vec::new(), Vec::new());
        loop {
            self.waiting.take(&mut waiting, REST);
            let mut ended = false;
            for some in waiting.drain(..) {
                match some {
                    Some(some) => bytes.extend_from_slice(&some),
                    None => ended = true,
                }
            }
            if let Err(error) = stream.write_all(&bytes).and_then(|()| stream.flush()) {
                return error;
            }
            if ended {
                return io::ErrorKind::ConnectionAborted.into();
            }
            bytes.clear();
            let mut now = self.now.lock();
            now.waits = self.waiting.len() > 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_the_socket_does_not_take_at_once_comes_whole_and_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("it listens"));
        let (ours, (mut theirs, _)) = (ours.expect("it connects"), listener.accept().expect("so"));
        let way = Arc::new(Way::default());
        way.begin(Some(ours.try_clone().expect("a second handle")));
        let writer = {
            let way = Arc::clone(&way);
            std::thread::spawn(move || way.write_waiting(&ours))
        };
        // More than any socket takes before its peer reads.
        let pieces: Vec<Vec<u8>> = (0..200u8).map(|n| vec![n; 100_000 + usize::from(n)]).collect();
        let all = pieces.concat();
        pieces.into_iter().for_each(|piece| way.send(piece));
        let mut got = vec![0; all.len()];
        theirs.read_exact(&mut got).expect("all comes");
        assert!(got == all, "as it was sent");
        // Once all is written it goes directly again.
        let mut last = [0; 4];
        while way.now.lock().waits {
            std::thread::yield_now();
        }
        way.send(b"last".to_vec());
        assert!(!way.now.lock().waits, "it was written at once");
        theirs.read_exact(&mut last).expect("it comes");
        assert_eq!(&last, b"last");
        way.end();
        assert_eq!(writer.join().expect("it ends").kind(), io::ErrorKind::ConnectionAborted);
    }
}
