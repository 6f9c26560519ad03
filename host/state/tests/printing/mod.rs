//! Outcomes, replies and changes as a script has them.

use std::fmt::Write as _;

use proto::{ErrorCode, MultiResult, Reply, Stat};
use state::change::PluginDone;
use state::{Answer, Change, Outcome};

fn zxid(zxid: i64) -> String {
    format!("{}.{}", zxid >> 32, zxid & 0xffff_ffff)
}

pub(crate) fn stat(stat: &Stat) -> String {
    format!(
        "czxid={} mzxid={} pzxid={} ctime={} mtime={} version={} cversion={} aversion={} owner={} \
         length={} children={}",
        zxid(stat.czxid),
        zxid(stat.mzxid),
        zxid(stat.pzxid),
        stat.ctime,
        stat.mtime,
        stat.version,
        stat.cversion,
        stat.aversion,
        stat.ephemeral_owner,
        stat.data_length,
        stat.num_children
    )
}

fn error(code: i32) -> String {
    ErrorCode::from_i32(code).map_or(code.to_string(), |code| code.name().to_owned())
}

fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Empty => "ok".to_owned(),
        Reply::Path(path) => path.clone(),
        Reply::PathStat(path, of) => format!("{path} {}", stat(of)),
        Reply::Stat(of) => stat(of),
        Reply::Multi(results) => {
            let results: Vec<String> = results
                .iter()
                .map(|result| match result {
                    MultiResult::Create(path) => format!("create {path}"),
                    MultiResult::Create2(path, _) => format!("create2 {path}"),
                    MultiResult::Delete => "delete".to_owned(),
                    MultiResult::SetData(of) => format!("set version={}", of.version),
                    MultiResult::Check => "check".to_owned(),
                    MultiResult::Error(0) => "OK".to_owned(),
                    MultiResult::Error(code) => error(*code),
                })
                .collect();
            format!("[{}]", results.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn change(change: &Change) -> String {
    match change {
        Change::Created { path, .. } => format!("created {path}"),
        Change::Deleted { path, .. } => format!("deleted {path}"),
        Change::DataSet { path, .. } => format!("data set {path}"),
        Change::SessionAttached { session, timeout_ms, generation } => {
            format!("session {session} attached, {timeout_ms} ms, generation {generation}")
        }
        Change::SessionClosing { session } => format!("session {session} closing"),
        Change::SessionClosed { session } => format!("session {session} closed"),
    }
}

pub(crate) fn show(outcome: &Outcome) -> String {
    let answer = match &outcome.answer {
        Answer::Reply(Ok(of)) => reply(of),
        Answer::Reply(Err(code)) => code.name().to_owned(),
        Answer::Attached { timeout_ms, generation } => {
            format!("attached, {timeout_ms} ms, generation {generation}")
        }
        Answer::Settings { .. } => "Done".to_owned(),
        Answer::Plugin(Ok(PluginDone::Received(bytes))) => format!("{bytes} bytes are here"),
        Answer::Plugin(Ok(PluginDone::Staged(Some(generation)))) => {
            format!("generation {generation} is staged")
        }
        Answer::Plugin(Ok(PluginDone::Staged(None))) => "seen before".to_owned(),
        Answer::Plugin(Ok(PluginDone::Active(generation))) => {
            format!("generation {generation} is active")
        }
        Answer::Plugin(Ok(PluginDone::Stepped(true))) => "there are more steps".to_owned(),
        Answer::Plugin(Ok(PluginDone::Stepped(false))) => "the last step is done".to_owned(),
        Answer::Plugin(Ok(PluginDone::Done)) => "done".to_owned(),
        Answer::Plugin(Err(why)) | Answer::SettingsRefused(why) => why.clone(),
        other => format!("{other:?}"),
    };
    let mut out = format!("{} {answer}\n", zxid(outcome.zxid));
    // A long list is shown by its ends.
    let (all, most) = (&outcome.changes, 12);
    for (i, of) in all.iter().enumerate() {
        if all.len() <= most || i < 2 || i + 2 >= all.len() {
            writeln!(out, "  {}", change(of)).expect("a string takes it");
        } else if i == 2 {
            writeln!(out, "  ... {} more", all.len() - 4).expect("a string takes it");
        }
    }
    out
}
