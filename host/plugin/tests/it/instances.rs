//! How long an instance lives: as long as is said, and no longer.

use std::sync::Arc;

use plugin::{Guests, Runtime, Tuning};
use proto::ErrorCode;
use state::hooks::{Call, Hooks, Scope, Verdict};
use state::plugins::Plugin;

use crate::env::{Maps, bound, create, in_apply, on_big_stack, on_read};
use crate::guest::{STATELESS, guard};

/// A guard that says how many calls its instance had before, by the length of its reason; the fourth one traps.
fn counting(items: &str) -> Vec<u8> {
    let body = "(if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (call $deny (i32.const -8) (i32.const 2048)
            (i32.sub (global.get $calls) (i32.const 1)))";
    guard(items, body)
}

/// How many calls the instance had before this one; none if it trapped.
fn before(guests: &Guests, call: &Call<'_>) -> Option<usize> {
    let outcome = guests.guard(call, &create("/a", &[], &[]), &mut Maps::default());
    match outcome.expect("it is no fault of the host") {
        Ok(Verdict::Deny { code: ErrorCode::BadArguments, reason }) => Some(reason.len()),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

fn with(items: &str, binding: &str, test: impl FnOnce(&Guests, &Plugin) + Send) {
    on_big_stack(|| {
        let runtime = Arc::new(Runtime::new(None, Tuning::default()).expect("there is an engine"));
        let plugin = bound(&runtime, &counting(items), binding);
        test(&Guests::new(runtime), &plugin);
    });
}

/// Two calls in each of the transactions of an entry, as `state` makes them.
fn entry(guests: &Guests, plugin: &Plugin, index: u64, transactions: u32) -> Vec<Option<usize>> {
    let mut came = Vec::new();
    for transaction in 0..transactions {
        guests.transaction_begins(Scope::Apply { index, transaction });
        for _ in 0..2 {
            came.push(before(guests, &in_apply(plugin, index, transaction)));
        }
    }
    guests.entry_ends();
    came
}

#[test]
fn an_instance_is_one_transactions() {
    with("", r#"{"name": "t"}"#, |guests, plugin| {
        assert_eq!(entry(guests, plugin, 1, 2), [Some(0), Some(1), Some(0), Some(1)]);
        assert_eq!(entry(guests, plugin, 2, 1), [Some(0), Some(1)]);
    });
}

#[test]
fn or_one_entrys_and_a_fault_ends_it() {
    with(STATELESS, r#"{"name": "t"}"#, |guests, plugin| {
        let came = entry(guests, plugin, 1, 3);
        assert_eq!(came, [Some(0), Some(1), Some(2), None, Some(0), Some(1)]);
        assert_eq!(entry(guests, plugin, 2, 1), [Some(0), Some(1)], "a new entry, a new instance");
    });
}

#[test]
fn another_generation_gets_another_instance() {
    with(STATELESS, r#"{"name": "t"}"#, |guests, plugin| {
        let next = Plugin { generation: 2, ..plugin.clone() };
        for is_read in [false, true] {
            let before = |plugin| match is_read {
                true => before(guests, &on_read(plugin)),
                false => before(guests, &in_apply(plugin, 1, 0)),
            };
            let came = [plugin, plugin, &next, plugin].map(before);
            assert_eq!(came, [Some(0), Some(1), Some(0), Some(0)]);
        }
    });
}

#[test]
fn reads_keep_what_is_stateless() {
    with(STATELESS, r#"{"name": "t"}"#, |guests, plugin| {
        let came: Vec<_> = (0..5).map(|_| before(guests, &on_read(plugin))).collect();
        assert_eq!(came, [Some(0), Some(1), Some(2), None, Some(0)]);
    });
    with("", r#"{"name": "t"}"#, |guests, plugin| {
        let came: Vec<_> = (0..3).map(|_| before(guests, &on_read(plugin))).collect();
        assert_eq!(came, [Some(0), Some(0), Some(0)]);
    });
}

#[test]
fn a_kept_instance_is_given_up_after_1024_calls() {
    let body = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (if (i32.gt_u (global.get $calls) (i32.const 1024)) (then unreachable))
        (call $allow)";
    on_big_stack(|| {
        let runtime = Arc::new(Runtime::new(None, Tuning::default()).expect("there is an engine"));
        let plugin = bound(&runtime, &guard(STATELESS, body), r#"{"name": "t"}"#);
        let guests = Guests::new(runtime);
        for call in 0..3000 {
            let operation = create("/a", &[], &[]);
            let outcome = guests.guard(&on_read(&plugin), &operation, &mut Maps::default());
            assert_eq!(outcome, Ok(Ok(Verdict::Allow)), "call {call}");
        }
    });
}

#[test]
fn more_bindings_than_are_kept() {
    on_big_stack(|| {
        let runtime = Arc::new(Runtime::new(None, Tuning::default()).expect("there is an engine"));
        let plugin = bound(&runtime, &counting(STATELESS), r#"{"name": "t"}"#);
        let guests = Guests::new(runtime);
        for id in 0..2000 {
            let plugin = Plugin { id, ..plugin.clone() };
            assert_eq!(before(&guests, &on_read(&plugin)), Some(0));
            if id < 256 {
                assert_eq!(before(&guests, &in_apply(&plugin, 1, 0)), Some(0));
            }
        }
    });
}
