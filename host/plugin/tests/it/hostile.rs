//! What hostile guests get: each its documented outcome, the same each time and however the engine is tuned.

use plugin::{Guests, Tuning};
use state::hooks::{FaultKind, Hooks, Verdict};
use state::plugins::Plugin;

use crate::env::{Maps, create, in_apply, loaded, on_big_stack, on_read, read, token};
use crate::guest::{authorizer, configured, guard};

/// All that an engine may be tuned to.
pub(crate) fn tunings() -> impl Iterator<Item = Tuning> {
    (0..8).map(|bits| Tuning {
        optimised: bits & 1 == 0,
        pooled: bits & 2 == 0,
        copy_on_write: bits & 4 == 0,
    })
}

/// What a guest comes to, by every tuning, several times in a row; what it takes and leaves is the same too.
fn everywhere<T: PartialEq + std::fmt::Debug + Send>(
    module: &[u8],
    ask: impl Fn(&Guests, &Plugin, &mut Maps) -> T + Send + Sync,
) -> T {
    let mut came = None;
    on_big_stack(|| {
        for tuning in tunings() {
            let (guests, plugin) = loaded(module, tuning);
            for transaction in 0..3 {
                let once = || {
                    let mut maps = Maps::default();
                    let answer = ask(&guests, &plugin, &mut maps);
                    guests.entry_ends();
                    (answer, maps.fuel, maps.store, maps.lines)
                };
                let again = once();
                let first = came.get_or_insert_with(once);
                assert_eq!(*first, again, "{tuning:?}, transaction {transaction}");
            }
        }
    });
    came.expect("it was asked").0
}

/// What a guard comes to, with the kind of fault alone.
fn judged(items: &str, body: &str) -> Result<Verdict, FaultKind> {
    everywhere(&guard(items, body), |guests, plugin, maps| {
        let operation = create("/a", &[], &[]);
        let outcome = guests.guard(&in_apply(plugin, 1, 0), &operation, maps);
        outcome.expect("it is no fault of the host").map_err(|fault| fault.kind)
    })
}

#[test]
fn spin() {
    assert_eq!(judged("", "(loop (br 0)) (unreachable)"), Err(FaultKind::Fuel));
}

#[test]
fn deep_recursion_runs_out_of_fuel_before_it_runs_out_of_stack() {
    let again = "(func $again (param i32) (result i32)
        (i32.add (i32.const 1) (call $again (local.get 0))))";
    assert_eq!(judged(again, "(call $again (i32.const 0))"), Err(FaultKind::Fuel));
    // The biggest frames that are let in, all of them live across the call.
    let locals: String = (0..240).map(|n| format!("(local $v{n} i64)")).collect();
    let set: String =
        (0..240).map(|n| format!("(local.set $v{n} (i64.load (i32.const {})))", n * 8)).collect();
    let sum: String = (0..240).map(|n| format!("(local.get $v{n}) i64.add ")).collect();
    let big = format!("(func $again (result i64) {locals} {set} (call $again) {sum})");
    let body = "(drop (call $again)) (call $allow)";
    assert_eq!(judged(&big, body), Err(FaultKind::Fuel));
    let through_a_table =
        "(type $t (func (result i32))) (table 1 funcref) (elem (i32.const 0) $again)
        (func $again (type $t) (i32.add (i32.const 1) (call_indirect (type $t) (i32.const 0))))";
    assert_eq!(judged(through_a_table, "(call $again)"), Err(FaultKind::Fuel));
}

#[test]
fn a_memory_bomb() {
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    let then_trap = format!("{grow} (unreachable)");
    assert_eq!(judged("", &then_trap), Err(FaultKind::Memory));
    // One that takes no for an answer is no bomb.
    assert_eq!(judged("", &format!("{grow} (call $allow)")), Ok(Verdict::Allow));
    let at_once = "(if (i32.ne (memory.grow (i32.const 65535)) (i32.const -1)) (then unreachable))
        (call $allow)";
    assert_eq!(judged("", at_once), Err(FaultKind::Fuel), "to ask for 65,535 pages costs too much");
}

#[test]
fn a_table_bomb() {
    let grow = "(loop (br_if 0 (i32.ne
        (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))";
    let trap = format!("{grow} (unreachable)");
    assert_eq!(judged("(table $t 1 funcref)", &trap), Err(FaultKind::Memory));
    let at_once = "(drop (table.grow $t (ref.null func) (i32.const -1))) (call $allow)";
    assert_eq!(judged("(table $t 1 funcref)", at_once), Err(FaultKind::Fuel));
}

#[test]
fn a_memory_that_is_too_big_from_the_start() {
    let big = crate::guest::guard_module("", "(call $allow)")
        .replace(r#""memory") 2)"#, r#""memory") 300)"#);
    let module = crate::guest::component(&["guarding"], &big);
    let came = everywhere(&module, |guests, plugin, _| {
        let outcome = guests.configure(&on_read(plugin));
        outcome.expect("it is no fault of the host").map_err(|fault| fault.kind)
    });
    assert_eq!(came, Err(FaultKind::Memory));
}

#[test]
fn a_panic() {
    assert_eq!(judged("", "(unreachable)"), Err(FaultKind::Trap));
    assert_eq!(judged("", "(i32.div_u (i32.const 1) (i32.const 0))"), Err(FaultKind::Trap));
    assert_eq!(judged("", "(i32.load (i32.const -1))"), Err(FaultKind::Trap));
}

#[test]
fn what_may_not_be_returned() {
    let no_text = r#"(i32.store (i32.const 2048) (i32.const 0xfffefdfc))
        (call $deny (i32.const -102) (i32.const 2048) (i32.const 4))"#;
    assert_eq!(judged("", no_text), Err(FaultKind::BadReturn));
    let no_code = "(call $deny (i32.const -112) (i32.const 0) (i32.const 0))";
    assert_eq!(judged("", no_code), Err(FaultKind::BadReturn), "SESSIONEXPIRED is not its to say");
    let outside = "(call $deny (i32.const -102) (i32.const -8) (i32.const 4))";
    assert_eq!(judged("", outside), Err(FaultKind::BadReturn));
    assert_eq!(judged("", "(i32.const -4)"), Err(FaultKind::BadReturn));
    assert_eq!(judged("", "(i32.const 1025)"), Err(FaultKind::BadReturn));
    let neither = "(i32.store8 (i32.const 1024) (i32.const 2)) (i32.const 1024)";
    assert_eq!(judged("", neither), Err(FaultKind::BadReturn));
    let much = "(drop (memory.grow (i32.const 32)))
        (call $deny (i32.const -102) (i32.const 0) (i32.const 1500000))";
    assert_eq!(judged("", much), Err(FaultKind::BadReturn));
}

#[test]
fn ten_thousand_items() {
    // Each an empty string: the memory is all zeros.
    let ids = "(drop (memory.grow (i32.const 4)))
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i32.store (i32.const 1028) (i32.const 65536))
        (i32.store (i32.const 1032) (i32.const 10000))
        (i32.const 1024)";
    let module = authorizer("", ids, "(i32.const 0)");
    let came = everywhere(&module, |guests, plugin, maps| {
        let outcome = guests.authenticate(&on_read(plugin), &token(b"secret"), maps);
        outcome.expect("it is no fault of the host").map_err(|fault| fault.kind)
    });
    assert_eq!(came, Err(FaultKind::BadReturn));
    let module = authorizer("", "(unreachable)", "(i32.const 7)");
    let came = everywhere(&module, |guests, plugin, maps| {
        let outcome = guests.check(&in_apply(plugin, 1, 0), &read(None, &[]), maps);
        outcome.expect("it is no fault of the host").map_err(|fault| fault.kind)
    });
    assert_eq!(came, Err(FaultKind::BadReturn), "there is no such decision");
}

#[test]
fn a_flood_of_host_calls() {
    let calls = "(loop (drop (call $time-ms)) (br 0)) (unreachable)";
    assert_eq!(judged("", calls), Err(FaultKind::Limit));
    let bytes = "(drop (memory.grow (i32.const 20)))
        (loop (call $line (i32.const 65536) (i32.const 1000000)) (br 0)) (unreachable)";
    assert_eq!(judged("", bytes), Err(FaultKind::Limit));
    let long = "(drop (memory.grow (i32.const 32)))
        (call $line (i32.const 65536) (i32.const 2000000)) (call $allow)";
    assert_eq!(judged("", long), Err(FaultKind::BadReturn), "it is not even lifted");
}

#[test]
fn lines_are_dropped_beyond_what_is_kept() {
    let lines = "(local i32) (loop
        (call $line (i32.const 0) (i32.const 3000))
        (local.set 1 (i32.add (local.get 1) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get 1) (i32.const 100))))
        (call $allow)";
    let lengths = everywhere(&guard("", lines), |guests, plugin, maps| {
        maps.lines.clear();
        let outcome = guests.guard(&in_apply(plugin, 1, 0), &create("/a", &[], &[]), maps);
        assert_eq!(outcome, Ok(Ok(Verdict::Allow)));
        maps.lines.iter().map(String::len).collect::<Vec<_>>()
    });
    assert_eq!(lengths, vec![1024; 16]);
}

#[test]
fn imports_from_where_there_is_no_way_out() {
    let sneaky = crate::guest::guard_module("", "(call $allow)")
        .replace("(call $free))", "(call $line (i32.const 0) (i32.const 1)))");
    let module = crate::guest::component(&["guarding"], &sneaky);
    let came = everywhere(&module, |guests, plugin, maps| {
        let outcome = guests.guard(&in_apply(plugin, 1, 0), &create("/a", &[], &[]), maps);
        outcome.expect("it is no fault of the host").map_err(|fault| fault.kind)
    });
    assert_eq!(came, Err(FaultKind::Trap), "post-return may not call imports");
}

#[test]
fn configure_has_nothing_to_read() {
    let module =
        configured("(drop (call $add (i32.const 0) (i32.const 1) (i64.const 1))) (unreachable)");
    let came = everywhere(&module, |guests, plugin, _| {
        let outcome = guests.configure(&on_read(plugin));
        outcome.expect("it is no fault of the host").map_err(|fault| fault.kind)
    });
    assert_eq!(came, Err(FaultKind::NotGranted));
}

#[test]
fn faults_of_the_environment_pass_through() {
    let reads = |path: &str| {
        let data = format!(r#"(data (i32.const 2048) "{path}")"#);
        let body = format!(
            "(call $tree-get (i32.const 2048) (i32.const {}) (i32.const 3072)) (call $allow)",
            path.len()
        );
        guard(&data, &body)
    };
    let came = everywhere(&reads("/not-granted"), |guests, plugin, maps| {
        guests.guard(&in_apply(plugin, 1, 0), &create("/a", &[], &[]), maps)
    });
    assert_eq!(came.map(|came| came.map_err(|fault| fault.kind)), Ok(Err(FaultKind::NotGranted)));
    let came = everywhere(&reads("/host-fault"), |guests, plugin, maps| {
        guests.guard(&in_apply(plugin, 1, 0), &create("/a", &[], &[]), maps)
    });
    assert_eq!(came, Err(state::Fault::Store("gone".into())));
}
