//! Notices: every one arrives, none twice, also when a sink is down or the agent is killed meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, regular_files, temp_dir, write_secret};
use purge_tests::notices::{
    ALICE, AT_FIRST, BOB, OF_THE_RUN, PATIENCE, Tree, assert_each_once, events, notices, told,
    until_nothing_waits, until_told,
};
use purge_tests::sinks::free_port;
use purge_tests::sinks::hook::{Hook, Posted};
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use serde_json::Value;

fn signature(secret: &str, posted: &Posted) -> String {
    let of = |name: &str| posted.headers.get(name).expect("a header").clone();
    let message = format!("{}.{}.{}", of("webhook-id"), of("webhook-timestamp"), posted.body);
    let script = "import base64,hashlib,hmac,sys\n\
                  print(base64.b64encode(hmac.new(sys.argv[1].encode(), sys.argv[2].encode(), hashlib.sha256).digest()).decode())";
    let python = sh(Command::new("/usr/bin/python3").args(["-c", script, secret, &message]));
    format!("v1,{}", python.expect("python3").trim())
}

#[test]
fn a_webhook_that_was_down_gets_every_notice_once_though_the_agent_was_killed() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let tree = Tree::make(&mut mount);
    let port = free_port();
    let dir = temp_dir();
    let secret = dir.path().join("secret");
    write_secret(&secret, "a shared secret\n");
    let sink = format!("webhook = {{ url = \"http://127.0.0.1:{port}/hook\", secret_file = {secret:?} }}");
    // The kill becomes a gap that counts.
    let mut agent = Agent::tracking(&tree.config_with("gap_tolerance = \"1s\"", &sink));
    let ctl = agent.ctl();
    until_told(&ctl, &AT_FIRST);

    // No sink listens, and the purge goes on.
    let plan = ctl.plan_with(["--rule", "old"]);
    assert_eq!(number(&plan.json, "/candidates/files"), 7, "{}", plan.json);
    let began = Instant::now();
    let run = ctl.apply(&plan).ends_with(5).json();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(number(&run, "/deleted/files"), 6);
    until_told(&ctl, &OF_THE_RUN[1..]);
    let waiting = notices(&ctl, &["--state", "waiting"]);
    assert_eq!(waiting.len(), notices(&ctl, &[]).len(), "nothing was sent");
    assert!(
        waiting.iter().any(|n| text(n, "error").contains("refused")),
        "{waiting:?}"
    );

    // A sink answers, but cannot take anything.
    let hook = Hook::start(port);
    hook.answer(503);
    until("an attempt", PATIENCE, || {
        (!hook.posted().is_empty()).then_some(())
    });
    agent.kill();
    let_pass(3);
    agent.launch();
    until_told(&ctl, &["coverage-gap operator", OF_THE_RUN[0]]);
    hook.answer(200);
    until_nothing_waits(&ctl, &[]);

    let taken = hook.taken();
    let json: Vec<Value> = taken.iter().map(Posted::json).collect();
    let expected = [&AT_FIRST[..], &OF_THE_RUN, &["coverage-gap operator"]].concat();
    assert_each_once(&json, &expected);
    for posted in &taken {
        assert_eq!(
            posted.headers["webhook-signature"],
            signature("a shared secret", posted)
        );
        assert_eq!(posted.headers["webhook-id"], text(&posted.json(), "notice_id"));
        assert_eq!(posted.headers["content-type"], "application/json");
    }
    assert_eq!(notices(&ctl, &["--state", "sent"]).len(), taken.len());
    assert_lists(&json, &tree.root);

    // It stays said.
    agent.restart();
    let_pass(12);
    let more: Vec<Value> = hook.taken().iter().skip(taken.len()).map(Posted::json).collect();
    // On a busy machine a restart takes longer than `gap_tolerance`: a gap of its own.
    let more = (more.len(), told(&more));
    let one_gap = (1, ["coverage-gap operator".to_owned()].into());
    assert!(
        more == (0, [].into()) || more == one_gap,
        "something came again: {more:?}"
    );
}

/// The notices name what they speak of.
fn assert_lists(notices: &[Value], root: &Path) {
    let of = |kind: &str, user: &str| {
        let notice = notices
            .iter()
            .find(|n| told([*n]).contains(&format!("{kind} {user}")));
        let all = events(notice.expect("a notice"));
        let event = all.into_iter().find(|e| text(e, "event") == kind);
        (event.expect("an event"), text(notice.unwrap(), "text").to_owned())
    };
    let paths = |event: &Value| -> BTreeSet<PathBuf> {
        let entries = event
            .pointer("/list/entries")
            .and_then(Value::as_array)
            .expect("entries");
        entries.iter().map(|e| text(e, "path").into()).collect()
    };
    let (purged, words) = of("purged", "54321");
    let old: BTreeSet<PathBuf> = (0..5).map(|i| root.join(format!("alice/old{i}"))).collect();
    assert_eq!(paths(&purged), old);
    assert_eq!((number(&purged, "/files"), number(&purged, "/bytes")), (5, 500));
    assert!(words.contains("5 files of yours"), "{words}");
    let (soon, words) = of("will-expire", "54321");
    let soonest: BTreeSet<PathBuf> = (0..3).map(|i| root.join(format!("alice/soon{i}"))).collect();
    assert!(paths(&soon).is_superset(&soonest), "{soon}");
    assert!(words.contains("purgectl hold add"), "{words}");
    let (over, words) = of("over-quota", "54321");
    assert_eq!(number(&over, "/used_bytes"), 3500);
    assert!(words.contains("Nothing is removed by itself"), "{words}");
    let (idle, words) = of("expired", "54323");
    assert_eq!(paths(&idle), BTreeSet::from([root.join("idle/carol")]));
    assert!(words.contains("Nothing is removed by this rule"), "{words}");
}

/// A program that keeps its standard input as `DIR/got/NOTICE.PID`, unless `DIR/broken` is there.
fn keeper(dir: &Path) -> PathBuf {
    fs::create_dir(dir.join("got")).unwrap();
    let script = "#!/bin/sh\ncd \"$1\" || exit 1\nif [ -e broken ]; then echo tried >> tries; echo it is broken >&2; exit 3; fi\n\
                  cat > \"new.$$\" && mv \"new.$$\" \"got/$PURGE_NOTICE_ID.$$\"\n";
    let path = dir.join("keep");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn kept(dir: &Path) -> Vec<Value> {
    let files = regular_files(&dir.join("got"));
    let read = |path: &PathBuf| serde_json::from_slice(&fs::read(path).unwrap()).expect("JSON");
    files.iter().map(read).collect()
}

#[test]
fn a_program_gets_what_it_asked_for_once_and_a_stuck_one_holds_up_no_other() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let tree = Tree::make(&mut mount);
    let dir = temp_dir();
    let program = keeper(dir.path());
    fs::write(dir.path().join("broken"), "").unwrap();
    let sinks = format!(
        "exec = [ {{ name = \"stuck\", command = [\"/bin/sleep\", \"1000\"], timeout = \"10m\" }},\n\
         {{ name = \"keep\", command = [{program:?}, {:?}], events = [\"purged\", \"run-failed\"] }} ]",
        dir.path()
    );
    let mut agent = Agent::tracking(&tree.config(&sinks));
    let ctl = agent.ctl();
    let began = Instant::now();
    let _ = ctl.apply(&ctl.plan_with(["--rule", "old"])).ends_with(5);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let tries = dir.path().join("tries");
    until("two attempts", PATIENCE, || {
        fs::read_to_string(&tries)
            .is_ok_and(|t| t.lines().count() > 1)
            .then_some(())
    });
    let waiting = notices(&ctl, &["--sink", "keep"]);
    assert!(
        waiting.iter().any(|n| text(n, "error").contains("it is broken")),
        "{waiting:?}"
    );
    agent.kill();
    fs::remove_file(dir.path().join("broken")).unwrap();
    agent.launch();
    let expected = ["purged 54321", "purged 54322", "run-failed operator"];
    until("all of them", PATIENCE, || {
        let told = told(&kept(dir.path()));
        expected.iter().all(|e| told.contains(*e)).then_some(())
    });
    let_pass(6);
    let all = kept(dir.path());
    assert_each_once(&all, &expected);
    assert_eq!(told(&all).len(), 3, "only what it asked for: {all:?}");
    // It is killed together with the process that waits for it.
    let began = Instant::now();
    agent.terminate();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn owners_hear_exactly_what_a_killed_run_took_from_them() {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
    let root = mount.path();
    for dir in 0..20 {
        let uid = if dir % 2 == 0 { ALICE } else { BOB };
        for (i, path) in make(&root.join(format!("d{dir:02}")), 500)
            .into_iter()
            .enumerate()
        {
            fs::write(&path, vec![1; i]).unwrap();
            chown(&path, Some(uid), Some(uid)).unwrap();
        }
    }
    age_tree(&root);
    let port = free_port();
    let sink =
        format!("list_max = 7\nwebhook = {{ url = \"http://127.0.0.1:{port}/\", events = [\"purged\"] }}");
    let rule = "remove_empty_dirs = false\ngrace = \"1h\"\nmax_fraction = 1.0";
    let mut agent = Agent::tracking(&Config::backdated_with(&root, rule).notifying(&sink));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let mut client = agent.ctl().start_apply(&plan, &["--max-rate", "2000"]);
    let left = || -> usize {
        let dirs = (0..20).map(|dir| root.join(format!("d{dir:02}")));
        dirs.map(|dir| fs::read_dir(dir).unwrap().count()).sum()
    };
    until("almost half of it is deleted", PATIENCE, || {
        (left() < 6000).then_some(())
    });
    agent.kill();
    client.wait().unwrap();
    assert!(left() > 1000, "killed in the middle");
    let hook = Hook::start(port);
    agent.launch();
    agent.wait_until_tracking();
    until("both owners hear of it", PATIENCE, || {
        (hook.taken().len() >= 2).then_some(())
    });
    let_pass(6);
    let json: Vec<Value> = hook.taken().iter().map(Posted::json).collect();
    assert_each_once(&json, &["purged 54321", "purged 54322"]);
    assert_eq!(json.len(), 2);
    for (notice, uid) in json.iter().map(|n| (n, number(n, "/to/uid"))) {
        let purged = events(notice).remove(0);
        let (mut files, mut bytes) = (0, 0);
        for (i, dir) in (0..10_000u64).map(|n| (n % 500, n / 500)) {
            let owner = if dir % 2 == 0 { ALICE } else { BOB };
            if u64::from(owner) == uid && !root.join(format!("d{dir:02}/f{i:06}")).exists() {
                (files, bytes) = (files + 1, bytes + i);
            }
        }
        assert_eq!(number(&purged, "/files"), files, "{uid}");
        assert_eq!(number(&purged, "/bytes"), bytes, "{uid}");
        assert!(files > 0, "{uid}");
        let named = purged.pointer("/list/entries").and_then(Value::as_array).unwrap();
        assert_eq!((named.len(), number(&purged, "/list/total")), (7, files));
        assert!(
            named.iter().all(|e| !Path::new(text(e, "path")).exists()),
            "{named:?}"
        );
        assert!(
            purged.get("restorable_until").is_some_and(Value::is_string),
            "{purged}"
        );
    }
}

#[test]
fn a_sink_can_be_tried_and_says_what_is_wrong() {
    let mount = need!(Mount::new(Fs::Ext4));
    let port = free_port();
    let config = Config::backdated(&mount.path()).notifying(&format!(
        "webhook = {{ name = \"hook\", url = \"http://127.0.0.1:{port}/\" }}"
    ));
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let refused = ctl.run(["notices", "test", "--sink", "hook"]).ends_with(1);
    assert!(
        refused.stderr.contains("Connection refused"),
        "{}",
        refused.stderr
    );
    let unknown = ctl.run(["notices", "test", "--sink", "hooks"]).ends_with(1);
    assert!(unknown.stderr.contains("there are hook"), "{}", unknown.stderr);
    let hook = Hook::start(port);
    let taken = ctl
        .run(["notices", "test", "--sink", "hook", "--output", "json"])
        .ok()
        .json();
    assert_eq!(taken["sent"], true);
    assert_eq!(hook.taken().len(), 1);
    assert_eq!(text(&hook.taken()[0].json(), "event"), "test");
    assert_eq!(
        text(&hook.taken()[0].json(), "notice_id"),
        text(&taken, "notice_id")
    );
    hook.answer(404);
    let refused = ctl.run(["notices", "test", "--sink", "hook"]).ends_with(1);
    assert!(refused.stderr.contains("404"), "{}", refused.stderr);
    assert!(notices(&ctl, &[]).is_empty(), "a test is no notice");

    // In words of one's own, from the next reload on.
    hook.answer(200);
    let dir = temp_dir();
    let words = "{{ events[0].event|upper }} for {{ to.audience }}, {{ 1024|size }}";
    fs::write(dir.path().join("operator-body.txt"), words).unwrap();
    let keys = format!(
        "webhook = {{ name = \"hook\", url = \"http://127.0.0.1:{port}/\" }}\ntemplates = {:?}",
        dir.path()
    );
    agent.write_config(&Config::backdated(&mount.path()).notifying(&keys));
    agent.reload();
    until("the new words", PATIENCE, || {
        let _ = ctl.run(["notices", "test", "--sink", "hook"]).ok();
        let last = hook.taken().last().expect("a test").json();
        (text(&last, "text") == "TEST for operator, 1.0 KiB").then_some(())
    });
}
