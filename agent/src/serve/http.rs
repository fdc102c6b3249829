//! `/metrics` and `/healthz` over plain HTTP, for Prometheus and load balancers. Reads only.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::ServeError;
use super::bounded::Bounded;
use crate::host::Host;
use crate::metrics;

/// Takes the address.
///
/// # Errors
/// When it cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Socket {
            path: format!("{address} (listen.metrics)"),
            source,
        })
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, host: Arc<Host>) {
    let metrics = {
        let host = Arc::clone(&host);
        move || async move { page(host).await }
    };
    let health = move || async move {
        match metrics::health(&host) {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        }
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health));
    if let Err(error) = axum::serve(Bounded::new(listener), router).await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

async fn page(host: Arc<Host>) -> impl IntoResponse {
    // The index may be held by others for a moment: not on a thread that serves others.
    match tokio::task::spawn_blocking(move || metrics::render(&host)).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
