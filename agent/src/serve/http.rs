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

/// The page that was made last. One request makes it; a request that came before it was begun takes it as well.
type Page = Arc<tokio::sync::Mutex<Option<Made>>>;

struct Made {
    /// When it was begun, and until when others take it.
    began: Instant,
    holds_until: Instant,
    text: Arc<str>,
}

/// It holds for this multiple of the time that it took: however often it is asked for, making it takes a small part of the time.
const REST: u32 = 9;

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
        Some(made) if made.began >= asked || Instant::now() < made.holds_until => Arc::clone(&made.text),
        _ => {
            let began = Instant::now();
            // The index may be held by others for a moment: not on a thread that serves others.
            let made = tokio::task::spawn_blocking(move || metrics::render(&host)).await;
            let Ok(made) = made else {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            };
            let (ended, text) = (Instant::now(), Arc::<str>::from(made));
            let rest = ended.saturating_duration_since(began).saturating_mul(REST);
            *last = Some(Made {
                began,
                holds_until: ended.checked_add(rest).unwrap_or(ended),
                text: Arc::clone(&text),
            });
            text
        }
    };
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text.to_string()).into_response()
}
