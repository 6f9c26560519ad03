//! A session that was attached in time does not expire, however long the Machine takes to say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use replica::log::{Log, Options, SimDisk};
use replica::{Input, Machine, Node, NodeConfig, Now};
use state::{Command, MemoryStore, NoHooks, Settings, State};

const SESSION: i64 = 5;
const PASSWORD: [u8; 16] = [1; 16];
const TIMEOUT_MS: i32 = 1000;
const NOW: Now = Now { steady_ms: 0, wall_ms: 1 };

struct Server {
    node: Node<SimDisk>,
    machine: Machine,
}

impl Server {
    fn new() -> Self {
        let store = Box::new(MemoryStore::default());
        let state = State::open(store, Box::new(NoHooks), 1 << 20).expect("an empty store opens");
        let (index, term) = state::apply::BIRTH;
        let log = Log::create(SimDisk::new(), Options::default(), index, term).expect("it is new");
        let config = NodeConfig {
            server: 1,
            raft_id: 1,
            election_ticks: (10, 11),
            boot: 7,
            cluster_id: 1,
            settings: Settings::default(),
            servers: BTreeMap::new(),
            read_only_after_ms: None,
            log_keep_bytes: 1 << 30,
            knows: state::APPLY_VERSION,
        };
        let me = (config.server, config.boot);
        let node = Node::new(log, state.meta(), Vec::new(), config).expect("they match");
        Self { node, machine: Machine::new(state, me) }
    }

    fn step(&mut self, command: Command) {
        self.node.step(Input::Command { command, ticket: None });
    }

    /// Commits, applies and reports, until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let work = self.node.flush(NOW, &mut |_| {}).expect("the log works");
            if work.entries.is_empty() {
                return;
            }
            for report in self.machine.apply(work).expect("it applies") {
                self.node.step(Input::Report(report));
            }
        }
    }

    /// Ticks every 50 ms, the first at `from_ms` and the last at `to_ms`.
    fn tick(&mut self, from_ms: i64, to_ms: i64) {
        for now_ms in (from_ms..to_ms).step_by(50).chain([to_ms]) {
            self.node.tick(now_ms).expect("the log works");
        }
    }

    fn lives(&self) -> bool {
        let view = Arc::clone(&self.machine.state().view());
        view.sessions().expect("rows are sound").iter().any(|(session, _)| *session == SESSION)
    }
}

fn attached() -> Server {
    let mut server = Server::new();
    server.settle();
    let (session, password, timeout_ms) = (SESSION, PASSWORD, TIMEOUT_MS);
    server.step(Command::OpenSession { session, password, timeout_ms });
    server.settle();
    assert!(server.lives());
    server
}

#[test]
fn silence_ends_a_session() {
    let mut server = attached();
    server.tick(0, i64::from(TIMEOUT_MS));
    server.settle();
    assert!(server.lives(), "its timeout has not passed yet");
    server.node.tick(i64::from(TIMEOUT_MS) + 1).expect("the log works");
    server.settle();
    assert!(!server.lives(), "its timeout has passed");
}

#[test]
fn a_server_that_stood_still_gives_its_clients_the_time_to_be_heard() {
    let mut server = attached();
    server.tick(0, 500);
    let stood_ms = 10 * i64::from(TIMEOUT_MS);
    server.node.tick(500 + stood_ms).expect("the log works");
    server.settle();
    assert!(server.lives(), "nobody could hear its client");
    server.tick(500 + stood_ms, i64::from(TIMEOUT_MS) + stood_ms);
    server.settle();
    assert!(server.lives(), "what was left of its timeout has not passed yet");
    server.node.tick(i64::from(TIMEOUT_MS) + stood_ms + 1).expect("the log works");
    server.settle();
    assert!(!server.lives(), "it has");
}

#[test]
fn an_attach_that_waits_for_the_machine_keeps_its_session() {
    let mut server = attached();
    let (session, password, timeout_ms) = (SESSION, PASSWORD, TIMEOUT_MS);
    server.tick(0, 900);
    server.step(Command::AttachSession { session, password, timeout_ms });
    let slow = server.node.flush(NOW, &mut |_| {}).expect("the log works");
    assert_eq!(slow.entries.len(), 1, "the attach is committed");
    // The Machine has not come to it when the old connection has been silent for too long.
    server.tick(950, i64::from(TIMEOUT_MS) + 1);
    let expiry = server.node.flush(NOW, &mut |_| {}).expect("the log works");
    for work in [slow, expiry] {
        for report in server.machine.apply(work).expect("it applies") {
            server.node.step(Input::Report(report));
        }
    }
    server.settle();
    assert!(server.lives(), "it was attached before it was ended");

    server.tick(i64::from(TIMEOUT_MS) + 2, 2 * i64::from(TIMEOUT_MS) + 3);
    server.settle();
    assert!(!server.lives(), "the new connection was silent for too long as well");
}

#[test]
fn a_node_that_stood_still_gives_an_attached_session_its_full_timeout() {
    let mut server = Server::new();
    server.settle();
    server.node.tick(0).expect("the log works");
    // The Node does not tick for a long time, and the session is made at the end of it.
    let (session, password, timeout_ms) = (SESSION, PASSWORD, TIMEOUT_MS);
    server.step(Command::OpenSession { session, password, timeout_ms });
    server.settle();
    server.node.tick(10 * i64::from(TIMEOUT_MS)).expect("the log works");
    server.settle();
    assert!(server.lives());
}
