//! Sending to a client from a thread that waits for disks: a slow or vanished client holds it up for a while, never for ever.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::Stream;
use tonic::Status;

/// A client that takes nothing for so long has gone, whatever its connection says.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a stream's messages go.
#[derive(Debug)]
pub struct Outlet<T> {
    send: mpsc::Sender<Result<T, Status>>,
    deadline: Option<Instant>,
    patience: Duration,
}

impl<T> Outlet<T> {
    /// Sends to `send` until `deadline`.
    pub fn new(send: mpsc::Sender<Result<T, Status>>, deadline: Option<Instant>) -> Self {
        Self {
            send,
            deadline,
            patience: PATIENCE,
        }
    }

    /// Sends a message. False: there is no use in making more.
    pub fn give(&self, item: T) -> bool {
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            self.end(late());
            return false;
        }
        let item = match self.send.try_send(Ok(item)) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(item)) => item,
        };
        let left = self.deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let wait = left.map_or(self.patience, |left| left.min(self.patience));
        let sent =
            Handle::current().block_on(async { tokio::time::timeout(wait, self.send.send(item)).await });
        if sent.is_err() {
            tracing::debug!("a client takes no more messages; its stream is ended");
        }
        matches!(sent, Ok(Ok(())))
    }

    /// Ends the stream with an error, if the client is still there.
    pub fn end(&self, status: Status) {
        let _ = Handle::current()
            .block_on(async { tokio::time::timeout(self.patience, self.send.send(Err(status))).await });
    }
}

/// A stream that ends with an error when the caller's deadline is over.
#[derive(Debug)]
pub struct Until<S> {
    inner: Option<S>,
    over: Pin<Box<tokio::time::Sleep>>,
}

impl<S> Until<S> {
    /// Ends `inner` at `deadline`.
    pub fn new(inner: S, deadline: Instant) -> Self {
        Self {
            inner: Some(inner),
            over: Box::pin(tokio::time::sleep_until(deadline.into())),
        }
    }
}

impl<T, S: Stream<Item = Result<T, Status>> + Unpin> Stream for Until<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let next = Pin::new(inner).poll_next(cx);
        if next.is_pending() && self.over.as_mut().poll(cx).is_ready() {
            self.inner = None;
            return Poll::Ready(Some(Err(late())));
        }
        next
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the caller's deadline is over")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sent(outlet: impl FnOnce(mpsc::Sender<Result<u32, Status>>) -> Outlet<u32>) -> (u32, Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // Nobody ever reads, and nobody goes away.
            let (send, _unread) = mpsc::channel(4);
            let outlet = outlet(send);
            tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                let count = (0..1000).take_while(|n| outlet.give(*n)).count();
                (u32::try_from(count).unwrap(), began.elapsed())
            })
            .await
            .unwrap()
        })
    }

    #[test]
    fn a_client_that_reads_nothing_is_given_up() {
        let (count, took) = sent(|send| Outlet {
            patience: Duration::from_millis(100),
            ..Outlet::new(send, None)
        });
        assert_eq!(count, 4);
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_stream_that_goes_on_ends_at_the_deadline() {
        use tokio_stream::StreamExt;
        let forever = tokio_stream::iter([Ok(1)]).chain(tokio_stream::pending());
        let at = Instant::now() + Duration::from_millis(50);
        let all: Vec<Result<u32, Status>> = Until::new(forever, at).collect().await;
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].as_ref().unwrap(), &1);
        assert_eq!(all[1].as_ref().unwrap_err().code(), tonic::Code::DeadlineExceeded);
        let short = Until::new(tokio_stream::iter([Ok::<u32, Status>(1)]), at);
        assert_eq!(short.collect::<Vec<_>>().await.len(), 1);
    }

    #[test]
    fn nothing_is_made_after_the_deadline() {
        let at = Instant::now() + Duration::from_millis(100);
        let (count, took) = sent(|send| Outlet {
            patience: Duration::from_millis(300),
            ..Outlet::new(send, Some(at))
        });
        assert_eq!(count, 4);
        assert!(took < Duration::from_secs(20));
        let (count, _) = sent(|send| Outlet {
            patience: Duration::from_millis(10),
            ..Outlet::new(send, Some(Instant::now()))
        });
        assert_eq!(count, 0);
    }
}
