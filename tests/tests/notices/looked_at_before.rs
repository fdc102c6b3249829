//! Notices can be looked at before they are sent, and the first ones wait for that.

use std::fs;
use std::path::Path;

use purge_tests::ctl::text;
use purge_tests::files::temp_dir;
use purge_tests::notices::{ALICE, PATIENCE, notices, put, told, until_told};
use purge_tests::sinks::free_port;
use purge_tests::sinks::hook::Hook;
use purge_tests::wait::{let_pass, until};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need};
use serde_json::Value;

/// The agent looks for what is to be told about so often, in seconds; and once more for a slow machine.
const LOOKS: u64 = 12;

fn config(root: &Path) -> Config {
    for i in 0..3 {
        put(root.join(format!("alice/soon{i}")), 1000, ALICE, 2);
    }
    Config::new(root, "baseline = \"mtime\"").rule("old", "ttl = \"24h\"\nclock = [\"access\"]")
}

fn drafts(ctl: &Ctl, more: &[&str]) -> Vec<Value> {
    let words = ["notices", "preview", "--output", "json"];
    let found = ctl.run(words.iter().chain(more)).ok().json();
    found.get("notices").and_then(Value::as_array).unwrap().clone()
}

fn taken(hook: &Hook) -> Vec<Value> {
    hook.taken().iter().map(|post| post.json()).collect()
}

#[test]
fn the_first_notices_wait_until_an_operator_has_seen_how_many_they_are() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let port = free_port();
    let hook = Hook::start(port);
    let agent = Agent::tracking(&config(&root));
    let ctl = agent.ctl();
    let none = ctl.run(["notices", "preview"]).ends_with(3);
    assert!(none.stderr.contains("no [notify]"), "{}", none.stderr);
    let_pass(LOOKS);
    let sink = format!("webhook = {{ url = \"http://127.0.0.1:{port}/\" }}");
    agent.write_config(&config(&root).notifying(&sink));
    agent.reload();
    until("the operator hears of it", PATIENCE, || {
        told(&taken(&hook))
            .contains("first-notices operator")
            .then_some(())
    });
    agent.wait_until_it_says("the first ones to owners wait");
    let first = taken(&hook).remove(0);
    assert!(text(&first, "text").contains("1 for 1 owners"), "{first}");
    let_pass(LOOKS);
    assert_eq!(told(&taken(&hook)).len(), 1, "no owner hears anything");

    let alice = ALICE.to_string();
    let waiting = drafts(&ctl, &["--user", &alice, "--event", "will-expire"]);
    let [draft] = waiting.as_slice() else {
        panic!("one to Alice: {waiting:?}");
    };
    assert_eq!(text(draft, "sink"), "webhook");
    assert!(text(draft, "text").contains("3 files"), "{draft}");
    let screen = ctl.run(["notices", "preview"]).ok().text();
    assert!(
        screen.contains(&format!("To {alice}, by webhook: will-expire"))
            && screen.contains("notices release"),
        "{screen}"
    );
    assert_eq!(drafts(&ctl, &["--user", "54399"]), Vec::<Value>::new());
    let unknown = ctl.run(["notices", "preview", "--event", "x"]).ends_with(1);
    assert!(unknown.stderr.contains("will-expire"), "{}", unknown.stderr);
    assert_eq!(told(&taken(&hook)).len(), 1, "a look sends nothing");

    let _ = ctl.run(["notices", "release"]).ok();
    until("Alice hears of it", PATIENCE, || {
        told(&taken(&hook))
            .contains(&format!("will-expire {alice}"))
            .then_some(())
    });
    let _ = ctl.run(["notices", "release"]).ends_with(3);
    assert_eq!(
        drafts(&ctl, &["--user", &alice]),
        Vec::<Value>::new(),
        "she knows"
    );
    assert_eq!(drafts(&ctl, &["--user", &alice, "--again"]).len(), 1);
}

#[test]
fn a_dry_run_sends_nothing_and_forgets_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let port = free_port();
    let hook = Hook::start(port);
    let sink = format!("webhook = {{ url = \"http://127.0.0.1:{port}/\" }}\nhold_first = \"0s\"");
    let dry = format!("dry_run = true\n{sink}");
    let agent = Agent::tracking(&config(&root).notifying(&dry));
    let ctl = agent.ctl();
    let_pass(LOOKS);
    let found = ctl.run(["notices", "preview", "--output", "json"]).ok().json();
    assert_eq!(found.get("dry_run"), Some(&Value::Bool(true)), "{found}");
    assert_eq!(found.pointer("/notices/0/events/0").unwrap(), "will-expire");
    let screen = ctl.run(["notices", "preview"]).ok().text();
    assert!(screen.contains("notify.dry_run is on"), "{screen}");
    assert!(hook.taken().is_empty() && notices(&ctl, &[]).is_empty());
    agent.write_config(&config(&root).notifying(&sink));
    agent.reload();
    until_told(&ctl, &[&format!("will-expire {ALICE}")]);
}

/// The handbook's program writes one line a notice: the JSON on its input is for programs.
#[test]
fn a_program_can_tell_in_one_line() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let lines = temp_dir();
    let file = lines.path().join("lines");
    let line = "echo \\\"$PURGE_TO: $PURGE_SUBJECT ($PURGE_EVENT)\\\"";
    let sink = format!(
        "exec = {{ command = [\"/bin/sh\", \"-c\", \"{line} >> {}\"] }}",
        file.display()
    );
    let agent = Agent::tracking(&config(&root).notifying(&sink));
    until_told(&agent.ctl(), &[&format!("will-expire {ALICE}")]);
    let said = until("the line", PATIENCE, || {
        fs::read_to_string(&file).ok().filter(|said| said.ends_with('\n'))
    });
    let [line] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("one line: {said}");
    };
    assert!(
        line.starts_with(&format!("{ALICE}: "))
            && line.ends_with("(will-expire)")
            && line.contains("3 files"),
        "{line}"
    );
}
