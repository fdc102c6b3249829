//! Entries that are found or changed: by an event, by a scan.

use super::{Found, Index};
use crate::codec::{Attributes, DirId};
use crate::page::{Dirty, Page, place};
use crate::store::StoreError;
use purge_model::{Inode, Kind, LastUse, Seconds, Source, Stat};

impl Index {
    /// Makes the volume's root known. Must come before anything else.
    pub fn set_root(&mut self, stat: &Stat) {
        if self.dirs.is_empty() {
            self.dirs.upsert(stat.ino, DirId::ROOT, b"");
        }
        let first_use = LastUse {
            at: stat.ctime,
            source: Source::Ctime,
        };
        let root = Found {
            stat: *stat,
            parent: DirId::ROOT,
            name: b"",
            first_use,
        };
        // The root is a directory: no name row is read or written for it.
        let _ = self.upsert_page(&mut [root], false);
    }

    /// Takes over entries that an event named: they are as the file system says.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn upsert(&mut self, found: Found<'_>) -> Result<(), StoreError> {
        if let Some(scan) = &mut self.scan {
            scan.touched.insert(found.stat.ino);
        }
        self.upsert_page(&mut [found], false)
    }

    /// Takes over entries that a scan found. Returns the positions (in the reordered slice) of those whose names
    /// or attributes changed while the scan ran: their places must be looked at again.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn upsert_scanned(&mut self, found: &mut [Found<'_>]) -> Result<Vec<usize>, StoreError> {
        found.sort_unstable_by_key(|f| f.stat.ino);
        let mut doubtful = Vec::new();
        let mut start = 0;
        while let Some(first) = found.get(start) {
            let (number, _) = place(first.stat.ino);
            let len = found
                .iter()
                .skip(start)
                .take_while(|f| place(f.stat.ino).0 == number)
                .count();
            if let Some(scan) = &self.scan {
                let touched = found.iter().enumerate().skip(start).take(len);
                doubtful.extend(
                    touched
                        .filter(|(_, f)| scan.is_doubtful(f.stat.ino))
                        .map(|(i, _)| i),
                );
            }
            let group = found.get_mut(start..start + len).unwrap_or_default();
            self.upsert_page(group, true)?;
            start += len;
        }
        Ok(doubtful)
    }

    /// `group` lies in one page.
    fn upsert_page(&mut self, group: &mut [Found<'_>], scanned: bool) -> Result<(), StoreError> {
        let Some(first) = group.first() else { return Ok(()) };
        self.settle_uses();
        let (number, _) = place(first.stat.ino);
        let slot = self.page_slot(number);
        let Self {
            pages,
            dirs,
            names,
            totals,
            account,
            scan,
            early,
            remembered,
            scratch,
            unpacked: all,
            ..
        } = self;
        let Some(page) = pages.get_mut(slot as usize) else {
            return Ok(());
        };
        page.unpack(all)?;
        for f in group.iter() {
            let (_, offset) = place(f.stat.ino);
            let bit = 1u64 << offset;
            let touched = scan
                .as_ref()
                .is_some_and(|s| scanned && s.touched.contains(&f.stat.ino));
            if touched {
                page.seen |= bit;
                continue;
            }
            // Its directory was removed since it was looked at: so was it, or an event will tell where it is.
            if dirs.get(f.parent).is_none() {
                continue;
            }
            let mut known = page.rank(offset);
            // Another file has taken the inode: what was known of the old one is no knowledge of this one.
            if let Some(old) = known.and_then(|rank| all.get(rank)).copied()
                && (old.kind != f.stat.kind || old.birth != f.stat.birth)
            {
                totals.subtract(&old);
                if let Some(rank) = known {
                    account.change(slot, Some((&old, page.known_use(rank))), None);
                }
                dirs.count_child(old.parent, false);
                if old.kind == Kind::Directory {
                    dirs.remove(f.stat.ino);
                }
                if let Some(rank) = page.remove_clock(offset) {
                    all.remove(rank);
                }
                names.forget(f.stat.ino);
                names.removed(page);
                known = None;
            }
            let mut parent = f.parent;
            if f.stat.kind == Kind::Directory {
                if known.is_none() {
                    names.make_way(page, offset)?;
                }
                dirs.upsert(f.stat.ino, f.parent, f.name);
            } else if known.is_none() {
                names.add_first(page, f.stat.ino, f.parent, f.name)?;
            } else {
                // The only name, or the first of several that this scan meets: names that are no more are forgotten.
                let whole = scan.as_ref().is_some_and(|s| s.whole);
                let is_only = f.stat.links <= 1 || (scanned && whole && page.seen & bit == 0);
                let added = names.add(page, f.stat.ino, (f.parent, f.name), is_only)?;
                if added.left_out {
                    dirs.set_crowded(f.parent, true);
                    if let Some(scan) = scan {
                        scan.crowded.insert(f.parent);
                    }
                }
                parent = added.first;
            }
            let mut new = attributes_of(&f.stat, parent);
            // They were read again since an event told of a change: the scan may have read them before.
            if let Some(old) = known.and_then(|rank| all.get(rank))
                && scan
                    .as_ref()
                    .is_some_and(|s| scanned && s.changed.contains(&f.stat.ino))
            {
                new = Attributes { parent, ..*old };
            }
            totals.add(&new);
            match known.and_then(|rank| Some((rank, all.get_mut(rank)?))) {
                Some((rank, old)) => {
                    totals.subtract(old);
                    let used = page.known_use(rank);
                    account.change(slot, Some((old, used)), Some((&new, used)));
                    if old.parent != new.parent {
                        dirs.count_child(old.parent, false);
                        dirs.count_child(new.parent, true);
                    }
                    *old = new;
                }
                None => {
                    dirs.count_child(new.parent, true);
                    let mut first_use = remembered
                        .last_use(f.stat.ino, f.stat.birth)
                        .unwrap_or(f.first_use);
                    if let Some(at) = early.remove(&f.stat.ino)
                        && at >= first_use.at
                    {
                        first_use = LastUse {
                            at,
                            source: Source::Observed,
                        };
                    }
                    account.change(slot, None, Some((&new, first_use)));
                    let rank = page.insert_clock(offset, first_use);
                    all.insert(rank.min(all.len()), new);
                }
            }
            if scanned {
                page.seen |= bit;
            }
        }
        page.set_all_attributes(all, scratch);
        if page.dirty != Dirty::default() {
            self.dirty.insert(slot);
        }
        Ok(())
    }

    /// Whether a known inode has a time that lies ahead of `now` and was not seen before. It counts as now, once: the caller that takes it over
    /// records a use.
    pub fn is_newly_ahead(&self, stat: &Stat, now: Seconds) -> bool {
        let times = |a: &Attributes| (a.mtime, a.ctime, a.birth);
        let seen = attributes_of(stat, DirId::ROOT);
        stat.is_ahead(now)
            && self
                .get(stat.ino)
                .is_some_and(|(known, _)| times(&known) != times(&seen))
    }

    /// Takes over what the file system says now of an inode. Unknown inodes stay unknown. What is said of an entry of another kind, which has
    /// taken the inode, is not taken over: it is met at its own place.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn refresh(&mut self, stat: &Stat) -> Result<(), StoreError> {
        self.edit_attributes(stat.ino, |known| {
            if known.kind == stat.kind {
                *known = attributes_of(stat, known.parent);
            }
        })
    }

    /// Moves a known directory, with everything below it. Not below itself: the kernel allows no such move, but events
    /// that come late could name one. Returns whether it is there now.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn move_dir(&mut self, ino: Inode, parent: DirId, name: &[u8]) -> Result<bool, StoreError> {
        let Some(id) = self.dirs.of_inode(ino) else {
            return Ok(false);
        };
        if let Some(scan) = &mut self.scan {
            scan.touched.insert(ino);
        }
        if id == DirId::ROOT || self.dirs.get(parent).is_none() || self.dirs.is_below(parent, id) {
            return Ok(false);
        }
        self.dirs.upsert(ino, parent, name);
        self.edit_attributes(ino, |attributes| attributes.parent = parent)?;
        Ok(true)
    }

    /// Changes what is known of one inode, with the sums that depend on it.
    pub(super) fn edit_attributes(
        &mut self,
        ino: Inode,
        edit: impl FnOnce(&mut Attributes),
    ) -> Result<(), StoreError> {
        self.settle_uses();
        let (number, offset) = place(ino);
        let Some(slot) = self.by_number.get(&number).copied() else {
            return Ok(());
        };
        let Some(page) = self.pages.get_mut(slot as usize) else {
            return Ok(());
        };
        let Some(rank) = page.rank(offset) else {
            return Ok(());
        };
        let all = &mut self.unpacked;
        page.unpack(all)?;
        if let Some(known) = all.get_mut(rank) {
            let old = *known;
            edit(known);
            self.totals.add(known);
            self.totals.subtract(&old);
            let used = page.known_use(rank);
            self.account.change(slot, Some((&old, used)), Some((known, used)));
            if old.parent != known.parent {
                self.dirs.count_child(old.parent, false);
                self.dirs.count_child(known.parent, true);
            }
        }
        page.set_all_attributes(all, &mut self.scratch);
        if page.dirty != Dirty::default() {
            self.dirty.insert(slot);
        }
        Ok(())
    }

    fn page_slot(&mut self, number: u64) -> u32 {
        let next = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        let slot = *self.by_number.entry(number).or_insert(next);
        if slot == next {
            self.pages.push(Page::new(number));
        }
        slot
    }
}

fn attributes_of(stat: &Stat, parent: DirId) -> Attributes {
    Attributes {
        parent,
        kind: stat.kind,
        size: stat.size,
        allocated: stat.allocated,
        project: stat.project,
        uid: stat.uid,
        gid: stat.gid,
        links: stat.links,
        mtime: stat.mtime,
        ctime: stat.ctime,
        ctime_nanos: stat.ctime_nanos,
        birth: stat.birth,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::testing::{empty, found, stat};
    use crate::{DirId, Found};
    use purge_model::{Kind, LastUse, Seconds, Source};

    #[test]
    fn another_file_with_the_same_inode_inherits_nothing() {
        let (_, mut index) = empty();
        index.upsert(found(70, 1, b"a")).unwrap();
        index.record_use(70, Seconds(3));
        let reused = Found {
            stat: stat(70, Kind::File, 9, 50),
            ..found(70, 9, b"b")
        };
        index.upsert(reused).unwrap();
        assert_eq!(
            index.last_use(70).unwrap(),
            LastUse {
                at: Seconds(5),
                source: Source::Baseline
            }
        );
        assert_eq!(index.names(70).unwrap(), vec![(DirId::ROOT, b"b".to_vec())]);
        assert_eq!(index.totals().files, 1);
    }
}
