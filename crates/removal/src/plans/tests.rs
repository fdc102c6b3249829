#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use parking_lot::RwLock;
use proptest::prelude::*;

use super::*;
use crate::protection::Guard;
use purge_index::{DirId, Found, VolumeId};
use purge_model::{Kind, LastUse, Source, Stat};
use purge_policy::evaluate::{Circumstances, evaluate_with};
use purge_policy::portion::Portion;
use purge_policy::rule::Rule;

const NOW: u32 = 1_000_000;

fn stat(ino: u64, kind: Kind) -> Stat {
    let old = Seconds(NOW - 1000);
    Stat {
        ino,
        kind,
        size: 10,
        allocated: 0,
        project: 0,
        uid: 7,
        gid: 7,
        links: 1,
        atime: old,
        mtime: old,
        ctime: old,
        ctime_nanos: 0,
        birth: old,
    }
}

fn index_of(files: u64, store: &Store) -> Index {
    let mut index = Index::new(store.clone(), VolumeId(1));
    index.set_root(&stat(2, Kind::Directory));
    for ino in 100..100 + files {
        let first_use = LastUse {
            at: Seconds(NOW - 1000),
            source: Source::Observed,
        };
        let name = format!("f{ino}");
        let found = Found {
            stat: stat(ino, Kind::File),
            parent: DirId::ROOT,
            name: name.as_bytes(),
            first_use,
        };
        index.upsert(found).unwrap();
    }
    index
}

proptest! {
    /// Apply compares with what the plan holds: it must hold nothing that came after the evaluation.
    #[test]
    fn what_is_used_between_evaluation_and_saving_is_no_candidate(
        used in prop::collection::btree_set(100u64..140, 0..20),
        written in prop::collection::btree_set(100u64..140, 0..20),
        together in prop_oneof![Just(5), Just(usize::MAX)],
    ) {
        let store = Store::temporary().unwrap();
        let index = RwLock::new(index_of(40, &store));
        let mut rule = Rule::everything_older("v", 100);
        rule.remove_empty_dirs = false;
        let at = Circumstances { now: Seconds(NOW), ..Circumstances::default() };
        let found = evaluate_with(&index.read(), std::slice::from_ref(&rule), &at, together).unwrap();
        prop_assert_eq!(found.candidates(), 40);
        for ino in &used {
            index.write().record_use(*ino, Seconds(NOW));
        }
        for ino in &written {
            let mut now = stat(*ino, Kind::File);
            (now.mtime, now.ctime) = (Seconds(NOW), Seconds(NOW));
            index.write().refresh(&now).unwrap();
        }
        let plans = Plans::new(store);
        let occasion = Occasion {
            volume: "v",
            rules: &[rule],
            at: &at,
            began: 0,
            seconds: 0.0,
            whole: Portion {
                files: 4,
                bytes: 400,
                takes: 400,
            },
            left_out: Vec::new(),
            own_ttl: false,
            owner_names: |_| HashMap::new(),
            trigger: None,
            idle: Vec::new(),
            guard: Guard::Leases,
            by: By::client("uid 7"),
        };
        let plan = plans.save(&index, found, &occasion).unwrap();
        let id = plan.id.clone();
        let planned: std::collections::BTreeSet<u64> =
            (0..plan.chunks).flat_map(|n| plans.chunk(&id, n).unwrap()).map(|c| c.ino).collect();
        let left: std::collections::BTreeSet<u64> =
            (100..140).filter(|ino| !used.contains(ino) && !written.contains(ino)).collect();
        prop_assert_eq!(planned, left);
    }
}
