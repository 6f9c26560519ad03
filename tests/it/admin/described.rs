//! Every route is in the document, and every answer is what the document says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Watched;
use crate::http::{self, Answer, get};

/// Holds answers against the document.
pub(super) struct Document(Value);

impl Document {
    /// Nothing that is not described may be in an answer either.
    pub(super) fn strict(mut document: Value) -> Self {
        fn close(value: &mut Value) {
            match value {
                Value::Object(object) => {
                    let is_closed = object.contains_key("properties")
                        && !object.contains_key("additionalProperties");
                    if is_closed {
                        object.insert("additionalProperties".to_owned(), json!(false));
                    }
                    object.values_mut().for_each(close);
                }
                Value::Array(values) => values.iter_mut().for_each(close),
                _ => {}
            }
        }
        let schemas = document["components"]["schemas"].as_object_mut().expect("it has schemas");
        for (name, schema) in schemas {
            // It has what the command has.
            if name != "CommandAnswer" {
                close(schema);
            }
        }
        Self(document)
    }

    /// All methods and paths.
    fn routes(&self) -> BTreeSet<(String, String)> {
        let paths = self.0["paths"].as_object().expect("it has paths");
        paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("a path has methods").keys();
                methods.map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect()
    }

    pub(super) fn check(&self, method: &str, path: &str, answer: &Answer) {
        let answers = &self.0["paths"][path][method.to_lowercase()]["responses"];
        let described = &answers[answer.status.to_string()];
        assert!(!described.is_null(), "{method} {path}: {} is not described", answer.status);
        let content = described["content"].as_object();
        let content = content.unwrap_or_else(|| panic!("{method} {path}: no content: {described}"));
        let kind = answer.header("content-type").expect("it has a type");
        let kind = kind.split(';').next().unwrap_or_default();
        let schema =
            &content.get(kind).unwrap_or_else(|| panic!("{method} {path}: {kind}"))["schema"];
        if kind != "application/json" {
            return;
        }
        let whole = json!({ "allOf": [schema], "components": self.0["components"] });
        let validator = jsonschema::validator_for(&whole).expect("it is a schema");
        let wrong: Vec<_> = validator.iter_errors(&answer.json()).map(|e| e.to_string()).collect();
        assert!(wrong.is_empty(), "{method} {path}: {wrong:?} in {}", answer.body);
    }
}

#[test]
fn every_route_is_described_and_answers_as_described() {
    let watched = Watched::start(&[]);
    let document = Document::strict(get(watched.admin, "/openapi.json").json());
    assert_eq!(document.0["info"]["title"], "Vivarium admin API");
    let nothing = Value::Null;
    let new = json!({"id": 2, "peer": ["127.0.0.1:1"], "client": "127.0.0.1:2"});
    let cases = [
        ("GET", "/openapi.json", "/openapi.json", &nothing, 200),
        ("GET", "/livez", "/livez", &nothing, 200),
        ("GET", "/readyz", "/readyz", &nothing, 200),
        ("GET", "/metrics", "/metrics", &nothing, 200),
        ("GET", "/v1/status", "/v1/status", &nothing, 200),
        ("GET", "/v1/settings", "/v1/settings", &nothing, 200),
        ("PATCH", "/v1/settings", "/v1/settings", &json!({"skip-acl": "false"}), 200),
        ("PATCH", "/v1/settings", "/v1/settings", &json!({"skip-acl": "perhaps"}), 422),
        ("PATCH", "/v1/settings", "/v1/settings", &json!([]), 400),
        ("GET", "/v1/members", "/v1/members", &nothing, 200),
        // It is on its own.
        ("POST", "/v1/members", "/v1/members", &new, 422),
        ("DELETE", "/v1/members/{id}", "/v1/members/2", &nothing, 422),
        ("POST", "/v1/members/{id}/promote", "/v1/members/2/promote", &nothing, 422),
        ("POST", "/v1/members/{id}/demote", "/v1/members/x/demote", &nothing, 400),
        ("GET", "/v1/plugins", "/v1/plugins", &nothing, 200),
        ("POST", "/v1/plugins", "/v1/plugins", &json!({"binding": {}}), 400),
        ("GET", "/v1/plugins/{name}", "/v1/plugins/x", &nothing, 404),
        ("DELETE", "/v1/plugins/{name}", "/v1/plugins/x", &nothing, 422),
        (
            "POST",
            "/v1/plugins/{name}/activate",
            "/v1/plugins/x/activate",
            &json!({"generation": 1}),
            422,
        ),
        ("PUT", "/v1/plugins/{name}/mode", "/v1/plugins/x/mode", &json!({"mode": "off"}), 422),
        ("POST", "/v1/plugins/{name}/rollback", "/v1/plugins/x/rollback", &nothing, 422),
        ("POST", "/v1/modules", "/v1/modules", &json!("x"), 200),
        ("POST", "/v1/modules", "/v1/modules", &nothing, 400),
        ("GET", "/v1/decisions", "/v1/decisions?most=7", &nothing, 200),
        ("GET", "/v1/decisions", "/v1/decisions?most=x", &nothing, 400),
        ("GET", "/v1/explain", "/v1/explain?path=/a&op=create", &nothing, 200),
        ("GET", "/v1/explain", "/v1/explain?path=a&op=create", &nothing, 422),
        ("GET", "/commands", "/commands", &nothing, 200),
        ("GET", "/commands/{name}", "/commands/mntr", &nothing, 200),
        ("GET", "/commands/{name}", "/commands/stats", &nothing, 200),
        ("GET", "/commands/{name}", "/commands/nothing", &nothing, 200),
    ];
    let mut covered = BTreeSet::new();
    for (method, template, path, body, status) in cases {
        let answer = watched.operate(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        document.check(method, template, &answer);
        covered.insert((method.to_owned(), template.to_owned()));
        if !["/livez", "/readyz", "/openapi.json"].contains(&path) {
            let wrong = "Authorization: Bearer 0";
            let refused = http::ask(watched.admin, method, path, &[wrong], "").expect("it answers");
            assert_eq!(refused.status, 401);
            document.check(method, template, &refused);
        }
    }
    assert_eq!(covered, document.routes(), "every route is asked here, and described there");
    for (method, path) in document.routes() {
        let operation = &document.0["paths"][&path][method.to_lowercase()];
        let is_change = method != "GET";
        assert_eq!(operation.get("security").is_some(), is_change, "{method} {path}");
        assert!(operation["description"].is_string() || operation["summary"].is_string());
    }
}
