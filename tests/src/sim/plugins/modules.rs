//! The guests, and what operators bind them to.
//!
//! * `quota`: an observer that counts znodes and bytes, and a guard that refuses a create when there are as
//!   many as its settings say.
//! * `wall`: a guard that refuses everything, with a code.
//! * `gate`: an authorizer by path and of the scheme `badge`, which lets in who has an identity beside the
//!   address.
//! * `diary`: a guard that keeps things between calls, and writes them and the time to its store. It refuses the
//!   third operation of a transaction.
//! * `hostile`: a guard and an observer that do what they may not, by their settings, on paths that end in 1.
//! * `alien`: cannot run anywhere.

use std::sync::{Arc, LazyLock};

use plugin::{Runtime, Tuning};
use proto::ErrorCode;
use replica::log::SimRng;
use state::View;
use state::plugins::{Binding, Mode, ModuleHash};

use super::guest::{STATELESS, authorizer, component, guard, guard_module};

/// The binding of `quota`.
pub const QUOTA: &str = "quota";
/// The binding of `wall`.
pub const WALL: &str = "wall";
const GATE: &str = "gate";

/// How many ways there are to be hostile.
const HOSTILE_WAYS: u64 = 9;

/// A module, as an operator has it.
pub(super) struct Module {
    pub(super) hash: ModuleHash,
    pub(super) bytes: Vec<u8>,
}

/// A binding's name, and the modules that it may have.
pub(super) struct Made {
    pub(super) name: &'static str,
    pub(super) modules: Vec<Module>,
}

/// Whether what a module denies is denied with one of these codes; by binding.
pub const DENIES: [(&str, &[ErrorCode]); 4] = [
    (QUOTA, &[ErrorCode::QuotaExceeded]),
    (WALL, &[ErrorCode::ThrottledOp, ErrorCode::BadArguments]),
    (GATE, &[ErrorCode::NoAuth]),
    ("diary", &[ErrorCode::ThrottledOp]),
];

/// Reads the number in the settings.
const NUMBER: &str = "
  (func $number (result i32) (local $at i32) (local $end i32) (local $n i32) (local $c i32)
    (call $settings (i32.const 3072))
    (local.set $at (i32.load (i32.const 3072)))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 3076))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $c (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
      (if (i32.lt_u (local.get $c) (i32.const 10)) (then
        (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10)) (local.get $c)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (local.get $n))";

fn quota(version: u32) -> Vec<u8> {
    // A change: before is at 40, its data's length at 112; after at 120, its data's length at 192.
    let items = format!(
        r#"{STATELESS} {NUMBER}
  (@custom "version" "{version}")
  (data (i32.const 2048) "nb")
  (func (export "vivarium:plugin/observer@0.1.0#observe") (param i32)
    (drop (call $add (i32.const 2048) (i32.const 1) (i64.extend_i32_s (i32.sub
      (i32.load8_u offset=120 (local.get 0)) (i32.load8_u offset=40 (local.get 0))))))
    (drop (call $add (i32.const 2049) (i32.const 1) (i64.sub
      (i64.mul (i64.load8_u offset=120 (local.get 0)) (i64.load32_u offset=192 (local.get 0)))
      (i64.mul (i64.load8_u offset=40 (local.get 0)) (i64.load32_u offset=112 (local.get 0))))))
    (call $free))"#
    );
    let body = "(local $n i64)
    (if (i32.ne (i32.load16_u (local.get 0)) (i32.const 1)) (then (return (call $allow))))
    (call $get (i32.const 2048) (i32.const 1) (i32.const 3080))
    (if (i32.load8_u (i32.const 3080))
      (then (local.set $n (i64.load (i32.load (i32.const 3084))))))
    (if (i64.ge_s (local.get $n) (i64.extend_i32_u (call $number)))
      (then (return (call $deny (i32.const -125) (i32.const 2048) (i32.const 1)))))
    (call $allow)";
    component(&["guarding", "observing"], &guard_module(&items, body))
}

fn wall(code: ErrorCode) -> Vec<u8> {
    let items = format!(r#"{STATELESS} (data (i32.const 2048) "wall")"#);
    let code = code.code();
    guard(&items, &format!("(call $deny (i32.const {code}) (i32.const 2048) (i32.const 4))"))
}

fn gate() -> Vec<u8> {
    // Whether it is about an entry is the sixth, how many identities there are the twelfth.
    let check = "(if (result i32) (i32.ge_u (local.get 12) (i32.const 2))
        (then (local.get 6)) (else (i32.const 2)))";
    authorizer(STATELESS, "(unreachable)", check)
}

fn diary() -> Vec<u8> {
    let items = r#"(data (i32.const 2048) "tc")"#;
    let body = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i64.store (i32.const 2056) (call $time-ms))
    (i32.store (i32.const 2064) (global.get $calls))
    (call $put (i32.const 2048) (i32.const 1) (i32.const 2056) (i32.const 8))
    (call $put (i32.const 2049) (i32.const 1) (i32.const 2064) (i32.const 4))
    (if (i32.eq (global.get $calls) (i32.const 3))
      (then (return (call $deny (i32.const -127) (i32.const 2048) (i32.const 2)))))
    (call $allow)";
    guard(items, body)
}

fn hostile() -> Vec<u8> {
    let ways = [
        // It spins.
        "(loop (br 0))",
        // It takes all memory there is.
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)",
        // It recurses.
        "(drop (call $again (i32.const 0)))",
        // It traps.
        "(unreachable)",
        // It gives back more than may be.
        "(drop (memory.grow (i32.const 32))) (call $line (i32.const 65536) (i32.const 2000000))",
        // It writes and writes.
        "(loop
          (i32.store (i32.const 2060) (local.get $i))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (call $put (i32.const 2060) (i32.const 4) (local.get $path) (local.get $length))
          (br 0))",
        // It says what is no text.
        "(i32.store (i32.const 2064) (i32.const 0xfffefdfc))
        (call $line (i32.const 2064) (i32.const 4))",
        // It reads what it may not.
        "(call $tree-get (i32.const 2052) (i32.const 4) (i32.const 3100))",
        // It writes and reads as much as it may.
        "(loop
          (i32.store (i32.const 2060) (i32.rem_u (local.get $i) (i32.const 17)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (call $put (i32.const 2060) (i32.const 4) (local.get $path) (local.get $length))
          (call $scan (i32.const 2060) (i32.const 1) (i32.const 2060) (i32.const 0)
            (i32.const 256) (i32.const 3100))
          (br_if 0 (i32.lt_u (local.get $i) (i32.const 20))))",
    ];
    assert_eq!(ways.len() as u64, HOSTILE_WAYS);
    let ways: String = (0..)
        .zip(ways)
        .map(|(way, body)| {
            format!("(if (i32.eq (local.get $way) (i32.const {way})) (then {body}))\n")
        })
        .collect();
    let items = format!(
        r#"{NUMBER}
  (data (i32.const 2048) "n")
  (data (i32.const 2052) "/s/b")
  (func $again (param i32) (result i32) (i32.add (i32.const 1) (call $again (local.get 0))))
  (func $misbehave (param $path i32) (param $length i32) (local $way i32) (local $i i32)
    (if (i32.ne (i32.const 49)
        (i32.load8_u (i32.sub (i32.add (local.get $path) (local.get $length)) (i32.const 1))))
      (then (return)))
    (drop (call $add (i32.const 2048) (i32.const 1) (i64.const 1)))
    (local.set $way (call $number))
    {ways})
  (func (export "vivarium:plugin/observer@0.1.0#observe") (param i32)
    (call $misbehave (i32.load offset=4 (local.get 0)) (i32.load offset=8 (local.get 0)))
    (call $free))"#
    );
    let body =
        "(call $misbehave (i32.load offset=4 (local.get 0)) (i32.load offset=8 (local.get 0)))
    (call $allow)";
    component(&["guarding", "observing"], &guard_module(&items, body))
}

fn alien() -> Vec<u8> {
    let text = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#;
    wat::parse_str(text).expect("the component is valid text")
}

/// All of them.
pub(super) static MADE: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let made = |name, modules: Vec<Vec<u8>>| {
        let module = |bytes: Vec<u8>| Module { hash: ModuleHash::of(&bytes), bytes };
        Made { name, modules: modules.into_iter().map(module).collect() }
    };
    vec![
        made(QUOTA, vec![quota(1), quota(2)]),
        made(WALL, vec![wall(ErrorCode::ThrottledOp), wall(ErrorCode::BadArguments)]),
        made(GATE, vec![gate()]),
        made("diary", vec![diary()]),
        made("hostile", vec![hostile()]),
        made("alien", vec![alien()]),
    ]
});

/// The engines, with all modules compiled: each is tuned otherwise.
static RUNTIMES: LazyLock<Vec<Arc<Runtime>>> = LazyLock::new(|| {
    let tunings = [
        Tuning::default(),
        Tuning { optimised: false, ..Tuning::default() },
        Tuning { copy_on_write: false, ..Tuning::default() },
    ];
    let runtime = |tuning| {
        let runtime = Runtime::new(None, tuning).expect("there is an engine");
        let modules = MADE.iter().flat_map(|made| &made.modules);
        modules.for_each(|module| drop(runtime.load(&module.bytes, usize::MAX)));
        Arc::new(runtime)
    };
    tunings.into_iter().map(runtime).collect()
});

/// The engine of a server.
pub fn runtime(server: u64) -> Arc<Runtime> {
    Arc::clone(&RUNTIMES[server as usize % RUNTIMES.len()])
}

/// What an operator binds a module to.
pub(super) fn binding(name: &str, rng: &mut SimRng) -> Binding {
    let mode = mode(rng);
    let fault = ["deny", "allow"][rng.below(2) as usize];
    let (matches, settings) = match name {
        // Where there may be a crowd, building takes several steps.
        QUOTA if rng.chance(40) => (r#"["/s/a/**", "/s/crowd/**"]"#, 1000 + rng.below(2000)),
        QUOTA => (r#"["/s/a/**"]"#, 2 + rng.below(8)),
        WALL => (r#"["/s/b/x1", "/s/b/x1/**"]"#, 0),
        GATE => (r#"["/g/**"]"#, 0),
        "hostile" => (r#"["/s/c/*", "/s/a/x1"]"#, rng.below(HOSTILE_WAYS)),
        _ => (r#"["/s/b/*", "/s/a/x0"]"#, 0),
    };
    let more = match name {
        GATE => r#", "schemes": ["badge"]"#,
        // Without the observer nothing is built, and without the guard nobody is refused.
        "hostile" => {
            ["", r#", "points": ["guard"]"#, r#", "points": ["observer"]"#][rng.below(3) as usize]
        }
        _ => "",
    };
    let text = format!(
        r#"{{"name": "{name}", "mode": "{mode}", "priority": {}, "match": {matches},
            "on-fault": "{fault}", "settings": {{"n": {settings}}}{more}}}"#,
        rng.below(3)
    );
    serde_json::from_str(&text).expect("it is a binding")
}

/// What an operator has a binding do.
pub(super) fn mode(rng: &mut SimRng) -> Mode {
    match rng.below(10) {
        0 => Mode::Off,
        1 => Mode::Shadow,
        2 | 3 => Mode::Warn,
        _ => Mode::Enforce,
    }
}

/// Whether the gate decides who gets in.
pub fn gate_enforces(view: &View) -> bool {
    view.plugins.row(GATE).is_some_and(|row| {
        row.active.is_some() && row.quarantine.is_none() && row.mode == Mode::Enforce
    })
}

/// How many znodes a quota's binding lets there be.
pub fn most(binding: &Binding) -> usize {
    let digits: String = binding.settings.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("its settings have a number")
}
