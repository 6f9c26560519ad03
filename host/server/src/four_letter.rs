//! ZooKeeper's four-letter words: plain-text questions on the client port, in the formats that
//! monitoring tools parse. The version told is that of the ZooKeeper whose protocol this is.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use state::view::Listing;

use crate::client::Clients;
use crate::config::{AllowFrom, FourLetterWords};
use crate::metrics::{METRICS, Metric, Seen, Value};
use crate::stats::Told;
use crate::threads::{Part, clock_ms};

/// What clients take for the server's version. Older tools accept this form of a date only.
pub(crate) const VERSION: &str = "3.9.5-vivarium, built on 01/01/2026 00:00 GMT";

/// A word that came instead of a connect request, and what came with it.
pub(crate) struct Asked {
    pub(crate) word: &'static str,
    pub(crate) argument: Bytes,
}

/// What the words tell that is not of the state or the connections.
pub(crate) struct Answers {
    pub(crate) words: FourLetterWords,
    pub(crate) client_port: u16,
    pub(crate) secure_port: Option<u16>,
    pub(crate) data_dir: PathBuf,
    pub(crate) tick_time_ms: u64,
    pub(crate) server_id: u8,
    pub(crate) timeout_ms_min: u64,
    pub(crate) timeout_ms_max: u64,
    pub(crate) per_address_max: u32,
    /// The server's [`Part`].
    pub(crate) part: Arc<AtomicU8>,
}

impl Answers {
    /// The answer to a word.
    pub(crate) fn answer(
        &self,
        asked: &Asked,
        remote: SocketAddr,
        clients: &Arc<Clients>,
    ) -> String {
        let word = asked.word;
        let local = remote.ip().to_canonical().is_loopback();
        if !self.words.is_enabled(word) || (self.words.allow_from == AllowFrom::Local && !local) {
            return format!("{word} is not executed because it is not in the whitelist.\n");
        }
        if let Some(why) = clients.published.shut()
            && !matches!(word, "ruok" | "conf" | "envi" | "gtmk" | "stmk")
        {
            return match word {
                "isro" => "null".to_owned(),
                _ => format!(
                    "This ZooKeeper instance is not currently serving requests\n\
                     Vivarium: nobody is served from its state: {why}\n"
                ),
            };
        }
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = match word {
            "ruok" => write!(out, "imok"),
            "isro" => write!(out, "{}", Part::takes(&self.part)),
            "srvr" => self.server(&mut out, clients, false),
            "stat" => self.server(&mut out, clients, true),
            "cons" => connections(&mut out, clients),
            "conf" => self.configuration(&mut out),
            "envi" => self.environment(&mut out),
            "mntr" => monitor(&mut out, clients),
            "wchs" => {
                let counts = clients.published.watches().counts();
                let (connections, paths) = (counts.connections, counts.paths);
                let watches = counts.watches;
                writeln!(out, "{connections} connections watching {paths} paths")
                    .and_then(|()| writeln!(out, "Total watches:{watches}"))
            }
            "wchc" => watches_by_session(&mut out, clients),
            "wchp" => watches_by_path(&mut out, clients),
            "dump" => dump(&mut out, clients),
            "dirs" => {
                let state = directory_bytes(&self.data_dir.join("state"));
                let log = directory_bytes(&self.data_dir.join("log"));
                writeln!(out, "datadir_size: {state}\nlogdir_size: {log}")
            }
            "crst" => {
                clients.stats.reset_connections();
                writeln!(out, "Connection stats reset.")
            }
            "srst" => {
                clients.stats.reset();
                writeln!(out, "Server stats reset.")
            }
            "hash" => Ok(()),
            "gtmk" => writeln!(out, "0"),
            "stmk" => {
                let mask = asked.argument.first_chunk::<8>().map_or(0, |m| i64::from_be_bytes(*m));
                writeln!(out, "{mask}")
            }
            _ => Ok(()),
        };
        out
    }

    fn server(&self, out: &mut String, clients: &Clients, with_clients: bool) -> std::fmt::Result {
        let view = clients.published.view();
        let stats = &clients.stats;
        version(out)?;
        if Part::takes(&self.part) == "ro" {
            writeln!(out, "READ-ONLY mode; serving only read-only clients")?;
        }
        if with_clients {
            writeln!(out, "Clients:")?;
            for told in stats.connections() {
                brief(out, &told)?;
            }
            writeln!(out)?;
        }
        let latency = stats.latency();
        writeln!(out, "Latency min/avg/max: {}/{:.4}/{}", latency.min, latency.avg, latency.max)?;
        writeln!(out, "Received: {}", stats.received.load(Ordering::Relaxed))?;
        writeln!(out, "Sent: {}", stats.sent.load(Ordering::Relaxed))?;
        writeln!(out, "Connections: {}", stats.connection_count())?;
        writeln!(out, "Outstanding: {}", stats.outstanding.load(Ordering::Relaxed).max(0))?;
        writeln!(out, "Zxid: {:#x}", view.zxid)?;
        writeln!(out, "Mode: {}", Part::of(&self.part))?;
        // ZooKeeper counts the root twice, under "" and "/".
        writeln!(out, "Node count: {}", view.counts.nodes + 1)
    }

    fn configuration(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "clientPort={}", self.client_port)?;
        writeln!(out, "secureClientPort={}", self.secure_port.map_or(-1, i32::from))?;
        writeln!(out, "dataDir={}", self.data_dir.display())?;
        writeln!(out, "dataDirSize={}", directory_bytes(&self.data_dir.join("state")))?;
        writeln!(out, "dataLogDir={}", self.data_dir.display())?;
        writeln!(out, "dataLogSize={}", directory_bytes(&self.data_dir.join("log")))?;
        writeln!(out, "tickTime={}", self.tick_time_ms)?;
        writeln!(out, "maxClientCnxns={}", self.per_address_max)?;
        writeln!(out, "minSessionTimeout={}", self.timeout_ms_min)?;
        writeln!(out, "maxSessionTimeout={}", self.timeout_ms_max)?;
        writeln!(out, "clientPortListenBacklog=-1")?;
        writeln!(out, "serverId={}", self.server_id)
    }

    fn environment(&self, out: &mut String) -> std::fmt::Result {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        writeln!(out, "Environment:")?;
        writeln!(out, "zookeeper.version={VERSION}")?;
        writeln!(out, "host.name={}", host.trim())?;
        writeln!(out, "vivarium.version={}", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "os.name={}", std::env::consts::OS)?;
        writeln!(out, "os.arch={}", std::env::consts::ARCH)?;
        let dir = std::env::current_dir().unwrap_or_default();
        writeln!(out, "user.dir={}", dir.display())
    }
}

fn version(out: &mut String) -> std::fmt::Result {
    writeln!(out, "Zookeeper version: {VERSION}")
}

fn brief(out: &mut String, told: &Told) -> std::fmt::Result {
    let active = u8::from(told.session != 0);
    let Told { remote, queued, received, sent, .. } = told;
    writeln!(out, " /{remote}[{active}](queued={queued},recved={received},sent={sent})")
}

fn connections(out: &mut String, clients: &Clients) -> std::fmt::Result {
    for told in clients.stats.connections() {
        if told.session == 0 {
            brief(out, &told)?;
            continue;
        }
        let Told { remote, queued, received, sent, session, timeout_ms, .. } = &told;
        let op = told.last_op.map_or("NA", proto::OpCode::short_name);
        writeln!(
            out,
            " /{remote}[1](queued={queued},recved={received},sent={sent},sid={session:#x},lop={op},\
             est={},to={timeout_ms},lcxid={:#x},lzxid={:#x},lresp={},llat=0,minlat=0,avglat=0,maxlat=0)",
            told.since_ms,
            told.last_xid,
            told.last_zxid,
            clock_ms(),
        )?;
    }
    writeln!(out)
}

fn monitor(out: &mut String, clients: &Arc<Clients>) -> std::fmt::Result {
    let seen = Seen::look(clients);
    for Metric { zookeeper, read, .. } in METRICS {
        let Some(name) = zookeeper else { continue };
        match read(&seen) {
            Value::Integer(n) => writeln!(out, "zk_{name}\t{n}")?,
            Value::Float(n) => writeln!(out, "zk_{name}\t{n:.4}")?,
            Value::Text(text) => writeln!(out, "zk_{name}\t{text}")?,
            Value::Nothing | Value::Family(..) | Value::Times(_) | Value::TimesOf(..) => {}
        }
    }
    Ok(())
}

fn watches_by_session(out: &mut String, clients: &Clients) -> std::fmt::Result {
    let sessions = clients.published.connected();
    let watches = clients.published.watches().data_watches();
    for (session, outbox) in sessions {
        let mine = |outboxes: &[Arc<replica::Outbox>]| {
            outboxes.iter().any(|watcher| watcher.id == outbox.id)
        };
        let paths: Vec<_> = watches.iter().filter(|(_, who)| mine(who)).collect();
        if !paths.is_empty() {
            writeln!(out, "{session:#x}")?;
        }
        for (path, _) in paths {
            writeln!(out, "\t{path}")?;
        }
    }
    writeln!(out)
}

fn watches_by_path(out: &mut String, clients: &Clients) -> std::fmt::Result {
    let sessions = clients.published.connected();
    let watches = clients.published.watches().data_watches();
    for (path, watchers) in watches {
        writeln!(out, "{path}")?;
        for watcher in watchers {
            let session = sessions.iter().find(|(_, outbox)| outbox.id == watcher.id);
            writeln!(out, "\t{:#x}", session.map_or(0, |(session, _)| *session))?;
        }
    }
    writeln!(out)
}

fn dump(out: &mut String, clients: &Clients) -> std::fmt::Result {
    let view = clients.published.view();
    let Ok(sessions) = view.sessions() else { return writeln!(out, "the store cannot be read") };
    writeln!(out, "SessionTracker dump:")?;
    writeln!(out, "Session Sets ({})/({}):", sessions.len(), sessions.len())?;
    writeln!(out, "ephemeral nodes dump:")?;
    let owners: Vec<_> = sessions
        .iter()
        .filter_map(|(session, _)| Some((*session, view.list(Listing::ephemerals(*session)).ok()?)))
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    writeln!(out, "Sessions with Ephemerals ({}):", owners.len())?;
    for (session, paths) in owners {
        writeln!(out, "{session:#x}:")?;
        for path in paths {
            writeln!(out, "\t{path}")?;
        }
    }
    writeln!(out, "Connections dump:")?;
    writeln!(out, "Connections Sets ({})/({}):", sessions.len(), clients.stats.connection_count())
}

/// The lengths of all files in a directory and below it; what cannot be read counts as nothing.
pub(crate) fn directory_bytes(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
