//! gRPC on the unix socket. Translates, decides nothing.
//!
//! - [`service`] the calls
//! - [`http`]    metrics and health
//! - `convert`   the contract's messages from the agent's values; `notices` its notices
//!
//! On the unix socket the peer's uid decides: root may do everything, nobody else anything.

mod convert;
pub mod http;
mod notices;
pub mod service;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use purge_proto::v1::purge_agent_server::PurgeAgentServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::config::Listen;
use crate::host::Host;

/// Why clients cannot come in.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Socket {
        /// Where.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another agent listens there.
    #[error("another agent listens on {0}; stop it, or give this one a socket of its own")]
    Taken(String),
    /// The server ended.
    #[error("the gRPC server ended: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection cannot be offered.
    #[error("server reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A request's message may have this many bytes: the largest holds a path.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Calls that one connection may have open.
const STREAMS_MAX: u32 = 64;

/// Clients that still follow something when the agent ends have this long to hear of it.
const CLIENTS_LEAVE: Duration = Duration::from_secs(5);

/// Makes the socket: owner root, mode 0660, its group as configured.
///
/// # Errors
/// When it cannot be made, or another agent listens there.
pub fn listen(listen: &Listen) -> Result<UnixListener, ServeError> {
    let path = &listen.unix;
    let failed = |source| ServeError::Socket {
        path: path.display().to_string(),
        source,
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServeError::Taken(path.display().to_string()));
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    // Nobody may come in before owner and mode are right.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(failed)?;
    if let Some(group) = listen.group {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(failed)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Serves until `shutdown` is done.
///
/// # Errors
/// When the server cannot go on.
pub async fn serve(
    host: Arc<Host>,
    listener: UnixListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PurgeAgentServer<service::Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(purge_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let agent =
        PurgeAgentServer::new(service::Service::new(host)).max_decoding_message_size(REQUEST_BYTES_MAX);
    let agent = tonic::service::interceptor::InterceptedService::new(agent, root_only);
    let (ending, ended) = tokio::sync::oneshot::channel();
    let served = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(agent)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
            shutdown.await;
            let _ = ending.send(());
        });
    tokio::select! {
        served = served => Ok(served?),
        () = async {
            let _ = ended.await;
            tokio::time::sleep(CLIENTS_LEAVE).await;
        } => Ok(()),
    }
}

fn root_only(request: Request<()>) -> Result<Request<()>, Status> {
    let uid = peer_uid(&request);
    match uid {
        Some(0) => Ok(request),
        Some(uid) => Err(Status::permission_denied(format!(
            "uid {uid} may not ask this agent; ask root"
        ))),
        None => Err(Status::permission_denied("the caller's uid is not known")),
    }
}

/// Who asks.
pub(crate) fn peer_uid<T>(request: &Request<T>) -> Option<u32> {
    request
        .extensions()
        .get::<UdsConnectInfo>()?
        .peer_cred
        .map(|c| c.uid())
}

/// Removes the socket when the agent ends.
pub fn unlisten(path: &Path) {
    let _ = std::fs::remove_file(path);
}
