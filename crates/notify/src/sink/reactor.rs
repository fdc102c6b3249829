//! The connection to a broker, with bounds for what the broker sends, encrypted where the URL asks for it. The client library takes a
//! stream from us if that is the stream of its reactor. So this reactor is tokio's, but for its streams. What the library has of its own
//! for TLS brings readers of PKCS#12 and a second choice of whom to trust along.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use async_compat::Compat;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rustls::ClientConfig;

use super::bounded::{self, Bounded, Form};
use super::frames::Frames;
use super::tls;

/// What a broker may send in one connection.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes in all.
    pub bytes: usize,
    /// From its begin on. The library ends a connection by asking the broker: one that does not answer ends so.
    pub time: Duration,
}

/// Connects to the broker; with `tls`, nothing of AMQP is said before its certificate is found good for its name.
///
/// # Errors
/// Those of the connection, also when no trusted authority vouches for the broker.
pub async fn connect(
    uri: AMQPUri,
    tls: Option<ClientConfig>,
    bounds: Bounds,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let tokio = Tokio::current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Bounding(tokio)));
    let connect = async move |uri: AMQPUri, _| {
        let stream = open(&uri, tls.clone(), bounds)
            .await
            .map_err(lapin::Error::from)?;
        Ok(AsyncTcpStream::Plain(Compat::new(stream)))
    };
    Connection::connector(uri, runtime, connect, properties).await
}

async fn open(uri: &AMQPUri, tls: Option<ClientConfig>, bounds: Bounds) -> io::Result<Bounded> {
    let host = &uri.authority.host;
    let (tcp, peer) = bounded::connect(host.trim_matches(['[', ']']), uri.authority.port).await?;
    let below: Box<dyn bounded::Transport> = match tls {
        Some(config) => Box::new(tls::encrypt(tcp, host, config).await?),
        None => Box::new(tcp),
    };
    let form = Form::Frames(Frames::default());
    Ok(Bounded::new(below, peer, form, bounds.bytes).for_at_most(bounds.time))
}

/// Tokio's reactor; its streams have bounds, and are connected by [`open`] only.
#[derive(Debug, Clone)]
struct Bounding(Tokio);

impl Reactor for Bounding {
    type TcpStream = Compat<Bounded>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(
        &self,
        time: Duration,
    ) -> impl tokio_stream::Stream<Item = std::time::Instant> + Send + 'static {
        self.0.interval(time)
    }

    /// Here the bounds are unknown, and whose certificate to ask for.
    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
