#![allow(clippy::unwrap_used)]

use purge_base::clock;
use std::fs;
use std::sync::LazyLock;

use super::*;

const ROOT: &str = "/nowhere";
static PLACE: LazyLock<VolumePath> = LazyLock::new(|| below("a/b"));

fn below(path: &str) -> VolumePath {
    VolumePath::new(path.into()).unwrap()
}

fn wanted<'a>(by: &'a str, asker: Asker, seconds: Option<u64>) -> Wanted<'a> {
    Wanted {
        volume: "v",
        root: Path::new(ROOT),
        below: &PLACE,
        ino: 7,
        reason: "a test",
        seconds,
        by,
        asker,
    }
}

fn count(store: &Store) -> usize {
    store.records(Record::Hold, b"").count()
}

#[test]
fn hundreds_of_short_holds_leave_nothing_in_memory_or_store() {
    let store = Store::temporary().unwrap();
    let holds = Holds::open(store.clone(), &[]).unwrap();
    // They have ended when the next one is made.
    for _ in 0..300 {
        holds.add(&wanted("uid 7", Asker::User(7), Some(0))).unwrap();
        assert!(holds.len() <= 1 && count(&store) <= 1);
    }
    holds.tidy().unwrap();
    assert_eq!((holds.len(), count(&store)), (0, 0));
    // What an earlier agent left is removed as well, however long its reason is.
    let mut old = Entry::new(&wanted("uid 7", Asker::User(7), Some(0)), clock::now());
    old.hold.reason = "x".repeat(1 << 20);
    let mut batch = Batch::default();
    batch.put(Record::Hold, b"h1", &stored::encode(&old, ROOT.as_bytes()));
    old.hold.expires = None;
    old.hold.id = "h2".into();
    batch.put(Record::Hold, b"h2", &stored::encode(&old, ROOT.as_bytes()));
    store.apply(batch).unwrap();
    let holds = Holds::open(store.clone(), &[]).unwrap();
    holds.tidy().unwrap();
    let (left, _) = holds.page("", 0, None);
    assert_eq!(left.len(), 1, "the one in force is taken over");
    assert_eq!(left[0].reason.len(), 1 << 20);
}

#[test]
fn no_user_takes_the_room_of_another_and_users_none_of_root() {
    let store = Store::temporary().unwrap();
    let holds = Holds::open(store, &[]).unwrap();
    let full = |by: &str, asker| matches!(holds.add(&wanted(by, asker, None)), Err(HoldError::Full(_)));
    for _ in 0..HOLDS_OF_USER_MAX {
        assert!(!full("uid 7", Asker::User(7)));
    }
    assert!(full("uid 7", Asker::User(7)));
    assert!(!full("uid 8", Asker::User(8)));
    assert!(!full("uid 9", Asker::Role));
    // As if a client had made as many as there may be.
    let many = |by: &str, asker, count: usize| {
        let record = Arc::new(Entry::new(&wanted(by, asker, None), clock::now()));
        holds.all.write().extend(std::iter::repeat_n(record, count));
    };
    many("uid 100", Asker::User(100), 10_000);
    assert!(full("uid 8", Asker::User(8)), "all users together");
    assert!(!full("uid 9", Asker::Role));
    many("uid 9", Asker::Role, 25_000);
    assert!(full("uid 9", Asker::Role));
    assert!(!full("certificate CN=a", Asker::Role));
    many("uid 10", Asker::Role, 60_000);
    assert!(full("certificate CN=a", Asker::Role), "all but root together");
    assert!(!full("uid 0", Asker::Root));
    let message = holds
        .add(&wanted("uid 9", Asker::Role, None))
        .unwrap_err()
        .to_string();
    assert!(message.contains("remove some"), "{message}");
}

#[test]
fn long_paths_and_reasons_count_by_their_bytes() {
    let holds = Holds::open(Store::temporary().unwrap(), &[]).unwrap();
    let reason = "r".repeat(16 << 20);
    let long = Wanted {
        reason: &reason,
        ..wanted("uid 9", Asker::Role, None)
    };
    assert!(matches!(holds.add(&long), Err(HoldError::Full(_))));
}

#[test]
fn many_at_once_are_no_more_than_there_may_be() {
    let store = Store::temporary().unwrap();
    let holds = Holds::open(store.clone(), &[]).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..HOLDS_OF_USER_MAX / 2 {
                    let _ = holds.add(&wanted("uid 7", Asker::User(7), None));
                }
            });
        }
    });
    assert_eq!(holds.len(), HOLDS_OF_USER_MAX);
    assert_eq!(count(&store), HOLDS_OF_USER_MAX, "each has a name of its own");
}

#[test]
fn pages_name_each_hold_once_and_only_ones_own() {
    let holds = Holds::open(Store::temporary().unwrap(), &[]).unwrap();
    let mut names = Vec::new();
    for n in 0..25 {
        let by = if n % 5 == 0 { "uid 8" } else { "uid 9" };
        names.push(holds.add(&wanted(by, Asker::Role, None)).unwrap().id);
    }
    names.sort();
    let walk = |by: Option<&str>| {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let (page, next) = holds.page(&after, 4, by);
            found.extend(page.into_iter().map(|h| h.id));
            match next {
                Some(next) => after = next,
                None => return found,
            }
        }
    };
    assert_eq!(walk(None), names);
    assert_eq!(walk(Some("uid 8")).len(), 5);
    let only = Some((8, "uid 8"));
    let others = holds.page("", 1, Some("uid 9")).0[0].id.clone();
    let said = |id: &str| holds.remove(id, only).unwrap_err().to_string().replace(id, "ID");
    assert_eq!(said(&others), said("hnone"));
    assert!(holds.remove(&walk(Some("uid 8"))[0], only).is_ok());
    assert_eq!(walk(Some("uid 8")).len(), 4);
}

/// A path of an older record is looked up below the volume and nowhere else.
#[test]
fn older_records_hold_what_they_held_and_lead_nowhere_else() {
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path().join("v");
    fs::create_dir_all(root.join("d")).unwrap();
    fs::write(root.join("d/f"), "").unwrap();
    fs::write(tmp.path().join("secret"), "").unwrap();
    std::os::unix::fs::symlink("..", root.join("up")).unwrap();
    let inode = |path: &Path| stat::path(path).unwrap().stat.ino;
    let of = |path: PathBuf| {
        let mut old = Entry::new(&wanted("uid 0", Asker::Root, None), clock::now());
        old.below = None;
        old.hold.path = path.as_os_str().as_bytes().to_vec();
        let store = Store::temporary().unwrap();
        let mut batch = Batch::default();
        batch.put(Record::Hold, b"h", &stored::encode(&old, ROOT.as_bytes()));
        store.apply(batch).unwrap();
        Holds::open(store, &[("v".into(), root.clone())]).unwrap()
    };
    let held = of(root.join("d")).held("v", &root);
    assert!(held.contains(&7) && held.contains(&inode(&root.join("d"))));
    for outside in [
        root.join("../secret"),
        root.join("up/secret"),
        "/etc/passwd".into(),
    ] {
        assert_eq!(
            of(outside).held("v", &root).len(),
            1,
            "only the inode it was made for"
        );
    }
    let holds = of(root.join("d"));
    let chain = [inode(&root.join("d/f")), inode(&root.join("d"))];
    assert_eq!(holds.over("v", &root, &below("d/f"), &chain).len(), 1);
    assert_eq!(holds.over("v", &root, &below("e/f"), &chain[..1]).len(), 0);
    assert_eq!(holds.over("w", &root, &below("d/f"), &chain).len(), 0);
}

/// Batches do not look up thousands of places while others wait for their files, and a hold that is made meanwhile holds at once.
#[test]
fn of_many_holds_a_batch_goes_by_what_the_plan_found() {
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path();
    let inode = |name: &str| stat::path(&root.join(name)).unwrap().stat.ino;
    let make = |name: &str| fs::write(root.join(name), "").unwrap();
    let record = |n: usize, place: &str| {
        let wanted = Wanted {
            below: &below(place),
            ino: 1_000_000 + n as u64,
            ..wanted("uid 9", Asker::Role, None)
        };
        Arc::new(Entry::new(&wanted, clock::now()))
    };
    make("first");
    let holds = Holds::open(Store::temporary().unwrap(), &[]).unwrap();
    holds.all.write().push(record(0, "first"));
    holds.all.write().push(record(1, "second"));
    make("second");
    assert!(
        holds.held("v", root).contains(&inode("second")),
        "few are always looked up"
    );
    fs::remove_file(root.join("second")).unwrap();
    for n in 2..LOOKED_UP_AT_ONCE + 2 {
        holds.all.write().push(record(n, &format!("none{n}")));
    }
    holds.look_up("v", root);
    make("second");
    let held = holds.held("v", root);
    assert!(held.contains(&inode("first")) && !held.contains(&inode("second")));
    holds.all.write().push(record(5000, "third"));
    assert!(
        holds.held("v", root).contains(&1_005_000),
        "what lay there when it was made"
    );
    holds.look_up_again("v", root);
    assert!(holds.held("v", root).contains(&inode("second")));
}
