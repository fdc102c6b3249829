//! Who may call what: every call of the contract as every role and without one, and what ordinary users see.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use prost::Message;
use purge_tests::accounts::Accounts;
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, assert_same, make, temp_dir};
use purge_tests::rpc::{CALLS, call, channel_as, is_refused, runtime};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, binary, need};
use tonic::Code;

const NOBODY: u32 = 65_534;
const ALICE: u32 = 4001;
const BOB: u32 = 4002;
const VIEWERS: u32 = 4110;
const OPERATOR: u32 = 4120;
const ADMINS: u32 = 4130;

fn calls_of_the_contract() -> BTreeSet<String> {
    let files = prost_types::FileDescriptorSet::decode(purge_proto::FILE_DESCRIPTOR_SET).unwrap();
    files
        .file
        .iter()
        .flat_map(|f| &f.service)
        .filter(|s| s.name() == "PurgeAgent")
        .flat_map(|s| s.method.iter().map(|m| m.name().to_owned()))
        .collect()
}

fn access(own: bool) -> String {
    format!(
        "self = {own}\nviewer = {{ groups = [\"{VIEWERS}\"] }}\noperator = {{ users = [\"{OPERATOR}\"] }}\n\
         admin = {{ groups = [\"{ADMINS}\"] }}"
    )
}

#[test]
fn every_call_as_every_role_and_without_one() {
    let table: BTreeSet<String> = CALLS.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    assert_eq!(table, calls_of_the_contract(), "the table names every call");
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 3);
    let runtime = runtime();
    for own in [false, true] {
        let config = Config::backdated(&mount.path()).access(&access(own));
        let agent = Agent::tracking(&config);
        agent.reachable();
        // Who may connect is one thing, who may ask another: here all users may connect.
        fs::set_permissions(agent.socket(), fs::Permissions::from_mode(0o666)).unwrap();
        let who: [(&str, u32, &[u32], &[&str]); 5] = [
            ("nobody", NOBODY, &[], &[]),
            ("a viewer by group", ALICE, &[100, VIEWERS], &["viewer"]),
            ("an operator", OPERATOR, &[], &["viewer", "operator"]),
            (
                "an admin by group",
                BOB,
                &[VIEWERS, ADMINS],
                &["viewer", "operator", "admin"],
            ),
            ("root", 0, &[], &["viewer", "operator", "admin"]),
        ];
        for (words, uid, groups, roles) in who {
            let channel = channel_as(&runtime, &agent, uid, groups).unwrap();
            for (name, needed, of_own) in CALLS {
                let answer = runtime.block_on(call(&channel, name));
                let may = roles.contains(&needed) || own && of_own;
                assert_eq!(
                    !is_refused(&answer),
                    may,
                    "{name} as {words}, self = {own}: {answer:?}"
                );
            }
            let unknown = runtime.block_on(call(&channel, "NoSuchCall"));
            assert!(unknown.is_err());
        }
    }
}

#[test]
fn who_may_connect_follows_the_socket_and_who_may_ask_follows_a_reload() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 3);
    let config =
        |socket: &str, access: &str| Config::backdated(&mount.path()).listening(socket).access(access);
    let agent = Agent::tracking(&config(&format!("group = \"{VIEWERS}\""), "self = false"));
    agent.reachable();
    let runtime = runtime();
    assert!(channel_as(&runtime, &agent, NOBODY, &[]).is_err(), "0660");
    let channel = channel_as(&runtime, &agent, ALICE, &[VIEWERS]).unwrap();
    let may = |name| !is_refused(&runtime.block_on(call(&channel, name)));
    assert!(!may("GetStatus"), "being in the socket's group is no role");

    agent.write_config(&config("", &format!("viewer = {{ users = [\"{ALICE}\"] }}")));
    agent.reload();
    until("the role is given", SOON, || may("GetStatus").then_some(()));
    assert!(!may("CreatePlan"));
    let again = channel_as(&runtime, &agent, ALICE, &[VIEWERS]);
    assert!(again.is_err(), "the socket's group is root's again");

    agent.write_config(&config(&format!("owner = \"{BOB}\""), "self = true"));
    agent.reload();
    until("the role is taken from who is connected", SOON, || {
        (!may("GetStatus")).then_some(())
    });
    assert!(may("ListHolds"), "what any user may");
    assert!(channel_as(&runtime, &agent, NOBODY, &[]).is_ok(), "0666");

    agent.write_config(&config(&format!("owner = \"{BOB}\""), "self = false"));
    agent.reload();
    until("the socket is closed to others", SOON, || {
        channel_as(&runtime, &agent, NOBODY, &[]).err()
    });
    assert!(
        channel_as(&runtime, &agent, BOB, &[]).is_ok(),
        "its owner may connect"
    );
    assert!(!may("ListHolds"));
}

#[test]
fn being_taken_off_a_group_counts_at_the_next_call() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 3);
    let alice_only = format!("alice:x:{ALICE}:{ALICE}::/:/bin/sh\n");
    let accounts = Accounts::new(&alice_only, &format!("viewers:x:{VIEWERS}:alice\n"));
    let groups = |line: &str| accounts.set("group", &format!("root:x:0:\n{line}\n"));
    let agent = accounts.agent(&Config::backdated(&mount.path()).access(&access(false)));
    agent.reachable();
    fs::set_permissions(agent.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let runtime = runtime();
    let connect = |uid| channel_as(&runtime, &agent, uid, &[VIEWERS]).unwrap();
    let may = |channel: &_| !is_refused(&runtime.block_on(call(channel, "GetStatus")));
    let (alice, nameless) = (connect(ALICE), connect(BOB));
    assert!(may(&alice) && may(&nameless));

    groups(&format!("viewers:x:{VIEWERS}:"));
    assert!(!may(&alice), "at the next call");
    assert!(
        !may(&connect(ALICE)),
        "and also when the same process connects again"
    );
    assert!(may(&nameless), "what no account gave, none takes away");
    assert!(agent.ctl().run(["status"]).code == 0, "root is root");

    groups(&format!("viewers:x:{VIEWERS}:bob,alice"));
    assert!(may(&alice), "and back");
    groups("others:x:1:alice");
    assert!(!may(&alice), "the group is no more");
    groups(&format!("viewers:x:{VIEWERS}:alice"));
    assert!(may(&alice));
    accounts.set("passwd", "root:x:0:0:root:/root:/bin/sh\n");
    assert!(!may(&alice), "the user is no more");
}

struct Users {
    agent: Agent,
    alice: Ctl,
    bob: Ctl,
    _copy: tempfile::TempDir,
}

/// Alice and Bob, each with a directory of their own; `self` is allowed, for holds of an hour.
fn users(mount: &Mount) -> Users {
    let root = mount.path();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, uid) in [("alice", ALICE), ("bob", BOB)] {
        for file in make(&root.join(name), 3) {
            chown(&file, Some(uid), Some(uid)).unwrap();
        }
        chown(root.join(name), Some(uid), Some(uid)).unwrap();
    }
    age_tree(&root);
    let config = Config::backdated_with(&root, "remove_empty_dirs = false")
        .access("self = true\nself_hold_max = \"1h\"");
    let agent = Agent::tracking(&config);
    agent.reachable();
    let copy = temp_dir();
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = copy.path().join("purgectl");
    fs::copy(binary("purgectl"), &program).unwrap();
    let ctl = agent.ctl();
    Users {
        alice: ctl.as_user(ALICE, &program),
        bob: ctl.as_user(BOB, &program),
        agent,
        _copy: copy,
    }
}

fn try_hold(ctl: &Ctl, path: &Path, more: &[&str]) -> purge_tests::Answer {
    let mut words = vec![
        "hold",
        "add",
        path.to_str().unwrap(),
        "--reason",
        "x",
        "--output",
        "json",
    ];
    words.extend(more);
    ctl.run(words)
}

#[test]
fn ordinary_users_see_what_they_own_and_nothing_else() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let u = users(&mount);
    let own: BTreeSet<PathBuf> = (0..3).map(|i| root.join(format!("alice/f{i:06}"))).collect();
    let mut found = u.alice.find(["--type", "f"]);
    assert_same("alice's files", &found, &own);
    found = u.alice.find([root.join("bob").as_os_str()]);
    assert_same("nothing of Bob's", &found, &BTreeSet::new());
    found = u.alice.find([root.join("no-such-directory").as_os_str()]);
    assert_same("nor whether it exists", &found, &BTreeSet::new());
    let _ = u.alice.run(["find", "--user", "4002"]).ends_with(1);

    assert_eq!(
        text(&u.alice.explain(&root.join("alice/f000001")), "owner"),
        "4001"
    );
    let theirs = root.join("bob/f000001");
    let nothing = root.join("bob/no-such-file");
    let said = |path: &Path| {
        let answer = u.alice.run(["explain", path.to_str().unwrap()]).ends_with(1);
        answer.stderr.replace(path.to_str().unwrap(), "PATH")
    };
    assert_eq!(
        said(&theirs),
        said(&nothing),
        "what is not hers might not be there"
    );

    let usage = u.alice.run(["usage", "--output", "json"]).ok().json();
    let rows = usage.as_array().unwrap();
    assert_eq!(rows.len(), 1, "{usage}");
    assert_eq!(number(&rows[0], "/files"), 3);
    let _ = u.alice.run(["usage", "--by", "directory"]).ends_with(1);
    for words in [&["status"][..], &["plan"], &["plans"], &["runs"], &["rescan"]] {
        let answer = u.alice.run(words).ends_with(1);
        assert!(answer.stderr.contains("ordinary users"), "{}", answer.stderr);
    }
}

#[test]
fn ordinary_users_hold_what_they_own_for_as_long_as_they_may() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let u = users(&mount);
    let all = u.agent.ctl().candidates();
    let hold = text(
        &try_hold(&u.alice, &root.join("alice"), &[]).ok().json(),
        "hold_id",
    )
    .to_owned();
    let of_bob = u.bob.hold(&root.join("bob/f000000"), &["--for", "10m"]);
    let _ = try_hold(&u.alice, &root.join("alice/f000000"), &["--for", "2h"]).ends_with(1);
    for path in [root.join("bob/f000001"), root.clone(), root.join("alice/none")] {
        let _ = try_hold(&u.alice, &path, &[]).ends_with(1);
    }
    let listed = |ctl: &Ctl| ctl.run(["hold", "list", "--output", "ndjson"]).ok().lines().len();
    assert_eq!(
        (listed(&u.alice), listed(&u.bob), listed(&u.agent.ctl())),
        (1, 1, 2)
    );
    let _ = u.alice.run(["hold", "remove", &of_bob]).ends_with(1);
    let left: BTreeSet<PathBuf> = [root.join("bob/f000001"), root.join("bob/f000002")].into();
    assert_same("what is not held", &u.agent.ctl().candidates(), &left);

    // The path leads elsewhere now: the hold does not follow.
    fs::rename(root.join("alice"), root.join("was-alice")).unwrap();
    symlink(root.join("bob"), root.join("alice")).unwrap();
    assert_same(
        "bob's files are not hers to hold",
        &u.agent.ctl().candidates(),
        &left,
    );
    for path in [root.join("alice/f000001"), root.join("alice/f000002")] {
        let _ = try_hold(&u.alice, &path, &[]).ends_with(1);
    }
    fs::remove_file(root.join("alice")).unwrap();
    fs::rename(root.join("was-alice"), root.join("alice")).unwrap();
    let _ = u.alice.run(["hold", "remove", &hold]).ok();
    let _ = u.bob.run(["hold", "remove", &of_bob]).ok();
    assert_same("all again", &u.agent.ctl().candidates(), &all);
}

#[test]
fn a_plan_is_no_larger_than_its_maker_may_have() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 12);
    age_tree(&mount.path());
    let limit = "max_plan_files = 10\noperator = { users = [\"4120\"] }";
    let config = Config::backdated_with(&mount.path(), "remove_empty_dirs = false").access(limit);
    let agent = Agent::tracking(&config);
    agent.reachable();
    fs::set_permissions(agent.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let runtime = runtime();
    let channel = channel_as(&runtime, &agent, OPERATOR, &[]).unwrap();
    let refused = runtime.block_on(call(&channel, "CreatePlan")).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(agent.ctl().candidates().len(), 12, "root's are not limited");
    fs::remove_dir_all(mount.path().join("d")).unwrap();
    until("it is small enough", SOON, || {
        runtime.block_on(call(&channel, "CreatePlan")).ok()
    });
}
