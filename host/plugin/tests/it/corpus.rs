//! A golden corpus: what a few modules come to, and how much fuel they take.
//!
//! What stands in `golden.txt` is what replicas of the released program agree on. If a new version of the
//! engine changes a line, it is a new execution profile.
//! `UPDATE_GOLDENFILES=1` writes it anew.

use std::fmt::Write;

use proto::{Acl, Id, Stat};
use state::hooks::Hooks;

use crate::env::{Maps, create, created, in_apply, loaded, on_big_stack, on_read, read};
use crate::guest::{authorizer, guard, observer};
use crate::hostile::tunings;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/golden.txt");

/// Guards: a name, items, a body.
const GUARDS: &[(&str, &str, &str)] = &[
    ("nothing", "", "(call $allow)"),
    ("thousand-turns", "", "(local i32) (loop
        (local.set 1 (i32.add (local.get 1) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get 1) (i32.const 1000)))) (call $allow)"),
    ("hundred-calls", "(func $f)", "(local i32) (loop (call $f)
        (local.set 1 (i32.add (local.get 1) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get 1) (i32.const 100)))) (call $allow)"),
    ("fibonacci", "(func $fib (param i32) (result i32)
        (if (result i32) (i32.lt_u (local.get 0) (i32.const 2)) (then (local.get 0))
        (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
            (call $fib (i32.sub (local.get 0) (i32.const 2)))))))",
        "(drop (call $fib (i32.const 12))) (call $allow)"),
    ("too-much-fibonacci", "(func $fib (param i32) (result i32)
        (if (result i32) (i32.lt_u (local.get 0) (i32.const 2)) (then (local.get 0))
        (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
            (call $fib (i32.sub (local.get 0) (i32.const 2)))))))",
        "(drop (call $fib (i32.const 20))) (call $allow)"),
    ("table-of-branches", "", "(local i32) (loop
        (local.set 1 (i32.add (local.get 1) (i32.const 1)))
        (block (block (block
            (br_table 0 1 2 (i32.rem_u (local.get 1) (i32.const 3)))) (nop)) (nop))
        (br_if 0 (i32.lt_u (local.get 1) (i32.const 50)))) (call $allow)"),
    ("memory", "", "(memory.fill (i32.const 8192) (i32.const 7) (i32.const 4096))
        (memory.copy (i32.const 16384) (i32.const 8192) (i32.const 4096))
        (drop (memory.grow (i32.const 3))) (call $allow)"),
    ("data-segment", r#"(data $d "0123456789")"#,
        "(memory.init $d (i32.const 2048) (i32.const 0) (i32.const 10)) (data.drop $d) (call $allow)"),
    ("table", "(table $t 20 funcref) (func $f) (elem $e func $f $f $f)",
        "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 3))
        (table.copy $t $t (i32.const 4) (i32.const 0) (i32.const 3))
        (table.fill $t (i32.const 8) (ref.null func) (i32.const 5))
        (drop (table.grow $t (ref.null func) (i32.const 9))) (call $allow)"),
    ("floats", "", "(local f64 i64) (local.set 1 (f64.const 1))
        (local.set 1 (f64.div (f64.sqrt (f64.const 2)) (local.get 1)))
        ;; Which NaN that is, is up to the machine, but for the profile: this one.
        (local.set 2 (i64.reinterpret_f64 (f64.div (f64.const 0) (f64.sub (local.get 1) (local.get 1)))))
        (if (i64.ne (local.get 2) (i64.const 0x7ff8000000000000)) (then unreachable))
        (call $allow)"),
    ("store", r#"(data (i32.const 2048) "key")"#,
        "(drop (call $add (i32.const 2048) (i32.const 3) (i64.const 5)))
        (call $get (i32.const 2048) (i32.const 3) (i32.const 3072)) (call $allow)"),
    ("post-return", "", "(drop (memory.grow (i32.const 1)))
        (call $deny (i32.const -125) (i32.const 131072) (i32.const 3))"),
    ("trap-late", "(func $f)", "(call $f) (call $f) (unreachable)"),
    ("starts-with-data", r#"(data (i32.const 8192) "abcdefghijklmnopqrstuvwxyz")"#, "(call $allow)"),
];

fn guards(golden: &mut String, tuning: plugin::Tuning) {
    for (name, items, body) in GUARDS {
        let (guests, plugin) = loaded(&guard(items, body), tuning);
        let (acl, identities) = ([Acl::world(31)], [Id::new("ip", "10.0.0.7")]);
        let mut maps = Maps::default();
        for call in ["first", "second"] {
            maps.fuel = None;
            let operation = create("/tenants/a/app", &acl, &identities);
            let outcome = guests.guard(&in_apply(&plugin, 1, 0), &operation, &mut maps);
            let outcome = outcome.expect("it is no fault of the host").map_err(|fault| fault.kind);
            let fuel = maps.fuel.map_or("all".into(), |fuel| fuel.to_string());
            writeln!(golden, "guard {name}, {call}: fuel {fuel}, {outcome:?}").expect("a string");
        }
    }
}

fn others(golden: &mut String, tuning: plugin::Tuning) {
    let mut maps = Maps::default();
    let (guests, plugin) = loaded(
        &observer("", "(drop (call $add (i32.const 2048) (i32.const 1) (i64.const 1)))"),
        tuning,
    );
    let after = Stat::default();
    let outcome = guests.observe(&in_apply(&plugin, 1, 0), &created("/a", &after), &mut maps);
    writeln!(golden, "observer: fuel {:?}, {outcome:?}", maps.fuel).expect("a string");
    let (guests, plugin) = loaded(&authorizer("", "(unreachable)", "(i32.const 1)"), tuning);
    let identities = [Id::new("token", "alice"), Id::new("ip", "10.0.0.7")];
    let outcome =
        guests.check(&on_read(&plugin), &read(Some(&identities[0]), &identities), &mut maps);
    writeln!(golden, "authorizer: fuel {:?}, {outcome:?}", maps.fuel).expect("a string");
}

#[test]
fn outcomes_and_fuel_are_as_they_were() {
    on_big_stack(|| {
        for tuning in tunings() {
            let mut golden = String::new();
            guards(&mut golden, tuning);
            others(&mut golden, tuning);
            if std::env::var_os("UPDATE_GOLDENFILES").is_some() && tuning == Default::default() {
                std::fs::write(GOLDEN, &golden).expect("it can be written");
            }
            let before = std::fs::read_to_string(GOLDEN).expect("it is there");
            assert_eq!(golden, before, "{tuning:?}");
        }
    });
}
