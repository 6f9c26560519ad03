//! The life of a plugin over HTTP: what is right goes all the way, what is wrong is answered in words and
//! changes nothing, and all of it is as the document says.

use serde_json::{Value, json};

use super::described::Document;
use super::{Api, Watched};
use crate::client::{Client, create};
use crate::guest;
use crate::http::{self, Answer, get};
use crate::operator::wait_for;

impl Api {
    /// Uploads a module.
    pub(crate) fn upload(&self, module: &[u8]) -> Answer {
        let head = [&*self.operator(), "Content-Type: application/wasm"];
        http::ask(self.admin, "POST", "/v1/modules", &head, module).expect("it answers")
    }

    pub(crate) fn stage(&self, binding: &Value, module: &Value) -> Answer {
        self.operate("POST", "/v1/plugins", &json!({"binding": binding, "module": module}))
    }

    pub(crate) fn activate(&self, name: &str, generation: &Value) -> Answer {
        let path = format!("/v1/plugins/{name}/activate");
        self.operate("POST", &path, &json!({"generation": generation}))
    }

    /// Installs a plugin, as an operator would.
    pub(crate) fn install(&self, binding: &Value, module: &[u8]) {
        let name = binding["name"].as_str().expect("it has a name");
        let uploaded = self.upload(module).json();
        let staged = self.stage(binding, &uploaded["module"]).json();
        wait_for("it is ready", || {
            let plugin = self.get(&format!("/v1/plugins/{name}")).json();
            plugin["staged"]["missing"] == json!([])
        });
        let active = self.activate(name, &staged["generation"]);
        assert_eq!(active.status, 200, "{active:?}");
    }
}

/// A guard that refuses everything it is asked about, with a code and a reason.
pub(crate) fn refuses(code: i32, reason: &str) -> Vec<u8> {
    guest::guard(
        &format!("(data (i32.const 2048) \"{reason}\")"),
        &format!("(call $deny (i32.const {code}) (i32.const 2048) (i32.const {}))", reason.len()),
    )
}

#[test]
fn a_plugin_lives_its_life_over_http() {
    let watched = Watched::start(&[]);
    let api = watched.api();
    let document = Document::strict(get(watched.admin, "/openapi.json").json());
    let (quota, busy) = (refuses(-125, "ten are enough"), refuses(-127, "not so fast"));
    let mut client = Client::connect(watched.server.address).expect("it takes clients");
    let mut creates = |path: &str| client.ask(&create(path, b"x")).expect("it answers").0.err;
    assert_eq!(creates("/a"), 0);

    let first = api.upload(&quota);
    document.check("POST", "/v1/modules", &first);
    assert_eq!(first.json()["bytes"], quota.len());
    assert_eq!(api.upload(&quota).json(), first.json(), "it is there already");
    let module = &first.json()["module"];
    let binding = json!({
        "name": "quota", "mode": "enforce", "match": ["/a/**"], "ops": ["create"],
        "settings": {"secret": "xyzzy"},
    });
    let staged = api.stage(&binding, module);
    document.check("POST", "/v1/plugins", &staged);
    assert_eq!(staged.json()["generation"], 1, "{staged:?}");
    let one = || {
        let answer = get(watched.admin, "/v1/plugins/quota");
        document.check("GET", "/v1/plugins/{name}", &answer);
        assert!(!answer.body.contains("xyzzy"), "settings may be secret: {answer:?}");
        answer.json()
    };
    wait_for("it is compiled", || one()["staged"]["missing"] == json!([]));
    assert_eq!(one()["staged"]["reports"]["1"], Value::Null);
    assert_eq!(one()["active"], Value::Null);
    assert_eq!(creates("/a/1"), 0, "it is not called yet");
    let active = api.activate("quota", &json!(1));
    document.check("POST", "/v1/plugins/{name}/activate", &active);
    assert_eq!(active.status, 200, "{active:?}");
    assert_eq!((creates("/a/2"), creates("/b")), (-125, 0));

    let twice = api.activate("quota", &json!(1));
    assert!(twice.status == 422 && twice.error().contains("it is active already"), "{twice:?}");
    api.install(&binding, &busy);
    assert_eq!(creates("/a/2"), -127);
    assert_eq!(
        (&one()["active"]["generation"], &one()["previous"]["generation"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(one()["active"]["points"], json!(["guard"]));
    let back = watched.operate("POST", "/v1/plugins/quota/rollback", &Value::Null);
    document.check("POST", "/v1/plugins/{name}/rollback", &back);
    assert_eq!(back.json()["generation"], 1);
    assert_eq!(creates("/a/2"), -125);

    let decisions = get(watched.admin, "/v1/decisions?name=quota&path=/a/2&since=0");
    document.check("GET", "/v1/decisions", &decisions);
    let decisions = decisions.json();
    let reasons: Vec<_> = decisions["decisions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|decision| decision["reason"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(reasons, ["ten are enough", "not so fast", "ten are enough"]);
    let since = format!("/v1/decisions?since={}", decisions["next"]);
    assert_eq!(get(watched.admin, &since).json()["decisions"], json!([]));
    let explained = get(watched.admin, "/v1/explain?path=/a/2&op=create");
    document.check("GET", "/v1/explain", &explained);
    assert_eq!(
        explained.json()["asked"],
        json!([{"point": "guard", "name": "quota", "by": "/a/**", "mode": "enforce", "but": null}])
    );

    let mode = watched.operate("PUT", "/v1/plugins/quota/mode", &json!({"mode": "warn"}));
    document.check("PUT", "/v1/plugins/{name}/mode", &mode);
    assert_eq!((mode.status, creates("/a/2")), (200, 0));
    let another = watched.operate("DELETE", "/v1/plugins/quota?generation=7", &Value::Null);
    assert!(
        another.status == 422 && another.error().contains("generation 2, not 7"),
        "{another:?}"
    );
    let removed = watched.operate("DELETE", "/v1/plugins/quota", &Value::Null);
    document.check("DELETE", "/v1/plugins/{name}", &removed);
    assert_eq!(removed.json()["plugins"], json!([]), "{removed:?}");
    assert_eq!(get(watched.admin, "/v1/plugins/quota").status, 404);
}

#[test]
fn what_is_wrong_with_a_plugin_is_answered_in_words() {
    let watched = Watched::start(&[]);
    let api = watched.api();
    let junk = api.upload("no module".repeat(100_000).as_bytes());
    assert_eq!((junk.status, &junk.json()["bytes"]), (200, &json!(900_000)), "{junk:?}");
    let long = api.upload(&vec![b'x'; (4 << 20) + 1]);
    assert!(long.status == 413 && long.error().contains("plugin-module-bytes"), "{long:?}");
    let module = &junk.json()["module"];
    let binding = json!({"name": "guard", "mode": "enforce", "match": ["/a/**"]});
    let with = |key: &str, value: Value| {
        let mut wrong = binding.clone();
        wrong[key] = value;
        wrong
    };
    for (binding, module, status, why) in [
        (with("mach", json!([])), module, 400, "unknown field `mach`"),
        (with("mode", json!("on")), module, 400, "unknown variant `on`"),
        (with("match", json!(["a"])), module, 422, "\"a\""),
        (with("match", json!([])), module, 422, "bound to nothing"),
        (with("name", json!("Guard")), module, 422, "is no good"),
        (binding.clone(), &json!("00".repeat(32)), 422, "upload it first"),
        (binding.clone(), &json!("x"), 422, "64 hexadecimal digits"),
    ] {
        let answer = api.stage(&binding, module);
        assert_eq!(answer.status, status, "{binding}: {answer:?}");
        assert!(answer.error().contains(why), "{binding}: {answer:?}");
    }
    assert_eq!(get(watched.admin, "/v1/plugins").json()["plugins"], json!([]));

    assert_eq!(api.stage(&binding, module).json()["generation"], 1);
    let report =
        || get(watched.admin, "/v1/plugins/guard").json()["staged"]["reports"]["1"].clone();
    wait_for("the server says why it cannot run", || report().is_string());
    assert!(report().as_str().is_some_and(|why| why.contains("not valid")), "{}", report());
    let mode =
        |mode: &str| watched.operate("PUT", "/v1/plugins/guard/mode", &json!({"mode": mode}));
    let rollback = watched.operate("POST", "/v1/plugins/guard/rollback", &Value::Null);
    for (answer, status, why) in [
        (api.activate("guard", &json!(1)), 422, "cannot run on server 1"),
        (api.activate("guard", &json!(2)), 422, "no generation 2"),
        (api.activate("other", &json!(1)), 422, "other"),
        (api.activate("guard", &json!("1")), 400, "u64"),
        (mode("off"), 422, "not active yet"),
        (mode("on"), 400, "unknown variant `on`"),
        (rollback, 422, "not active yet"),
        (watched.operate("DELETE", "/v1/plugins/other", &Value::Null), 422, "no binding \"other\""),
        (get(watched.admin, "/v1/explain?path=/a&op=eat"), 400, "unknown variant `eat`"),
        (get(watched.admin, "/v1/decisions?form=1"), 400, "unknown field `form`"),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.error().contains(why), "{why}: {answer:?}");
    }
}
