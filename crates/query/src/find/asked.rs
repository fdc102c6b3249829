//! What is asked of each entry, and the steps over the pages of the index.

use super::sorting::{Keys, Paths};
use super::{Bundle, Filter, Hit, Order, PAGES_OF_NAMES, Spot, Stage};
use crate::PAGES_AT_ONCE;
use purge_index::below::Below;
use purge_index::{Attributes, DirId, Index, PageView, StoreError};
use purge_model::{Clocks, Inode, Kind, LastUse, Seconds};
use purge_policy::last_use::{covered, last_use};

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) filter: Filter,
    pub(super) below: Option<Below>,
    pub(super) now: Seconds,
    pub(super) gap_end: Option<Seconds>,
}

impl Asked {
    pub(super) fn lying(&self, index: &Index, from: Spot, bundle: &mut Bundle) -> Result<Stage, StoreError> {
        let (mut page, mut ino, mut name) = (from.page, from.ino, from.name);
        for view in index.pages_from(from.page, PAGES_OF_NAMES) {
            let whole = self.in_page(&view, ino, |found, attributes, last| {
                let first = if found == ino { name } else { 0 };
                (ino, name) = (found, 0);
                match self.named(index, (found, attributes, last), first, bundle)? {
                    Some(stopped) => {
                        name = stopped;
                        Ok(false)
                    }
                    None => Ok(true),
                }
            })?;
            if !whole {
                return Ok(Stage::Lying(Spot { page, ino, name }));
            }
            (page, ino, name) = (page.saturating_add(1), 0, 0);
            if bundle.is_full() {
                break;
            }
        }
        Ok(match page == from.page {
            true => Stage::Done,
            false => Stage::Lying(Spot { page, ino, name }),
        })
    }

    pub(super) fn keys(&self, index: &Index, order: Order, mut keys: Keys) -> Result<Stage, StoreError> {
        let pages = index.pages_from(keys.page, PAGES_AT_ONCE);
        if pages.len() > 0 {
            keys.page = keys.page.saturating_add(pages.len());
            for page in pages {
                self.in_page(&page, 0, |ino, a, last| {
                    let key = match order {
                        Order::Age => last.at.0.into(),
                        Order::Size => u64::MAX - a.size,
                        Order::Path | Order::None => 0,
                    };
                    keys.add((key, ino));
                    Ok(true)
                })?;
            }
            return Ok(Stage::Keys(keys));
        }
        let is_all = keys.enough.is_none();
        let mut keys = keys.found;
        keys.sort_unstable();
        Ok(match keys.is_empty() {
            true => Stage::Done,
            false => Stage::Keyed {
                keys,
                next: 0,
                name: 0,
                is_all,
            },
        })
    }

    pub(super) fn paths(&self, index: &Index, mut paths: Paths, room: usize) -> Result<Stage, StoreError> {
        let pages = index.pages_from(paths.page, PAGES_OF_NAMES);
        if pages.len() > 0 {
            paths.page = paths.page.saturating_add(pages.len());
            for page in pages {
                self.in_page(&page, 0, |ino, attributes, _| {
                    for (parent, name) in index.names(ino)? {
                        if let Some(path) = self.path(index, (ino, &attributes), parent, &name) {
                            paths.add(path, ino, room);
                        }
                    }
                    Ok(true)
                })?;
            }
            return Ok(Stage::Paths(paths));
        }
        let after = paths.found.last_key_value().map(|(path, _)| path.clone());
        Ok(match after {
            None => Stage::Done,
            Some(after) => Stage::Pathed {
                paths: paths.found,
                after,
                is_all: !paths.is_cut,
            },
        })
    }

    /// Calls `each` with the entries from `from` on that match but for their names, until it says to stop. True: with all of them.
    pub(super) fn in_page(
        &self,
        page: &PageView<'_>,
        from: Inode,
        mut each: impl FnMut(Inode, Attributes, LastUse) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut attributes = page.attributes();
        for (rank, ino) in page.inodes().enumerate() {
            let entry = attributes.next_entry()?;
            if ino < from {
                continue;
            }
            let last = last_use(
                &entry,
                covered(page.access(rank), self.gap_end),
                Clocks::ALL,
                self.now,
            );
            if self.matches(ino, &entry, last) && !each(ino, entry, last)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn now_matches(&self, index: &Index, ino: Inode) -> Option<(Attributes, LastUse)> {
        let (attributes, access) = index.get(ino)?;
        let last = last_use(&attributes, covered(access, self.gap_end), Clocks::ALL, self.now);
        self.matches(ino, &attributes, last).then_some((attributes, last))
    }

    pub(super) fn matches(&self, ino: Inode, a: &Attributes, last: LastUse) -> bool {
        let f = &self.filter;
        if f.expiring.as_ref().is_some_and(|all| !all.contains_key(&ino)) {
            return false;
        }
        let kind = match f.kind {
            Some(kind) => a.kind == kind,
            None => matches!(a.kind, Kind::File | Kind::Directory),
        };
        let age = last.at.age_at(self.now);
        kind && f.uids.as_ref().is_none_or(|all| all.contains(&a.uid))
            && f.gids.as_ref().is_none_or(|all| all.contains(&a.gid))
            && f.min_size.is_none_or(|n| a.size >= n)
            && f.max_size.is_none_or(|n| a.size <= n)
            && f.older.is_none_or(|n| age > n)
            && f.newer.is_none_or(|n| age < n)
    }

    /// The hits of one inode: one for each of its names, from the given one on. Some: there are more, from that one on.
    pub(super) fn named(
        &self,
        index: &Index,
        (ino, attributes, last): (Inode, Attributes, LastUse),
        from: usize,
        bundle: &mut Bundle,
    ) -> Result<Option<usize>, StoreError> {
        for (n, (parent, name)) in index.names(ino)?.into_iter().enumerate().skip(from) {
            if bundle.is_full() {
                return Ok(Some(n));
            }
            if let Some(path) = self.path(index, (ino, &attributes), parent, &name) {
                bundle.add(Hit {
                    path,
                    attributes,
                    last,
                    expires: self.expires(ino),
                });
            }
        }
        Ok(None)
    }

    pub(super) fn expires(&self, ino: Inode) -> Option<Seconds> {
        self.filter.expiring.as_ref()?.get(&ino).copied()
    }

    /// The path by one name of an entry, if that matches.
    pub(super) fn path(
        &self,
        index: &Index,
        (ino, attributes): (Inode, &Attributes),
        parent: DirId,
        name: &[u8],
    ) -> Option<Vec<u8>> {
        let is_below = |dir: DirId| self.below.as_ref().is_none_or(|below| below.holds(dir));
        let inside = is_below(parent) || index.dirs().of_inode(ino).is_some_and(is_below);
        let is_dir = attributes.kind == Kind::Directory;
        let globs = self.filter.name.as_ref();
        if !inside || globs.is_some_and(|g| g.matching(name, is_dir).is_none()) {
            return None;
        }
        let mut path = index.dirs().path(parent)?;
        if !path.is_empty() && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Some(path)
    }
}
