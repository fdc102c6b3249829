//! Entries that go: a name, an inode, a whole tree.

use super::Index;
use crate::codec::DirId;
use crate::page::place;
use crate::store::StoreError;
use purge_model::{Inode, Kind};

impl Index {
    /// Forgets one name of a file; the file goes with its last name.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn remove_name(&mut self, ino: Inode, parent: DirId, name: &[u8]) -> Result<(), StoreError> {
        if let Some(scan) = &mut self.scan {
            scan.touched.insert(ino);
        }
        if self.dirs.of_inode(ino).is_some() {
            // A directory has one name: if that is another by now, it was moved, not removed.
            let here = self.dirs.of_inode(ino).and_then(|id| self.dirs.get(id));
            return match here.is_some_and(|d| d.parent == parent && *d.name == *name) {
                true => self.remove(&[ino]),
                false => Ok(()),
            };
        }
        let (number, offset) = place(ino);
        let slot = self.by_number.get(&number);
        let page = slot.and_then(|slot| self.pages.get(*slot as usize));
        let Some(page) = page.filter(|p| p.rank(offset).is_some()) else {
            return Ok(());
        };
        let removed = self.names.remove(page, ino, (parent, name))?;
        match removed.first {
            // It lies at an unknown place: a scan finds out, or the next look at it finds that it is no more.
            None if removed.has_more => self.count_link_less(ino, removed.was_there, None),
            None => self.remove(&[ino]),
            Some(first) => self.count_link_less(ino, removed.was_there, Some(first)),
        }
    }

    fn count_link_less(
        &mut self,
        ino: Inode,
        was_there: bool,
        first: Option<DirId>,
    ) -> Result<(), StoreError> {
        if !was_there {
            return Ok(());
        }
        self.edit_attributes(ino, |known| {
            known.parent = first.unwrap_or(known.parent);
            known.links = known.links.saturating_sub(1).max(1);
        })
    }

    /// Forgets inodes with everything that is known of them.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn remove(&mut self, inodes: &[Inode]) -> Result<(), StoreError> {
        self.settle_uses();
        let mut inodes = inodes.to_vec();
        inodes.sort_unstable();
        if let Some(scan) = &mut self.scan {
            scan.touched.extend(inodes.iter().copied());
        }
        for group in inodes.chunk_by(|a, b| place(*a).0 == place(*b).0) {
            let Some(number) = group.first().map(|ino| place(*ino).0) else {
                continue;
            };
            let Some(slot) = self.by_number.get(&number).copied() else {
                continue;
            };
            let Some(page) = self.pages.get_mut(slot as usize) else {
                continue;
            };
            let all = &mut self.unpacked;
            page.unpack(all)?;
            for ino in group {
                let offset = place(*ino).1;
                let used = page.rank(offset).map(|rank| page.known_use(rank));
                let (Some(used), Some(rank)) = (used, page.remove_clock(offset)) else {
                    continue;
                };
                self.names.forget(*ino);
                let old = all.remove(rank.min(all.len().saturating_sub(1)));
                self.totals.subtract(&old);
                self.account.change(slot, Some((&old, used)), None);
                self.dirs.count_child(old.parent, false);
                if old.kind == Kind::Directory {
                    self.dirs.remove(*ino);
                }
            }
            self.names.removed(page);
            page.set_all_attributes(all, &mut self.scratch);
            page.dirty.attributes = true;
            self.thinned.insert(slot);
        }
        Ok(())
    }

    /// Forgets a directory and everything below it: it was moved out of the volume. Returns how many entries that
    /// were.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn remove_tree(&mut self, ino: Inode) -> Result<usize, StoreError> {
        let Some(top) = self.dirs.of_inode(ino) else {
            return Ok(0);
        };
        // Most directories that go were emptied before: nothing else needs to be looked through.
        if self.dirs.children(top) == 0 {
            self.remove(&[ino])?;
            return Ok(1);
        }
        // One that leads to the root no more, as what was above it is forgotten, would not be found below itself.
        if self.dirs.path(top).is_none() {
            let name = self.dirs.get(top).map(|dir| dir.name.to_vec());
            self.dirs.upsert(ino, DirId::ROOT, &name.unwrap_or_default());
        }
        let below = self
            .dirs
            .inherit(false, |id, _, parent_is| parent_is || id == top);
        let is_below = |id: DirId| below.get(id.index()).copied().unwrap_or(false);
        let (mut gone, mut lost_names) = (Vec::new(), Vec::new());
        for page in &self.pages {
            let mut reader = page.reader();
            for ino in page.inodes() {
                let attributes = reader.next_entry()?;
                match attributes.kind {
                    Kind::Directory if self.dirs.of_inode(ino).is_some_and(is_below) => gone.push(ino),
                    Kind::Directory => {}
                    // Some of its names may lie below, and some not.
                    _ if attributes.links > 1 || is_below(attributes.parent) => {
                        let names = self.names.of_inode(page, ino)?;
                        let (inside, outside): (Vec<_>, Vec<_>) =
                            names.into_iter().partition(|(parent, _)| is_below(*parent));
                        match outside.is_empty() {
                            true => gone.push(ino),
                            false => lost_names.extend(inside.into_iter().map(|name| (ino, name))),
                        }
                    }
                    _ => {}
                }
            }
        }
        for (ino, (parent, name)) in lost_names {
            self.remove_name(ino, parent, &name)?;
        }
        self.remove(&gone)?;
        Ok(gone.len())
    }
}
