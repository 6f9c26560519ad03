//! create, delete, get, set, stat.

use bytes::Bytes;
use proto::request::Create;
use proto::{Acl, CreateMode, OpCode, Perms, Reply, Request};

use super::acl;
use super::command::{Command, Done, strange};
use super::text;
use super::words::Words;

pub(super) async fn create(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let (sequential, ephemeral) = (words.has("-s"), words.has("-e"));
    let (container, ttl_ms) = (words.has("-c"), words.number::<i64>("-t")?);
    if container && (sequential || ephemeral || ttl_ms.is_some()) {
        return Err("-c cannot be combined with -s, -e or -t".into());
    }
    if ttl_ms.is_some() && ephemeral {
        return Err("-t cannot be combined with -e: an ephemeral goes with its session".into());
    }
    if ttl_ms.is_some_and(|ms| ms <= 0) {
        return Err("-t: expected a positive number of milliseconds".into());
    }
    let (op, mode) = match (container, ttl_ms, ephemeral, sequential) {
        (true, ..) => (OpCode::CreateContainer, CreateMode::Container),
        (_, Some(_), _, false) => (OpCode::CreateTtl, CreateMode::PersistentTtl),
        (_, Some(_), _, true) => (OpCode::CreateTtl, CreateMode::PersistentSequentialTtl),
        (_, None, false, false) => (OpCode::Create, CreateMode::Persistent),
        (_, None, false, true) => (OpCode::Create, CreateMode::PersistentSequential),
        (_, None, true, false) => (OpCode::Create, CreateMode::Ephemeral),
        (_, None, true, true) => (OpCode::Create, CreateMode::EphemeralSequential),
    };
    let acl = match words.optional(2) {
        Some(text) => acl::parse(text)?,
        None => vec![Acl::world(Perms::ALL)],
    };
    let new = Create {
        op,
        path: path.clone(),
        data: words.optional(1).map(|data| Bytes::copy_from_slice(data.as_bytes())),
        acl,
        flags: mode.flags(),
        ttl_ms: ttl_ms.unwrap_or(-1),
    };
    match cx.ask(&path, Request::Create(new)).await? {
        Reply::Path(made) | Reply::PathStat(made, _) => {
            writeln!(cx.out, "Created {}", text::line(cx.target.outside(&made)))?;
            if ephemeral && !cx.stays {
                super::command::note("the ephemeral goes with this command's session");
            }
            Ok(())
        }
        other => Err(strange(&other)),
    }
}

pub(super) async fn delete(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let version = words.number("-v")?.unwrap_or(-1);
    cx.ask(&path, Request::Delete { path: path.clone(), version }).await?;
    Ok(())
}

pub(super) async fn get(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let watch = words.has("-w");
    let (data, stat) = match cx.ask(&path, Request::GetData { path: path.clone(), watch }).await? {
        Reply::Data(data, stat) => (data, stat),
        other => return Err(strange(&other)),
    };
    match data {
        None if words.has("-r") => {}
        None => writeln!(cx.out, "null")?,
        Some(data) if words.has("-r") => cx.out.write_all(&data)?,
        Some(data) if words.has("-b") => writeln!(cx.out, "{}", text::base64(&data))?,
        Some(data) if words.has("-x") => text::hex_dump(cx.out, &data)?,
        Some(data) => writeln!(cx.out, "{}", text::data(&data))?,
    }
    if words.has("-s") {
        text::stat(cx.out, &stat)?;
    }
    if watch {
        cx.warn_of_watch();
    }
    Ok(())
}

pub(super) async fn set(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let version = words.number("-v")?.unwrap_or(-1);
    let data = match words.has("-b") {
        true => text::from_base64(words.arg(1)).ok_or("-b: expected base64")?,
        false => words.arg(1).as_bytes().to_vec(),
    };
    let data = Some(Bytes::from(data));
    match cx.ask(&path, Request::SetData { path: path.clone(), data, version }).await? {
        Reply::Stat(stat) if words.has("-s") => Ok(text::stat(cx.out, &stat)?),
        Reply::Stat(_) => Ok(()),
        other => Err(strange(&other)),
    }
}

pub(super) async fn stat(cx: &mut Command<'_>, words: &Words) -> Done {
    let path = cx.inside(words.arg(0))?;
    let watch = words.has("-w");
    let reply = cx.ask(&path, Request::Exists { path: path.clone(), watch }).await;
    if watch {
        cx.warn_of_watch();
    }
    match reply? {
        Reply::Stat(stat) => Ok(text::stat(cx.out, &stat)?),
        other => Err(strange(&other)),
    }
}
