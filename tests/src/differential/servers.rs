//! A real ZooKeeper and a Vivarium, started from the same `zoo.cfg` and the same Java properties.
//!
//! Every server listens on a free port of 127.0.0.1, keeps its data in a directory of its own that
//! goes with it, and is killed when dropped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The user whose password is `test`, as most clients' own tests have it.
const SUPER_DIGEST: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

const JAAS: &str = "Server {
    org.apache.zookeeper.server.auth.DigestLoginModule required
    user_super=\"super_secret\"
    user_jaasuser=\"jaas_password\";
};
";

/// How long a server may take to start. A JVM on a busy machine takes seconds.
const START: Duration = Duration::from_secs(90);

/// What both servers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// Everything on: TTL nodes, enforced quotas, SASL users; reaping every 100 ms.
    Full,
    /// TTL nodes and quotas off, `reconfig` on, only clients that authenticated by digest; no
    /// reaping, so that containers may be made at random.
    Strict,
}

impl Profile {
    fn zoo_cfg(self, data: &Path, port: u16) -> String {
        let mut lines = vec![
            "tickTime=200".to_owned(),
            format!("dataDir={}", data.display()),
            format!("clientPort={port}"),
            "clientPortAddress=127.0.0.1".to_owned(),
            "maxClientCnxns=0".to_owned(),
            "maxSessionTimeout=600000".to_owned(),
            "admin.enableServer=false".to_owned(),
            "4lw.commands.whitelist=*".to_owned(),
            format!("DigestAuthenticationProvider.superDigest={SUPER_DIGEST}"),
        ];
        let more: &[&str] = match self {
            Self::Full => &[
                "extendedTypesEnabled=true",
                "enforceQuota=true",
                "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
            ],
            Self::Strict => &[
                "extendedTypesEnabled=false",
                "reconfigEnabled=true",
                "enforce.auth.enabled=true",
                "enforce.auth.schemes=digest",
            ],
        };
        lines.extend(more.iter().map(|&line| line.to_owned()));
        lines.join("\n") + "\n"
    }

    fn properties(self, dir: &Path) -> Vec<String> {
        match self {
            Self::Full => vec![
                "znode.container.checkIntervalMs=100".to_owned(),
                format!("java.security.auth.login.config={}", dir.join("jaas.conf").display()),
            ],
            Self::Strict => vec!["znode.container.checkIntervalMs=3600000".to_owned()],
        }
    }
}

/// Where the two programs are.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// The `vivarium` binary.
    pub(super) vivarium: PathBuf,
    /// The real ZooKeeper's class path.
    pub(super) zookeeper_classpath: String,
}

/// A running server.
struct Server {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

/// The two of them.
pub(super) struct Servers {
    zookeeper: Server,
    vivarium: Server,
}

impl Servers {
    /// Starts both and waits until they serve.
    pub(super) fn start(programs: &Programs, profile: Profile) -> std::io::Result<Self> {
        let zookeeper = Server::spawn(profile, |dir| {
            let mut java = Command::new("java");
            java.args(["-Xmx256m", "-XX:+UseSerialGC", "-Dzookeeper.forceSync=no", "-cp"]);
            java.arg(&programs.zookeeper_classpath);
            java.args(profile.properties(dir).iter().map(|property| format!("-D{property}")));
            java.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(dir.join("zoo.cfg"));
            java
        })?;
        let vivarium = Server::spawn(profile, |dir| {
            let mut vivarium = Command::new(&programs.vivarium);
            vivarium.arg("serve").arg("--zoo-cfg").arg(dir.join("zoo.cfg"));
            // It takes settings from such variables, and refuses those that it does not know.
            for (name, _) in std::env::vars_os() {
                if name.as_encoded_bytes().starts_with(b"VIVARIUM_") {
                    vivarium.env_remove(name);
                }
            }
            for property in profile.properties(dir) {
                vivarium.arg("--java-property").arg(property);
            }
            vivarium
        })?;
        let mut servers = Self { zookeeper, vivarium };
        servers.zookeeper.wait()?;
        servers.vivarium.wait()?;
        Ok(servers)
    }

    /// Where ZooKeeper and Vivarium listen.
    pub(super) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.zookeeper.address, self.vivarium.address)
    }

    /// The ends of what they logged, for a failure that only they can explain.
    pub(super) fn logs(&self) -> String {
        format!("ZooKeeper:\n{}\nVivarium:\n{}", self.zookeeper.log(), self.vivarium.log())
    }
}

impl Server {
    fn spawn(profile: Profile, command: impl FnOnce(&Path) -> Command) -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("differential-").tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = profile.zoo_cfg(&dir.path().join("data"), address.port());
        fs::write(dir.path().join("zoo.cfg"), config)?;
        fs::write(dir.path().join("jaas.conf"), JAAS)?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = command(dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let program = command.get_program().to_owned();
        let child = command.spawn().map_err(|error| {
            std::io::Error::new(error.kind(), format!("{}: {error}", program.display()))
        })?;
        Ok(Self { child, address, dir })
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if self.serves().unwrap_or(false) {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let why = ended.map_or("is not ready".to_owned(), |status| status.to_string());
                let text = format!("a server did not start ({why}); it said:\n{}", self.log());
                return Err(std::io::Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn serves(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains("Mode:"))
    }

    fn log(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
