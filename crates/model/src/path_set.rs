//! Paths of one volume that a client has named, however many: whether an entry lies at or below one of them is one search.
//!
//! The order is that of a walk: what lies below a path stands right behind it, as `/` comes before every other byte of a name.
//!
//! ```text
//!   a          what is asked for stands behind the path that it lies below,
//!   a/b        or behind another one below that: each knows the topmost
//!   a/b/c      path above it, and the next one
//!   a-b
//! ```

use std::cmp::Ordering;

use crate::path::is_within;

/// Some paths, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathSet(Vec<Named>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    path: Vec<u8>,
    /// Positions of the next named path above this one, and of the topmost.
    above: Option<usize>,
    top: usize,
}

impl PathSet {
    /// These paths, relative to the volume.
    pub fn new(mut paths: Vec<Vec<u8>>) -> Self {
        paths.sort_unstable_by(|a, b| in_order(a, b));
        paths.dedup();
        let mut all: Vec<Named> = Vec::with_capacity(paths.len());
        for path in paths {
            let mut above = all.len().checked_sub(1);
            while let Some(named) = above.and_then(|at| all.get(at)) {
                if is_within(&named.path, &path) {
                    break;
                }
                above = named.above;
            }
            let top = above
                .and_then(|at| all.get(at))
                .map_or(all.len(), |named| named.top);
            all.push(Named { path, above, top });
        }
        Self(all)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.iter().map(|named| named.path.as_slice())
    }

    /// Whether `path` is one of them or lies below one.
    pub fn covers(&self, path: &[u8]) -> bool {
        let top = self.before(path).and_then(|at| self.0.get(self.0.get(at)?.top));
        top.is_some_and(|top| is_within(&top.path, path))
    }

    /// Whether one of them is `path` or lies below it.
    pub fn reaches_into(&self, path: &[u8]) -> bool {
        let from = self
            .0
            .partition_point(|named| in_order(&named.path, path) == Ordering::Less);
        self.0.get(from).is_some_and(|named| is_within(path, &named.path))
    }

    /// The one at a position.
    pub fn get(&self, position: usize) -> Option<&[u8]> {
        self.0.get(position).map(|named| named.path.as_slice())
    }

    /// Its position, if it is one of them.
    pub fn position(&self, path: &[u8]) -> Option<usize> {
        self.0.binary_search_by(|named| in_order(&named.path, path)).ok()
    }

    /// The positions of all of them that `path` is or lies below, the lowest first.
    pub fn above(&self, path: &[u8]) -> impl Iterator<Item = usize> {
        let next = |at: &usize| self.0.get(*at).and_then(|named| named.above);
        let is_above = |at: &usize| self.0.get(*at).is_some_and(|named| is_within(&named.path, path));
        std::iter::successors(self.before(path), next).skip_while(move |at| !is_above(at))
    }

    /// The last one that is not behind `path`.
    fn before(&self, path: &[u8]) -> Option<usize> {
        let end = self
            .0
            .partition_point(|named| in_order(&named.path, path) != Ordering::Greater);
        end.checked_sub(1)
    }
}

/// No name has a NUL in it, so a slash can stand for one.
fn in_order(a: &[u8], b: &[u8]) -> Ordering {
    let as_first = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(as_first).cmp(b.iter().map(as_first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(paths: &[&str]) -> PathSet {
        PathSet::new(paths.iter().map(|path| path.as_bytes().to_vec()).collect())
    }

    #[test]
    fn a_name_that_begins_like_another_is_not_below_it() {
        let set = set(&["a", "a/b", "a-b", "c/d", "a"]);
        assert_eq!(set.len(), 4);
        assert!(set.covers(b"a/x") && set.covers(b"a-b/x") && set.covers(b"c/d"));
        assert!(!set.covers(b"a-") && !set.covers(b"c") && !set.covers(b"c/de"));
        assert!(set.reaches_into(b"c") && set.reaches_into(b"") && !set.reaches_into(b"c/d/e"));
    }

    #[test]
    fn the_root_covers_everything_and_no_path_nothing() {
        assert!(set(&[""]).covers(b"a/b") && set(&["", "a"]).covers(b"b"));
        assert!(!set(&[]).covers(b"a") && !set(&[]).reaches_into(b""));
    }

    fn paths() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let path =
            proptest::collection::vec("[a!0]{1,2}", 0..5).prop_map(|names| names.join("/").into_bytes());
        proptest::collection::vec(path, 0..20)
    }

    proptest! {
        #[test]
        fn it_says_the_same_as_asking_each_path(named in paths(), asked in paths()) {
            let set = PathSet::new(named.clone());
            for path in &asked {
                prop_assert_eq!(set.covers(path), named.iter().any(|n| is_within(n, path)));
                prop_assert_eq!(set.reaches_into(path), named.iter().any(|n| is_within(path, n)));
                let mut above: Vec<_> = set.above(path).collect();
                above.sort_unstable();
                let each = named.iter().filter(|n| is_within(n, path)).filter_map(|n| set.position(n));
                let mut each: Vec<_> = each.collect();
                each.sort_unstable();
                each.dedup();
                prop_assert_eq!(above, each);
            }
            prop_assert!(named.iter().all(|n| set.position(n).is_some()));
        }
    }
}
