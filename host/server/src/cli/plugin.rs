//! `vivarium plugin`: what authors of plugins need.

mod build;
mod c;
mod component;
mod files;
mod new;
mod programs;
mod rust;
mod test;

use clap::{Args, Subcommand};

use self::build::BuildArgs;
use self::new::NewArgs;
use self::test::TestArgs;

/// What `--help` ends with.
pub(super) const EXAMPLES: &str = "\
A plugin is a WebAssembly component that servers run inside the transaction: it may refuse operations,
decide who may do what, and keep count. plugin-sdk/README.md goes through all of it.

Examples:
  vivarium plugin new size-limit
  vivarium plugin build size-limit
  vivarium plugin test size-limit";

/// Flags of `plugin`.
#[derive(Debug, Args)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Begin a plugin: a directory with all that it needs.
    #[command(after_help = new::EXAMPLES)]
    New(NewArgs),
    /// Compile a plugin, and make the file that servers take.
    #[command(after_help = build::EXAMPLES)]
    Build(BuildArgs),
    /// Run a plugin's cases on the runtime that servers have.
    #[command(after_help = test::EXAMPLES)]
    Test(TestArgs),
}

impl PluginArgs {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, and what to do about it.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        match &self.action {
            Action::New(args) => args.run(),
            Action::Build(args) => args.run(),
            Action::Test(args) => args.run(),
        }
    }
}
