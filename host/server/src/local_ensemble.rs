//! `vivarium local-ensemble`: several servers on this machine as one ensemble, to try it out.
//!
//! Each server is a process of this program, with a configuration file of its own below one directory.
//! They end with this process, however it ends; one of them that ends alone is told of, not replaced.

mod files;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::files::Member;

/// How often the servers are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a server may take to say how it is.
const ANSWER: Duration = Duration::from_secs(1);
/// How long servers may take to stop before they are killed.
const STOP: Duration = Duration::from_secs(30);

/// Flags of `local-ensemble`.
#[derive(Debug, Args)]
pub(crate) struct LocalEnsembleArgs {
    /// How many servers; 3, unless the directory has an ensemble already.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) servers: Option<u8>,
    /// Where their configuration and their data are. What is there is used again.
    #[arg(long, value_name = "DIR", default_value = "./vivarium-ensemble")]
    pub(crate) dir: PathBuf,
    /// The first server's port for clients; the next has the next. Ports for the servers among each
    /// other are 100 higher. 2181, unless the directory has an ensemble already.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub(crate) client_port: Option<u16>,
    /// A key of the configuration, for all servers, such as limits.max-frame-bytes=4MiB. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// A server and its process.
struct Running {
    member: Member,
    child: Child,
    ended: bool,
}

/// Runs the ensemble until SIGTERM or SIGINT, or until no server is left.
///
/// # Errors
/// If it cannot be started, or a server ends before all have served.
pub(crate) fn run(args: &LocalEnsembleArgs) -> anyhow::Result<ExitCode> {
    let members = files::lay_out(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(look_after(members, &args.set))
}

async fn look_after(members: Vec<Member>, set: &[String]) -> anyhow::Result<ExitCode> {
    // Before the first server starts: a Ctrl-C must not miss any.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut servers = Servers(Vec::new());
    for member in members {
        let child = start(&member, set)?;
        servers.0.push(Running { member, child, ended: false });
    }
    let mut told = false;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for server in servers.0.iter_mut().filter(|server| !server.ended) {
            let Some(status) = server.child.try_wait()? else { continue };
            server.ended = true;
            let (id, config) = (server.member.id, server.member.config.display());
            anyhow::ensure!(
                told,
                "server {id} ended ({status}) before the ensemble served; see above"
            );
            say(&format!(
                "server {id} ended: {status}. Start it again with: vivarium serve --config {config}"
            ))?;
        }
        anyhow::ensure!(servers.0.iter().any(|server| !server.ended), "no server is left");
        if !told && servers.0.iter().all(|server| serves(&server.member)) {
            told = true;
            say(&servers.overview())?;
        }
    }
    say("stopping all servers")?;
    servers.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// Those of this process; killed when dropped.
struct Servers(Vec<Running>);

impl Servers {
    fn overview(&self) -> String {
        let clients: Vec<_> = self.0.iter().map(|server| server.member.client.as_str()).collect();
        let clients = clients.join(",");
        let mut text = format!(
            "\n{} servers are one ensemble.\n  connect    {clients}\n  shell      vivarium shell --server {clients}\n",
            self.0.len()
        );
        for Running { member: Member { id, client, data, .. }, child, .. } in &self.0 {
            let pid = child.id();
            text +=
                &format!("  server {id}   clients {client}, pid {pid}, data {}\n", data.display());
        }
        text + "  Ctrl-C stops all of them."
    }

    /// Asks all to stop, and waits for them.
    fn stop(&mut self) -> anyhow::Result<()> {
        for server in self.0.iter_mut().filter(|server| !server.ended) {
            let pid = rustix::process::Pid::from_child(&server.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP;
        for server in self.0.iter_mut().filter(|server| !server.ended) {
            let id = server.member.id;
            while server.child.try_wait()?.is_none() {
                anyhow::ensure!(
                    Instant::now() < deadline,
                    "server {id} does not stop; it was killed"
                );
                std::thread::sleep(LOOK_EVERY / 5);
            }
            server.ended = true;
        }
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in self.0.iter_mut().filter(|server| !server.ended) {
            // Both fail where it has ended meanwhile.
            let _ = server.child.kill();
            let _ = server.child.wait();
        }
    }
}

fn start(member: &Member, set: &[String]) -> anyhow::Result<Child> {
    let me = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(me);
    command.arg("serve").arg("--config").arg(&member.config);
    command.arg("--end-with").arg(std::process::id().to_string());
    command.args(set.iter().flat_map(|pair| ["--set", pair]));
    // What such a variable says cannot be true of all servers: their files say everything.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VIVARIUM_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start a server")?;
    let log = child.stderr.take().context("it has a log")?;
    let id = member.id;
    std::thread::Builder::new().name(format!("log-of-server-{id}")).spawn(move || {
        for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
            // Nobody reads: then nothing is to be said.
            let _ = writeln!(std::io::stderr(), "server {id} | {}", String::from_utf8_lossy(&line));
        }
    })?;
    Ok(child)
}

/// Whether a server takes clients and knows a leader.
fn serves(member: &Member) -> bool {
    let mode = || -> std::io::Result<bool> {
        let address = member.client.to_socket_addrs()?.next();
        let address = address.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(["leader", "follower", "standalone"]
            .iter()
            .any(|m| answer.contains(&format!("Mode: {m}"))))
    };
    mode().unwrap_or(false)
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
