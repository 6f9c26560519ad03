//! Who may do what.
//!
//! Whoever has the token, or shows a certificate that `admin.tls` trusts, is an operator. A wrong token is
//! refused also where none is needed: whoever sends it should know.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use proto::Id;
use replica::operator;

use super::answer::Problem;
use super::{Admin, Shared};
use crate::config::AllowFrom;
use crate::sasl::equal;

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// It tells.
    Look,
    /// It changes something.
    Change,
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) remote: SocketAddr,
    /// Whose certificate it has shown, if any.
    pub(super) certificate: Option<Arc<str>>,
}

impl Caller {
    /// Who it is as an operator, and where it calls from.
    pub(super) fn who(&self) -> (Id, IpAddr) {
        let who = match &self.certificate {
            Some(name) => Id::new("x509", name.to_string()),
            None => Id::new("super", operator::SCHEME),
        };
        (who, self.remote.ip().to_canonical())
    }
}

/// Lets a request through, if whoever sent it has the right.
pub(super) async fn check(
    State((admin, right)): State<(Shared, Right)>,
    request: Request,
    next: Next,
) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let refused = |why: &str| Problem::new(StatusCode::UNAUTHORIZED, why).into_response();
    let Some(caller) = caller else { return refused("it is not known who calls") };
    let token = match bearer(request.headers()) {
        Ok(token) => token,
        Err(why) => return refused(why),
    };
    let is_operator = match token {
        Some(token) if admin.knows(token.as_bytes()) => true,
        Some(_) => {
            tracing::warn!(remote = %caller.remote, "a wrong token for the admin API");
            return refused(
                "the token is wrong: that of the data directory changes with each start",
            );
        }
        None => caller.certificate.is_some(),
    };
    let allowed = is_operator || right == Right::Look && admin.tells(&caller, request.headers());
    if !allowed {
        return refused(
            "this needs an operator: send `Authorization: Bearer TOKEN`, with the token of \
             operator.token in the server's data directory or of `admin.token-file`, or a client \
             certificate that `admin.tls` trusts",
        );
    }
    if right == Right::Change {
        let (method, path) = (request.method(), request.uri().path());
        let certificate = caller.certificate.as_deref();
        tracing::info!(%method, path, remote = %caller.remote, certificate, "an operator's request");
    }
    next.run(request).await
}

/// The token that was sent.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let Some(sent) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let sent = sent.to_str().ok().and_then(|sent| sent.split_once(' '));
    match sent {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err("expected `Authorization: Bearer TOKEN`, got another form"),
    }
}

impl Admin {
    /// Whether this is a token of operators.
    fn knows(&self, token: &[u8]) -> bool {
        let is_own = self.running.get().is_some_and(|running| running.token.is(token));
        is_own || self.given().is_some_and(|given| equal(given.as_bytes(), token))
    }

    /// The token of the file, as it is now.
    fn given(&self) -> Option<String> {
        let path = self.token_file.as_ref()?;
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let token = text.lines().next().unwrap_or_default().trim().to_owned();
                Some(token).filter(|token| token.len() >= crate::config::TOKEN_BYTES_MIN)
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "`admin.token-file` cannot be read");
                None
            }
        }
    }

    /// Whether somebody may look who has proven nothing.
    fn tells(&self, caller: &Caller, headers: &HeaderMap) -> bool {
        match self.allow_from {
            AllowFrom::All => true,
            // A page of the web must not look through the browser of somebody on this machine, by a name
            // of its own that leads here.
            AllowFrom::Local => {
                caller.remote.ip().to_canonical().is_loopback() && names_this_machine(headers)
            }
        }
    }
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_count_as_such() {
        for (host, expected) in [
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let host = host.parse().expect("a header");
            let headers = HeaderMap::from_iter([(header::HOST, host)]);
            assert_eq!(names_this_machine(&headers), expected, "{headers:?}");
        }
        assert!(names_this_machine(&HeaderMap::new()));
    }

    #[test]
    fn a_token_is_told_from_what_is_none() {
        let sent = |text: &str| {
            let text = text.parse().expect("a header");
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, text)]);
            bearer(&headers).map(|token| token.map(str::to_owned))
        };
        assert_eq!(bearer(&HeaderMap::new()), Ok(None));
        assert_eq!(sent("bearer  abc "), Ok(Some("abc".to_owned())));
        assert!(sent("Basic abc").is_err() && sent("abc").is_err());
    }
}
