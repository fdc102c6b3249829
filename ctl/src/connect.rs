//! Reaching the agent.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::error::CtlError;

/// A connected client.
pub type Client = PurgeAgentClient<Channel>;

/// Connects; see [`Client`].
pub trait Connect: Sized {
    /// Connects to `unix:///path` (or `unix:path`).
    fn connect(endpoint: &str) -> impl Future<Output = Result<Self, CtlError>>;
}

impl Connect for Client {
    async fn connect(endpoint: &str) -> Result<Self, CtlError> {
        let path = socket_of(endpoint)?;
        // Asked once before, because the channel's own error says too little.
        UnixStream::connect(&path)
            .await
            .map_err(|e| unreachable(&path, &e))?;
        let dial = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is never resolved: the connector goes to the socket.
        let channel = Endpoint::from_static("http://purge-agent")
            .connect_with_connector(dial)
            .await;
        channel
            .map(Self::new)
            .map_err(|e| CtlError::Unreachable(format!("cannot reach the agent: {e}")))
    }
}

fn socket_of(endpoint: &str) -> Result<PathBuf, CtlError> {
    if let Some(path) = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"))
    {
        return Ok(path.into());
    }
    let why = match endpoint.split_once("://") {
        Some(("http" | "https", _)) => "TCP is not supported by this version; use unix:///path/to/agent.sock",
        _ => "write unix:///path/to/agent.sock",
    };
    Err(CtlError::Usage(format!("--endpoint {endpoint:?}: {why}")))
}

fn unreachable(path: &Path, error: &std::io::Error) -> CtlError {
    let path = path.display();
    CtlError::Unreachable(match error.kind() {
        ErrorKind::NotFound => format!(
            "there is no socket {path}: is purge-agent running? Start it (systemctl start purge-agent), or name its \
             socket with --endpoint"
        ),
        ErrorKind::ConnectionRefused => {
            format!("nobody listens on {path}: purge-agent has ended; start it (systemctl start purge-agent)")
        }
        ErrorKind::PermissionDenied => {
            format!("you may not use {path}: run purgectl as root, or ask to be in the socket's group")
        }
        _ => format!("cannot connect to {path}: {error}"),
    })
}
