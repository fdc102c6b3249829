//! gRPC without purgectl: every call of the contract, as any user.

use std::io;
use std::sync::Mutex;

use hyper_util::rt::TokioIo;
use purgectl::tls::Tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::Agent;

/// Each call, and the first of viewer, operator, admin that may make it; true: any user may, for what is theirs.
pub const CALLS: [(&str, &str, bool); 37] = [
    ("GetStatus", "viewer", false),
    ("GetPlan", "viewer", false),
    ("ListPlans", "viewer", false),
    ("ShowPlan", "viewer", false),
    ("WatchRun", "viewer", false),
    ("GetRun", "viewer", false),
    ("ListRuns", "viewer", false),
    ("GetConfig", "viewer", false),
    ("Doctor", "viewer", false),
    ("GetForecast", "viewer", false),
    ("ListQuotas", "viewer", false),
    ("GetSchedule", "viewer", false),
    ("GetTouched", "viewer", false),
    ("ListNotices", "viewer", false),
    ("PreviewNotices", "viewer", false),
    ("ListArchive", "viewer", false),
    ("Mine", "viewer", true),
    ("Explain", "viewer", true),
    ("ListTrash", "viewer", true),
    ("Find", "viewer", true),
    ("Usage", "viewer", true),
    ("ListUsage", "viewer", true),
    ("ListHolds", "viewer", true),
    ("CreatePlan", "operator", false),
    ("AddHold", "operator", true),
    ("RemoveHold", "operator", true),
    ("Rescan", "operator", false),
    ("VerifyArchive", "operator", false),
    ("CheckPatterns", "operator", false),
    ("TestNotice", "admin", false),
    ("ReleaseNotices", "admin", false),
    ("Apply", "admin", false),
    ("CancelRun", "admin", false),
    ("FetchArchived", "admin", false),
    ("Restore", "admin", true),
    ("ResumeTrigger", "admin", false),
    ("ResetVolume", "admin", false),
];

/// What runs clients.
///
/// # Panics
/// When it cannot be made.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("tokio")
}

/// A channel over one connection, and no other.
///
/// # Errors
/// When no process speaks gRPC at its other end.
pub async fn channel_over<S>(stream: S) -> io::Result<Channel>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let once = Mutex::new(Some(stream));
    let dial = tower::service_fn(move |_| {
        let stream = once.lock().unwrap().take();
        async move {
            stream
                .map(TokioIo::new)
                .ok_or(io::Error::other("one connection only"))
        }
    });
    let endpoint = Endpoint::from_static("http://agent");
    let channel = endpoint.connect_with_connector(dial).await;
    channel.map_err(io::Error::other)
}

/// A channel of one user's own whose client takes one byte of each answer, until it is asked for more.
///
/// # Errors
/// When the socket is closed to this user, or the agent accepts no connection.
pub fn channel_of_a_closed_window(runtime: &Runtime, agent: &Agent, uid: u32) -> io::Result<Channel> {
    let stream = agent.connect_as(uid, &[])?;
    stream.set_nonblocking(true)?;
    let once = Mutex::new(Some(stream));
    let dial = tower::service_fn(move |_| {
        let stream = once.lock().unwrap().take();
        async move {
            let stream = stream.ok_or(io::Error::other("one connection only"))?;
            tokio::net::UnixStream::from_std(stream).map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://agent").initial_stream_window_size(1);
    let channel = runtime.block_on(endpoint.connect_with_connector(dial));
    channel.map_err(io::Error::other)
}

/// A channel of one user's own, over one connection that is made now.
///
/// # Errors
/// When the socket is not for them.
pub fn channel_as(runtime: &Runtime, agent: &Agent, uid: u32, groups: &[u32]) -> io::Result<Channel> {
    let stream = agent.connect_as(uid, groups)?;
    stream.set_nonblocking(true)?;
    runtime.block_on(async { channel_over(tokio::net::UnixStream::from_std(stream)?).await })
}

/// A channel of a client with a certificate, over one connection that is made now.
///
/// # Errors
/// When they do not like each other.
pub fn channel_tls(runtime: &Runtime, port: u16, files: &Tls) -> io::Result<Channel> {
    let greeter = files.greeter(&format!("127.0.0.1:{port}"));
    let greeter = greeter.map_err(io::Error::other)?;
    runtime.block_on(async { channel_over(greeter.connect().await?).await })
}

/// Makes a call with an empty message. Every call can be read as one that streams.
///
/// # Errors
/// What the agent says.
pub async fn call(channel: &Channel, name: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let path: PathAndQuery = format!("/purge.v1.PurgeAgent/{name}")
        .parse()
        .expect("the name of a call");
    let codec = ProstCodec::<(), ()>::default();
    let answer = grpc.server_streaming(Request::new(()), path, codec).await?;
    let mut answers = answer.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

/// Whether the gate refuses; what the call itself makes of an empty message does not matter.
pub fn is_refused(answer: &Result<(), Status>) -> bool {
    matches!(answer, Err(s) if s.code() == Code::PermissionDenied && s.message().contains("needs the role"))
}
