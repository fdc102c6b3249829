//! A connection to a mail server or a broker. It ends when the server sends more than an answer can be: the client libraries keep in
//! memory what they read, and set no bound of their own in time.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::frames::{Frames, refused};

/// What lies below: TCP, or TLS over TCP.
pub trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug> Transport for T {}

/// In which form the server speaks.
#[derive(Debug)]
pub enum Form {
    /// In lines of at most this number of bytes.
    Lines {
        /// The bound.
        most: usize,
        /// Bytes since the last end of a line.
        open: usize,
    },
    /// In the frames of AMQP.
    Frames(Frames),
}

impl Form {
    /// Lines of at most `most` bytes.
    pub fn lines(most: usize) -> Self {
        Self::Lines { most, open: 0 }
    }

    /// Reads on.
    ///
    /// # Errors
    /// When no server of good will sends this.
    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (most, open) = match self {
            Self::Frames(frames) => return frames.look(bytes),
            Self::Lines { most, open } => (*most, open),
        };
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            *open = open.saturating_add(part.len());
            if *open > most {
                return Err(refused(format!(
                    "the server sent a line of more than {most} bytes"
                )));
            }
            if part.ends_with(b"\n") {
                *open = 0;
            }
        }
        Ok(())
    }
}

/// A connection with bounds for what the server sends.
#[derive(Debug)]
pub struct Bounded {
    below: Box<dyn Transport>,
    peer: SocketAddr,
    form: Form,
    /// Bytes that may still come.
    left: usize,
    /// Is read before what comes.
    first: &'static [u8],
    ends: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    /// Reads at most `most` bytes from `below`.
    pub fn new(below: Box<dyn Transport>, peer: SocketAddr, form: Form, most: usize) -> Self {
        Self {
            below,
            peer,
            form,
            left: most,
            first: &[],
            ends: None,
        }
    }

    /// The reader gets these words before those of the server.
    pub fn after(mut self, words: &'static [u8]) -> Self {
        self.first = words;
        self
    }

    /// Nothing is read later than this. To be called on a runtime.
    pub fn for_at_most(mut self, time: Duration) -> Self {
        self.ends = Some(Box::pin(tokio::time::sleep(time)));
        self
    }

    /// The server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What lies below.
    pub fn into_below(self) -> Box<dyn Transport> {
        self.below
    }

    fn admit(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.checked_sub(bytes.len());
        self.left = left.unwrap_or(0);
        if left.is_none() {
            return Err(refused("the server sent more than any answer needs".into()));
        }
        self.form.look(bytes)
    }
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let (now, later) = this.first.split_at(this.first.len().min(buf.remaining()));
            buf.put_slice(now);
            this.first = later;
            return Poll::Ready(Ok(()));
        }
        if this
            .ends
            .as_mut()
            .is_some_and(|ends| ends.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.below).poll_read(cx, buf))?;
        let admitted = this.admit(buf.filled().get(before..).unwrap_or_default());
        if admitted.is_err() {
            buf.set_filled(before);
        }
        Poll::Ready(admitted)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.below).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_shutdown(cx)
    }
}

/// Connects to a server; its address comes along.
///
/// # Errors
/// When no address of the host answers.
pub async fn connect(host: &str, port: u16) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    Ok((stream, peer))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What is read of what a server sends in pieces, and whether it ended well.
    fn read(pieces: &[&[u8]], form: Form, most: usize) -> (Vec<u8>, io::Result<()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut server, client) = tokio::io::duplex(1 << 16);
            for piece in pieces {
                server.write_all(piece).await.unwrap();
            }
            drop(server);
            let peer = (Ipv4Addr::LOCALHOST, 25).into();
            let mut bounded = Bounded::new(Box::new(client), peer, form, most).after(b"first ");
            let mut all = Vec::new();
            let mut end = Ok(());
            loop {
                // Small reads, so that a line comes in parts.
                let mut some = [0; 7];
                match bounded.read(&mut some).await {
                    Ok(0) => break,
                    Ok(n) => all.extend_from_slice(&some[..n]),
                    Err(error) => {
                        end = Err(error);
                        break;
                    }
                }
            }
            (all, end)
        })
    }

    #[test]
    fn what_is_within_the_bounds_comes_whole_behind_the_words_that_are_first() {
        let (all, end) = read(&[b"123456789\n", b"1234", b"56789\n"], Form::lines(10), 20);
        assert_eq!(all, b"first 123456789\n123456789\n");
        end.unwrap();
    }

    #[test]
    fn a_line_or_a_whole_beyond_its_bound_ends_the_connection() {
        for (most_of_line, most, words) in [(9, 20, "line"), (10, 19, "more than any answer")] {
            let lines = b"123456789\n123456789\n";
            let (all, end) = read(&[lines], Form::lines(most_of_line), most);
            assert!(end.unwrap_err().to_string().contains(words));
            assert!(all.len() < b"first ".len() + lines.len());
        }
    }

    #[test]
    fn nothing_is_read_after_the_time_of_a_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (_server, client) = tokio::io::duplex(16);
            let peer = (Ipv4Addr::LOCALHOST, 25).into();
            let bounded = Bounded::new(Box::new(client), peer, Form::lines(1), 1);
            let read = bounded.for_at_most(Duration::from_millis(10)).read_u8().await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }
}
