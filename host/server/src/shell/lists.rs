//! ls, getAllChildrenNumber, getEphemerals.

use proto::{Reply, Request};

use super::command::{Command, Done, strange};
use super::text;
use super::tree;
use super::words::Words;

pub(super) async fn children(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let watch = words.has("-w");
    if words.has("-R") {
        return tree::list(cx, &path).await;
    }
    let request = Request::GetChildren2 { path: path.clone(), watch };
    let (mut names, stat) = match cx.ask(&path, request).await? {
        Reply::ChildrenStat(names, stat) => (names, stat),
        other => return Err(strange(&other)),
    };
    names.sort_unstable();
    writeln!(cx.out, "{}", text::list(&names))?;
    if words.has("-s") {
        text::stat(cx.out, &stat)?;
    }
    if watch {
        cx.warn_of_watch();
    }
    Ok(())
}

pub(super) async fn count(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    match cx.ask(&path, Request::GetAllChildrenNumber { path: path.clone() }).await? {
        Reply::Count(count) => Ok(writeln!(cx.out, "{count}")?),
        other => Err(strange(&other)),
    }
}

pub(super) async fn ephemerals(cx: &mut Command<'_>, words: &Words) -> Done {
    let prefix = cx.inside(words.optional(0).unwrap_or("/"))?;
    match cx.ask(&prefix, Request::GetEphemerals { prefix: prefix.clone() }).await? {
        Reply::Children(mut paths) => {
            paths.sort_unstable();
            paths.iter_mut().for_each(|path| *path = cx.target.outside(path).to_owned());
            Ok(writeln!(cx.out, "{}", text::list(&paths))?)
        }
        other => Err(strange(&other)),
    }
}
