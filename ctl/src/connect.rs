//! Reaching the agent.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::error::CtlError;
use crate::tls::Tls;

/// An agent that does not answer for so long is taken for dead.
const CONNECTED_WITHIN: Duration = Duration::from_secs(15);
/// A long run is followed over connections on which nothing else moves.
const PING_EVERY: Duration = Duration::from_secs(20);

/// A connected client.
pub type Client = PurgeAgentClient<Channel>;

/// Connects; see [`Client`].
pub trait Connect: Sized {
    /// Connects to `unix:///path` (or `unix:path`), or to `https://host:port` with certificates.
    fn connect(endpoint: &str, tls: &Tls) -> impl Future<Output = Result<Self, CtlError>>;
}

impl Connect for Client {
    async fn connect(endpoint: &str, tls: &Tls) -> Result<Self, CtlError> {
        let channel = match place_of(endpoint)? {
            Place::Unix(path) => {
                // Asked once before, because the channel's own error says too little.
                UnixStream::connect(&path)
                    .await
                    .map_err(|e| unreachable(&path, &e))?;
                let dial = service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                // The name is never resolved: the connector goes to the socket.
                Endpoint::from_static("http://purge-agent")
                    .connect_with_connector(dial)
                    .await
            }
            Place::Https(address) => {
                let greeter = tls.greeter(address)?;
                let first = tokio::time::timeout(CONNECTED_WITHIN, greeter.connect()).await;
                let first = first.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
                drop(first.map_err(|e| CtlError::Unreachable(format!("cannot connect to {endpoint}: {e}")))?);
                let dial = service_fn(move |_| {
                    let greeter = greeter.clone();
                    async move { greeter.connect().await.map(TokioIo::new) }
                });
                let at = Endpoint::from_shared(format!("http://{address}"))
                    .map_err(|e| CtlError::Usage(format!("--endpoint {endpoint:?}: {e}")))?;
                at.http2_keep_alive_interval(PING_EVERY)
                    .connect_with_connector(dial)
                    .await
            }
        };
        channel
            .map(Self::new)
            .map_err(|e| CtlError::Unreachable(format!("cannot reach the agent: {}", in_full(&e))))
    }
}

/// An error with what is behind it.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut behind = error.source();
    while let Some(cause) = behind {
        words.push_str(&format!(": {cause}"));
        behind = cause.source();
    }
    words
}

enum Place<'a> {
    Unix(PathBuf),
    /// `host:port`.
    Https(&'a str),
}

fn place_of(endpoint: &str) -> Result<Place<'_>, CtlError> {
    let unix = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"));
    if let Some(path) = unix {
        return Ok(Place::Unix(path.into()));
    }
    match endpoint.split_once("://") {
        Some(("https", address)) => Ok(Place::Https(address.trim_end_matches('/'))),
        Some(("http", _)) => Err(CtlError::Usage(format!(
            "--endpoint {endpoint:?}: the agent speaks TCP only with certificates; write https://host:port"
        ))),
        _ => Err(CtlError::Usage(format!(
            "--endpoint {endpoint:?}: write unix:///path/to/agent.sock or https://host:port"
        ))),
    }
}

fn unreachable(path: &Path, error: &std::io::Error) -> CtlError {
    let path = path.display();
    CtlError::Unreachable(match error.kind() {
        ErrorKind::NotFound => format!(
            "there is no socket {path}: is purge-agent running? Start it (systemctl start purge-agent), or name its \
             socket with --endpoint"
        ),
        ErrorKind::ConnectionRefused => {
            format!(
                "no process listens on {path}: purge-agent has ended; start it (systemctl start purge-agent)"
            )
        }
        ErrorKind::PermissionDenied => {
            format!(
                "you may not use {path}: run purgectl as root, or ask the administrator for a role ([access] and listen.group in \
                 agent.toml; with `self = true` there, each user may ask for what is theirs)"
            )
        }
        _ => format!("cannot connect to {path}: {error}"),
    })
}
