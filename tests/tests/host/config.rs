//! Configurations with faults, and what is said about them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use purge_tests::files::{age_tree, make, temp_dir};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, binary, need};

/// Runs purge-agent; its exit code and everything it said.
fn purge_agent(words: &[&str]) -> (i32, String) {
    let mut command = Command::new("timeout");
    let out = command
        .args(["-k", "5", "60"])
        .arg(binary("purge-agent"))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    (out.status.code().unwrap_or(-1), said)
}

fn check(file: &Path) -> (i32, String) {
    purge_agent(&["check", "--config", file.to_str().unwrap()])
}

const GOOD: &str =
    "[[volume]]\nname = \"s\"\npath = \"/srv/s\"\n[[rule]]\nname = \"r\"\nvolume = \"s\"\nttl = \"28d\"\n";

#[test]
fn a_good_configuration_passes_the_check() {
    let dir = temp_dir();
    let file = dir.path().join("agent.toml");
    fs::write(&file, GOOD).unwrap();
    let (code, said) = check(&file);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn every_fault_is_told_with_its_file_and_line() {
    let dir = temp_dir();
    let file = dir.path().join("agent.toml");
    // What is wrong, in which line, and a word that must be said.
    let cases = [
        (GOOD.replace("ttl", "tll"), 7, "ttl"),
        (GOOD.replace("path", "paht"), 3, "path"),
        (GOOD.replace("28d", "28 parsecs"), 7, "28 parsecs"),
        (GOOD.replace("\"28d\"", "28"), 7, "ttl"),
        (GOOD.replace("volume = \"s\"", "volume = \"t\""), 6, "\"t\""),
        (format!("{GOOD}clock = [\"atime\"]\n"), 8, "access"),
        (format!("{GOOD}target = \"dirctory\"\n"), 8, "directory"),
        (format!("{GOOD}include = [7]\n"), 8, "string"),
        (
            format!("{GOOD}users = [\"no-such-user-here\"]\n"),
            8,
            "no-such-user-here",
        ),
        (format!("{GOOD}max_fraction = 3.0\n"), 8, "max_fraction"),
        (format!("{GOOD}schedule = \"sometimes\"\n"), 8, "sometimes"),
        (
            format!("{GOOD}[[rule]]\nname = \"r\"\nvolume = \"s\"\nttl = \"1d\"\n"),
            9,
            "\"r\"",
        ),
        (format!("{GOOD}ttl = \"1d\"\n"), 8, ""),
        (GOOD.replace("/srv/s", "srv/s"), 3, "absolute"),
        (format!("sate_dir = \"/x\"\n{GOOD}"), 1, "state_dir"),
        ("[[volume]\n".to_owned(), 1, ""),
    ];
    for (config, line, word) in cases {
        fs::write(&file, &config).unwrap();
        let (code, said) = check(&file);
        assert_eq!(code, 1, "{config}\n{said}");
        let place = format!("{}:{line}", file.display());
        assert!(said.contains(&place), "{config}\nnames {place}: {said}");
        assert!(said.contains(word), "{config}\nsays {word}: {said}");
        let (code, said) = purge_agent(&["run", "--config", file.to_str().unwrap()]);
        assert_eq!(code, 1, "run refuses it as well: {said}");
        assert!(said.contains(&place), "{said}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let dir = temp_dir();
    let file = dir.path().join("agent.toml");
    fs::write(&file, GOOD.replace("ttl", "tll").replace("path", "paht")).unwrap();
    let (code, said) = check(&file);
    assert_eq!(code, 1);
    for line in [3, 7] {
        assert!(said.contains(&format!("{}:{line}", file.display())), "{said}");
    }
}

#[test]
fn names_that_are_not_there_are_told_with_all_other_faults() {
    let dir = temp_dir();
    let file = dir.path().join("agent.toml");
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let text = format!(
        "state_dir = {open:?}\n\
         [[volume]]\nname = \"scratch\"\npath = \"/tmp\"\nprecison = \"1h\"\n\
         [[rule]]\nname = \"a\"\nvolume = \"scrach\"\nttl = \"28 moons\"\n\
         [[rule]]\nname = \"a\"\nvolume = \"scratch\"\nttl = \"28d\"\n\
         [[quota]]\nname = \"q\"\nvolume = \"scratch\"\nsubject = \"user\"\nhard = \"10XB\"\nrule = \"unknown\"\n\
         [[watermark]]\nvolume = \"home\"\nhigh = \"85%\"\nlow = \"95%\"\nrule = \"neither\"\n"
    );
    fs::write(&file, text).unwrap();
    let (code, said) = check(&file);
    assert_eq!(code, 1);
    for (line, what) in [
        (5, "precison"),
        (
            8,
            "rule a names volume \"scrach\", which there is not; did you mean \"scratch\"?",
        ),
        (9, "28 moons"),
        (11, "\"a\" is given twice"),
        (18, "10XB"),
        (19, "quota q names rule \"unknown\", which volume scratch has not"),
        (
            21,
            "the watermark of home names volume \"home\", which there is not",
        ),
        (23, "low is not below high"),
        (
            24,
            "the watermark of home names rule \"neither\", which there is not",
        ),
    ] {
        let place = format!("{}:{line}:", file.display());
        let found = said.lines().any(|l| l.contains(&place) && l.contains(what));
        assert!(found, "{place} {what}\n{said}");
    }
    assert!(said.contains("others than root can change it"), "{said}");
}

#[test]
fn rules_in_drop_ins_are_checked_too() {
    let dir = temp_dir();
    let file = dir.path().join("agent.toml");
    fs::write(&file, GOOD).unwrap();
    fs::create_dir(dir.path().join("rules.d")).unwrap();
    let more = dir.path().join("rules.d/10-more.toml");
    fs::write(&more, "[[rule]]\nname = \"more\"\nvolume = \"s\"\nttl = \"7d\"\n").unwrap();
    assert_eq!(check(&file).0, 0);
    fs::write(
        &more,
        "[[rule]]\nname = \"more\"\nvolume = \"s\"\n\nttl = \"7 moons\"\n",
    )
    .unwrap();
    let (code, said) = check(&file);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("{}:5", more.display())), "{said}");
}

#[test]
fn a_missing_configuration_or_volume_is_said_with_its_cure() {
    let dir = temp_dir();
    let nothing = dir.path().join("nothing.toml");
    for command in ["check", "run"] {
        let (code, said) = purge_agent(&[command, "--config", nothing.to_str().unwrap()]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(nothing.to_str().unwrap()), "{said}");
    }
    let volume = dir.path().join("not/there");
    let (code, said) = purge_agent(&[
        "run",
        "--volume",
        volume.to_str().unwrap(),
        "--ttl",
        "1d",
        "--state-dir",
        dir.path().join("state").to_str().unwrap(),
        "--listen",
        &format!("unix:{}", dir.path().join("agent.sock").display()),
    ]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(volume.to_str().unwrap()) && said.contains("mount"),
        "{said}"
    );
}

#[test]
fn a_volume_that_is_not_mounted_is_degraded_and_nothing_is_forgotten() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 10);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    agent.terminate();
    mount.unmount();
    agent.launch();
    let said = agent.wait_until_degraded();
    assert!(
        said.contains("mount") && said.contains(root.to_str().unwrap()),
        "{said}"
    );
    agent.terminate();
    mount.mount().unwrap();
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(agent.ctl().candidate_files().len(), 10);
}

#[test]
fn a_ttl_of_nothing_is_refused() {
    let dir = temp_dir();
    let file = dir.path().join("agent.toml");
    for bad in ["ttl = \"0s\"\n", ""] {
        fs::write(&file, GOOD.replace("ttl = \"28d\"\n", bad)).unwrap();
        let (code, said) = check(&file);
        assert_eq!(code, 1, "{bad}: {said}");
    }
}

#[test]
fn a_reload_takes_new_rules_and_keeps_the_old_ones_where_there_is_a_fault() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
    let ctl = agent.ctl();
    assert_eq!(ctl.candidates().len(), 10);
    agent.write_config(&Config::backdated_with(
        &root,
        "remove_empty_dirs = false\nexclude = [\"**/f00000[0-3]\"]",
    ));
    agent.reload();
    until("the new rules are in force", SOON, || {
        (ctl.candidates().len() == 6).then_some(())
    });
    agent.write_config(&Config::backdated_with(&root, "tll = \"1s\""));
    agent.reload();
    agent.wait_until_it_says("tll");
    assert_eq!(ctl.candidates().len(), 6, "the rules in force stay");
    agent.wait_until_tracking();
}

#[test]
fn two_agents_do_not_share_a_socket() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 1);
    let agent = Agent::tracking(&Config::backdated(&root));
    let state = temp_dir();
    let (code, said) = purge_agent(&[
        "run",
        "--volume",
        root.to_str().unwrap(),
        "--ttl",
        "1d",
        "--state-dir",
        state.path().to_str().unwrap(),
        "--listen",
        &format!("unix:{}", agent.socket().display()),
    ]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(agent.socket().to_str().unwrap()), "{said}");
    let _ = agent.ctl().run(["status"]).ok();
}
