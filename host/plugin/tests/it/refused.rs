//! What is refused before it is compiled, and why.

use plugin::{Refused, inspect};
use state::plugins::Point;

use crate::guest::{self, component, guard, guard_module, module};

const MAX: usize = 4 << 20;

#[test]
fn a_module_says_what_it_is() {
    let plain = inspect(&guard("", "(call $allow)"), MAX).expect("it is a plugin");
    assert_eq!((plain.points, plain.is_stateless), (vec![Point::Guard], false));

    let both = module(&format!(
        r#"{}
  (func (export "vivarium:plugin/observer@0.1.0#observe") (param i32))
  (func (export "vivarium:plugin/view@0.1.0#update") (param i32) (result i32) (i32.const 1024))"#,
        guest::STATELESS
    ));
    let both = inspect(&component(&["viewing", "observing"], &both), MAX).expect("it is a plugin");
    assert_eq!((both.points, both.is_stateless), (vec![Point::Observer, Point::View], true));
}

#[test]
fn a_truncated_file_is_not_valid_at_any_length() {
    let whole = guard("", "(call $allow)");
    // Behind the exports there are only names, which may be left out: a cut between two of those sections makes
    // another module, with another hash.
    let ends: Vec<usize> = wasmparser::Parser::new(0)
        .parse_all(&whole)
        .filter_map(|payload| {
            payload.expect("it is valid").as_section().map(|(_, range)| range.end)
        })
        .collect();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        let refused = inspect(&whole[..length], MAX);
        if refused.is_ok() && ends.contains(&length) {
            continue;
        }
        assert!(
            matches!(refused, Err(Refused::Invalid { .. } | Refused::NoPoint)),
            "{length} of {} bytes: {refused:?}",
            whole.len()
        );
    }
}

#[test]
fn damage_is_never_a_panic() {
    let whole = guard("", "(call $allow)");
    for at in (0..whole.len()).step_by(3) {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            // It may be valid still: a name, an operand.
            let _ = inspect(&damaged, MAX);
        }
    }
}

#[test]
fn a_file_that_is_too_big_is_not_read() {
    let big = vec![0; 100 << 20];
    assert_eq!(inspect(&big, MAX), Err(Refused::TooBig { bytes: 100 << 20, max: MAX }));
}

/// Why this component, in text, is refused.
fn why(text: &str) -> Refused {
    let bytes = wat::parse_str(text).expect("valid text");
    inspect(&bytes, MAX).expect_err("it should be refused")
}

#[test]
fn what_is_no_plugin_is_refused() {
    assert_eq!(why("(module)"), Refused::NotComponent);
    assert_eq!(why("(component)"), Refused::NoPoint);
    assert_eq!(
        why(r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#),
        Refused::Import("wasi:clocks/wall-clock@0.2.0".into())
    );
    assert_eq!(
        why(r#"(component (import "vivarium:plugin/tree@0.2.0" (instance)))"#),
        Refused::Import("vivarium:plugin/tree@0.2.0".into())
    );
    assert_eq!(
        why(r#"(component (import "vivarium:plugin/tree@0.1.0" (func)))"#),
        Refused::Import("vivarium:plugin/tree@0.1.0".into())
    );
    // What only looks like one: the name is right, and it is a function.
    assert_eq!(
        why(r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (export "guard" (func $f)))"#),
        Refused::NoPoint
    );
}

#[test]
fn what_the_profile_has_not_is_not_valid() {
    let instructions = [
        "(drop (v128.const i32x4 0 0 0 0))",
        "(return_call $again)",
        "(drop (memory.atomic.notify (i32.const 0) (i32.const 0)))",
    ];
    for instruction in instructions {
        let text = format!(
            r#"(component (core module (memory 1) (func $again {instruction}) (func (export "f"))))"#
        );
        assert!(matches!(why(&text), Refused::Invalid { .. }), "{instruction}: {:?}", why(&text));
    }
    for memories in ["(memory i64 1)", "(memory 1) (memory 1)", "(memory 1 1 shared)"] {
        let text = format!("(component (core module {memories}))");
        assert!(matches!(why(&text), Refused::Invalid { .. }), "{memories}: {:?}", why(&text));
    }
}

#[test]
fn code_that_runs_by_itself_is_refused() {
    let start = guard("(func $begin) (start $begin)", "(call $allow)");
    assert_eq!(inspect(&start, MAX), Err(Refused::Start));
    // What componentizing makes of `_initialize`.
    let reactor = guard(r#"(func (export "_initialize"))"#, "(call $allow)");
    assert_eq!(inspect(&reactor, MAX), Err(Refused::Start));
}

#[test]
fn frames_are_bounded() {
    let with_locals = |count: usize| {
        let body = format!("(local {}) (call $allow)", "i64 ".repeat(count));
        inspect(&guard("", &body), MAX)
    };
    // The parameter and the one operand count too.
    assert!(with_locals(510).is_ok());
    let refused = with_locals(511);
    assert!(matches!(refused, Err(Refused::Frame { bytes: 8208, max: 8192, .. })), "{refused:?}");
    let operands = format!("{} {} (call $allow)", "(i32.const 1)".repeat(600), "drop ".repeat(600));
    assert!(matches!(inspect(&guard("", &operands), MAX), Err(Refused::Frame { .. })));
}

#[test]
fn there_is_no_more_than_the_pool_has_room_for() {
    let too_many = |what: &str, items: &str| {
        let refused = inspect(&guard(items, "(call $allow)"), MAX);
        assert!(
            matches!(&refused, Err(Refused::TooMany { what: found, .. }) if *found == what),
            "{what}: {refused:?}"
        );
    };
    too_many("elements of a table", "(table 10001 funcref)");
    too_many("tables", &"(table 1 funcref)".repeat(9));
    too_many("globals of a core module", &"(global i32 (i32.const 0))".repeat(10_001));
    let big = guard_module("", "(call $allow)").replace(r#""memory") 2)"#, r#""memory") 1025)"#);
    let refused = inspect(&component(&["guarding"], &big), MAX);
    assert!(
        matches!(refused, Err(Refused::TooMany { what: "pages of memory", .. })),
        "{refused:?}"
    );

    let twice = "(component (core module $m (memory 1))
        (core instance (instantiate $m)) (core instance (instantiate $m)))";
    assert_eq!(why(twice), Refused::TooMany { what: "memories", found: 2, max: 1 });
    let often =
        format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(17));
    assert_eq!(why(&often), Refused::TooMany { what: "core instances", found: 17, max: 16 });
}

#[test]
fn one_component_is_one_component() {
    assert_eq!(
        why("(component (component (core module)))"),
        Refused::Shape("has core modules in a nested component")
    );
    assert_eq!(
        why(
            r#"(component (core module $m (memory (export "memory") 1) (func (export "f") (param i32 i32)))
            (core instance $i (instantiate $m))
            (import "vivarium:plugin/log@0.1.0" (instance $log (export "line" (func (param "text" string)))))
            (alias export $log "line" (func $line))
            (core func (canon lower (func $line) (memory $i "memory") string-encoding=utf16)))"#
        ),
        Refused::Shape("has strings that are not UTF-8")
    );
    assert_eq!(
        why("(component (type $r (resource (rep i32))) (core func (canon resource.new $r)))"),
        Refused::Shape("uses resources, or what is asynchronous")
    );
}

#[test]
fn words_that_are_not_known_are_refused() {
    let says = |words: &str| {
        let section = format!(r#"(@custom "vivarium:plugin" "{words}")"#);
        inspect(&guard(&section, "(call $allow)"), MAX)
    };
    assert!(says("  stateless\\0astateless ").expect("it is known").is_stateless);
    assert_eq!(says("stateless pure"), Err(Refused::Word("pure".into())));
}
