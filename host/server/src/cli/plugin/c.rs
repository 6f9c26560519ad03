//! Builds a C plugin for WebAssembly, freestanding: there is no C library, and none is needed.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::files::C_HEADER;
use super::programs::newest;

const MISSING: &str = "\
clang and its linker for WebAssembly are needed to build C: on Debian, apt-get install clang lld";

/// Builds all `*.c` of a directory into one module, and names it after the directory.
///
/// # Errors
/// If there is no clang, or it does not build.
pub(super) fn build(dir: &Path, compiler_args: &[OsString]) -> anyhow::Result<(String, Vec<u8>)> {
    let dir = dir.canonicalize()?;
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            sources.push(path);
        }
    }
    if sources.is_empty() {
        bail!("{} has neither Cargo.toml nor *.c", dir.display());
    }
    sources.sort();
    let name = dir.file_name().context("the directory has no name")?.to_string_lossy().into_owned();

    let (Some(clang), Some(linker)) = (newest("clang"), newest("wasm-ld")) else { bail!(MISSING) };
    let scratch = tempfile::tempdir()?;
    std::fs::write(scratch.path().join("vivarium_plugin.h"), C_HEADER)?;
    let module = scratch.path().join("module.wasm");
    let status = Command::new(clang)
        .args([
            "--target=wasm32",
            "-std=c11",
            "-Os",
            "-Wall",
            "-Wextra",
            "-nostdlib",
            "-ffreestanding",
        ])
        // What an engine without SIMD and the like runs, whatever the compiler's version takes for granted.
        .args(["-mcpu=mvp", "-mbulk-memory", "-msign-ext"])
        .args(["-Wl,--no-entry", "-Wl,-z,stack-size=16384", "-Wl,--stack-first"])
        .arg(format!("-fuse-ld={}", linker.display()))
        .arg("-I")
        .arg(scratch.path())
        .args(compiler_args)
        .args(&sources)
        .arg("-o")
        .arg(&module)
        .status()
        .context(MISSING)?;
    if !status.success() {
        bail!("the plugin does not build");
    }
    Ok((name, std::fs::read(&module)?))
}
