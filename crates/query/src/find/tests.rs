#![allow(clippy::unwrap_used)]
use super::*;
use purge_index::{Found, Store, VolumeId};
use purge_model::{Source, Stat};

use proptest::prelude::*;

fn index_of(names: &[String]) -> Index {
    let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
    let root = purge_sys::stat::path("/".as_ref()).unwrap().stat;
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
            let (mut stat, last) = (purge_index::testing::stat(10 + i as u64, Kind::File, *size, 1), LastUse { at: Seconds(1), source: Source::Observed });
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
