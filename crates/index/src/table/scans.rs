//! What a scan must know of the changes beside it, and what is deleted once it is over.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Index;
use super::uses::EARLY_USES_MAX;
use crate::checkpoint::Remembered;
use crate::codec::DirId;
use crate::page::place;
use crate::store::StoreError;
use purge_model::{Inode, Kind};

/// What a running scan must know of the changes beside it.
#[derive(Debug)]
pub(super) struct ScanState {
    pub(super) number: u32,
    /// It walks the whole volume, so it meets every name of a file with several.
    pub(super) whole: bool,
    /// Inodes whose names changed while the scan ran: what it read of them may be stale.
    pub(super) touched: FxHashSet<Inode>,
    /// Inodes whose attributes changed while the scan ran: what it read of them may be older than what is known.
    pub(super) changed: FxHashSet<Inode>,
    /// Directories in which it met names that are not kept.
    pub(super) crowded: FxHashSet<DirId>,
}

impl ScanState {
    /// Whether what the scan read of an inode may be stale.
    pub(super) fn is_doubtful(&self, ino: Inode) -> bool {
        self.touched.contains(&ino) || self.changed.contains(&ino)
    }
}

impl Index {
    /// A scan begins: from now on changes beside it are remembered. `number` tells it from every earlier one; `whole`
    /// says that it walks the whole volume.
    pub fn start_scan(&mut self, number: u32, whole: bool) {
        self.pages.iter_mut().for_each(|p| p.seen = 0);
        self.dirs.keep_ids(true);
        self.awaits_scan = false;
        self.scan = Some(ScanState {
            number,
            whole,
            touched: FxHashSet::default(),
            changed: FxHashSet::default(),
            crowded: FxHashSet::default(),
        });
    }

    /// Whether a scan is running.
    pub fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// Attributes of this inode, known or not, are read because an event told of a change. What a running scan has read of it and not yet
    /// handed over may be older.
    pub fn note_changed(&mut self, ino: Inode) {
        if let Some(scan) = &mut self.scan {
            scan.changed.insert(ino);
        }
    }

    /// Names of this inode, known or not, may have changed: what a running scan has read of them and not yet handed over must be looked at again.
    pub fn note_renamed(&mut self, ino: Inode) {
        if let Some(scan) = &mut self.scan {
            scan.touched.insert(ino);
        }
    }

    /// Whether more files were used during this scan than can be remembered one by one: everything found from now
    /// on must count as used.
    pub fn early_uses_overflowed(&self) -> bool {
        self.early.len() >= EARLY_USES_MAX
    }

    /// Whether an event has told of an inode while the running scan went on.
    pub fn is_touched(&self, ino: Inode) -> bool {
        self.scan.as_ref().is_some_and(|scan| scan.touched.contains(&ino))
    }

    /// The directories that the running scan has not listed yet.
    pub fn unlisted(&self) -> Vec<DirId> {
        self.scan
            .as_ref()
            .map(|s| self.dirs.not_listed_by(s.number))
            .unwrap_or_default()
    }

    /// Files of which events told while the scan of the whole volume ran: it has not forgotten those of their names that are no more. An inode
    /// may also be known as a file that was removed before the scan began, and be a new file's that was removed while it ran.
    pub fn links_not_settled(&self) -> Vec<Inode> {
        let whole = self.scan.as_ref().filter(|s| s.whole);
        let touched = whole.into_iter().flat_map(|s| s.touched.iter().copied());
        let is_file = |ino: &Inode| matches!(self.get(*ino), Some((a, _)) if a.kind != Kind::Directory);
        touched.filter(is_file).collect()
    }

    /// Whether the running scan has listed a directory already, at any place where it lay then: events tell the rest.
    pub fn is_listed(&self, id: DirId) -> bool {
        let running = self.scan.as_ref().map(|s| s.number);
        running.is_some() && self.dirs.listed_by(id) == running
    }

    /// Whether the running scan has to list a directory that it met. One of the whole volume lists each; another one only those that no
    /// scan has listed since the agent started.
    pub fn needs_listing(&self, id: DirId) -> bool {
        let whole = self.scan.as_ref().is_some_and(|s| s.whole);
        self.dirs.listed_by(id).is_some_and(|by| match whole {
            true => !self.is_listed(id),
            false => by == 0,
        })
    }

    /// The scan is over. If it saw everything (`complete`), entries that it did not see and that no event touched
    /// are no longer there, and are forgotten. Returns how many.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn end_scan(&mut self, complete: bool) -> Result<usize, StoreError> {
        let Some(scan) = self.scan.take() else {
            return Ok(0);
        };
        self.dirs.keep_ids(false);
        self.early = FxHashMap::default();
        if !complete {
            return Ok(0);
        }
        self.remembered = Remembered::default();
        self.dirs.keep_crowded(|id| scan.crowded.contains(&id));
        let root = self.dirs.get(DirId::ROOT).map(|d| d.ino);
        // Not seen is not deleted: what lies below an unreadable directory, or below one that moved and was not met, stays as it was.
        let moved = |id: DirId, ino: Inode| {
            self.dirs.listed_by(id) != Some(scan.number) && (scan.touched.contains(&ino) || self.is_seen(ino))
        };
        let hidden = self.dirs.inherit(false, |id, dir, parent_is| {
            parent_is || dir.unreadable || moved(id, dir.ino)
        });
        let root_hidden = self.dirs.get(DirId::ROOT).is_some_and(|d| d.unreadable);
        let is_hidden = |id: DirId| root_hidden || hidden.get(id.index()).copied().unwrap_or(false);
        let mut gone = Vec::new();
        for page in self.pages.iter().filter(|p| p.present & !p.seen != 0) {
            let mut reader = page.reader();
            for ino in page.inodes() {
                let attributes = reader.next_entry()?;
                let unseen = page.seen & (1 << place(ino).1) == 0;
                if unseen
                    && !scan.touched.contains(&ino)
                    && Some(ino) != root
                    && !is_hidden(attributes.parent)
                {
                    gone.push(ino);
                }
            }
        }
        self.remove(&gone)?;
        Ok(gone.len())
    }

    fn is_seen(&self, ino: Inode) -> bool {
        let (number, offset) = place(ino);
        let page = self
            .by_number
            .get(&number)
            .and_then(|slot| self.pages.get(*slot as usize));
        page.is_some_and(|p| p.seen & (1u64 << offset) != 0)
    }

    /// Notes what listing a directory found out: whether something in it could not be read, and whether something is
    /// mounted in it.
    pub fn set_listed(&mut self, id: DirId, unreadable: bool, has_mounts: bool) {
        self.dirs.set_state(id, unreadable, has_mounts);
        if let Some(scan) = &self.scan {
            let number = scan.number;
            self.dirs.set_listed(id, number);
        }
    }

    /// Something in a directory could not be read: it stays, with all that is known of it, until a scan lists it.
    pub fn doubt_dir(&mut self, id: DirId) {
        let has_mounts = self.dirs.get(id).is_some_and(|d| d.has_mounts);
        self.dirs.set_state(id, true, has_mounts);
    }

    /// Something is mounted in a directory.
    pub fn note_mount(&mut self, id: DirId) {
        let unreadable = self.dirs.get(id).is_some_and(|d| d.unreadable);
        self.dirs.set_state(id, unreadable, true);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::testing::{empty, found, stat};
    use crate::{DirId, Found};
    use purge_model::{Kind, LastUse, Seconds, Source};

    /// The root, directory 90 in it, and a file 91 in that.
    fn with_a_directory() -> (crate::Store, crate::Index, DirId) {
        let (store, mut index) = empty();
        let dir = Found {
            stat: stat(90, Kind::Directory, 0, 1),
            ..found(90, 0, b"dir")
        };
        index.upsert(dir).unwrap();
        let id = index.dirs().of_inode(90).unwrap();
        index
            .upsert(Found {
                parent: id,
                ..found(91, 1, b"inside")
            })
            .unwrap();
        (store, index, id)
    }

    #[test]
    fn what_lies_in_a_directory_that_was_never_met_stays_if_it_moved_meanwhile() {
        let (_store, mut index, _) = with_a_directory();
        index.start_scan(1, true);
        index.set_listed(DirId::ROOT, false, false);
        assert!(index.move_dir(90, DirId::ROOT, b"elsewhere").unwrap());
        assert_eq!(index.end_scan(true).unwrap(), 0);
        assert!(index.get(91).is_some());
        // No process moved it, and it was not there: it is deleted with what lay in it.
        index.start_scan(2, true);
        index.set_listed(DirId::ROOT, false, false);
        assert_eq!(index.end_scan(true).unwrap(), 2);
        assert!(index.get(91).is_none());
    }

    #[test]
    fn a_linked_file_that_changed_during_a_scan_is_looked_at_again() {
        let (_store, mut index, id) = with_a_directory();
        let linked = |parent, name| {
            let mut found = found(92, 1, name);
            (found.parent, found.stat.links) = (parent, 2);
            found
        };
        index.upsert(linked(DirId::ROOT, b"one")).unwrap();
        index.upsert(linked(id, b"other")).unwrap();
        index.start_scan(1, true);
        assert!(index.links_not_settled().is_empty());
        // An event told of one name; the other, which is no more, the scan does not take from it any more.
        index.upsert(linked(id, b"new")).unwrap();
        index.upsert_scanned(&mut [linked(id, b"new")]).unwrap();
        assert_eq!(index.names(92).unwrap().len(), 3);
        assert_eq!(index.links_not_settled(), [92]);
        let _ = index.end_scan(true).unwrap();
        assert!(index.links_not_settled().is_empty());
    }

    #[test]
    fn a_directory_is_listed_once_in_a_scan_and_once_when_it_comes_in() {
        let (_store, mut index, id) = with_a_directory();
        index.start_scan(1, false);
        assert!(index.needs_listing(id));
        index.set_listed(id, false, false);
        assert!(!index.needs_listing(id));
        let _ = index.end_scan(false).unwrap();
        index.start_scan(2, false);
        assert!(!index.needs_listing(id), "events tell the rest");
        assert!(!index.is_listed(id), "but who asks for it gets it");
        let _ = index.end_scan(false).unwrap();
        index.start_scan(3, true);
        assert!(index.needs_listing(id));
        index.set_listed(id, false, false);
        assert!(!index.needs_listing(id));
        index.remove(&[90, 91]).unwrap();
        assert!(!index.needs_listing(id), "it is no longer there");
    }

    #[test]
    fn a_file_used_before_the_scan_finds_it_keeps_that_use() {
        let (_, mut index) = empty();
        index.start_scan(1, true);
        assert_eq!(index.record_use(70, Seconds(9)), None);
        index.upsert_scanned(&mut [found(70, 1, b"a")]).unwrap();
        assert_eq!(
            index.last_use(70).unwrap(),
            LastUse {
                at: Seconds(9),
                source: Source::Observed
            }
        );
    }

    #[test]
    fn what_an_event_removed_is_not_brought_back_by_a_stale_listing() {
        let (_, mut index) = empty();
        index.upsert(found(70, 1, b"a")).unwrap();
        index.start_scan(1, true);
        index.remove_name(70, DirId::ROOT, b"a").unwrap();
        let doubtful = index.upsert_scanned(&mut [found(70, 1, b"a")]).unwrap();
        assert_eq!((doubtful.len(), index.get(70)), (1, None));
    }

    #[test]
    fn a_scan_forgets_what_is_deleted_but_not_what_it_could_not_read() {
        let (_, mut index) = empty();
        let first_use = LastUse {
            at: Seconds(5),
            source: Source::Baseline,
        };
        let dir = Found {
            stat: stat(80, Kind::Directory, 0, 1),
            parent: DirId::ROOT,
            name: b"d",
            first_use,
        };
        index.upsert(dir).unwrap();
        let id = index.dirs().of_inode(80).unwrap();
        index.upsert(found(70, 1, b"gone")).unwrap();
        index
            .upsert(Found {
                parent: id,
                ..found(71, 1, b"hidden")
            })
            .unwrap();
        index.start_scan(1, true);
        index.upsert_scanned(&mut [dir]).unwrap();
        index.set_listed(DirId::ROOT, false, false);
        index.set_listed(id, true, false);
        assert_eq!(index.end_scan(true).unwrap(), 1);
        assert!(index.get(70).is_none() && index.get(71).is_some());
    }
}
