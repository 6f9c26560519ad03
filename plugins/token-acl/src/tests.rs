//! The authorizer with a mock host.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use ed25519_dalek::{Signer, SigningKey};
use vivarium_plugin_sdk::testing::{Host, json};
use vivarium_plugin_sdk::{Decision, json::Value, op, perm};

use crate::TokenAcl;

const NOW: i64 = 1_700_000_000;

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn sign(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = signer().sign(signed.as_bytes());
    format!("{signed}.{}", BASE64URL.encode(signature.to_bytes()))
}

fn token(claims: Value) -> String {
    sign(&json!({"alg": "EdDSA", "kid": "main"}), &claims)
}

fn host(more: Value) -> Host {
    let key = BASE64URL.encode(signer().verifying_key().to_bytes());
    let mut settings = json!({"keys": {"main": key}});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let host = Host::new(settings);
    host.set_time_ms(NOW * 1000);
    host
}

fn authenticate(host: &Host, token: &str) -> Result<Vec<String>, String> {
    host.authenticate::<TokenAcl>("token", token.as_bytes())
}

#[test]
fn a_token_becomes_ids_that_expire() {
    let host = host(json!({}));
    let ids =
        authenticate(&host, &token(json!({"sub": "alice", "roles": ["ops"], "exp": NOW + 60})));
    let ids = ids.unwrap();
    assert_eq!(ids, [format!("sub:alice exp:{}", NOW + 60), format!("role:ops exp:{}", NOW + 60)]);

    let identities: Vec<_> = ids.iter().map(|id| ("token", id.as_str())).collect();
    host.set_identities(&identities);
    let check = |id| host.check::<TokenAcl>(op::GET_DATA, perm::READ, "/a", Some(("token", id)));
    assert_eq!(check("role:ops"), Decision::Allow);
    assert_eq!(check("sub:alice"), Decision::Allow);
    assert_eq!(check("role:dev"), Decision::Abstain);
    host.advance_ms(59_999);
    assert_eq!(check("role:ops"), Decision::Allow);
    host.advance_ms(1);
    assert_eq!(check("role:ops"), Decision::Abstain, "it has expired");
}

#[test]
fn ids_of_other_schemes_are_not_signed() {
    let host = host(json!({"rules": [{"path": "/**", "perms": "r"}]}));
    let forged = format!("role:ops exp:{}", NOW + 60);
    host.set_identities(&[("sasl", &forged)]);
    let check = |entry| host.check::<TokenAcl>(op::GET_DATA, perm::READ, "/a", entry);
    assert_eq!(check(Some(("token", "role:ops"))), Decision::Abstain);
    assert_eq!(check(None), Decision::Deny);
    host.set_identities(&[("token", "role:ops")]);
    assert_eq!(check(None), Decision::Deny, "an id without its end");
}

#[test]
fn tokens_that_are_worth_nothing() {
    let host = host(json!({"issuer": "us", "audience": "vivarium"}));
    let good = json!({"sub": "alice", "exp": NOW + 60, "iss": "us", "aud": ["x", "vivarium"]});
    authenticate(&host, &token(good.clone())).unwrap();
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    let refused = |token: &str, why: &str| {
        let error = authenticate(&host, token).unwrap_err();
        assert!(error.contains(why), "{error:?} does not say {why:?}");
    };
    refused(&token(with("exp", json!(NOW))), "expired");
    refused(&token(with("exp", Value::Null)), "no number");
    refused(&token(with("exp", json!("soon"))), "no number");
    refused(&token(json!({"sub": "alice", "iss": "us", "aud": "vivarium"})), "does not expire");
    refused(&token(with("nbf", json!(NOW + 1))), "not valid before");
    refused(&token(with("iss", json!("them"))), "issuer");
    refused(&token(with("aud", json!(["x"]))), "aud");
    refused(&token(with("sub", json!(""))), "no subject");
    refused(&token(with("roles", json!("ops"))), "no list");
    refused(&token(with("roles", json!(vec!["r"; 16]))), "16 roles");
    refused("", "three parts");
    refused("a.b", "three parts");
    refused("a.b.c", "base64url");
    refused(&"a".repeat(9000), "9000 bytes");
    refused(&sign(&json!({"alg": "none"}), &good), "alg");
    refused(&sign(&json!({"alg": "HS256", "kid": "main"}), &good), "alg");
    refused(&sign(&json!({"alg": "EdDSA", "kid": "other"}), &good), "other");
    refused(&sign(&json!({"alg": "EdDSA", "crit": ["exp"]}), &good), "crit");
    authenticate(&host, &sign(&json!({"alg": "EdDSA"}), &good)).expect("there is one key");

    let token = token(good);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = format!("{}.{signature}", signed.replace(signed.split_once('.').unwrap().1, "e30"));
    refused(&other, "signature is wrong");
    refused(signed, "three parts");
    refused(&format!("{signed}."), "64 bytes");
}

#[test]
fn rules_for_paths() {
    let host = host(json!({"rules": [
        {"path": "/apps/{sub}/**", "perms": "cdrw"},
        {"path": "/apps/**", "who": ["role:ops"], "perms": "cdrwa"},
        {"path": "/apps/*/public", "who": ["role:dev", "sub:bob"], "perms": "r"},
    ]}));
    let as_ = |names: &[&str]| {
        let ids: Vec<_> = names.iter().map(|name| format!("{name} exp:{}", NOW + 9)).collect();
        host.set_identities(&ids.iter().map(|id| ("token", id.as_str())).collect::<Vec<_>>());
    };
    let may = |perm, path| host.check::<TokenAcl>(op::GET_DATA, perm, path, None);
    as_(&["sub:alice"]);
    assert_eq!(may(perm::WRITE, "/apps/alice/config"), Decision::Allow);
    assert_eq!(may(perm::ADMIN, "/apps/alice/config"), Decision::Deny);
    assert_eq!(may(perm::READ, "/apps/bob/config"), Decision::Deny);
    assert_eq!(may(perm::READ, "/apps/bob/public"), Decision::Deny);
    assert_eq!(may(perm::READ, "/elsewhere"), Decision::Abstain);
    as_(&["sub:bob"]);
    assert_eq!(may(perm::READ, "/apps/alice/public"), Decision::Allow);
    as_(&["sub:carol", "role:ops"]);
    assert_eq!(may(perm::ADMIN, "/apps/alice/config"), Decision::Allow);
    as_(&[]);
    assert_eq!(may(perm::READ, "/apps/alice/config"), Decision::Deny);
}

#[test]
fn settings_that_make_no_sense() {
    let refused = |settings: Value, with: &str| {
        let why = Host::new(settings).configure::<TokenAcl>().unwrap_err();
        assert!(why.contains(with), "{why:?} does not name {with:?}");
    };
    refused(json!({}), "keys");
    refused(json!({"keys": {}}), "no public key");
    refused(json!({"keys": {"main": "short"}}), "main");
    let neutral = BASE64URL.encode([&[1][..], &[0; 31]].concat());
    refused(json!({"keys": {"main": neutral}}), "weak");
    let with_rule = |rule: Value| {
        let key = BASE64URL.encode(signer().verifying_key().to_bytes());
        json!({"keys": {"main": key}, "rules": [rule]})
    };
    refused(with_rule(json!({"path": "apps", "perms": "r"})), "apps");
    refused(with_rule(json!({"path": "/**/a", "perms": "r"})), "at the end");
    refused(with_rule(json!({"path": "/a", "perms": "rx"})), "cdrwa");
    refused(with_rule(json!({"path": "/a", "perms": "r", "who": ["admin"]})), "role:admin");
    host(json!({})).configure::<TokenAcl>().unwrap();
}
