//! The admin API's port: a thread with an event loop of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::access::Caller;
use super::answer::Problem;
use super::{Shared, routes};

/// How many connections there may be; further ones are closed.
const CONNECTIONS_MAX: usize = 64;
/// How long a handshake, the head of a request, or the next one may take.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a request may take in all.
const REQUEST_MAX: Duration = Duration::from_secs(60);

type CurrentTls = watch::Receiver<Arc<rustls::ServerConfig>>;

/// Starts to serve, until the process ends.
///
/// # Errors
/// If there are no threads left.
pub(crate) fn start(
    listener: TcpListener,
    tls: Option<CurrentTls>,
    admin: &Shared,
) -> io::Result<()> {
    let routes = routes(admin).layer(middleware::from_fn(in_time));
    // It leaves this event loop, to be watched by the other.
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_name("admin-aside")
        .build()?;
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, tls, routes).await,
                Err(error) => tracing::error!(%error, "the admin API cannot be served"),
            }
        });
    })?;
    Ok(())
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let why = "no answer within 60 s";
            Problem::new(StatusCode::GATEWAY_TIMEOUT, why).into_response()
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<CurrentTls>, routes: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin API could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%remote, "too many connections to the admin API; one was refused");
            continue;
        };
        let tls = tls.as_ref().map(|current| TlsAcceptor::from(Arc::clone(&current.borrow())));
        let routes = routes.clone();
        tokio::spawn(async move {
            match tls {
                None => serve(stream, Caller { remote, certificate: None }, routes).await,
                Some(tls) => serve_tls(&tls, stream, remote, routes).await,
            }
            drop(place);
        });
    }
}

async fn serve_tls(tls: &TlsAcceptor, stream: TcpStream, remote: SocketAddr, routes: Router) {
    let stream = match tokio::time::timeout(HEAD_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%remote, %error, "a TLS handshake failed"),
        Err(_) => return tracing::info!(%remote, "a TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    // One without a readable name was verified all the same.
    let name = |certificate: &rustls::pki_types::CertificateDer<'_>| {
        crate::tls::rfc2253(certificate).unwrap_or_default().into()
    };
    let certificate = certificate.map(name);
    serve(stream, Caller { remote, certificate }, routes).await;
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    routes: Router,
) {
    let remote = caller.remote;
    let service = TowerToHyperService::new(routes.layer(Extension(caller)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%remote, %error, "a connection to the admin API ended");
    }
}
