//! Sorting in passes: the first keys or paths that there is room for, and then those after them.

use std::collections::BTreeMap;

use purge_model::Inode;

/// Keys for sorting: the smaller come first, and no two are equal.
pub(super) type Key = (u64, Inode);
/// Bytes that a path takes while it is sorted, besides its own.
pub(super) const SORTED_PATH_BYTES: usize = 80;

/// The smallest keys after one, as many as there is room for.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) after: Option<Key>,
    pub(super) page: usize,
    pub(super) room: usize,
    pub(super) found: Vec<Key>,
    /// There are as many as there is room for that are not larger than this.
    pub(super) enough: Option<Key>,
}

impl Keys {
    pub(super) fn after(after: Option<Key>, room: usize) -> Self {
        Self {
            after,
            page: 0,
            room: (room / (2 * size_of::<Key>())).max(1),
            found: Vec::new(),
            enough: None,
        }
    }

    pub(super) fn add(&mut self, key: Key) {
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
pub(super) struct Paths {
    pub(super) after: Option<Vec<u8>>,
    pub(super) page: usize,
    pub(super) found: BTreeMap<Vec<u8>, Inode>,
    pub(super) bytes: usize,
    pub(super) is_cut: bool,
}

impl Paths {
    pub(super) fn after(after: Option<Vec<u8>>) -> Self {
        Self {
            after,
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, path: Vec<u8>, ino: Inode, room: usize) {
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
