//! Watches on the registers: one that fires once, set again on each next connection, and a persistent
//! one, whose events are counted.

use std::time::{Duration, Instant};

use proto::request::SetWatches;
use proto::{EventType, Reply, Request};

use super::context::{Client, Context};
use super::register;
use crate::real::requests::{exists, get};

const PERSISTENT: i32 = 0;
/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn run(context: &Context, number: usize) {
    match number {
        0 => persistent(context, number),
        _ => once(context, number),
    }
}

/// Sets a watch, and looks at the znode without one: as soon as it shows a change, the event must
/// have come.
fn once(context: &Context, number: usize) {
    let path = register::path(number);
    let mut client = Client::new(context, "watcher", number);
    while context.goes_on() {
        // A watch of a connection that broke before its answer is of no concern.
        client.session.events.clear();
        let Some((_, Some(Reply::Data(_, seen)))) = client.ask(&get(&path, true)) else { continue };
        while context.goes_on() {
            if client.session.wait_event(Instant::now() + PAUSE).is_err()
                && !again(&mut client, &path)
            {
                continue;
            }
            let Some((_, Some(Reply::Stat(now)))) = client.ask(&exists(&path)) else {
                again(&mut client, &path);
                continue;
            };
            let events = client.session.events.len();
            if now.mzxid < seen.mzxid {
                let text = format!("{path}: mzxid {:#x} after {:#x}", now.mzxid, seen.mzxid);
                context.fail(&text);
            }
            match (events, now.mzxid > seen.mzxid) {
                (0, false) => {}
                (1, true) => {
                    context.count("events of watches that fire once");
                    break;
                }
                (_, changed) => context.fail(&format!(
                    "{path}: {events} events; the znode has changed: {changed} ({:#x}, {:#x})",
                    seen.mzxid, now.mzxid
                )),
            }
        }
    }
    client.close();
}

/// Sets the watch again after the connection was lost, as client libraries do; the answer comes after
/// the events of what was missed.
fn again(client: &mut Client<'_>, path: &str) -> bool {
    while client.context.goes_on() {
        if client.session.server().is_none() && !client.attach() {
            return false;
        }
        let relative_zxid = client.session.last_zxid;
        let data = match client.session.events.is_empty() {
            true => vec![path.to_owned()],
            // It has fired.
            false => return true,
        };
        let watches = SetWatches { relative_zxid, data, ..SetWatches::default() };
        if let Some((header, _)) = client.ask(&Request::SetWatches(watches)) {
            client.context.count("watches set again");
            if header.err != 0 {
                client.context.fail(&format!("set watches gave {}", header.err));
            }
            return true;
        }
    }
    false
}

/// Of each version of a znode there is one event, in order, while the connection lasts.
fn persistent(context: &Context, number: usize) {
    let path = register::path(number);
    let mut client = Client::new(context, "watcher", number + 1);
    while context.goes_on() {
        client.session.events.clear();
        let add = Request::AddWatch { path: path.clone(), mode: PERSISTENT };
        let Some((header, _)) = client.ask(&add) else { continue };
        if header.err != 0 {
            context.fail(&format!("an addWatch gave {}", header.err));
        }
        let id = client.session.connection();
        let Some((_, Some(Reply::Stat(first)))) = client.ask(&exists(&path)) else { continue };
        // Those between the two answers.
        let before = client.session.events.len();
        while context.goes_on() {
            if client.session.wait_event(Instant::now() + PAUSE).is_err() {
                client.attach();
            }
            let answer = client.ask(&exists(&path));
            if client.session.connection() != id {
                break;
            }
            let Some((_, Some(Reply::Stat(now)))) = answer else { continue };
            let events = &client.session.events;
            let (got, expected) = (events.len() - before, now.version - first.version);
            if i32::try_from(got) != Ok(expected) {
                context.fail(&format!("{path}: {expected} changes, {got} events"));
            }
            if !events.is_sorted_by(|a, b| a.zxid < b.zxid)
                || events.iter().any(|event| event.kind != EventType::NodeDataChanged)
            {
                context.fail(&format!("{path}: events {events:?}"));
            }
            context.count("looks of persistent watches");
            if got > 500 {
                break;
            }
        }
        if client.session.connection() == id {
            // A watch of the next connection, so that the events kept are few.
            client.attach();
        }
    }
    client.close();
}
