//! What may depend on what: determinism is kept by what a crate cannot reach.

use std::fs;
use std::path::Path;

/// Of ours, what each crate may use; `tests` may use all of it.
const OURS: [(&str, &[&str]); 5] = [
    ("proto", &[]),
    ("state", &["proto"]),
    ("plugin", &["proto", "state"]),
    ("replica", &["proto", "state"]),
    ("server", &["proto", "state", "plugin", "replica"]),
];

/// Of others', what only one crate may name.
const DOORS: [(&str, &str); 5] = [
    ("fjall", "state"),
    ("raft", "replica"),
    ("wasmtime", "plugin"),
    ("tokio", "server"),
    ("notify", "server"),
];

fn dependencies(of: &str) -> Vec<String> {
    dependencies_in(&format!("host/{of}"))
}

fn dependencies_in(dir: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../{dir}/Cargo.toml"));
    let text = fs::read_to_string(&path).expect("the crate is there");
    let manifest: toml::Table = text.parse().expect("its manifest is TOML");
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    dependencies.into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

#[test]
fn cargo_run_knows_which_program_is_meant() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = |path: &str| -> toml::Table {
        let text = fs::read_to_string(root.join(path)).expect("the manifest is there");
        text.parse().expect("it is TOML")
    };
    let workspace = &manifest("Cargo.toml")["workspace"];
    assert_eq!(workspace["default-members"], toml::Value::from(vec!["host/server"]));
    let server = manifest("host/server/Cargo.toml");
    let programs = server["bin"].as_array().expect("it has programs");
    assert_eq!(programs.len(), 1, "{programs:?}");
    assert!(!root.join("host/server/src/bin").exists(), "cargo finds programs there by itself");
}

#[test]
fn crates_depend_on_what_they_may_know() {
    for (name, allowed) in OURS {
        for dependency in dependencies(name) {
            let is_ours = OURS.iter().any(|(ours, _)| *ours == dependency);
            assert!(
                !is_ours || allowed.contains(&dependency.as_str()),
                "{name} depends on {dependency}"
            );
        }
    }
}

#[test]
fn every_big_dependency_has_one_door() {
    for (dependency, door) in DOORS {
        for (name, _) in OURS.iter().filter(|(name, _)| *name != door) {
            assert!(
                !dependencies(name).iter().any(|named| named == dependency),
                "{name} names {dependency}, which is behind {door}"
            );
        }
    }
}

#[test]
fn plugins_and_their_sdk_know_the_contract_only() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let plugins = fs::read_dir(plugins).expect("there are plugins");
    let names = plugins.map(|entry| entry.expect("it is listed").file_name());
    let dirs = names.map(|name| format!("plugins/{}", name.to_string_lossy()));
    let is_rust = |dir: &String| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../{dir}/Cargo.toml")).is_file()
    };
    for dir in dirs.filter(is_rust).chain(["plugin-sdk".to_owned()]) {
        for dependency in dependencies_in(&dir) {
            assert!(
                OURS.iter().all(|(ours, _)| *ours != dependency),
                "{dir} depends on {dependency}"
            );
        }
    }
}
