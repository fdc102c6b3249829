//! Which events are uses of a file? Pure.
//!
//! Reading, writing, executing and mapping are; changing metadata is not. But the kernel reports `touch -a` as a
//! read (`fsnotify_change`: an access time set alone), and `touch` opens the file to write. So, in the words of [`Acts`]:
//!
//! | events of one process on one file | what it was |
//! |---|---|
//! | with WRITE, EXEC, CLOSE_READER or HELD | a use: written, executed, opened for reading or mapping, or held by a client |
//! | OPEN without a close | a use: a process has it open |
//! | OPEN READ CLOSE_WRITER | a use, unless the change time has just moved and equals the access time exactly: then the access time was set, nothing was read |
//! | OPEN CLOSE_WRITER | a use (a mapping leaves no other trace), unless a metadata change explains it |
//! | READ alone | a use: a descriptor opened earlier was read, as NFS servers do |
//!
//! A process that the source does not know may be another one each time. Every event is recorded as a use at once; only when it
//! is proven to have been a metadata change, and nothing else touched the file meanwhile, the recording is taken back. Doubt
//! counts as use.

use super::event::{Acts, By};
use purge_model::{LastUse, Seconds};
use purge_sys::handle::Handle;
use purge_sys::stat::FineTimes;

/// Any of these proves a use.
const PROOF: Acts = Acts::WRITE
    .and(Acts::EXEC)
    .and(Acts::CLOSE_READER)
    .and(Acts::HELD);

/// Whether these acts alone prove a use.
#[inline]
pub fn is_proof(acts: Acts) -> bool {
    acts.any(PROOF)
}

/// Events that may have been a metadata change only.
#[derive(Debug, Clone, Copy)]
pub struct Suspect {
    /// All acts so far.
    pub acts: Acts,
    /// Who.
    pub by: By,
    /// More than one process may have been there.
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
    pub fn add(&mut self, acts: Acts, by: By, at: Seconds) {
        self.acts |= acts;
        self.several |= by.may_differ(self.by);
        self.recorded = self.recorded.max(at);
    }

    /// Whether the file can be asked already: it was opened to write and closed again.
    pub fn is_complete(&self) -> bool {
        self.acts.all(Acts::OPEN.and(Acts::CLOSE_WRITER))
    }

    /// Whether this was proven to be no use.
    pub fn is_metadata_only(&self, evidence: Evidence) -> bool {
        if self.several || !self.is_complete() || is_proof(self.acts) || !evidence.ctime_moved {
            return false;
        }
        let FineTimes {
            atime_is_ctime,
            mtime_is_ctime,
        } = evidence.fine;
        if self.acts.any(Acts::READ) {
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

    const TOUCH_A: Acts = OPEN_WRITE.and(Acts::READ);
    const OPEN_WRITE: Acts = Acts::OPEN.and(Acts::CLOSE_WRITER);

    fn suspect(acts: Acts) -> Suspect {
        Suspect {
            acts,
            by: By::process(1),
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
        assert!(!suspect(Acts::OPEN).is_metadata_only(evidence(true, true, false, true)));
        let mut two = suspect(TOUCH_A);
        two.add(Acts::READ, By::process(2), Seconds(9));
        assert!(!two.is_metadata_only(evidence(true, true, false, false)));
        assert!(!suspect(TOUCH_A | Acts::CLOSE_READER).is_metadata_only(evidence(true, true, false, false)));
        // A read by a long-lived descriptor, as NFS servers have.
        assert!(!suspect(Acts::READ).is_metadata_only(evidence(true, true, false, false)));
    }
    #[test]
    fn two_reports_of_unknown_processes_may_be_of_two() {
        let of = |by, more| {
            let mut one = Suspect {
                by,
                ..suspect(OPEN_WRITE)
            };
            one.add(Acts::READ, more, Seconds(9));
            one.is_metadata_only(evidence(true, true, false, false))
        };
        assert!(of(By::process(1), By::process(1)));
        assert!(!of(By::UNKNOWN, By::UNKNOWN));
        assert!(!of(By::process(1), By::UNKNOWN));
    }
}
