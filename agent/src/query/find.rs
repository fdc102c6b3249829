//! Entries of the index that match, a few at a time: whoever asks takes the next ones when there is room for them, and sorting takes no more
//! memory than it is given.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::{PAGES_AT_ONCE, STEP_BYTES, Step};
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
    /// One of these owners.
    pub uids: Option<Vec<u32>>,
    /// One of these groups.
    pub gids: Option<Vec<u32>>,
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

/// Bytes that a hit takes besides its path.
const HIT_BYTES: usize = 160;
/// Pages that are looked at in one step: names are read from the store.
const PAGES_OF_NAMES: usize = 32;
/// Keys for sorting: the smaller come first, and no two are equal.
type Key = (u64, Inode);
/// Bytes that a path takes while it is sorted, besides its own.
const SORTED_PATH_BYTES: usize = 80;

/// How many bytes sorting so many entries takes in one pass. With less it takes several.
pub fn room_for(order: Order, entries: u64) -> u64 {
    match order {
        Order::None => 0,
        Order::Age | Order::Size => entries.saturating_mul(2 * size_of::<Key>() as u64),
        Order::Path => entries.saturating_mul(3 * SORTED_PATH_BYTES as u64),
    }
}

/// A question, as far as it has been answered.
#[derive(Debug)]
pub struct Search {
    asked: Asked,
    order: Order,
    /// So many answers more.
    left: u64,
    /// Bytes that may be taken for sorting.
    room: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// As the entries lie in the index, from here on.
    Lying(Spot),
    /// Keys are gathered.
    Keys(Keys),
    /// They are in order; from this one on, and this name of it.
    Keyed {
        keys: Vec<Key>,
        next: usize,
        name: usize,
        is_all: bool,
    },
    /// Paths are gathered.
    Paths(Paths),
    /// They are in order.
    Pathed {
        paths: BTreeMap<Vec<u8>, Inode>,
        after: Vec<u8>,
        is_all: bool,
    },
    Done,
}

/// A place in the index: a page, an entry of it, a name of that.
#[derive(Debug, Clone, Copy, Default)]
struct Spot {
    page: usize,
    ino: Inode,
    name: usize,
}

/// The smallest keys after one, as many as there is room for.
#[derive(Debug)]
struct Keys {
    after: Option<Key>,
    page: usize,
    room: usize,
    found: Vec<Key>,
    /// There are as many as there is room for that are not larger than this.
    enough: Option<Key>,
}

impl Keys {
    fn after(after: Option<Key>, room: usize) -> Self {
        Self {
            after,
            page: 0,
            room: (room / (2 * size_of::<Key>())).max(1),
            found: Vec::new(),
            enough: None,
        }
    }

    fn add(&mut self, key: Key) {
        if self.after.is_some_and(|a| key <= a) || self.enough.is_some_and(|e| key > e) {
            return;
        }
        self.found.push(key);
        if self.found.len() >= self.room.saturating_mul(2) {
            let (_, last, _) = self.found.select_nth_unstable(self.room.saturating_sub(1));
            self.enough = Some(*last);
            self.found.truncate(self.room);
        }
    }
}

/// The first paths after one, as many as there is room for.
#[derive(Debug, Default)]
struct Paths {
    after: Option<Vec<u8>>,
    page: usize,
    found: BTreeMap<Vec<u8>, Inode>,
    bytes: usize,
    is_cut: bool,
}

impl Paths {
    fn after(after: Option<Vec<u8>>) -> Self {
        Self {
            after,
            ..Self::default()
        }
    }

    fn add(&mut self, path: Vec<u8>, ino: Inode, room: usize) {
        let is_behind = |last: &Vec<u8>| self.is_cut && path > *last;
        let last = self.found.last_key_value().map(|(path, _)| path);
        if self.after.as_ref().is_some_and(|a| path <= *a) || last.is_some_and(is_behind) {
            return;
        }
        let bytes = path.len().saturating_add(SORTED_PATH_BYTES);
        if self.found.insert(path, ino).is_none() {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        while self.bytes > room && self.found.len() > 1 {
            let Some((last, _)) = self.found.pop_last() else {
                break;
            };
            self.bytes = self
                .bytes
                .saturating_sub(last.len().saturating_add(SORTED_PATH_BYTES));
            self.is_cut = true;
        }
    }
}

/// Hits of one step.
#[derive(Debug, Default)]
struct Bundle {
    hits: Vec<Hit>,
    bytes: usize,
}

impl Bundle {
    fn add(&mut self, hit: Hit) {
        self.bytes = self
            .bytes
            .saturating_add(hit.path.len().saturating_add(HIT_BYTES));
        self.hits.push(hit);
    }

    fn is_full(&self) -> bool {
        self.bytes >= STEP_BYTES
    }
}

impl Search {
    /// So many answers at most (0: all); sorting takes `room` bytes and as many passes as it then needs.
    pub fn new(
        index: &RwLock<Index>,
        filter: Filter,
        order: Order,
        (limit, room): (u64, u64),
        (now, gap_end): (Seconds, Option<Seconds>),
    ) -> Self {
        let below = filter.below.filter(|d| *d != DirId::ROOT).map(|top| {
            index
                .read()
                .dirs()
                .inherit(false, |id, _, above| above || id == top)
        });
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        Self {
            asked: Asked {
                filter,
                below,
                now,
                gap_end,
            },
            order,
            left: if limit == 0 { u64::MAX } else { limit },
            room,
            stage: match order {
                Order::None => Stage::Lying(Spot::default()),
                Order::Age | Order::Size => Stage::Keys(Keys::after(None, room)),
                Order::Path => Stage::Paths(Paths::after(None)),
            },
        }
    }

    /// How many answers are wanted still.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Goes on a little.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn step(&mut self, index: &RwLock<Index>) -> Result<Step<Hit>, StoreError> {
        if self.left == 0 {
            return Ok(Step::Done);
        }
        let mut bundle = Bundle::default();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Lying(spot) => self.asked.lying(&index.read(), spot, &mut bundle)?,
            Stage::Keys(keys) => self.asked.keys(&index.read(), self.order, keys)?,
            Stage::Keyed {
                keys,
                next,
                name,
                is_all,
            } => self.keyed(&index.read(), (keys, is_all), (next, name), &mut bundle)?,
            Stage::Paths(paths) => self.asked.paths(&index.read(), paths, self.room)?,
            Stage::Pathed { paths, after, is_all } => {
                self.pathed(&index.read(), paths, (after, is_all), &mut bundle)
            }
            Stage::Done => return Ok(Step::Done),
        };
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        bundle.hits.truncate(most);
        self.left = self.left.saturating_sub(bundle.hits.len() as u64);
        Ok(match bundle.hits.is_empty() {
            true => Step::Working,
            false => Step::Items(bundle.hits),
        })
    }

    /// What changed since it was sorted is left out if it matches no more.
    fn keyed(
        &self,
        index: &Index,
        (keys, is_all): (Vec<Key>, bool),
        (mut next, mut name): (usize, usize),
        bundle: &mut Bundle,
    ) -> Result<Stage, StoreError> {
        for (_, ino) in keys.iter().skip(next).take(PAGES_AT_ONCE) {
            if let Some((attributes, last)) = self.asked.now_matches(index, *ino)
                && let Some(stopped) = self.asked.named(index, (*ino, attributes, last), name, bundle)?
            {
                name = stopped;
                break;
            }
            (next, name) = (next.saturating_add(1), 0);
            if bundle.is_full() {
                break;
            }
        }
        if next < keys.len() {
            return Ok(Stage::Keyed {
                keys,
                next,
                name,
                is_all,
            });
        }
        Ok(match keys.last() {
            Some(last) if !is_all => Stage::Keys(Keys::after(Some(*last), self.room)),
            _ => Stage::Done,
        })
    }

    fn pathed(
        &self,
        index: &Index,
        mut paths: BTreeMap<Vec<u8>, Inode>,
        (after, is_all): (Vec<u8>, bool),
        bundle: &mut Bundle,
    ) -> Stage {
        while !bundle.is_full()
            && let Some((path, ino)) = paths.pop_first()
        {
            if let Some((attributes, last)) = self.asked.now_matches(index, ino) {
                let expires = self.asked.expires(ino);
                bundle.add(Hit {
                    path,
                    attributes,
                    last,
                    expires,
                });
            }
        }
        match (paths.is_empty(), is_all) {
            (false, _) => Stage::Pathed { paths, after, is_all },
            (true, false) => Stage::Paths(Paths::after(Some(after))),
            (true, true) => Stage::Done,
        }
    }
}

/// Calls `each` with all that match; `each` says whether to go on.
#[cfg(test)]
pub(crate) fn find(
    index: &RwLock<Index>,
    mut search: Search,
    each: &mut dyn FnMut(Hit) -> bool,
) -> Result<(), StoreError> {
    loop {
        match search.step(index)? {
            Step::Items(hits) => {
                for hit in hits {
                    if !each(hit) {
                        return Ok(());
                    }
                }
            }
            Step::Working => {}
            Step::Done => return Ok(()),
        }
    }
}

#[derive(Debug)]
struct Asked {
    filter: Filter,
    below: Option<Vec<bool>>,
    now: Seconds,
    gap_end: Option<Seconds>,
}

impl Asked {
    fn lying(&self, index: &Index, from: Spot, bundle: &mut Bundle) -> Result<Stage, StoreError> {
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

    fn keys(&self, index: &Index, order: Order, mut keys: Keys) -> Result<Stage, StoreError> {
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

    fn paths(&self, index: &Index, mut paths: Paths, room: usize) -> Result<Stage, StoreError> {
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
    fn in_page(
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

    fn now_matches(&self, index: &Index, ino: Inode) -> Option<(Attributes, LastUse)> {
        let (attributes, access) = index.get(ino)?;
        let last = last_use(&attributes, covered(access, self.gap_end), Clocks::ALL, self.now);
        self.matches(ino, &attributes, last).then_some((attributes, last))
    }

    fn matches(&self, ino: Inode, a: &Attributes, last: LastUse) -> bool {
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
    fn named(
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

    fn expires(&self, ino: Inode) -> Option<Seconds> {
        self.filter.expiring.as_ref()?.get(&ino).copied()
    }

    /// The path by one name of an entry, if that matches.
    fn path(
        &self,
        index: &Index,
        (ino, attributes): (Inode, &Attributes),
        parent: DirId,
        name: &[u8],
    ) -> Option<Vec<u8>> {
        let is_below = |dir: DirId| {
            self.below
                .as_ref()
                .is_none_or(|t| t.get(dir.index()).copied().unwrap_or(false))
        };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::index::{Found, Store, VolumeId};
    use crate::model::{Source, Stat};

    use proptest::prelude::*;

    fn index_of(names: &[String]) -> Index {
        let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
        let root = crate::sys::stat::path("/".as_ref()).unwrap().stat;
        index.set_root(&Stat {
            ino: 2,
            kind: Kind::Directory,
            ..root
        });
        let parent = index.dirs().of_inode(2).unwrap();
        for (ino, name) in names.iter().enumerate() {
            let stat = Stat {
                ino: 10 + ino as u64,
                kind: Kind::File,
                ..root
            };
            let first_use = LastUse {
                at: Seconds(1),
                source: Source::Observed,
            };
            let found = Found {
                stat,
                parent,
                name: name.as_bytes(),
                first_use,
            };
            index.upsert(found).unwrap();
        }
        index
    }

    fn found_in(index: &RwLock<Index>, order: Order, limit: u64, room: u64) -> Vec<Hit> {
        let filter = Filter {
            kind: Some(Kind::File),
            ..Filter::default()
        };
        let search = Search::new(index, filter, order, (limit, room), (Seconds(9), None));
        let mut found = Vec::new();
        let mut each = |hit: Hit| {
            found.push(hit);
            true
        };
        find(index, search, &mut each).unwrap();
        found
    }

    proptest! {
        /// However many passes it takes, every path comes once and in its order.
        #[test]
        fn paths_are_sorted_in_passes(names in prop::collection::btree_set("[a-z]{1,6}", 0..40), limit in 0u64..50, room in 0u64..2000) {
            let mut shuffled: Vec<String> = names.iter().cloned().collect();
            shuffled.reverse();
            let index = RwLock::new(index_of(&shuffled));
            let found = found_in(&index, Order::Path, limit, room);
            let found: Vec<String> = found.into_iter().map(|hit| String::from_utf8(hit.path).unwrap()).collect();
            let most = if limit == 0 { usize::MAX } else { limit as usize };
            let expected: Vec<String> = names.into_iter().take(most).collect();
            prop_assert_eq!(found, expected);
        }

        /// And so it is by size, and without an order; a file with many names comes once by each of them.
        #[test]
        fn nothing_is_missed_or_told_twice(sizes in prop::collection::vec(0u64..9, 0..60), links in 0usize..30, room in 0u64..900) {
            let names: Vec<String> = (0..sizes.len()).map(|i| format!("f{i}")).collect();
            let mut index = index_of(&names);
            let root = index.dirs().of_inode(2).unwrap();
            let mut expected = std::collections::BTreeSet::new();
            for (i, size) in sizes.iter().enumerate() {
                let (mut stat, last) = (crate::index::testing::stat(10 + i as u64, Kind::File, *size, 1), LastUse { at: Seconds(1), source: Source::Observed });
                stat.links = links as u32 + 1;
                let more = (0..if i == 3 { links } else { 0 }).map(|n| format!("l{n}"));
                for name in std::iter::once(names[i].clone()).chain(more) {
                    index.upsert(Found { stat, parent: root, name: name.as_bytes(), first_use: last }).unwrap();
                    expected.insert(name);
                }
            }
            let index = RwLock::new(index);
            for order in [Order::None, Order::Size, Order::Age, Order::Path] {
                let found = found_in(&index, order, 0, room);
                if order == Order::Size {
                    prop_assert!(found.is_sorted_by_key(|hit| std::cmp::Reverse(hit.attributes.size)));
                }
                prop_assert_eq!(found.len(), expected.len());
                let paths: std::collections::BTreeSet<String> = found.into_iter().map(|hit| String::from_utf8(hit.path).unwrap()).collect();
                prop_assert_eq!(&paths, &expected);
            }
        }
    }
}
