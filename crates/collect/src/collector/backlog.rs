//! When more events wait in the kernel than may: they lie in its memory, which is the host's. Pure.
//!
//! ```text
//!   at most QUEUED_MAX wait, or they become less    everything is followed
//!   more, and they become more                      names are let go, and the kernel queues none for a while: no use is lost, a scan follows
//!   more than the memory allows, and still more     all that waits is let go: a gap
//! ```

/// Events that may wait while names are followed: 100 to 250 MB of the kernel's memory.
pub const QUEUED_MAX: u64 = 1 << 20;
/// Names are followed again when no more than this wait.
const QUEUED_FEW: u64 = QUEUED_MAX / 2;
/// However much memory there is, no more than this wait.
const QUEUED_MOST: u64 = QUEUED_MAX * 16;
/// An event of a rename takes this much of the kernel's memory.
const EVENT_BYTES: u64 = 256;
/// Events may take the memory that the agent may use, divided by this.
const SHARE: u64 = 8;

/// What becomes of the events that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All are followed.
    Follow,
    /// Uses are recorded. Names are let go.
    LetNamesGo,
    /// All that wait now are let go.
    LetAllGo,
}

/// How many events waited when it was looked last: a look comes after all that the one before it saw has been read.
#[derive(Debug)]
pub(super) struct Backlog {
    last: Option<u64>,
    lets_names_go: bool,
    most: u64,
}

impl Backlog {
    /// For a process that may use this number of bytes of memory.
    pub fn within(memory_bytes: u64) -> Self {
        let most = memory_bytes / SHARE / EVENT_BYTES;
        Self {
            last: None,
            lets_names_go: false,
            most: most.clamp(QUEUED_MAX, QUEUED_MOST),
        }
    }

    /// Whether names are let go now.
    pub fn lets_names_go(&self) -> bool {
        self.lets_names_go
    }

    /// What to do when `queued` events wait. What an earlier process left is read in any case, and what becomes less as well.
    pub fn judge(&mut self, queued: u64) -> Verdict {
        // Where the kernel does not say, nothing can be judged.
        if queued == u64::MAX {
            return Verdict::Follow;
        }
        let before = self.last.replace(queued);
        let grows = before.is_some_and(|before| queued >= before);
        if queued > self.most && self.lets_names_go && grows {
            return Verdict::LetAllGo;
        }
        match queued {
            ..=QUEUED_FEW => self.lets_names_go = false,
            _ => self.lets_names_go |= queued > QUEUED_MAX && grows,
        }
        match self.lets_names_go {
            true => Verdict::LetNamesGo,
            false => Verdict::Follow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_grows_beyond_its_bound_costs_names_and_one_that_is_left_over_nothing() {
        let mut backlog = Backlog::within(1 << 40);
        let verdicts = [
            (3 * QUEUED_MAX, Verdict::Follow, "left by an earlier process"),
            (2 * QUEUED_MAX, Verdict::Follow, "it is being read"),
            (2 * QUEUED_MAX, Verdict::LetNamesGo, "it does not become less"),
            (15 * QUEUED_MAX, Verdict::LetNamesGo, "there is memory"),
            (QUEUED_MAX, Verdict::LetNamesGo, "still much"),
            (u64::MAX, Verdict::Follow, "the kernel did not say"),
            (QUEUED_FEW, Verdict::Follow, "caught up"),
            (QUEUED_MAX, Verdict::Follow, "no more than may wait"),
            (QUEUED_MAX + 1, Verdict::LetNamesGo, "more"),
        ];
        for (queued, verdict, why) in verdicts {
            assert_eq!(backlog.judge(queued), verdict, "{why}");
        }
    }

    #[test]
    fn uses_are_let_go_only_when_the_memory_does_not_hold_them_and_reading_alone_does_not_keep_up() {
        let mut backlog = Backlog::within(2 * QUEUED_MAX * SHARE * EVENT_BYTES);
        assert_eq!(backlog.judge(3 * QUEUED_MAX), Verdict::Follow);
        assert_eq!(backlog.judge(4 * QUEUED_MAX), Verdict::LetNamesGo, "not at once");
        assert_eq!(
            backlog.judge(3 * QUEUED_MAX),
            Verdict::LetNamesGo,
            "it becomes less"
        );
        assert_eq!(backlog.judge(3 * QUEUED_MAX), Verdict::LetAllGo);
        let mut small = Backlog::within(0);
        for expected in [Verdict::Follow, Verdict::LetNamesGo, Verdict::LetAllGo] {
            assert_eq!(small.judge(2 * QUEUED_MAX), expected);
        }
    }
}
