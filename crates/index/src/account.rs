//! Sums by owner, group, project and directory, kept up with every change of a file. Pure.
//!
//! ```text
//!   a file changes --> Account --> ledger           files, bytes, space: true at once
//!                         |                          days, ages: as of the moment at which the ledger was begun
//!                         `------> the next ledger   being counted, page by page, as of a later moment
//! ```
//! Files and bytes change only when a file does. Days and ages change by themselves as time goes by, each file's at
//! another second, so they are kept as of one moment, and everything is counted again now and then as of a later one:
//! a few pages at a time, while changes go on. A change counts in the next ledger as well if its page lies before the
//! cursor; if not, the count will meet it.

use rustc_hash::FxHashMap;

use super::codec::{Attributes, DirId};
use super::sums::{DirSums, Share, Sums, bucket_of};
use purge_model::{Kind, LastUse, Seconds};

const DAY: u64 = 86_400;
/// A time that lies ahead of the count by less may have been set since.
const AHEAD_MIN: u64 = 3600;

/// All sums, as of one moment.
#[derive(Debug, Default)]
pub struct Ledger {
    as_of: Seconds,
    gap_end: Option<Seconds>,
    users: FxHashMap<u32, Sums>,
    groups: FxHashMap<u32, Sums>,
    projects: FxHashMap<u32, Sums>,
    /// By directory: what lies in it itself.
    dirs: Vec<DirSums>,
    /// Files with a time that lies ahead.
    ahead: u64,
}

impl Ledger {
    /// Files whose modification, change or birth lies more than an hour ahead of the last count; none before the first.
    pub fn ahead(&self) -> u64 {
        match self.as_of == Seconds::MIN {
            true => 0,
            false => self.ahead,
        }
    }

    fn is_ahead(&self, a: &Attributes) -> bool {
        a.mtime.max(a.ctime).max(a.birth) > self.as_of.plus(AHEAD_MIN)
    }

    /// The moment of its days and ages; [`Seconds::MIN`] when they were not counted yet.
    pub fn as_of(&self) -> Seconds {
        self.as_of
    }

    /// The end of the unobserved stretch that counts as a use of every file, as the ages know it.
    pub fn gap_end(&self) -> Option<Seconds> {
        self.gap_end
    }

    /// By uid.
    pub fn users(&self) -> &FxHashMap<u32, Sums> {
        &self.users
    }

    /// By gid.
    pub fn groups(&self) -> &FxHashMap<u32, Sums> {
        &self.groups
    }

    /// By project id.
    pub fn projects(&self) -> &FxHashMap<u32, Sums> {
        &self.projects
    }

    /// What lies in one directory itself.
    pub fn directory(&self, id: DirId) -> Option<&DirSums> {
        self.dirs.get(id.index())
    }

    /// By directory: what lies in it itself, not what lies below.
    pub fn directories(&self) -> impl Iterator<Item = (DirId, &DirSums)> {
        let used = self.dirs.iter().enumerate().filter(|(_, sums)| !sums.is_empty());
        used.map(|(i, sums)| (DirId(u32::try_from(i).unwrap_or(u32::MAX)), sums))
    }

    fn share(&self, a: &Attributes, access: Seconds) -> Share {
        let last = [access, a.mtime, a.ctime, a.birth]
            .into_iter()
            .chain(self.gap_end)
            .fold(Seconds::MIN, Seconds::max);
        let days = a.birth.age_at(self.as_of) / DAY + 1;
        Share {
            bytes: a.size,
            allocated: a.allocated,
            byte_days: u128::from(a.size) * u128::from(days),
            last,
            bucket: bucket_of(last.age_at(self.as_of)),
        }
    }

    pub(super) fn add(&mut self, a: &Attributes, access: LastUse) {
        if a.kind != Kind::File {
            return;
        }
        let share = self.share(a, access.at);
        self.ahead = self.ahead.saturating_add(self.is_ahead(a).into());
        self.users.entry(a.uid).or_default().add(&share);
        self.groups.entry(a.gid).or_default().add(&share);
        self.projects.entry(a.project).or_default().add(&share);
        self.add_to_directory(a.parent, &share);
    }

    fn add_to_directory(&mut self, id: DirId, share: &Share) {
        let place = id.index();
        if self.dirs.len() <= place {
            let more = place.saturating_add(1).saturating_sub(self.dirs.len());
            // Not twice as much: there may be millions.
            if self.dirs.capacity() <= place {
                self.dirs.reserve_exact(more.max(self.dirs.len() / 8));
            }
            self.dirs.resize_with(place.saturating_add(1), DirSums::default);
        }
        if let Some(dir) = self.dirs.get_mut(place) {
            dir.add(share);
        }
    }

    /// To add many files, one after another.
    pub(super) fn counting(&mut self) -> Counting<'_> {
        Counting {
            ledger: self,
            owner: Owner::default(),
            sums: Sums::default(),
        }
    }

    /// Adds what another ledger of the same moment has counted of other files.
    fn merge(&mut self, other: Self) {
        let maps = [
            (&mut self.users, other.users),
            (&mut self.groups, other.groups),
            (&mut self.projects, other.projects),
        ];
        for (map, other) in maps {
            for (id, sums) in other {
                map.entry(id).or_default().merge(&sums);
            }
        }
        self.ahead = self.ahead.saturating_add(other.ahead);
        if self.dirs.len() < other.dirs.len() {
            self.dirs.resize_with(other.dirs.len(), DirSums::default);
        }
        for (sums, other) in self.dirs.iter_mut().zip(other.dirs) {
            sums.merge(other);
        }
    }

    fn subtract(&mut self, a: &Attributes, access: LastUse) {
        if a.kind != Kind::File {
            return;
        }
        let share = self.share(a, access.at);
        self.ahead = self.ahead.saturating_sub(self.is_ahead(a).into());
        let maps = [
            (&mut self.users, a.uid),
            (&mut self.groups, a.gid),
            (&mut self.projects, a.project),
        ];
        for (map, id) in maps {
            if let Some(sums) = map.get_mut(&id) {
                sums.subtract(&share);
                if sums.files == 0 {
                    map.remove(&id);
                }
            }
        }
        if let Some(dir) = self.dirs.get_mut(a.parent.index()) {
            dir.subtract(&share);
        }
    }

    /// The access clock of a file moved: only what is known of ages changes.
    fn moved(&mut self, a: &Attributes, before: Seconds, after: Seconds) {
        if a.kind != Kind::File {
            return;
        }
        let (before, after) = (self.share(a, before), self.share(a, after));
        let maps = [
            (&mut self.users, a.uid),
            (&mut self.groups, a.gid),
            (&mut self.projects, a.project),
        ];
        for (map, id) in maps {
            let sums = map.entry(id).or_default();
            sums.subtract(&before);
            sums.add(&after);
        }
        if let Some(dir) = self.dirs.get_mut(a.parent.index()) {
            dir.subtract(&before);
            dir.add(&after);
        }
    }

    /// Each file that was used since then is in the first bucket, and stays there when it is used again.
    fn young_from(&self) -> Seconds {
        self.as_of.minus(DAY.saturating_sub(1))
    }
}

/// Files that are counted one after another. Neighbours mostly have the same owner: they are summed up here, and added to the
/// ledger when a file of another owner comes, or when this goes.
pub(super) struct Counting<'a> {
    ledger: &'a mut Ledger,
    owner: Owner,
    sums: Sums,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
    project: u32,
}

impl Counting<'_> {
    pub fn add(&mut self, a: &Attributes, access: LastUse) {
        if a.kind != Kind::File {
            return;
        }
        let owner = Owner {
            uid: a.uid,
            gid: a.gid,
            project: a.project,
        };
        if owner != self.owner {
            self.settle();
            self.owner = owner;
        }
        let share = self.ledger.share(a, access.at);
        let is_ahead = self.ledger.is_ahead(a);
        self.ledger.ahead = self.ledger.ahead.saturating_add(is_ahead.into());
        self.sums.add(&share);
        self.ledger.add_to_directory(a.parent, &share);
    }

    fn settle(&mut self) {
        let sums = std::mem::take(&mut self.sums);
        if sums.files > 0 {
            let Owner { uid, gid, project } = self.owner;
            self.ledger.users.entry(uid).or_default().merge(&sums);
            self.ledger.groups.entry(gid).or_default().merge(&sums);
            self.ledger.projects.entry(project).or_default().merge(&sums);
        }
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

/// The ledger that answers, and the one that is being counted.
#[derive(Debug, Default)]
pub(super) struct Account {
    ledger: Ledger,
    next: Option<Next>,
}

#[derive(Debug)]
struct Next {
    ledger: Ledger,
    /// Pages before this are counted.
    cursor: usize,
}

/// A file as it was or is: what is known of it, and its access clock.
pub(super) type Known<'a> = (&'a Attributes, LastUse);

impl Account {
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What was loaded: it is in no ledger yet. All days and ages are as of [`Seconds::MIN`] still.
    pub fn counted(&mut self, loaded: Ledger) {
        self.ledger.merge(loaded);
    }

    /// A file of the page in `slot` came, went or changed.
    pub fn change(&mut self, slot: u32, old: Option<Known<'_>>, new: Option<Known<'_>>) {
        for ledger in self.ledgers_of(slot) {
            if let Some((a, access)) = old {
                ledger.subtract(a, access);
            }
            if let Some((a, access)) = new {
                ledger.add(a, access);
            }
        }
    }

    /// Whether no sum changes when the access clock of a file of the page in `slot` moves so. This is where every event comes by:
    /// nearly always it is one compare.
    #[inline]
    pub fn stays(&mut self, slot: u32, before: Seconds, after: Seconds) -> bool {
        self.ledgers_of(slot).all(|l| before.min(after) >= l.young_from())
    }

    /// The access clock of a file of the page in `slot` moved.
    pub fn used(&mut self, slot: u32, a: &Attributes, before: Seconds, after: Seconds) {
        for ledger in self.ledgers_of(slot) {
            ledger.moved(a, before, after);
        }
    }

    fn ledgers_of(&mut self, slot: u32) -> impl Iterator<Item = &mut Ledger> {
        let next = self.next.as_mut().filter(|n| (slot as usize) < n.cursor);
        std::iter::once(&mut self.ledger).chain(next.map(|n| &mut n.ledger))
    }

    pub fn begin_recount(&mut self, as_of: Seconds, gap_end: Option<Seconds>) {
        let ledger = Ledger {
            as_of,
            gap_end,
            ..Ledger::default()
        };
        self.next = Some(Next { ledger, cursor: 0 });
    }

    /// The first page that is not counted yet.
    pub fn cursor(&self) -> usize {
        self.next.as_ref().map_or(usize::MAX, |n| n.cursor)
    }

    /// For the files of pages from the cursor on; none when nothing is being counted.
    pub fn recounting(&mut self) -> Option<Counting<'_>> {
        self.next.as_mut().map(|next| next.ledger.counting())
    }

    /// Pages before `end` are counted. With the last one the next ledger takes over. True when nothing is left to count.
    pub fn recounted_to(&mut self, end: usize, last: bool) -> bool {
        if let Some(next) = &mut self.next {
            next.cursor = end;
        }
        if (last || self.next.is_none())
            && let Some(next) = self.next.take()
        {
            self.note_drift(&next.ledger);
            self.ledger = next.ledger;
        }
        self.next.is_none()
    }

    /// The sums that were kept up and those that were counted are the same, or something is wrong with the former.
    fn note_drift(&self, counted: &Ledger) {
        let uids = self.ledger.users.keys().chain(counted.users.keys());
        for uid in uids {
            let sums = |l: &Ledger| {
                let of = |s: &Sums| (s.files, s.bytes, s.allocated);
                l.users.get(uid).map(of).unwrap_or_default()
            };
            let (kept, counted) = (sums(&self.ledger), sums(counted));
            if kept != counted {
                tracing::error!(
                    uid,
                    kept_files = kept.0,
                    kept_bytes = kept.1,
                    counted_files = counted.0,
                    counted_bytes = counted.1,
                    "the sums of an owner were wrong, and are right again"
                );
                debug_assert!(false, "the sums of uid {uid} were wrong");
            }
        }
    }
}
