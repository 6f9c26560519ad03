//! The guard and the observer with a mock host.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;

use vivarium_plugin_sdk::testing::{Host, json, ops};
use vivarium_plugin_sdk::{Operation, code};

use crate::TenantQuota;

fn run(host: &Host, operations: &[Operation]) -> Result<(), i32> {
    host.guard_and_observe::<TenantQuota>(operations).map_err(|denial| denial.code)
}

/// A host on which tenants a and b are there, and told of.
fn host(settings: vivarium_plugin_sdk::json::Value) -> Host {
    let host = Host::new(settings);
    host.node("/tenants", "");
    run(&host, &[ops::create("/tenants/a", ""), ops::create("/tenants/b", "")]).unwrap();
    host
}

fn counters(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

#[test]
fn a_tenant_has_so_many_znodes_and_no_more() {
    let host = host(json!({"max-nodes": 3}));
    run(&host, &[ops::create("/tenants/a/1", ""), ops::create("/tenants/a/2", "")]).unwrap();
    assert_eq!(run(&host, &[ops::create("/tenants/a/3", "")]), Err(code::QUOTA_EXCEEDED));
    run(&host, &[ops::create("/tenants/b/1", "")]).expect("the other tenant has room");
    run(&host, &[ops::delete("/tenants/a/1"), ops::create("/tenants/a/3", "")]).unwrap();
}

#[test]
fn a_multi_is_counted_as_it_goes_and_leaves_nothing_if_it_fails() {
    let host = host(json!({"max-nodes": 2}));
    let both = [ops::create("/tenants/a/1", "xx"), ops::create("/tenants/a/2", "")];
    assert_eq!(run(&host, &both), Err(code::QUOTA_EXCEEDED));
    assert_eq!(host.counters(), counters(&[("nodes/a", 1), ("nodes/b", 1)]));
}

#[test]
fn bytes_grow_and_shrink_with_data() {
    let host = host(json!({"max-bytes": "1KiB"}));
    run(&host, &[ops::create("/tenants/a/1", [0; 1000])]).unwrap();
    assert_eq!(run(&host, &[ops::set("/tenants/a/1", [0; 1025])]), Err(code::QUOTA_EXCEEDED));
    run(&host, &[ops::set("/tenants/a/1", [0; 1024])]).unwrap();
    assert_eq!(run(&host, &[ops::create("/tenants/a/2", "x")]), Err(code::QUOTA_EXCEEDED));
    // It has less room now than it uses, and may use less of it.
    host.set_settings(json!({"max-bytes": 10}));
    run(&host, &[ops::set("/tenants/a/1", [0; 500])]).unwrap();
    assert_eq!(host.counters()["bytes/a"], 500);
}

#[test]
fn ephemerals_go_with_their_session() {
    let host = host(json!({"max-ephemerals": 1}));
    host.set_session(7);
    run(&host, &[ops::create_ephemeral("/tenants/a/1", "data")]).unwrap();
    assert_eq!(run(&host, &[ops::create_ephemeral("/tenants/a/2", "")]), Err(code::QUOTA_EXCEEDED));
    run(&host, &[ops::create("/tenants/a/2", "")]).expect("it is not ephemeral");
    host.end_session::<TenantQuota>(7);
    assert_eq!(host.counters(), counters(&[("nodes/a", 2), ("nodes/b", 1)]));
    run(&host, &[ops::create_ephemeral("/tenants/a/1", "")]).unwrap();
}

#[test]
fn what_ends_by_itself_is_counted_too() {
    let host = host(json!({"max-nodes": 2}));
    run(&host, &[ops::create("/tenants/a/1", "data")]).unwrap();
    host.let_end::<TenantQuota>("/tenants/a/1");
    assert_eq!(host.counters(), counters(&[("nodes/a", 1), ("nodes/b", 1)]));
}

#[test]
fn a_tree_that_was_there_before() {
    let host = Host::new(json!({"max-nodes": 3}));
    host.node("/tenants/a/1", "data");
    host.node("/tenants/a/2", "more");
    host.node("/elsewhere/1", "data");
    host.build::<TenantQuota>(|path| path.starts_with("/tenants/"));
    assert_eq!(host.counters(), counters(&[("bytes/a", 8), ("nodes/a", 3)]));
    assert_eq!(run(&host, &[ops::create("/tenants/a/3", "")]), Err(code::QUOTA_EXCEEDED));
}

#[test]
fn so_many_writes_a_second() {
    let host = host(json!({"max-writes-per-second": 4}));
    // The two znodes above were created in this second.
    for _ in 0..3 {
        run(&host, &[ops::set("/tenants/a", "x")]).unwrap();
    }
    assert_eq!(run(&host, &[ops::set("/tenants/a", "x")]), Err(code::THROTTLED));
    run(&host, &[ops::set("/tenants/b", "x")]).expect("the other tenant has not written so often");
    host.advance_ms(249);
    assert_eq!(run(&host, &[ops::set("/tenants/a", "x")]), Err(code::THROTTLED));
    host.advance_ms(1);
    run(&host, &[ops::set("/tenants/a", "x")]).unwrap();
    assert_eq!(run(&host, &[ops::delete("/tenants/a")]), Err(code::THROTTLED));
    host.set_settings(json!({"max-writes-per-second": 0}));
    host.advance_ms(60_000);
    assert_eq!(run(&host, &[ops::set("/tenants/a", "x")]), Err(code::THROTTLED));
}

#[test]
fn limits_of_single_tenants() {
    let host = host(json!({}));
    host.set_settings(json!({
        "max-nodes": 1,
        "tenants": {"b": {"max-nodes": 2}},
        "limits-at": "/limits/{tenant}",
    }));
    host.reads(&["/limits/*"]);
    assert_eq!(run(&host, &[ops::create("/tenants/a/1", "")]), Err(code::QUOTA_EXCEEDED));
    run(&host, &[ops::create("/tenants/b/1", "")]).expect("the settings give it more");
    host.node("/limits/a", r#"{"max-nodes": 2}"#);
    run(&host, &[ops::create("/tenants/a/1", "")]).expect("the tree gives it more");
    host.node("/limits/b", "nonsense");
    assert_eq!(run(&host, &[ops::create("/tenants/b/2", "")]), Err(code::QUOTA_EXCEEDED));
    assert!(host.lines()[0].starts_with("/limits/b is passed over"), "{:?}", host.lines());
}

#[test]
fn names_of_any_length() {
    let host = host(json!({"max-nodes": 1, "max-writes-per-second": 9}));
    let long = format!("/tenants/{}", "x".repeat(5000));
    run(&host, &[ops::create(&long, "")]).unwrap();
    assert_eq!(run(&host, &[ops::create(&format!("{long}/1"), "")]), Err(code::QUOTA_EXCEEDED));
}

#[test]
fn settings_that_make_no_sense() {
    let refused = |settings, with: &str| {
        let why = Host::new(settings).configure::<TenantQuota>().unwrap_err();
        assert!(why.contains(with), "{why:?} does not name {with:?}");
    };
    refused(json!({"max-nods": 1}), "max-nods");
    refused(json!({"max-nodes": "many"}), "many");
    refused(json!({"max-bytes": "1MB"}), "64MiB");
    refused(json!({"max-bytes": "99999999999GiB"}), "64MiB");
    refused(json!({"root": "tenants"}), "root");
    refused(json!({"limits-at": "/limits"}), "limits-at");
    Host::new(json!({})).configure::<TenantQuota>().unwrap();
}
