//! Where clients come in, and connections that know who is at their other end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::ServeError;
use super::authority::Authority;
use super::greetings::{Greetings, Spoken};
use super::line::{Line, Lines, Place};
use super::tally::{Counted, Tally};
use super::visitors::Visitors;
use crate::roles::Peer;
use crate::tls::Certificates;
use purge_base::descriptors::Shares;
use purge_config::{Access, Listen};
use purge_sys as sys;

/// Why a connection is closed at once.
const TOO_MANY: &str = "the client has too many connections, or all connections are busy";

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
    if a_process_listens(path) {
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
fn a_process_listens(path: &Path) -> bool {
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
/// What is sent on TCP and not taken for so long ends the connection, in milliseconds: the other end may have vanished silently.
const UNTAKEN_MS_MAX: u32 = 60_000;
/// A client has so long to show who it is.
const GREETED_WITHIN: Duration = Duration::from_secs(10);
/// When the system has no descriptor left, it is asked again after this, and the log tells of it only now and then.
const AFTER_AN_ERROR: Duration = Duration::from_millis(200);
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// Places for connections. Their number is limited for all but root together, and root's are its own.
#[derive(Debug, Clone)]
pub struct Places {
    /// Root's, on the unix socket.
    pub root: Lines,
    /// Other local users'.
    pub local: Lines,
    /// For clients with certificates.
    pub remote: Lines,
    each: Tally,
    visitors: Arc<Visitors>,
}

impl Places {
    /// Far fewer than the files that this process may have open: collector, runs and root need theirs.
    pub fn among(shares: Shares) -> Self {
        Self {
            root: Lines::new(shares.root),
            local: Lines::new(shares.local),
            remote: Lines::new(shares.remote),
            each: Tally::default(),
            visitors: Arc::default(),
        }
    }

    /// Ends connections that have been quiet for too long.
    pub fn sweep(&self) {
        [&self.root, &self.local, &self.remote]
            .into_iter()
            .for_each(Lines::sweep);
    }

    /// Counts a connection of a client, and gives it a place; none: it has enough, or all are busy.
    fn take(&self, peer: &Peer) -> Option<(Counted, Place)> {
        let (lines, max) = match peer {
            Peer::Local { uid: 0, .. } => (&self.root, CONNECTIONS_OF_ROOT_MAX),
            Peer::Certificate { .. } => (&self.remote, CONNECTIONS_MAX),
            _ => (&self.local, CONNECTIONS_MAX),
        };
        let counted = self.each.count(&peer.name(), max)?;
        Some((counted, lines.take()?))
    }
}

/// A client that has a place, on the way to where it is served.
#[derive(Debug)]
pub struct Arrival {
    stream: Arriving,
    visit: Visit,
    counted: Counted,
    place: Place,
}

#[derive(Debug)]
enum Arriving {
    /// Not tied to the runtime that took it in.
    Local(std::os::unix::net::UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Arrival {
    /// Ties the connection to the runtime that asks.
    ///
    /// # Errors
    /// When that has no room for it.
    pub fn connect(self) -> io::Result<Connection> {
        let stream = match self.stream {
            Arriving::Local(stream) => Stream::Local(UnixStream::from_std(stream)?, Authority::default()),
            Arriving::Tls(stream) => Stream::Tls(stream),
        };
        Ok(Connection {
            stream,
            visit: self.visit,
            _counted: self.counted,
            _place: self.place,
        })
    }

    fn new(stream: Arriving, peer: Peer, (counted, place): (Counted, Place)) -> Self {
        Self {
            stream,
            visit: Visit {
                peer,
                line: Arc::clone(&place.line),
            },
            counted,
            place,
        }
    }
}

type Arrivals = mpsc::Sender<Arrival>;

/// Takes in clients of the unix socket, until a receiver of arrivals is closed. No client waits for another: the connection of a client
/// that cannot be served now is closed.
pub async fn accept_local(listener: UnixListener, root: Arrivals, others: Arrivals, places: Places) {
    let mut log = Log::default();
    while !root.is_closed() && !others.is_closed() {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log.wait_after(&error).await;
                continue;
            }
        };
        let peer = peer_of(&stream);
        let Some(place) = places.take(&peer) else {
            places.visitors.refuse_connection(&peer.name(), TOO_MANY);
            continue;
        };
        let arrivals = match peer {
            Peer::Local { uid: 0, .. } => &root,
            _ => &others,
        };
        if let Ok(stream) = stream.into_std() {
            let _ = arrivals.try_send(Arrival::new(Arriving::Local(stream), peer, place));
        }
    }
}

/// Takes in clients of TCP, which show a certificate, until the receiver of arrivals is closed. No client waits for a slow one: where
/// too many are being greeted, one is let go ([`Greetings`]).
pub async fn accept_tls(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    (served, arrivals): (Handle, Arrivals),
    places: Places,
) {
    let mut greetings = Greetings::default();
    let mut log = Log::default();
    while !arrivals.is_closed() {
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream.into_std(), from),
            Err(error) => {
                log.wait_after(&error).await;
                continue;
            }
        };
        let Ok(stream) = stream else { continue };
        greetings.make_room(from.ip());
        let spoken = Spoken::default();
        let certificates = Arc::clone(&certificates);
        // Where it will be served: greeting takes arithmetic, which is not for the agent's own threads.
        let greeting = served.spawn(greet(
            stream,
            (from, spoken.clone()),
            certificates,
            arrivals.clone(),
            places.clone(),
        ));
        greetings.add(from.ip(), spoken, greeting.abort_handle());
    }
}

async fn greet(
    stream: std::net::TcpStream,
    (from, spoken): (SocketAddr, Spoken),
    certificates: Arc<Certificates>,
    arrivals: Arrivals,
    places: Places,
) {
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    // Small messages to and fro: nothing is gained by gathering them.
    let _ = stream.set_nodelay(true);
    // HTTP/2's own pings never leave where an answer that the client does not take lies before them: the kernel looks as well (tcp(7)).
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNTAKEN_MS_MAX);
    let greeted = async {
        stream.peek(&mut [0]).await?;
        spoken.set();
        certificates.greet(stream).await
    };
    let greeted = tokio::time::timeout(GREETED_WITHIN, greeted).await;
    match greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((stream, peer)) => {
            let Some(place) = places.take(&peer) else {
                let who = format!("{} at {}", peer.name(), from.ip());
                places.visitors.refuse_connection(&who, TOO_MANY);
                return;
            };
            let _ = arrivals.try_send(Arrival::new(Arriving::Tls(Box::new(stream)), peer, place));
        }
        Err(error) => places
            .visitors
            .refuse_connection(&from.ip().to_string(), &error.to_string()),
    }
}

/// What the log says of connections that cannot be taken in.
#[derive(Debug, Default)]
struct Log {
    told: Option<Instant>,
}

impl Log {
    /// What is wrong is still wrong in a moment: who asks at once asks in vain, as fast as a processor goes.
    async fn wait_after(&mut self, error: &io::Error) {
        if self.told.is_none_or(|told| told.elapsed() > TOLD_EVERY) {
            tracing::warn!(%error, "a client cannot be let in");
            self.told = Some(Instant::now());
        }
        tokio::time::sleep(AFTER_AN_ERROR).await;
    }
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
            if let Some(error) = credentials.err().or(groups.err()) {
                tracing::warn!(%error, "the kernel does not say who has connected: the client has no role");
            }
            Peer::Unknown
        }
    }
}

/// Who is at the other end of a connection, and the connection as others see it: each call on it knows them.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Who.
    pub peer: Peer,
    /// The connection.
    pub line: Arc<Line>,
}

/// A client that has come in.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    visit: Visit,
    _counted: Counted,
    _place: Place,
}

#[derive(Debug)]
enum Stream {
    Local(UnixStream, Authority),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Visit;

    fn connect_info(&self) -> Visit {
        self.visit.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.visit.line.check(cx)?;
        match &mut self.stream {
            Stream::Local(s, authority) => {
                let before = buf.filled().len();
                let polled = Pin::new(s).poll_read(cx, buf);
                if let Some(come) = buf.filled_mut().get_mut(before..) {
                    authority.pass(come);
                }
                polled
            }
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.visit.line.check(cx)?;
        match &mut self.stream {
            Stream::Local(s, _) => Pin::new(s).poll_write(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Local(s, _) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Local(s, _) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
