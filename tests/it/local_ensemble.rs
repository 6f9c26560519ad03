//! `vivarium local-ensemble`: starts, tells, survives the death of a server, stops.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use proto::{Reply, Request};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, create};
use crate::process::binary;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running one; killed when dropped, and its servers with it.
struct Ensemble {
    child: Child,
    said: BufReader<ChildStdout>,
    pids: Vec<Pid>,
    clients: Vec<SocketAddr>,
}

fn command(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("local-ensemble").arg("--dir").arg(dir).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

impl Ensemble {
    /// Starts one, and reads what it says when all serve.
    fn start(dir: &Path, more: &[&str]) -> Self {
        let mut child = command(dir, more).spawn().expect("it starts");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut ensemble = Self { child, said, pids: Vec::new(), clients: Vec::new() };
        loop {
            let line = ensemble.line();
            let word = |after: &str| {
                let rest = line.split(after).nth(1)?;
                rest.split([',', ' ']).find(|word| !word.is_empty()).map(str::to_owned)
            };
            if line.contains("Ctrl-C") {
                return ensemble;
            }
            if let (Some(client), Some(pid)) = (word(" clients "), word(" pid ")) {
                ensemble.clients.push(client.parse().expect("an address"));
                let pid = Pid::from_raw(pid.parse().expect("a number"));
                ensemble.pids.push(pid.expect("a process"));
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.said.read_line(&mut line).expect("it speaks"), 0, "it ended");
        line
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits until no server runs.
    fn servers_are_gone(&self) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(pid) = self.pids.iter().find(|pid| runs(**pid)) {
            assert!(Instant::now() < deadline, "a server goes on: {pid:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process is there, and not only what is left of it for its parent.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// The first of so many ports in a row that are free, as are those 100 above them; where no other test
/// takes one meanwhile.
fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(count, Ordering::Relaxed);
        let first = 4000 + (std::process::id() as u16).wrapping_mul(97).wrapping_add(offset) % 5800;
        let all = (first..first + count).chain(first + 100..first + 100 + count);
        if all.map(|port| std::net::TcpListener::bind(("127.0.0.1", port))).all(|port| port.is_ok())
        {
            return first;
        }
    }
}

fn done(address: SocketAddr, request: &Request) -> Option<Reply> {
    let mut client = Client::connect(address).expect("it takes clients");
    let (header, reply) = client.ask(request).expect("the connection stays");
    assert_eq!(header.err, 0, "{request:?}");
    reply
}

#[test]
fn one_may_die_and_a_signal_stops_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_ports(3);
    let mut ensemble = Ensemble::start(dir.path(), &["--client-port", &port.to_string()]);
    assert_eq!((ensemble.pids.len(), ensemble.clients[0].port()), (3, port));
    done(ensemble.clients[0], &create("/a", b"1"));
    kill_process(ensemble.pids[1], Signal::KILL).expect("it runs");
    let line = ensemble.line();
    assert!(line.contains("server 2 ended") && line.contains("server2.toml"), "{line}");
    done(ensemble.clients[2], &create("/b", b"2"));
    ensemble.signal(Signal::TERM);
    assert!(ensemble.child.wait().expect("it is our child").success());
    ensemble.servers_are_gone();
    // The next start goes on with all three, and what was written is there.
    let ensemble = Ensemble::start(dir.path(), &[]);
    assert_eq!(ensemble.clients[0].port(), port);
    for client in &ensemble.clients {
        done(*client, &Request::Sync { path: "/".to_owned() });
        done(*client, &Request::Exists { path: "/b".to_owned(), watch: false });
    }
    // Killed itself, it leaves none behind.
    ensemble.signal(Signal::KILL);
    ensemble.servers_are_gone();
}

#[test]
fn a_server_that_cannot_start_ends_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = free_ports(3);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port + 1)).expect("it is free");
    let mut command = command(dir.path(), &["--client-port", &port.to_string()]);
    let output = command.stderr(Stdio::piped()).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("server 2 | vivarium: cannot listen on"), "{told}");
    assert!(told.contains("server 2 ended (exit status: 1) before the ensemble served"), "{told}");
}
