//! The one door through which a last use enters index and journal.
//!
//! ```text
//!   a source's accesses ---> batch          clock = time of the access; what is news is journalled
//!   a precision window ----> hidden_until   clock = the window's end, before anything is hidden
//!   doubt, gaps, the clock -> take_back, used_in_gap, none_later_than
//! ```
//! What looks at a file gives it its first clock together with the rest of its entry, and counts a time that lies ahead as a use then
//! (`entries`, `namespace`, the scan): such a look can be repeated. What is replayed at a start was journalled already. From then on
//! a clock moves here alone. A use of a file that the index does not know is not lost either: it is remembered for the scan that may find
//! the file, or noted of what lies in the trash.
//!
//! What may never happen: a clock that moves and is in no journal while the store does not have it. Nothing waits for the disk
//! while the index is held.

use std::sync::atomic::Ordering::Relaxed;

use super::Watched;
use super::event::Access;
use super::trashed::Trashed;
use purge_index::Uses;
use purge_model::{Inode, LastUse, Seconds, Source};

/// Records uses of the files of one volume.
#[derive(Debug, Clone, Copy)]
pub struct Recorder<'a> {
    watched: &'a Watched,
}

impl Watched {
    /// Where uses of its files are recorded.
    pub fn recorder(&self) -> Recorder<'_> {
        Recorder { watched: self }
    }
}

/// Why uses are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The source's queue overflowed.
    Overflow,
    /// Too many events waited, and were discarded.
    Backlog,
}

impl Loss {
    fn word(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Backlog => "backlog",
        }
    }
}

impl Recorder<'_> {
    /// Records the accesses that `fill` passes to its [`Batch`]. The index is held for that long. `news` is working memory: the files whose
    /// clocks moved.
    pub fn batch(self, news: &mut Vec<Inode>, fill: impl FnOnce(&mut Batch<'_>)) {
        let Watched {
            index,
            journal,
            counters,
            trashed,
            ..
        } = self.watched;
        news.clear();
        let (latest, folded, lost) = {
            let mut index = index.write();
            let unknown_may_be_found = index.remembers_unknown();
            let mut batch = Batch {
                uses: index.uses_in_haste(),
                trashed,
                unknown_may_be_found,
                news,
                latest: Seconds::MIN,
                folded: 0,
                lost: 0,
            };
            fill(&mut batch);
            (batch.latest, batch.folded, batch.lost)
        };
        if lost > 0 {
            self.lost(lost, latest, Loss::Overflow);
        }
        // One moment for all of a batch, the latest: late, never early.
        journal.uses(latest, news);
        counters.folded.fetch_add(folded, Relaxed);
    }

    /// These files may be used unseen from now on: they count as used at `until`. Once this returned, the journal says so.
    pub fn hidden_until(self, until: Seconds, files: &[Inode]) {
        {
            let mut index = self.watched.index.write();
            let mut uses = index.uses();
            for ino in files {
                uses.record(*ino, until);
            }
        }
        // Should the store be lost, the journal still knows what the hidden uses will have been.
        self.watched.journal.uses(until, files);
    }

    /// Nothing was told of these files until `at`: they may have been used until then. Once this returned, the journal says so.
    pub fn unseen_until(self, at: Seconds, files: &[Inode]) {
        self.hidden_until(at, files);
    }

    /// What another process hid until `end` may have been used until `now`.
    pub fn move_window(self, end: Seconds, now: Seconds) {
        self.watched.index.write().move_uses(end, now);
    }

    /// A use that was recorded at `recorded` was none: the clock says again what it said before, unless the file was used since.
    pub fn take_back(self, ino: Inode, recorded: Seconds, before: LastUse) {
        let mut index = self.watched.index.write();
        index.take_back_use(ino, recorded, before);
        drop(index);
        self.watched.counters.taken_back.fetch_add(1, Relaxed);
    }

    /// The files of which `may_be` says so count as used at `at`, as in a gap. The caller makes it durable: until then the gap itself must
    /// count for every file.
    pub fn used_in_gap(self, at: Seconds, may_be: impl Fn(Inode) -> bool) {
        self.watched.index.write().use_all_but(at, may_be);
    }

    /// No clock says later than `now` any more: the agent's time was set back.
    pub fn none_later_than(self, now: Seconds) {
        // It speaks in the time before; the next pass says it again.
        self.watched.counters.seen_until.store(0, Relaxed);
        self.watched.index.write().clamp_uses(now);
    }

    /// This number of events, at least, was lost by `at`: what they told is unknown.
    pub fn lost(self, events: u64, at: Seconds, why: Loss) {
        self.watched.counters.lost.fetch_add(events, Relaxed);
        self.watched.journal.gap(at, why.word());
    }

    /// Everything that was used until this moment is in index and journal.
    pub fn seen(self, until: Seconds) {
        self.watched.counters.seen_until.store(until.0, Relaxed);
        self.watched.journal.seen(until);
    }
}

/// Accesses that are recorded together.
#[derive(Debug)]
pub struct Batch<'a> {
    uses: Uses<'a>,
    trashed: &'a Trashed,
    unknown_may_be_found: bool,
    news: &'a mut Vec<Inode>,
    latest: Seconds,
    folded: u64,
    lost: u64,
}

impl Batch<'_> {
    /// Records one. Returns the last use before, if the file is known.
    #[inline]
    pub fn record(&mut self, access: Access) -> Option<LastUse> {
        let Access { inode, at, .. } = access;
        self.latest = self.latest.max(at);
        let before = self.uses.record(inode, at);
        // Also what the index knows: after a kill it may still have what went to the trash shortly before.
        let was_trashed = self.trashed.note(inode);
        let is_news = was_trashed
            || match before {
                Some(before) => before.at < at || (before.at == at && before.source != Source::Observed),
                None => self.unknown_may_be_found,
            };
        if is_news {
            self.news.push(inode);
        } else if before.is_some() {
            self.folded += 1;
        }
        before
    }

    /// Events were dropped by `at`.
    pub fn lost(&mut self, at: Seconds) {
        self.latest = self.latest.max(at);
        self.lost = self.lost.saturating_add(1);
    }

    /// Whose a file is.
    pub fn owner(&self, ino: Inode) -> Option<u32> {
        self.uses.get(ino).map(|(attributes, _)| attributes.uid)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::event::{Acts, By};
    use purge_index::journal::{Entry, Identity, Journal};
    use purge_index::testing::{empty, found};
    use purge_sys::stat::Device;

    const ID: Identity = Identity {
        magic: 1,
        root: 2,
        birth: Seconds(3),
    };

    const DEVICE: Device = Device { major: 0, minor: 1 };

    fn watched(dir: &Path) -> Watched {
        let (_, mut index) = empty();
        index.upsert(found(70, 1, b"a")).unwrap();
        Watched {
            path: dir.into(),
            device: DEVICE,
            own: Vec::new(),
            trash: 0.into(),
            tree: None,
            reads: crate::source::Reads::Seen,
            opens_what_is_used: false,
            knows_own: true,
            asker: crate::fuse::asking::Asker::default(),
            is_used_for_others: false,
            trashed: Trashed::default(),
            index: index.into(),
            projects: crate::projects::Projects::new(false, DEVICE),
            touched: Default::default(),
            counting: Default::default(),
            journal: Journal::open(dir, ID).unwrap().0,
            locks: Default::default(),
            mounted: Default::default(),
            unlisted: Default::default(),
            altered: Default::default(),
            doubtful_links: Default::default(),
            counters: Default::default(),
        }
    }

    fn journalled(dir: &Path) -> Vec<Entry> {
        Journal::open(dir, ID).unwrap().1.uses
    }

    fn use_of(inode: Inode, at: u32) -> Access {
        Access {
            inode,
            at: Seconds(at),
            by: By::UNKNOWN,
            what: Acts::HELD,
        }
    }

    #[test]
    fn what_moves_a_clock_or_only_makes_it_sure_is_journalled_and_what_repeats_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let watched = watched(dir.path());
        let mut news = Vec::new();
        // Believed to be used at 5: an access at 5 makes it sure, and must survive the loss of the store as well.
        for at in [5, 5, 9] {
            watched.recorder().batch(&mut news, |batch| {
                batch.record(use_of(70, at)).unwrap();
            });
        }
        assert_eq!(watched.counters.folded.load(Relaxed), 1);
        assert_eq!(watched.index.read().last_use(70).unwrap().at, Seconds(9));
        let uses = |at| Entry::Uses(Seconds(at), vec![70]);
        assert_eq!(journalled(dir.path()), [uses(5), uses(9)]);
    }

    #[test]
    fn unknown_files_are_news_only_while_a_scan_may_find_them_or_they_lie_in_the_trash() {
        let dir = tempfile::tempdir().unwrap();
        let watched = watched(dir.path());
        watched.trashed.enter(8, false);
        let mut news = Vec::new();
        let mut record = |ino| {
            watched.recorder().batch(&mut news, |batch| {
                assert_eq!(batch.record(use_of(ino, 9)), None);
            });
            news.clone()
        };
        assert_eq!(record(7), []);
        assert_eq!(record(8), [8]);
        watched.index.write().await_scan();
        assert_eq!(record(7), [7]);
    }

    #[test]
    fn a_batch_says_one_moment_the_latest_and_a_loss_is_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let watched = watched(dir.path());
        watched.recorder().batch(&mut Vec::new(), |batch| {
            batch.record(use_of(70, 7));
            batch.lost(Seconds(8));
        });
        assert_eq!(watched.counters.lost.load(Relaxed), 1);
        let entries = journalled(dir.path());
        assert_eq!(entries.len(), 2);
        assert!(matches!(entries[0], Entry::Gap(Seconds(8), _)));
        assert_eq!(entries[1], Entry::Uses(Seconds(8), vec![70]));
    }

    #[test]
    fn what_a_window_hides_is_journalled_whether_the_clock_says_it_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let watched = watched(dir.path());
        watched.recorder().hidden_until(Seconds(99), &[70, 71]);
        assert_eq!(watched.index.read().last_use(70).unwrap().at, Seconds(99));
        assert_eq!(journalled(dir.path()), [Entry::Uses(Seconds(99), vec![70, 71])]);
    }

    /// Nothing can be marked.
    #[derive(Debug)]
    struct NoMarks;

    impl crate::tree::Marking for NoMarks {
        fn mark_dir(&self, _: Inode, _: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        fn mark_file(
            &self,
            ino: Inode,
            dir: std::os::fd::BorrowedFd<'_>,
            _: &std::ffi::CStr,
        ) -> std::io::Result<()> {
            self.mark_dir(ino, dir)
        }

        fn marks_max(&self) -> Option<u64> {
            None
        }

        fn limit(&self) -> &'static str {
            "none"
        }
    }

    /// The journal has it: what was let go cannot be asked again.
    #[test]
    fn what_an_earlier_way_did_not_watch_counts_as_used() {
        let dir = tempfile::tempdir().unwrap();
        let watched = watched(dir.path());
        let mut linked = found(71, 1, b"b");
        linked.stat.links = 2;
        watched.index.write().upsert(linked).unwrap();
        let root = watched
            .index
            .read()
            .dirs()
            .get(purge_index::DirId::ROOT)
            .unwrap()
            .ino;
        let tree = |marked: &[(Inode, u64)]| {
            crate::tree::Tree::new(
                Box::new(NoMarks),
                (std::sync::Arc::default(), false),
                marked.iter().copied(),
            )
        };
        let before = watched.index.read().last_use(70).unwrap().at;
        watched
            .use_what_was_unwatched(&tree(&[(root, 0), (71, 0)]))
            .unwrap();
        assert_eq!(watched.index.read().last_use(71).unwrap().at, before);
        watched.use_what_was_unwatched(&tree(&[(root, 0)])).unwrap();
        assert_eq!(watched.index.read().last_use(70).unwrap().at, before);
        assert!(
            watched.index.read().last_use(71).unwrap().at > before,
            "its other name may have been used"
        );
        watched.use_what_was_unwatched(&tree(&[])).unwrap();
        assert!(watched.index.read().last_use(70).unwrap().at > before);
        assert_eq!(journalled(dir.path()).len(), 2);
    }
}
