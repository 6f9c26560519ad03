//! One client that writes without rest, and what is measured of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proto::{CreateMode, Reply};

use super::{PATIENCE, SESSION_TIMEOUT, attach};
use crate::real::requests::{create, exists, set, sync};
use crate::real::session::{Session, Trouble};

/// What is measured.
pub(super) struct Meter {
    seen: Mutex<Seen>,
    go_home: AtomicBool,
    stop: AtomicBool,
}

struct Seen {
    acknowledged: Instant,
    gap: Duration,
    server: usize,
    /// The servers whose connections broke.
    lost: Vec<usize>,
    expired: usize,
}

impl Meter {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was seen.
    pub(super) fn begin(&self) {
        let mut seen = self.seen();
        (seen.gap, seen.expired) = (Duration::ZERO, 0);
        seen.lost.clear();
    }

    /// The longest gap, or the one that goes on.
    pub(super) fn gap(&self) -> Duration {
        let seen = self.seen();
        seen.gap.max(seen.acknowledged.elapsed())
    }

    pub(super) fn server(&self) -> usize {
        self.seen().server
    }

    /// How many connections broke, those to one server not counted.
    pub(super) fn dropped(&self, killed: usize) -> usize {
        self.seen().lost.iter().filter(|server| **server != killed).count()
    }

    pub(super) fn expired(&self) -> usize {
        self.seen().expired
    }

    pub(super) fn go_home(&self) {
        self.go_home.store(true, Ordering::Relaxed);
    }
}

/// A client.
pub(super) struct Writer {
    pub(super) meter: Arc<Meter>,
    path: String,
    thread: JoinHandle<Result<Count, Trouble>>,
}

/// Its writes.
#[derive(Default)]
struct Count {
    acknowledged: i32,
    /// Of which it is not known whether they were carried out.
    unknown: i32,
}

impl Writer {
    /// Opens the session, makes the znode, and begins to write.
    pub(super) fn start(servers: &[SocketAddr], client: usize) -> Result<Self, String> {
        let home = client % servers.len();
        let path = format!("/writer-{client}");
        let mut session = Session::new(servers, home, SESSION_TIMEOUT, PATIENCE);
        attach(&mut session).map_err(|trouble| format!("{trouble:?}"))?;
        match session.ask(&create(&path, "", CreateMode::Persistent)) {
            Ok((header, _)) if header.err == 0 => {}
            other => return Err(format!("{path} cannot be made: {other:?}")),
        }
        let seen = Seen {
            acknowledged: Instant::now(),
            gap: Duration::ZERO,
            server: home,
            lost: Vec::new(),
            expired: 0,
        };
        let (go_home, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let meter = Arc::new(Meter { seen: Mutex::new(seen), go_home, stop });
        let thread = {
            let (servers, path, meter) = (servers.to_vec(), path.clone(), Arc::clone(&meter));
            std::thread::spawn(move || write(&servers, home, session, &path, &meter))
        };
        Ok(Self { meter, path, thread })
    }

    /// Ends it, and checks that every acknowledged write was carried out, and none twice.
    pub(super) fn finish(self, servers: &[SocketAddr]) -> Result<(), String> {
        self.meter.stop.store(true, Ordering::Relaxed);
        let count = self.thread.join().map_err(|_| "a client panicked")?;
        let count = count.map_err(|trouble| format!("{}: {trouble:?}", self.path))?;
        let mut session = Session::new(servers, 0, SESSION_TIMEOUT, PATIENCE);
        attach(&mut session).map_err(|trouble| format!("{trouble:?}"))?;
        let ask = |session: &mut Session, request| {
            session.ask(&request).map_err(|trouble| format!("{trouble:?}"))
        };
        ask(&mut session, sync(&self.path))?;
        let (_, reply) = ask(&mut session, exists(&self.path))?;
        let Some(Reply::Stat(stat)) = reply else { return Err(format!("{} is gone", self.path)) };
        let Count { acknowledged, unknown } = count;
        if !(acknowledged..=acknowledged + unknown).contains(&stat.version) {
            return Err(format!(
                "{}: {acknowledged} writes were acknowledged, of {unknown} it is not known, but {} were \
                 carried out",
                self.path, stat.version
            ));
        }
        Ok(())
    }
}

fn write(
    servers: &[SocketAddr],
    home: usize,
    mut session: Session,
    path: &str,
    meter: &Meter,
) -> Result<Count, Trouble> {
    let mut count = Count::default();
    let request = set(path, &"x".repeat(100), -1);
    while !meter.stop.load(Ordering::Relaxed) {
        if meter.go_home.swap(false, Ordering::Relaxed) && session.server() != Some(home) {
            session.leave_for(home);
            session.attach(Instant::now() + SESSION_TIMEOUT)?;
        }
        match session.ask(&request) {
            Ok((header, _)) if header.err == 0 => {
                count.acknowledged += 1;
                let mut seen = meter.seen();
                let now = Instant::now();
                seen.gap = seen.gap.max(now - seen.acknowledged);
                seen.acknowledged = now;
                seen.server = session.server().unwrap_or(home);
            }
            Ok((header, _)) => return Err(Trouble::Wrong(format!("error {}", header.err))),
            Err(Trouble::Lost) => {
                count.unknown += 1;
                let mut seen = meter.seen();
                let lost = seen.server;
                seen.lost.push(lost);
                drop(seen);
                session.leave_for((lost + 1) % servers.len());
                match attach(&mut session) {
                    Ok(()) => {}
                    Err(Trouble::Expired) => {
                        meter.seen().expired += 1;
                        session = Session::new(servers, home, SESSION_TIMEOUT, PATIENCE);
                        attach(&mut session)?;
                    }
                    Err(trouble) => return Err(trouble),
                }
                meter.seen().server = session.server().unwrap_or(home);
            }
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(count)
}
