//! Whole trees: walked, listed, deleted.
//!
//! Memory is bounded by the lists of names on the way down, of which [`AHEAD`] a level are asked for
//! before they are needed; never by the size of the tree. What is created or deleted meanwhile may
//! or may not be seen.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use proto::{ErrorCode, MultiOp, MultiResult, Reply, Request, path};

use super::command::{Command, Done, strange};
use super::problem::Problem;
use super::text;
use super::words::Words;
use crate::remote::{AskError, Pending};

/// How many lists of a level are asked for ahead.
const AHEAD: usize = 16;
/// How many deletions are in one multi unless told otherwise, as in zkCli.
const BATCH: usize = 1000;
const BATCH_MAX: usize = 10_000;
/// The bytes of paths in one multi; it must stay below the server's frame limit.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// The children of one znode, some of them asked about already.
struct Level {
    parent: String,
    names: std::vec::IntoIter<String>,
    asked: VecDeque<(String, Pending)>,
}

/// One step of a walk.
enum Step {
    /// A znode, before those below it.
    Down(String),
    /// A znode, after those below it.
    Up(String),
}

/// A depth-first walk over a tree, in the order of the names.
struct Walk {
    levels: Vec<Level>,
    /// A znode without children goes up right after it went down.
    up: Option<String>,
}

impl Walk {
    /// A walk from `top`, which must be there.
    async fn begin(cx: &Command<'_>, top: &str) -> Result<Self, Problem> {
        let names = children(cx, top, cx.start(list_of(top)).await).await?;
        let names = names.ok_or_else(|| {
            let error = AskError::Code(ErrorCode::NoNode.code());
            Problem::Server(error, cx.outside(top).to_owned())
        })?;
        Ok(Self { levels: vec![Level::new(top.to_owned(), names)], up: None })
    }

    /// The next step; the top is not among those down. `None` after the top went up.
    async fn next(&mut self, cx: &Command<'_>) -> Result<Option<Step>, Problem> {
        if let Some(path) = self.up.take() {
            return Ok(Some(Step::Up(path)));
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            while level.asked.len() < AHEAD
                && let Some(name) = level.names.next()
            {
                let path = path::join(&level.parent, &name);
                let pending = cx.start(list_of(&path)).await;
                level.asked.push_back((path, pending));
            }
            let Some((path, pending)) = level.asked.pop_front() else {
                return Ok(self.levels.pop().map(|level| Step::Up(level.parent)));
            };
            match children(cx, &path, pending).await? {
                // Deleted since its parent was listed.
                None => {}
                Some(names) if names.is_empty() => {
                    self.up = Some(path.clone());
                    return Ok(Some(Step::Down(path)));
                }
                Some(names) => {
                    self.levels.push(Level::new(path.clone(), names));
                    return Ok(Some(Step::Down(path)));
                }
            }
        }
    }
}

impl Level {
    fn new(parent: String, mut names: Vec<String>) -> Self {
        names.sort_unstable();
        Self { parent, names: names.into_iter(), asked: VecDeque::new() }
    }
}

fn list_of(path: &str) -> Request {
    Request::GetChildren { path: path.to_owned(), watch: false }
}

/// The names below a znode; `None` if it is not there (any more).
async fn children(
    cx: &Command<'_>,
    path: &str,
    pending: Pending,
) -> Result<Option<Vec<String>>, Problem> {
    match pending.wait().await {
        Ok(Reply::Children(names)) => Ok(Some(names)),
        Ok(other) => Err(strange(&other)),
        Err(error) if error.is(ErrorCode::NoNode) => Ok(None),
        Err(error) => Err(Problem::Server(error, cx.outside(path).to_owned())),
    }
}

/// `ls -R`: every path, one a line, a znode before those below it.
pub(super) async fn list(cx: &mut Command<'_>, top: &str) -> Done {
    let mut walk = Walk::begin(cx, top).await?;
    let mut progress = Progress::new("listed", !std::io::stdout().is_terminal());
    writeln!(cx.out, "{}", text::line(cx.target.outside(top)))?;
    while let Some(step) = walk.next(cx).await? {
        if let Step::Down(path) = step {
            writeln!(cx.out, "{}", text::line(cx.target.outside(&path)))?;
            progress.add(1);
        }
    }
    Ok(())
}

/// Calls `act` with every path of a tree, a znode before those below it.
pub(super) async fn each(
    cx: &mut Command<'_>,
    top: &str,
    mut act: impl AsyncFnMut(&mut Command<'_>, &str) -> Done,
) -> Done {
    let mut walk = Walk::begin(cx, top).await?;
    act(cx, top).await?;
    while let Some(step) = walk.next(cx).await? {
        if let Step::Down(path) = step {
            act(cx, &path).await?;
        }
    }
    Ok(())
}

/// `deleteall`: a tree from its leaves up, many in one multi.
pub(super) async fn delete_all(cx: &mut Command<'_>, words: &Words) -> Done {
    let top = cx.inside(words.arg(0))?;
    if top == "/" {
        return Err("the root cannot be deleted; name what is below it".into());
    }
    let batch = words.number("-b")?.unwrap_or(BATCH);
    if !(1..=BATCH_MAX).contains(&batch) {
        return Err(format!("-b: expected 1 to {BATCH_MAX}, got {batch}").into());
    }
    let mut walk = Walk::begin(cx, &top).await?;
    let mut progress = Progress::new("deleted", true);
    let mut paths: Vec<String> = Vec::new();
    let mut bytes = 0;
    while let Some(step) = walk.next(cx).await? {
        let Step::Up(path) = step else { continue };
        bytes += path.len() + 32;
        paths.push(path);
        if paths.len() >= batch || bytes >= BATCH_BYTES_MAX {
            progress.add(delete(cx, std::mem::take(&mut paths)).await?);
            bytes = 0;
        }
    }
    if !paths.is_empty() {
        progress.add(delete(cx, paths).await?);
    }
    Ok(())
}

/// Deletes these, in order; what is gone already is no error. Gives how many it deleted.
async fn delete(cx: &Command<'_>, paths: Vec<String>) -> Result<usize, Problem> {
    let all = paths.len();
    let one = |path: &String| MultiOp::Delete { path: path.clone(), version: -1 };
    let multi = Request::Multi(paths.iter().map(one).collect());
    match cx.ask(paths.first().map_or("", String::as_str), multi).await? {
        Reply::Multi(results) if !results.iter().any(|r| matches!(r, MultiResult::Error(_))) => {
            return Ok(all);
        }
        Reply::Multi(_) => {}
        other => return Err(strange(&other)),
    }
    // Somebody else was at work: one by one, so that the rest still goes.
    let mut deleted = 0;
    let mut asked = VecDeque::new();
    let mut paths = paths.into_iter();
    loop {
        while asked.len() < AHEAD
            && let Some(path) = paths.next()
        {
            let request = Request::Delete { path: path.clone(), version: -1 };
            asked.push_back((path, cx.start(request).await));
        }
        let Some((path, pending)) = asked.pop_front() else { return Ok(deleted) };
        match pending.wait().await {
            Ok(_) => deleted += 1,
            Err(error) if error.is(ErrorCode::NoNode) => {}
            Err(error) => return Err(Problem::Server(error, cx.outside(&path).to_owned())),
        }
    }
}

/// A count on the terminal, now and then, and its end.
struct Progress {
    done: &'static str,
    shown: bool,
    count: usize,
    said: Instant,
    ever: bool,
}

impl Progress {
    const EVERY: Duration = Duration::from_millis(500);

    /// Says nothing where standard error is no terminal, or the output itself is progress enough.
    fn new(done: &'static str, wanted: bool) -> Self {
        let shown = wanted && std::io::stderr().is_terminal();
        Self { done, shown, count: 0, said: Instant::now(), ever: false }
    }

    fn add(&mut self, count: usize) {
        self.count += count;
        if self.shown && self.said.elapsed() >= Self::EVERY {
            self.said = Instant::now();
            self.ever = true;
            let _ = write!(std::io::stderr(), "\r{} {}", self.count, self.done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.ever {
            let _ = writeln!(std::io::stderr(), "\r{} {}", self.count, self.done);
        }
    }
}
