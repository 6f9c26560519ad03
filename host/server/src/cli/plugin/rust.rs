//! Builds a Rust plugin for WebAssembly, with what there is on this machine.
//!
//! There are three ways, tried in this order:
//! 1. the Rust toolchain has the target;
//! 2. `rustup` adds it;
//! 3. a Rust compiler on this machine has the source of its own standard library (Debian's `rustc-web` with
//!    `rust-web-src`, or rustup's component `rust-src`), which is built along, and some linker for WebAssembly is
//!    found.
//!
//! Nothing is looked for in a fixed place: compilers are those in PATH, and they say where their files are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use super::programs::{in_path, newest};

const TARGET: &str = "wasm32-unknown-unknown";
/// Of a plugin's memory; what is deeper ends as a fault.
const STACK_BYTES: usize = 64 << 10;
/// What is free for the allocator from the beginning, a page: a call rarely has to ask for more.
const HEAP_BYTES: usize = 64 << 10;

const MISSING: &str = "\
there is no Rust compiler here that can build for WebAssembly. One of these helps:
  rustup target add wasm32-unknown-unknown
  apt-get install rustc-web rust-web-src        on Debian, beside the compiler that there is";

/// A package that was built: its name, and the core module.
pub(super) struct Built {
    pub(super) name: String,
    pub(super) module: Vec<u8>,
}

/// Builds the package in this directory. What cargo says goes to standard error.
///
/// # Errors
/// If there is no compiler for it, or it does not build.
pub(super) fn build(dir: &Path, cargo_args: &[OsString]) -> anyhow::Result<Built> {
    let package = package(dir)?;
    let mut cargo = cargo(dir);
    cargo.args(["build", "--profile", "plugin", "--target", TARGET]);
    for setting in [
        "inherits='release'",
        "opt-level='s'",
        "lto=true",
        "codegen-units=1",
        "panic='abort'",
        "debug=false",
        "strip='debuginfo'",
    ] {
        cargo.arg("--config").arg(format!("profile.plugin.{setting}"));
    }
    let flags = [
        format!("-Clink-arg=-zstack-size={STACK_BYTES}"),
        format!("-Clink-arg=--initial-heap={HEAP_BYTES}"),
    ];
    cargo.arg("--config").arg(format!("target.{TARGET}.rustflags={flags:?}"));
    door(dir)?.prepare(&mut cargo);
    let status = cargo.args(cargo_args).status().context("cargo cannot be run; is it in PATH?")?;
    if !status.success() {
        bail!("the plugin does not build");
    }
    let file = package.target_dir.join(TARGET).join("plugin").join(package.artifact);
    let module =
        std::fs::read(&file).with_context(|| format!("cargo has not made {}", file.display()))?;
    Ok(Built { name: package.name, module })
}

fn cargo(dir: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(dir);
    cargo
}

struct Package {
    name: String,
    artifact: String,
    target_dir: PathBuf,
}

/// Asks cargo about the package.
fn package(dir: &Path) -> anyhow::Result<Package> {
    let output = cargo(dir)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo cannot be run; is Rust installed, and in PATH?")?;
    if !output.status.success() {
        bail!("{} is not a Rust package that cargo can read", dir.display());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let manifest = dir.join("Cargo.toml").canonicalize()?;
    let packages = metadata["packages"].as_array().context("cargo tells of no packages")?;
    let is_it =
        |package: &&Value| package["manifest_path"].as_str().map(Path::new) == Some(&manifest);
    let package = packages.iter().find(is_it).context("cargo does not know the package")?;
    let text =
        |value: &Value| value.as_str().map(str::to_owned).context("cargo's answer has no name");
    let targets = package["targets"].as_array().into_iter().flatten();
    let is_library = |target: &&Value| {
        let kinds = target["kind"].as_array().into_iter().flatten();
        kinds.into_iter().any(|kind| kind == "cdylib")
    };
    let Some(library) = { targets }.find(is_library) else {
        bail!("{} has no library of crate-type \"cdylib\"", manifest.display());
    };
    Ok(Package {
        name: text(&package["name"])?,
        artifact: format!("{}.wasm", text(&library["name"])?.replace('-', "_")),
        target_dir: text(&metadata["target_directory"])?.into(),
    })
}

/// A way to the target.
enum Door {
    /// The toolchain has it.
    Installed,
    /// It is built along.
    Source { rustc: PathBuf, linker: PathBuf },
}

impl Door {
    fn prepare(&self, cargo: &mut Command) {
        if let Self::Source { rustc, linker } = self {
            // The library may only be built with features that stable compilers lock away.
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
    }
}

fn door(dir: &Path) -> anyhow::Result<Door> {
    let rustc = PathBuf::from(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    if has_target(&rustc, dir) || (add_target(dir) && has_target(&rustc, dir)) {
        return Ok(Door::Installed);
    }
    let compilers = || [rustc.clone()].into_iter().chain(in_path("rustc"));
    let has_source = |rustc: &PathBuf| {
        sysroot(rustc, dir).is_some_and(|root| root.join("lib/rustlib/src/rust/library").is_dir())
    };
    let Some(rustc) = compilers().find(has_source) else { bail!(MISSING) };
    let lld = compilers().find_map(|rustc| linker(&rustc, dir));
    let Some(linker) = lld.or_else(|| newest("wasm-ld")) else {
        bail!("there is no linker for WebAssembly; on Debian, apt-get install lld");
    };
    Ok(Door::Source { rustc, linker })
}

/// Where a compiler has its files.
fn sysroot(rustc: &Path, dir: &Path) -> Option<PathBuf> {
    Some(ask(rustc, dir, &["--print", "sysroot"])?.trim().into())
}

fn has_target(rustc: &Path, dir: &Path) -> bool {
    let Some(libraries) = ask(rustc, dir, &["--print", "target-libdir", "--target", TARGET]) else {
        return false;
    };
    Path::new(libraries.trim()).is_dir()
}

/// The linker that comes with a compiler.
fn linker(rustc: &Path, dir: &Path) -> Option<PathBuf> {
    let libraries = ask(rustc, dir, &["--print", "target-libdir"])?;
    let linker = Path::new(libraries.trim()).parent()?.join("bin/rust-lld");
    linker.is_file().then_some(linker)
}

fn ask(rustc: &Path, dir: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(rustc).args(args).current_dir(dir).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

/// Lets rustup add the target, for the toolchain that is used in this directory.
fn add_target(dir: &Path) -> bool {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(dir).stdout(std::io::stderr());
    rustup.status().is_ok_and(|status| status.success())
}
