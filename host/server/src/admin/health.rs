//! Whether the server lives, and whether clients are served.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use crate::client::Clients;
use crate::threads::Part;

/// Raft ticks every 50 ms, but waits for the disk: a server that was silent for so long hangs.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// A server that has so many entries less than it knows to be committed shows what is old.
const LAG_ENTRIES_MAX: u64 = 10_000;

/// How a server is.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Whether it is well.
    ok: bool,
    /// Why it is not; empty if it is.
    reasons: Vec<String>,
}

fn answer(reasons: Vec<String>) -> (StatusCode, Json<Health>) {
    let ok = reasons.is_empty();
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { ok, reasons }))
}

/// Whether the process is alive. If not, a restart may help.
#[utoipa::path(get, path = "/livez", tag = "health", responses(
    (status = 200, description = "It is.", body = Health),
    (status = 503, description = "Its threads hang.", body = Health),
))]
pub(super) async fn livez(State(admin): State<Shared>) -> (StatusCode, Json<Health>) {
    let quiet = admin.running.get().map(|running| running.clients.watched.quiet());
    let hangs = quiet.filter(|quiet| *quiet > SILENT_MAX);
    let why = |quiet: Duration| format!("raft's thread has hung for {} s", quiet.as_secs());
    answer(hangs.map(why).into_iter().collect())
}

/// Whether clients are served: all of them, for reads and for writes.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "They are.", body = Health),
    (status = 503, description = "They are not, for these reasons.", body = Health),
))]
pub(super) async fn readyz(State(admin): State<Shared>) -> (StatusCode, Json<Health>) {
    let reasons = match admin.clients() {
        Ok(clients) => clients.unready(),
        Err(_) => {
            let why = "the server opens its data, or waits for others to let it take part";
            vec![why.to_owned()]
        }
    };
    answer(reasons)
}

impl Clients {
    /// Why clients are not served, each reason by itself.
    pub(crate) fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stops.load(Ordering::Relaxed) {
            reasons.push("the server stops".to_owned());
        }
        if let Some(why) = self.published.shut() {
            reasons.push(format!("nobody is served from its state: {why}"));
        } else if !self.serves.load(Ordering::Relaxed) {
            let index = self.published.view().index;
            reasons.push(format!("it replays its log, and has come to entry {index}"));
        }
        if let Some(why) = self.published.waits_for() {
            let index = self.published.view().index + 1;
            reasons.push(format!("entry {index} cannot be applied here for now: {why}"));
        }
        match Part::of(&self.four_letter.part) {
            "looking" => reasons.push("no leader is known".to_owned()),
            "read-only" => reasons.push("no leader is known: it is read-only".to_owned()),
            "removed" => reasons.push("it was removed from the ensemble".to_owned()),
            _ => {}
        }
        let status = self.watched.status();
        let lag = status.committed.saturating_sub(status.applied);
        if lag > LAG_ENTRIES_MAX {
            reasons.push(format!("{lag} entries that are committed are not applied here yet"));
        }
        reasons
    }
}
