//! When more events wait in the kernel than may: they lie in its memory, which is the host's. Pure.

/// So many events may wait: 100 to 200 MB of the kernel's memory.
pub const QUEUED_MAX: u64 = 1 << 20;

/// How many events waited when it was looked last: a look comes after all that the one before it saw has been read.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    last: Option<u64>,
}

impl Backlog {
    /// Whether so many are too many. What an earlier process left is read in any case, and what becomes less as well.
    pub fn is_too_much(&mut self, queued: u64) -> bool {
        let before = self.last.replace(queued);
        // Where the kernel does not say, nothing can be judged.
        queued > QUEUED_MAX && queued != u64::MAX && before.is_some_and(|before| queued >= before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_grows_beyond_its_bound_is_too_much_and_one_that_is_left_over_is_not() {
        let mut backlog = Backlog::default();
        assert!(!backlog.is_too_much(3 * QUEUED_MAX), "left by an earlier process");
        assert!(!backlog.is_too_much(2 * QUEUED_MAX), "it is being read");
        assert!(backlog.is_too_much(2 * QUEUED_MAX));
        assert!(!backlog.is_too_much(QUEUED_MAX));
        assert!(backlog.is_too_much(QUEUED_MAX + 1));
        assert!(!backlog.is_too_much(u64::MAX), "the kernel did not say");
    }
}
