//! Exclude patterns that match nothing are told of, before anything goes that they were to protect.

use std::fs;
use std::process::Command;
use std::time::Instant;

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, make, make_one};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, binary, need};
use serde_json::Value;

/// Pattern and what may have been meant, as a plan's JSON has them.
fn idle(plan: &Value) -> Vec<(String, Option<String>)> {
    let of = |i: &Value| {
        assert_eq!(text(i, "rule"), "old");
        (
            text(i, "pattern").to_owned(),
            i["did_you_mean"].as_str().map(str::to_owned),
        )
    };
    let mut all: Vec<_> = plan["idle_patterns"].as_array().unwrap().iter().map(of).collect();
    all.sort();
    all
}

fn check(agent: &Agent) -> String {
    let mut check = Command::new(binary("purge-agent"));
    let out = check
        .args(["check", "--config"])
        .arg(agent.config_file())
        .output()
        .unwrap();
    assert!(out.status.success());
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_pattern_that_protects_nothing_is_told_of() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for dir in ["alice/Software", "[old]", "m\u{fc}ller", "keep", "empty"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    make(&root.join("keep"), 3);
    make_one(&root.join("alice/Software/deep.Dat"));
    age_tree(&root);
    let name = root.file_name().unwrap().to_string_lossy().into_owned();
    let wrong = [
        ("~/keep".to_owned(), Some("/keep")),
        (format!("{name}/keep/**"), Some("/keep/**")),
        ("v/alice/**".into(), Some("/alice/**")),
        ("alice/software/**".into(), Some("/alice/Software/**")),
        ("*.DAT".into(), Some("/alice/Software/deep.Dat")),
        ("[old]".into(), Some("\\[old\\]")),
        ("mu\u{308}ller/**".into(), Some("/m\u{fc}ller/**")),
        ("not-here".into(), None),
    ];
    let right = [
        "/keep",
        "**/Software/**",
        "*.Dat",
        "\\[old\\]",
        "empty/**",
        "f000001",
    ];
    let all = wrong.iter().map(|(p, _)| p.as_str()).chain(right);
    let patterns: Vec<String> = all.map(|p| format!("'{p}'")).collect();
    let keys = format!("exclude = [{}]", patterns.join(", "));
    let agent = Agent::tracking(&Config::backdated_with(&root, &keys));
    let mut expected: Vec<(String, Option<String>)> = wrong
        .iter()
        .map(|(p, meant)| (p.clone(), meant.map(str::to_owned)))
        .collect();
    expected.sort();
    assert_eq!(idle(&agent.ctl().plan().json), expected);
    let said = agent.ctl().run(["plan"]).ok().text();
    assert!(
        said.contains("exclude pattern of rule old matches nothing")
            && said.contains("\"~/keep\"  did you mean \"/keep\"?"),
        "{said}"
    );

    // The file's rules count, not those in force; and a pattern that has come to match something is told of no more.
    let said = check(&agent);
    assert!(
        said.contains("warning: exclude pattern \"~/keep\" of rule old") && !said.contains("empty/**"),
        "{said}"
    );
    agent.write_config(&Config::backdated_with(
        &root,
        "exclude = ['/nowhere', 'not-here']",
    ));
    let said = check(&agent);
    assert!(
        said.contains("/nowhere") && said.contains("not-here") && !said.contains("~/keep"),
        "{said}"
    );
    fs::create_dir(root.join("alice/not-here")).unwrap();
    until("the pattern matches", SOON, || {
        (!check(&agent).contains("not-here")).then_some(())
    });
    let mut agent = agent;
    agent.terminate();
    assert_eq!(
        check(&agent),
        "",
        "without an agent there is nothing to compare with"
    );
}

/// Three hundred patterns cost one pass, and the next plan none.
#[test]
fn many_patterns_are_looked_for_in_one_pass() {
    let mount = need!(Mount::new(Fs::Ext4));
    for dir in 0..20 {
        make(&mount.path().join(format!("d{dir:02}/sub")), 500);
    }
    age_tree(&mount.path());
    let patterns: Vec<String> = (0..300).map(|n| format!("'/x{n}/**/*.old'")).collect();
    let keys = format!("exclude = [{}]", patterns.join(", "));
    let agent = Agent::tracking(&Config::backdated_with(&mount.path(), &keys));
    let plan = || {
        let began = Instant::now();
        let plan = agent.ctl().plan();
        assert_eq!(idle(&plan.json).len(), 300);
        began.elapsed()
    };
    println!("300 patterns, 10,000 files: {:?}, then {:?}", plan(), plan());
}
