//! Sending to a client from a thread that waits for disks: a slow or vanished client holds it up for a while, never for ever.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
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
        let late = || Status::deadline_exceeded("the caller's deadline is over");
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
