//! Three real servers: any one may die.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::connect::PASSWORD_BYTES;
use proto::{OpCode, Reply, Request};

use crate::client::{Client, create};
use crate::process::{Server, free_address, refused};

pub(crate) const SERVERS: usize = 3;
/// Until everything is as it should be, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Ensemble {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clients: Vec<SocketAddr>,
    pub(crate) servers: Vec<Option<Server>>,
}

pub(crate) fn set(path: &str, data: &str) -> Request {
    let (path, data) = (path.to_owned(), Some(data.as_bytes().to_vec().into()));
    Request::SetData { path, data, version: -1 }
}

pub(crate) fn get(path: &str) -> Request {
    Request::GetData { path: path.to_owned(), watch: false }
}

impl Ensemble {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with more lines in front of each configuration.
    pub(crate) fn start_with(lines: &str) -> Self {
        let mut ensemble = Self::lay_out(lines);
        (0..SERVERS).for_each(|at| ensemble.start_one(at));
        ensemble
    }

    /// The configurations of an ensemble of which nothing runs yet.
    pub(crate) fn lay_out(lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let addresses: Vec<SocketAddr> = (0..2 * SERVERS).map(|_| free_address()).collect();
        let (clients, peers) = addresses.split_at(SERVERS);
        for at in 0..SERVERS {
            let mut text = format!("{lines}server-id = {}\n", at + 1);
            for (id, peer) in (1..).zip(peers) {
                text += &format!("[[ensemble.servers]]\nid = {id}\npeer = [\"{peer}\"]\n");
            }
            std::fs::write(config(dir.path(), at), text).expect("it can be written");
        }
        let servers = (0..SERVERS).map(|_| None).collect();
        Self { dir, clients: clients.to_vec(), servers }
    }

    pub(crate) fn data(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("data{at}"))
    }

    pub(crate) fn arguments(&self, at: usize) -> [String; 2] {
        ["--config".to_owned(), config(self.dir.path(), at).display().to_string()]
    }

    /// Starts a server; it listens for clients before the ensemble is there.
    pub(crate) fn start_one(&mut self, at: usize) {
        let more = self.arguments(at);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let log = std::fs::File::create(self.dir.path().join(format!("log{at}")));
        let server =
            Server::start_at(&self.data(at), self.clients[at], &more, log.expect("a file"));
        self.servers[at] = Some(server);
    }

    pub(crate) fn kill(&mut self, at: usize) {
        self.servers[at].take().expect("it runs").kill();
    }

    pub(crate) fn said(&self, at: usize, what: &str) -> Option<String> {
        let answer = self.servers[at].as_ref()?.word("srvr");
        let line = answer.lines().find_map(|line| line.strip_prefix(what));
        line.map(|said| said.trim().to_owned())
    }

    /// Waits for a leader, and gives it.
    pub(crate) fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leads = |at: &usize| self.said(*at, "Mode:").as_deref() == Some("leader");
            if let Some(at) = (0..SERVERS).find(leads) {
                return at;
            }
            assert!(Instant::now() < deadline, "no server leads");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn connect(&self, at: usize) -> Client {
        Client::connect(self.clients[at]).expect("it takes clients")
    }

    /// What a server has logged since it was started last.
    pub(crate) fn log(&self, at: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("log{at}"))).expect("it was started")
    }
}

fn config(dir: &Path, at: usize) -> PathBuf {
    dir.join(format!("server{at}.toml"))
}

pub(crate) fn done(client: &mut Client, request: &Request) -> Option<Reply> {
    let (header, reply) = client.ask(request).expect("the connection stays");
    assert_eq!(header.err, 0, "{request:?}");
    reply
}

/// What a client reads once its server has caught up.
pub(crate) fn read(client: &mut Client, path: &str) -> String {
    done(client, &Request::Sync { path: path.to_owned() });
    match done(client, &get(path)) {
        Some(Reply::Data(Some(data), _)) => String::from_utf8_lossy(&data).into_owned(),
        other => panic!("no data: {other:?}"),
    }
}

#[test]
fn any_server_may_die_and_clients_of_the_others_stay() {
    let mut ensemble = Ensemble::start();
    let mut leader = ensemble.leader();
    done(&mut ensemble.connect(leader), &create("/a", b"0"));
    for round in 1..=4 {
        let mut clients: Vec<(usize, Client)> =
            (0..SERVERS).filter(|at| *at != leader).map(|at| (at, ensemble.connect(at))).collect();
        let before = format!("{round} before");
        done(&mut clients[0].1, &set("/a", &before));
        assert_eq!(read(&mut clients[1].1, "/a"), before, "what one acknowledged, another shows");
        // With writes under way, whose answers come from the next leader.
        for (_, client) in &mut clients {
            for _ in 0..50 {
                client.send(&set("/a", "under way")).expect("it is open");
            }
        }
        let killed = leader;
        ensemble.kill(killed);
        for (_, client) in &mut clients {
            for _ in 0..50 {
                let (header, _) = client.receive(OpCode::SetData).expect("its server lives");
                assert_eq!(header.err, 0);
            }
        }
        let after = format!("{round} after");
        done(&mut clients[1].1, &set("/a", &after));
        assert_eq!(read(&mut clients[0].1, "/a"), after);
        leader = ensemble.leader();
        assert_ne!(leader, killed);
        // Back again, it catches up.
        ensemble.start_one(killed);
        assert_eq!(read(&mut ensemble.connect(killed), "/a"), after);
    }
    // 1 create, then for each round 2 sets that were waited for, and 100 that were under way.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let versions: Vec<i32> = (0..SERVERS)
            .map(|at| match done(&mut ensemble.connect(at), &get("/a")) {
                Some(Reply::Data(_, stat)) => stat.version,
                other => panic!("no data: {other:?}"),
            })
            .collect();
        if versions == [4 * 102; SERVERS] {
            break;
        }
        assert!(versions.iter().all(|v| *v <= 4 * 102), "applied more than once: {versions:?}");
        assert!(Instant::now() < deadline, "writes are missing: {versions:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn all_may_be_killed_and_what_was_acknowledged_is_there() {
    let mut ensemble = Ensemble::start();
    let leader = ensemble.leader();
    let mut client = ensemble.connect((leader + 1) % SERVERS);
    for at in 0..200 {
        done(&mut client, &create(&format!("/n{at}"), b"x"));
    }
    (0..SERVERS).for_each(|at| ensemble.kill(at));
    (0..SERVERS).for_each(|at| ensemble.start_one(at));
    ensemble.leader();
    for at in 0..SERVERS {
        let mut client = ensemble.connect(at);
        (0..200).for_each(|at| assert_eq!(read(&mut client, &format!("/n{at}")), "x"));
    }
}

#[test]
fn one_that_is_too_far_behind_gets_the_state() {
    let storage = "storage.log-segment-bytes = \"1MiB\"\nstorage.log-retain-bytes = \"1MiB\"\n";
    let mut ensemble = Ensemble::start_with(storage);
    let leader = ensemble.leader();
    let (away, other) = ((leader + 1) % SERVERS, (leader + 2) % SERVERS);
    done(&mut ensemble.connect(away), &create("/a", b"0"));
    ensemble.kill(away);
    let mut client = ensemble.connect(leader);
    let megabyte = "x".repeat(1 << 19);
    for at in 0..20 {
        done(&mut client, &create(&format!("/n{at}"), megabyte.as_bytes()));
        for child in 0..100 {
            done(&mut client, &create(&format!("/n{at}/{child}"), b"y"));
        }
    }
    // The logs no longer have what it needs, once the stores have it.
    let log_bytes = |at: usize| -> u64 {
        let files = std::fs::read_dir(ensemble.data(at).join("log")).expect("a directory");
        files.map(|file| file.and_then(|f| f.metadata()).map_or(0, |m| m.len())).sum()
    };
    let deadline = Instant::now() + PATIENCE;
    while log_bytes(leader) > 8 << 20 || log_bytes(other) > 8 << 20 {
        assert!(Instant::now() < deadline, "the logs stay: {}", log_bytes(leader));
        done(&mut client, &set("/a", "again"));
        std::thread::sleep(Duration::from_millis(50));
    }
    // Half of it was there before a crash: it begins again.
    ensemble.start_one(away);
    ensemble.kill(away);
    ensemble.start_one(away);
    let deadline = Instant::now() + PATIENCE;
    while ensemble.said(away, "Node count:") != ensemble.said(leader, "Node count:") {
        assert!(Instant::now() < deadline, "{:?}", ensemble.said(away, "Node count:"));
        done(&mut client, &set("/a", "again"));
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut client = ensemble.connect(away);
    for at in 0..20 {
        assert_eq!(read(&mut client, &format!("/n{at}")), megabyte);
        assert_eq!(read(&mut client, &format!("/n{at}/99")), "y");
    }
    // It is a server like the others: it can lead, and after another start it has all.
    ensemble.kill(leader);
    done(&mut client, &set("/a", "last"));
    ensemble.start_one(leader);
    assert_eq!(read(&mut ensemble.connect(leader), "/a"), "last");
    let states = || -> Vec<String> {
        let files = std::fs::read_dir(ensemble.data(away)).expect("a directory");
        let names = files.map(|f| f.expect("an entry").file_name().into_string().expect("UTF-8"));
        names.filter(|name| name.starts_with("state")).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    while states().len() > 1 {
        assert!(Instant::now() < deadline, "{:?}", states());
        std::thread::sleep(Duration::from_millis(100));
    }
    ensemble.kill(away);
    ensemble.start_one(away);
    assert_eq!(read(&mut ensemble.connect(away), "/a"), "last");
}

/// Writes without a pause until `stop`; gives the longest time between two answers.
fn write_on(mut client: Client, path: &str, stop: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        done(&mut client, &set(path, "x"));
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

#[test]
fn a_leader_that_stops_hands_over_first() {
    let mut ensemble = Ensemble::start();
    let mut gaps = Vec::new();
    for round in 0..4 {
        let leader = ensemble.leader();
        let paths: Vec<String> = (0..6).map(|at| format!("/{round}-{at}")).collect();
        let stop = AtomicBool::new(false);
        let stopped = ensemble.servers[leader].take().expect("it runs");
        let longest = std::thread::scope(|scope| {
            let writers: Vec<_> = paths
                .iter()
                .enumerate()
                .map(|(at, path)| {
                    let mut client = ensemble.connect((leader + 1 + at % 2) % SERVERS);
                    done(&mut client, &create(path, b""));
                    scope.spawn(|| write_on(client, path, &stop))
                })
                .collect();
            std::thread::sleep(Duration::from_millis(300));
            stopped.terminate();
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().expect("its server stays")).max()
        });
        gaps.extend(longest);
        let told = std::fs::read_to_string(ensemble.dir.path().join(format!("log{leader}")));
        let told = told.expect("it is there");
        let lines = ["hands leadership over", "another server leads", "stopped; sessions live on"];
        let at = lines.map(|line| told.rfind(line).unwrap_or_else(|| panic!("{line}: {told}")));
        assert!(at.is_sorted(), "it stopped before another one led: {told}");
        ensemble.start_one(leader);
        read(&mut ensemble.connect(leader), "/");
    }
    println!("longest gaps between two answers: {gaps:?}");
    // On an idle machine below 50 ms; an election takes half a second.
    assert!(gaps.iter().all(|gap| *gap < Duration::from_millis(400)), "{gaps:?}");
}

#[test]
fn a_server_that_is_cut_off_lets_its_clients_go_in_time() {
    let ensemble = Ensemble::start();
    let leader = ensemble.leader();
    let (here, third) = ((leader + 1) % SERVERS, (leader + 2) % SERVERS);
    let new = Bytes::from_static(&[0; PASSWORD_BYTES]);
    let (mut client, session) =
        Client::attach(ensemble.clients[here], 6_000, 0, new).expect("it takes clients");
    assert_eq!(session.timeout_ms, 6_000);
    done(&mut client, &create("/a", b"0"));
    let others = [leader, third].map(|at| ensemble.servers[at].as_ref().expect("it runs"));
    others.iter().for_each(|server| server.signal("STOP"));
    let began = Instant::now();
    done(&mut client, &get("/a"));
    assert!(client.frame().is_err(), "nobody says anything");
    let after = began.elapsed();
    // Two thirds of its timeout, on a busy machine a little more.
    assert!((3_500..8_000).contains(&after.as_millis()), "it was let go after {after:?}");
    others.iter().for_each(|server| server.signal("CONT"));
    let password = Bytes::copy_from_slice(&session.password);
    let attached = Client::attach(ensemble.clients[third], 6_000, session.session_id, password);
    let (mut client, attached) = attached.expect("it takes clients");
    assert_eq!(attached.session_id, session.session_id, "the session lives on");
    done(&mut client, &set("/a", "1"));
}

#[test]
fn linearizable_reads_show_what_any_server_acknowledged() {
    let mut ensemble = Ensemble::start_with("reads = \"linearizable\"\n");
    let leader = ensemble.leader();
    let mut clients: Vec<Client> = (0..SERVERS).map(|at| ensemble.connect(at)).collect();
    done(&mut clients[leader], &create("/a", b"0"));
    for round in 1..=100 {
        let data = round.to_string();
        done(&mut clients[round % SERVERS], &set("/a", &data));
        for client in &mut clients {
            match done(client, &get("/a")) {
                Some(Reply::Data(Some(read), _)) => assert_eq!(read, data.as_bytes()),
                other => panic!("no data: {other:?}"),
            }
        }
    }
    // A read that nobody can answer waits until there is a leader again.
    let (other, third) = ((leader + 1) % SERVERS, (leader + 2) % SERVERS);
    ensemble.kill(leader);
    ensemble.kill(other);
    clients[third].send(&get("/a")).expect("it is open");
    let timeout = Some(Duration::from_secs(2));
    clients[third].stream.set_read_timeout(timeout).expect("a timeout");
    assert!(
        clients[third].receive(OpCode::GetData).is_err(),
        "nobody knows whether it is the last"
    );
    ensemble.start_one(other);
    clients[third].stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (header, _) = clients[third].receive(OpCode::GetData).expect("it is answered");
    assert_eq!(header.err, 0);
}

#[test]
fn a_server_that_lost_its_data_takes_part_anew() {
    let mut ensemble = Ensemble::start();
    let mut leader = ensemble.leader();
    done(&mut ensemble.connect(leader), &create("/a", b"0"));
    // Each in its turn, the leader too, so that in the end nobody is left who founded it.
    for round in 1..=SERVERS {
        let lost = (leader + 1) % SERVERS;
        ensemble.kill(lost);
        std::fs::remove_dir_all(ensemble.data(lost)).expect("it was there");
        done(&mut ensemble.connect(leader), &set("/a", &format!("{round} without")));
        ensemble.start_one(lost);
        assert_eq!(read(&mut ensemble.connect(lost), "/a"), format!("{round} without"));
        // It votes again: the third is not needed.
        let third = (leader + 2) % SERVERS;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut client = ensemble.connect(leader);
            ensemble.kill(third);
            client.stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
            let wrote = client.ask(&set("/a", &format!("{round} with")));
            ensemble.start_one(third);
            if wrote.is_ok_and(|(header, _)| header.err == 0) {
                break;
            }
            assert!(Instant::now() < deadline, "it does not vote");
        }
        assert_eq!(read(&mut ensemble.connect(lost), "/a"), format!("{round} with"));
        // The next to be lost is the one that leads now.
        ensemble.leader();
        leader = lost;
    }
}

#[test]
fn one_without_data_does_not_take_the_place_of_one_that_is_there() {
    let ensemble = Ensemble::start();
    let leader = ensemble.leader();
    done(&mut ensemble.connect(leader), &create("/a", b"0"));
    let double = (leader + 1) % SERVERS;
    // The same configuration, on another directory, and where others can call it.
    let text = std::fs::read_to_string(config(ensemble.dir.path(), double)).expect("it is there");
    let other = ensemble.dir.path().join("double.toml");
    let text = format!("{text}[ensemble]\npeer-listen = \"{}\"\n", free_address());
    std::fs::write(&other, text).expect("it can be written");
    let log = std::fs::File::create(ensemble.dir.path().join("log-of-double")).expect("a file");
    let data = ensemble.dir.path().join("double");
    let _double = spawn(&data, other.to_str().expect("it is UTF-8"), log);
    let deadline = Instant::now() + PATIENCE;
    let expected = "every server needs an id of its own";
    loop {
        let told = std::fs::read_to_string(ensemble.dir.path().join(format!("log{leader}")));
        if told.expect("it is there").contains(expected) {
            break;
        }
        assert!(Instant::now() < deadline, "nobody complains");
        std::thread::sleep(Duration::from_millis(20));
    }
    done(&mut ensemble.connect(double), &set("/a", "1"));
    assert_eq!(read(&mut ensemble.connect(leader), "/a"), "1");
}

#[test]
fn an_ensemble_of_other_servers_is_not_joined() {
    let dir = tempfile::tempdir().expect("a directory");
    let [a, b, c]: [SocketAddr; 3] = std::array::from_fn(|_| free_address());
    let write = |name: &str, id: u32, peers: &[(u32, SocketAddr)]| {
        let mut text = format!("server-id = {id}\n");
        for (id, peer) in peers {
            text += &format!("[[ensemble.servers]]\nid = {id}\npeer = [\"{peer}\"]\n");
        }
        std::fs::write(dir.path().join(name), text).expect("it can be written");
        dir.path().join(name).display().to_string()
    };
    let one = write("one.toml", 1, &[(1, a), (2, b)]);
    let two = write("two.toml", 2, &[(1, a), (2, b), (3, c)]);
    let log = std::fs::File::create(dir.path().join("log")).expect("a file");
    let _one = spawn(&dir.path().join("one"), &one, log.try_clone().expect("a file"));
    let _two = spawn(&dir.path().join("two"), &two, log);
    let deadline = Instant::now() + PATIENCE;
    let expected = "expected an ensemble of the servers [1, 2], got one of [1, 2, 3]";
    loop {
        let told = std::fs::read_to_string(dir.path().join("log")).expect("it is there");
        if told.contains(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "nobody complains: {told}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_the_data_is_of_counts_and_not_the_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = Server::start(&data);
    assert_eq!(server.word("ruok"), "imok", "it serves");
    server.terminate();
    let mut text = "server-id = 2\n".to_owned();
    for id in 1..=3 {
        text += &format!("[[ensemble.servers]]\nid = {id}\npeer = [\"{}\"]\n", free_address());
    }
    let path = dir.path().join("three.toml");
    std::fs::write(&path, &text).expect("it can be written");
    let more = ["--config", path.to_str().expect("it is UTF-8")];
    let output = refused(&data, free_address(), &more);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = "is of an ensemble of the servers [1], and this is server 2 (`server-id`)";
    assert!(told.contains(expected), "{told}");
    // The server itself becomes the first of an ensemble; the others have to be added.
    std::fs::write(&path, text.replace("server-id = 2", "server-id = 1"))
        .expect("it can be written");
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).expect("a file");
    let server = Server::start_at(&data, free_address(), &more, file);
    let deadline = Instant::now() + PATIENCE;
    while !server.word("srvr").contains("Mode: leader") {
        assert!(Instant::now() < deadline, "it leads alone");
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = std::fs::read_to_string(&log).expect("it is there");
    assert!(told.contains("names servers that are not of the ensemble"), "{told}");
}

#[test]
fn data_of_another_ensemble_is_not_taken() {
    let (mut one, mut two) = (Ensemble::start(), Ensemble::start());
    for (at, ensemble) in [&one, &two].into_iter().enumerate() {
        let mut client = ensemble.connect(ensemble.leader());
        done(&mut client, &create("/a", format!("{at}").as_bytes()));
        assert_eq!(read(&mut ensemble.connect(2), "/a"), format!("{at}"));
    }
    // All down, so that each knows whose data it has; then one directory is put into the other's place.
    (0..SERVERS).for_each(|at| one.kill(at));
    two.servers[2].take().expect("it runs").terminate();
    std::fs::remove_dir_all(one.data(2)).expect("it was there");
    std::fs::rename(two.data(2), one.data(2)).expect("both are there");
    (0..SERVERS).for_each(|at| one.start_one(at));
    let leader = one.leader();
    assert_ne!(leader, 2, "nobody votes for the stranger");
    let told = || std::fs::read_to_string(one.dir.path().join("log2")).expect("it is there");
    let deadline = Instant::now() + PATIENCE;
    while !told().contains("expected data of the ensemble") {
        assert!(Instant::now() < deadline, "nobody complains: {}", told());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(read(&mut one.connect(leader), "/a"), "0");
}

/// A server that does not come up, killed when dropped.
fn spawn(data: &Path, config: &str, log: std::fs::File) -> Killed {
    let mut command = crate::process::serve(data, free_address(), &["--config", config]);
    Killed(command.stderr(log).spawn().expect("it starts"))
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
