//! A chain of 100,000 directories, asked everything on a thread with a small stack: nothing recurses by depth, and nothing takes the square.
#![allow(clippy::unwrap_used)]

use parking_lot::RwLock;

use super::find::{Filter, Order, Search, find};
use super::snapshot::Snapshot;
use super::usage::By;
use purge_index::testing::{found, stat};
use purge_index::{DirId, Found, Index, Store, VolumeId};
use purge_model::{Inode, Kind, Seconds};
use purge_policy::evaluate::{Circumstances, Pick, Shape, evaluate};
use purge_policy::forecast;
use purge_policy::rule::{Rule, Target};
use purge_policy::scope::{Globs, Scope};

const LEVELS: u64 = 100_000;
const STACK_BYTES: usize = 256 << 10;
const FIRST: Inode = 1000;
const NOW: Seconds = Seconds(10_000_000);

fn small(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work);
    thread.unwrap().join().unwrap();
}

/// A chain, with a file at each thousandth level.
fn chain() -> (Store, Index) {
    let store = Store::temporary().unwrap();
    let mut index = Index::new(store.clone(), VolumeId(1));
    index.set_root(&stat(2, Kind::Directory, 0, 1));
    let mut at = DirId::ROOT;
    for level in 0..LEVELS {
        let ino = FIRST + 2 * level;
        let dir = Found {
            stat: stat(ino, Kind::Directory, 0, 1),
            parent: at,
            ..found(ino, 0, b"d")
        };
        index.upsert(dir).unwrap();
        at = index.dirs().of_inode(ino).unwrap();
        if level % 1000 == 0 {
            let file = Found {
                parent: at,
                ..found(ino + 1, 10, b"f")
            };
            index.upsert(file).unwrap();
        }
    }
    (store, index)
}

fn rules() -> Vec<Rule> {
    let mut files = Rule::everything_older("v", 100);
    files.remove_empty_dirs = true;
    files.scope = Scope {
        exclude: Some(Globs::compile(&["*.keep".into(), "/x/**".into()]).unwrap()),
        ..Scope::all()
    };
    let mut units = Rule::everything_older("v", 100);
    (units.name, units.target) = ("units".into(), Target::Directory { depth: 2 });
    units.scope.exclude = Some(Globs::compile(&["*.keep".into()]).unwrap());
    vec![units, files]
}

#[test]
fn every_question_is_answered_on_a_small_stack() {
    small(|| {
        let (store, mut index) = chain();
        index.start_write_back(true).commit().unwrap();
        index.written_back(true);
        drop(index);
        let index = Index::load(store, VolumeId(1)).unwrap();
        assert_eq!(index.totals().files, LEVELS / 1000);
        let at = Circumstances {
            now: NOW,
            ..Circumstances::default()
        };
        let all = rules();
        let evaluation = evaluate(&index, &all, &at).unwrap();
        let is_file = |p: &Pick| p.shape == Shape::File;
        assert!(
            evaluation.picks.iter().all(is_file),
            "it is unknown what the patterns say of all of a unit"
        );
        let files = all.get(1..).unwrap_or_default();
        let evaluation = evaluate(&index, files, &at).unwrap();
        // Of the others the path is too long: they are kept.
        let up_to = |bytes: u64| {
            let path_bytes = |n: &u64| 2 * (n * 1000 + 1) - 1;
            (0..LEVELS / 1000).filter(|n| path_bytes(n) <= bytes).count()
        };
        let judged = up_to(8 << 10) as u64;
        assert_eq!(evaluation.files(), judged);
        assert_eq!(evaluation.kept.excluded, LEVELS / 1000 - judged);
        let mut without_patterns = files.to_vec();
        without_patterns
            .iter_mut()
            .for_each(|rule| rule.scope = Scope::all());
        let evaluation = evaluate(&index, &without_patterns, &at).unwrap();
        let named = up_to(32 << 10);
        assert_eq!(evaluation.files(), named as u64);
        for by in [forecast::By::User, forecast::By::Directory(3)] {
            drop(forecast::forecast(&index, files, &at, 30, by).unwrap());
        }
        let snapshot = Snapshot::of(&index, By::Directory(5), 0, None, true);
        assert!(!snapshot.is_empty());
        let every = Snapshot::of(&index, By::Directory(u32::MAX), 0, None, true);
        let paths = (0..u32::try_from(every.len()).unwrap()).filter_map(|row| match every.subject(row)? {
            super::usage::Subject::Directory(id) => every.path(id),
            super::usage::Subject::Id(_) => None,
        });
        assert_eq!(paths.count(), named);
        let index = RwLock::new(index);
        for order in [Order::None, Order::Path, Order::Size] {
            let filter = Filter {
                kind: Some(Kind::File),
                below: index.read().dirs().of_inode(FIRST + 2),
                ..Filter::default()
            };
            let mut hits = 0;
            let mut each = |_| {
                hits += 1;
                true
            };
            let search = Search::new(&index, filter, order, (0, 1 << 20), (NOW, None));
            find(&index, search, &mut each).unwrap();
            assert_eq!(hits, named - 1, "the first lies above");
        }
        let mut index = index.into_inner();
        assert_eq!(index.remove_tree(FIRST).unwrap() as u64, LEVELS + LEVELS / 1000);
    });
}

#[test]
fn a_chain_that_is_moved_about_at_its_end_costs_no_walk_to_its_top() {
    small(|| {
        let (_store, mut index) = chain();
        let last = FIRST + 2 * (LEVELS - 1);
        let parent = index.parent_of(last).unwrap();
        for n in 0..20_000u32 {
            let name = n.to_string();
            // Nothing is known of how a place that deep lies to another: a scan finds it.
            assert!(!index.move_dir(last, parent, name.as_bytes()).unwrap());
        }
    });
}
