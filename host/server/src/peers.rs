//! Links to the other servers of the ensemble: TCP, one connection in each direction, so that whoever
//! has something to say keeps that way open.
//!
//! The first frame of each side says who it is (`post.rs`); then messages follow one way, a frame each
//! (`frames.rs`). What cannot be sent is dropped: raft, and the numbers of commands, see to what is
//! lost.
//!
//! Invariants:
//! * There is a link to each server that takes part, and to those that raft still counts.
//! * Where a server is found is what the ensemble has agreed on; then what the configuration says.

mod frames;
mod post;
mod way;
mod wire;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use replica::{Input, PeerMessage};
use socket2::SockRef;
use state::Members;

use self::frames::{decode, encode, frame, is_whole, read_frame};
pub(crate) use self::post::Founders;
use self::post::{Hello, Post, Welcome};
use self::way::Way;
pub(crate) use self::wire::Secured;
use self::wire::Wire;
use crate::config::Address;
use crate::mailbox::Mailbox;

/// How long a peer may take to take a connection, or to answer the first frame.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before a peer that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How long a peer must have been out of reach before that is worth a warning: servers that start
/// together, or that are restarted, find each other within this time.
const WORTH_A_WARNING: Duration = Duration::from_secs(1);

/// After how long without being let in a server that lost its data says what else could be done.
const LOST_WARNING: Duration = Duration::from_secs(10);

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
    /// Those that found an ensemble, if it has no data and never had any.
    pub(crate) founders: Founders,
    /// What it begins with.
    pub(crate) has: Has,
    /// Whether it has a restored snapshot, with which it is to begin.
    pub(crate) restored: bool,
    /// Where the others call.
    pub(crate) listener: TcpListener,
    /// Where its configuration says that the others are.
    pub(crate) configured: BTreeMap<u32, Vec<Address>>,
    /// Whether they speak by TLS.
    pub(crate) secured: Option<Secured>,
}

/// What a server begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Has {
    /// Data with which it takes part.
    Data,
    /// Nothing, and it never had anything, as far as is known there.
    Nothing,
    /// It has taken part, and what it had is of no use: it never founds an ensemble.
    Lost,
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
    configured: BTreeMap<u32, Vec<Address>>,
    post: Option<Arc<Post>>,
}

struct Link {
    server: u32,
    /// Where the server at its other end is found.
    addresses: Mutex<Vec<Address>>,
    way: Way,
    /// The id for raft that the server at its other end has given itself; 0 if there is no connection.
    to: AtomicU64,
    /// Whether it is not needed any more.
    ends: AtomicBool,
}

impl Peers {
    /// A server without any.
    pub(crate) fn none() -> Self {
        Self { links: BTreeMap::new(), configured: BTreeMap::new(), post: None }
    }

    /// Listens for the others. A server without data must then [`Self::begin`].
    ///
    /// # Errors
    /// If there can be no thread, or no random number.
    pub(crate) fn new(me: Me, inputs: &Arc<Mailbox<Input>>) -> anyhow::Result<Self> {
        let Me { id, raft_id, cluster, members, founders, has, restored, .. } = me;
        let Me { listener, configured, secured, .. } = me;
        let mut boot = [0; 8];
        getrandom::fill(&mut boot).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        // 0 is that of founders.
        let boot = u64::from_be_bytes(boot) | 1;
        let post = Arc::new(Post {
            id,
            boot,
            raft_id: AtomicU64::new(raft_id),
            cluster: AtomicU64::new(cluster),
            founders,
            members: RwLock::new(members),
            has,
            restored,
            takes_part: AtomicBool::new(has == Has::Data),
            took_part: Mutex::default(),
            known: Mutex::default(),
            told: Mutex::default(),
            inputs: Arc::clone(inputs),
            secured,
        });
        {
            let post = Arc::clone(&post);
            let name = "peers".to_owned();
            std::thread::Builder::new().name(name).spawn(move || accept(&listener, &post))?;
        }
        Ok(Self { links: BTreeMap::new(), configured, post: Some(post) })
    }

    /// Asks the others how this server, which has no data, may take part: it founds an ensemble with
    /// the voters only if all of them are empty too, because one that has lost its data must not vote
    /// as if it had never had any. One with a restored snapshot founds it alone, and the others join it;
    /// it too must know that all of them are empty. Blocks until it is known.
    pub(crate) fn begin(&self) -> Beginning {
        let Some(post) = &self.post else { return Beginning::Founder };
        let voters = &post.founders.voters;
        let may_found = post.has == Has::Nothing && voters.contains(&post.id);
        let mut told: BTreeMap<u32, String> = BTreeMap::new();
        let (began, mut waits, mut warned) = (Instant::now(), false, false);
        loop {
            let mut founders = 0;
            for (&server, addresses) in &self.configured {
                let said = match connect(addresses, &post.hello(server, Some(post.boot)), post) {
                    Ok((_, Welcome { admitted: Some(raft_id), .. })) => {
                        tracing::info!("this server takes part; it gets the ensemble's data");
                        post.raft_id.store(raft_id, Ordering::Relaxed);
                        return Beginning::Admitted(raft_id);
                    }
                    Ok((_, Welcome { may_found: true, .. })) if may_found => {
                        founders += usize::from(voters.contains(&server));
                        continue;
                    }
                    Ok((_, Welcome { takes_part: false, .. })) => {
                        "it takes no part itself by now: it has no data, or lost it".to_owned()
                    }
                    Ok(_) if waits => continue,
                    Ok((_, Welcome { is_member, .. })) => {
                        waits = true;
                        match is_member {
                            true => "it has data and this server has none: waiting to be let in",
                            false => {
                                "it has data, and this server is not of its ensemble: waiting to be \
                                 added (`vivarium member add`, or reconfig)"
                            }
                        }
                        .to_owned()
                    }
                    Err(error) => error.to_string(),
                };
                if told.get(&server) != Some(&said) {
                    tracing::info!(server, %said, "waiting for a server, to take part with it");
                    told.insert(server, said);
                }
            }
            if may_found && founders + 1 == voters.len() {
                let how = match post.restored {
                    false => "all are empty; they found an ensemble",
                    true => "all others are empty; the restored snapshot begins a new ensemble",
                };
                tracing::info!(servers = ?voters, "{how}");
                return Beginning::Founder;
            }
            if post.has == Has::Lost && !warned && began.elapsed() >= LOST_WARNING {
                warned = true;
                tracing::error!(
                    others = ?told,
                    "this server lost its data, and nobody has let it in again: that takes a majority of \
                     the servers with their data. It waits, and founds nothing. If the others have lost \
                     theirs too: `vivarium recover --force-single` lets one that has some go on alone, \
                     `vivarium snapshot restore` begins again from a snapshot; otherwise put the data \
                     directories of a majority back from a backup"
                );
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Takes part, and keeps links to the others.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let Some(post) = &self.post else { return Ok(()) };
        post.takes_part.store(true, Ordering::Relaxed);
        self.keep_links()
    }

    /// The servers are these by now, of this ensemble.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn update(&mut self, members: &Arc<Members>, cluster: u64) -> anyhow::Result<()> {
        let Some(post) = &self.post else { return Ok(()) };
        *post.members.write() = Arc::clone(members);
        post.cluster.store(cluster, Ordering::Relaxed);
        if post.takes_part.load(Ordering::Relaxed) { self.keep_links() } else { Ok(()) }
    }

    /// Begins and ends links as the servers demand.
    fn keep_links(&mut self) -> anyhow::Result<()> {
        let Some(post) = &self.post else { return Ok(()) };
        let members = Arc::clone(&post.members.read());
        let mut wanted = BTreeMap::new();
        if members.servers.is_empty() {
            wanted.clone_from(&self.configured);
        }
        for (server, member) in &members.servers {
            let mut addresses = member.spec.peer.clone();
            let configured = self.configured.get(server).into_iter().flatten();
            addresses.extend(configured.filter(|at| !member.spec.peer.contains(at)).cloned());
            wanted.insert(*server, addresses);
        }
        wanted.remove(&post.id);
        self.links.retain(|server, link| {
            let counts = members.counts(link.to.load(Ordering::Relaxed));
            let stays = wanted.contains_key(server) || counts;
            if !stays {
                tracing::info!(server, "it takes part no more: no link to it is kept");
                link.ends.store(true, Ordering::Relaxed);
                link.way.end();
            }
            stays
        });
        for (server, addresses) in wanted {
            if let Some(link) = self.links.get(&server) {
                *link.addresses.lock() = addresses;
                continue;
            }
            let link = Arc::new(Link {
                server,
                addresses: Mutex::new(addresses),
                way: Way::default(),
                to: AtomicU64::new(0),
                ends: AtomicBool::new(false),
            });
            let (ours, post) = (Arc::clone(&link), Arc::clone(post));
            let name = format!("to-server-{server}");
            std::thread::Builder::new().name(name).spawn(move || call(&post, &ours))?;
            self.links.insert(server, link);
        }
        Ok(())
    }

    /// Sends messages to servers, by their ids for raft, where there is a link; otherwise they are
    /// dropped. Who has which id is as they say themselves: one that waits for its first state knows no
    /// members.
    pub(crate) fn send(&self, messages: Vec<(u64, PeerMessage)>) {
        for link in self.links.values() {
            let to = link.to.load(Ordering::Relaxed);
            let mut bytes = Vec::new();
            for (_, message) in messages.iter().filter(|(id, _)| *id == to && to != 0) {
                bytes.extend_from_slice(&frame(&message.encode()));
            }
            if !bytes.is_empty() {
                link.way.send(bytes);
            }
        }
    }
}

/// A founder's id for raft, for which 0 is none.
pub(crate) fn raft_id(server: u32) -> u64 {
    u64::from(server) + 1
}

fn accept(listener: &TcpListener, post: &Arc<Post>) {
    for stream in listener.incoming() {
        let (post, secured) = (Arc::clone(post), post.secured.clone());
        let body = move |mut wire: Wire| match post.answer(&mut wire) {
            Ok(Some(from)) => listen(from, wire, &post.inputs),
            Ok(None) => {}
            Err((from, error)) => post.tell(from, &error),
        };
        let stream = stream.and_then(|stream| Wire::from(stream, secured.as_ref()));
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

/// Keeps the link to a peer for as long as it is needed.
fn call(post: &Post, link: &Link) {
    let (inputs, server) = (&post.inputs, link.server);
    let (mut gone, mut told) = (Instant::now(), false);
    while !link.ends.load(Ordering::Relaxed) {
        let addresses = link.addresses.lock().clone();
        match connect(&addresses, &post.hello(server, None), post) {
            Ok((wire, Welcome { raft_id, boot, .. })) => {
                tracing::info!(server, "linked to a server");
                post.answers(server, boot);
                link.way.begin(wire.plain().and_then(|stream| stream.try_clone().ok()));
                if link.ends.load(Ordering::Relaxed) {
                    // It was told so before the way began.
                    link.way.end();
                }
                link.to.store(raft_id, Ordering::Relaxed);
                inputs.put([Input::Linked(raft_id)]);
                let error = speak(wire, link);
                link.to.store(0, Ordering::Relaxed);
                link.way.begin(None);
                post.answers_no_more(server);
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

fn connect(addresses: &[Address], hello: &Hello, post: &Post) -> io::Result<(Wire, Welcome)> {
    let mut last = io::Error::other("it has no address");
    // Names are looked up each time: servers move.
    for address in addresses {
        let text = address.to_string();
        let found = match text.to_socket_addrs() {
            Ok(found) => found,
            Err(error) => {
                last = io::Error::other(format!("{text}: {error}"));
                continue;
            }
        };
        for socket in found {
            let stream = TcpStream::connect_timeout(&socket, PATIENCE);
            let wire = stream.and_then(|s| Wire::to(s, &address.host, post.secured.as_ref()));
            match wire.and_then(|wire| greet(wire, hello)) {
                Ok(greeted) => return Ok(greeted),
                Err(error) => last = io::Error::other(format!("{socket}: {error}")),
            }
        }
    }
    Err(last)
}

fn greet(mut wire: Wire, hello: &Hello) -> io::Result<(Wire, Welcome)> {
    wire.socket().set_nodelay(true)?;
    wire.socket().set_read_timeout(Some(PATIENCE))?;
    wire.write_all(&frame(&encode(hello)))?;
    wire.flush()?;
    let welcome: Welcome = decode(&read_frame(&mut wire)?)?;
    // A peer that has vanished is called again, rather than waited for as long as TCP would.
    SockRef::from(wire.socket()).set_tcp_user_timeout(Some(2 * PATIENCE))?;
    wire.socket().set_read_timeout(None)?;
    match &welcome.refused {
        None => Ok((wire, welcome)),
        Some(why) => Err(io::Error::other(format!("it refuses this server: {why}"))),
    }
}

/// Sends what there is to send until the link breaks. Two followers say nothing to each other for as
/// long as there is a leader: that the other one is gone, and maybe back, is noticed by what can be read.
fn speak(mut wire: Wire, link: &Link) -> io::Error {
    let mut socket = match wire.socket().try_clone() {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The peer has said all that it says here, but for the end of TLS: this ends when the
            // connection does.
            while socket.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
            link.way.end();
        });
        let error = link.way.write_waiting(&mut wire);
        // It fails where the connection has ended.
        let _ = wire.socket().shutdown(Shutdown::Both);
        error
    })
}

/// Takes messages until the link breaks.
fn listen((server, from): (u32, u64), wire: Wire, inputs: &Mailbox<Input>) {
    if let Err(error) = wire.socket().set_read_timeout(None) {
        return tracing::warn!(%error, "a link cannot be used");
    }
    let mut reader = BufReader::with_capacity(1 << 20, wire);
    let mut heard = Vec::new();
    loop {
        let message = read_frame(&mut reader)
            .and_then(|bytes| PeerMessage::decode(&bytes).map_err(io::Error::other));
        match message {
            Ok(message) => heard.push(Input::Peer { from, message }),
            Err(error) => {
                tracing::info!(server, %error, "the link from a server is gone");
                heard.push(Input::HungUp(from));
                inputs.put(heard);
                return;
            }
        }
        // What came together is handed over together.
        if !is_whole(reader.buffer()) {
            inputs.bring(heard.drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that takes calls in the test's own hand.
    fn take_call(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().expect("a call");
        let hello: Hello = decode(&read_frame(&mut stream).expect("a frame")).expect("a hello");
        assert_eq!((hello.from, hello.to), (1, 2));
        let (refused, admitted) = (None, None);
        let welcome = Welcome {
            boot: 1,
            refused,
            raft_id: 3,
            admitted,
            may_found: false,
            is_member: true,
            takes_part: true,
        };
        stream.write_all(&frame(&encode(&welcome))).expect("it listens");
        stream
    }

    #[test]
    fn a_link_on_which_nothing_is_said_is_noticed_to_be_gone() {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = listen();
        let port = peer.local_addr().expect("it listens").port();
        let configured = [(2, vec![Address::new("127.0.0.1", port)])].into();
        let members = Arc::new(Members::default());
        let (listener, inputs) = (listen(), Arc::new(Mailbox::new(usize::MAX)));
        let founders = Founders::default();
        let me = Me {
            id: 1,
            raft_id: 2,
            cluster: 7,
            members,
            founders,
            has: Has::Data,
            restored: false,
            listener,
            configured,
            secured: None,
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

    /// Certificates of one authority, in files, for a server of this machine.
    fn certified(dir: &std::path::Path, authority: &str) -> Secured {
        let key = || rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, authority);
        let (ca_key, own_key) = (key(), key());
        let ca = params.self_signed(&ca_key).expect("an authority");
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let issuer = rcgen::Issuer::new(params, ca_key);
        let own = own.signed_by(&own_key, &issuer).expect("a certificate");
        let write = |name: &str, text: String| {
            let path = dir.join(format!("{authority}-{name}"));
            std::fs::write(&path, text).expect("a file");
            Some(path)
        };
        let tls = crate::config::PeerTls {
            cert: write("cert", own.pem()),
            key: write("key", own_key.serialize_pem()),
            ca: write("ca", ca.pem()),
            ..crate::config::PeerTls::default()
        };
        crate::tls::between_servers(&tls).expect("they are whole")
    }

    #[test]
    fn servers_prove_themselves_to_each_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let (ours, theirs) = (certified(dir.path(), "ours"), certified(dir.path(), "theirs"));
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let port = |at: usize| listeners[at].local_addr().expect("it listens").port();
        let addresses = [port(0), port(1)].map(|port| vec![Address::new("127.0.0.1", port)]);
        let members = Arc::new(Members::founders(&[2, 3]));
        let mut servers = Vec::new();
        for ((id, listener), other) in (1..).zip(listeners).zip([1, 0]) {
            let me = Me {
                id,
                raft_id: raft_id(id),
                cluster: 7,
                members: Arc::clone(&members),
                founders: Founders::default(),
                has: Has::Data,
                restored: false,
                listener,
                configured: [(3 - id, addresses[other].clone())].into(),
                secured: Some(ours.clone()),
            };
            let inputs = Arc::new(Mailbox::new(usize::MAX));
            let mut peers = Peers::new(me, &inputs).expect("it listens");
            peers.start().expect("it starts");
            servers.push((peers, inputs));
        }
        let mut taken = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !matches!(taken[..], [Input::Linked(3), ..]) {
            assert!(Instant::now() < deadline, "they are linked");
            servers[0].1.take(&mut taken, Duration::from_millis(10));
        }
        // What is said comes through.
        let mut heard = Vec::new();
        while !matches!(heard[..], [.., Input::Peer { from: 2, .. }]) {
            assert!(Instant::now() < deadline, "what was said is heard");
            servers[0].0.send(vec![(3, PeerMessage::Heard(Vec::new()))]);
            servers[1].1.take(&mut heard, Duration::from_millis(10));
        }
        let post = servers[0].0.post.as_ref().expect("it is not alone");
        let hello = post.hello(2, None);
        for (secured, why) in [(Some(&theirs), "certificate"), (None, "")] {
            let stream =
                TcpStream::connect(("127.0.0.1", addresses[1][0].port)).expect("it is there");
            let wire = Wire::to(stream, "127.0.0.1", secured).expect("a name");
            let error = greet(wire, &hello).map(|_| ()).expect_err("it is refused").to_string();
            assert!(error.contains(why), "{error}");
        }
        let told = servers[1].0.post.as_ref().expect("it is not alone").told.lock().clone();
        assert!(told.contains_key(&None), "it is told of: {told:?}");
    }
}
