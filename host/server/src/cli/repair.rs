//! `vivarium repair`: an entry of the log that no server can apply as it is.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::config_args::ConfigArgs;
use super::confirm;
use crate::repair::Skip;

/// What `--help` ends with.
pub(super) const EXAMPLES: &str = "\
For when a plugin fails on every server, not by what it does, but because no server can run it: its module
cannot be compiled any more, or its memory cannot be had. Then entries are not applied on any of them, the
one that would switch the plugin off included. Which entry, and which binding, the servers say themselves
(`/readyz` of the admin API, and the log: `an entry cannot be applied here`).

  1. Stop every server.
  2. On each of them, with the same NAME and INDEX:
       vivarium repair --skip-binding NAME --at INDEX --config node1.toml
  3. Start them as before. The binding is in quarantine (`vivarium plugin status NAME`).

A plugin that traps, spins or denies needs nothing of this: `vivarium plugin mode NAME off`.";

/// Flags of `repair`.
#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    /// The binding that is put into quarantine.
    #[arg(long, value_name = "NAME")]
    skip_binding: String,
    /// The entry of the log that is applied without it.
    #[arg(long, value_name = "INDEX")]
    at: u64,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The server's data directory. Default: that of the configuration.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The server's configuration, which says where its data is.
    #[arg(long, value_name = "FILE", conflicts_with = "zoo_cfg")]
    config: Option<PathBuf>,
    /// The same, as a ZooKeeper's file.
    #[arg(long, value_name = "FILE")]
    zoo_cfg: Option<PathBuf>,
}

impl RepairArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let data_dir = self.data_dir.as_ref().map(|dir| dir.display().to_string());
        let told = ConfigArgs::new(self.config.clone(), self.zoo_cfg.clone(), data_dir);
        let (config, _) = told.load()?;
        let skip = Skip::look(&config, &self.skip_binding, self.at)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{skip}\n")?;
        confirm(&mut out, self.yes)?;
        skip.order()?;
        writeln!(out, "Done. Do the same on all other servers before any of them is started.")?;
        Ok(())
    }
}
