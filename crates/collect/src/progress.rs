//! Until when everything that was queued has been read.
//!
//! An agent that is killed leaves its successor a question: since when is what it knows incomplete? That it was alive
//! is no answer: what waited in the kernel's queue then was not seen. New events merge into queued ones or come after
//! them, so once as many events were read as waited at a moment, everything that was queued before it is recorded.

use purge_model::Seconds;

/// How far the collector has come.
#[derive(Debug, Default)]
pub struct Progress {
    mark: Option<Mark>,
    /// When the last mark was set.
    marked: Seconds,
}

/// What waited at a moment.
#[derive(Debug)]
struct Mark {
    at: Seconds,
    waiting: u64,
}

impl Progress {
    /// A buffer will be read now. `queued` tells how many events wait; it is asked once a second at most, and not before
    /// what it told last has been read: the kernel counts them one by one.
    pub fn about_to_read(&mut self, now: Seconds, queued: impl FnOnce() -> u64) {
        if self.mark.is_none() && now != self.marked {
            self.marked = now;
            self.mark = Some(Mark {
                at: now,
                waiting: queued(),
            });
        }
    }

    /// This number of events was read in a pass that began at `began`, and are recorded; none: the queue was empty. Until when
    /// everything has been seen, where that has become known.
    pub fn recorded(&mut self, began: Seconds, events: u64) -> Option<Seconds> {
        if events == 0 {
            self.mark = None;
            return Some(began);
        }
        // The agent's time was set back meanwhile: the mark speaks of a moment that is yet to come.
        self.mark.take_if(|mark| mark.at > began);
        let mark = self.mark.as_mut()?;
        mark.waiting = mark.waiting.saturating_sub(events);
        let reached = (mark.waiting == 0).then_some(mark.at);
        self.mark.take_if(|_| reached.is_some());
        reached
    }

    /// A pass failed: it is unknown how many events it took.
    pub fn failed(&mut self) {
        self.mark = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// A queue that is filled and read at random: what is said to be seen has left it.
        #[test]
        fn nothing_waits_that_is_said_to_be_seen(
            steps in prop::collection::vec((0u32..3, 0usize..20, 0usize..20, 0usize..20), 1..80)
        ) {
            let (mut progress, mut queue, mut now) = (Progress::default(), VecDeque::new(), 1u32);
            for (seconds, before, between, read) in steps {
                now += seconds;
                queue.extend(std::iter::repeat_n(now, before));
                let began = Seconds(now);
                progress.about_to_read(began, || queue.len() as u64);
                // Others go on while the queue is counted.
                queue.extend(std::iter::repeat_n(now, between));
                let taken = read.max(1).min(queue.len());
                queue.drain(..taken);
                if let Some(until) = progress.recorded(began, taken as u64) {
                    prop_assert!(queue.front().is_none_or(|first| *first >= until.0));
                }
            }
        }
    }

    #[test]
    fn a_queue_that_never_runs_empty_is_still_seen_to_pass() {
        let mut progress = Progress::default();
        let mut seen = Vec::new();
        for second in 1..10 {
            for _ in 0..3 {
                progress.about_to_read(Seconds(second), || 4);
                seen.extend(progress.recorded(Seconds(second), 2));
            }
        }
        assert_eq!(seen, (1..10).map(Seconds).collect::<Vec<_>>());
    }

    #[test]
    fn a_mark_of_before_the_time_was_set_back_says_nothing() {
        let mut progress = Progress::default();
        progress.about_to_read(Seconds(90), || 4);
        assert_eq!(progress.recorded(Seconds(50), 4), None);
        progress.about_to_read(Seconds(50), || 4);
        assert_eq!(progress.recorded(Seconds(50), 4), Some(Seconds(50)));
    }

    #[test]
    fn a_failed_pass_says_nothing_and_the_next_ones_go_on() {
        let mut progress = Progress::default();
        progress.about_to_read(Seconds(1), || 5);
        progress.failed();
        assert_eq!(progress.recorded(Seconds(1), 9), None);
        progress.about_to_read(Seconds(2), || u64::MAX);
        assert_eq!(progress.recorded(Seconds(2), 9), None);
        assert_eq!(progress.recorded(Seconds(3), 0), Some(Seconds(3)));
    }
}
