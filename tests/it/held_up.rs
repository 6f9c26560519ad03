//! Servers that cannot run a plugin, though they should: they wait, say so, and do not vote anew; and where no
//! server can, an entry is applied without it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::real::ensemble::{Ensemble, Program};

use crate::admin::{Api, metric};
use crate::client::{Client, create};
use crate::ensemble::{done, read};
use crate::guest;
use crate::operator::{operator, wait_for};
use crate::process::{binary, free_address};

const SERVERS: usize = 3;
const NAME: &str = "held";

/// Three servers with a plugin, any of which can be made to have not compiled it.
struct Trouble {
    ensemble: Ensemble,
    admin: Vec<SocketAddr>,
}

impl Trouble {
    fn start() -> Self {
        let program = Program::Vivarium(binary().with_file_name("odd_server"));
        let ensemble = Ensemble::lay_out(program, SERVERS, false).expect("files");
        let admin: Vec<_> = (0..SERVERS).map(|_| free_address()).collect();
        let mut all = Self { ensemble, admin };
        for at in 0..SERVERS {
            let section = format!("\n[admin]\nlisten = \"{}\"\n", all.admin[at]);
            all.ensemble.configure(at, &section).expect("it can be written");
            let variable = format!("NOT_COMPILED={}", all.file(at).display());
            all.ensemble.within(at, vec!["env".to_owned(), variable]);
            all.ensemble.start(at).expect("it starts");
        }
        all.ensemble.wait().expect("they serve");
        (0..SERVERS).for_each(|at| all.wait_ready(at));
        let allows = guest::guard("", "(call $allow)");
        let binding = json!({"name": NAME, "mode": "enforce", "match": ["/held/**"]});
        all.api(0).install(&binding, &allows);
        done(&mut all.client(0), &create("/held", b""));
        // None of them has anything to apply still that calls it.
        (0..SERVERS).for_each(|at| drop(read(&mut all.client(at), "/held")));
        all
    }

    fn api(&self, at: usize) -> Api {
        let token = self.ensemble.home(at).join("data/operator.token");
        Api { admin: self.admin[at], token }
    }

    /// A client of a server, which may still let clients go that it has not caught up for.
    fn client(&self, at: usize) -> Client {
        let mut client = None;
        wait_for("it takes clients", || {
            client = Client::connect(self.ensemble.clients[at]).ok();
            client.is_some()
        });
        client.expect("it is connected")
    }

    /// As long as it is there, the plugin is not compiled on that server.
    fn file(&self, at: usize) -> PathBuf {
        self.ensemble.home(at).join("not-compiled")
    }

    fn cool(&self, at: usize) {
        std::fs::write(self.file(at), NAME).expect("it can be written");
    }

    fn warm(&self, at: usize) {
        std::fs::remove_file(self.file(at)).expect("it is there");
    }

    fn is_ready(&self, at: usize) -> bool {
        let ask = crate::http::ask(self.admin[at], "GET", "/readyz", &[], "");
        ask.is_ok_and(|answer| answer.status == 200)
    }

    fn wait_ready(&self, at: usize) {
        wait_for("it is ready", || self.is_ready(at));
    }

    /// Waits until a server is held up; the entry at which.
    fn held_at(&self, at: usize) -> u64 {
        let mut found = None;
        wait_for("it is held up", || {
            let Ok(answer) = crate::http::ask(self.admin[at], "GET", "/readyz", &[], "") else {
                return false;
            };
            let reasons = answer.json()["reasons"].as_array().cloned().unwrap_or_default();
            found = reasons.iter().find_map(|reason| {
                let (index, why) = reason
                    .as_str()?
                    .strip_prefix("entry ")?
                    .split_once(" cannot be applied here")?;
                assert!(why.contains("\"held\", generation 1, is not compiled"), "{why}");
                assert_eq!(answer.status, 503);
                index.parse().ok()
            });
            found.is_some()
        });
        found.expect("it was found")
    }

    fn repair(&self, at: usize, index: u64) -> Output {
        let mut command = Command::new(binary());
        command.args(["repair", "--skip-binding", NAME, "--at", &index.to_string(), "--yes"]);
        command.arg("--config").arg(self.ensemble.config(at));
        command.arg("--data-dir").arg(self.ensemble.home(at).join("data"));
        command.output().expect("it can be started")
    }

    fn part(&self, server: usize) -> String {
        let members = self.api(0).get("/v1/members").json();
        members["servers"][server]["part"].as_str().expect("text").to_owned()
    }
}

fn why(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "it did not fail: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_server_that_cannot_run_a_plugin_waits_and_says_so_and_a_learner_does_not_vote() {
    let mut all = Trouble::start();
    all.ensemble.kill(2).expect("it runs");
    all.cool(2);
    done(&mut all.client(0), &create("/held/1", b""));
    all.ensemble.start(2).expect("it starts");
    let index = all.held_at(2);
    let metrics = all.api(2).get("/metrics").body;
    assert_eq!(metric(&metrics, "vivarium_held_up"), Some(1.0));
    assert_eq!(metric(&metrics, "vivarium_ready"), Some(0.0));
    // Others go on, and it stays where it is.
    done(&mut all.client(0), &create("/held/2", b""));
    assert_eq!(all.held_at(2), index);
    all.warm(2);
    all.wait_ready(2);
    wait_for("it has caught up", || {
        let exists = proto::Request::Exists { path: "/held/2".to_owned(), watch: false };
        all.client(2).ask(&exists).is_ok_and(|(header, _)| header.err == 0)
    });

    // As a learner it votes again only once it has compiled it.
    operator(&all.ensemble, 0, "member", &["demote", "3"]).expect("it is done");
    wait_for("it observes", || all.part(2) == "observes");
    all.ensemble.kill(2).expect("it runs");
    all.cool(2);
    all.ensemble.start(2).expect("it starts");
    wait_for("it is back", || all.ensemble.mode(2).is_some());
    let promoted = all.api(0).operate("POST", "/v1/members/3/promote", &serde_json::Value::Null);
    assert_eq!(promoted.status, 200, "{promoted:?}");
    // It is not the log that it lacks.
    let leader = all.ensemble.leader().expect("one leads");
    wait_for("it has the log", || {
        let status = all.api(leader).get("/v1/status").json();
        let servers = status["servers"].as_array().cloned().unwrap_or_default();
        servers.iter().any(|server| server["id"] == 3 && server["lag"] == 0)
    });
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        assert_eq!(all.part(2), "catches-up");
        std::thread::sleep(Duration::from_millis(50));
    }
    all.warm(2);
    wait_for("it votes", || all.part(2) == "votes");
}

#[test]
fn what_no_server_can_apply_is_applied_without_the_plugin() {
    let mut all = Trouble::start();
    (0..SERVERS).for_each(|at| all.cool(at));
    // Whatever is new of plugins has them look again at what is compiled.
    assert_eq!(all.api(0).upload(b"none").status, 200);
    let index = all.held_at(0);
    assert_eq!((all.held_at(1), all.held_at(2)), (index, index));
    assert!(why(&all.repair(0, index)).contains("in use"));
    for at in 0..SERVERS {
        all.ensemble.terminate(at).expect("it ends");
    }
    let said = why(&all.repair(0, index - 1));
    assert!(said.contains("is applied already"), "{said}");
    for at in 0..2 {
        let output = all.repair(at, index);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && told.contains("EVERY server"), "{output:?}");
        assert!(!told.contains("NOTE"), "{told}");
    }
    let said = why(&all.repair(0, index));
    assert!(said.contains("ordered already"), "{said}");
    (0..SERVERS).for_each(|at| all.ensemble.start(at).expect("it starts"));
    (0..2).for_each(|at| all.wait_ready(at));
    let plugin = || all.api(0).get(&format!("/v1/plugins/{NAME}")).json();
    let expected = json!(format!("it was skipped at entry {index}, by a repair"));
    wait_for("the entry is applied", || plugin()["quarantine"] == expected);
    done(&mut all.client(1), &create("/held/1", b""));

    // Where it was forgotten, the entry is waited at still.
    assert_eq!(all.held_at(2), index);
    all.ensemble.terminate(2).expect("it ends");
    assert!(all.repair(2, index).status.success());
    all.ensemble.start(2).expect("it starts");
    all.wait_ready(2);
    wait_for("all have the same", || {
        (0..SERVERS).all(|at| {
            let exists = proto::Request::Exists { path: "/held/1".to_owned(), watch: false };
            all.client(at).ask(&exists).is_ok_and(|(header, _)| header.err == 0)
        })
    });
    // Digests are compared within seconds of a write.
    std::thread::sleep(Duration::from_secs(2));
    for at in 0..SERVERS {
        let metrics = all.api(at).get("/metrics").body;
        assert_eq!(metric(&metrics, "vivarium_quarantined"), Some(0.0), "server {at}");
        assert_eq!(metric(&metrics, "vivarium_servers_disagree"), Some(0.0), "server {at}");
        assert!(all.ensemble.log(at).contains("a repair: this entry is applied without"));
    }
    // It is an operator's again.
    (0..SERVERS).for_each(|at| all.warm(at));
    let mode = all.api(0).operate("PUT", "/v1/plugins/held/mode", &json!({"mode": "enforce"}));
    assert_eq!(mode.status, 200, "{mode:?}");
    assert_eq!(all.api(0).get("/v1/plugins/held").json()["quarantine"], json!(null));
    done(&mut all.client(2), &create("/held/2", b""));
}

#[test]
fn the_last_server_goes_on_alone_with_its_plugins() {
    let mut all = Trouble::start();
    let refuses = crate::admin::plugins::refuses(-125, "ten are enough");
    let binding = json!({"name": "quota", "mode": "enforce", "match": ["/full/**"]});
    all.api(1).install(&binding, &refuses);
    let mut client = all.client(0);
    done(&mut client, &create("/full", b""));
    for at in 0..100 {
        done(&mut client, &create(&format!("/held/{at}"), b""));
    }
    wait_for("the last one has all of it", || {
        let exists = proto::Request::Exists { path: "/held/99".to_owned(), watch: false };
        all.client(2).ask(&exists).is_ok_and(|(header, _)| header.err == 0)
    });
    // The log has nearly all of that, and the store nothing yet.
    (0..SERVERS).for_each(|at| all.ensemble.kill(at).expect("it runs"));
    let mut command = Command::new(binary());
    command.args(["recover", "--force-single", "--yes", "--config"]).arg(all.ensemble.config(2));
    command.arg("--data-dir").arg(all.ensemble.home(2).join("data"));
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    all.ensemble.start(2).expect("it starts");
    all.wait_ready(2);
    let mut client = all.client(2);
    let (header, _) = client.ask(&create("/full/1", b"")).expect("it answers");
    assert_eq!(header.err, -125);
    done(&mut client, &create("/held/100", b""));
}
