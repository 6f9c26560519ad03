//! Starts and ends `vivarium serve`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound")
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
    let output = serve(dir, address, more).output().expect("it can be started");
    assert!(!output.status.success(), "it started");
    output
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(dir: &Path) -> Self {
        let address = free_address();
        let child = serve(dir, address, &[]).stderr(Stdio::null()).spawn().expect("it starts");
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

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
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
