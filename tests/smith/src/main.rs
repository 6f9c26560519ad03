//! `smith FROM..TO OUT`: modules that nobody wrote, two of each seed, for `host/plugin/tests/it/generated.rs`.
//!
//! * `N.guest`: a core module of the shape of a plugin's.
//! * `N.file`: a module or a component of any shape.
//!
//! A workspace of its own: what it depends on would have the engine built once more, with other features.

use std::path::Path;

use arbitrary::Unstructured;
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{CodeSection, CustomSection, Function, Instruction, MemArg};
use wasm_smith::{Component, Config, Module};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// Numbers from a seed (splitmix64).
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect()
}

/// Features and sizes of the profile.
fn config() -> Config {
    Config {
        allow_start_export: false,
        exceptions_enabled: false,
        gc_enabled: false,
        max_funcs: 20,
        max_instructions: 200,
        max_memory32_bytes: 1 << 20,
        max_table_elements: 1000,
        memory64_enabled: false,
        // References to what is outside are among them, which the profile has not.
        reference_types_enabled: false,
        relaxed_simd_enabled: false,
        simd_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        ..Config::default()
    }
}

/// What a guest imports and exports; the functions `g` are those that matter.
fn shape() -> Vec<u8> {
    let text = r#"(module
  (import "vivarium:plugin/tree@0.1.0" "get" (func (param i32 i32 i32)))
  (import "vivarium:plugin/store@0.1.0" "get" (func (param i32 i32 i32)))
  (import "vivarium:plugin/store@0.1.0" "put" (func (param i32 i32 i32 i32)))
  (import "vivarium:plugin/store@0.1.0" "add" (func (param i32 i32 i64) (result i64)))
  (import "vivarium:plugin/context@0.1.0" "time-ms" (func (result i64)))
  (import "vivarium:plugin/log@0.1.0" "line" (func (param i32 i32)))
  (memory (export "memory") 2 16)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "vivarium:plugin/guard@0.1.0#judge") (param i32) (result i32) unreachable)
  (func (export "vivarium:plugin/observer@0.1.0#observe") (param i32) unreachable)
  (func (export "vivarium:plugin/authorizer@0.1.0#authenticate")
    (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "vivarium:plugin/authorizer@0.1.0#check")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "g0") (param i32 i64) (result i64) unreachable)
  (func (export "g1") (param i32 i64) (result i64) unreachable)
  (func (export "g2") (param i32 i64) (result i64) unreachable))"#;
    wat::parse_str(text).expect("the shape is valid text")
}

/// Where the functions of a generated module are.
struct Found {
    imported: u32,
    put: u32,
    /// By what they are exported as.
    exported: Vec<(String, u32)>,
}

impl Found {
    fn of(module: &[u8]) -> Self {
        let mut found = Self { imported: 0, put: 0, exported: Vec::new() };
        for payload in Parser::new(0).parse_all(module) {
            match payload.expect("it is valid") {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.expect("it is valid");
                        if let TypeRef::Func(_) = import.ty {
                            if import.name == "put" {
                                found.put = found.imported;
                            }
                            found.imported += 1;
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.expect("it is valid");
                        if export.kind == ExternalKind::Func {
                            found.exported.push((export.name.to_owned(), export.index));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn index(&self, name: &str) -> u32 {
        let found = self.exported.iter().find(|(known, _)| known == name);
        found.map(|(_, index)| *index).expect("the shape has it")
    }

    /// The body of a function that is not left to chance: what the others need to be called at all, and to have
    /// what they come to seen.
    fn body(&self, index: u32) -> Option<Function> {
        use Instruction as I;
        let name = self.exported.iter().find(|(_, known)| *known == index).map(|(name, _)| name)?;
        let at = |offset| MemArg { offset, align: 0, memory_index: 0 };
        let run = |g: &str| {
            let asked = [I::LocalGet(0), I::I64Const(7), I::Call(self.index(g))];
            let put = [16, 1, 24, 8].map(I::I32Const).into_iter().chain([I::Call(self.put)]);
            let before = [I::I32Const(24)].into_iter().chain(asked);
            before.chain([I::I64Store(at(0))]).chain(put).collect::<Vec<_>>()
        };
        let code = match name.rsplit('#').next()? {
            // The end of what is given stands at 8; it begins behind the first KiB.
            "cabi_realloc" => vec![
                I::I32Const(8),
                I::I32Const(8),
                I::I32Load(at(0)),
                I::I32Const(1024),
                I::I32Const(8),
                I::I32Load(at(0)),
                I::Select,
                I::LocalGet(2),
                I::I32Add,
                I::I32Const(1),
                I::I32Sub,
                I::I32Const(0),
                I::LocalGet(2),
                I::I32Sub,
                I::I32And,
                I::LocalTee(0),
                I::LocalGet(3),
                I::I32Add,
                I::I32Store(at(0)),
                I::LocalGet(0),
            ],
            "judge" => {
                let allow = [I::I32Const(32), I::I32Const(0), I::I32Store8(at(0)), I::I32Const(32)];
                run("g0").into_iter().chain(allow).collect()
            }
            "observe" => run("g1"),
            "check" => vec![
                I::LocalGet(0),
                I::I64Const(7),
                I::Call(self.index("g2")),
                I::I64Const(3),
                I::I64RemU,
                I::I32WrapI64,
            ],
            _ => return None,
        };
        let mut function = Function::new([]);
        for instruction in code.iter().chain([&I::End]) {
            function.instruction(instruction);
        }
        Some(function)
    }
}

/// Puts the bodies in that are not left to chance.
struct Bodies {
    found: Found,
    next: u32,
}

impl Reencode for Bodies {
    type Error = std::convert::Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        function: wasmparser::FunctionBody<'_>,
    ) -> Result<(), wasm_encoder::reencode::Error<Self::Error>> {
        let index = self.next;
        self.next += 1;
        match self.found.body(index) {
            Some(body) => {
                code.function(&body);
                Ok(())
            }
            None => RoundtripReencoder.parse_function_body(code, function),
        }
    }
}

/// A core module that may be a plugin's; none if the numbers do not suffice for one.
fn guest(seed: u64) -> Option<Vec<u8>> {
    let noise = bytes(seed, 8192);
    let config = Config { module_shape: Some(shape()), ..config() };
    let module = Module::new(config, &mut Unstructured::new(&noise)).ok()?.to_bytes();
    let found = Found::of(&module);
    let next = found.imported;
    let mut whole = wasm_encoder::Module::new();
    Bodies { found, next }
        .parse_core_module(&mut whole, Parser::new(0), &module)
        .expect("it can be written again");
    if seed.is_multiple_of(2) {
        let (name, data) = ("vivarium:plugin".into(), b"stateless\n"[..].into());
        whole.section(&CustomSection { name, data });
    }
    Some(whole.finish())
}

/// Anything.
fn file(seed: u64) -> Option<Vec<u8>> {
    let noise = bytes(seed, 4096);
    let noise = &mut Unstructured::new(&noise);
    let file = match seed % 3 {
        0 => Module::new(config(), noise).map(|module| module.to_bytes()),
        // With everything that the profile has not.
        1 => Module::new(Config::default(), noise).map(|module| module.to_bytes()),
        _ => Component::new(config(), noise).map(|component| component.to_bytes()),
    };
    file.ok()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [seeds, out] = &words[..] else { panic!("usage: smith FROM..TO OUT") };
    let ends = seeds.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let (from, to): (u64, u64) = ends.expect("expected FROM..TO");
    for seed in from..to {
        for (kind, made) in [("guest", guest(seed)), ("file", file(seed))] {
            if let Some(made) = made {
                let path = Path::new(out).join(format!("{seed}.{kind}"));
                std::fs::write(path, made).expect("it can be written");
            }
        }
    }
}
