//! Files that the agent is taking, and those that it has taken lately.
//!
//! ```text
//!   TAKE ──> kept: who opens it waits, and is noted ──LEAVE──> as ever
//!   WENT ──> it lies in the trash, or is removed: no name found before this leads to it any more
//! ```
//! A lookup that began before a file went may have found it at its place, and come with it only afterwards. So each has the number of the moment in
//! which it began.
//!
//! What may never happen: a file that a user has open and the agent is told to be free.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

/// This number of files that went is remembered where the kernel does not know them. A lookup that takes longer than it takes the agent to take that many
/// leads into the trash: what is used there counts as used.
const LATE_MAX: usize = 1 << 16;

/// An agent that keeps a file for so long from a process that wants it has stopped: the kernel ends a lease then, too.
pub const KEPT_MAX: Duration = Duration::from_secs(45);

/// A moment: how many files went before it.
pub type Moment = u64;

/// What was made just now did not go, whichever number it has.
pub const MADE_NOW: Moment = Moment::MAX;

#[derive(Debug)]
struct Kept {
    /// By whom.
    by: u64,
    /// Since then a process has come for it.
    wanted: Option<Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Taking {
    kept: FxHashMap<u64, Kept>,
    now: Moment,
    went: FxHashMap<u64, Moment>,
    in_order: VecDeque<(u64, Moment)>,
}

impl Taking {
    /// Keeps users from a file that none of them has open. False: it is kept already.
    pub fn keep(&mut self, number: u64, by: u64) -> bool {
        let is_kept = self.kept.contains_key(&number);
        self.kept.entry(number).or_insert(Kept { by, wanted: None });
        !is_kept
    }

    /// Whether no process has come for a file since it is kept.
    pub fn is_whole(&self, number: u64, by: u64) -> bool {
        self.kept
            .get(&number)
            .is_some_and(|kept| kept.by == by && kept.wanted.is_none())
    }

    /// It is not kept any more.
    pub fn leave(&mut self, number: u64, by: u64) {
        if self.kept.get(&number).is_some_and(|kept| kept.by == by) {
            self.kept.remove(&number);
        }
    }

    /// Nothing that this one kept is kept any more.
    pub fn leave_all(&mut self, by: u64) {
        self.kept.retain(|_, kept| kept.by != by);
    }

    /// Whether a file is kept; if so, it is wanted from now on.
    pub fn want(&mut self, number: u64) -> bool {
        let Some(kept) = self.kept.get_mut(&number) else {
            return false;
        };
        let since = *kept.wanted.get_or_insert_with(Instant::now);
        if since.elapsed() < KEPT_MAX {
            return true;
        }
        // It is not whole any more, whenever the agent looks.
        self.kept.remove(&number);
        false
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// A file lies at its place no more. In which moment.
    pub fn go(&mut self, number: u64) -> Moment {
        self.now = self.now.saturating_add(1);
        self.went.insert(number, self.now);
        self.in_order.push_back((number, self.now));
        while self.in_order.len() > LATE_MAX
            && let Some((number, then)) = self.in_order.pop_front()
        {
            if self.went.get(&number) == Some(&then) {
                self.went.remove(&number);
            }
        }
        self.now
    }

    /// Whether what was found at its place in this moment went after it. Otherwise it has come back.
    pub fn went_since(&mut self, number: u64, found: Moment) -> bool {
        match self.went.get(&number) {
            Some(went) if *went > found => true,
            Some(_) => {
                self.went.remove(&number);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_kept_for_one_until_that_leaves_it_and_who_comes_is_noted() {
        let mut taking = Taking::default();
        assert!(taking.keep(7, 1) && !taking.keep(7, 2) && !taking.keep(7, 1));
        assert!(taking.is_whole(7, 1) && !taking.is_whole(7, 2) && !taking.is_whole(8, 1));
        taking.leave(7, 2);
        assert!(!taking.want(8) && taking.want(7) && !taking.is_whole(7, 1));
        taking.leave(7, 1);
        assert!(!taking.want(7) && taking.is_empty());
        assert!(taking.keep(7, 2) && taking.keep(8, 2));
        taking.leave_all(2);
        assert!(taking.is_empty());
    }

    #[test]
    fn what_was_found_before_a_file_went_leads_nowhere_and_what_was_found_later_is_back() {
        let mut taking = Taking::default();
        let before = taking.now();
        taking.go(7);
        assert!(taking.went_since(7, before));
        assert!(!taking.went_since(7, taking.now()));
        assert!(!taking.went_since(7, before), "it came back");
        for number in 0..2 * LATE_MAX as u64 {
            taking.go(number);
        }
        assert!(taking.in_order.len() <= LATE_MAX && taking.went.len() <= LATE_MAX);
    }
}
