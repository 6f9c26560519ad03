//! `vivarium plugin install`: upload, stage, wait until the servers are ready, activate.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use replica::operator::OperatorReply;
use replica::operator::plugins::{PluginRequest, ShownBuild, ShownPlugin};
use state::plugins::{Mode, Point};

use super::super::super::operator_args::Operator;
use super::show::{self, note};
use super::{active, ask, unexpected};
use crate::plugins::Bundle;

/// How much of a module is sent at a time: half of what a frame of a client may hold, in base64.
const PART_BYTES: usize = 256 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Brings in what a file says.
pub(super) async fn install(
    operator: &Operator,
    file: &Path,
    wait_all: bool,
    wait: Duration,
) -> anyhow::Result<()> {
    let bundle = Bundle::read(file)?;
    let name = bundle.binding.name.clone();
    note(&format!("{name}: {} bytes, SHA-256 {}", bundle.bytes, bundle.hash));
    upload(operator, &bundle).await?;
    let request = PluginRequest::StagePlugin {
        binding: bundle.binding.clone(),
        module: bundle.hash.to_string(),
        after: None,
        if_unseen: false,
    };
    let generation = match ask(operator, request).await? {
        OperatorReply::PluginStaged { generation: Some(generation) } => generation,
        other => return unexpected(&other),
    };
    note(&format!("{name}: staged as generation {generation}"));
    let deadline = Instant::now() + wait;
    ready(operator, &name, generation, wait_all, deadline).await?;
    let plugin = look(operator, &name).await?;
    let observes = plugin.active.as_ref().is_some_and(|a| a.points.contains(&Point::Observer));
    if observes && matches!(plugin.mode, Mode::Warn | Mode::Enforce) {
        built(operator, &name).await?;
    }
    show::said(&format!("{name}, generation {generation}: {}, on all servers", plugin.mode))
}

async fn upload(operator: &Operator, bundle: &Bundle) -> anyhow::Result<()> {
    let (mut received, all) = (0, bundle.bytes);
    while received < all {
        let part = STANDARD.encode(bundle.part(received, PART_BYTES)?);
        let hash = bundle.hash.to_string();
        let request =
            PluginRequest::UploadModule { module: hash, bytes: all, offset: received, part };
        match ask(operator, request).await? {
            // It may have been there already, in part or as a whole.
            OperatorReply::ModuleReceived { bytes } if bytes > received => received = bytes,
            other => return unexpected(&other),
        }
        if all > PART_BYTES as u64 {
            note(&format!("uploaded {} % of {all} bytes", received * 100 / all));
        }
    }
    Ok(())
}

/// Waits until the servers are ready, and has it activated.
async fn ready(
    operator: &Operator,
    name: &str,
    generation: u64,
    wait_all: bool,
    deadline: Instant,
) -> anyhow::Result<()> {
    let mut told = BTreeMap::new();
    loop {
        let plugin = look(operator, name).await?;
        let Some(staged) = plugin.staged.filter(|s| s.plugin.generation == generation) else {
            bail!(
                "{name}: generation {generation} is staged no more: somebody else has changed it"
            );
        };
        for (server, report) in &staged.reports {
            if told.insert(*server, ()).is_none() {
                match report {
                    None => note(&format!("server {server}: ready")),
                    Some(why) => note(&format!("server {server}: {why}")),
                }
            }
        }
        if let Some((server, Some(why))) = staged.reports.iter().find(|(_, why)| why.is_some()) {
            bail!("{name} cannot run on server {server}, and nothing was changed: {why}");
        }
        let request = PluginRequest::ActivatePlugin { name: name.to_owned(), generation, wait_all };
        let refused = match active(operator, request).await {
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        if staged.missing.is_empty() || Instant::now() >= deadline {
            return Err(refused.context(format!(
                "{name}: generation {generation} is not active; it stays staged, and `vivarium plugin \
                 install` of the same file tries again"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the store of an observer holds what follows from the tree.
async fn built(operator: &Operator, name: &str) -> anyhow::Result<()> {
    let mut noted = Instant::now();
    loop {
        let plugin = look(operator, name).await?;
        if let Some(why) = plugin.quarantine {
            bail!("{name} is switched off by the servers: {why}");
        }
        if plugin.build == ShownBuild::Done {
            return Ok(());
        }
        if noted.elapsed() > Duration::from_secs(1) {
            noted = Instant::now();
            note(&format!("{name} is told of what is there: {} calls so far", plugin.calls));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(operator: &Operator, name: &str) -> anyhow::Result<ShownPlugin> {
    let plugins = show::plugins(operator).await?;
    match plugins.into_iter().find(|plugin| plugin.name == name) {
        Some(plugin) => Ok(plugin),
        None => bail!("{name} is gone: somebody else has removed it"),
    }
}
