//! addWatch, removewatches; and events as text.

use proto::{EventType, Request, WatchEvent};

use super::command::{Command, Done};
use super::text;
use super::words::Words;
use crate::remote::Target;

pub(super) async fn add(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let mode = match words.value("-m").unwrap_or("PERSISTENT_RECURSIVE") {
        "PERSISTENT" => 0,
        "PERSISTENT_RECURSIVE" => 1,
        other => {
            let expected = "PERSISTENT or PERSISTENT_RECURSIVE";
            return Err(format!("-m: expected {expected}, got {}", text::line(other)).into());
        }
    };
    cx.ask(&path, Request::AddWatch { path: path.clone(), mode }).await?;
    cx.warn_of_watch();
    Ok(())
}

pub(super) async fn remove(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    // The numbers of ZooKeeper's `Watcher.WatcherType`.
    let kinds = [("-c", 1), ("-d", 2), ("-a", 3), ("-p", 4), ("-r", 5)];
    let given: Vec<i32> =
        kinds.into_iter().filter(|(flag, _)| words.has(flag)).map(|(_, kind)| kind).collect();
    let kind = match given[..] {
        [] => 3,
        [kind] => kind,
        _ => return Err("expected one of -c, -d, -p, -r and -a, got several".into()),
    };
    cx.ask(&path, Request::RemoveWatches { path: path.clone(), kind }).await?;
    Ok(())
}

/// An event as zkCli prints it.
pub(super) fn shown(event: &WatchEvent, target: &Target) -> String {
    let kind = match event.kind {
        EventType::NodeCreated => "NodeCreated",
        EventType::NodeDeleted => "NodeDeleted",
        EventType::NodeDataChanged => "NodeDataChanged",
        EventType::NodeChildrenChanged => "NodeChildrenChanged",
    };
    let path = text::line(target.outside(&event.path));
    let zxid = event.zxid;
    format!(
        "\nWATCHER::\n\nWatchedEvent state:SyncConnected type:{kind} path:{path} zxid: {zxid}\n"
    )
}
