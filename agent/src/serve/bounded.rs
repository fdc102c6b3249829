//! TCP connections of which there are only so many, and which do not stay when nothing moves on them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Who scrapes has one connection or two.
const CONNECTIONS_MAX: usize = 32;
/// Longer than anybody's scrape interval: who keeps a connection open between scrapes keeps it.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// When the system has no descriptor left, it is asked again after this.
const AFTER_AN_ERROR: Duration = Duration::from_millis(200);

/// Lets in so many at a time.
#[derive(Debug)]
pub struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle_max: Duration,
}

impl Bounded {
    /// Bounds a listener.
    pub fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            idle_max: IDLE_MAX,
        }
    }
}

impl Listener for Bounded {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        loop {
            // The semaphore is never closed.
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let visitor = Visitor {
                        stream,
                        idle: Box::pin(sleep(self.idle_max)),
                        idle_max: self.idle_max,
                        _place: place,
                    };
                    return (visitor, from);
                }
                Err(error) => {
                    tracing::debug!(%error, "a visitor cannot be let in");
                    sleep(AFTER_AN_ERROR).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing has moved on it for a while.
#[derive(Debug)]
pub struct Visitor {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    idle_max: Duration,
    _place: Option<OwnedSemaphorePermit>,
}

impl Visitor {
    /// Something moved, or it is seen whether nothing has for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            let until = Instant::now() + self.idle_max;
            self.idle.as_mut().reset(until);
            return done;
        }
        match self.idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch(cx, done)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn who_says_nothing_makes_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut bounded = Bounded {
            places: Arc::new(Semaphore::new(1)),
            idle_max: Duration::from_millis(100),
            ..Bounded::new(listener)
        };
        let _silent = TcpStream::connect(at).await.unwrap();
        let mut other = TcpStream::connect(at).await.unwrap();
        other.write_all(b"x").await.unwrap();
        let (mut first, _) = bounded.accept().await;
        let full = tokio::time::timeout(Duration::from_millis(20), bounded.accept()).await;
        assert!(full.is_err(), "one at a time");
        let mut byte = [0];
        assert!(first.read(&mut byte).await.is_err(), "it was silent for too long");
        drop(first);
        let (mut second, _) = bounded.accept().await;
        assert_eq!(second.read(&mut byte).await.unwrap(), 1);
    }
}
