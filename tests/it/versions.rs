//! Servers of several versions of the program in one ensemble.

use proto::ErrorCode;
use tests::real::ensemble::{Ensemble, Program};

use crate::client::{Client, create};
use crate::ensemble::done;
use crate::operator::{operator, wait_for};
use crate::process::binary;

const SERVERS: usize = 3;

fn settings(ensemble: &Ensemble, at: usize, arguments: &[&str]) -> Result<String, String> {
    operator(ensemble, at, "settings", arguments)
}

/// Has a server be of a program that knows this apply version.
fn start(ensemble: &mut Ensemble, at: usize, version: u32) {
    ensemble.within(at, vec!["env".to_owned(), format!("APPLY_VERSION={version}")]);
    ensemble.start(at).expect("it starts");
}

/// Three servers, of programs that know these apply versions.
fn ensemble(versions: [u32; SERVERS]) -> Ensemble {
    let program = Program::Vivarium(binary().with_file_name("odd_server"));
    let mut ensemble = Ensemble::lay_out(program, SERVERS, false).expect("it can be written");
    for (at, version) in versions.into_iter().enumerate() {
        start(&mut ensemble, at, version);
    }
    ensemble.wait().expect("they serve");
    ensemble
}

#[test]
fn the_apply_version_is_raised_once_all_voters_know_it_and_never_lowered() {
    let mut ensemble = ensemble([3, 3, 2]);
    let raise = ["set", "apply-version=3", "ttl-nodes=false"];

    let why = settings(&ensemble, 0, &raise).expect_err("one does not know it");
    assert!(why.contains("apply-version stays 2: expected 2 to 2, which every voter"), "{why}");
    ensemble.kill(2).expect("it runs");
    wait_for("it is not missed", || {
        let why = settings(&ensemble, 0, &raise).expect_err("one is down");
        why.contains("it is not known of every voter what it supports")
    });
    let shown = settings(&ensemble, 0, &["show"]).expect("it is shown");
    assert!(shown.contains("apply-version = 2\n"), "{shown}");
    assert!(shown.contains("ttl-nodes = true\n"), "nothing beside it is changed: {shown}");

    start(&mut ensemble, 2, 3);
    wait_for("it is not raised", || settings(&ensemble, 0, &raise).is_ok());
    let why = settings(&ensemble, 0, &["set", "apply-version=2"]).expect_err("it goes back");
    assert!(why.contains("apply-version stays 3"), "{why}");
    wait_for("it holds everywhere", || {
        settings(&ensemble, 2, &["show"]).is_ok_and(|shown| shown.contains("apply-version = 3\n"))
    });

    // With all of that in its store, an older program does not even start.
    ensemble.terminate(2).expect("it ends");
    start(&mut ensemble, 2, 2);
    wait_for("it starts", || ensemble.ended(2).expect("it was started").is_some());
    let said = ensemble.log_end(2);
    assert!(said.contains("the ensemble's apply-version is of version 3"), "{said}");
    start(&mut ensemble, 2, 3);
    wait_for("it does not come back", || Client::connect(ensemble.clients[2]).is_ok());
}

#[test]
fn an_older_program_waits_where_it_is_not_asked() {
    let mut ensemble = ensemble([3, 3, 2]);
    // Who does not vote is not asked what it knows.
    operator(&ensemble, 0, "member", &["demote", "3"]).expect("it is done");
    let raise = ["set", "apply-version=3"];
    wait_for("it is not raised", || settings(&ensemble, 0, &raise).is_ok());
    wait_for("it does not wait", || {
        let said = ensemble.word(2, "srvr").unwrap_or_default();
        said.contains("the ensemble's apply-version is of version 3, this program knows up to 2")
    });
    assert!(Client::connect(ensemble.clients[2]).is_err(), "it serves clients");
    let mut client = Client::connect(ensemble.clients[0]).expect("it takes clients");
    done(&mut client, &create("/a", b"x"));
    // Its log goes on, and a newer program with it.
    ensemble.kill(2).expect("it runs");
    start(&mut ensemble, 2, 3);
    wait_for("it does not catch up", || {
        Client::connect(ensemble.clients[2])
            .and_then(|mut client| client.ask(&create("/a", b"x")))
            .is_ok_and(|(header, _)| header.err == ErrorCode::NodeExists as i32)
    });
}
