//! Plugins: modules come in whole, and go on in parts; each step in the life of a binding is a request.
//!
//! To install one: upload its module, stage its binding, look until no server is `missing` of it any more,
//! activate what was staged. `vivarium plugin install` does the same.
#![allow(unused_qualifications, reason = "what utoipa makes of `params`")]

mod described;

use axum::body::Body as Stream;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use replica::operator::plugins::{Asked, PluginRequest, ShownDecision, ShownPlugin};
use replica::operator::{OperatorReply, OperatorRequest};
use serde::{Deserialize, Serialize};
use state::plugins::{Binding, Mode, ModuleHash, OpKind, PART_BYTES_MAX, PluginLimit};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::answer::{Body, Failure, Failures, Problem};
use super::{Admin, Shared};

/// How many modules may be on their way in at a time, each whole in memory; further ones wait.
pub(super) const UPLOADS_MAX: usize = 2;

/// A module that is there.
#[derive(Serialize, ToSchema)]
pub(super) struct Uploaded {
    /// Its SHA-256, by which it is named.
    module: String,
    /// Its size.
    bytes: u64,
}

/// A binding, to be compiled and tried on every server.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ToStage {
    /// What stands in a binding's file: `name`, `match`, `ops`, `settings` and so on.
    #[schema(value_type = Object)]
    binding: Binding,
    /// The SHA-256 of a module that was uploaded, in hexadecimal.
    module: String,
    /// The generation that it is to come after, 0 for none. Default: whatever there is.
    after: Option<u64>,
}

/// A generation of a binding.
#[derive(Serialize, ToSchema)]
pub(super) struct GenerationNumber {
    /// Counts what was staged under the name, from 1.
    generation: u64,
}

/// Which generation is to be called.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ToActivate {
    /// The one that was staged.
    generation: u64,
    /// Whether all voters must be ready, not only those that the leader reaches. Default false.
    #[serde(default)]
    wait_all: bool,
}

/// What is to come of what a binding says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToMode {
    /// One of four.
    #[schema(value_type = described::PluginMode)]
    mode: Mode,
}

/// All bindings.
#[derive(Serialize, ToSchema)]
pub(super) struct Plugins {
    /// In the order of their names.
    #[schema(value_type = Vec<described::Plugin>)]
    plugins: Vec<ShownPlugin>,
}

/// What plugins have said lately on this server, which remembers a bounded number. What they let pass is not
/// remembered.
#[derive(Serialize, ToSchema)]
pub(super) struct Decisions {
    /// In the order that was asked for.
    #[schema(value_type = Vec<described::Decision>)]
    decisions: Vec<ShownDecision>,
    /// The number that the next one will have.
    next: u64,
}

/// Who would be asked about an operation.
#[derive(Serialize, ToSchema)]
pub(super) struct Explained {
    /// In order.
    #[schema(value_type = Vec<described::Asked>)]
    asked: Vec<Asked>,
}

/// Which decisions.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Of this binding only.
    name: Option<String>,
    /// About this path only.
    path: Option<String>,
    /// From this number on, the oldest first; without it the last ones, the newest first.
    since: Option<u64>,
    /// At most so many, up to 1,000. Default 100.
    #[serde(default = "some")]
    most: usize,
}

fn some() -> usize {
    100
}

/// About what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct About {
    /// The znode.
    path: String,
    /// What is done to it.
    #[param(value_type = described::PluginOp)]
    op: OpKind,
}

/// Which of several.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Only {
    /// Only if this is the newest that was staged. Default: whatever there is.
    generation: Option<u64>,
}

type Asking<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

fn asked<T>(query: Asking<T>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|e| Problem::malformed(e.body_text()))
}

fn unexpected(reply: &OperatorReply) -> Problem {
    let why = format!("another reply than the one asked for: {reply:?}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why)
}

impl Admin {
    async fn ask_plugins(
        &self,
        request: PluginRequest,
        caller: &Caller,
    ) -> Result<OperatorReply, Problem> {
        self.ask(OperatorRequest::Plugin { request }, caller).await
    }

    async fn list_plugins(&self, caller: &Caller) -> Result<Vec<ShownPlugin>, Problem> {
        match self.ask_plugins(PluginRequest::ShowPlugins {}, caller).await? {
            OperatorReply::Plugins { plugins } => Ok(plugins),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for something after which a generation is called.
    async fn called(
        &self,
        request: PluginRequest,
        caller: &Caller,
    ) -> Result<Json<GenerationNumber>, Problem> {
        match self.ask_plugins(request, caller).await? {
            OperatorReply::PluginActive { generation } => Ok(Json(GenerationNumber { generation })),
            other => Err(unexpected(&other)),
        }
    }
}

/// All bindings, and how they stand. Never their settings, which may be secret.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins", responses(
    (status = 200, description = "They are these.", body = Plugins), Failures,
))]
pub(super) async fn list(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Plugins>, Problem> {
    Ok(Json(Plugins { plugins: admin.list_plugins(&caller).await? }))
}

/// One binding, and how it stands.
#[utoipa::path(get, path = "/v1/plugins/{name}", tag = "plugins",
    params(("name" = String, Path, description = "The binding.")),
    responses(
        (status = 200, description = "So.", body = described::Plugin),
        (status = 404, description = "There is none of this name.", body = Failure),
        Failures,
    ))]
pub(super) async fn one(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<ShownPlugin>, Problem> {
    let found = admin.list_plugins(&caller).await?.into_iter().find(|plugin| plugin.name == name);
    let why = || Problem::new(StatusCode::NOT_FOUND, format!("there is no binding \"{name}\""));
    found.map(Json).ok_or_else(why)
}

/// What plugins have said lately on this server: what they refused, what they did wrong, what they wrote.
#[utoipa::path(get, path = "/v1/decisions", tag = "plugins", params(Which), responses(
    (status = 200, description = "These.", body = Decisions), Failures,
))]
pub(super) async fn decisions(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    which: Asking<Which>,
) -> Result<Json<Decisions>, Problem> {
    let Which { name, path, since, most } = asked(which)?;
    let request = PluginRequest::ShowDecisions { name, path, since, most };
    match admin.ask_plugins(request, &caller).await? {
        OperatorReply::Decisions { next, decisions } => Ok(Json(Decisions { decisions, next })),
        other => Err(unexpected(&other)),
    }
}

/// Which plugins would be asked about an operation, and why one of them would not.
#[utoipa::path(get, path = "/v1/explain", tag = "plugins", params(About), responses(
    (status = 200, description = "These, in order.", body = Explained), Failures,
))]
pub(super) async fn explain(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    about: Asking<About>,
) -> Result<Json<Explained>, Problem> {
    let About { path, op } = asked(about)?;
    match admin.ask_plugins(PluginRequest::ExplainPlugins { path, op }, &caller).await? {
        OperatorReply::Explained { asked } => Ok(Json(Explained { asked })),
        other => Err(unexpected(&other)),
    }
}

/// Uploads a module. One that is there already is left, and what was interrupted is gone on with.
#[utoipa::path(post, path = "/v1/modules", tag = "plugins", security(("operator" = [])),
    request_body(content = String, content_type = "application/wasm",
        description = "The component's bytes, at most as many as the setting plugin-module-bytes says."),
    responses(
        (status = 200, description = "It is there.", body = Uploaded),
        (status = 413, description = "It is too long.", body = Failure),
        Failures,
    ))]
pub(super) async fn upload(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Stream,
) -> Result<Json<Uploaded>, Problem> {
    let settings = &admin.clients()?.published.view().settings;
    let most = settings.plugins.limit(PluginLimit::ModuleBytes);
    let _place = admin.uploads.acquire().await.expect("the places are never closed");
    let whole = axum::body::to_bytes(body, usize::try_from(most).unwrap_or(usize::MAX)).await;
    let whole = whole.map_err(|error| {
        let is_long = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        match is_long {
            true => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "a module of more than {most} bytes, which is what plugin-module-bytes allows"
                ),
            ),
            false => Problem::malformed(format!("the module did not come whole: {error}")),
        }
    })?;
    if whole.is_empty() {
        return Err(Problem::malformed("expected the bytes of a module, got none"));
    }
    let (module, bytes) = (ModuleHash::of(&whole).to_string(), whole.len() as u64);
    let mut received = 0;
    while received < bytes {
        let from = usize::try_from(received).unwrap_or(usize::MAX).min(whole.len());
        let part = STANDARD.encode(&whole[from..(from + PART_BYTES_MAX).min(whole.len())]);
        let module = module.clone();
        let request = PluginRequest::UploadModule { module, bytes, offset: received, part };
        match admin.ask_plugins(request, &caller).await? {
            // More of it may have been there.
            OperatorReply::ModuleReceived { bytes } if bytes > received => received = bytes,
            other => return Err(unexpected(&other)),
        }
    }
    Ok(Json(Uploaded { module, bytes }))
}

/// Stages a binding: every server compiles its module, tries its settings, and reports.
#[utoipa::path(post, path = "/v1/plugins", tag = "plugins", security(("operator" = [])),
    request_body = ToStage,
    responses((status = 200, description = "It is staged.", body = GenerationNumber), Failures))]
pub(super) async fn stage(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Body(ToStage { binding, module, after }): Body<ToStage>,
) -> Result<Json<GenerationNumber>, Problem> {
    let request = PluginRequest::StagePlugin { binding, module, after, if_unseen: false };
    match admin.ask_plugins(request, &caller).await? {
        OperatorReply::PluginStaged { generation: Some(generation) } => {
            Ok(Json(GenerationNumber { generation }))
        }
        other => Err(unexpected(&other)),
    }
}

/// What is staged is called from one index of the log on, on every server.
#[utoipa::path(post, path = "/v1/plugins/{name}/activate", tag = "plugins",
    security(("operator" = [])), request_body = ToActivate,
    params(("name" = String, Path, description = "The binding.")),
    responses((status = 200, description = "It is called.", body = GenerationNumber), Failures))]
pub(super) async fn activate(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(ToActivate { generation, wait_all }): Body<ToActivate>,
) -> Result<Json<GenerationNumber>, Problem> {
    admin.called(PluginRequest::ActivatePlugin { name, generation, wait_all }, &caller).await
}

/// A binding does something else from now on; a quarantine is over.
#[utoipa::path(put, path = "/v1/plugins/{name}/mode", tag = "plugins", security(("operator" = [])),
    request_body = ToMode,
    params(("name" = String, Path, description = "The binding.")),
    responses((status = 200, description = "It does.", body = GenerationNumber), Failures))]
pub(super) async fn mode(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(ToMode { mode }): Body<ToMode>,
) -> Result<Json<GenerationNumber>, Problem> {
    admin.called(PluginRequest::SetPluginMode { name, mode }, &caller).await
}

/// The generation before is called from now on, without an upload.
#[utoipa::path(post, path = "/v1/plugins/{name}/rollback", tag = "plugins",
    security(("operator" = [])),
    params(("name" = String, Path, description = "The binding.")),
    responses((status = 200, description = "It is.", body = GenerationNumber), Failures))]
pub(super) async fn rollback(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<GenerationNumber>, Problem> {
    admin.called(PluginRequest::RollbackPlugin { name }, &caller).await
}

/// A binding goes, with what its plugin keeps.
#[utoipa::path(delete, path = "/v1/plugins/{name}", tag = "plugins", security(("operator" = [])),
    params(("name" = String, Path, description = "The binding."), Only),
    responses((status = 200, description = "It is gone; these are left.", body = Plugins), Failures))]
pub(super) async fn remove(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    only: Asking<Only>,
) -> Result<Json<Plugins>, Problem> {
    let Only { generation } = asked(only)?;
    match admin.ask_plugins(PluginRequest::RemovePlugin { name, generation }, &caller).await? {
        OperatorReply::PluginChanged {} => {
            Ok(Json(Plugins { plugins: admin.list_plugins(&caller).await? }))
        }
        other => Err(unexpected(&other)),
    }
}
