//! Which rules can speak of which directories, found out once for all of them: of three hundred rules, each for a directory of its own, one is
//! asked of a file and not three hundred. A rule that is left out speaks of nothing there; one that is not may still say no.

use std::cell::RefCell;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::scope::Scope;
use purge_index::{DirId, Directories};

/// Positions of rules.
pub(super) type Positions = Arc<[u16]>;

/// For each directory the rules that can speak of what lies right in it.
#[derive(Debug)]
pub(super) struct Reach {
    lists: Vec<Positions>,
    /// By directory: which list; empty: the first for all.
    of: Vec<u32>,
}

impl Reach {
    /// Of rules with these scopes, in their order.
    pub fn new<'s>(dirs: &Directories, scopes: impl Iterator<Item = &'s Scope>) -> Self {
        let places: Vec<Vec<Vec<&[u8]>>> = scopes.map(Scope::places).collect();
        let all: Positions = (0..places.len()).filter_map(|n| u16::try_from(n).ok()).collect();
        if places.iter().flatten().all(Vec::is_empty) {
            return Self {
                lists: vec![all],
                of: Vec::new(),
            };
        }
        let lists = RefCell::new(Lists::of(all));
        let of = dirs.inherit((0u32, 0u32), |_, dir, (list, level)| {
            let below = lists.borrow().get(list);
            let is_near = |rule: &&u16| {
                let places = places.get(usize::from(**rule)).into_iter().flatten();
                let mut names = places.map(|names| names.get(level as usize));
                names.any(|name| name.is_none_or(|name| *name == &*dir.name))
            };
            let near: Positions = below.iter().filter(is_near).copied().collect();
            let number = match near.len() == below.len() {
                true => list,
                false => lists.borrow_mut().number(near),
            };
            (number, level.saturating_add(1))
        });
        Self {
            lists: lists.into_inner().lists,
            of: of.into_iter().map(|(list, _)| list).collect(),
        }
    }

    /// The number of a directory's list.
    pub fn list_of(&self, dir: DirId) -> u32 {
        self.of.get(dir.index()).copied().unwrap_or(0)
    }

    /// The rules of a list.
    pub fn rules(&self, list: u32) -> &[u16] {
        self.lists.get(list as usize).map_or(&[], |list| list)
    }

    /// The rules that can speak of what lies right in a directory.
    pub fn near(&self, dir: DirId) -> &[u16] {
        self.rules(self.list_of(dir))
    }
}

/// Equal lists are kept once.
struct Lists {
    lists: Vec<Positions>,
    numbers: FxHashMap<Positions, u32>,
}

impl Lists {
    fn of(first: Positions) -> Self {
        Self {
            lists: vec![Arc::clone(&first)],
            numbers: FxHashMap::from_iter([(first, 0)]),
        }
    }

    fn get(&self, number: u32) -> Positions {
        self.lists
            .get(number as usize)
            .cloned()
            .unwrap_or_else(|| Arc::from([]))
    }

    fn number(&mut self, list: Positions) -> u32 {
        if let Some(number) = self.numbers.get(&list) {
            return *number;
        }
        let number = u32::try_from(self.lists.len()).unwrap_or(u32::MAX);
        self.lists.push(Arc::clone(&list));
        self.numbers.insert(list, number);
        number
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scope::Globs;
    use proptest::prelude::*;

    fn scope(include: &[&str]) -> Scope {
        let include: Vec<String> = include.iter().map(|p| (*p).to_owned()).collect();
        Scope {
            include: Globs::compile(&include).unwrap(),
            ..Scope::all()
        }
    }

    proptest! {
        /// A rule that is left out of a directory admits nothing there.
        #[test]
        fn no_rule_is_left_out_that_speaks(
            parents in prop::collection::vec((0usize..20, 0u8..4), 0..20),
            asked in prop::collection::vec((0usize..21, 0u8..4, any::<bool>()), 0..20),
        ) {
            let scopes = [
                scope(&["/a/b/**"]), scope(&["a/b"]), scope(&["b"]), scope(&["/a/", "/b/c/d"]), scope(&["/a/*/b"]),
                scope(&["**/d"]), scope(&["/c/**/a"]), scope(&["/[a]/b"]), scope(&["/a"]), Scope::all(), scope(&["c/"]),
            ];
            let mut dirs = Directories::default();
            let mut ids = vec![dirs.upsert(2, DirId::ROOT, b"")];
            let name = |n: u8| [&b"a"[..], b"b", b"c", b"d"][usize::from(n)];
            for (n, (parent, called)) in parents.iter().enumerate() {
                let parent = ids[*parent % ids.len()];
                ids.push(dirs.upsert(10 + n as u64, parent, name(*called)));
            }
            let reach = Reach::new(&dirs, scopes.iter());
            for (dir, called, is_dir) in asked {
                let dir = ids[dir % ids.len()];
                let mut path = dirs.path(dir).unwrap();
                purge_model::path::push(&mut path, name(called));
                for (n, scope) in scopes.iter().enumerate() {
                    let is_near = reach.near(dir).contains(&u16::try_from(n).unwrap());
                    prop_assert!(is_near || !scope.admits_path(&path, is_dir), "{} {:?}", n, String::from_utf8_lossy(&path));
                }
            }
        }
    }

    #[test]
    fn of_many_rules_one_is_near() {
        let scopes: Vec<Scope> = (0..300).map(|n| scope(&[&format!("/u{n}/**")])).collect();
        let mut dirs = Directories::default();
        let root = dirs.upsert(2, DirId::ROOT, b"");
        let seventh = dirs.upsert(10, root, b"u7");
        let below = dirs.upsert(11, seventh, b"below");
        let other = dirs.upsert(12, root, b"other");
        let reach = Reach::new(&dirs, scopes.iter());
        assert_eq!(reach.near(root).len(), 300);
        assert_eq!((reach.near(seventh), reach.near(below)), (&[7][..], &[7][..]));
        assert!(reach.near(other).is_empty());
    }
}
