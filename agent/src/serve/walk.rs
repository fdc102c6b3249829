//! Answers that are made bit by bit, as the client takes them. No thread waits for a client: between two steps a walk is a value, and what
//! it holds is charged.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::budget::Share;
use super::crew::Crew;
use purge_query::Step;

/// A thread is given back after so long, also when there is nothing to send yet: others wait for it.
const TURN: Duration = Duration::from_millis(50);

/// Something that is answered bit by bit. A step takes some milliseconds, and holds no lock when it ends.
pub trait Walk: Send + 'static {
    /// What is sent.
    type Item: Send + 'static;

    /// Goes on a little.
    ///
    /// # Errors
    /// What ends the answer.
    fn step(&mut self) -> Result<Step<Self::Item>, Status>;
}

/// Sends what a walk finds, until it ends or the client goes.
pub fn start<W: Walk>(
    crew: Crew,
    (who, share): (String, Share),
    walk: W,
) -> impl Stream<Item = Result<W::Item, Status>> + Send + Unpin {
    // One that waits for the client beside the one that it takes.
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move { go(crew, (who, share), walk, send).await });
    // An error is an item, and the last.
    let all = ReceiverStream::new(receive).map(|step: Result<Vec<W::Item>, Status>| {
        tokio_stream::iter(match step {
            Ok(items) => items.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(status) => vec![Err(status)],
        })
    });
    Flat {
        inner: all,
        now: None,
    }
}

async fn go<W: Walk>(
    crew: Crew,
    (who, share): (String, Share),
    mut walk: W,
    send: mpsc::Sender<Result<Vec<W::Item>, Status>>,
) {
    loop {
        // Nothing is made before there is room for it. An error: the client has disconnected.
        let Ok(room) = send.reserve().await else { return };
        let turn = crew.run((&who, share), move || {
            let until = Instant::now() + TURN;
            loop {
                match walk.step() {
                    Ok(Step::Working) if Instant::now() < until => {}
                    step => return (walk, step),
                }
            }
        });
        let done = tokio::select! {
            done = turn => done,
            () = send.closed() => return,
        };
        match done {
            Ok((back, Ok(Step::Items(items)))) => {
                room.send(Ok(items));
                walk = back;
            }
            Ok((back, Ok(Step::Working))) => {
                drop(room);
                walk = back;
            }
            Ok((_, Ok(Step::Done))) => return,
            Ok((_, Err(status))) | Err(status) => return room.send(Err(status)),
        }
    }
}

/// One after another of some streams.
struct Flat<S, I> {
    inner: S,
    now: Option<I>,
}

impl<S, T, I> Stream for Flat<S, I>
where
    S: Stream<Item = I> + Unpin,
    I: Stream<Item = T> + Unpin,
{
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        use std::task::Poll;
        loop {
            if let Some(now) = &mut self.now {
                match std::pin::Pin::new(now).poll_next(cx) {
                    Poll::Ready(None) => self.now = None,
                    next => return next,
                }
            }
            match std::pin::Pin::new(&mut self.inner).poll_next(cx) {
                Poll::Ready(Some(next)) => self.now = Some(next),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// Says how far it came, and that it has ended.
    struct Count {
        made: Arc<AtomicU32>,
        _alive: Arc<()>,
    }

    impl Walk for Count {
        type Item = u32;

        fn step(&mut self) -> Result<Step<u32>, Status> {
            match self.made.fetch_add(1, SeqCst) {
                n if n % 2 == 0 => Ok(Step::Working),
                999 => Err(Status::internal("far enough")),
                n => Ok(Step::Items(vec![n, n])),
            }
        }
    }

    fn count() -> (Count, Arc<AtomicU32>, std::sync::Weak<()>) {
        let (made, alive) = (Arc::<AtomicU32>::default(), Arc::new(()));
        let weak = Arc::downgrade(&alive);
        (
            Count {
                made: Arc::clone(&made),
                _alive: alive,
            },
            made,
            weak,
        )
    }

    #[tokio::test]
    async fn nothing_is_made_that_no_client_takes_and_nothing_stays_when_clients_leave() {
        let (walk, made, alive) = count();
        let mut all = start(Crew::default(), ("a".into(), Share::Ordinary), walk);
        assert_eq!(all.next().await.unwrap().unwrap(), 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let so_far = made.load(SeqCst);
        assert!(so_far <= 8, "{so_far} steps for one item");
        assert!(alive.upgrade().is_some());
        drop(all);
        let began = Instant::now();
        while alive.upgrade().is_some() {
            assert!(began.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn everything_comes_in_its_order_and_an_error_is_the_last() {
        let (walk, ..) = count();
        let all = start(Crew::default(), ("a".into(), Share::Root), walk);
        let all: Vec<_> = all.collect().await;
        let numbers: Vec<u32> = all.iter().flatten().copied().collect();
        let expected: Vec<u32> = (1..999).step_by(2).flat_map(|n| [n, n]).collect();
        assert_eq!(numbers, expected);
        assert_eq!(all.last().unwrap().as_ref().unwrap_err().message(), "far enough");
    }
}
