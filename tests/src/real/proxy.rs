//! The network between the servers of an ensemble: a proxy before each, which can be cut.
//!
//! A cut is of one direction between two servers. What is on its way then is held, as TCP would hold
//! it, and goes on when the cut is healed, unless the connections are closed with it.
//!
//! Who calls is not said in the bytes; the system knows which process a connection is of.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a connection looks whether it is cut.
const LOOK: Duration = Duration::from_millis(20);

/// From one server to another.
pub type Way = (usize, usize);

/// The network.
pub struct Network {
    /// Where each server is called by the others.
    pub addresses: Vec<SocketAddr>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cut: BTreeSet<Way>,
    /// How often the connections of a way were closed.
    closed: BTreeMap<Way, u64>,
    processes: BTreeMap<usize, u32>,
}

impl Network {
    /// A network before servers that listen at `servers`; its threads end with the process.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(servers: &[SocketAddr]) -> std::io::Result<Arc<Self>> {
        let listeners = servers.iter().map(|_| TcpListener::bind(super::ports::free_address()));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> =
            listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let network = Arc::new(Self { addresses, state: Mutex::default() });
        for (at, (listener, server)) in listeners.into_iter().zip(servers).enumerate() {
            let (network, server) = (Arc::clone(&network), *server);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let network = Arc::clone(&network);
                    std::thread::spawn(move || network.carry(stream, at, server));
                }
            });
        }
        Ok(network)
    }

    /// From now on a server is this process.
    pub fn is_process(&self, at: usize, pid: u32) {
        self.state().processes.insert(at, pid);
    }

    /// Cuts ways, in addition to those that are cut.
    pub fn cut(&self, ways: &[Way]) {
        self.state().cut.extend(ways);
    }

    /// Heals everything; with `close`, the connections that were cut are closed.
    pub fn heal(&self, close: bool) {
        let mut state = self.state();
        for way in std::mem::take(&mut state.cut) {
            if close {
                *state.closed.entry(way).or_default() += 1;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self, way: Way) -> u64 {
        self.state().closed.get(&way).copied().unwrap_or(0)
    }

    fn is_cut(&self, way: Way) -> bool {
        self.state().cut.contains(&way)
    }

    fn carry(&self, caller: TcpStream, to: usize, server: SocketAddr) {
        let Some(from) = self.who(&caller, self.addresses[to]) else { return };
        let (there, back) = ((from, to), (to, from));
        let closed = self.closed(there) + self.closed(back);
        let gone = || self.closed(there) + self.closed(back) != closed;
        // A connection takes both ways.
        while self.is_cut(there) || self.is_cut(back) {
            std::thread::sleep(LOOK);
        }
        if gone() {
            return;
        }
        let Ok(called) = TcpStream::connect(server) else { return };
        let pass = |from: &TcpStream, to: &TcpStream, way| {
            let _ = self.pass(from, to, way, &gone);
            // The other direction ends too; both fail where it has ended already.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| pass(&caller, &called, there));
            pass(&called, &caller, back);
        });
    }

    fn pass(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        way: Way,
        gone: &impl Fn() -> bool,
    ) -> std::io::Result<()> {
        from.set_read_timeout(Some(LOOK))?;
        to.set_nodelay(true)?;
        let mut bytes = vec![0; 64 << 10];
        while !gone() {
            if self.is_cut(way) {
                std::thread::sleep(LOOK);
                continue;
            }
            let read = match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            while self.is_cut(way) && !gone() {
                std::thread::sleep(LOOK);
            }
            to.write_all(&bytes[..read])?;
        }
        Ok(())
    }

    /// Which server a connection to `here` is of.
    fn who(&self, caller: &TcpStream, here: SocketAddr) -> Option<usize> {
        let inode = socket_inode(caller.peer_addr().ok()?, here)?;
        let wanted = format!("socket:[{inode}]");
        let processes = self.state().processes.clone();
        let has = |pid: &u32| {
            let files =
                std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
            links.any(|link| link.to_string_lossy() == wanted)
        };
        processes.into_iter().find(|(_, pid)| has(pid)).map(|(at, _)| at)
    }
}

/// The inode of the socket whose own address is `local`, and which is connected to `remote`.
fn socket_inode(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => {
            Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()))
        }
        SocketAddr::V6(_) => None,
    };
    let (local, remote) = (hex(local)?, hex(remote)?);
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let found =
            fields.get(1) == Some(&local.as_str()) && fields.get(2) == Some(&remote.as_str());
        found.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}
