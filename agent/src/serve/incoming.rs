//! Where clients come in, and connections that know who is at their other end.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::ServeError;
use super::roles::Peer;
use super::tally::{Counted, Tally};
use super::tls::Certificates;
use crate::config::{Access, Listen};
use crate::sys;

/// Makes the socket.
///
/// # Errors
/// When it cannot be made, or another agent listens there.
pub fn listen(listen: &Listen, access: &Access) -> Result<UnixListener, ServeError> {
    let path = &listen.unix;
    let failed = |source| ServeError::Socket {
        path: path.display().to_string(),
        source,
    };
    if somebody_listens(path) {
        return Err(ServeError::Taken(path.display().to_string()));
    }
    let listener = sys::socket::listen(path).map_err(failed)?;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    open_to(listen, access)?;
    Ok(listener)
}

/// A process that an agent had just begun to start when it was killed holds the agent's socket until it is another program: that is no agent,
/// and over in a moment. What else it holds (ports, the lock of the index) it lets go of in the same moment, so this is asked before those
/// are needed.
fn somebody_listens(path: &Path) -> bool {
    const LOOKS: u32 = 10;
    const APART: Duration = Duration::from_millis(100);
    (0..LOOKS).all(|look| {
        if look > 0 {
            std::thread::sleep(APART);
        }
        std::os::unix::net::UnixStream::connect(path).is_ok()
    })
}

/// Gives the socket its owner, group and mode: 0660, or 0666 where any local user may ask for what is theirs.
///
/// # Errors
/// When they cannot be set.
pub fn open_to(listen: &Listen, access: &Access) -> Result<(), ServeError> {
    let path = &listen.unix;
    let failed = |source| ServeError::Socket {
        path: path.display().to_string(),
        source,
    };
    let owner = listen
        .owner
        .unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let group = listen
        .group
        .unwrap_or_else(|| rustix::process::getegid().as_raw());
    let mode = if access.own { 0o666 } else { 0o660 };
    sys::socket::open_to(path, owner, group, mode).map_err(failed)
}

/// Removes the socket when the agent ends.
pub fn unlisten(path: &Path) {
    let _ = sys::socket::remove(path);
}

/// Takes the address for clients with certificates.
///
/// # Errors
/// When it cannot be had.
pub async fn listen_tcp(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Socket {
            path: format!("{address} (listen.tcp)"),
            source,
        })
}

/// Connections of one client. Those of root are as many as its scripts need.
const CONNECTIONS_MAX: usize = 32;
const CONNECTIONS_OF_ROOT_MAX: usize = 512;
/// Clients that have connected and not yet shown who they are.
const GREETINGS_MAX: usize = 64;
/// What is sent on TCP and not taken for so long ends the connection, in milliseconds: its end may be gone, and nobody says so.
const UNTAKEN_MS_MAX: u32 = 60_000;
/// They have so long for it.
const GREETED_WITHIN: Duration = Duration::from_secs(10);
/// When the system has no descriptor left, it is asked again after this.
const AFTER_AN_ERROR: Duration = Duration::from_millis(200);

type Arrivals = mpsc::Sender<io::Result<Connection>>;

/// Takes in who comes by the unix socket, until nobody asks for more.
pub async fn accept_local(listener: UnixListener, arrivals: Arrivals, tally: Tally) {
    while !arrivals.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => {
                let peer = peer_of(&stream);
                let max = match peer {
                    Peer::Local { uid: 0, .. } => CONNECTIONS_OF_ROOT_MAX,
                    _ => CONNECTIONS_MAX,
                };
                let Some(counted) = tally.count(&peer.name(), max) else {
                    tracing::debug!(peer = %peer.name(), "too many connections: one was closed");
                    continue;
                };
                let connection = Connection::new(Stream::Local(stream), peer, counted);
                if arrivals.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Err(error) => wait_after(&error).await,
        }
    }
}

/// Takes in who comes by TCP with a certificate, until nobody asks for more. Nobody waits for a slow one: where too many are being
/// greeted, the one that has taken longest is let go.
pub async fn accept_tls(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    arrivals: Arrivals,
    tally: Tally,
) {
    let mut greetings: VecDeque<AbortHandle> = VecDeque::new();
    while !arrivals.is_closed() {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                wait_after(&error).await;
                continue;
            }
        };
        greetings.retain(|greeting| !greeting.is_finished());
        if greetings.len() >= GREETINGS_MAX
            && let Some(slowest) = greetings.pop_front()
        {
            slowest.abort();
        }
        let certificates = Arc::clone(&certificates);
        let greeting = tokio::spawn(greet(stream, from, certificates, arrivals.clone(), tally.clone()));
        greetings.push_back(greeting.abort_handle());
    }
}

async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    certificates: Arc<Certificates>,
    arrivals: Arrivals,
    tally: Tally,
) {
    // Small messages to and fro: nothing is gained by gathering them.
    let _ = stream.set_nodelay(true);
    // HTTP/2's own pings never leave where an answer that nobody takes lies before them: the kernel looks as well (tcp(7)).
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNTAKEN_MS_MAX);
    let greeted = tokio::time::timeout(GREETED_WITHIN, certificates.greet(stream)).await;
    match greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((stream, peer)) => {
            let Some(counted) = tally.count(&peer.name(), CONNECTIONS_MAX) else {
                tracing::debug!(peer = %peer.name(), %from, "too many connections: one was closed");
                return;
            };
            let connection = Connection::new(Stream::Tls(Box::new(stream)), peer, counted);
            let _ = arrivals.send(Ok(connection)).await;
        }
        Err(error) => tracing::info!(%from, %error, "a client was not let in"),
    }
}

async fn wait_after(error: &io::Error) {
    tracing::warn!(%error, "a client cannot be let in");
    tokio::time::sleep(AFTER_AN_ERROR).await;
}

/// Asks the kernel who it is, once: it is about the process that connected.
fn peer_of(stream: &UnixStream) -> Peer {
    match (stream.peer_cred(), sys::peer::groups(stream)) {
        (Ok(found), Ok(mut gids)) => {
            gids.push(found.gid());
            let uid = found.uid();
            Peer::Local { uid, gids }
        }
        (credentials, groups) => {
            let error = credentials.err().or(groups.err());
            tracing::warn!(?error, "the kernel does not say who has connected");
            Peer::Unknown
        }
    }
}

/// Somebody who has come in.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    _counted: Counted,
}

#[derive(Debug)]
enum Stream {
    Local(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn new(stream: Stream, peer: Peer, counted: Counted) -> Self {
        Self {
            stream,
            peer,
            _counted: counted,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Local(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Local(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Local(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Local(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
