//! Entries of the index that match, a few at a time. The caller takes the next ones when it has room for them, and sorting takes no more
//! memory than it is given.
//!
//! - this file  a question, and how far it is answered
//! - `asked`    what is asked of each entry
//! - `sorting`  the first ones, in passes

mod asked;
mod sorting;

use std::collections::BTreeMap;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use self::asked::Asked;
use self::sorting::{Key, Keys, Paths, SORTED_PATH_BYTES};
use super::{PAGES_AT_ONCE, STEP_BYTES, Step};
use purge_index::below::Below;
use purge_index::{Attributes, DirId, Index, StoreError};
use purge_model::{Inode, Kind, LastUse, Seconds};
use purge_policy::scope::Globs;

/// What is asked for; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only below this directory.
    pub below: Option<DirId>,
    /// Last used more than this many seconds ago.
    pub older: Option<u64>,
    /// Last used less than this many seconds ago.
    pub newer: Option<u64>,
    /// One of these owners.
    pub uids: Option<Vec<u32>>,
    /// One of these groups.
    pub gids: Option<Vec<u32>>,
    /// At least this many bytes.
    pub min_size: Option<u64>,
    /// At most this many bytes.
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
/// How many bytes sorting this many entries takes in one pass. With less it takes several.
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
    /// At most this many more answers.
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
    /// At most `limit` answers (0: all); sorting takes `room` bytes and as many passes as it then needs.
    pub fn new(
        index: &RwLock<Index>,
        filter: Filter,
        order: Order,
        (limit, room): (u64, u64),
        (now, gap_end): (Seconds, Option<Seconds>),
    ) -> Self {
        let top = filter.below.filter(|d| *d != DirId::ROOT);
        let below = top.map(|top| Below::new(index.read().dirs(), top));
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
        if let Some(below) = self.asked.below.as_mut().filter(|below| !below.is_known()) {
            below.step(index.read().dirs());
            return Ok(Step::Working);
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
///
/// # Errors
/// When the index cannot be read.
#[cfg(any(test, feature = "testing"))]
pub fn find(
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

#[cfg(test)]
mod tests;
