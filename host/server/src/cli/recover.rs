//! `vivarium recover`: what is left when the majority of an ensemble is lost.

use std::io::Write;
use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use super::config_args::ConfigArgs;
use super::confirm;
use crate::plugins;
use crate::recover::Survivor;

/// What `--help` ends with.
pub(super) const EXAMPLES: &str = "\
The last resort, for when the majority of an ensemble's servers and their data are gone for good: a
server that is left goes on alone with what it has, and the others take part again with empty data
directories. What the others had acknowledged and this one has not got is lost. If a snapshot is newer,
restore that (`vivarium snapshot restore`).

  1. Stop every server, and see to it that none is started again.
  2. On the server that is left, or on the one with the highest zxid of several (`--force-single`
     without `--yes` shows it, and answering no changes nothing):
       vivarium recover --force-single --config node2.toml
  3. Start it as before:
       vivarium serve --config node2.toml
  4. Empty the data directories of the others, and start them as before. They get the data from it.";

/// Flags of `recover`.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// Let this server decide alone, without the others.
    #[arg(long, required = true)]
    force_single: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The server's data directory. Default: that of the configuration.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The server's configuration, which says where its data is and which server it is.
    #[arg(long, value_name = "FILE", conflicts_with = "zoo_cfg")]
    config: Option<PathBuf>,
    /// The same, as a ZooKeeper's file.
    #[arg(long, value_name = "FILE")]
    zoo_cfg: Option<PathBuf>,
    /// Which server it is, where no configuration says it.
    #[arg(long, value_name = "ID")]
    server_id: Option<u8>,
}

impl RecoverArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let data_dir = self.data_dir.as_ref().map(|dir| dir.display().to_string());
        let told = ConfigArgs::new(self.config.clone(), self.zoo_cfg.clone(), data_dir);
        let (mut config, _) = told.load()?;
        ensure!(
            self.server_id.is_some() || !config.ensemble.servers.is_empty(),
            "which of the servers is it? Say it with --config, --zoo-cfg or --server-id"
        );
        config.server_id = self.server_id.unwrap_or(config.server_id);
        let survivor = plugins::on_large_stack(|| Survivor::open(&config))??;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{survivor}\n")?;
        confirm(&mut out, self.yes)?;
        plugins::on_large_stack(|| survivor.go_on_alone())??;
        writeln!(
            out,
            "Done. Start server {} as before; empty the data directories of the others before they are \
             started.",
            config.server_id
        )?;
        Ok(())
    }
}
