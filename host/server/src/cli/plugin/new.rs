//! `vivarium plugin new`: a directory with all that a plugin needs.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::files::{SDK, TEMPLATE, WIT};

/// What `--help` ends with.
pub(super) const EXAMPLES: &str = "\
The directory holds a guard that works, its tests, a binding, and the SDK of exactly this version of the
server. Nothing is fetched; cargo fetches a few small crates when it builds.

Examples:
  vivarium plugin new size-limit
  vivarium plugin new size-limit --dir plugins/size-limit";

/// Flags of `plugin new`.
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The plugin's name: letters, digits, - and _.
    name: String,
    /// What it is written in.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// The directory, which must not exist; NAME if it is not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    Rust,
}

impl NewArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Self { name, lang: Language::Rust, dir } = self;
        let is_letter = |c: char| c.is_ascii_lowercase();
        let is_other = |c: char| c.is_ascii_digit() || c == '-' || c == '_';
        if !name.starts_with(is_letter) || !name.chars().all(|c| is_letter(c) || is_other(c)) {
            bail!(
                "a name begins with a letter a-z, and has letters, digits, - and _; not {name:?}"
            );
        }
        let dir = dir.as_deref().unwrap_or(Path::new(name));
        if dir.exists() {
            bail!("{} is there already", dir.display());
        }
        for (file, text) in TEMPLATE {
            write(&dir.join(file.replace("NAME", name)), &text.replace("NAME", name))?;
        }
        for (file, text) in WIT {
            write(&dir.join("sdk/wit").join(file), text)?;
        }
        for (file, text) in SDK {
            write(&dir.join("sdk/plugin-sdk").join(file), text)?;
        }
        let dir = dir.display();
        writeln!(
            std::io::stdout(),
            "{dir} is there. Next:\n  cd {dir}\n  vivarium plugin build\n  vivarium plugin test"
        )?;
        Ok(())
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let dir = file.parent().context("it has a parent")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
