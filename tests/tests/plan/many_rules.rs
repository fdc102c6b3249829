//! Hundreds of rules on one volume: a plan of all of them looks at the index once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use purge_tests::ctl::number;
use purge_tests::files::{age_tree, make, read};
use purge_tests::{Agent, Config, Fs, Mount, need};

const RULES: usize = 300;
const FILES: usize = 100;

fn home(root: &Path, n: usize) -> PathBuf {
    root.join(format!("u{n:03}"))
}

/// The time is printed and not compared: a shared machine says nothing of it.
fn evaluated(agent: &Agent, what: &str) -> u64 {
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let seconds = plan
        .json
        .pointer("/evaluation_seconds")
        .and_then(serde_json::Value::as_f64);
    println!("{RULES} {what}: evaluated in {:.3} s", seconds.unwrap());
    let by_rule = plan
        .json
        .pointer("/rule_totals")
        .and_then(serde_json::Value::as_array)
        .unwrap();
    assert_eq!(by_rule.len(), RULES);
    number(&plan.json, "/candidates/files") + number(&plan.json, "/candidates/directories")
}

#[test]
fn three_hundred_rules_take_what_each_of_them_takes() {
    let mount = need!(Mount::sized(Fs::Ext4, 400, 60_000));
    let root = mount.path();
    for n in 0..RULES {
        make(&home(&root, n).join("job/out"), FILES / 2);
        make(&home(&root, n).join("keep"), FILES / 2);
    }
    age_tree(&root);
    let used: BTreeSet<PathBuf> = (0..RULES)
        .step_by(3)
        .map(|n| home(&root, n).join("job/out/f000000"))
        .collect();
    let config = |rule: &dyn Fn(usize) -> String| {
        (0..RULES).fold(Config::new(&root, "baseline = \"mtime\""), |config, n| {
            let keys = format!("ttl = \"1h\"\nclock = [\"access\"]\n{}", rule(n));
            config.rule(&format!("r{n}"), &keys)
        })
    };
    let young = used.len() as u64;
    let all = (RULES * FILES) as u64;
    let half = all / 2;
    {
        let agent = Agent::tracking(&config(&|n| {
            format!("include = [\"/u{n:03}/**\"]\nexclude = [\"keep/\"]\nremove_empty_dirs = false")
        }));
        used.iter().for_each(|file| read(file));
        assert_eq!(evaluated(&agent, "file rules of a directory each"), half - young);
    }
    {
        let agent = Agent::tracking(&config(&|n| match n {
            299 => "remove_empty_dirs = false".to_owned(),
            n => format!("users = [\"{}\"]\nremove_empty_dirs = false", 5000 + n),
        }));
        assert_eq!(evaluated(&agent, "file rules of a user each"), all);
    }
    let agent = Agent::tracking(&config(&|n| {
        format!("target = \"directory\"\ndepth = 2\ninclude = [\"/u{n:03}/**\"]\nexclude = [\"keep/\"]")
    }));
    used.iter().for_each(|file| read(file));
    assert_eq!(evaluated(&agent, "directory rules"), RULES as u64 - young);
}
