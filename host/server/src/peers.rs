//! Links to the other servers of the ensemble: TCP, one connection in each direction, so that whoever
//! has something to say keeps that way open.
//!
//! A frame is its length, its checksum (crc32c), and so many bytes. The first says who calls, and is
//! answered; then messages follow one way. What cannot be sent is dropped: raft, and the numbers of
//! commands, see to what is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
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
    /// Which ensemble's data the caller has; 0 if it does not know yet.
    cluster: u64,
    /// The ids of all voters, as the caller's configuration has them.
    voters: Vec<u64>,
    /// Whether the caller has no data, and takes no part before it knows that it may.
    empty: bool,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    /// Why the caller is refused.
    refused: Option<String>,
    /// Whether the caller, if it has no data, may take part as a founder: this server had none
    /// either when it started, and has not seen the caller take part since.
    may_found: bool,
}

/// One server of the ensemble, as the others find it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its id for raft.
    pub(crate) id: u64,
    /// Where it listens for other servers.
    pub(crate) addresses: Vec<Address>,
}

/// This server among the others.
pub(crate) struct Me {
    /// Its id for raft.
    pub(crate) id: u64,
    /// Which ensemble's data it has; 0 if it does not know yet.
    pub(crate) cluster: u64,
    /// All voters, itself included, in order.
    pub(crate) voters: Vec<u64>,
    /// Whether it has no data.
    pub(crate) empty: bool,
    /// Where the others call.
    pub(crate) listener: TcpListener,
    /// The others.
    pub(crate) others: Vec<Peer>,
}

/// What the answers to calls depend on.
struct Post {
    id: u64,
    cluster: u64,
    voters: Vec<u64>,
    /// Whether it had no data when it started.
    began_empty: bool,
    /// Who was seen to take part since it started.
    took_part: Mutex<BTreeSet<u64>>,
    inputs: Arc<Mailbox<Input>>,
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

    /// Listens for the others, and keeps a link to each. One that is empty first asks all others
    /// whether they found the ensemble with it: a server that has lost its data must not vote as if
    /// it had never had any. Blocks until all have answered.
    ///
    /// # Errors
    /// If one of them has data.
    pub(crate) fn start(me: Me, inputs: &Arc<Mailbox<Input>>) -> anyhow::Result<Self> {
        let Me { id, cluster, voters, empty, listener, others } = me;
        let (took_part, inputs) = (Mutex::default(), Arc::clone(inputs));
        let post = Arc::new(Post { id, cluster, voters, began_empty: empty, took_part, inputs });
        {
            let post = Arc::clone(&post);
            let name = "peers".to_owned();
            std::thread::Builder::new().name(name).spawn(move || accept(&listener, &post))?;
        }
        if empty {
            others.iter().try_for_each(|peer| found_with(peer, &post))?;
            tracing::info!(servers = ?names(&post.voters), "all are empty; they found an ensemble");
        }
        let mut links = BTreeMap::new();
        for peer in others {
            let messages = Mailbox::new(usize::MAX);
            let link = Arc::new(Link { messages, there: AtomicBool::new(false) });
            let (ours, post) = (Arc::clone(&link), Arc::clone(&post));
            links.insert(peer.id, link);
            let name = format!("to-server-{}", peer.id - 1);
            std::thread::Builder::new().name(name).spawn(move || call(&peer, &post, &ours))?;
        }
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

impl Post {
    fn hello(&self, to: u64, empty: bool) -> Hello {
        let (format, from, cluster) = (PEER_FORMAT, self.id, self.cluster);
        Hello { format, from, to, cluster, voters: self.voters.clone(), empty }
    }
}

/// A server's id for raft, for which 0 is none.
pub(crate) fn raft_id(server: u8) -> u64 {
    u64::from(server) + 1
}

/// Servers, as their configuration names them.
pub(crate) fn names(ids: &[u64]) -> Vec<u64> {
    ids.iter().map(|id| id.wrapping_sub(1)).collect()
}

fn accept(listener: &TcpListener, post: &Arc<Post>) {
    for stream in listener.incoming() {
        let post = Arc::clone(post);
        let body = move |stream| match answer(&stream, &post) {
            Ok(Some(from)) => listen(from, stream, &post.inputs),
            Ok(None) => {}
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
}

/// Asks one of the others, until it answers.
fn found_with(peer: &Peer, post: &Post) -> anyhow::Result<()> {
    let server = peer.id - 1;
    let mut told: Option<String> = None;
    loop {
        match connect(peer, &post.hello(peer.id, true)) {
            Ok((_, Welcome { may_found: true, .. })) => return Ok(()),
            Ok(_) => anyhow::bail!(
                "this server has no data, but server {server} has: a server that lost its data must \
                 not vote, and this version cannot send it the ensemble's. Put its data directory \
                 back; if the ensemble has never served, empty all directories and start all servers"
            ),
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::info!(server, %error, "waiting for a server, to found an ensemble with it");
                    told = Some(error);
                }
                std::thread::sleep(RETRY);
            }
        }
    }
}

/// Keeps the link to a peer, for ever.
fn call(peer: &Peer, post: &Post, link: &Link) {
    let (inputs, server) = (&post.inputs, peer.id - 1);
    let mut told = false;
    loop {
        match connect(peer, &post.hello(peer.id, false)) {
            Ok((stream, _)) => {
                tracing::info!(server, "linked to a server");
                told = false;
                link.there.store(true, Ordering::Relaxed);
                inputs.put([Input::Linked(peer.id)]);
                let error = speak(stream, link);
                link.there.store(false, Ordering::Relaxed);
                link.messages.take(&mut Vec::new(), Duration::ZERO);
                inputs.put([Input::Unlinked(peer.id)]);
                tracing::info!(server, %error, "the link to a server is gone");
            }
            Err(error) => {
                if !told {
                    told = true;
                    tracing::warn!(server, %error, "a server cannot be reached; trying on");
                }
            }
        }
        std::thread::sleep(RETRY);
    }
}

fn connect(peer: &Peer, hello: &Hello) -> io::Result<(TcpStream, Welcome)> {
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
                Ok(greeted) => return Ok(greeted),
                Err(error) => last = io::Error::other(format!("{address}: {error}")),
            }
        }
    }
    Err(last)
}

fn greet(mut stream: TcpStream, hello: &Hello) -> io::Result<(TcpStream, Welcome)> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&frame(&encode(hello)))?;
    let welcome: Welcome = decode(&read_frame(&mut stream)?)?;
    match &welcome.refused {
        None => Ok((stream, welcome)),
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

/// Takes a call; gives the peer's id if messages follow.
fn answer(mut stream: &TcpStream, post: &Post) -> io::Result<Option<u64>> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let hello: Hello = decode(&read_frame(&mut stream)?)?;
    let from = hello.from;
    let refused = if hello.format != PEER_FORMAT {
        Some(format!("expected format {PEER_FORMAT} of messages, got {}", hello.format))
    } else if hello.to != post.id {
        Some(format!(
            "expected a call for server {}, got one for {}",
            post.id - 1,
            hello.to.wrapping_sub(1)
        ))
    } else if hello.voters != post.voters {
        let (ours, theirs) = (names(&post.voters), names(&hello.voters));
        Some(format!("expected an ensemble of the servers {ours:?}, got one of {theirs:?}"))
    } else if hello.cluster != post.cluster && hello.cluster != 0 && post.cluster != 0 {
        let (ours, theirs) = (post.cluster, hello.cluster);
        Some(format!(
            "expected data of the ensemble {ours:#x}, got a server with that of {theirs:#x}"
        ))
    } else if from == post.id || !post.voters.contains(&from) {
        Some(format!(
            "expected another server of the ensemble, got server {}",
            from.wrapping_sub(1)
        ))
    } else {
        None
    };
    let mut took_part = post.took_part.lock();
    if refused.is_none() && !hello.empty {
        took_part.insert(from);
    }
    let may_found = post.began_empty && !took_part.contains(&from);
    drop(took_part);
    stream.write_all(&frame(&encode(&Welcome { refused: refused.clone(), may_found })))?;
    match refused {
        None => Ok(Some(from).filter(|_| !hello.empty)),
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
                tracing::info!(server = from - 1, %error, "the link from a server is gone");
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
