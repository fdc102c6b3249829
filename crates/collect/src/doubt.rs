//! Which events are uses of a file? Pure.
//!
//! Reading, writing, executing and mapping are; changing metadata is not. But the kernel reports `touch -a` as a
//! read (`fsnotify_change`: an access time set alone), and `touch` opens the file to write. So, in the words of [`Acts`]:
//!
//! | events of one process on one file | what it was |
//! |---|---|
//! | with WRITE, EXEC, CLOSE_READER or HELD | a use: written, executed, opened for reading or mapping, or held by a client |
//! | OPEN without a close | a use: a process has it open |
//! | OPEN READ CLOSE_WRITER | a use, unless `touch -a` explains it: the change time has just moved, it equals the access time exactly, and no event told of anything else that moves it |
//! | OPEN CLOSE_WRITER | a use (a mapping leaves no other trace), unless `touch` explains it: the same process, and no other, changed metadata, and both times were set |
//! | READ alone | a use: a descriptor opened earlier was read, as NFS servers do |
//!
//! That metadata changed explains nothing by itself: `chmod`, `setxattr` and `link` tell the same to the kernel, and a user who may do
//! that need not be the one who uses the file. Only times that were *set* do, for a process that uses a file does not also set its
//! times (one that does is taken for `touch`).
//!
//! A process that the source does not know may be another one each time. Every event is recorded as a use at once; only when it
//! is proven to have been a metadata change, and nothing else touched the file meanwhile, the recording is taken back. Doubt
//! counts as use.

use super::changes::ChangedBy;
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
    /// The modification time is earlier than the index knew: writing never does that.
    pub mtime_set_back: bool,
    /// Whose changes of metadata events told of.
    pub changed_by: ChangedBy,
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
            // The kernel's clock ticks slowly: a read and a chmod within one tick leave equal times as well.
            return atime_is_ctime && !mtime_is_ctime && evidence.changed_by == ChangedBy::Unchanged;
        }
        let set_to_now = atime_is_ctime && mtime_is_ctime;
        evidence.changed_by == ChangedBy::Only(self.by) && (set_to_now || evidence.mtime_set_back)
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

    fn evidence(ctime_moved: bool, atime_is_ctime: bool, mtime_is_ctime: bool, by: ChangedBy) -> Evidence {
        Evidence {
            ctime_moved,
            fine: FineTimes {
                atime_is_ctime,
                mtime_is_ctime,
            },
            mtime_set_back: false,
            changed_by: by,
        }
    }

    const UNCHANGED: ChangedBy = ChangedBy::Unchanged;
    const ITSELF: ChangedBy = ChangedBy::Only(By::process(1));
    const ANOTHER: ChangedBy = ChangedBy::Only(By::process(2));

    #[test]
    fn touch_is_no_use() {
        assert!(suspect(TOUCH_A).is_metadata_only(evidence(true, true, false, UNCHANGED)));
        assert!(suspect(OPEN_WRITE).is_metadata_only(evidence(true, true, true, ITSELF)));
        let set_back = Evidence {
            mtime_set_back: true,
            ..evidence(true, false, false, ITSELF)
        };
        assert!(suspect(OPEN_WRITE).is_metadata_only(set_back));
    }

    #[test]
    fn a_change_of_metadata_does_not_explain_a_mapping() {
        // chmod, setxattr or link of the process itself, or of another; before or after the access time moved.
        for by in [UNCHANGED, ITSELF, ANOTHER, ChangedBy::Others] {
            for atime_is_ctime in [false, true] {
                let found = evidence(true, atime_is_ctime, false, by);
                assert!(!suspect(OPEN_WRITE).is_metadata_only(found), "{found:?}");
            }
        }
        // Another one set the times, or a mapping was made and written within one tick of the clock.
        for by in [UNCHANGED, ANOTHER, ChangedBy::Others] {
            for mtime_set_back in [false, true] {
                let found = Evidence {
                    mtime_set_back,
                    ..evidence(true, true, true, by)
                };
                assert!(!suspect(OPEN_WRITE).is_metadata_only(found), "{found:?}");
            }
        }
        // Read, and changed within one tick.
        for by in [ITSELF, ANOTHER, ChangedBy::Others] {
            assert!(!suspect(TOUCH_A).is_metadata_only(evidence(true, true, false, by)));
        }
    }

    #[test]
    fn doubt_counts_as_use() {
        // Read through a descriptor that could write: nothing of the times moved.
        assert!(!suspect(TOUCH_A).is_metadata_only(evidence(false, true, false, UNCHANGED)));
        // Mapped through one, without a write; and with one.
        assert!(!suspect(OPEN_WRITE).is_metadata_only(evidence(false, false, false, UNCHANGED)));
        assert!(!suspect(OPEN_WRITE).is_metadata_only(evidence(true, false, true, UNCHANGED)));
        // Still open; another process there as well; a proof among the events.
        assert!(!suspect(Acts::OPEN).is_metadata_only(evidence(true, true, true, ITSELF)));
        let mut two = suspect(TOUCH_A);
        two.add(Acts::READ, By::process(2), Seconds(9));
        assert!(!two.is_metadata_only(evidence(true, true, false, UNCHANGED)));
        let proven = suspect(TOUCH_A | Acts::CLOSE_READER);
        assert!(!proven.is_metadata_only(evidence(true, true, false, UNCHANGED)));
        // A read by a long-lived descriptor, as NFS servers have.
        assert!(!suspect(Acts::READ).is_metadata_only(evidence(true, true, false, UNCHANGED)));
    }

    #[test]
    fn two_reports_of_unknown_processes_may_be_of_two() {
        let of = |by, more| {
            let mut one = Suspect {
                by,
                ..suspect(OPEN_WRITE)
            };
            one.add(Acts::READ, more, Seconds(9));
            one.is_metadata_only(evidence(true, true, false, UNCHANGED))
        };
        assert!(of(By::process(1), By::process(1)));
        assert!(!of(By::UNKNOWN, By::UNKNOWN));
        assert!(!of(By::process(1), By::UNKNOWN));
    }
}
