//! Modules that nobody wrote go in, and nothing breaks: each is refused, or comes to the same on engines that
//! are tuned as differently as they can be. `tests/smith` makes them.
//!
//! `GENERATED=FROM..TO` runs other seeds than the few hundred of every run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use plugin::{Guests, Runtime, Tuning, inspect};
use proto::{Id, Stat};
use state::hooks::Hooks;
use state::plugins::{ModuleHash, Point};

use crate::env::{Maps, bound, create, created, in_apply, on_big_stack, read};
use crate::guest::encoded;

const MAX: usize = 4 << 20;

/// What was made, by the ends of the files' names: by seed.
static MADE: LazyLock<BTreeMap<String, BTreeMap<u64, Vec<u8>>>> = LazyLock::new(|| {
    let seeds = std::env::var_os("GENERATED").unwrap_or_else(|| "0..200".into());
    let smith = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/smith/Cargo.toml");
    let out = tempfile::tempdir().expect("a directory");
    let mut run = Command::new(env!("CARGO"));
    run.args(["run", "--quiet", "--locked", "--manifest-path"]).arg(smith);
    run.arg("--target-dir").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("smith"));
    let status = run.arg("--").arg(seeds).arg(out.path()).status().expect("cargo can be started");
    assert!(status.success(), "no modules were made: {status}");
    let mut made: BTreeMap<String, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    for file in std::fs::read_dir(out.path()).expect("it is there") {
        let path = file.expect("it is there").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let (seed, kind) = name.split_once('.').expect("a seed and a kind");
        let bytes = std::fs::read(&path).expect("it can be read");
        made.entry(kind.to_owned()).or_default().insert(seed.parse().expect("a seed"), bytes);
    }
    made
});

fn engines() -> [Arc<Runtime>; 2] {
    let plain = Tuning { optimised: false, pooled: false, copy_on_write: false };
    [Tuning::default(), plain]
        .map(|tuning| Arc::new(Runtime::new(None, tuning).expect("there is an engine")))
}

/// What calls of a module come to, and what it takes and leaves.
fn calls(runtime: &Arc<Runtime>, module: &[u8]) -> Vec<String> {
    let plugin = bound(runtime, module, r#"{"name": "generated"}"#);
    let guests = Guests::new(Arc::clone(runtime));
    let mut maps = Maps::default();
    maps.tree.insert("/a".to_owned(), "data".into());
    let (id, after) = ([Id::new("ip", "10.0.0.7")], Stat::default());
    let mut came = Vec::new();
    for transaction in 0..2 {
        let call = in_apply(&plugin, 1, transaction);
        guests.transaction_begins(call.scope);
        for point in [Point::Guard, Point::Observer, Point::Authorizer] {
            maps.fuel = None;
            let outcome = match point {
                Point::Guard => {
                    let outcome = guests.guard(&call, &create("/a/b", &[], &id), &mut maps);
                    outcome.map(|came| came.map(|said| format!("{said:?}")))
                }
                Point::Observer => {
                    let outcome = guests.observe(&call, &created("/a/b", &after), &mut maps);
                    outcome.map(|came| came.map(|()| String::new()))
                }
                _ => {
                    let outcome = guests.check(&call, &read(None, &id), &mut maps);
                    outcome.map(|came| came.map(|said| format!("{said:?}")))
                }
            };
            let outcome = outcome.expect("it is no fault of the host").map_err(|fault| fault.kind);
            came.push(format!("{point}: {outcome:?}, fuel {:?}", maps.fuel));
        }
    }
    guests.entry_ends();
    came.push(format!("{:?} {:?}", maps.store, maps.lines));
    came
}

#[test]
fn modules_that_nobody_wrote_come_to_the_same_on_every_engine() {
    let (mut ran, mut well) = (0, 0);
    let guests = &MADE["guest"];
    on_big_stack(|| {
        let engines = engines();
        for (seed, guest) in guests {
            let worlds = ["guarding", "observing", "authorizing"];
            let Ok(module) = encoded(&worlds, guest.clone()) else { continue };
            let loaded = engines.each_ref().map(|engine| {
                let loaded = engine.load(&module, MAX).expect("it is no fault of the host");
                loaded.map(|(_, exports)| exports)
            });
            assert_eq!(loaded[0], loaded[1], "seed {seed}");
            if loaded[0].is_err() {
                continue;
            }
            let came = engines.each_ref().map(|engine| calls(engine, &module));
            assert_eq!(came[0], came[1], "seed {seed}");
            ran += 1;
            well += usize::from(came[0].iter().any(|line| line.contains("Ok(")));
            engines
                .iter()
                .for_each(|engine| engine.retain(|hash| *hash != ModuleHash::of(&module)));
        }
    });
    println!("{ran} of {} ran, {well} of them well at some point", guests.len());
    assert!(ran * 2 > guests.len() && well * 4 > ran, "{ran} of {} ran, {well} well", guests.len());
}

#[test]
fn files_that_nobody_wrote_are_refused_everywhere_alike() {
    on_big_stack(|| {
        let engines = engines();
        for (seed, file) in &MADE["file"] {
            let found = inspect(file, MAX);
            for engine in &engines {
                let loaded = engine.load(file, MAX).expect("it is no fault of the host");
                assert_eq!(loaded.map(|(_, exports)| exports), found, "seed {seed}");
            }
            // A part of it is nothing at all.
            let part = &file[..file.len() * 2 / 3];
            assert!(inspect(part, MAX).is_err(), "seed {seed}");
        }
    });
}
