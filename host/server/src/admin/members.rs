//! The servers of the ensemble, as `vivarium member` shows and changes them.
//!
//! A change is answered once it holds; the servers go on towards it, and a look says how far they are.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use proto::Address;
use replica::operator::{OperatorReply, OperatorRequest};
use replica::roster::{Listed, Standing};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::answer::{Body, Failures, Problem};
use super::{Admin, Shared};
use crate::roster::{MemberChange, Roster};

/// The servers of the ensemble.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Members {
    /// The version of what they are to be, as in `/zookeeper/config`; hexadecimal.
    version: String,
    /// Each of them.
    servers: Vec<Member>,
    /// How many that were removed are counted still.
    leaving: usize,
    /// Whether all are what they are to be.
    settled: bool,
}

/// One server.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Member {
    /// Its `server-id`.
    id: u32,
    /// Where it is found, and its role, as in `/zookeeper/config`.
    spec: String,
    /// What it is by now.
    part: Part,
}

/// What a server is by now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Part {
    /// It votes.
    Votes,
    /// It has the data, and does not vote.
    Observes,
    /// It is to vote once it has the data.
    CatchesUp,
    /// It votes still, and soon will not.
    StillVotes,
    /// It has not been started yet, or cannot reach the others.
    NotThereYet,
}

/// A server that is to take part.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct NewMember {
    /// Its `server-id`, 0 to 254.
    id: u32,
    /// Where the other servers reach it, `HOST:PORT`; several if it has several networks.
    #[schema(value_type = Vec<String>)]
    peer: Vec<Address>,
    /// Where clients reach it, `HOST:PORT`.
    #[schema(value_type = String)]
    client: Address,
    /// It gets the data and serves clients, and does not vote. Default false.
    #[serde(default)]
    observer: bool,
}

impl From<Standing> for Part {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Votes => Self::Votes,
            Standing::Observes => Self::Observes,
            Standing::CatchesUp => Self::CatchesUp,
            Standing::StillVotes => Self::StillVotes,
            Standing::NotThereYet => Self::NotThereYet,
        }
    }
}

impl From<Roster> for Members {
    fn from(roster: Roster) -> Self {
        let settled = roster.is_settled();
        let Roster { version, servers, leaving } = roster;
        let member = |Listed { id, spec, part }| Member { id, spec, part: part.into() };
        let servers = servers.into_iter().map(member).collect();
        Self { version: format!("{version:x}"), servers, leaving, settled }
    }
}

impl Admin {
    async fn roster(&self, caller: &Caller) -> Result<Roster, Problem> {
        let reply = self.ask(OperatorRequest::ShowMembers {}, caller).await?;
        Roster::of(reply).map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e))
    }

    async fn change_members(
        &self,
        change: MemberChange,
        caller: &Caller,
    ) -> Result<Json<Members>, Problem> {
        let request = self.roster(caller).await?.request(&change);
        let request = request.map_err(|e| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, e))?;
        match self.ask(request, caller).await? {
            OperatorReply::MembersChanged { .. } => Ok(Json(self.roster(caller).await?.into())),
            other => {
                let why = format!("another reply than the one asked for: {other:?}");
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why))
            }
        }
    }
}

fn id(text: &str) -> Result<u32, Problem> {
    text.parse().map_err(|_| Problem::malformed(format!("expected a server's id, got {text:?}")))
}

/// The servers, and what each is by now.
#[utoipa::path(get, path = "/v1/members", tag = "members", responses(
    (status = 200, description = "They are these.", body = Members), Failures,
))]
pub(super) async fn list(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Members>, Problem> {
    Ok(Json(admin.roster(&caller).await?.into()))
}

/// Lets a server take part, or says that it is found elsewhere. It starts with an empty data directory.
#[utoipa::path(post, path = "/v1/members", tag = "members", security(("operator" = [])),
    request_body = NewMember,
    responses((status = 200, description = "It is to take part.", body = Members), Failures))]
pub(super) async fn add(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Body(new): Body<NewMember>,
) -> Result<Json<Members>, Problem> {
    let NewMember { id, peer, client, observer } = new;
    admin.change_members(MemberChange::Add { id, peer, client, observer }, &caller).await
}

/// A server takes part no more.
#[utoipa::path(delete, path = "/v1/members/{id}", tag = "members", security(("operator" = [])),
    params(("id" = u32, Path, description = "Its `server-id`.")),
    responses((status = 200, description = "It is not to take part.", body = Members), Failures))]
pub(super) async fn remove(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<Members>, Problem> {
    admin.change_members(MemberChange::Remove { ids: vec![id(&text)?] }, &caller).await
}

/// An observer is to vote.
#[utoipa::path(post, path = "/v1/members/{id}/promote", tag = "members", security(("operator" = [])),
    params(("id" = u32, Path, description = "Its `server-id`.")),
    responses((status = 200, description = "It is to vote.", body = Members), Failures))]
pub(super) async fn promote(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<Members>, Problem> {
    admin.change_members(MemberChange::Promote { id: id(&text)? }, &caller).await
}

/// A server is to vote no more, and goes on as an observer.
#[utoipa::path(post, path = "/v1/members/{id}/demote", tag = "members", security(("operator" = [])),
    params(("id" = u32, Path, description = "Its `server-id`.")),
    responses((status = 200, description = "It is to observe.", body = Members), Failures))]
pub(super) async fn demote(
    State(admin): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<Members>, Problem> {
    admin.change_members(MemberChange::Demote { id: id(&text)? }, &caller).await
}
