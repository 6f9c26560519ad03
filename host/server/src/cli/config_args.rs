//! Where a server's configuration comes from, as flags.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::config::{Config, Overrides, from_zoo_cfg};

/// Where the configuration comes from. Flags win over VIVARIUM_* variables, those over the file.
#[derive(Debug, Default, Args)]
pub(super) struct ConfigArgs {
    /// A TOML file; `config/single.toml` shows every key.
    #[arg(long, value_name = "FILE", conflicts_with = "zoo_cfg")]
    config: Option<PathBuf>,
    /// ZooKeeper's own configuration file, with myid beside its data.
    #[arg(long, value_name = "FILE")]
    zoo_cfg: Option<PathBuf>,
    /// A Java system property, as a ZooKeeper's start script would set it. Repeatable.
    #[arg(long = "java-property", value_name = "KEY=VALUE", requires = "zoo_cfg")]
    java_properties: Vec<String>,
    /// Where the server keeps everything.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where clients connect.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Any other key of the configuration, such as limits.max-frame-bytes=4MiB. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// Those of a tool that only looks at a server's configuration.
    pub(super) fn new(
        config: Option<PathBuf>,
        zoo_cfg: Option<PathBuf>,
        data_dir: Option<String>,
    ) -> Self {
        Self { config, zoo_cfg, data_dir, ..Self::default() }
    }

    /// Reads the configuration; beside it stands what is worth a warning.
    pub(super) fn load(&self) -> anyhow::Result<(Config, Vec<String>)> {
        let mut overrides = Overrides::default();
        if let Some(dir) = &self.data_dir {
            overrides.set("--data-dir", "data-dir", dir);
        }
        if let Some(listen) = &self.listen {
            overrides.set("--listen", "listen.client", listen);
        }
        for pair in &self.set {
            let (key, value) = pair.split_once('=').with_context(|| {
                format!(
                    "--set expects KEY=VALUE, got {pair:?}; for example --set tick-time-ms=1000"
                )
            })?;
            overrides.set("--set", key, value);
        }
        let environment = std::env::vars();
        let Some(zoo_cfg) = &self.zoo_cfg else {
            let config = Config::load(self.config.as_deref(), environment, &overrides)?;
            let warnings = config.without_effect().iter().map(ToString::to_string).collect();
            return Ok((config, warnings));
        };
        let properties = self
            .java_properties
            .iter()
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (key.to_owned(), value.to_owned())
            })
            .collect::<Vec<_>>();
        let (file, mut warnings) = from_zoo_cfg(zoo_cfg, &properties)?;
        let config = file.clone().overlaid(environment, &overrides)?;
        // What the file sets is named by its keys there; the rest came over it.
        let known = file.without_effect();
        warnings.extend(config.without_effect().into_iter().filter(|w| !known.contains(w)));
        Ok((config, warnings.iter().map(ToString::to_string).collect()))
    }
}
