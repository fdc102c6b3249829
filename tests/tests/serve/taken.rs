//! Ordinary users find and restore what a run took of theirs, and learn and change nothing of what is another's.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use purge_proto::v1;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use purge_tests::files::{age_tree, files_in_trash, make_one};
use purge_tests::rpc::{channel_as, runtime};
use purge_tests::{Agent, Config, Fs, Mount, need};
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

const ALICE: u32 = 4001;
const BOB: u32 = 4002;
/// Who have a job each.
const MORE: [u32; 2] = [4011, 4012];
const MEMBERS: u32 = 4100;
/// Runs besides the first.
const RUNS: usize = 12;

/// What a run took of two users, in directories of their own and in one that both may write to.
struct World {
    agent: Agent,
    runtime: Runtime,
    root: PathBuf,
    mount: Mount,
}

fn put(path: &Path, uid: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    chown(make_one(path), Some(uid), Some(uid)).unwrap();
}

fn own(dir: &Path, uid: u32, gid: u32, mode: u32) {
    fs::create_dir_all(dir).unwrap();
    chown(dir, Some(uid), Some(gid)).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
}

impl World {
    fn new(access: &str) -> Result<Self, purge_tests::skip::Unmet> {
        let mount = Mount::new(Fs::Ext4)?;
        fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = mount.dir("volume");
        for (name, uid) in [("alice", ALICE), ("bob", BOB)] {
            put(&root.join(name).join("results/a.dat"), uid);
            put(&root.join(name).join("jobs/j1/out"), uid);
            put(&root.join("shared").join(name), uid);
            put(&root.join("read-only").join(name), uid);
            for dir in ["results", "more", "jobs/j1", "jobs", ""] {
                own(&root.join(name).join(dir), uid, uid, 0o700);
            }
        }
        for uid in MORE {
            put(&root.join(format!("{uid}/jobs/j1/out")), uid);
            own(&root.join(format!("{uid}/jobs/j1")), uid, uid, 0o700);
        }
        // Each of these goes in a run of its own.
        for n in 0..RUNS {
            put(&root.join(format!("alice/more/{n}/file")), ALICE);
        }
        // Bob has a directory in Alice's that she cannot enter.
        put(&root.join("alice/jobs/j1/of-bob/b"), BOB);
        own(&root.join("alice/jobs/j1/of-bob"), BOB, BOB, 0o700);
        // Of Alice's, moved by Bob to where she cannot look.
        put(&root.join("bob/private/of-alice"), ALICE);
        own(&root.join("bob/private"), BOB, BOB, 0o700);
        own(&root.join("shared"), 0, MEMBERS, 0o2770);
        own(&root.join("read-only"), 0, 0, 0o755);
        age_tree(&root);
        let keys = "exclude = [\"*/jobs/**\", \"*/more/**\"]\ngrace = \"1h\"\nremove_empty_dirs = false";
        let config = Config::backdated_with(&root, keys).rule(
            "jobs",
            "ttl = \"1h\"\nclock = [\"access\"]\ntarget = \"directory\"\ndepth = 3\ninclude = [\"*/jobs/**\"]\ngrace = \"1h\"\nremove_empty_dirs = false",
        );
        let config = config.rule(
            "more",
            "ttl = \"1h\"\nclock = [\"access\"]\ninclude = [\"*/more/**\"]\ngrace = \"1h\"\nremove_empty_dirs = false",
        );
        let agent = Agent::tracking(&config.access(access));
        agent.reachable();
        let plan = agent.ctl().plan_with(["--rule", "old", "--rule", "jobs"]);
        let run = agent.ctl().apply(&plan).ok().json();
        assert_eq!(run["trashed"]["directories"], 4, "{run}");
        assert_eq!(run["trashed"]["files"], 7, "{run}");
        Ok(Self {
            agent,
            runtime: runtime(),
            root,
            mount,
        })
    }

    fn user(&self, uid: u32) -> Client<'_> {
        let channel = channel_as(&self.runtime, &self.agent, uid, &[uid, MEMBERS]).unwrap();
        Client {
            world: self,
            grpc: PurgeAgentClient::new(channel),
        }
    }
}

struct Client<'w> {
    world: &'w World,
    grpc: PurgeAgentClient<Channel>,
}

impl Client<'_> {
    fn path(&self, name: &str) -> Vec<u8> {
        self.world.root.join(name).as_os_str().as_bytes().to_vec()
    }

    fn explain(&self, name: &str) -> Result<v1::Explanation, Status> {
        let path = self.path(name);
        let mut grpc = self.grpc.clone();
        let answer = grpc.explain(v1::ExplainRequest { path });
        self.world
            .runtime
            .block_on(answer)
            .map(tonic::Response::into_inner)
    }

    fn restore(&self, name: &str) -> Result<v1::RestoreReport, Status> {
        self.restore_to(name, Vec::new(), false)
    }

    fn restore_to(&self, name: &str, to: Vec<u8>, dry_run: bool) -> Result<v1::RestoreReport, Status> {
        let request = v1::RestoreRequest {
            paths: vec![self.path(name)],
            to,
            dry_run,
            ..v1::RestoreRequest::default()
        };
        let mut grpc = self.grpc.clone();
        let answer = grpc.restore(request);
        self.world
            .runtime
            .block_on(answer)
            .map(tonic::Response::into_inner)
    }

    /// The names of what is listed, below the volume.
    fn trash(&self, path: Vec<u8>) -> Result<Vec<String>, Status> {
        let root = self.world.root.as_os_str().as_bytes();
        let name = |entry: v1::TrashEntry| {
            let below = entry.path.strip_prefix(root).unwrap();
            String::from_utf8_lossy(below).trim_start_matches('/').to_owned()
        };
        let mut all: Vec<String> = self.listed(path)?.into_iter().map(name).collect();
        all.sort();
        Ok(all)
    }

    fn listed(&self, path: Vec<u8>) -> Result<Vec<v1::TrashEntry>, Status> {
        self.world.runtime.block_on(async {
            let request = v1::ListTrashRequest {
                path,
                ..v1::ListTrashRequest::default()
            };
            let mut stream = self.grpc.clone().list_trash(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(entry) = stream.message().await? {
                all.push(entry);
            }
            Ok(all)
        })
    }
}

fn refused<T>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.err().expect("a refusal");
    (status.code(), status.message().to_owned())
}

#[test]
fn users_see_and_restore_what_was_theirs() {
    let world = need!(World::new("self = true"));
    let alice = world.user(ALICE);
    let told = alice.explain("alice/results/a.dat").unwrap();
    assert_eq!(told.taken[0].state(), v1::TakenState::Trashed, "{told:?}");
    let told = alice.explain("alice/jobs/j1/out").unwrap();
    assert_eq!(told.taken[0].path, alice.path("alice/jobs/j1"), "{told:?}");
    let seen = [
        "alice/jobs/j1",
        "alice/results/a.dat",
        "read-only/alice",
        "shared/alice",
    ];
    assert_eq!(alice.trash(Vec::new()).unwrap(), seen);
    assert_eq!(
        alice.trash(alice.path("alice/results")).unwrap(),
        ["alice/results/a.dat"]
    );

    fs::remove_dir(world.root.join("alice/results")).unwrap();
    let dry = alice.restore_to("alice", Vec::new(), true).unwrap();
    assert_eq!((dry.items_total, dry.failed_total), (2, 0), "{dry:?}");
    let report = alice.restore("alice").unwrap();
    let totals = report.restored.unwrap();
    assert_eq!(
        (totals.files, totals.directories, totals.files_inside),
        (1, 1, 1),
        "{report:?}"
    );
    // Also where a directory is missing by now that was hers, and in a directory that she may write to.
    let file = world.root.join("alice/results/a.dat");
    let is = fs::metadata(&file).unwrap();
    assert_eq!(
        (is.uid(), fs::metadata(file.parent().unwrap()).unwrap().uid()),
        (ALICE, ALICE)
    );
    assert_eq!(alice.restore("shared/alice").unwrap().failed_total, 0);
    let audit = world.agent.ctl().run(["runs"]).ok().text();
    assert!(audit.contains("done"), "{audit}");
    assert!(!files_in_trash(&world.root).is_empty(), "what was Bob's is there");
}

#[test]
fn what_was_anothers_is_not_told_from_what_never_was() {
    let world = need!(World::new("self = true"));
    let alice = world.user(ALICE);
    let same = |name: &str, (code, words): (Code, String)| {
        (
            code,
            words.replace(&String::from_utf8_lossy(&alice.path(name)).into_owned(), "PATH"),
        )
    };
    let names = [
        "bob/results/none",
        "bob/results/a.dat",
        "bob/results",
        "bob/jobs/j1",
        "bob/jobs/j1/out",
        "shared/bob",
        "none",
        // Hers, and where it lies now is none of her business.
        "bob/private/of-alice",
    ];
    for (n, ask) in [
        |c: &Client<'_>, name: &str| refused(c.explain(name)),
        |c: &Client<'_>, name: &str| refused(c.restore(name)),
        |c: &Client<'_>, name: &str| refused(c.restore_to(name, Vec::new(), true)),
        |c: &Client<'_>, name: &str| refused(c.trash(c.path(name))),
    ]
    .into_iter()
    .enumerate()
    {
        let said: Vec<_> = names.map(|name| same(name, ask(&alice, name))).into();
        assert!(said.iter().all(|one| *one == said[0]), "call {n}: {said:#?}");
        assert_eq!(said[0].0, Code::PermissionDenied, "{said:?}");
    }
    // Root finds all of it.
    let root = world.user(0);
    assert!(
        names
            .iter()
            .skip(1)
            .all(|name| *name == "none" || root.explain(name).is_ok())
    );
    assert_eq!(root.trash(Vec::new()).unwrap().len(), 11);
}

#[test]
fn files_of_others_in_a_directory_of_theirs_are_not_counted_for_them() {
    let world = need!(World::new("self = true"));
    let job = "alice/jobs/j1";
    for (uid, files, told) in [(ALICE, 1, 0), (0, 2, 2)] {
        let client = world.user(uid);
        let listed = client.listed(client.path(job)).unwrap();
        let counts: Vec<_> = listed.iter().map(|e| (e.files_inside, e.bytes > 0)).collect();
        assert_eq!(counts, [(files, true)], "the trash of uid {uid}");
        let taken = &client.explain(job).unwrap().taken[0];
        assert_eq!(
            (taken.files_inside, taken.amount_hidden),
            (told, uid == ALICE),
            "explain of uid {uid}"
        );
        let dry = client.restore_to(job, Vec::new(), true).unwrap();
        let whole: Vec<_> = dry.items.iter().map(|item| item.files_inside).collect();
        assert_eq!(
            (whole, dry.restored.unwrap().files_inside),
            (vec![files], files),
            "a restore of uid {uid}"
        );
    }
    // What is theirs goes back with all that is in it.
    world.user(ALICE).restore(job).unwrap();
    assert!(world.root.join("alice/jobs/j1/of-bob/b").exists());
}

/// As many paths as one call may name, each below a directory that a run took.
fn many_paths(client: &Client<'_>, job: &str) -> v1::RestoreRequest {
    v1::RestoreRequest {
        paths: (0..10_000)
            .map(|n| client.path(&format!("{job}/none-{n}")))
            .collect(),
        dry_run: true,
        ..v1::RestoreRequest::default()
    }
}

#[test]
fn users_who_ask_for_thousands_of_paths_and_leave_keep_no_viewer_waiting() {
    let world = need!(World::new("self = true\nviewer = { users = [\"65534\"] }"));
    let ctl = world.agent.ctl();
    for n in 0..RUNS {
        let dir = world.root.join(format!("alice/more/{n}"));
        let plan = ctl.plan_with(["--rule", "more", dir.to_str().unwrap()]);
        let _ = ctl.apply(&plan).ok();
    }
    let alice = world.user(ALICE);
    let request = many_paths(&alice, "alice/jobs/j1");
    let (code, why) = refused(world.runtime.block_on(alice.grpc.clone().restore(request)));
    assert_eq!(code, Code::NotFound);
    assert!(why.contains("is in the trash"), "{why}");
    for (uid, job) in [(ALICE, "alice"), (MORE[0], "4011"), (MORE[1], "4012")] {
        let client = world.user(uid);
        for _ in 0..3 {
            let mut grpc = client.grpc.clone();
            let request = many_paths(&client, &format!("{job}/jobs/j1"));
            world.runtime.spawn(async move {
                let _ = tokio::time::timeout(Duration::from_millis(300), grpc.restore(request)).await;
            });
        }
    }
    let pause = async { tokio::time::sleep(Duration::from_secs(1)).await };
    world.runtime.block_on(pause);
    let began = Instant::now();
    let mut viewer = world.user(65534).grpc;
    let status = viewer.get_status(v1::GetStatusRequest {});
    world.runtime.block_on(status).unwrap();
    let mine = world.user(BOB).explain("bob/results/a.dat").unwrap();
    assert_eq!(mine.taken.len(), 1);
    let took = began.elapsed();
    println!("a viewer and another user were answered in {took:?}");
    // A minute and more with one question after another of each run for each path.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn nothing_is_restored_for_a_user_where_they_could_not_put_it() {
    let world = need!(World::new("self = true"));
    let (alice, bob) = (world.user(ALICE), world.user(BOB));
    let before = files_in_trash(&world.root).len();
    let report = alice.restore("read-only/alice").unwrap();
    assert_eq!(
        (report.failed_total, files_in_trash(&world.root).len()),
        (1, before),
        "{report:?}"
    );
    assert!(
        report.failed[0].error.contains("you may not make entries there"),
        "{report:?}"
    );
    // To a directory of another user, of root without write permission, or to none.
    for to in ["bob", "read-only", "none"] {
        let (code, why) = refused(alice.restore_to("alice/results/a.dat", alice.path(to), false));
        assert_eq!(code, Code::PermissionDenied, "{to}: {why}");
    }
    // Bob has made himself a place where hers was: it is his directory, and nothing of hers goes there.
    let place = world.root.join("alice/results");
    let _ = fs::remove_dir_all(&place);
    own(&place, BOB, BOB, 0o777);
    let report = alice.restore("alice/results/a.dat").unwrap();
    assert_eq!(report.failed_total, 1, "{report:?}");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    // To a directory of her own: those on the way are hers, whosever they were.
    let to = world.root.join("alice/back");
    own(&to, ALICE, ALICE, 0o755);
    let report = alice
        .restore_to("read-only/alice", alice.path("alice/back"), false)
        .unwrap();
    assert_eq!(report.failed_total, 0, "{report:?}");
    let made = fs::metadata(to.join("read-only")).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o777), (ALICE, 0o700));
    assert_eq!(fs::metadata(to.join("read-only/alice")).unwrap().uid(), ALICE);
    assert!(bob.restore("bob/results").unwrap().failed_total == 0);
    drop(world.mount.path());
}

#[test]
fn users_restore_nothing_where_the_configuration_says_so() {
    let world = need!(World::new("self = true\nself_restore = false"));
    let alice = world.user(ALICE);
    let (code, why) = refused(alice.restore("alice/results/a.dat"));
    assert_eq!(code, Code::PermissionDenied);
    assert!(why.contains("self_restore"), "{why}");
    assert_eq!(alice.explain("alice/results/a.dat").unwrap().taken.len(), 1);
}
