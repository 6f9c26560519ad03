//! The five calls: what goes in arrives, what is said comes out.

use plugin::Tuning;
use proto::{Acl, ErrorCode, Id, Stat};
use state::hooks::{Decision, Hooks, Verdict};

use crate::env::{Maps, create, created, in_apply, loaded, on_big_stack, on_read, read, token};
use crate::guest::{authorizer, configured, guard, observer};

/// A guard that puts what it finds at these addresses into its store: the offset in its arguments, the length,
/// and whether there is a pointer to what is meant.
fn seen(parts: &[(usize, usize, bool)]) -> Vec<u8> {
    let put: String = parts
        .iter()
        .enumerate()
        .map(|(key, (offset, length, is_pointer))| {
            let at = match is_pointer {
                true => format!("(i32.load offset={offset} (local.get 0))"),
                false => format!("(i32.add (local.get 0) (i32.const {offset}))"),
            };
            format!(
                "(i32.store8 (i32.const 2048) (i32.const {key}))
                 (call $put (i32.const 2048) (i32.const 1) {at} (i32.const {length}))"
            )
        })
        .collect();
    guard("", &format!("{put} (call $allow)"))
}

#[test]
fn an_operation_arrives_whole() {
    let module = seen(&[
        (0, 2, false),   // op
        (4, 4, true),    // path
        (8, 4, false),   // its length
        (12, 1, false),  // data is some
        (16, 100, true), // data
        (28, 4, false),  // entries of the ACL
        (32, 2, false),  // mode
        (48, 4, false),  // version
        (68, 8, false),  // index and operations
        (80, 1, false),  // before is some
        (152, 4, false), // its data length
    ]);
    on_big_stack(|| {
        let (guests, plugin) = loaded(&module, Tuning::default());
        let mut maps = Maps::default();
        let (acl, before) =
            ([Acl::world(31), Acl::world(1)], Stat { data_length: 12, ..Stat::default() });
        let mut operation = create("/a/b", &acl, &[]);
        (operation.index, operation.of_multi, operation.before) = (2, 3, Some(&before));
        let outcome = guests.guard(&in_apply(&plugin, 1, 0), &operation, &mut maps);
        assert_eq!(outcome, Ok(Ok(Verdict::Allow)));
        let found: Vec<&[u8]> = maps.store.values().map(Vec::as_slice).collect();
        let expected: [&[u8]; 11] = [
            &[1, 0],
            b"/a/b",
            &[4, 0, 0, 0],
            &[1],
            &[b'x'; 100],
            &[2, 0, 0, 0],
            &[0, 0],
            &[255; 4],
            &[2, 0, 0, 0, 3, 0, 0, 0],
            &[1],
            &[12, 0, 0, 0],
        ];
        assert_eq!(found, expected);
    });
}

#[test]
fn a_denial_carries_its_code_and_reason() {
    let items = r#"(data (i32.const 2048) "too many")"#;
    let module = guard(items, "(call $deny (i32.const -125) (i32.const 2048) (i32.const 8))");
    on_big_stack(|| {
        let (guests, plugin) = loaded(&module, Tuning::default());
        let outcome =
            guests.guard(&in_apply(&plugin, 1, 0), &create("/a", &[], &[]), &mut Maps::default());
        let denied = Verdict::Deny { code: ErrorCode::QuotaExceeded, reason: "too many".into() };
        assert_eq!(outcome, Ok(Ok(denied)));
    });
}

#[test]
fn a_change_arrives_and_a_counter_counts() {
    // change: op 0, cause 2, path 4, mode 12, ttl 16, data 24, before 40, after 120.
    let body = "(call $put (i32.const 2048) (i32.const 1)
            (i32.load offset=4 (local.get 0)) (i32.load offset=8 (local.get 0)))
        (drop (call $add (i32.const 2049) (i32.const 1)
            (i64.load offset=16 (local.get 0))))
        (drop (call $add (i32.const 2050) (i32.const 1)
            (i64.load32_u offset=192 (local.get 0))))";
    let module = observer(r#"(data (i32.const 2048) "ptl")"#, body);
    on_big_stack(|| {
        let (guests, plugin) = loaded(&module, Tuning::default());
        let mut maps = Maps::default();
        let after = Stat { data_length: 3, ..Stat::default() };
        for transaction in 0..2 {
            let change = created("/a/b", &after);
            let outcome = guests.observe(&in_apply(&plugin, 1, transaction), &change, &mut maps);
            assert_eq!(outcome, Ok(Ok(())));
        }
        let counter = |n: i64| n.to_le_bytes().to_vec();
        assert_eq!(maps.store[b"p".as_slice()], b"/a/b");
        assert_eq!(maps.store[b"t".as_slice()], counter(1000));
        assert_eq!(maps.store[b"l".as_slice()], counter(6));
    });
}

#[test]
fn an_authorizer_is_asked_with_the_entry_and_all_identities() {
    // question: op, perm, path, consulted, entry (some, scheme, id), identities, attributes.
    let check = "(if (result i32) (local.get 6)
        (then (select (i32.const 1) (i32.const 2) (i32.eq (local.get 12) (i32.const 2))))
        (else (i32.const 0)))";
    let authenticate = r#"(i32.store8 (i32.const 1024) (i32.const 0))
        (i32.store (i32.const 1028) (i32.const 1040)) (i32.store (i32.const 1032) (i32.const 1))
        (i32.store (i32.const 1040) (local.get 2)) (i32.store (i32.const 1044) (local.get 3))
        (i32.const 1024)"#;
    let module = authorizer("", authenticate, check);
    on_big_stack(|| {
        let (guests, plugin) = loaded(&module, Tuning::default());
        let (alice, ip) = (Id::new("token", "alice"), Id::new("ip", "::1"));
        let both = [alice.clone(), ip];
        for (entry, identities, expected) in [
            (Some(&alice), &both[..], Decision::Allow),
            (Some(&alice), &both[..1], Decision::Deny),
            (None, &both[..], Decision::Abstain),
        ] {
            for call in [on_read(&plugin), in_apply(&plugin, 1, 0)] {
                let outcome = guests.check(&call, &read(entry, identities), &mut Maps::default());
                assert_eq!(outcome, Ok(Ok(expected)));
            }
        }
        let outcome =
            guests.authenticate(&on_read(&plugin), &token(b"alice"), &mut Maps::default());
        assert_eq!(outcome, Ok(Ok(Ok(vec!["alice".to_owned()]))));
    });
}

#[test]
fn settings_are_checked_as_json() {
    // An error, whose text is the settings.
    let body = "(call $settings (i32.const 1040))
        (i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store (i32.const 1028) (i32.load (i32.const 1040)))
        (i32.store (i32.const 1032) (i32.load (i32.const 1044)))
        (i32.const 1024)";
    on_big_stack(|| {
        let (guests, plugin) = loaded(&configured(body), Tuning::default());
        assert_eq!(guests.configure(&on_read(&plugin)), Ok(Ok(Err(r#"{"max":7}"#.into()))));
        let (guests, plugin) = loaded(&guard("", "(call $allow)"), Tuning::default());
        assert_eq!(guests.configure(&on_read(&plugin)), Ok(Ok(Ok(()))), "it has none to check");
    });
}

#[test]
fn a_small_stack_is_the_hosts_fault() {
    let (guests, plugin) = loaded(&guard("", "(call $allow)"), Tuning::default());
    let outcome =
        guests.guard(&in_apply(&plugin, 1, 0), &create("/a", &[], &[]), &mut Maps::default());
    assert!(matches!(outcome, Err(state::Fault::Waiting(_))), "{outcome:?}");
}

#[test]
fn a_module_that_is_not_here_is_the_hosts_fault() {
    on_big_stack(|| {
        let (guests, mut plugin) = loaded(&guard("", "(call $allow)"), Tuning::default());
        assert!(guests.is_ready(&plugin));
        plugin.module.0[0] ^= 1;
        assert!(!guests.is_ready(&plugin));
        let outcome =
            guests.guard(&in_apply(&plugin, 1, 0), &create("/a", &[], &[]), &mut Maps::default());
        assert!(matches!(outcome, Err(state::Fault::Waiting(_))), "{outcome:?}");
    });
}
