//! `vivarium shell`'s flags.

use std::process::ExitCode;

use clap::Args;

use super::connect_args::ConnectArgs;
use crate::shell;

/// What `--help` ends with.
pub(super) fn help() -> String {
    format!(
        "Verbs (those of ZooKeeper's zkCli; `vivarium shell help VERB` tells of one):\n{}\n{EXAMPLES}",
        shell::overview()
    )
}

const EXAMPLES: &str = "\
A command that fails says why on standard error and gives exit code 1. Commands can also be
piped in, one a line.

Examples:
  vivarium shell                                        the interactive shell
  vivarium shell ls -R /                                every znode, one a line
  vivarium shell --server zoo1:2181,zoo2:2181/app get -s /config
  vivarium shell --auth-file me.auth set -v 3 /app/config '{\"replicas\": 3}'
  vivarium shell --server zoo1:2281 --tls --tls-ca ca.pem stat /
  printf 'create /a x\\nget -w /a\\nset /a y\\n' | vivarium shell";

/// Flags of `shell`.
#[derive(Debug, Args)]
pub(super) struct ShellArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Be content with a server that has no leader: it takes no changes, and may not have the latest.
    #[arg(long, short = 'r')]
    read_only: bool,
    /// A verb and its arguments; without one, the interactive shell.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "VERB")]
    words: Vec<String>,
}

impl ShellArgs {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut options = self.connect.options("127.0.0.1:2181")?;
        options.read_only = self.read_only;
        shell::run(options, &self.words)
    }
}
