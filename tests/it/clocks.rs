//! Servers whose clocks are hours apart, or in another century.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::{OpCode, Reply, Request};
use tests::real::ensemble::{Ensemble, Program};

use crate::client::{Client, create};
use crate::process::binary;

const SERVERS: usize = 3;
/// One is right, one is late, and one is far ahead.
const CLOCKS: [&str; SERVERS] = ["+0", "-5h", "@2099-01-01 00:00:00"];
/// How far the time may be off after restarts, on a busy machine.
const MINUTE_MS: i64 = 60_000;

fn library() -> Option<PathBuf> {
    let dirs = std::fs::read_dir("/usr/lib").ok()?;
    let mut paths = dirs.flatten().map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.exists())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_millis()).expect("it fits")
}

/// A leader in 2099 does not take the others with it: a session lives, a znode with a time to live goes
/// in its time, and times never go back, whoever leads.
#[test]
fn time_is_that_of_the_majority_and_never_goes_back() {
    let Some(library) = library() else {
        assert!(std::env::var_os("CI").is_none(), "tests/setup/faketime was not run");
        eprintln!("skipped: tests/setup/faketime installs what this test needs");
        return;
    };
    let mut ensemble =
        Ensemble::lay_out(Program::Vivarium(binary()), SERVERS, false).expect("it can be written");
    for (at, clock) in CLOCKS.iter().enumerate() {
        let words = [
            "env".to_owned(),
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME={clock}"),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        ensemble.within(at, words.to_vec());
        ensemble.configure(at, "[nodes]\ncontainer-check-interval-ms = 100\n").expect("a file");
        ensemble.start(at).expect("it starts");
    }
    let mut leader = ensemble.wait().expect("all serve");
    let (mut last_ms, mut round) = (0, 0);
    for next in 0..SERVERS {
        while leader != next {
            leader = hand_over(&mut ensemble, leader, next);
            round += 1;
            assert!(round < 20, "server {next} does not come to lead");
        }
        let path = format!("/n{next}");
        let mut client = Client::connect(ensemble.clients[leader]).expect("it takes clients");
        assert_eq!(client.ask(&create(&path, b"")).expect("an answer").0.err, 0);
        let exists = Request::Exists { path, watch: false };
        let Some(Reply::Stat(stat)) = client.ask(&exists).expect("an answer").1 else {
            panic!("no stat")
        };
        assert!(stat.ctime >= last_ms, "server {leader}: {} after {last_ms}", stat.ctime);
        let off_ms = (stat.ctime - now_ms()).abs();
        assert!(off_ms < MINUTE_MS, "server {leader}: it is not {}", stat.ctime);
        last_ms = stat.ctime;
        reaped_in_time(&mut client, next);
    }
    let logs: String = (0..SERVERS).map(|at| ensemble.log(at)).collect();
    let told = |server| {
        let server = format!("server={server} ");
        logs.lines()
            .any(|line| line.contains("the clock of a server is far off") && line.contains(&server))
    };
    assert_eq!([1, 2, 3].map(told), [false, true, true], "{logs}");
}

/// Has the leader stop while only the next one can take over; all run again then. Who leads now.
fn hand_over(ensemble: &mut Ensemble, leader: usize, next: usize) -> usize {
    let third = SERVERS - leader - next;
    ensemble.terminate(third).expect("it stops");
    ensemble.terminate(leader).expect("it stops");
    ensemble.start(third).expect("it starts");
    ensemble.start(leader).expect("it starts");
    ensemble.wait().expect("all serve")
}

/// A znode with a time to live goes, not too early.
fn reaped_in_time(client: &mut Client, round: usize) {
    let path = format!("/ttl{round}");
    let ttl = Request::Create(proto::request::Create {
        op: OpCode::CreateTtl,
        path: path.clone(),
        data: None,
        acl: vec![proto::Acl::world(31)],
        flags: 5,
        ttl_ms: 1000,
    });
    assert_eq!(client.ask(&ttl).expect("an answer").0.err, 0);
    let began = Instant::now();
    let exists = Request::Exists { path, watch: false };
    while client.ask(&exists).expect("the session lives").0.err == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "round {round}: it stays");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() > Duration::from_millis(900), "it went too early");
}
