//! `vivarium plugin build`: from source to the file that servers take.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::{c, component, rust};

/// What `--help` ends with.
pub(super) const EXAMPLES: &str = "\
What is built is what the directory holds: a Rust package (Cargo.toml), C (*.c), or nothing but a core
module that another compiler has made. The component is NAME.wasm in that directory, beside the binding
that names it. No other tool is needed than the language's compiler: for Rust the target
wasm32-unknown-unknown, which rustup is asked for, or Debian's rustc-web with rust-web-src; for C clang and lld.

Examples:
  vivarium plugin build
  vivarium plugin build plugins/tenant-quota -- --locked
  vivarium plugin build made-elsewhere.wasm --out plugin.wasm";

/// Flags of `plugin build`.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// Directory of the plugin, or a core module.
    #[arg(default_value = ".", value_name = "DIR")]
    source: PathBuf,
    /// Where the component goes.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Passed on to the compiler.
    #[arg(last = true, value_name = "ARGS")]
    compiler_args: Vec<OsString>,
}

impl BuildArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let (file, bytes) = build(&self.source, self.out.as_deref(), &self.compiler_args)?;
        writeln!(std::io::stdout(), "{}: {} KiB", file.display(), bytes.div_ceil(1024))?;
        Ok(())
    }
}

/// Builds a plugin, and says where the component is and how many bytes it has.
///
/// # Errors
/// What is missing, or why it does not build.
pub(super) fn build(
    source: &Path,
    out: Option<&Path>,
    compiler_args: &[OsString],
) -> anyhow::Result<(PathBuf, usize)> {
    let (name, module) = if source.join("Cargo.toml").is_file() {
        let built = rust::build(source, compiler_args)?;
        (built.name, built.module)
    } else if source.is_dir() {
        c::build(source, compiler_args)?
    } else if source.is_file() {
        let module =
            std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        let Some(out) = out else { bail!("say with --out where the component goes") };
        (out.display().to_string(), module)
    } else {
        bail!("{} is not there", source.display());
    };
    let component = component::encode(&module).with_context(|| format!("{name} is no plugin"))?;
    let file = out.map_or_else(|| source.join(format!("{name}.wasm")), Path::to_path_buf);
    // A watcher of the directory sees all of it or nothing.
    let new = file.with_extension("wasm.new");
    std::fs::write(&new, &component)
        .and_then(|()| std::fs::rename(&new, &file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok((file, component.len()))
}
