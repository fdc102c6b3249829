//! gRPC. Translates, decides nothing but who may call.
//!
//! - [`incoming`] the unix socket and TCP, and who is at the other end of a connection
//! - [`tls`]      the agent's certificates
//! - [`tally`]    how many calls and connections a client has
//! - [`gate`]     stands before every call: may they, and how many are open
//! - [`roles`]    who may call what (pure)
//! - [`service`]  the calls; [`requests`]: what they ask for, checked (pure); `answers`: those that take a walk
//! - [`outlet`]   streams to clients that may be slow
//! - [`http`]     metrics and health
//! - `bounded`    its connections
//! - `convert`    the contract's messages from the agent's values; `notices` its notices, `usage` the report of usage

mod answers;
mod bounded;
mod convert;
pub mod gate;
pub mod http;
pub mod incoming;
mod notices;
pub mod outlet;
pub mod requests;
pub mod roles;
pub mod service;
pub mod tally;
pub mod tls;
pub mod usage;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use purge_proto::v1::purge_agent_server::PurgeAgentServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use self::gate::{Doors, Gate};
use self::tally::Tally;
use self::tls::Certificates;
use crate::host::Host;
use crate::reload::InForce;

/// Why clients cannot come in.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket cannot be made.
    #[error("cannot listen on {path}: {source}{}", cure(source))]
    Socket {
        /// Where.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another agent listens there.
    #[error("another agent listens on {0}; stop it, or give this one a socket of its own")]
    Taken(String),
    /// The certificates cannot be used.
    #[error("listen.tcp: {0}")]
    Tls(#[from] tls::TlsError),
    /// The server ended.
    #[error("the gRPC server ended: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection cannot be offered.
    #[error("server reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What to do about an error, after a semicolon.
fn cure(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(crate::sys::socket::EAFNOSUPPORT) => format!("; {}", crate::sys::socket::NETWORK_CURE),
        _ => String::new(),
    }
}

/// A request's message may have this many bytes: the largest holds a path.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// A request's headers may have this many bytes together.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Calls that one connection may have open.
const STREAMS_MAX: u32 = 64;
/// A connection on which nothing moves is asked whether it lives, and closed if it does not answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Clients that have come in and wait for the server to look at them.
const ARRIVED_MAX: usize = 16;
/// How often it is looked whether a certificate's file has changed.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);

/// Where clients come in.
#[derive(Debug)]
pub struct Entrances {
    /// The unix socket.
    pub local: UnixListener,
    /// TCP, with the certificates for it.
    pub tls: Option<(TcpListener, Arc<Certificates>)>,
}

/// Clients that still follow something when the agent ends have this long to hear of it.
const CLIENTS_LEAVE: Duration = Duration::from_secs(5);

/// Serves until `shutdown` is done.
///
/// # Errors
/// When the server cannot go on.
pub async fn serve(
    host: Arc<Host>,
    entrances: Entrances,
    doors: Arc<Doors>,
    in_force: Arc<InForce>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PurgeAgentServer<service::Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(purge_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let agent = PurgeAgentServer::new(service::Service::new(host, in_force))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let (ending, ended) = tokio::sync::oneshot::channel();
    let (arrivals, incoming) = mpsc::channel(ARRIVED_MAX);
    let mut keepers = tokio::task::JoinSet::new();
    let tally = Tally::default();
    keepers.spawn(incoming::accept_local(
        entrances.local,
        arrivals.clone(),
        tally.clone(),
    ));
    if let Some((listener, certificates)) = entrances.tls {
        keepers.spawn(follow(Arc::clone(&certificates)));
        keepers.spawn(incoming::accept_tls(listener, certificates, arrivals, tally));
    }
    let served = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PONG_WITHIN))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(Gate::before(agent, doors))
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async {
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

/// Takes up certificates whose files have changed.
async fn follow(certificates: Arc<Certificates>) {
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        match certificates.follow() {
            Ok(false) => {}
            Ok(true) => tracing::info!("the certificates were read again"),
            Err(error) => tracing::error!(%error, "the new certificates cannot be used: those in force stay"),
        }
    }
}
