//! Streams that end at the caller's deadline.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio_stream::Stream;
use tonic::Status;

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
    use std::time::Duration;

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
}
