//! Starts and ends `vivarium serve`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) use tests::real::ports::free_address;

/// The binary that was built beside this test.
pub(crate) fn binary() -> PathBuf {
    let mut dir = std::env::current_exe().expect("this test is a file");
    dir.pop();
    dir.pop();
    let path = dir.join("vivarium");
    assert!(path.is_file(), "build it first: cargo build --workspace (looked at {path:?})");
    path
}

/// A running server; killed with -9 when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// `vivarium serve` on a data directory, not started yet.
pub(crate) fn serve(dir: &Path, address: SocketAddr, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("serve").arg("--data-dir").arg(dir).arg("--listen").arg(address.to_string());
    command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs a server that is expected to refuse to start.
pub(crate) fn refused(dir: &Path, address: SocketAddr, more: &[&str]) -> Output {
    let mut child = serve(dir, address, more).spawn().expect("it can be started");
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().expect("it is our child").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it runs");
            panic!("it was not refused: {more:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("it is our child");
    assert!(!output.status.success(), "it was not refused: {more:?}");
    output
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// Starts a server with more arguments and waits until it answers.
    pub(crate) fn start_with(dir: &Path, more: &[&str]) -> Self {
        Self::start_logging(dir, more, Stdio::null())
    }

    /// Starts a server that logs to `log`, and waits until it answers.
    pub(crate) fn start_logging(dir: &Path, more: &[&str], log: impl Into<Stdio>) -> Self {
        Self::start_at(dir, free_address(), more, log)
    }

    /// The same, at an address.
    pub(crate) fn start_at(
        dir: &Path,
        address: SocketAddr,
        more: &[&str],
        log: impl Into<Stdio>,
    ) -> Self {
        let child = serve(dir, address, more).stderr(log).spawn().expect("it starts");
        let mut server = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            assert!(Instant::now() < deadline, "the server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let kill =
            Command::new("kill").args(["-s", name]).arg(self.child.id().to_string()).status();
        assert!(kill.expect("there is a kill").success());
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// SIGTERM, and waits until it has ended.
    pub(crate) fn terminate(mut self) {
        self.signal("TERM");
        assert!(self.child.wait().expect("it is our child").success(), "a clean end");
    }

    /// The memory that it has in hand, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok());
        kib.expect("a number") << 10
    }

    /// What it answers to a four-letter word.
    pub(crate) fn word(&self, word: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.write_all(word.as_bytes()).expect("it takes bytes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
