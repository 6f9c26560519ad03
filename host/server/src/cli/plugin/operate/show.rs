//! What `vivarium plugin` prints.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use replica::operator::OperatorReply;
use replica::operator::plugins::{
    Asked, PluginRequest, ShownBuild, ShownDecision, ShownGeneration, ShownPlugin,
};
use serde::Serialize;
use state::plugins::{Mode, OpKind};

use super::super::super::operator_args::Operator;
use super::{ask, unexpected};

const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How many decisions about a path `explain` shows.
const LATELY: usize = 5;

/// A line of what was done.
pub(super) fn said(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// A line of progress.
pub(super) fn note(line: &str) {
    // Nothing can be said of a closed standard error.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn json(value: &impl Serialize) -> anyhow::Result<()> {
    said(&serde_json::to_string_pretty(value)?)
}

/// All bindings.
pub(super) async fn plugins(operator: &Operator) -> anyhow::Result<Vec<ShownPlugin>> {
    match ask(operator, PluginRequest::ShowPlugins {}).await? {
        OperatorReply::Plugins { plugins } => Ok(plugins),
        other => unexpected(&other),
    }
}

/// A line for each binding.
pub(super) async fn list(operator: &Operator, as_json: bool) -> anyhow::Result<()> {
    let plugins = plugins(operator).await?;
    if as_json {
        return json(&plugins);
    }
    if plugins.is_empty() {
        note("there are no plugins; `vivarium plugin install FILE.toml` brings one in");
        return Ok(());
    }
    let width = plugins.iter().map(|p| p.name.len()).max().unwrap_or(0).max(4);
    said(&format!(
        "{:width$}  {:10}  {:>10}  {:12}  {:>10}  {:>8}  {:>6}  STATE",
        "NAME", "MODE", "GENERATION", "MODULE", "CALLS", "DENIALS", "FAULTS"
    ))?;
    for plugin in &plugins {
        let active = plugin.active.as_ref().or(plugin.staged.as_ref().map(|staged| &staged.plugin));
        let (generation, module) =
            active.map_or((0, ""), |a| (a.generation, a.module.get(..12).unwrap_or("")));
        said(&format!(
            "{:width$}  {:10}  {generation:>10}  {module:12}  {:>10}  {:>8}  {:>6}  {}",
            plugin.name,
            plugin.mode.to_string(),
            plugin.calls,
            plugin.denials,
            plugin.faults,
            state(plugin)
        ))?;
    }
    Ok(())
}

/// How it is, in few words.
fn state(plugin: &ShownPlugin) -> String {
    if plugin.quarantine.is_some() {
        return "in quarantine".to_owned();
    }
    let is_called = matches!(plugin.mode, Mode::Warn | Mode::Enforce);
    let mut state = match (&plugin.active, &plugin.build) {
        (None, _) => "not active yet",
        (Some(_), ShownBuild::Clearing | ShownBuild::Walking) if is_called => "being built",
        (Some(_), _) => "active",
    }
    .to_owned();
    if let Some(staged) = plugin.staged.as_ref().filter(|_| plugin.active.is_some()) {
        state = format!("{state}, generation {} is staged", staged.plugin.generation);
    }
    state
}

/// Everything about one binding, or all.
pub(super) async fn status(
    operator: &Operator,
    name: Option<&str>,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut plugins = plugins(operator).await?;
    if let Some(name) = name {
        let names: Vec<String> = plugins.iter().map(|plugin| plugin.name.clone()).collect();
        plugins.retain(|plugin| plugin.name == name);
        if plugins.is_empty() {
            match names.is_empty() {
                true => bail!("there is no binding \"{name}\", and no other"),
                false => bail!("there is no binding \"{name}\"; there are {}", names.join(", ")),
            }
        }
    }
    if as_json {
        return json(&plugins);
    }
    for plugin in &plugins {
        said(&format!("{}: {}, {}", plugin.name, plugin.mode, state(plugin)))?;
        if let Some(why) = &plugin.quarantine {
            said(&format!(
                "  switched off by the servers: {why}; `vivarium plugin mode` ends that"
            ))?;
        }
        for (what, shown) in [("active", &plugin.active), ("before", &plugin.previous)] {
            if let Some(shown) = shown {
                generation(what, shown)?;
            }
        }
        if let Some(staged) = &plugin.staged {
            generation("staged", &staged.plugin)?;
            for (server, report) in &staged.reports {
                said(&format!("    server {server}: {}", report.as_deref().unwrap_or("ready")))?;
            }
            for server in &staged.missing {
                said(&format!("    server {server}: has said nothing yet"))?;
            }
        }
        said(&format!(
            "  {} calls, {} denials, {} faults, {} bytes in its store",
            plugin.calls, plugin.denials, plugin.faults, plugin.store_bytes
        ))?;
    }
    Ok(())
}

fn generation(what: &str, shown: &ShownGeneration) -> anyhow::Result<()> {
    let points: Vec<String> = shown.points.iter().map(ToString::to_string).collect();
    let bound = match (shown.matches.is_empty(), shown.schemes.is_empty()) {
        (false, true) => shown.matches.join(" "),
        (true, false) => format!("schemes {}", shown.schemes.join(" ")),
        _ => format!("{}, schemes {}", shown.matches.join(" "), shown.schemes.join(" ")),
    };
    let points =
        if points.is_empty() { String::new() } else { format!("{} on ", points.join(", ")) };
    said(&format!(
        "  {what}: generation {}, {points}{bound}, priority {}, module {}",
        shown.generation, shown.priority, shown.module
    ))
}

/// What plugins refused lately.
pub(super) async fn log(
    operator: &Operator,
    (name, path): (&Option<String>, &Option<String>),
    lines: usize,
    follow: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let (name, path) = (name.clone(), path.clone());
    let request = |since| PluginRequest::ShowDecisions {
        name: name.clone(),
        path: path.clone(),
        since,
        most: if since.is_some() { usize::MAX } else { lines },
    };
    let (mut since, mut last) = decisions(operator, request(None)).await?;
    last.reverse();
    loop {
        for decision in &last {
            print(decision, as_json)?;
        }
        if !follow {
            return Ok(());
        }
        since = last.last().map_or(since, |decision| since.max(decision.number + 1));
        tokio::time::sleep(FOLLOW_EVERY).await;
        (since, last) = {
            let (next, last) = decisions(operator, request(Some(since))).await?;
            // More may be there than are told at once: the next ones follow those.
            (last.last().map_or(next, |decision| decision.number + 1), last)
        };
    }
}

async fn decisions(
    operator: &Operator,
    request: PluginRequest,
) -> anyhow::Result<(u64, Vec<ShownDecision>)> {
    match ask(operator, request).await? {
        OperatorReply::Decisions { next, decisions } => Ok((next, decisions)),
        other => unexpected(&other),
    }
}

fn print(decision: &ShownDecision, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return said(&serde_json::to_string(decision)?);
    }
    said(&format!(
        "{} zxid {:#x} {}@{} {} {} {}: {}, {}: {}",
        decision.time_ms,
        decision.zxid,
        decision.name,
        decision.generation,
        decision.point,
        decision.operation,
        decision.path,
        decision.said,
        decision.effect,
        decision.reason
    ))
}

/// Who is asked about an operation.
pub(super) async fn explain(
    operator: &Operator,
    path: &str,
    op: OpKind,
    as_json: bool,
) -> anyhow::Result<()> {
    let request = PluginRequest::ExplainPlugins { path: path.to_owned(), op };
    let asked: Vec<Asked> = match ask(operator, request).await? {
        OperatorReply::Explained { asked } => asked,
        other => return unexpected(&other),
    };
    let path = Some(path.to_owned());
    let request = PluginRequest::ShowDecisions { name: None, path, since: None, most: LATELY };
    let (_, lately) = decisions(operator, request).await?;
    if as_json {
        return json(&serde_json::json!({ "asked": asked, "lately": lately }));
    }
    if asked.is_empty() {
        said("no plugin is asked: ZooKeeper's own rules decide alone")?;
    }
    for (at, Asked { point, name, by, mode, but }) in asked.iter().enumerate() {
        let but = but.as_ref().map_or(String::new(), |why| format!(", but {why}"));
        said(&format!("{}. {point} {name} ({mode}), by {by}{but}", at + 1))?;
    }
    if !lately.is_empty() {
        said("lately, about this path, on this server:")?;
        lately.iter().try_for_each(|decision| print(decision, false))?;
    }
    Ok(())
}
