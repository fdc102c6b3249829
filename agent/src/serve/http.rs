//! `/metrics` and `/healthz` over plain HTTP, for Prometheus and load balancers. Reads only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

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

/// The page that was made last, and when that began. One request makes it; a request that came before it was begun takes it as well.
type Page = Arc<tokio::sync::Mutex<Option<(Instant, Arc<str>)>>>;

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, host: Arc<Host>) {
    let metrics = {
        let (host, last) = (Arc::clone(&host), Page::default());
        move || async move { page(host, last).await }
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

async fn page(host: Arc<Host>, last: Page) -> impl IntoResponse {
    let asked = Instant::now();
    let mut last = last.lock().await;
    let text = match &*last {
        Some((began, text)) if *began >= asked => Arc::clone(text),
        _ => {
            let began = Instant::now();
            // The index may be held by others for a moment: not on a thread that serves others.
            let made = tokio::task::spawn_blocking(move || metrics::render(&host)).await;
            let Ok(made) = made else {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            };
            let made = Arc::from(made);
            *last = Some((began, Arc::clone(&made)));
            made
        }
    };
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text.to_string()).into_response()
}
