//! Several servers of one ensemble, Vivarium's or a real ZooKeeper's, on free ports of 127.0.0.1 and
//! with their data in a directory that goes with them. They are killed when dropped.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::ports::free_address;
use super::proxy::Network;

/// How long a server may take to say how it is.
const ANSWER: Duration = Duration::from_secs(1);
/// How long servers may take to serve. A JVM on a busy machine takes seconds.
const START: Duration = Duration::from_secs(90);

/// Which program the servers run.
#[derive(Debug, Clone)]
pub enum Program {
    /// A `vivarium` binary.
    Vivarium(PathBuf),
    /// A real ZooKeeper, by its class path.
    ZooKeeper(String),
}

/// The servers.
pub struct Ensemble {
    program: Program,
    dir: TempDir,
    /// Where each takes clients.
    pub clients: Vec<SocketAddr>,
    /// Where each is called by the others.
    pub peers: Vec<SocketAddr>,
    /// Between the servers, if it can be cut.
    pub network: Option<Arc<Network>>,
    /// What each server's command begins with.
    within: Vec<Vec<String>>,
    processes: Vec<Option<Child>>,
}

impl Ensemble {
    /// Writes the configuration of `count` servers; none is started. Between Vivariums, with
    /// `proxied`, there is a network that can be cut.
    ///
    /// # Errors
    /// If files cannot be written or ports not be taken.
    pub fn lay_out(program: Program, count: usize, proxied: bool) -> std::io::Result<Self> {
        // Each server runs in a directory of its own.
        let program = match program {
            Program::Vivarium(binary) => Program::Vivarium(binary.canonicalize()?),
            zookeeper => zookeeper,
        };
        let dir = tempfile::Builder::new().prefix("ensemble-").tempdir()?;
        let addresses = |_| free_address();
        let clients: Vec<_> = (0..count).map(addresses).collect();
        let listen: Vec<_> = (0..count).map(addresses).collect();
        let elections: Vec<_> = (0..count).map(addresses).collect();
        let network = proxied.then(|| Network::start(&listen)).transpose()?;
        let peers = network.as_ref().map_or(&listen, |network| &network.addresses);
        for (at, listen) in listen.iter().enumerate() {
            fs::create_dir(dir.path().join(format!("server{at}")))?;
            let (name, text) = match program {
                Program::Vivarium(_) => ("vivarium.toml", toml(at, &clients, peers, *listen)),
                Program::ZooKeeper(_) => {
                    let data = dir.path().join(format!("server{at}/data"));
                    fs::create_dir(&data)?;
                    fs::write(data.join("myid"), format!("{}\n", at + 1))?;
                    let data = data.display().to_string();
                    ("zoo.cfg", zoo_cfg(&data, at, &clients, peers, &elections))
                }
            };
            fs::write(dir.path().join(format!("server{at}/{name}")), text)?;
        }
        let processes = (0..count).map(|_| None).collect();
        let (peers, within) = (peers.clone(), vec![Vec::new(); count]);
        Ok(Self { program, dir, clients, peers, network, within, processes })
    }

    /// How many servers there are.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// Where a server keeps everything.
    pub fn home(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("server{at}"))
    }

    /// A Vivarium's configuration file.
    pub fn config(&self, at: usize) -> PathBuf {
        self.home(at).join("vivarium.toml")
    }

    /// Adds sections to a Vivarium's configuration.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn configure(&self, at: usize, sections: &str) -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.config(at))?;
        file.write_all(sections.as_bytes())
    }

    /// A server is to be run by this command, which makes itself the server's process.
    pub fn within(&mut self, at: usize, words: Vec<String>) {
        self.within[at] = words;
    }

    /// Starts a server; does not wait for it.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn start(&mut self, at: usize) -> std::io::Result<()> {
        let home = self.home(at);
        let log = OpenOptions::new().create(true).append(true).open(home.join("log"))?;
        let run = |program: &std::ffi::OsStr| match &self.within[at][..] {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        let mut command = match &self.program {
            Program::Vivarium(binary) => {
                let mut command = run(binary.as_os_str());
                command.arg("serve").arg("--config").arg(self.config(at));
                // It takes settings from such variables, and refuses those that it does not know.
                for (name, _) in std::env::vars_os() {
                    if name.as_encoded_bytes().starts_with(b"VIVARIUM_") {
                        command.env_remove(name);
                    }
                }
                command
            }
            Program::ZooKeeper(classpath) => {
                let mut command = run("java".as_ref());
                command.args(["-Xmx1g", "-cp", classpath]);
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
                command.arg(home.join("zoo.cfg"));
                command
            }
        };
        command.current_dir(&home).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        if let Some(network) = &self.network {
            network.is_process(at, child.id());
        }
        self.processes[at] = Some(child);
        Ok(())
    }

    /// Whether it was started and not ended by us. It may have ended by itself: see `ended`.
    pub fn runs(&self, at: usize) -> bool {
        self.processes[at].is_some()
    }

    /// A server's process.
    pub fn pid(&self, at: usize) -> Option<u32> {
        self.processes[at].as_ref().map(Child::id)
    }

    /// How a server ended that was not told to.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn ended(&mut self, at: usize) -> std::io::Result<Option<ExitStatus>> {
        self.processes[at].as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it has ended already, or never ran.
    pub fn kill(&mut self, at: usize) -> std::io::Result<()> {
        let mut child = self.processes[at].take().ok_or(std::io::ErrorKind::NotFound)?;
        child.kill()?;
        child.wait().map(|_| ())
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// If it never ran, or takes too long.
    pub fn terminate(&mut self, at: usize) -> std::io::Result<ExitStatus> {
        self.signal(at, Signal::TERM)?;
        let mut child = self.processes[at].take().ok_or(std::io::ErrorKind::NotFound)?;
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                return Err(std::io::Error::other(format!("server {at} does not stop")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends SIGSTOP or SIGCONT, or whatever else.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, at: usize, signal: Signal) -> std::io::Result<()> {
        let child = self.processes[at].as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// What a server answers to a four-letter word, if it answers.
    pub fn word(&self, at: usize, word: &str) -> Option<String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.clients[at], ANSWER)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.write_all(word.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().ok()
    }

    /// What a server says of itself: `leader` or `follower`, if it serves.
    pub fn mode(&self, at: usize) -> Option<String> {
        let answer = self.word(at, "srvr")?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "))?;
        Some(mode.to_owned()).filter(|mode| mode != "looking")
    }

    /// Whether all of the Vivariums vote, as the server `at` knows it.
    pub fn all_vote(&self, at: usize) -> bool {
        let Program::Vivarium(binary) = &self.program else { return true };
        let mut command = Command::new(binary);
        command.args(["member", "list", "--server"]).arg(self.clients[at].to_string());
        command.arg("--data-dir").arg(self.home(at).join("data"));
        let listed = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        listed.is_ok_and(|listed| {
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            listed.lines().filter(|line| line.trim_end().ends_with("votes")).count() == self.count()
        })
    }

    /// Who leads, if somebody says so.
    pub fn leader(&self) -> Option<usize> {
        (0..self.count()).find(|at| self.mode(*at).as_deref() == Some("leader"))
    }

    /// Waits until every server serves, and gives the leader.
    ///
    /// # Errors
    /// If that takes too long, or one has ended.
    pub fn wait(&mut self) -> std::io::Result<usize> {
        let deadline = Instant::now() + START;
        loop {
            for at in 0..self.count() {
                if let Some(status) = self.ended(at)? {
                    let text = format!("server {at} ended ({status}):\n{}", self.log_end(at));
                    return Err(std::io::Error::other(text));
                }
            }
            let modes: Vec<_> = (0..self.count()).map(|at| self.mode(at)).collect();
            let leader = modes.iter().position(|mode| mode.as_deref() == Some("leader"));
            if let Some(leader) = leader
                && modes.iter().all(Option::is_some)
            {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                let logs: Vec<_> = (0..self.count()).map(|at| self.log_end(at)).collect();
                let text = format!("not all serve: {modes:?}\n{}", logs.join("\n--\n"));
                return Err(std::io::Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a server logged, over all its starts.
    pub fn log(&self, at: usize) -> String {
        let log = fs::read(self.home(at).join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The end of it, for a failure that only it can explain.
    pub fn log_end(&self, at: usize) -> String {
        let log = self.log(at);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for mut child in self.processes.drain(..).flatten() {
            // Both fail where it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn toml(at: usize, clients: &[SocketAddr], peers: &[SocketAddr], listen: SocketAddr) -> String {
    let mut text = format!(
        "server-id = {}\ndata-dir = \"data\"\n[listen]\nclient = \"{}\"\n\
         [limits]\nmax-connections-per-address = 0\n[ensemble]\npeer-listen = \"{listen}\"\n",
        at + 1,
        clients[at]
    );
    for (id, (client, peer)) in (1..).zip(clients.iter().zip(peers)) {
        text += &format!(
            "[[ensemble.servers]]\nid = {id}\npeer = [\"{peer}\"]\nclient = \"{client}\"\n"
        );
    }
    text
}

fn zoo_cfg(
    data: &str,
    at: usize,
    clients: &[SocketAddr],
    peers: &[SocketAddr],
    elections: &[SocketAddr],
) -> String {
    let mut text = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={data}\nclientPort={}\n\
         clientPortAddress=127.0.0.1\nmaxClientCnxns=0\nadmin.enableServer=false\n\
         4lw.commands.whitelist=*\n",
        clients[at].port()
    );
    for (id, (peer, election)) in (1..).zip(peers.iter().zip(elections)) {
        text += &format!("server.{id}=127.0.0.1:{}:{}\n", peer.port(), election.port());
    }
    text
}
