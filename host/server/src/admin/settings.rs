//! The cluster's settings, as `vivarium settings` shows and changes them.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use replica::operator::{OperatorReply, OperatorRequest};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::access::Caller;
use super::answer::{Body, Failures, Problem};

/// What a change did.
#[derive(Serialize, ToSchema)]
pub(super) struct SettingsChanged {
    /// All settings as they were.
    before: BTreeMap<String, String>,
    /// All settings as they are.
    after: BTreeMap<String, String>,
}

fn unexpected(reply: &OperatorReply) -> Problem {
    let why = format!("another reply than the one asked for: {reply:?}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why)
}

/// All settings of the cluster: name and value. A digest is shown by its first characters.
#[utoipa::path(get, path = "/v1/settings", tag = "cluster", responses(
    (status = 200, description = "They are these.", body = BTreeMap<String, String>),
    Failures,
))]
pub(super) async fn show(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<BTreeMap<String, String>>, Problem> {
    match admin.ask(OperatorRequest::ShowSettings {}, &caller).await? {
        OperatorReply::Settings { settings } => Ok(Json(settings)),
        other => Err(unexpected(&other)),
    }
}

/// Changes settings: all of those named or none. They hold on every server, from one entry of the log on.
#[utoipa::path(patch, path = "/v1/settings", tag = "cluster", security(("operator" = [])),
    request_body(content = BTreeMap<String, String>, example = json!({"ttl-nodes": "false"})),
    responses((status = 200, description = "They are changed.", body = SettingsChanged), Failures))]
pub(super) async fn change(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Body(set): Body<BTreeMap<String, String>>,
) -> Result<Json<SettingsChanged>, Problem> {
    match admin.ask(OperatorRequest::ChangeSettings { set }, &caller).await? {
        OperatorReply::SettingsChanged { before, after } => {
            Ok(Json(SettingsChanged { before, after }))
        }
        other => Err(unexpected(&other)),
    }
}
