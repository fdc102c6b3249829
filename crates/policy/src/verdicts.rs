//! What a scope's globs say of directories, each asked once. A pattern that covers a directory covers everything in it. To ask for
//! every directory above an entry each time takes the square of how deep it lies.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::scope::Scope;
use purge_index::{DirId, Directories};

/// Longer paths are compared with no pattern, and what lies there is in the scope of no rule that has some: each directory would take as
/// long as its path is.
pub(super) const PATTERN_BYTES_MAX: usize = 8 << 10;

/// Directories of one piece: what no rule speaks of takes no memory.
const PIECE: usize = 1024;

type Piece = Box<[AtomicU8]>;

/// What is known of directories, by their ids. Several threads may ask.
#[derive(Debug)]
pub(super) struct Verdicts(Vec<OnceLock<Piece>>);

/// What covers a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covered {
    /// A pattern of `include` does.
    pub included: bool,
    /// A pattern of `exclude` does, or it is unknown whether one does.
    pub excluded: bool,
}

const KNOWN: u8 = 1;
const INCLUDED: u8 = 2;
const EXCLUDED: u8 = 4;

impl Verdicts {
    /// Nothing is known yet.
    pub fn new(dirs: &Directories) -> Self {
        let mut all = Vec::new();
        all.resize_with(dirs.table_len().div_ceil(PIECE), OnceLock::new);
        Self(all)
    }

    /// What covers a directory, whose path is `None` where it leads nowhere or is too long.
    pub fn of(&self, dirs: &Directories, scope: &Scope, dir: DirId) -> Covered {
        let mut chain = Vec::new();
        let mut at = dir;
        while self.known(at).is_none() && at != DirId::ROOT && chain.len() <= dirs.table_len() {
            let Some(entry) = dirs.get(at) else { break };
            chain.push(at);
            at = entry.parent;
        }
        let mut bits = self.known(at).unwrap_or(KNOWN);
        for id in chain.into_iter().rev() {
            bits = judged(dirs, scope, id, bits);
            self.know(id, bits);
        }
        Covered {
            included: bits & INCLUDED != 0,
            excluded: bits & EXCLUDED != 0,
        }
    }

    /// Whether the entry `name` of a directory is in scope.
    pub fn admits(
        &self,
        dirs: &Directories,
        scope: &Scope,
        (dir, name): (DirId, &[u8]),
        is_dir: bool,
    ) -> bool {
        let above = self.of(dirs, scope, dir);
        if above.excluded {
            return false;
        }
        if !scope.needs_path_below(above.included) {
            return true;
        }
        let Some(mut path) = dirs.path(dir) else {
            return false;
        };
        purge_model::path::push(&mut path, name);
        scope.admits_below(above.included, &path, is_dir)
    }

    /// Whether `include` has the entry `name` of a directory, also where `exclude` has it. A path that is too long is compared with no pattern.
    pub fn includes(&self, dirs: &Directories, scope: &Scope, (dir, name): (DirId, &[u8])) -> bool {
        if self.of(dirs, scope, dir).included {
            return true;
        }
        let Some(mut path) = dirs.path(dir) else {
            return true;
        };
        purge_model::path::push(&mut path, name);
        path.len() > PATTERN_BYTES_MAX || scope.is_included(&path, false)
    }

    fn known(&self, id: DirId) -> Option<u8> {
        let piece = self.0.get(id.index() / PIECE)?.get()?;
        let bits = piece.get(id.index() % PIECE)?.load(Relaxed);
        (bits & KNOWN != 0).then_some(bits)
    }

    fn know(&self, id: DirId, bits: u8) {
        let piece = self.0.get(id.index() / PIECE);
        let piece =
            piece.map(|piece| piece.get_or_init(|| (0..PIECE).map(|_| AtomicU8::default()).collect()));
        if let Some(place) = piece.and_then(|piece| piece.get(id.index() % PIECE)) {
            place.store(bits, Relaxed);
        }
    }
}

fn judged(dirs: &Directories, scope: &Scope, id: DirId, above: u8) -> u8 {
    if above & EXCLUDED != 0 {
        return above;
    }
    let Some(path) = dirs.path(id).filter(|path| path.len() <= PATTERN_BYTES_MAX) else {
        return above | EXCLUDED;
    };
    let included = scope.includes(&path, true);
    let excluded = scope.excludes(&path, true);
    above | if included { INCLUDED } else { 0 } | if excluded { EXCLUDED } else { 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scope::Globs;
    use proptest::prelude::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::compile(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    proptest! {
        /// Asked for each directory once, it is what is said of the whole path.
        #[test]
        fn they_say_what_the_whole_path_says(
            parents in prop::collection::vec((0usize..20, 0u8..4), 0..20),
            asked in prop::collection::vec((0usize..21, 0u8..4, any::<bool>()), 0..20),
        ) {
            let scope = Scope {
                include: globs(&["/a/b", "c/**", "b.x", "**/d/"]),
                exclude: Some(Globs::compile_exclude(&["a/a", "*.x", "/c/d/", "/*/", "b/d/."].map(String::from)).unwrap()),
                ..Scope::all()
            };
            let mut dirs = Directories::default();
            let mut ids = vec![dirs.upsert(2, DirId::ROOT, b"")];
            let name = |n: u8| [&b"a"[..], b"b", b"c", b"d"][usize::from(n)];
            for (n, (parent, called)) in parents.iter().enumerate() {
                let parent = ids[*parent % ids.len()];
                ids.push(dirs.upsert(10 + n as u64, parent, name(*called)));
            }
            let verdicts = Verdicts::new(&dirs);
            for (dir, called, is_dir) in asked {
                let dir = ids[dir % ids.len()];
                let name = [&b"a"[..], b"b.x", b"c", b"d"][usize::from(called)];
                let mut path = dirs.path(dir).unwrap();
                purge_model::path::push(&mut path, name);
                prop_assert_eq!(verdicts.admits(&dirs, &scope, (dir, name), is_dir), scope.admits_path(&path, is_dir));
            }
        }
    }
}
