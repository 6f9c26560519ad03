//! However long writes take to apply, the ensemble keeps its leader and clients keep their sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proto::CreateMode;
use tests::real::ensemble::{Ensemble, Program};
use tests::real::requests::{create, get, set};
use tests::real::session::{Session, Trouble};

use crate::process::binary;

const SERVERS: usize = 3;
/// The shortest that servers allow: what takes too long shows.
const TIMEOUT: Duration = Duration::from_secs(6);
/// How often a client that has nothing to do says so.
const IDLE: Duration = Duration::from_millis(500);
/// How long all goes on; `SLOW_APPLY_SECONDS` says otherwise.
const SECONDS: u64 = 10;

fn duration() -> Duration {
    let seconds = std::env::var("SLOW_APPLY_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(SECONDS))
}

/// An ensemble on whose servers each change takes so many milliseconds.
fn ensemble(slow_ms: u64) -> Ensemble {
    let program = Program::Vivarium(binary().with_file_name("odd_server"));
    let mut ensemble = Ensemble::lay_out(program, SERVERS, false).expect("it can be written");
    (0..SERVERS).for_each(|at| start(&mut ensemble, at, slow_ms));
    ensemble
}

fn start(ensemble: &mut Ensemble, at: usize, slow_ms: u64) {
    ensemble.within(at, vec!["env".to_owned(), format!("SLOW_WRITE_MS={slow_ms}")]);
    ensemble.start(at).expect("it starts");
}

/// Clients that go on until they are told to stop; how many answers they got.
struct Clients {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    /// How long an answer took at most, in milliseconds.
    slowest: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Result<(), Trouble>>>,
}

impl Clients {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            answers: Arc::default(),
            slowest: Arc::default(),
            threads: Vec::new(),
        }
    }

    fn spawn(
        &mut self,
        server: SocketAddr,
        mut step: impl FnMut(&mut Session) -> Result<(), Trouble> + Send + 'static,
    ) {
        let (stop, answers) = (Arc::clone(&self.stop), Arc::clone(&self.answers));
        let slowest = Arc::clone(&self.slowest);
        self.threads.push(std::thread::spawn(move || {
            let mut session = Session::new(&[server], 0, TIMEOUT, TIMEOUT * 5);
            session.attach(Instant::now() + TIMEOUT * 5)?;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let done = step(&mut session);
                slowest.fetch_max(began.elapsed().as_millis() as usize, Ordering::Relaxed);
                done?;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }));
    }

    /// One that writes `data` without rest.
    fn write(&mut self, server: SocketAddr, path: String, data: String) {
        let mut is_there = false;
        self.spawn(server, move |session| {
            let request = if is_there {
                set(&path, &data, -1)
            } else {
                create(&path, &data, CreateMode::Persistent)
            };
            let (header, _) = session.ask(&request)?;
            assert_eq!(header.err, 0, "{path}");
            is_there = true;
            Ok(())
        });
    }

    /// One that only shows that it is there.
    fn idle(&mut self, server: SocketAddr) {
        self.spawn(server, |session| {
            std::thread::sleep(IDLE);
            session.ask(&get("/", false)).map(|_| ())
        });
    }

    /// How many answers they had; none lost its connection.
    fn stop(self, ensemble: &Ensemble) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let ended = thread.join().expect("it does not panic");
            let logs: Vec<String> = (0..SERVERS).map(|at| ensemble.log_end(at)).collect();
            assert_eq!(ended, Ok(()), "a connection is lost: {}", logs.join("\n--\n"));
        }
        let (answers, slowest) = (&self.answers, &self.slowest);
        let (answers, slowest) = (answers.load(Ordering::Relaxed), slowest.load(Ordering::Relaxed));
        eprintln!("{answers} answers, the slowest after {slowest} ms");
        answers
    }
}

/// Nobody was elected but the first leader, and no session expired.
fn is_calm(ensemble: &Ensemble) {
    let logs: String = (0..SERVERS).map(|at| ensemble.log(at)).collect();
    assert_eq!(logs.matches("this server leads").count(), 1, "{logs}");
    assert!(!logs.contains("a session expired"), "{logs}");
    assert!(!logs.contains("is let go"), "{logs}");
}

/// The values are so long that the stores compact all the while.
#[test]
fn neither_a_leader_nor_a_session_is_lost_while_every_write_is_slow() {
    let mut ensemble = ensemble(50);
    ensemble.wait().expect("all serve");
    let mut clients = Clients::new();
    for client in 0..12 {
        let server = ensemble.clients[client % SERVERS];
        clients.write(server, format!("/slow{client}"), "x".repeat(500_000));
    }
    (0..2 * SERVERS).for_each(|client| clients.idle(ensemble.clients[client % SERVERS]));
    std::thread::sleep(duration());
    let answers = clients.stop(&ensemble);
    assert!(answers > 0);
    is_calm(&ensemble);
}

/// The leader does not wait for one server that is slow; that one falls behind, and keeps its clients.
#[test]
fn a_server_that_falls_behind_keeps_its_clients() {
    let mut ensemble = ensemble(0);
    let leader = ensemble.wait().expect("all serve");
    let slow = (leader + 1) % SERVERS;
    ensemble.terminate(slow).expect("it stops");
    start(&mut ensemble, slow, 200);
    ensemble.wait().expect("all serve");
    let mut clients = Clients::new();
    for client in 0..4 {
        clients.write(ensemble.clients[leader], format!("/fast{client}"), "x".to_owned());
    }
    (0..4).for_each(|_| clients.idle(ensemble.clients[slow]));
    std::thread::sleep(duration());
    let answers = clients.stop(&ensemble);
    assert!(answers > 1000, "{answers}");
    is_calm(&ensemble);
}
