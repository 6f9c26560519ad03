//! Counters that all clients raise, each conditional on the version that it has read.

use proto::{CreateMode, ErrorCode, Reply};

use super::context::{Client, Context};
use crate::random::Random;
use crate::real::requests::{create, get, set, sync};

const PATHS: [&str; 2] = ["/counters/a", "/counters/b"];

pub(super) fn lay_out(client: &mut Client<'_>) {
    for path in PATHS {
        client.must(&create(path, "", CreateMode::Persistent));
    }
}

pub(super) fn run(context: &Context, number: usize) {
    let mut random = Random::new(100 + number as u64);
    let mut client = Client::new(context, "counter", number + 1);
    let mut known = [0; PATHS.len()];
    while context.goes_on() {
        let at = random.below(PATHS.len());
        let path = PATHS[at];
        let acknowledged = acknowledged(context, path);
        // After a sync it must not be older than what anyone was acknowledged before.
        let synced = random.percent(30) && client.ask(&sync(path)).is_some();
        let connection = client.session.connection();
        let Some((_, Some(Reply::Data(_, stat)))) = client.ask(&get(path, false)) else { continue };
        let version = stat.version;
        if synced && connection == client.session.connection() && version < acknowledged {
            let text =
                format!("{path}: after a sync version {version}, {acknowledged} was acknowledged");
            context.fail(&text);
        }
        if version < known[at] {
            context.fail(&format!("{path}: version {version} after {}", known[at]));
        }
        known[at] = version;
        match client.ask(&set(path, &format!("{number}"), version)) {
            Some((_, Some(Reply::Stat(stat)))) => {
                if stat.version != version + 1 {
                    context.fail(&format!("{path}: a set of {version} gave {}", stat.version));
                }
                let made = (path.to_owned(), stat.version);
                if let Some(other) = context.left().counter_versions.insert(made, number) {
                    context.fail(&format!("{path}: version {} is also {other}'s", stat.version));
                }
                known[at] = stat.version;
            }
            Some((header, _)) if header.err == ErrorCode::BadVersion.code() => {
                context.count("sets that came too late");
            }
            Some(other) => context.fail(&format!("{path}: a set gave {other:?}")),
            None => *context.left().counter_unknown.entry(path.to_owned()).or_default() += 1,
        }
    }
    client.close();
}

/// The highest version that anyone was acknowledged.
fn acknowledged(context: &Context, path: &str) -> i32 {
    let left = context.left();
    let range = (path.to_owned(), 0)..=(path.to_owned(), i32::MAX);
    left.counter_versions.range(range).next_back().map_or(0, |((_, version), _)| *version)
}

/// As many increments were carried out as were acknowledged, and at most those without an answer more.
pub(super) fn check(context: &Context) {
    let mut client = Client::new(context, "check", 1);
    for path in PATHS {
        client.must(&sync(path));
        let Some(Reply::Data(_, stat)) = client.must(&get(path, false)) else { continue };
        let left = context.left();
        let acknowledged = left.counter_versions.keys().filter(|(at, _)| at == path).count() as i32;
        let unknown = left.counter_unknown.get(path).copied().unwrap_or(0);
        drop(left);
        if !(acknowledged..=acknowledged + unknown).contains(&stat.version) {
            context.fail(&format!(
                "{path}: {acknowledged} increments were acknowledged, of {unknown} it is not known, \
                 but {} were carried out",
                stat.version
            ));
        }
    }
    client.close();
}
