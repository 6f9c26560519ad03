//! Links to the other servers of the ensemble: TCP, one connection in each direction, so that whoever
//! has something to say keeps that way open.
//!
//! A frame is its length, its checksum (crc32c), and so many bytes. The first says who calls, and is
//! answered; then messages follow one way. What cannot be sent is dropped: raft, and the numbers of
//! commands, see to what is lost. The first frame of each side begins with its format, which the other
//! must have too, and nothing else of it is read before that is known.
//!
//! A server is who answers where the configuration says: one that calls with the same id, but is
//! another process, is refused, since two that vote for one could acknowledge what gets lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use replica::peer::PEER_FORMAT;
use replica::{Input, PeerMessage};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use state::Members;

use crate::config::Address;
use crate::mailbox::Mailbox;

/// No message is longer: a round of entries, and what is around it.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// How long a peer may take to take a connection, or to answer the first frame.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before a peer that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How long a peer must have been out of reach before that is worth a warning: servers that start
/// together, or that are restarted, find each other within this time.
const WORTH_A_WARNING: Duration = Duration::from_secs(1);
/// How many messages may wait for a peer that does not take them before further ones are dropped.
const WAITING_MAX: usize = 10_000;
/// What the first frame of each side begins with; the number of its format follows.
const MAGIC: [u8; 4] = *b"vvrm";

/// What a caller says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    from: u32,
    /// A random number of the caller's start.
    boot: u64,
    /// The caller's id for raft.
    raft_id: u64,
    to: u32,
    /// Which ensemble's data the caller has; 0 if it does not know yet.
    cluster: u64,
    /// The ids of all servers, as the caller's configuration has them.
    servers: Vec<u32>,
    /// Set if the caller has no data, and takes no part before it knows that it may: a random number
    /// of its own.
    empty: Option<u64>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    /// A random number of this server's start.
    boot: u64,
    /// Why the caller is refused.
    refused: Option<String>,
    /// This server's id for raft.
    raft_id: u64,
    /// The id for raft that an empty caller takes part with, once it is let in.
    admitted: Option<u64>,
    /// Whether the caller, if it has no data, may take part as a founder: this server had none
    /// either when it started, and has not seen the caller take part since.
    may_found: bool,
}

/// One server of the ensemble, as the others find it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its id.
    pub(crate) id: u32,
    /// Where it listens for other servers.
    pub(crate) addresses: Vec<Address>,
}

/// This server among the others.
pub(crate) struct Me {
    /// Its id.
    pub(crate) id: u32,
    /// Its id for raft; the one of a founder if it has no data.
    pub(crate) raft_id: u64,
    /// Which ensemble's data it has; 0 if it does not know yet.
    pub(crate) cluster: u64,
    /// The servers, as of its data.
    pub(crate) members: Arc<Members>,
    /// Whether it has no data.
    pub(crate) empty: bool,
    /// Whether it has a restored snapshot, with which it is to begin.
    pub(crate) restored: bool,
    /// Where the others call.
    pub(crate) listener: TcpListener,
    /// The others.
    pub(crate) others: Vec<Peer>,
}

/// What the answers to calls depend on.
struct Post {
    id: u32,
    boot: u64,
    raft_id: AtomicU64,
    cluster: u64,
    /// The ids of all servers, in order.
    servers: Vec<u32>,
    members: RwLock<Arc<Members>>,
    /// The random number of a server that had no data when it started.
    began_empty: Option<u64>,
    /// Whether it had a restored snapshot, which the others are to get.
    restored: bool,
    /// Whether it takes part by now.
    takes_part: AtomicBool,
    /// Who was seen to take part since it started.
    took_part: Mutex<BTreeSet<u32>>,
    /// Of each peer, the start of the process that answers its calls, and the calls taken from it.
    known: Mutex<BTreeMap<u32, Known>>,
    /// What was last said of whom, not to say it again with each call.
    told: Mutex<BTreeMap<Option<u32>, String>>,
    inputs: Arc<Mailbox<Input>>,
}

#[derive(Default)]
struct Known {
    answers: Option<u64>,
    calls: Option<(u64, TcpStream)>,
}

/// How a server that had no data takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// It founds an ensemble with the others.
    Founder,
    /// The others had one; it takes part with this id for raft.
    Admitted(u64),
}

/// The links of this server.
pub(crate) struct Peers {
    links: BTreeMap<u32, Arc<Link>>,
    others: Vec<Peer>,
    post: Option<Arc<Post>>,
}

struct Link {
    /// What is to be sent; `None` when the connection has ended.
    messages: Mailbox<Option<PeerMessage>>,
    /// The id for raft that the server at its other end has given itself; 0 if there is no link.
    to: AtomicU64,
}

impl Peers {
    /// A server without any.
    pub(crate) fn none() -> Self {
        Self { links: BTreeMap::new(), others: Vec::new(), post: None }
    }

    /// Listens for the others. An empty server must then [`Self::begin`].
    ///
    /// # Errors
    /// If there can be no thread, or no random number.
    pub(crate) fn new(me: Me, inputs: &Arc<Mailbox<Input>>) -> anyhow::Result<Self> {
        let Me { id, raft_id, cluster, members, empty, restored, listener, others } = me;
        let mut boot = [0; 8];
        getrandom::fill(&mut boot).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        // 0 is that of founders.
        let boot = u64::from_be_bytes(boot) | 1;
        let mut servers: Vec<u32> = others.iter().map(|peer| peer.id).chain([id]).collect();
        servers.sort_unstable();
        let post = Arc::new(Post {
            id,
            boot,
            raft_id: AtomicU64::new(raft_id),
            cluster,
            servers,
            members: RwLock::new(members),
            began_empty: empty.then_some(boot),
            restored,
            takes_part: AtomicBool::new(!empty),
            took_part: Mutex::default(),
            known: Mutex::default(),
            told: Mutex::default(),
            inputs: Arc::clone(inputs),
        });
        {
            let post = Arc::clone(&post);
            let name = "peers".to_owned();
            std::thread::Builder::new().name(name).spawn(move || accept(&listener, &post))?;
        }
        Ok(Self { links: BTreeMap::new(), others, post: Some(post) })
    }

    /// Asks the others how this server, which is empty, may take part: it founds an ensemble with
    /// them only if all are empty too, because one that has lost its data must not vote as if it had
    /// never had any. One with a restored snapshot founds it alone, and the others join it; it too must
    /// know that all of them are empty. Blocks until it is known.
    pub(crate) fn begin(&self) -> Beginning {
        let Some(post) = &self.post else { return Beginning::Founder };
        let mut told: BTreeMap<u32, String> = BTreeMap::new();
        let mut waits = false;
        loop {
            let mut founders = 0;
            for peer in &self.others {
                let server = peer.id;
                let said = match connect(peer, &post.hello(server, post.began_empty)) {
                    Ok((_, Welcome { admitted: Some(raft_id), .. })) => {
                        tracing::info!("this server takes part; it gets the ensemble's data");
                        post.raft_id.store(raft_id, Ordering::Relaxed);
                        return Beginning::Admitted(raft_id);
                    }
                    Ok((_, Welcome { may_found: true, .. })) => {
                        founders += 1;
                        continue;
                    }
                    Ok(_) if waits => continue,
                    Ok(_) => {
                        waits = true;
                        "it has data and this server has none: waiting to be let in".to_owned()
                    }
                    Err(error) => error.to_string(),
                };
                if told.get(&server) != Some(&said) {
                    tracing::info!(server, %said, "waiting for a server, to take part with it");
                    told.insert(server, said);
                }
            }
            if founders == self.others.len() {
                let how = match post.restored {
                    false => "all are empty; they found an ensemble",
                    true => "all others are empty; the restored snapshot begins a new ensemble",
                };
                tracing::info!(servers = ?post.servers, "{how}");
                return Beginning::Founder;
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Takes part, and keeps a link to each of the others.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let Some(post) = &self.post else { return Ok(()) };
        post.takes_part.store(true, Ordering::Relaxed);
        for peer in self.others.drain(..) {
            let messages = Mailbox::new(usize::MAX);
            let link = Arc::new(Link { messages, to: AtomicU64::new(0) });
            let (ours, post) = (Arc::clone(&link), Arc::clone(post));
            let name = format!("to-server-{}", peer.id);
            self.links.insert(peer.id, link);
            std::thread::Builder::new().name(name).spawn(move || call(&peer, &post, &ours))?;
        }
        Ok(())
    }

    /// The servers are these by now.
    pub(crate) fn update(&self, members: &Arc<Members>) {
        let Some(post) = &self.post else { return };
        if !Arc::ptr_eq(members, &post.members.read()) {
            *post.members.write() = Arc::clone(members);
        }
    }

    /// Sends a message to a server, by its id for raft, if there is a link; otherwise it is dropped.
    /// Who has which id is as they say themselves: one that waits for its first state knows no members.
    pub(crate) fn send(&self, to: u64, message: PeerMessage) {
        let link = self.links.values().find(|link| link.to.load(Ordering::Relaxed) == to);
        if let Some(link) = link
            && link.messages.len() < WAITING_MAX
        {
            link.messages.put([Some(message)]);
        }
    }
}

impl Post {
    fn hello(&self, to: u32, empty: Option<u64>) -> Hello {
        let (from, boot, cluster) = (self.id, self.boot, self.cluster);
        let raft_id = self.raft_id.load(Ordering::Relaxed);
        Hello { from, boot, raft_id, to, cluster, servers: self.servers.clone(), empty }
    }

    fn welcome(&self, refused: Option<String>) -> Welcome {
        let raft_id = self.raft_id.load(Ordering::Relaxed);
        Welcome { boot: self.boot, refused, raft_id, admitted: None, may_found: false }
    }

    /// The process with this `boot` answers calls for a peer; what another one had called is closed.
    fn answers(&self, peer: u32, boot: u64) {
        let mut known = self.known.lock();
        let known = known.entry(peer).or_default();
        known.answers = Some(boot);
        if let Some((_, stream)) = known.calls.take_if(|(calls, _)| *calls != boot) {
            // It fails where it has ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Nobody answers calls for a peer.
    fn answers_no_more(&self, peer: u32) {
        self.known.lock().entry(peer).or_default().answers = None;
    }

    /// Says why a call was refused, unless that was the last thing said of that caller.
    fn tell(&self, from: Option<u32>, error: &io::Error) {
        let (text, mut told) = (error.to_string(), self.told.lock());
        if told.get(&from) != Some(&text) {
            tracing::warn!(error = text, "a peer's call was refused");
            told.insert(from, text);
        }
    }

    /// Why a caller is refused, if it is.
    fn refuses(&self, hello: &Hello) -> Option<String> {
        let known = self.members.read().servers.get(&hello.from).map(|member| member.raft_id);
        let answers = self.known.lock().get(&hello.from).and_then(|known| known.answers);
        if hello.to != self.id {
            Some(format!("expected a call for server {}, got one for {}", self.id, hello.to))
        } else if hello.servers != self.servers {
            let (ours, theirs) = (&self.servers, &hello.servers);
            Some(format!("expected an ensemble of the servers {ours:?}, got one of {theirs:?}"))
        } else if self.restored
            && !self.takes_part.load(Ordering::Relaxed)
            && hello.cluster != 0
            && hello.cluster != self.cluster
        {
            let (id, from) = (self.id, hello.from);
            Some(format!(
                "server {id} begins a new ensemble with a restored snapshot, and server {from} has data \
                 of its own: empty the data directory of one of them"
            ))
        } else if hello.cluster != self.cluster && hello.cluster != 0 && self.cluster != 0 {
            let (ours, theirs) = (self.cluster, hello.cluster);
            Some(format!(
                "expected data of the ensemble {ours:#x}, got a server with that of {theirs:#x}"
            ))
        } else if hello.from == self.id || !self.servers.contains(&hello.from) {
            Some(format!("expected another server of the ensemble, got server {}", hello.from))
        } else if hello.empty.is_none() && !self.takes_part.load(Ordering::Relaxed) {
            Some("it has no data yet, and takes no part".to_owned())
        } else if hello.empty.is_none() && known.is_some_and(|known| hello.raft_id < known) {
            Some(format!(
                "server {} took part anew without data, with another id for raft; this data of it, \
                 from before, is of no use: empty its data directory",
                hello.from
            ))
        } else if answers.is_some_and(|boot| boot != hello.boot) {
            Some(format!(
                "expected the server {} that answers where the configuration says, got another one \
                 with its id: every server needs an id of its own",
                hello.from
            ))
        } else {
            None
        }
    }
}

/// A founder's id for raft, for which 0 is none.
pub(crate) fn raft_id(server: u8) -> u64 {
    u64::from(server) + 1
}

fn accept(listener: &TcpListener, post: &Arc<Post>) {
    for stream in listener.incoming() {
        let post = Arc::clone(post);
        let body = move |stream| match answer(&stream, &post) {
            Ok(Some(from)) => listen(from, stream, &post.inputs),
            Ok(None) => {}
            Err((from, error)) => post.tell(from, &error),
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

/// Keeps the link to a peer, for ever.
fn call(peer: &Peer, post: &Post, link: &Link) {
    let (inputs, server) = (&post.inputs, peer.id);
    let (mut gone, mut told) = (Instant::now(), false);
    loop {
        match connect(peer, &post.hello(server, None)) {
            Ok((stream, Welcome { raft_id, boot, .. })) => {
                tracing::info!(server, "linked to a server");
                post.answers(server, boot);
                link.to.store(raft_id, Ordering::Relaxed);
                inputs.put([Input::Linked(raft_id)]);
                let error = speak(&stream, link);
                link.to.store(0, Ordering::Relaxed);
                post.answers_no_more(server);
                link.messages.take(&mut Vec::new(), Duration::ZERO);
                inputs.put([Input::Unlinked(raft_id)]);
                tracing::info!(server, %error, "the link to a server is gone");
                (gone, told) = (Instant::now(), false);
            }
            Err(error) => {
                if !told && gone.elapsed() >= WORTH_A_WARNING {
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
    // A peer that has vanished is called again, rather than waited for as long as TCP would.
    SockRef::from(&stream).set_tcp_user_timeout(Some(2 * PATIENCE))?;
    stream.set_read_timeout(None)?;
    match &welcome.refused {
        None => Ok((stream, welcome)),
        Some(why) => Err(io::Error::other(format!("it refuses this server: {why}"))),
    }
}

/// Sends what there is to send until the link breaks. Two followers say nothing to each other for as
/// long as there is a leader: that the other one is gone, and maybe back, is noticed by what can be read.
fn speak(stream: &TcpStream, link: &Link) -> io::Error {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The peer has said all that it says here: this ends when the connection does.
            let _ = (&mut &*stream).read(&mut [0]);
            link.messages.put([None]);
        });
        let error = write_all(stream, link);
        // It fails where the connection has ended.
        let _ = stream.shutdown(Shutdown::Both);
        error
    })
}

fn write_all(mut stream: &TcpStream, link: &Link) -> io::Error {
    let (mut messages, mut bytes) = (Vec::new(), Vec::new());
    loop {
        link.messages.take(&mut messages, PATIENCE);
        for message in messages.drain(..) {
            let Some(message) = message else { return io::ErrorKind::ConnectionAborted.into() };
            bytes.extend_from_slice(&frame(&message.encode()));
        }
        if let Err(error) = stream.write_all(&bytes) {
            return error;
        }
        bytes.clear();
    }
}

/// Who was refused, if it said who it is, and why.
type Refusal = (Option<u32>, io::Error);

/// Takes a call; gives the peer's ids, its own and that for raft, if messages follow. An error comes
/// with who called, if that is known.
fn answer(mut stream: &TcpStream, post: &Post) -> Result<Option<(u32, u64)>, Refusal> {
    let hello: io::Result<Hello> = (|| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        decode(&read_frame(&mut stream)?)
    })();
    let hello = hello.map_err(|error| {
        // One of another version understands as much of the answer as it must. Others may not listen.
        let _ = stream.write_all(&frame(&encode(&post.welcome(Some(error.to_string())))));
        (None, error)
    })?;
    let of_caller = |error: io::Error| (Some(hello.from), error);
    let from = hello.from;
    let refused = post.refuses(&hello);
    let mut took_part = post.took_part.lock();
    if refused.is_none() && hello.empty.is_none() {
        took_part.insert(from);
    }
    let may_found = post.began_empty.is_some() && !post.restored && !took_part.contains(&from);
    drop(took_part);
    let mut admitted = None;
    if let (None, Some(nonce), false) = (&refused, hello.empty, may_found) {
        let members = Arc::clone(&post.members.read());
        let known = members.servers.get(&from).filter(|member| member.nonce == nonce);
        admitted = known.map(|member| member.raft_id);
        if admitted.is_none() && post.takes_part.load(Ordering::Relaxed) {
            post.inputs.put([Input::Join { server: from, nonce }]);
        }
    }
    let welcome = Welcome { admitted, may_found, ..post.welcome(refused.clone()) };
    stream.write_all(&frame(&encode(&welcome))).map_err(of_caller)?;
    if let Some(why) = refused {
        return Err(of_caller(io::Error::other(why)));
    }
    if hello.empty.is_some() {
        return Ok(None);
    }
    post.told.lock().remove(&Some(from));
    let taken = stream.try_clone().map_err(of_caller)?;
    post.known.lock().entry(from).or_default().calls = Some((hello.boot, taken));
    Ok(Some((from, hello.raft_id)))
}

/// Takes messages until the link breaks.
fn listen((server, from): (u32, u64), stream: TcpStream, inputs: &Mailbox<Input>) {
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
                tracing::info!(server, %error, "the link from a server is gone");
                inputs.put([Input::HungUp(from)]);
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

/// The payload of a first frame.
fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = [&MAGIC[..], &PEER_FORMAT.to_be_bytes()].concat();
    out.extend(rmp_serde::to_vec(value).expect("a greeting can always be encoded"));
    out
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> io::Result<T> {
    let (format, rest) = bytes
        .strip_prefix(&MAGIC)
        .and_then(|rest| rest.split_first_chunk())
        .ok_or_else(|| io::Error::other("expected a server of an ensemble, got somebody else"))?;
    let format = u32::from_be_bytes(*format);
    if format != PEER_FORMAT {
        return Err(io::Error::other(format!(
            "expected format {PEER_FORMAT} of messages, got {format}: it is of another version"
        )));
    }
    rmp_serde::from_slice(rest).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that takes calls in the test's own hand.
    fn take_call(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().expect("a call");
        let hello: Hello = decode(&read_frame(&mut stream).expect("a frame")).expect("a hello");
        assert_eq!((hello.from, hello.to), (1, 2));
        let welcome =
            Welcome { boot: 1, refused: None, raft_id: 3, admitted: None, may_found: false };
        stream.write_all(&frame(&encode(&welcome))).expect("it listens");
        stream
    }

    #[test]
    fn a_link_on_which_nothing_is_said_is_noticed_to_be_gone() {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = listen();
        let port = peer.local_addr().expect("it listens").port();
        let others = vec![Peer { id: 2, addresses: vec![Address::new("127.0.0.1", port)] }];
        let members = Arc::new(Members::default());
        let (listener, inputs) = (listen(), Arc::new(Mailbox::new(usize::MAX)));
        let me = Me {
            id: 1,
            raft_id: 2,
            cluster: 7,
            members,
            empty: false,
            restored: false,
            listener,
            others,
        };
        let mut peers = Peers::new(me, &inputs).expect("it listens");
        peers.start().expect("it starts");
        drop(take_call(&peer));
        // The next call comes though nothing was to be sent.
        let _stream = take_call(&peer);
        let (mut taken, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(20));
        while !matches!(taken[..], [Input::Linked(3), Input::Unlinked(3), Input::Linked(3)]) {
            assert!(Instant::now() < deadline, "the Node is told of each: {}", taken.len());
            inputs.take(&mut taken, Duration::from_millis(10));
        }
    }
}
