//! Bringing modules in: compiled once, kept on disk, checked before it is used.

use std::fs;
use std::path::Path;
use std::sync::{Arc, mpsc};

use plugin::{Compiler, Guests, Refused, Runtime, Tuning};
use state::hooks::{Hooks, Verdict};
use state::plugins::{ModuleHash, Point};

use crate::env::{Maps, bound, create, in_apply, on_big_stack};
use crate::guest::guard;

const MAX: usize = 4 << 20;

fn runtime(directory: &Path, optimised: bool) -> Arc<Runtime> {
    let tuning = Tuning { optimised, ..Tuning::default() };
    Arc::new(Runtime::new(Some(directory.to_owned()), tuning).expect("there is an engine"))
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let files =
        fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("one").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

fn works(runtime: &Arc<Runtime>, module: &[u8]) {
    on_big_stack(|| {
        let plugin = bound(runtime, module, r#"{"name": "t"}"#);
        let guests = Guests::new(runtime.clone());
        let operation = create("/a", &[], &[]);
        let outcome = guests.guard(&in_apply(&plugin, 1, 0), &operation, &mut Maps::default());
        assert_eq!(outcome, Ok(Ok(Verdict::Allow)));
    });
}

#[test]
fn what_was_compiled_is_kept_and_what_is_damaged_is_compiled_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (cache, module) = (directory.path().join("code"), guard("", "(call $allow)"));
    works(&runtime(&cache, true), &module);
    let [file] = &files(&cache)[..] else { panic!("{:?}", files(&cache)) };
    let whole = fs::read(file).expect("it can be read");
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with(&ModuleHash::of(&module).to_string()), "{name}");
    assert!(name.contains("-48.0.8-") && name.ends_with("-F48.code"), "{name}");

    for damage in [0, 40, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[damage] ^= 1;
        fs::write(file, damaged).expect("it can be written");
        works(&runtime(&cache, true), &module);
        assert_eq!(fs::read(file).expect("it can be read").len(), whole.len());
    }
    for length in [0, 31, 32, 100, whole.len() - 1] {
        fs::write(file, &whole[..length]).expect("it can be written");
        works(&runtime(&cache, true), &module);
    }
}

#[test]
fn other_settings_have_other_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let module = guard("", "(call $allow)");
    works(&runtime(directory.path(), true), &module);
    works(&runtime(directory.path(), false), &module);
    assert_eq!(files(directory.path()).len(), 2);
    let third = runtime(directory.path(), true);
    works(&third, &module);
    third.retain(|_| true);
    assert_eq!(files(directory.path()).len(), 1, "another engine's is deleted");
    third.retain(|hash| *hash != ModuleHash::of(&module));
    assert_eq!(files(directory.path()).len(), 0);
    assert!(!third.is_ready(&ModuleHash::of(&module)));
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = directory.path().join("code");
    let runtime = runtime(&cache, true);
    fs::remove_dir(&cache).expect("it is empty");
    works(&runtime, &guard("", "(call $allow)"));
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    let runtime = Runtime::new(None, Tuning::default()).expect("there is an engine");
    let load = |text: &str| {
        let module = wat::parse_str(text).expect("valid text");
        runtime.load(&module, MAX).expect("it is no fault of the host")
    };
    let other_type = load(
        r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $g (export "judge" (func $f)))
            (export "vivarium:plugin/guard@0.1.0" (instance $g)))"#,
    );
    assert!(matches!(other_type, Err(Refused::Interface(_))), "{other_type:?}");
    let other_name = load(
        r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $g (export "guess" (func $f)))
            (export "vivarium:plugin/guard@0.1.0" (instance $g)))"#,
    );
    assert!(matches!(other_name, Err(Refused::Interface(_))), "{other_name:?}");
    let other_import = load(
        r#"(component
            (import "vivarium:plugin/log@0.1.0" (instance (export "line" (func))))
            (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $g (export "judge" (func $f)))
            (export "vivarium:plugin/guard@0.1.0" (instance $g)))"#,
    );
    assert!(matches!(other_import, Err(Refused::Interface(_))), "{other_import:?}");
    let outside = guard(r#"(data (i32.const 131071) "xx")"#, "(call $allow)");
    let outside = runtime.load(&outside, MAX).expect("it is no fault of the host");
    assert!(matches!(outside, Err(Refused::Instantiation(_))), "{outside:?}");
}

#[test]
fn a_thread_compiles_one_after_the_other() {
    let runtime = Arc::new(Runtime::new(None, Tuning::default()).expect("there is an engine"));
    let compiler = Compiler::start(runtime.clone()).expect("there is a thread");
    let (done, came) = mpsc::channel();
    let modules = [guard("", "(call $allow)"), b"no module".to_vec(), guard("", "(unreachable)")];
    for module in &modules {
        let done = done.clone();
        compiler.load(module.as_slice().into(), MAX, move |loaded| {
            done.send((loaded, rustix::process::nice(0).ok())).expect("somebody waits");
        });
    }
    drop((compiler, done));
    let came: Vec<_> = came.into_iter().collect();
    let points = |came: &plugin::Loaded| match came {
        Ok(Ok((_, exports))) => exports.points.clone(),
        _ => Vec::new(),
    };
    let points: Vec<_> = came.iter().map(|(loaded, _)| points(loaded)).collect();
    assert_eq!(points, [vec![Point::Guard], vec![], vec![Point::Guard]]);
    assert!(runtime.is_ready(&ModuleHash::of(&modules[0])));
    let own = rustix::process::nice(0).expect("it can be asked");
    assert!(came.iter().all(|(_, nice)| nice.is_some_and(|nice| nice > own || nice == 19)));
}

#[test]
fn the_limits_of_the_state_are_within_those_of_the_engine() {
    use state::plugins::PluginLimit;
    let most = |limit: PluginLimit| limit.describe().3;
    assert!(most(PluginLimit::AuthorizerFuel) <= plugin::FUEL_PER_CALL_MAX);
    assert!(most(PluginLimit::AuthenticateFuel) <= plugin::AUTHENTICATE_FUEL_MAX);
    assert!(2 * most(PluginLimit::GuardFuel) <= plugin::FUEL_PER_CALL_MAX);
    assert!(most(PluginLimit::MemoryBytes) <= plugin::MEMORY_BYTES_MAX);
    let deepest = plugin::DEPTH_MAX as usize * plugin::FRAME_BYTES_MAX;
    assert!(4 * deepest <= plugin::WASM_STACK_BYTES);
    const { assert!(plugin::WASM_STACK_BYTES < plugin::THREAD_STACK_BYTES) };
}

#[test]
fn the_engine_is_of_the_version_that_the_cache_names() {
    let lock = include_str!("../../../../Cargo.lock");
    assert!(lock.contains("name = \"wasmtime\"\nversion = \"48.0.8\"\n"), "engine.rs says 48.0.8");
}
