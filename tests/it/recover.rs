//! `vivarium recover --force-single`: a survivor goes on alone, and the others come back empty.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::connect::PASSWORD_BYTES;

use crate::client::{Client, create};
use crate::ensemble::{Ensemble, PATIENCE, SERVERS, done, read, set};
use crate::process::binary;

/// Answers `said` to the question, if there is one.
fn recover(args: &[&str], said: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(["recover", "--force-single"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    // It may have ended without a question.
    let _ = child.stdin.take().expect("it is piped").write_all(said.as_bytes());
    child.wait_with_output().expect("it is our child")
}

fn refusal(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "it did not fail");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn the_last_one_goes_on_and_the_others_come_back_empty() {
    let mut ensemble = Ensemble::start();
    let leader = ensemble.leader();
    let (last, other) = ((leader + 1) % SERVERS, (leader + 2) % SERVERS);
    let none = Bytes::from_static(&[0; PASSWORD_BYTES]);
    let (mut client, session) =
        Client::attach(ensemble.clients[last], 40_000, 0, none).expect("it takes clients");
    for at in 0..300 {
        done(&mut client, &create(&format!("/n{at}"), b"x"));
    }
    let seen = client.ask(&set("/n0", "seen")).expect("an answer").0.zxid;
    let arguments = ensemble.arguments(last);
    let data = ensemble.data(last).display().to_string();
    let args = [arguments[0].as_str(), &arguments[1], "--data-dir", &data];
    let why = refusal(recover(&[&args[..], &["--yes"]].concat(), ""));
    assert!(why.contains("in use"), "{why}");
    (0..SERVERS).for_each(|at| ensemble.kill(at));
    // One is gone, one is kept for a while.
    std::fs::remove_dir_all(ensemble.data(leader)).expect("it is there");

    let why = refusal(recover(&["--yes", "--data-dir", &data], ""));
    assert!(why.contains("which of the servers"), "{why}");
    let wrong = ensemble.arguments(leader);
    let wrong = [wrong[0].as_str(), &wrong[1], "--data-dir", "/nowhere", "--yes"];
    assert!(refusal(recover(&wrong, "")).contains("not the data directory"));
    let output = recover(&args, "no\n");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("LOST") && told.contains("Type yes"), "{told}");
    assert!(refusal(output).contains("nothing was changed"));
    let output = recover(&args, "yes\n");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    assert!(refusal(recover(&args, "yes\n")).contains("decides alone already"));

    ensemble.start_one(last);
    assert_eq!(ensemble.leader(), last);
    let password = Bytes::copy_from_slice(&session.password);
    let attached = Client::attach_after(
        ensemble.clients[last],
        40_000,
        session.session_id,
        password,
        seen + 9,
    );
    let (mut client, attached) = attached.expect("it is not behind what its clients have seen");
    assert_eq!(attached.session_id, session.session_id, "sessions live on");
    for at in 1..300 {
        assert_eq!(read(&mut client, &format!("/n{at}")), "x");
    }
    assert_eq!(read(&mut client, "/n0"), "seen");
    done(&mut client, &set("/n0", "alone"));

    // With its data of the old ensemble, nobody comes back.
    ensemble.start_one(other);
    let deadline = Instant::now() + PATIENCE;
    while !ensemble.log(other).contains("it refuses this server: expected data of the ensemble") {
        assert!(Instant::now() < deadline, "{}", ensemble.log(other));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_ne!(ensemble.said(other, "Mode:").as_deref(), Some("follower"));
    done(&mut client, &set("/n0", "undisturbed"));
    ensemble.kill(other);
    std::fs::remove_dir_all(ensemble.data(other)).expect("it is there");
    for at in [other, leader] {
        ensemble.start_one(at);
        assert_eq!(read(&mut ensemble.connect(at), "/n0"), "undisturbed");
        assert_eq!(read(&mut ensemble.connect(at), "/n299"), "x");
    }
    // They vote: the one that was alone is not needed any more.
    let deadline = Instant::now() + PATIENCE;
    while !ensemble.log(last).contains("Voter(") || !voters_are_three(&ensemble, last) {
        assert!(Instant::now() < deadline, "{}", ensemble.log(last));
        std::thread::sleep(Duration::from_millis(100));
    }
    ensemble.kill(last);
    ensemble.leader();
    done(&mut ensemble.connect(other), &set("/n0", "without it"));
    ensemble.start_one(last);
    assert_eq!(read(&mut ensemble.connect(last), "/n0"), "without it");
}

fn voters_are_three(ensemble: &Ensemble, at: usize) -> bool {
    ensemble.log(at).matches("step=Voter(").count() == SERVERS - 1
}

#[test]
fn killed_in_the_middle_it_is_the_old_data_or_the_new() {
    let mut ensemble = Ensemble::start();
    ensemble.leader();
    let mut client = ensemble.connect(0);
    for at in 0..400 {
        done(&mut client, &create(&format!("/n{at}"), &[1; 3000]));
    }
    (0..SERVERS).for_each(|at| ensemble.kill(at));
    let (arguments, data) = (ensemble.arguments(0), ensemble.data(0).display().to_string());
    for wait_ms in [0, 3, 6, 10, 15, 20, 30, 40, 60, 80] {
        let mut command = Command::new(binary());
        command.args(["recover", "--force-single", "--yes", "--data-dir", &data]).args(&arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it can be started");
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
    let args = [arguments[0].as_str(), &arguments[1], "--yes", "--data-dir", &data];
    let output = recover(&args, "");
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || why.contains("decides alone already"), "{why}");
    ensemble.start_one(0);
    ensemble.leader();
    let mut client = ensemble.connect(0);
    for at in 0..400 {
        assert_eq!(read(&mut client, &format!("/n{at}")).len(), 3000);
    }
}
