//! `vivarium plugin`: what authors of plugins need, and what operators do with them.

mod build;
mod c;
mod component;
mod files;
mod new;
mod operate;
mod programs;
mod rust;
mod test;

use clap::{Args, Subcommand};

use self::build::BuildArgs;
use self::new::NewArgs;
use self::operate::Operate;
use self::test::TestArgs;
use super::operator_args::OperatorArgs;

/// What `--help` ends with.
pub(super) const EXAMPLES: &str = "\
A plugin is a WebAssembly component that servers run inside the transaction: it may refuse operations,
decide who may do what, and keep count. plugin-sdk/README.md goes through all of it.

A binding says which module takes part where; its file is TOML, with the module beside it:

    name     = \"tenant-quota\"
    module   = \"tenant_quota.wasm\"
    mode     = \"enforce\"
    match    = [\"/tenants/**\"]
    ops      = [\"create\", \"set\", \"delete\"]
    [settings]
    max-nodes = 10000

Each step is one entry of the log: from one zxid on, every server does the same. Nothing below
/zookeeper is ever subject to plugins, so a binding can always be switched off.

Who may bring in and switch: whoever may read the server's data directory (its operator.token, another
one after each start), or whoever authenticates as the super user with --auth.

Examples:
  vivarium plugin new size-limit
  vivarium plugin build size-limit
  vivarium plugin test size-limit
  vivarium plugin install size-limit/size-limit.toml
  vivarium plugin list
  vivarium plugin status size-limit
  vivarium plugin mode size-limit warn
  vivarium plugin log size-limit --follow
  vivarium plugin explain /some/path create
  vivarium plugin rollback size-limit
  vivarium plugin remove size-limit";

/// Flags of `plugin`.
#[derive(Debug, Args)]
pub(super) struct PluginArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print JSON, where there is something to look at.
    #[arg(global = true, long)]
    json: bool,
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
    #[command(flatten)]
    Operate(Operate),
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
            Action::Operate(operate) => operate.run(&self.operator, self.json),
        }
    }
}
