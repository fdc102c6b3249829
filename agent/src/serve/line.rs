//! Connections as others see them: how long each has been quiet, and how to end it. The number of places is limited; when all are taken,
//! the connection that has been quiet longest makes room.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A connection that has not asked for anything by then ends.
pub const SPEAKS_WITHIN: Duration = Duration::from_secs(10);
/// A connection without an open call ends after so long.
pub const IDLE_MAX: Duration = Duration::from_secs(600);

/// One connection.
#[derive(Debug)]
pub struct Line {
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of whom waits for its bytes.
    waker: Option<Waker>,
    /// Calls that are open on it.
    calls: usize,
    /// Whether there was ever one.
    has_asked: bool,
    /// Since when there has been none.
    quiet_since: Instant,
}

impl Line {
    /// A connection that has just come in.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            closed: AtomicBool::new(false),
            state: Mutex::new(State {
                waker: None,
                calls: 0,
                has_asked: false,
                quiet_since: Instant::now(),
            }),
        })
    }

    /// Ends it, with everything that is open on it.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
        let waker = self.state.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// To be asked by the code that moves its bytes: an error once it was ended, and a wake-up when that happens later.
    ///
    /// # Errors
    /// When it was ended.
    pub fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        if self.closed.load(SeqCst) {
            return Err(closed());
        }
        let mut state = self.state.lock();
        if state.waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        drop(state);
        // It may have been ended in between.
        match self.closed.load(SeqCst) {
            true => Err(closed()),
            false => Ok(()),
        }
    }

    /// A call is open on it until the result is dropped.
    pub fn call(self: &Arc<Self>) -> Busy {
        let mut state = self.state.lock();
        state.calls = state.calls.saturating_add(1);
        state.has_asked = true;
        Busy(Arc::clone(self))
    }

    /// Since when it has been quiet; none: a call is open.
    fn quiet_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.calls == 0).then_some(state.quiet_since)
    }

    /// Whether it has been quiet for too long.
    fn is_over(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let most = if state.has_asked { IDLE_MAX } else { SPEAKS_WITHIN };
        state.calls == 0 && now.saturating_duration_since(state.quiet_since) > most
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the agent has ended this connection",
    )
}

/// A connection on which a call is open.
#[derive(Debug)]
pub struct Busy(Arc<Line>);

impl Busy {
    /// Its connection.
    pub fn line(&self) -> &Arc<Line> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.calls = state.calls.saturating_sub(1);
        state.quiet_since = Instant::now();
    }
}

/// Places for a limited number of connections. Clones are the same places.
#[derive(Debug, Clone)]
pub struct Lines {
    max: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Those that came first come first.
    lines: BTreeMap<u64, Arc<Line>>,
}

impl Lines {
    /// With this number of places.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            taken: Arc::default(),
        }
    }

    /// A place for a connection that has come in, if need be that of the one that has been quiet longest. None: all are busy.
    pub fn take(&self) -> Option<Place> {
        let mut taken = self.taken.lock();
        if taken.lines.len() >= self.max {
            let quiet = taken
                .lines
                .iter()
                .filter_map(|(n, line)| Some((line.quiet_since()?, *n)));
            let (_, quietest) = quiet.min()?;
            if let Some(line) = taken.lines.remove(&quietest) {
                line.close();
            }
        }
        let number = taken.next;
        taken.next = taken.next.saturating_add(1);
        let line = Line::new();
        taken.lines.insert(number, Arc::clone(&line));
        Some(Place {
            line,
            number,
            of: self.clone(),
        })
    }

    /// Ends those that have been quiet for too long.
    pub fn sweep(&self) {
        let now = Instant::now();
        let lines = self.taken.lock();
        lines
            .lines
            .values()
            .filter(|line| line.is_over(now))
            .for_each(|line| line.close());
    }

    /// How many places are taken.
    pub fn len(&self) -> usize {
        self.taken.lock().lines.len()
    }

    /// Whether no place is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Place {
    /// The connection.
    pub line: Arc<Line>,
    number: u64,
    of: Lines,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.taken.lock().lines.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn is_closed(place: &Place) -> bool {
        place.line.check(&Context::from_waker(Waker::noop())).is_err()
    }

    #[test]
    fn the_quietest_connection_makes_room_and_none_that_is_asking() {
        let lines = Lines::new(2);
        let (first, second) = (lines.take().unwrap(), lines.take().unwrap());
        let busy = first.line.call();
        let third = lines.take().unwrap();
        assert!(!is_closed(&first) && is_closed(&second) && !is_closed(&third));
        let _also = third.line.call();
        assert!(lines.take().is_none(), "all are busy");
        drop(busy);
        let fourth = lines.take().unwrap();
        assert!(is_closed(&first) && !is_closed(&fourth));
        drop((first, second, third, fourth));
        assert!(lines.is_empty());
    }

    #[test]
    fn a_connection_that_says_nothing_is_over_sooner_than_one_that_has_asked() {
        let lines = Lines::new(2);
        let (silent, idle) = (lines.take().unwrap(), lines.take().unwrap());
        drop(idle.line.call());
        let after = |time: Duration| Instant::now() + time + Duration::from_secs(1);
        assert!(silent.line.is_over(after(SPEAKS_WITHIN)) && !idle.line.is_over(after(SPEAKS_WITHIN)));
        assert!(idle.line.is_over(after(IDLE_MAX)));
        let _busy = silent.line.call();
        assert!(!silent.line.is_over(after(IDLE_MAX)));
    }
}
