//! Entries of the index that match.

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::PAGES_AT_ONCE;
use crate::index::{Attributes, DirId, Index, PageView, StoreError};
use crate::model::{Clocks, Inode, Kind, LastUse, Seconds};
use crate::policy::last_use::{covered, last_use};
use crate::policy::scope::Globs;

/// What is asked for; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only below this directory.
    pub below: Option<DirId>,
    /// Last used more than so many seconds ago.
    pub older: Option<u64>,
    /// Last used less than so many seconds ago.
    pub newer: Option<u64>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// At least so many bytes.
    pub min_size: Option<u64>,
    /// At most so many bytes.
    pub max_size: Option<u64>,
    /// The name matches.
    pub name: Option<Globs>,
    /// Of this kind; none: files and directories.
    pub kind: Option<Kind>,
    /// Only these, and when they expire.
    pub expiring: Option<FxHashMap<Inode, Seconds>>,
}

/// The order of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they come.
    None,
    /// Oldest last use first.
    Age,
    /// Largest first.
    Size,
    /// Bytewise by path.
    Path,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Relative to the volume.
    pub path: Vec<u8>,
    /// What the index says.
    pub attributes: Attributes,
    /// The latest of its clocks.
    pub last: LastUse,
    /// When it expires, if that was asked.
    pub expires: Option<Seconds>,
}

/// Why a question ended early.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The index cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever asked has gone.
    #[error("the client has gone")]
    Gone,
}

/// Calls `each` with what matches; `each` says whether to go on.
///
/// # Errors
/// When the index cannot be read.
pub fn find(
    index: &RwLock<Index>,
    filter: &Filter,
    order: Order,
    limit: u64,
    (now, gap_end): (Seconds, Option<Seconds>),
    each: &mut dyn FnMut(Hit) -> bool,
) -> Result<(), FindError> {
    let below = filter.below.filter(|d| *d != DirId::ROOT).map(|top| {
        index
            .read()
            .dirs()
            .inherit(false, |id, _, above| above || id == top)
    });
    let asked = Asked {
        filter,
        below,
        now,
        gap_end,
    };
    let mut left = if limit == 0 { u64::MAX } else { limit };
    let mut give = |hit: Hit| {
        left = left.saturating_sub(1);
        each(hit) && left > 0
    };
    match order {
        Order::None => {
            let mut start = 0;
            loop {
                let hits = {
                    let index = index.read();
                    let pages = index.pages_from(start, PAGES_AT_ONCE);
                    if pages.len() == 0 {
                        return Ok(());
                    }
                    asked.in_pages(&index, pages)?
                };
                start += PAGES_AT_ONCE;
                for hit in hits {
                    if !give(hit) {
                        return Ok(());
                    }
                }
            }
        }
        Order::Age | Order::Size | Order::Path => asked.sorted(index, order, &mut give),
    }
}

struct Asked<'a> {
    filter: &'a Filter,
    below: Option<Vec<bool>>,
    now: Seconds,
    gap_end: Option<Seconds>,
}

impl Asked<'_> {
    fn in_pages<'p>(
        &self,
        index: &Index,
        pages: impl Iterator<Item = PageView<'p>>,
    ) -> Result<Vec<Hit>, StoreError> {
        let mut hits = Vec::new();
        for page in pages {
            self.in_page(&page, |ino, attributes, last| {
                hits.extend(self.named(index, ino, attributes, last)?);
                Ok(())
            })?;
        }
        Ok(hits)
    }

    /// Calls `each` with the entries that match but for their names.
    fn in_page(
        &self,
        page: &PageView<'_>,
        mut each: impl FnMut(Inode, Attributes, LastUse) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut attributes = page.attributes();
        for (rank, ino) in page.inodes().enumerate() {
            let entry = attributes.next_entry()?;
            let last = last_use(&entry, covered(page.access(rank), self.gap_end), Clocks::ALL);
            if self.matches(ino, &entry, last) {
                each(ino, entry, last)?;
            }
        }
        Ok(())
    }

    fn matches(&self, ino: Inode, a: &Attributes, last: LastUse) -> bool {
        let f = self.filter;
        if f.expiring.as_ref().is_some_and(|all| !all.contains_key(&ino)) {
            return false;
        }
        let kind = match f.kind {
            Some(kind) => a.kind == kind,
            None => matches!(a.kind, Kind::File | Kind::Directory),
        };
        let age = last.at.age_at(self.now);
        kind && f.uid.is_none_or(|u| u == a.uid)
            && f.gid.is_none_or(|g| g == a.gid)
            && f.min_size.is_none_or(|n| a.size >= n)
            && f.max_size.is_none_or(|n| a.size <= n)
            && f.older.is_none_or(|n| age > n)
            && f.newer.is_none_or(|n| age < n)
    }

    /// The hits of one inode: one for each of its names.
    fn named(
        &self,
        index: &Index,
        ino: Inode,
        attributes: Attributes,
        last: LastUse,
    ) -> Result<Vec<Hit>, StoreError> {
        let is_below = |dir: DirId| {
            self.below
                .as_ref()
                .is_none_or(|t| t.get(dir.index()).copied().unwrap_or(false))
        };
        let own = index.dirs().of_inode(ino);
        let mut hits = Vec::new();
        for (parent, name) in index.names(ino)? {
            let inside = is_below(parent) || own.is_some_and(is_below);
            let is_dir = attributes.kind == Kind::Directory;
            let named = self
                .filter
                .name
                .as_ref()
                .is_none_or(|g| g.matching(&name, is_dir).is_some());
            if !inside || !named {
                continue;
            }
            let Some(mut path) = index.dirs().path(parent) else {
                continue;
            };
            if !path.is_empty() && !name.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            hits.push(Hit {
                path,
                attributes,
                last,
                expires: self
                    .filter
                    .expiring
                    .as_ref()
                    .and_then(|all| all.get(&ino))
                    .copied(),
            });
        }
        Ok(hits)
    }

    /// Sorts by a key of a few bytes an entry, and asks for names only then.
    fn sorted(
        &self,
        index: &RwLock<Index>,
        order: Order,
        give: &mut dyn FnMut(Hit) -> bool,
    ) -> Result<(), FindError> {
        let mut keys: Vec<(u64, Inode)> = Vec::new();
        let mut start = 0;
        loop {
            let index = index.read();
            let pages = index.pages_from(start, PAGES_AT_ONCE);
            if pages.len() == 0 {
                break;
            }
            start += PAGES_AT_ONCE;
            for page in pages {
                self.in_page(&page, |ino, a, last| {
                    let key = match order {
                        Order::Age => last.at.0.into(),
                        Order::Size => u64::MAX - a.size,
                        Order::Path | Order::None => 0,
                    };
                    keys.push((key, ino));
                    Ok(())
                })?;
            }
        }
        if order == Order::Path {
            let mut hits = Vec::new();
            for run in keys.chunks(PAGES_AT_ONCE) {
                self.resolve(&index.read(), run, |hit| {
                    hits.push(hit);
                    true
                })?;
            }
            hits.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            for hit in hits {
                if !give(hit) {
                    return Ok(());
                }
            }
            return Ok(());
        }
        keys.sort_unstable();
        for run in keys.chunks(PAGES_AT_ONCE) {
            let mut hits = Vec::new();
            self.resolve(&index.read(), run, |hit| {
                hits.push(hit);
                true
            })?;
            for hit in hits {
                if !give(hit) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn resolve(
        &self,
        index: &Index,
        run: &[(u64, Inode)],
        mut each: impl FnMut(Hit) -> bool,
    ) -> Result<(), StoreError> {
        for (_, ino) in run {
            // What changed since it was sorted is left out if it matches no more.
            let Some((attributes, access)) = index.get(*ino) else {
                continue;
            };
            let last = last_use(&attributes, covered(access, self.gap_end), Clocks::ALL);
            if self.matches(*ino, &attributes, last) {
                for hit in self.named(index, *ino, attributes, last)? {
                    each(hit);
                }
            }
        }
        Ok(())
    }
}
