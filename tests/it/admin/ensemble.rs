//! The admin API of three servers.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::real::ensemble::{Ensemble, Program};

use super::commands::compare_leader;
use super::{Api, metric};
use crate::http::{self, Answer, get};
use crate::operator::wait_for;
use crate::process::{binary, free_address};

struct Three {
    ensemble: Ensemble,
    admin: Vec<SocketAddr>,
}

impl Three {
    fn start() -> Self {
        let mut ensemble = Ensemble::lay_out(Program::Vivarium(binary()), 3, false).expect("files");
        let admin: Vec<_> = (0..3).map(|_| free_address()).collect();
        for (at, admin) in admin.iter().enumerate() {
            let section = format!("\n[admin]\nlisten = \"{admin}\"\n");
            ensemble.configure(at, &section).expect("it can be written");
            ensemble.start(at).expect("it starts");
        }
        ensemble.wait().expect("they serve");
        let three = Self { ensemble, admin };
        for at in 0..3 {
            wait_for("it is ready", || get(three.admin[at], "/readyz").status == 200);
        }
        three
    }

    fn operate(&self, at: usize, method: &str, path: &str, body: &Value) -> Answer {
        let token = self.ensemble.home(at).join("data/operator.token");
        Api { admin: self.admin[at], token }.operate(method, path, body)
    }

    fn status(&self, at: usize) -> Value {
        get(self.admin[at], "/v1/status").json()
    }
}

#[test]
fn servers_leave_and_come_and_say_how_they_stand() {
    let mut three = Three::start();
    let leader = three.ensemble.leader().expect("one leads");
    let known = |at: usize| three.status(at)["leader"] == leader + 1;
    wait_for("all know who leads", || (0..3).all(known));
    let statuses: Vec<_> = (0..3).map(|at| three.status(at)).collect();
    for (at, status) in statuses.iter().enumerate() {
        assert_eq!(status["part"], if at == leader { "leader" } else { "follower" }, "{status}");
        assert_eq!((&status["leader"], &status["server-id"]), (&json!(leader + 1), &json!(at + 1)));
        assert_eq!(status["cluster-id"], statuses[0]["cluster-id"]);
        let servers = status["servers"].as_array().expect("servers");
        assert!(servers.iter().all(|server| server["linked"] == true && server["part"] == "votes"));
        // The leader alone knows how far the others are.
        let known = servers.iter().filter(|server| server["lag"].is_u64()).count();
        assert_eq!(known, if at == leader { 3 } else { 1 }, "{status}");
    }
    wait_for("nobody lags behind", || {
        let status = three.status(leader);
        status["servers"].as_array().is_some_and(|all| all.iter().all(|server| server["lag"] == 0))
    });
    let command = |name: &str| get(three.admin[leader], &format!("/commands/{name}")).json();
    for name in ["leader", "voting_view", "observers"] {
        compare_leader(name, &command(name));
    }
    assert_eq!(command("leader")["is_leader"], true);
    let monitor = command("monitor");
    assert_eq!((&monitor["quorum_size"], &monitor["synced_followers"]), (&json!(3), &json!(2)));

    // A setting that one was told holds on all.
    let follower = (leader + 1) % 3;
    let changed = three.operate(follower, "PATCH", "/v1/settings", &json!({"ttl-nodes": "false"}));
    assert_eq!(changed.status, 200, "{changed:?}");
    wait_for("it holds on the leader", || {
        get(three.admin[leader], "/v1/settings").json()["ttl-nodes"] == "false"
    });

    // One votes no more, votes again, and leaves.
    let third = (leader + 2) % 3;
    let member = format!("/v1/members/{}", third + 1);
    let settled = || get(three.admin[leader], "/v1/members").json()["settled"] == true;
    for (what, votes) in [("demote", 2), ("promote", 3)] {
        let answer = three.operate(follower, "POST", &format!("{member}/{what}"), &Value::Null);
        assert_eq!(answer.status, 200, "{answer:?}");
        // The leader may apply it after the server that was asked.
        wait_for(&format!("{what}: they are what they are to be"), || {
            let text = get(three.admin[leader], "/metrics").body;
            metric(&text, "vivarium_voters") == Some(f64::from(votes)) && settled()
        });
        if what == "demote" {
            let observers = command("observers");
            assert_eq!(observers["synced_observers"], 1, "{observers}");
            compare_leader("observers", &observers);
        }
    }
    let spec = three.status(leader)["servers"][third]["spec"].clone();
    let answer = three.operate(follower, "DELETE", &member, &Value::Null);
    assert_eq!(answer.json()["servers"].as_array().map(Vec::len), Some(2), "{answer:?}");
    wait_for("it serves nobody", || {
        let ready = get(three.admin[third], "/readyz");
        ready.status == 503 && ready.body.contains("it was removed from the ensemble")
    });
    assert_eq!(get(three.admin[third], "/livez").status, 200);
    wait_for("it is counted no more", settled);

    // It comes back with nothing.
    three.ensemble.kill(third).expect("it runs");
    std::fs::remove_dir_all(three.ensemble.home(third).join("data")).expect("it is there");
    three.ensemble.start(third).expect("it starts");
    let (peer, client) = (three.ensemble.peers[third], three.ensemble.clients[third]);
    assert!(spec.as_str().is_some_and(|spec| spec.contains(&peer.to_string())), "{spec}");
    let new = json!({"id": third + 1, "peer": [peer.to_string()], "client": client.to_string()});
    wait_for("the change finds a majority", || {
        three.operate(follower, "POST", "/v1/members", &new).status == 200
    });
    wait_for("it serves again", || {
        let ready = http::ask(three.admin[third], "GET", "/readyz", &[], "");
        ready.is_ok_and(|answer| answer.status == 200)
    });

    // Without a majority nobody is served, and a change is given up.
    for at in [follower, third] {
        three.ensemble.kill(at).expect("it runs");
    }
    wait_for("no leader is known", || {
        let ready = get(three.admin[leader], "/readyz");
        ready.status == 503 && ready.body.contains("no leader is known")
    });
    let text = get(three.admin[leader], "/metrics").body;
    assert_eq!(metric(&text, "vivarium_ready"), Some(0.0));
    assert_eq!(metric(&text, "vivarium_leader_known"), Some(0.0));
    let lost = format!("vivarium_peer_linked{{server=\"{}\"}}", third + 1);
    assert_eq!(metric(&text, &lost), Some(0.0), "{text}");
    let given_up = three.operate(leader, "PATCH", "/v1/settings", &json!({"ttl-nodes": "true"}));
    assert_eq!(given_up.status, 504, "{given_up:?}");
    assert!(given_up.error().contains("may be made yet"), "{given_up:?}");
}
