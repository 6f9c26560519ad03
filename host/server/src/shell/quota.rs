//! setquota, listquota, delquota: quotas are znodes that a client's tool makes.

use bytes::Bytes;
use proto::request::Create;
use proto::{Acl, ErrorCode, OpCode, Perms, Reply, Request, path};

use super::command::{Command, Done, strange};
use super::problem::Problem;
use super::text;
use super::tree;
use super::words::Words;

const ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// The four limits, -1 for none, in ZooKeeper's text form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limits {
    count: i64,
    bytes: i64,
    byte_hard: i64,
    count_hard: i64,
}

impl Limits {
    const NONE: Self = Self { count: -1, bytes: -1, byte_hard: -1, count_hard: -1 };

    /// Reads the text form; what is missing is not limited.
    fn parse(text: &str) -> Self {
        let mut limits = Self::NONE;
        for part in text.split([',', ';']) {
            let Some((key, value)) = part.split_once('=') else { continue };
            let Ok(value) = value.trim_end_matches('=').trim().parse() else { continue };
            match key.trim() {
                "count" => limits.count = value,
                "bytes" => limits.bytes = value,
                "byteHardLimit" => limits.byte_hard = value,
                "countHardLimit" => limits.count_hard = value,
                _ => {}
            }
        }
        limits
    }

    fn field(&mut self, flag: &str) -> &mut i64 {
        match flag {
            "-n" => &mut self.count,
            "-b" => &mut self.bytes,
            "-N" => &mut self.count_hard,
            _ => &mut self.byte_hard,
        }
    }
}

impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, bytes, byte_hard, count_hard } = self;
        write!(f, "count={count},bytes={bytes}")?;
        // ZooKeeper's own form; the lone = lets servers without hard limits read the rest.
        write!(f, "=;byteHardLimit={byte_hard};countHardLimit={count_hard}")
    }
}

const FLAGS: [&str; 4] = ["-n", "-b", "-N", "-B"];

fn shadow(path: &str) -> String {
    format!("{ROOT}{path}")
}

fn limits_of(path: &str) -> String {
    format!("{ROOT}{path}/{LIMITS}")
}

fn stats_of(path: &str) -> String {
    format!("{ROOT}{path}/{STATS}")
}

/// The data of a znode, and its version; `None` if it is not there.
async fn read(cx: &Command<'_>, path: &str) -> Result<Option<(String, i32)>, Problem> {
    match cx.session.ask(Request::GetData { path: path.to_owned(), watch: false }).await {
        Ok(Reply::Data(data, stat)) => {
            Ok(Some((text::data(&data.unwrap_or_default()), stat.version)))
        }
        Ok(other) => Err(strange(&other)),
        Err(error) if error.is(ErrorCode::NoNode) => Ok(None),
        Err(error) => Err(Problem::Server(error, path.to_owned())),
    }
}

/// Makes a znode unless it is there.
async fn make(cx: &Command<'_>, path: &str, data: &str) -> Done {
    let new = Create {
        op: OpCode::Create,
        path: path.to_owned(),
        data: Some(Bytes::copy_from_slice(data.as_bytes())),
        acl: vec![Acl::world(Perms::ALL)],
        flags: 0,
        ttl_ms: -1,
    };
    match cx.session.ask(Request::Create(new)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is(ErrorCode::NodeExists) => Ok(()),
        Err(error) => Err(Problem::Server(error, path.to_owned())),
    }
}

pub(super) async fn set(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let mut given = Vec::new();
    for flag in FLAGS {
        if let Some(limit) = words.number::<i64>(flag)? {
            if limit < -1 || (limit == 0 && matches!(flag, "-n" | "-N")) {
                return Err(format!("{flag}: expected a positive number, or -1 for none").into());
            }
            given.push((flag, limit));
        }
    }
    if given.is_empty() {
        return Err("expected a limit: -n, -b, -N or -B; `help setquota` shows them".into());
    }
    if path == "/" || path == "/zookeeper" || path.starts_with("/zookeeper/") {
        return Err("cannot set a quota under /zookeeper, or for the root".into());
    }
    let there = Request::Exists { path: path.clone(), watch: false };
    if let Err(error) = cx.session.ask(there).await {
        if error.is(ErrorCode::NoNode) {
            return Err(format!("{} does not exist.", text::line(cx.outside(&path))).into());
        }
        return Err(Problem::Server(error, cx.outside(&path).to_owned()));
    }
    refuse_nested(cx, &path).await?;
    let mut at = String::from(ROOT);
    for name in path.split('/').skip(1) {
        at = path::join(&at, name);
        make(cx, &at, "").await?;
    }
    let (limits_at, stats_at) = (limits_of(&path), stats_of(&path));
    let (mut limits, version) = match read(cx, &limits_at).await? {
        Some((text, version)) => (Limits::parse(&text), Some(version)),
        None => (Limits::NONE, None),
    };
    for (flag, limit) in given {
        *limits.field(flag) = limit;
    }
    let data = limits.to_string();
    match version {
        // The limits come first: the server begins to count when they are there.
        None => {
            make(cx, &limits_at, &data).await?;
            make(cx, &stats_at, "count=0,bytes=0").await
        }
        Some(version) => {
            let data = Some(Bytes::from(data));
            let request = Request::SetData { path: limits_at.clone(), data, version };
            cx.ask(&limits_at, request).await.map(|_| ())
        }
    }
}

/// There is one quota between the root and any leaf.
async fn refuse_nested(cx: &mut Command<'_>, path: &str) -> Done {
    let mut above = path::split(path).map(|(parent, _)| parent);
    while let Some(parent) = above.filter(|parent| *parent != "/") {
        if read(cx, &limits_of(parent)).await?.is_some() {
            let (path, parent) = (text::line(cx.outside(path)), text::line(cx.outside(parent)));
            return Err(format!("{path} has a parent {parent} which has a quota").into());
        }
        above = path::split(parent).map(|(parent, _)| parent);
    }
    let top = shadow(path);
    let (own, mut below) = (limits_of(path), None);
    let walked = tree::each(cx, &top, async |_, at| {
        if at.ends_with(LIMITS) && at != own {
            below.get_or_insert_with(|| at.to_owned());
        }
        Ok(())
    })
    .await;
    match (walked, below) {
        (Err(Problem::Server(error, _)), _) if error.is(ErrorCode::NoNode) => Ok(()),
        (Err(problem), _) => Err(problem),
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(below)) => {
            let child = below.strip_prefix(ROOT).unwrap_or(&below);
            let child = child.strip_suffix(&format!("/{LIMITS}")).unwrap_or(child);
            let (path, child) = (text::line(cx.outside(path)), text::line(cx.outside(child)));
            Err(format!("{path} has a child {child} which has a quota").into())
        }
    }
}

pub(super) async fn list(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let shown = text::line(words.arg(0));
    let limits_at = limits_of(&path);
    writeln!(cx.out, "absolute path is {}", text::line(&limits_at))?;
    let Some((limits, _)) = read(cx, &limits_at).await? else {
        return Err(format!("quota for {shown} does not exist.").into());
    };
    writeln!(cx.out, "Output quota for {shown} {}", limits)?;
    if let Some((stats, _)) = read(cx, &stats_of(&path)).await? {
        writeln!(cx.out, "Output stat for {shown} {stats}")?;
    }
    Ok(())
}

pub(super) async fn delete(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let limits_at = limits_of(&path);
    let Some((text, version)) = read(cx, &limits_at).await? else {
        return Err(format!("Quota does not exist for {}", text::line(words.arg(0))).into());
    };
    let given: Vec<&str> = FLAGS.into_iter().filter(|flag| words.has(flag)).collect();
    if !given.is_empty() {
        let mut limits = Limits::parse(&text);
        given.iter().for_each(|flag| *limits.field(flag) = -1);
        let data = Some(Bytes::from(limits.to_string()));
        let request = Request::SetData { path: limits_at.clone(), data, version };
        return cx.ask(&limits_at, request).await.map(|_| ());
    }
    // Then the empty znodes above it, up to the first that is still used.
    let mut above = shadow(&path);
    let mut doomed = vec![limits_at, stats_of(&path)];
    while above != ROOT {
        let parent = path::split(&above).map_or(ROOT, |(parent, _)| parent).to_owned();
        doomed.push(std::mem::replace(&mut above, parent));
    }
    for path in doomed {
        match cx.session.ask(Request::Delete { path: path.clone(), version: -1 }).await {
            Ok(_) => {}
            Err(error) if error.is(ErrorCode::NoNode) => {}
            Err(error) if error.is(ErrorCode::NotEmpty) => break,
            Err(error) => return Err(Problem::Server(error, path)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_text() {
        let text = "count=5,bytes=-1=;byteHardLimit=1000;countHardLimit=-1";
        let mut limits = Limits::parse(text);
        assert_eq!(limits, Limits { count: 5, bytes: -1, byte_hard: 1000, count_hard: -1 });
        assert_eq!(limits.to_string(), text);
        *limits.field("-N") = 7;
        assert!(limits.to_string().ends_with("countHardLimit=7"));
        assert_eq!(Limits::parse("count=3,bytes=9"), Limits { count: 3, bytes: 9, ..Limits::NONE });
        assert_eq!(Limits::parse("rubbish"), Limits::NONE);
    }
}
