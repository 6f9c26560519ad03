//! What goes wrong, as JSON, and bodies that come as JSON.

use std::fmt::Display;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::{IntoResponses, ToSchema};

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    error: String,
}

/// What is said of it.
#[derive(Serialize, ToSchema)]
pub(super) struct Failure {
    /// What is wrong, and what would be right.
    error: String,
}

/// The answers that any route may give which asks for a right.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it is read by the document alone")]
pub(super) enum Failures {
    /// The request cannot be read.
    #[response(status = 400)]
    Malformed(Failure),
    /// Nobody may do this who has not proven to be an operator, or the token is wrong.
    #[response(status = 401)]
    NotProven(Failure),
    /// It was understood, and refused: nothing was changed.
    #[response(status = 422)]
    Refused(Failure),
    /// The server starts, or stops.
    #[response(status = 503)]
    NotNow(Failure),
    /// There was no answer in time: a change may be made yet.
    #[response(status = 504)]
    NotInTime(Failure),
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Display) -> Self {
        Self { status, error: error.to_string() }
    }

    pub(super) fn malformed(error: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, error } = self;
        let mut response = (status, Json(Failure { error })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let how = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
        }
        response
    }
}

/// A body that is JSON, whatever its type is said to be.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|e| Problem::new(e.status(), e.body_text()))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|e| Problem::malformed(format!("the body is not what is expected: {e}")))
    }
}
