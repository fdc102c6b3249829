//! Open calls, and the bytes of their answers on the way to clients that may take none of them.
//!
//! ```text
//!   walk ──items──> tonic ──frames──> AnswerBody ──pieces of 16 KiB──> h2 ──> socket
//!                                        │                              │
//!                                        └──────────── Open ────────────┘   counted and charged until the last of both is dropped
//! ```
//!
//! HTTP/2 asks for more of an answer only while the client's window has room. An answer that the client does not take is therefore never
//! asked again: only [`Watch::sweep`], once a second, sees that. It ends the answer first, which frees everything behind it, and later
//! the connection.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes, http};

use super::budget::Charge;
use super::line::Busy;
use super::tally::Counted;
use crate::roles::{Peer, Scope};

/// A client that takes nothing of an answer for so long gets the rest no more.
pub const TAKES_WITHIN: Duration = Duration::from_secs(30);
/// An answer to any client but root takes no longer than this.
pub const ANSWER_MAX: Duration = Duration::from_secs(600);
/// A client that does not even take the news of that loses its connection after so long.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);
/// A request has come whole by then.
const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// What is handed to HTTP/2 at once, and how much of one answer may lie there.
const PIECE: usize = 16 << 10;
const IN_FLIGHT_MAX: usize = 64 << 10;
/// Bytes of a request or an answer that lie in the agent at a time without being charged by themselves: every call is charged with them.
const INCLUDED: u64 = 64 << 10;

/// Which service stands behind a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The agent's own: roles decide.
    Agent,
    /// Health and reflection: for any client that may connect, but counted as all calls are.
    Probe,
}

/// Who has made a call, and what was found when it came.
#[derive(Debug)]
pub struct Asked {
    /// The client, as it has connected.
    pub peer: Peer,
    /// Which service.
    pub what: What,
    /// The call's name.
    pub call: String,
    /// How much it may see.
    pub scope: Scope,
}

/// A call, until the last byte of its answer has been taken.
#[derive(Debug)]
pub struct Open {
    /// Who has made it.
    pub asked: Asked,
    charge: Mutex<Charge>,
    /// Part of that: for an answer of any size, until it is known.
    allowance: u64,
    state: Mutex<State>,
    /// No limit to the time of its answer.
    is_endless: bool,
    busy: Busy,
    _counted: Counted,
}

#[derive(Debug)]
struct State {
    turn: Turn,
    /// When the answer began.
    began: Option<Instant>,
    /// When a byte was last asked for or taken.
    moved: Instant,
    /// Bytes that lie with HTTP/2.
    in_flight: usize,
    /// Of who waits for them to be taken.
    waker: Option<Waker>,
    /// What is still to be sent.
    answer: Answer,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The agent makes the answer, or more of it.
    Agent,
    /// The client takes it.
    Client,
}

#[derive(Debug)]
enum Answer {
    /// There is none yet, or no more.
    None,
    /// From here.
    Body(Body),
    /// It was ended; this is to be told.
    Ended(Option<Status>, Instant),
}

impl Open {
    /// A call that has come in.
    pub fn new(
        asked: Asked,
        (charge, allowance): (Charge, u64),
        busy: Busy,
        counted: Counted,
        is_endless: bool,
    ) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            asked,
            charge: Mutex::new(charge),
            allowance,
            state: Mutex::new(State {
                turn: Turn::Agent,
                began: None,
                moved: now,
                in_flight: 0,
                waker: None,
                answer: Answer::None,
            }),
            is_endless,
            busy,
            _counted: counted,
        })
    }

    /// Charges more memory, until the call is over.
    ///
    /// # Errors
    /// What to tell the client when there is no room.
    pub fn charge(&self, more: u64) -> Result<(), Status> {
        self.charge.lock().grow(more)
    }

    /// Charges as much as there is room for: `wanted`, or half of that, and so on; no less than `least`.
    ///
    /// # Errors
    /// What to tell the client when not even that is to be had.
    pub fn charge_up_to(&self, wanted: u64, least: u64) -> Result<u64, Status> {
        let mut wanted = wanted.max(least);
        loop {
            match self.charge(wanted) {
                Ok(()) => return Ok(wanted),
                Err(full) if wanted <= least => return Err(full),
                Err(_) => wanted = (wanted / 2).max(least),
            }
        }
    }

    /// The answer to a call.
    pub fn answer(self: Arc<Self>, body: Body) -> Body {
        {
            let mut state = self.state.lock();
            // It may have been ended before there was an answer.
            if matches!(state.answer, Answer::None) {
                state.answer = Answer::Body(body);
            }
            state.turn = Turn::Client;
            state.moved = Instant::now();
            state.began = Some(state.moved);
        }
        let extra = self.allowance;
        Body::new(AnswerBody {
            open: self,
            rest: Bytes::new(),
            extra,
        })
    }

    /// Ends the answer of a client that takes none of it, or takes too long; then its connection.
    fn look(&self, now: Instant) {
        let state = self.state.lock();
        let is_waited_for = state.turn == Turn::Client || state.in_flight > 0;
        let still = now.saturating_duration_since(state.moved);
        if let Answer::Ended(_, at) = &state.answer {
            if now.saturating_duration_since(*at) > LEAVES_WITHIN {
                drop(state);
                self.busy.line().close();
            }
            return;
        }
        let why = if is_waited_for && still > TAKES_WITHIN {
            format!(
                "the client took nothing of the answer for {} s; ask again, and read on or ask for less",
                TAKES_WITHIN.as_secs()
            )
        } else if !self.is_endless
            && state
                .began
                .is_some_and(|b| now.saturating_duration_since(b) > ANSWER_MAX)
        {
            format!(
                "the answer took longer than {} min; ask for less",
                ANSWER_MAX.as_secs() / 60
            )
        } else {
            return;
        };
        drop(state);
        self.end(Status::resource_exhausted(why), now);
    }

    /// Ends the answer, and tells the client why.
    pub fn end(&self, why: Status, now: Instant) {
        let mut state = self.state.lock();
        if matches!(state.answer, Answer::Ended(..)) {
            return;
        }
        tracing::debug!(why = why.message(), "an answer was ended");
        let before = std::mem::replace(&mut state.answer, Answer::Ended(Some(why), now));
        let waker = state.waker.take();
        drop(state);
        // What is behind it ends now: without the lock, because that may take a while.
        drop(before);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// All open calls, to be looked at. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<Vec<Weak<Open>>>>);

impl Watch {
    /// One more.
    pub fn add(&self, open: &Arc<Open>) {
        self.0.lock().push(Arc::downgrade(open));
    }

    /// Ends what takes too long. To be called every second or so.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.all().iter().for_each(|open| open.look(now));
    }

    /// Those that are open now.
    pub fn all(&self) -> Vec<Arc<Open>> {
        let mut calls = self.0.lock();
        calls.retain(|call| call.strong_count() > 0);
        calls.shrink_to(64);
        calls.iter().filter_map(Weak::upgrade).collect()
    }
}

/// An answer that goes to HTTP/2 in small pieces, and not faster than the client takes them.
struct AnswerBody {
    open: Arc<Open>,
    /// Of the frame that is being sent.
    rest: Bytes,
    /// What is charged for it.
    extra: u64,
}

impl AnswerBody {
    /// Charges a large frame until the next one.
    fn hold(&mut self, bytes: usize) -> Result<(), Status> {
        let extra = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_sub(INCLUDED);
        let mut charge = self.open.charge.lock();
        let without = charge.bytes().saturating_sub(self.extra);
        charge.resize(without.saturating_add(extra))?;
        self.extra = extra;
        Ok(())
    }

    fn piece(&mut self) -> Bytes {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        let mut state = self.open.state.lock();
        state.in_flight = state.in_flight.saturating_add(piece.len());
        drop(state);
        Bytes::from_owner(Piece {
            bytes: piece,
            open: Arc::clone(&self.open),
        })
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let open = Arc::clone(&self.open);
        let mut state = open.state.lock();
        if let Answer::Ended(status, _) = &mut state.answer {
            self.rest = Bytes::new();
            return Poll::Ready(status.take().and_then(|status| trailers(&status)).map(Ok));
        }
        if state.in_flight >= IN_FLIGHT_MAX {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.moved = Instant::now();
        state.turn = Turn::Client;
        if !self.rest.is_empty() {
            drop(state);
            return Poll::Ready(Some(Ok(http_body::Frame::data(self.piece()))));
        }
        let Answer::Body(body) = &mut state.answer else {
            return Poll::Ready(None);
        };
        let next = Pin::new(body).poll_frame(cx);
        let frame = match next {
            Poll::Pending => {
                state.turn = Turn::Agent;
                // The code that ends it wakes this as well.
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(last) => {
                state.answer = Answer::None;
                return Poll::Ready(last);
            }
        };
        drop(state);
        match frame.into_data() {
            Ok(data) if data.is_empty() => Poll::Ready(Some(Ok(http_body::Frame::data(data)))),
            Ok(data) => {
                if let Err(status) = self.hold(data.len()) {
                    let ended = Answer::Ended(None, Instant::now());
                    drop(std::mem::replace(&mut open.state.lock().answer, ended));
                    return Poll::Ready(trailers(&status).map(Ok));
                }
                self.rest = data;
                Poll::Ready(Some(Ok(http_body::Frame::data(self.piece()))))
            }
            Err(frame) => Poll::Ready(Some(Ok(frame))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.open.state.lock().answer {
            Answer::Body(body) => self.rest.is_empty() && body.is_end_stream(),
            Answer::None => self.rest.is_empty(),
            Answer::Ended(status, _) => status.is_none(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // What is left lies with HTTP/2, or nowhere.
        let before = std::mem::replace(&mut self.open.state.lock().answer, Answer::None);
        self.open.state.lock().turn = Turn::Agent;
        drop(before);
    }
}

/// The end of an answer, with its reason.
fn trailers(status: &Status) -> Option<http_body::Frame<Bytes>> {
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).ok()?;
    Some(http_body::Frame::trailers(headers))
}

/// Bytes that lie with HTTP/2. Their call is open until they are taken.
struct Piece {
    bytes: Bytes,
    open: Arc<Open>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut state = self.open.state.lock();
        state.in_flight = state.in_flight.saturating_sub(self.bytes.len());
        state.moved = Instant::now();
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A request, which comes whole in time, and is charged if it is large.
pub struct AskedBody {
    open: Arc<Open>,
    body: Body,
    bytes: u64,
    over: Option<Pin<Box<Sleep>>>,
}

impl AskedBody {
    /// Of a call that has come in. Requests that are streams have no end of their own.
    pub fn new(open: Arc<Open>, body: Body, is_stream: bool) -> Self {
        let over = (!is_stream).then(|| Box::pin(tokio::time::sleep(ASKED_WITHIN)));
        Self {
            open,
            body,
            bytes: 0,
            over,
        }
    }

    fn add(&mut self, bytes: usize) -> Result<(), Status> {
        let before = self.bytes.max(INCLUDED);
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        match self.bytes.saturating_sub(before) {
            0 => Ok(()),
            // Once as it comes, and once as it is read.
            more => self.open.charge(more.saturating_mul(2)),
        }
    }
}

impl HttpBody for AskedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                Poll::Ready(Some(self.add(bytes).map(|()| frame)))
            }
            Poll::Pending => match self.over.as_mut().map(|over| over.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => {
                    self.over = None;
                    let why = format!(
                        "the request did not come whole within {} s",
                        ASKED_WITHIN.as_secs()
                    );
                    Poll::Ready(Some(Err(Status::deadline_exceeded(why))))
                }
                _ => Poll::Pending,
            },
            ended => ended,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::budget::{Budget, Share};
    use super::super::line::{Lines, Place};
    use super::super::tally::Tally;
    use super::*;
    use http_body_util::{BodyExt, Full};

    fn open(lines: &Lines, budget: &Budget) -> (Arc<Open>, Place) {
        let place = lines.take().unwrap();
        let charge = budget.charge("a", Share::Role, 1 << 20).unwrap();
        let counted = Tally::default().count("a", 1).unwrap();
        let asked = Asked {
            peer: Peer::Unknown,
            what: What::Agent,
            call: "Find".into(),
            scope: Scope::All,
        };
        (
            Open::new(asked, (charge, 1 << 19), place.line.call(), counted, false),
            place,
        )
    }

    fn is_closed(place: &Place) -> bool {
        place.line.check(&Context::from_waker(Waker::noop())).is_err()
    }

    async fn next(body: &mut Body) -> http_body::Frame<Bytes> {
        body.frame().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn an_answer_goes_in_small_pieces_and_no_faster_than_they_are_taken() {
        let (lines, budget) = (Lines::new(1), Budget::default());
        let (call, _place) = open(&lines, &budget);
        let all = vec![7u8; 300_000];
        let mut body = Arc::clone(&call).answer(Body::new(
            Full::new(Bytes::from(all.clone())).map_err(|e| match e {}),
        ));
        let mut untaken = Vec::new();
        while let Ok(frame) = tokio::time::timeout(Duration::from_millis(20), next(&mut body)).await {
            untaken.push(frame.into_data().unwrap());
        }
        let bytes: usize = untaken.iter().map(Bytes::len).sum();
        assert!(untaken.iter().all(|piece| piece.len() <= PIECE) && bytes == IN_FLIGHT_MAX);
        // What it takes is charged, in place of what it might have taken.
        assert_eq!(budget.of_others(), (1 << 19) + 300_000 - INCLUDED);
        let mut got: Vec<u8> = untaken.concat();
        untaken.clear();
        while let Some(frame) = body.frame().await {
            got.extend(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(got, all);
        drop((body, call));
        assert_eq!(budget.of_others(), 0);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_loses_its_answer_and_then_its_connection() {
        let (lines, budget) = (Lines::new(1), Budget::default());
        let (call, place) = open(&lines, &budget);
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let endless = tokio_stream::wrappers::ReceiverStream::new(receive);
        let mut body = Arc::clone(&call).answer(Body::new(http_body_util::StreamBody::new(endless)));
        send.send(Ok::<_, Status>(http_body::Frame::data(Bytes::from_static(b"x"))))
            .await
            .unwrap();
        let untaken = next(&mut body).await;
        let after = |time: Duration| Instant::now() + time;
        call.look(after(TAKES_WITHIN / 2));
        assert!(!send.is_closed());
        call.look(after(TAKES_WITHIN + Duration::from_secs(1)));
        assert!(send.is_closed(), "the code that made it hears of it");
        assert!(!is_closed(&place), "it may still read why");
        let told = next(&mut body).await.into_trailers().unwrap();
        assert_eq!(told.get("grpc-status").unwrap(), "8");
        call.look(after(TAKES_WITHIN + LEAVES_WITHIN * 2));
        assert!(is_closed(&place));
        drop((body, untaken, call));
        assert_eq!(budget.of_others(), 0);
    }

    #[tokio::test]
    async fn an_answer_that_waits_for_news_is_not_given_up_and_one_that_never_ends_is() {
        let (lines, budget) = (Lines::new(1), Budget::default());
        let (call, _place) = open(&lines, &budget);
        let (send, receive) = tokio::sync::mpsc::channel::<Result<http_body::Frame<Bytes>, Status>>(1);
        let news = tokio_stream::wrappers::ReceiverStream::new(receive);
        let mut body = Arc::clone(&call).answer(Body::new(http_body_util::StreamBody::new(news)));
        let nothing = tokio::time::timeout(Duration::from_millis(10), body.frame()).await;
        assert!(nothing.is_err());
        call.look(Instant::now() + TAKES_WITHIN * 2);
        assert!(!send.is_closed(), "it is the agent's turn");
        call.look(Instant::now() + ANSWER_MAX + Duration::from_secs(1));
        assert!(send.is_closed());
    }

    #[tokio::test]
    async fn a_call_that_is_ended_before_its_answer_is_made_tells_why() {
        let (lines, budget) = (Lines::new(1), Budget::default());
        let (call, _place) = open(&lines, &budget);
        call.end(Status::unauthenticated("revoked"), Instant::now());
        let secret = Full::new(Bytes::from_static(b"secret")).map_err(|e| match e {});
        let mut body = Arc::clone(&call).answer(Body::new(secret));
        let told = next(&mut body).await.into_trailers().unwrap();
        assert_eq!(told.get("grpc-status").unwrap(), "16");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_request_that_does_not_come_whole_ends() {
        let (lines, budget) = (Lines::new(1), Budget::default());
        let (call, _place) = open(&lines, &budget);
        let half = tokio_stream::pending::<Result<http_body::Frame<Bytes>, Status>>();
        let body = Body::new(http_body_util::StreamBody::new(half));
        let mut asked = Body::new(AskedBody::new(call, body, false));
        let ended = asked.frame().await.unwrap().unwrap_err();
        assert_eq!(ended.code(), tonic::Code::DeadlineExceeded);
    }
}
