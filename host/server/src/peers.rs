//! Links to the other servers of the ensemble: TCP, one connection in each direction, so that whoever
//! has something to say keeps that way open.
//!
//! A frame is its length, its checksum (crc32c), and so many bytes. The first says who calls, and is
//! answered; then messages follow one way. What cannot be sent is dropped: raft, and the numbers of
//! commands, see to what is lost.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use replica::peer::PEER_FORMAT;
use replica::{Input, PeerMessage};
use serde::{Deserialize, Serialize};

use crate::config::Address;
use crate::mailbox::Mailbox;

/// No message is longer: a round of entries, and what is around it.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// How long a peer may take to take a connection, or to answer the first frame.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before a peer that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How many messages may wait for a peer that does not take them before further ones are dropped.
const WAITING_MAX: usize = 10_000;

/// What a caller says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    format: u32,
    from: u64,
    to: u64,
    boot: u64,
}

/// The answer: nothing, or why the caller is refused.
type Welcome = Option<String>;

/// One server of the ensemble, as the others find it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its id for raft.
    pub(crate) id: u64,
    /// Where it listens for other servers.
    pub(crate) addresses: Vec<Address>,
}

/// The links of this server.
pub(crate) struct Peers {
    links: BTreeMap<u64, Arc<Link>>,
}

struct Link {
    messages: Mailbox<PeerMessage>,
    there: AtomicBool,
}

impl Peers {
    /// A server without any.
    pub(crate) fn none() -> Self {
        Self { links: BTreeMap::new() }
    }

    /// Listens for the others, and keeps a link to each. `me` is this server's id for raft.
    pub(crate) fn start(
        listener: TcpListener,
        (me, boot): (u64, u64),
        others: Vec<Peer>,
        inputs: &Arc<Mailbox<Input>>,
    ) -> io::Result<Self> {
        let known: Arc<[u64]> = others.iter().map(|peer| peer.id).collect();
        let mut links = BTreeMap::new();
        for peer in others {
            let link = Arc::new(Link {
                messages: Mailbox::new(usize::MAX),
                there: AtomicBool::new(false),
            });
            let (ours, inputs) = (Arc::clone(&link), Arc::clone(inputs));
            links.insert(peer.id, link);
            let hello = Hello { format: PEER_FORMAT, from: me, to: peer.id, boot };
            let name = format!("to-server-{}", peer.id);
            std::thread::Builder::new().name(name).spawn(move || {
                call(&peer, &hello, &ours, &inputs);
            })?;
        }
        let inputs = Arc::clone(inputs);
        std::thread::Builder::new().name("peers".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                let (known, inputs) = (Arc::clone(&known), Arc::clone(&inputs));
                let body = move |stream| match answer(&stream, me, &known) {
                    Ok(from) => listen(from, stream, &inputs),
                    Err(error) => tracing::warn!(%error, "a peer's call was refused"),
                };
                let spawned = stream.and_then(|stream| {
                    let thread = std::thread::Builder::new().name("from-server".to_owned());
                    thread.spawn(move || body(stream))
                });
                if let Err(error) = spawned {
                    tracing::warn!(%error, "a peer's call could not be taken");
                    std::thread::sleep(RETRY);
                }
            }
        })?;
        Ok(Self { links })
    }

    /// Sends a message, if there is a link; otherwise it is dropped.
    pub(crate) fn send(&self, to: u64, message: PeerMessage) {
        let Some(link) = self.links.get(&to) else { return };
        if link.there.load(Ordering::Relaxed) && link.messages.len() < WAITING_MAX {
            link.messages.put([message]);
        }
    }
}

/// Keeps the link to a peer, for ever.
fn call(peer: &Peer, hello: &Hello, link: &Link, inputs: &Mailbox<Input>) {
    let mut told = false;
    loop {
        match connect(peer, hello) {
            Ok(stream) => {
                tracing::info!(peer = peer.id, "linked to a server");
                told = false;
                link.there.store(true, Ordering::Relaxed);
                inputs.put([Input::Linked(peer.id)]);
                let error = speak(stream, link);
                link.there.store(false, Ordering::Relaxed);
                link.messages.take(&mut Vec::new(), Duration::ZERO);
                inputs.put([Input::Unlinked(peer.id)]);
                tracing::info!(peer = peer.id, %error, "a link is gone");
            }
            Err(error) => {
                if !told {
                    told = true;
                    tracing::warn!(peer = peer.id, %error, "a server cannot be reached; trying on");
                }
            }
        }
        std::thread::sleep(RETRY);
    }
}

fn connect(peer: &Peer, hello: &Hello) -> io::Result<TcpStream> {
    let mut last = io::Error::other("it has no address");
    // Names are looked up each time: servers move.
    for address in &peer.addresses {
        let text = address.to_string();
        let found = match text.to_socket_addrs() {
            Ok(found) => found,
            Err(error) => {
                last = io::Error::other(format!("{text}: {error}"));
                continue;
            }
        };
        for address in found {
            match TcpStream::connect_timeout(&address, PATIENCE).and_then(|s| greet(s, hello)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = io::Error::other(format!("{address}: {error}")),
            }
        }
    }
    Err(last)
}

fn greet(mut stream: TcpStream, hello: &Hello) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&frame(&encode(hello)))?;
    match decode::<Welcome>(&read_frame(&mut stream)?)? {
        None => Ok(stream),
        Some(why) => Err(io::Error::other(format!("it refuses this server: {why}"))),
    }
}

/// Sends what there is to send until the link breaks.
fn speak(mut stream: TcpStream, link: &Link) -> io::Error {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    loop {
        link.messages.take(&mut messages, PATIENCE);
        for message in messages.drain(..) {
            bytes.extend_from_slice(&frame(&message.encode()));
        }
        if let Err(error) = stream.write_all(&bytes) {
            return error;
        }
        bytes.clear();
    }
}

/// Takes a call; gives the peer's id.
fn answer(mut stream: &TcpStream, me: u64, known: &[u64]) -> io::Result<u64> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let hello: Hello = decode(&read_frame(&mut stream)?)?;
    let wrong = if hello.format != PEER_FORMAT {
        Some(format!("expected format {PEER_FORMAT} of messages, got {}", hello.format))
    } else if hello.to != me {
        Some(format!("expected a call for server {me}, got one for server {}", hello.to))
    } else if !known.contains(&hello.from) {
        Some(format!("expected a server of {known:?}, got server {}", hello.from))
    } else {
        None
    };
    stream.write_all(&frame(&encode(&wrong)))?;
    match wrong {
        None => Ok(hello.from),
        Some(why) => Err(io::Error::other(why)),
    }
}

/// Takes messages until the link breaks.
fn listen(from: u64, stream: TcpStream, inputs: &Mailbox<Input>) {
    if let Err(error) = stream.set_read_timeout(None) {
        return tracing::warn!(%error, "a link cannot be used");
    }
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    loop {
        let message = read_frame(&mut reader)
            .and_then(|bytes| PeerMessage::decode(&bytes).map_err(io::Error::other));
        match message {
            Ok(message) => {
                inputs.put([Input::Peer { from, message }]);
            }
            Err(error) => {
                tracing::info!(peer = from, %error, "a server's link ended");
                inputs.put([Input::Unlinked(from)]);
                return;
            }
        }
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 8];
    from.read_exact(&mut head)?;
    let [a, b, c, d, rest @ ..] = head;
    let (bytes, crc) = (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes(rest));
    if bytes > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!(
            "expected a frame of at most {FRAME_BYTES_MAX} bytes, got {bytes}: no server of an ensemble"
        )));
    }
    let mut payload = vec![0; bytes];
    from.read_exact(&mut payload)?;
    let got = crc32c::crc32c(&payload);
    if got != crc {
        return Err(io::Error::other(format!("a frame's checksum is {got:#x}, not {crc:#x}")));
    }
    Ok(payload)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("a greeting can always be encoded")
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> io::Result<T> {
    rmp_serde::from_slice(bytes).map_err(io::Error::other)
}
