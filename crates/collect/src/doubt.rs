//! Which events are uses of a file? Pure.
//!
//! Reading, writing, executing and mapping are; changing metadata is not. But the kernel reports `touch -a` as an
//! ACCESS (`fsnotify_change`: an access time set alone), and `touch` opens the file to write. So:
//!
//! | events of one process on one file | what it was |
//! |---|---|
//! | with MODIFY, OPEN_EXEC or CLOSE_NOWRITE | a use: written, executed, or opened for reading or mapping |
//! | OPEN without a close | a use: somebody has it open |
//! | OPEN ACCESS CLOSE_WRITE | a use, unless the change time has just moved and equals the access time exactly: then the access time was set, nothing was read |
//! | OPEN CLOSE_WRITE | a use (a mapping leaves no other trace), unless a metadata change explains it |
//! | ACCESS alone | a use: a descriptor opened earlier was read, as NFS servers do |
//!
//! Every event is recorded as a use at once; only when it is proven to have been a metadata change, and nothing
//! else touched the file meanwhile, the recording is taken back. Doubt counts as use.

use purge_model::{LastUse, Seconds};
use purge_sys::fanotify::mask;
use purge_sys::handle::Handle;
use purge_sys::stat::FineTimes;

/// Any of these proves a use.
const PROOF: u64 = mask::MODIFY | mask::OPEN_EXEC | mask::CLOSE_NOWRITE;

/// Whether these events alone prove a use.
#[inline]
pub fn is_proof(events: u64) -> bool {
    events & PROOF != 0
}

/// Events that may have been a metadata change only.
#[derive(Debug, Clone, Copy)]
pub struct Suspect {
    /// All events so far.
    pub events: u64,
    /// Who.
    pub pid: i32,
    /// More than one process was there.
    pub several: bool,
    /// What the index said before.
    pub before: LastUse,
    /// What it says now.
    pub recorded: Seconds,
    /// The file.
    pub handle: Handle,
    /// In how many settlements it was left undecided.
    pub rounds: u8,
}

/// What a suspect's file shows now.
#[derive(Debug, Clone, Copy)]
pub struct Evidence {
    /// The change time is later than the index knew.
    pub ctime_moved: bool,
    /// How the times relate.
    pub fine: FineTimes,
    /// An ATTRIB event was seen.
    pub attrib_seen: bool,
}

impl Suspect {
    /// Another event of the same file.
    pub fn add(&mut self, events: u64, pid: i32, at: Seconds) {
        self.events |= events;
        self.several |= pid != self.pid;
        self.recorded = self.recorded.max(at);
    }

    /// Whether the file can be asked already: it was opened to write and closed again.
    pub fn is_complete(&self) -> bool {
        const BOTH: u64 = mask::OPEN | mask::CLOSE_WRITE;
        self.events & BOTH == BOTH
    }

    /// Whether this was proven to be no use.
    pub fn is_metadata_only(&self, evidence: Evidence) -> bool {
        if self.several || !self.is_complete() || is_proof(self.events) || !evidence.ctime_moved {
            return false;
        }
        let FineTimes {
            atime_is_ctime,
            mtime_is_ctime,
        } = evidence.fine;
        if self.events & mask::ACCESS != 0 {
            return atime_is_ctime && !mtime_is_ctime;
        }
        // A write through a mapping moves mtime and ctime, but not atime.
        let written = mtime_is_ctime && !atime_is_ctime;
        !written && (atime_is_ctime || evidence.attrib_seen)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use purge_model::Source;

    const TOUCH_A: u64 = mask::OPEN | mask::ACCESS | mask::CLOSE_WRITE;
    const OPEN_WRITE: u64 = mask::OPEN | mask::CLOSE_WRITE;

    fn suspect(events: u64) -> Suspect {
        Suspect {
            events,
            pid: 1,
            several: false,
            before: LastUse {
                at: Seconds(1),
                source: Source::Baseline,
            },
            recorded: Seconds(9),
            handle: Handle::new(1, b"x").unwrap(),
            rounds: 0,
        }
    }

    fn evidence(
        ctime_moved: bool,
        atime_is_ctime: bool,
        mtime_is_ctime: bool,
        attrib_seen: bool,
    ) -> Evidence {
        Evidence {
            ctime_moved,
            fine: FineTimes {
                atime_is_ctime,
                mtime_is_ctime,
            },
            attrib_seen,
        }
    }

    #[test]
    fn touch_is_no_use() {
        assert!(suspect(TOUCH_A).is_metadata_only(evidence(true, true, false, false)));
        assert!(suspect(OPEN_WRITE).is_metadata_only(evidence(true, true, true, true)));
        assert!(suspect(OPEN_WRITE).is_metadata_only(evidence(true, false, false, true)));
    }

    #[test]
    fn doubt_counts_as_use() {
        // Read through a descriptor that could write: nothing of the times moved.
        assert!(!suspect(TOUCH_A).is_metadata_only(evidence(false, true, false, false)));
        // Mapped through one, without a write; and with one.
        assert!(!suspect(OPEN_WRITE).is_metadata_only(evidence(false, false, false, false)));
        assert!(!suspect(OPEN_WRITE).is_metadata_only(evidence(true, false, true, false)));
        // Still open; another process there as well; a proof among the events.
        assert!(!suspect(mask::OPEN).is_metadata_only(evidence(true, true, false, true)));
        let mut two = suspect(TOUCH_A);
        two.add(mask::ACCESS, 2, Seconds(9));
        assert!(!two.is_metadata_only(evidence(true, true, false, false)));
        assert!(!suspect(TOUCH_A | mask::CLOSE_NOWRITE).is_metadata_only(evidence(true, true, false, false)));
        // A read by a long-lived descriptor, as NFS servers have.
        assert!(!suspect(mask::ACCESS).is_metadata_only(evidence(true, true, false, false)));
    }
}
