//! The admin API: HTTP and JSON, on a port and a thread of its own, for operators and monitoring.
//!
//! Operators' requests go the way of the tools' (`replica::operator_call`): this is another door to the
//! same code. Each route is declared with what it takes and gives, and `/openapi.json` is made of that;
//! `tests/it/admin.rs` holds it against a running server.
//!
//! Invariants:
//! * Health is told to everybody, from the first moment of the process on. Who may see the rest is in
//!   `access.rs`; nothing is changed for anybody who has not proven to be an operator.
//! * It costs clients nothing: it has a thread of its own, reads what is counted anyway, and takes a
//!   bounded number of connections, bytes and seconds.
//! * Whatever goes wrong is answered with JSON that has an `error` in words.

mod access;
mod answer;
mod commands;
mod health;
mod listen;
mod members;
mod plugins;
mod settings;
mod status;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Json, Router, middleware};
use replica::OperatorCall;
use replica::operator::{OperatorReply, OperatorRequest};
use replica::operator_call::Begun;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::access::{Caller, Right};
use self::answer::{Failures, Problem};
use crate::client::Clients;
use crate::config::{Admin as AdminConfig, AllowFrom};
use crate::metrics::{self, Seen};
use crate::operator_token::OperatorToken;

pub(crate) use self::listen::start;

/// How long a change may take until it is given up waiting for.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// The longest body of a request that is no module, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What the routes work with.
pub(crate) struct Admin {
    allow_from: AllowFrom,
    token_file: Option<PathBuf>,
    /// Once the server has its data.
    running: OnceLock<Running>,
    /// What `/openapi.json` says.
    document: OnceLock<OpenApi>,
    /// For modules that are on their way in.
    uploads: Semaphore,
}

struct Running {
    clients: Arc<Clients>,
    token: Arc<OperatorToken>,
}

type Shared = Arc<Admin>;

impl Admin {
    pub(crate) fn new(config: &AdminConfig) -> Shared {
        let AdminConfig { allow_from, token_file, .. } = config.clone();
        Arc::new(Self {
            allow_from,
            token_file,
            running: OnceLock::new(),
            document: OnceLock::new(),
            uploads: Semaphore::new(plugins::UPLOADS_MAX),
        })
    }

    /// The server has its data, and a token.
    pub(crate) fn runs(&self, clients: Arc<Clients>, token: Arc<OperatorToken>) {
        self.running.get_or_init(|| Running { clients, token });
    }

    fn clients(&self) -> Result<&Arc<Clients>, Problem> {
        let running = self.running.get();
        running.map(|running| &running.clients).ok_or_else(|| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is starting: see /readyz")
        })
    }

    /// Asks as an operator, and waits for the answer.
    async fn ask(
        &self,
        request: OperatorRequest,
        caller: &Caller,
    ) -> Result<OperatorReply, Problem> {
        let clients = self.clients()?;
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        let wake = Box::new(move || wake.notify_one());
        let id = clients.next_connection.fetch_add(1, Ordering::Relaxed);
        let reply = match OperatorCall::begin(&clients.published, request, caller.who(), id, wake) {
            Begun::Answered(reply) => reply,
            Begun::Waits(call, input) => {
                if !clients.inputs.put([input]) {
                    return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server stops"));
                }
                let deadline = Instant::now() + CHANGE_MAX;
                loop {
                    if let Some(reply) = call.reply() {
                        break reply.map_err(|e| Problem::new(StatusCode::BAD_GATEWAY, e))?;
                    }
                    if tokio::time::timeout_at(deadline, woken.notified()).await.is_err() {
                        let why = "no answer within 30 s: there may be no leader. The change may be made \
                                   yet; look before you ask again";
                        return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, why));
                    }
                }
            }
        };
        match reply {
            OperatorReply::Refused { why } => {
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why))
            }
            reply => Ok(reply),
        }
    }
}

/// Does what may take a while, or waits for a disk, beside the thread that answers.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let panicked =
        |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a bug; see the server's log");
    tokio::task::spawn_blocking(work).await.map_err(panicked)
}

/// All metrics, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "monitoring", responses(
    (status = 200, description = "See the HELP lines.", body = String, content_type = "text/plain"),
    Failures,
))]
async fn metrics_text(State(admin): State<Shared>) -> Result<impl IntoResponse, Problem> {
    let clients = Arc::clone(admin.clients()?);
    let text = aside(move || metrics::text(Seen::look(&clients))).await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "monitoring", responses(
    (status = 200, description = "OpenAPI 3.1.", body = serde_json::Value),
))]
async fn described(State(admin): State<Shared>) -> Json<OpenApi> {
    Json(admin.document.get().expect("it is made with the routes").clone())
}

/// All routes, and the document that describes them.
fn routes(admin: &Shared) -> Router {
    let rights = |right| middleware::from_fn_with_state((Arc::clone(admin), right), access::check);
    let free = OpenApiRouter::new()
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(described));
    let look = OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(members::list))
        .routes(routes!(settings::show))
        .routes(routes!(plugins::list))
        .routes(routes!(plugins::one))
        .routes(routes!(plugins::decisions))
        .routes(routes!(plugins::explain))
        .routes(routes!(metrics_text))
        .routes(routes!(commands::list))
        .routes(routes!(commands::run))
        .route_layer(rights(Right::Look));
    let change = OpenApiRouter::new()
        .routes(routes!(members::add))
        .routes(routes!(members::remove))
        .routes(routes!(members::promote))
        .routes(routes!(members::demote))
        .routes(routes!(settings::change))
        .routes(routes!(plugins::upload))
        .routes(routes!(plugins::stage))
        .routes(routes!(plugins::activate))
        .routes(routes!(plugins::mode))
        .routes(routes!(plugins::rollback))
        .routes(routes!(plugins::remove))
        .route_layer(rights(Right::Change));
    let all = OpenApiRouter::with_openapi(frame()).merge(free).merge(look).merge(change);
    let (router, mut document) = all.split_for_parts();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    admin.document.get_or_init(|| document);
    router
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "there is no such path; see /openapi.json")
        })
        .method_not_allowed_fallback(|| async {
            let why = "this path does not take that method; see /openapi.json";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::clone(admin))
}

/// The document without its routes.
fn frame() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        components(schemas(answer::Failure)),
        info(
            title = "Vivarium admin API",
            description = "One server of an ensemble, for its operators. Anybody may ask for its health. Whoever \
                       comes from the server's own machine, or proves to be an operator, may look; changes \
                       need an operator: the token of `operator.token` in the data directory or of \
                       `admin.token-file`, or a client certificate where there is `admin.tls`."
        )
    )]
    struct Frame;
    let mut document = <Frame as utoipa::OpenApi>::openapi();
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("operator", token);
    document
}
