//! Guests for tests, written by hand in WebAssembly's text and made components of `wit/`. The simulator
//! (`tests/src/sim/plugins`) makes its own of the same parts.

use std::path::Path;
use std::sync::LazyLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

static WIT: LazyLock<(Resolve, PackageId)> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let wit = above.map(|dir| dir.join("wit")).find(|dir| dir.is_dir()).expect("wit/ is there");
    let (package, _) = resolve.push_dir(wit).expect("wit/ is valid");
    (resolve, package)
});

/// A component of these worlds from a core module.
pub(crate) fn component(worlds: &[&str], module: &str) -> Vec<u8> {
    let module = wat::parse_str(module).expect("the module is valid text");
    encoded(worlds, module).expect("it fits the worlds")
}

/// The same from its bytes; or why it cannot be one.
pub(crate) fn encoded(worlds: &[&str], mut module: Vec<u8>) -> Result<Vec<u8>, String> {
    let (resolve, package) = &*WIT;
    for world in worlds {
        let world = resolve.select_world(&[*package], Some(world)).expect("there is such a world");
        embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)
            .expect("it can be embedded");
    }
    let encoder = ComponentEncoder::default().module(&module);
    let encoded = encoder.and_then(|encoder| encoder.validate(true).encode());
    encoded.map_err(|error| format!("{error:#}"))
}

/// What all of them have: imports, memory, an allocator that starts again after each call, and the address
/// of answers.
pub(crate) fn module(items: &str) -> String {
    format!(
        r#"(module
  (import "vivarium:plugin/tree@0.1.0" "get" (func $tree-get (param i32 i32 i32)))
  (import "vivarium:plugin/tree@0.1.0" "children" (func $children (param i32 i32 i32 i32 i32 i32)))
  (import "vivarium:plugin/store@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "vivarium:plugin/store@0.1.0" "put" (func $put (param i32 i32 i32 i32)))
  (import "vivarium:plugin/store@0.1.0" "add" (func $add (param i32 i32 i64) (result i64)))
  (import "vivarium:plugin/store@0.1.0" "scan" (func $scan (param i32 i32 i32 i32 i32 i32)))
  (import "vivarium:plugin/context@0.1.0" "settings" (func $settings (param i32)))
  (import "vivarium:plugin/context@0.1.0" "time-ms" (func $time-ms (result i64)))
  (import "vivarium:plugin/context@0.1.0" "identities" (func $identities (param i32)))
  (import "vivarium:plugin/log@0.1.0" "line" (func $line (param i32 i32)))
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 4096))
  (global $calls (mut i32) (i32.const 0))
  (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get 2) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get 2))))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (block $enough (loop $more
      (br_if $enough (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
      (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
      (br $more)))
    (local.get $at))
  (func $free (global.set $heap (i32.const 4096)))
  {items}
)"#
    )
}

/// A guard. `body` leaves the address of a `result<_, denial>` on the stack; it is given that of the operation
/// as local 0. `$allow` and `$deny` make answers.
pub(crate) fn guard(items: &str, body: &str) -> Vec<u8> {
    component(&["guarding"], &guard_module(items, body))
}

pub(crate) fn guard_module(items: &str, body: &str) -> String {
    module(&format!(
        r#"
  (func $allow (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.const 1024))
  (func $deny (param $code i32) (param $reason i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store (i32.const 1028) (local.get $code))
    (i32.store (i32.const 1032) (local.get $reason))
    (i32.store (i32.const 1036) (local.get $length))
    (i32.const 1024))
  {items}
  (func (export "vivarium:plugin/guard@0.1.0#judge") (param i32) (result i32)
    {body})
  (func (export "cabi_post_vivarium:plugin/guard@0.1.0#judge") (param i32) (call $free))"#
    ))
}

/// An observer. `body` is given the address of the change as local 0.
pub(crate) fn observer(items: &str, body: &str) -> Vec<u8> {
    component(
        &["observing"],
        &module(&format!(
            r#"{items}
  (func (export "vivarium:plugin/observer@0.1.0#observe") (param i32)
    {body}
    (call $free))"#
        )),
    )
}

/// An authorizer. `check` leaves 0 (abstain), 1 (allow) or 2 (deny) on the stack, `authenticate` the address
/// of a `result<list<string>, string>`.
pub(crate) fn authorizer(items: &str, authenticate: &str, check: &str) -> Vec<u8> {
    component(
        &["authorizing"],
        &module(&format!(
            r#"{items}
  (func (export "vivarium:plugin/authorizer@0.1.0#authenticate")
    (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    {authenticate})
  (func (export "vivarium:plugin/authorizer@0.1.0#check")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    {check}
    (call $free))"#
        )),
    )
}

/// A guard that checks its settings first.
pub(crate) fn configured(body: &str) -> Vec<u8> {
    let guard = guard_module(
        &format!(
            r#"(func (export "vivarium:plugin/setup@0.1.0#configure") (result i32)
    {body})"#
        ),
        "(call $allow)",
    );
    component(&["guarding", "configuring"], &guard)
}

/// The word that makes a module stateless, as an item.
pub(crate) const STATELESS: &str = r#"(@custom "vivarium:plugin" "stateless\0a")"#;
