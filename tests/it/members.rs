//! Servers join an ensemble and leave it, while clients write.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proto::{Reply, Request};
use tests::real::ensemble::{Ensemble, Program};

use crate::client::{Client, create};
use crate::operator::{operator, wait_for};
use crate::process::binary;

/// Five servers, of which the first has a configuration of an ensemble of one.
fn lay_out() -> Ensemble {
    let ensemble = Ensemble::lay_out(Program::Vivarium(binary()), 5, false).expect("files");
    let config = ensemble.config(0);
    let text = std::fs::read_to_string(&config).expect("it was written");
    let second = text.match_indices("[[ensemble.servers]]").nth(1).expect("there are five").0;
    std::fs::write(config, &text[..second]).expect("it can be written");
    ensemble
}

fn member(ensemble: &Ensemble, at: usize, arguments: &[&str]) -> Result<String, String> {
    operator(ensemble, at, "member", arguments)
}

/// Adds the server `at`, with what is known of its addresses.
fn add(ensemble: &Ensemble, at: usize, more: &[&str]) -> Result<String, String> {
    let (id, peer) = ((at + 1).to_string(), ensemble.peers[at].to_string());
    let client = ensemble.clients[at].to_string();
    let known = ["add", &id, "--peer", &peer, "--client", &client];
    member(ensemble, 0, &[&known[..], more].concat())
}

/// Writes until it is told to stop; no write fails. How many there were.
fn write(address: SocketAddr, name: &str, stop: &AtomicBool, done: &AtomicU64) {
    let mut client = Client::connect(address).expect("it takes clients");
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let made = client.ask(&create(&format!("/{name}-{at:06}"), b"x")).expect("it stays").0;
        assert_eq!(made.err, 0, "{name}-{at}");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

fn config(address: SocketAddr) -> String {
    let mut client = Client::connect(address).expect("it takes clients");
    let path = "/zookeeper/config".to_owned();
    let asked = client.ask(&Request::GetData { path, watch: false }).expect("it stays");
    let (_, Some(Reply::Data(Some(data), _))) = asked else { panic!("{asked:?}") };
    String::from_utf8(data.to_vec()).expect("it is text")
}

/// How many znodes the writers have made, as one server sees it.
fn found(address: SocketAddr) -> u64 {
    let mut client = Client::connect(address).expect("it takes clients");
    let sync = client.ask(&Request::Sync { path: "/".to_owned() }).expect("it stays");
    assert_eq!(sync.0.err, 0);
    let asked = client.ask(&Request::GetChildren { path: "/".to_owned(), watch: false });
    let (_, Some(Reply::Children(names))) = asked.expect("it stays") else { panic!("no list") };
    names.len() as u64 - 1
}

#[test]
fn one_becomes_three_becomes_five_becomes_three_and_no_write_fails() {
    let mut ensemble = lay_out();
    ensemble.start(0).expect("it starts");
    wait_for("one server leads itself", || ensemble.mode(0).as_deref() == Some("leader"));
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = ensemble.clients[0];
    std::thread::scope(|scope| {
        // Whatever fails below, the writers end.
        let _end = OnDrop(|| stop.store(true, Ordering::Relaxed));
        for writer in 0..4 {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || write(address, &format!("w{writer}"), stop, done));
        }
        let refused = add(&ensemble, 1, &["--wait", "0"]).expect_err("it does not run");
        assert!(refused.contains("no majority can be reached"), "{refused}");
        for at in 1..5 {
            ensemble.start(at).expect("it starts");
            let waits = "not of its ensemble: waiting to be added";
            wait_for("it waits to be added", || ensemble.log(at).contains(waits));
            let told = add(&ensemble, at, &[]).expect("it is added");
            assert!(told.contains(&format!("server.{}=", at + 1)), "{told}");
            assert_eq!(told.matches("  votes\n").count(), at + 1, "{told}");
            wait_for("it serves", || ensemble.mode(at).as_deref() == Some("follower"));
        }
        let before = done.load(Ordering::Relaxed);
        let told = member(&ensemble, 2, &["remove", "4", "5"]).expect("they go");
        assert_eq!(told.matches("  votes\n").count(), 3, "{told}");
        for at in [3, 4] {
            wait_for("it is removed", || ensemble.mode(at).as_deref() == Some("removed"));
            assert!(Client::connect(ensemble.clients[at]).is_err(), "it serves nobody");
            ensemble.terminate(at).expect("it stops");
        }
        wait_for("writes go on", || done.load(Ordering::Relaxed) > before + 20);
        stop.store(true, Ordering::Relaxed);
    });
    let config = config(ensemble.clients[2]);
    assert_eq!(config.lines().filter(|line| line.starts_with("server.")).count(), 3, "{config}");
    let done = done.load(Ordering::Relaxed);
    (0..3).for_each(|at| assert_eq!(found(ensemble.clients[at]), done, "server {at}"));

    // One that was removed does not come back with its data, and does without.
    ensemble.start(3).expect("it starts");
    let ended = || ensemble.ended(3).expect("the system says").is_some();
    wait_for("it says why, and ends", ended);
    assert!(ensemble.log(3).contains("was removed from the"), "{}", ensemble.log_end(3));
    std::fs::remove_dir_all(ensemble.home(3).join("data")).expect("it can be emptied");
    ensemble.start(3).expect("it starts");
    wait_for("it can be added", || add(&ensemble, 3, &["--observer"]).is_ok());
    wait_for("it observes", || ensemble.mode(3).as_deref() == Some("observer"));
    assert_eq!(found(ensemble.clients[3]), done);
    let told = member(&ensemble, 0, &["promote", "4"]).expect("it votes");
    assert_eq!(told.matches("  votes\n").count(), 4, "{told}");
    // After a restart the data says who takes part, and not the configuration of the start.
    ensemble.terminate(0).expect("it stops");
    ensemble.start(0).expect("it starts");
    wait_for("it is one of four", || ensemble.mode(0).as_deref() == Some("follower"));
}

#[test]
fn the_leader_can_be_removed_and_clients_of_the_others_stay() {
    let mut ensemble =
        Ensemble::lay_out(Program::Vivarium(binary()), 3, false).expect("it can be written");
    (0..3).for_each(|at| ensemble.start(at).expect("it starts"));
    let leader = ensemble.wait().expect("all serve");
    let other = (leader + 1) % 3;
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = ensemble.clients[other];
    std::thread::scope(|scope| {
        let _end = OnDrop(|| stop.store(true, Ordering::Relaxed));
        scope.spawn(|| write(address, "w", &stop, &done));
        wait_for("writes have begun", || done.load(Ordering::Relaxed) > 20);
        let told = member(&ensemble, other, &["remove", &(leader + 1).to_string()]);
        assert_eq!(told.as_ref().map(|told| told.matches("  votes\n").count()), Ok(2), "{told:?}");
        wait_for("it is removed", || ensemble.mode(leader).as_deref() == Some("removed"));
        ensemble.kill(leader).expect("it runs");
        let before = done.load(Ordering::Relaxed);
        wait_for("writes go on", || done.load(Ordering::Relaxed) > before + 20);
        stop.store(true, Ordering::Relaxed);
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
