//! Short sessions with an ephemeral each: closed, or left alone. And a long one beside them.

use std::time::{Duration, Instant};

use proto::{CreateMode, ErrorCode, Reply, Request};

use super::context::{Client, Context, PATIENCE};
use crate::random::Random;
use crate::real::requests::{create, exists, sync};
use crate::real::session::Session;

/// The shortest that a server grants.
const SHORT: Duration = Duration::from_secs(4);
/// Until the last of those left alone must be gone.
const GONE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn run(context: &Context, number: usize) {
    let mut random = Random::new(200 + number as u64);
    let mut long = Client::new(context, "long session", number);
    let alive = format!("/alive/{number}");
    long.must(&create(&alive, "", CreateMode::Ephemeral));
    let mut made = 0;
    while context.goes_on() {
        made += 1;
        let path = format!("/ephemerals/{number}-{made}");
        let closed = short(context, &path, random.below(context.servers.len()), random.percent(70));
        if closed {
            long.must(&sync(&path));
            if let Some((header, _)) = long.ask(&exists(&path))
                && header.err != ErrorCode::NoNode.code()
            {
                context.fail(&format!("{path} is there after its session was closed"));
            }
        } else {
            context.left().gone.push(path);
        }
        long.must(&exists(&alive));
        std::thread::sleep(PAUSE);
    }
    context.left().there.insert(alive, String::new());
    context.left().alive.push(long.session);
}

/// A session with an ephemeral; whether it was closed for sure.
fn short(context: &Context, path: &str, at: usize, close: bool) -> bool {
    let mut session = Session::new(&context.servers, at, SHORT, PATIENCE);
    if session.attach(Instant::now() + SHORT).is_err() {
        return false;
    }
    match session.ask(&create(path, "", CreateMode::Ephemeral)) {
        Ok((header, _)) if header.err == 0 => context.count("ephemerals"),
        Ok((header, _)) => context.fail(&format!("{path}: a create gave {}", header.err)),
        Err(_) => return false,
    }
    close && session.ask(&Request::CloseSession).is_ok()
}

/// Those of the long sessions are there (`register::check` has looked), the others go.
pub(super) fn check(context: &Context) {
    let gone = std::mem::take(&mut context.left().gone);
    let mut client = Client::new(context, "check", 2);
    let deadline = Instant::now() + GONE;
    loop {
        client.must(&sync("/ephemerals"));
        let children = Request::GetChildren { path: "/ephemerals".to_owned(), watch: false };
        let Some(Reply::Children(names)) = client.must(&children) else { break };
        if names.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            let (left, all) = (names.len(), gone.len());
            context
                .fail(&format!("{left} ephemerals stay, of {all} whose sessions were left alone"));
            break;
        }
        // Their sessions go on.
        for session in &mut context.left().alive {
            if let Err(trouble) = session.ask(&Request::Ping) {
                context.fail(&format!("a long session at the end: {trouble:?}"));
            }
        }
        std::thread::sleep(PAUSE);
    }
    client.close();
}
