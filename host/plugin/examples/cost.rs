//! What a call costs: prints the time of a fresh instance and of one that is used again.
//!
//! `cargo run --release -p plugin --example cost [MODULE.wasm SETTINGS.json]`: without a module, a guard that reads a znode
//! and a counter, of two pages of memory. Times are of this thread's processor, in microseconds; of each kind
//! the middle one of 200 rounds.

#[path = "../tests/it/env.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod env;
#[path = "../tests/it/guest.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod guest;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plugin::{Guests, Tuning};
use proto::{Acl, Id};
use rustix::time::{ClockId, clock_gettime};
use state::hooks::{Hooks, Scope};
use state::plugins::{Instance, Plugin};

use crate::env::{Maps, create, in_apply, loaded, on_big_stack, on_read, read};

const CALLS: u32 = 500;
const ROUNDS: usize = 200;

fn main() {
    let module = std::env::args().nth(1).map(|path| std::fs::read(path).expect("the module"));
    on_big_stack(|| {
        let items = r#"(data (i32.const 2048) "/tenants/a/limits")"#;
        let body = "(call $tree-get (i32.const 2048) (i32.const 17) (i32.const 3072))
            (call $get (i32.const 2048) (i32.const 10) (i32.const 3072)) (call $allow)";
        let module = module
            .clone()
            .unwrap_or_else(|| guest::guard(&format!("{items} {}", guest::STATELESS), body));
        for tuning in [
            Tuning::default(),
            Tuning { copy_on_write: false, ..Tuning::default() },
            Tuning { pooled: false, ..Tuning::default() },
        ] {
            println!("{tuning:?}");
            let (guests, mut plugin) = loaded(&module, tuning);
            if let Some(settings) = std::env::args().nth(2) {
                let settings = std::fs::read_to_string(settings).expect("the settings");
                Arc::make_mut(&mut plugin.binding).settings = settings;
            }
            guard(&guests, &plugin);
        }
        let (guests, plugin) = loaded(
            &guest::authorizer(guest::STATELESS, "(unreachable)", "(i32.const 1)"),
            Tuning::default(),
        );
        authorizer(&guests, &plugin);
    });
}

fn guard(guests: &Guests, plugin: &Plugin) {
    let mut maps = Maps::default();
    maps.tree.insert("/tenants/a/limits".into(), Bytes::from_static(&[b'l'; 60]));
    maps.store.insert(b"/tenants/a".to_vec(), vec![0; 8]);
    let (acl, identities) = ([Acl::world(31)], [Id::new("ip", "10.0.0.7")]);
    let operation = create("/tenants/a/app/config", &acl, &identities);
    for instance in [Instance::Transaction, Instance::Entry] {
        let mut plugin = plugin.clone();
        let mut binding = (*plugin.binding).clone();
        binding.instance = Some(instance);
        plugin.binding = binding.into();
        let taken = time(|call| {
            guests.transaction_begins(Scope::Apply { index: 1, transaction: call });
            let outcome = guests.guard(&in_apply(&plugin, 1, call), &operation, &mut maps);
            assert!(matches!(outcome, Ok(Ok(_))), "{outcome:?}");
        });
        guests.entry_ends();
        println!("  guard, an instance for each {instance:?}: {taken:.2} us");
    }
}

fn authorizer(guests: &Guests, plugin: &Plugin) {
    let identities = [Id::new("token", "alice"), Id::new("ip", "10.0.0.7")];
    let mut maps = Maps::default();
    let taken = time(|_| {
        let check = read(Some(&identities[0]), &identities);
        let outcome = guests.check(&on_read(plugin), &check, &mut maps);
        assert!(matches!(outcome, Ok(Ok(_))), "{outcome:?}");
    });
    println!("  authorizer on a read, stateless: {taken:.2} us");
    let plugin = Plugin {
        exports: state::plugins::Exports { is_stateless: false, ..plugin.exports.clone() },
        ..plugin.clone()
    };
    let taken = time(|_| {
        let check = read(Some(&identities[0]), &identities);
        let outcome = guests.check(&on_read(&plugin), &check, &mut maps);
        assert!(matches!(outcome, Ok(Ok(_))), "{outcome:?}");
    });
    println!("  authorizer on a read, any other: {taken:.2} us");
}

/// The middle of some rounds of calls, for one call.
fn time(mut call: impl FnMut(u32)) -> f64 {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let before = now();
            (0..CALLS).for_each(&mut call);
            (now() - before).as_secs_f64() * 1e6 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
