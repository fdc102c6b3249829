//! AMQP over TLS. What the client library has of its own for this brings readers of PKCS#12 and a second choice of whom to trust along;
//! it also takes a stream from us, if that is the stream of its reactor. So this reactor is tokio's, but for its streams.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use async_compat::Compat;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects to the broker and shakes hands; nothing of AMQP is said before its certificate is found good for its name.
///
/// # Errors
/// Those of the connection, also when no trusted authority vouches for the broker.
pub async fn connect(
    uri: AMQPUri,
    tls: ClientConfig,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let tls = TlsConnector::from(Arc::new(tls));
    let tokio = Tokio::current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Encrypted(tokio)));
    let connect = async move |uri: AMQPUri, _| {
        let stream = open(&uri, &tls).await.map_err(lapin::Error::from)?;
        Ok(AsyncTcpStream::Plain(Compat::new(stream)))
    };
    Connection::connector(uri, runtime, connect, properties).await
}

async fn open(uri: &AMQPUri, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    // As in a URL, an IPv6 address stands in brackets.
    let host = uri.authority.host.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host, uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    tls.connect(name, stream).await
}

/// Tokio's reactor; its streams are encrypted, and connected by [`open`] only.
#[derive(Debug, Clone)]
struct Encrypted(Tokio);

impl Reactor for Encrypted {
    type TcpStream = Compat<TlsStream<TcpStream>>;
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

    /// Here it is unknown whose certificate to ask for.
    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
