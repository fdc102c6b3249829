//! gRPC. Translates, decides nothing but who may call.
//!
//! - [`incoming`] the unix socket and TCP, and who is at the other end of a connection; [`line`](mod@line): connections that are quiet make room
//! - [`tally`]    how many calls and connections a client has
//! - [`gate`]     stands before every call: may they, how many are open, is there memory for one more
//! - [`members`]  whether they are still in the groups that give a role
//! - `greetings`  clients of TCP that have not shown who they are
//! - [`service`]  the calls; [`requests`]: what they ask for, checked (pure); `answers`: those that take a walk
//! - [`budget`]   memory that answers may take; [`open`]: calls until the last byte of their answer is taken
//! - `narrowed`   plans for a part of a volume
//! - `named`      names of plans, runs and holds that are given in short
//! - `authority`  what gRPC's C core says of the socket, in a form that the HTTP/2 library takes (pure)
//! - [`walk`]     answers made bit by bit, as clients take them; [`crew`]: the threads for that; [`pages`]: others, cut to what a message holds (pure)
//! - [`http`]     metrics and health
//! - `bounded`    its connections
//! - `status`     what `status` answers; `trash`: what lies in the trash, as `trash` lists it
//! - `convert`    the contract's messages from the agent's values; `notices` its notices, `usage` the report of usage
//!
//! Root is served by a runtime of its own, all others share another one, and neither runs the agent's own work: what clients take up, they
//! take from each other.

mod answers;
mod archive;
mod authority;
mod bounded;
pub mod budget;
mod convert;
pub mod crew;
mod deadline;
mod desk;
pub mod gate;
mod greetings;
pub mod http;
pub mod incoming;
pub mod line;
pub mod members;
mod named;
mod narrowed;
mod notices;
pub mod open;
pub mod pages;
pub mod requests;
pub mod service;
pub mod status;
pub mod tally;
mod trash;
pub mod usage;
mod visitors;
mod walk;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use purge_proto::v1::purge_agent_server::PurgeAgentServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use self::gate::{Doors, Gate};
use self::incoming::{Arrival, Places};
use self::open::What;
use crate::host::Host;
use crate::in_force::InForce;
use crate::tls::Certificates;
use purge_base::clock;
use purge_base::descriptors;
use purge_sys as sys;

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
    Tls(#[from] crate::tls::TlsError),
    /// What serves cannot be started, or ended.
    #[error("cannot serve clients: {0}")]
    Runtime(io::Error),
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
        Some(sys::socket::EAFNOSUPPORT) => format!("; {}", sys::socket::NETWORK_CURE),
        _ => String::new(),
    }
}

/// A request's message may have this many bytes: the largest holds paths.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// No answer that is no stream is larger, with any content.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A request's headers may have this many bytes together.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Bytes of requests that a connection may send before they are looked at; and of one of them.
const UNREAD_BYTES_MAX: u32 = 128 << 10;
const UNREAD_BYTES_OF_ONE_MAX: u32 = 64 << 10;
/// Calls that one connection may have open.
const STREAMS_MAX: u32 = 64;
/// A connection on which nothing moves is asked whether it lives, and closed if it does not answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Clients that have come in and wait for the server to look at them.
const ARRIVED_MAX: usize = 64;
/// How often it is looked whether a certificate's file has changed.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked who says nothing, or takes nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Memory that clients have let go of goes back to the system once it is so much, and not more often than this.
const GIVEN_BACK_AT: u64 = 4 << 20;
const GIVEN_BACK_EVERY: Duration = Duration::from_secs(5);
/// Threads that move bytes, of each runtime for clients.
const MOVERS: usize = 2;
/// Threads that wait for index, store or disk, for root.
const THREADS_OF_ROOT: usize = 32;
/// And for all others: the crew's, and those that ask for members of groups.
const THREADS_OF_OTHERS: usize = crew::THREADS_OF_OTHERS + 8;

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
    let service = desk::Service::new(host, in_force);
    let (ending, ended) = watch::channel(false);
    let (for_root, for_others) = (
        Hall::open("root", THREADS_OF_ROOT)?,
        Hall::open("clients", THREADS_OF_OTHERS)?,
    );
    let (root, root_served) = for_root.attend(service.clone(), &doors, ended.clone());
    let (others, others_served) = for_others.attend(service, &doors, ended.clone());
    let places = Places::among(descriptors::shares());
    let mut keepers = tokio::task::JoinSet::new();
    keepers.spawn(incoming::accept_local(
        entrances.local,
        root,
        others.clone(),
        places.clone(),
    ));
    if let Some((listener, certificates)) = entrances.tls {
        keepers.spawn(follow(Arc::clone(&certificates)));
        let served = (for_others.handle().clone(), others);
        keepers.spawn(incoming::accept_tls(
            listener,
            certificates,
            served,
            places.clone(),
        ));
    }
    keepers.spawn(look_who_may(Arc::clone(&doors)));
    keepers.spawn(look_after(places, doors));
    let both = async { tokio::try_join!(joined(root_served), joined(others_served)) };
    tokio::pin!(both);
    tokio::select! {
        served = &mut both => return served.map(drop),
        () = shutdown => {}
    }
    let _ = ending.send(true);
    match tokio::time::timeout(CLIENTS_LEAVE, both).await {
        Ok(served) => served.map(drop),
        Err(_) => Ok(()),
    }
}

async fn joined(served: JoinHandle<Result<(), ServeError>>) -> Result<(), ServeError> {
    served
        .await
        .map_err(|e| ServeError::Runtime(io::Error::other(e)))?
}

/// Ends connections and answers that clients no longer use, and gives memory back that they took.
async fn look_after(places: Places, doors: Arc<Doors>) {
    let (mut freed, mut given_back) = (0u64, Instant::now());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        places.sweep();
        doors.watch.sweep();
        freed = freed.saturating_add(doors.budget.take_freed());
        if freed >= GIVEN_BACK_AT && given_back.elapsed() >= GIVEN_BACK_EVERY {
            (freed, given_back) = (0, Instant::now());
            let _ = tokio::task::spawn_blocking(sys::memory::give_back).await;
        }
    }
}

/// Ends calls of clients that may no longer make them. By itself: the host's accounts may be slow to answer.
async fn look_who_may(doors: Arc<Doors>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        doors.end_forbidden().await;
    }
}

/// A runtime for clients.
struct Hall(Option<Runtime>, Handle);

impl Hall {
    fn open(name: &str, threads: usize) -> Result<Self, ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(MOVERS)
            .max_blocking_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(ServeError::Runtime)?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }

    fn handle(&self) -> &Handle {
        &self.1
    }

    /// Serves those who are sent to it.
    fn attend(
        &self,
        service: desk::Service,
        doors: &Arc<Doors>,
        ended: watch::Receiver<bool>,
    ) -> (mpsc::Sender<Arrival>, JoinHandle<Result<(), ServeError>>) {
        let (arrivals, incoming) = mpsc::channel(ARRIVED_MAX);
        let served = attend(service, Arc::clone(doors), incoming, ended);
        (arrivals, self.handle().spawn(served))
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        // What still waits for a disk is not waited for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a question of health or reflection takes: the name of a service.
const PROBE_BYTES_MAX: usize = 16 << 10;

/// What reflection tells of: the contract, and health. Clients ask for `v1`, and older ones (grpcio-reflection among them) for `v1alpha`.
fn reflected() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(purge_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

async fn attend(
    service: desk::Service,
    doors: Arc<Doors>,
    incoming: mpsc::Receiver<Arrival>,
    mut ended: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PurgeAgentServer<desk::Service>>().await;
    let reflection = reflected().build_v1()?.max_decoding_message_size(PROBE_BYTES_MAX);
    let reflection_of_old = reflected()
        .build_v1alpha()?
        .max_decoding_message_size(PROBE_BYTES_MAX);
    let health_service = health_service.max_decoding_message_size(PROBE_BYTES_MAX);
    let agent = PurgeAgentServer::new(service)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let incoming = ReceiverStream::new(incoming).map(Arrival::connect);
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_connection_window_size(UNREAD_BYTES_MAX)
        .initial_stream_window_size(UNREAD_BYTES_OF_ONE_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PONG_WITHIN))
        .add_service(Gate::before(health_service, What::Probe, Arc::clone(&doors)))
        .add_service(Gate::before(reflection, What::Probe, Arc::clone(&doors)))
        .add_service(Gate::before(reflection_of_old, What::Probe, Arc::clone(&doors)))
        .add_service(Gate::before(agent, What::Agent, doors))
        .serve_with_incoming_shutdown(incoming, async move {
            // An error: the sender has ended.
            let _ = ended.wait_for(|ended| *ended).await;
        })
        .await?;
    Ok(())
}

/// Takes up certificates whose files have changed.
async fn follow(certificates: Arc<Certificates>) {
    let mut ended = Vec::new();
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let now = clock::wall().unix();
        let mut lists = certificates.lists();
        lists.retain(|list| list.ends.is_some_and(|ends| ends < now));
        for list in lists.iter().filter(|list| !ended.contains(*list)) {
            tracing::error!(file = %list.file.display(), "the list of revoked certificates has ended: clients of its authority are refused until a newer one is there");
        }
        ended = lists;
        match certificates.follow() {
            Ok(false) => {}
            Ok(true) => tracing::info!("the certificates were read again"),
            Err(error) => tracing::error!(%error, "the new certificates cannot be used: those in force stay"),
        }
    }
}
