//! TCP connections for metrics and health: their number is limited, those that do not ask make room for those that do, and none stays
//! for long without asking or without taking its answer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

use super::line::{Busy, Lines, Place};

/// Who scrapes has one connection or two.
const CONNECTIONS_MAX: usize = 64;
/// A request is here, whole, after so long, and its answer is taken after so long: however slowly bytes trickle.
const ASKED_WITHIN: Duration = Duration::from_secs(5);
/// Longer than any scrape interval: a client that keeps a connection open between scrapes keeps it.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// When the system has no descriptor left, it is asked again after this.
const AFTER_AN_ERROR: Duration = Duration::from_millis(200);

/// Lets in a limited number at a time.
#[derive(Debug)]
pub struct Bounded {
    listener: TcpListener,
    lines: Lines,
    asked_within: Duration,
}

impl Bounded {
    /// Bounds a listener.
    pub fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            lines: Lines::new(CONNECTIONS_MAX),
            asked_within: ASKED_WITHIN,
        }
    }
}

impl Listener for Bounded {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    // Where all are asking something, one more is let go.
                    let Some(place) = self.lines.take() else { continue };
                    let visitor = Visitor {
                        stream,
                        place,
                        busy: None,
                        end: End::default(),
                        turn: Turn::Silent,
                        over: Box::pin(sleep(self.asked_within)),
                        asked_within: self.asked_within,
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

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has not asked yet.
    Silent,
    /// A request is coming.
    Coming,
    /// A request is here, and its answer is made or taken.
    Asking,
    /// An answer was given.
    Answered,
}

/// How many bytes of the empty line at the end of a request have come. What is asked for here has no body.
#[derive(Debug, Default)]
struct End(usize);

impl End {
    const LINE: &[u8; 4] = b"\r\n\r\n";

    /// More has come. Whether a request is whole by that.
    fn has_come(&mut self, bytes: &[u8]) -> bool {
        let mut is_whole = false;
        for byte in bytes {
            self.0 = match Self::LINE.get(self.0) {
                Some(expected) if expected == byte => self.0.saturating_add(1),
                _ => usize::from(*byte == b'\r'),
            };
            if self.0 == Self::LINE.len() {
                (is_whole, self.0) = (true, 0);
            }
        }
        is_whole
    }
}

/// A connection that ends when it takes too long to ask, or to take an answer.
#[derive(Debug)]
pub struct Visitor {
    stream: TcpStream,
    place: Place,
    /// While its answer is made it does not make room for others.
    busy: Option<Busy>,
    /// How much of the end of a request has come.
    end: End,
    turn: Turn,
    over: Pin<Box<Sleep>>,
    asked_within: Duration,
}

impl Visitor {
    fn turn(&mut self, turn: Turn, most: Duration) {
        self.turn = turn;
        self.busy = (turn == Turn::Asking).then(|| self.place.line.call());
        self.over.as_mut().reset((Instant::now() + most).into());
    }

    /// An error once it takes too long, or has to make room.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.place.line.check(cx)?;
        match self.over.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, buf);
        if done.is_ready() {
            let most = self.asked_within;
            // The first byte begins a request. Later ones do not give it more time.
            if matches!(self.turn, Turn::Silent | Turn::Answered) {
                self.turn(Turn::Coming, most);
            }
            let come = buf.filled().get(before..).unwrap_or_default();
            if self.end.has_come(come) {
                self.turn(Turn::Asking, most);
            }
        }
        done
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        if done.is_ready() {
            self.turn(Turn::Answered, IDLE_MAX);
        }
        done
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

    #[test]
    fn a_request_ends_with_an_empty_line() {
        let mut end = End::default();
        assert!(!end.has_come(b"GET / HTTP/1.1\r\nHost: a\r\n\r"));
        assert!(end.has_come(b"\n"));
        assert!(!end.has_come(b"\r\r\n\n\r\n\r"));
        assert!(end.has_come(b"\nGET"));
    }

    #[tokio::test]
    async fn who_says_nothing_makes_room_for_others_and_goes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut bounded = Bounded {
            lines: Lines::new(1),
            asked_within: Duration::from_millis(100),
            ..Bounded::new(listener)
        };
        let _silent = TcpStream::connect(at).await.unwrap();
        let (mut first, _) = bounded.accept().await;
        let mut other = TcpStream::connect(at).await.unwrap();
        other.write_all(b"x").await.unwrap();
        let (mut second, _) = bounded.accept().await;
        let mut byte = [0];
        assert!(first.read(&mut byte).await.is_err(), "it made room");
        assert_eq!(second.read(&mut byte).await.unwrap(), 1);
        // A byte is no request: it makes room for a connection that comes later.
        let mut third_end = TcpStream::connect(at).await.unwrap();
        third_end.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (mut third, _) = bounded.accept().await;
        assert!(second.read(&mut byte).await.is_err(), "it made room");
        let mut request = [0; 18];
        third.read_exact(&mut request).await.unwrap();
        // It has asked, and no other connection takes its place.
        let _fourth = TcpStream::connect(at).await.unwrap();
        let full = tokio::time::timeout(Duration::from_millis(20), bounded.accept()).await;
        assert!(full.is_err());
        drop((third, third_end));
        let mut other = TcpStream::connect(at).await.unwrap();
        let (mut last, _) = loop {
            other.write_all(b"x").await.unwrap();
            let (mut come, from) = bounded.accept().await;
            if come.read(&mut byte).await.is_ok_and(|read| read == 1) {
                break (come, from);
            }
        };
        let began = Instant::now();
        let trickle = async {
            loop {
                last.read_exact(&mut byte).await?;
            }
        };
        let other = tokio::spawn(async move {
            while other.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        let ended: io::Result<()> = trickle.await;
        assert_eq!(
            ended.unwrap_err().kind(),
            io::ErrorKind::TimedOut,
            "a request comes whole in time"
        );
        assert!(began.elapsed() < Duration::from_secs(10));
        drop(last);
        other.await.unwrap();
    }
}
