//! Whole configurations: what is wrong with them is said with its place and its cure.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::{Config, Fault};
use purge_model::Clocks;
use purge_policy::rule::Target;

const VOLUME: &str = "[[volume]]\nname = \"s\"\npath = \"/export/s\"\n";

fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    fs::write(&file, text).unwrap();
    Config::load(&file)
}

fn faults(text: &str) -> Vec<String> {
    parse(text)
        .unwrap_err()
        .into_iter()
        .map(|f| f.to_string())
        .collect()
}

#[test]
fn a_small_configuration_has_the_documented_defaults() {
    let text = format!("{VOLUME}[[rule]]\nname = \"r\"\nvolume = \"s\"\nttl = \"28d\"\n");
    let config = parse(&text).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/purge-agent"));
    assert_eq!(config.listen.unix, Path::new("/run/purge-agent/agent.sock"));
    let rule = &config.rules[0];
    assert_eq!(
        (rule.ttl, rule.target, rule.clocks),
        (Some(28 * 86_400), Target::File, Clocks::ALL)
    );
    assert!(rule.remove_empty_dirs && !rule.auto_apply && !rule.scope.needs_path());
    assert_eq!((rule.max_empty_dirs, rule.max_fraction), (500, None));
}

#[test]
fn every_fault_says_where_and_how_to_mend_it() {
    let rule = |lines: &str| format!("{VOLUME}[[rule]]\nname = \"r\"\nvolume = \"s\"\n{lines}\n");
    let cases = [
        (
            "state_dri = \"/x\"\n".to_owned() + VOLUME,
            ":1:1: unknown key \"state_dri\"; did you mean \"state_dir\"?",
        ),
        (
            rule("ttl = \"28d\"\nttll = \"3d\""),
            ":8:1: unknown key \"ttll\" in [rule]; did you mean \"ttl\"?",
        ),
        (
            rule(""),
            ":4:1: the rule has no ttl, so it would select everything; add: ttl = \"28d\"",
        ),
        (rule("ttl = \"0s\""), ":7:7: ttl is 0"),
        (rule("ttl = \"28\""), ":7:7: ttl \"28\" has no known unit"),
        (rule("ttl = 28"), ":7:7: ttl is integer, not a string"),
        (rule("ttl = \"1d\"\ninclude = []"), ":8:11: include is empty"),
        (
            rule("ttl = \"1d\"\ninclude = [\"\"]"),
            ":8:12: include: pattern \"\" is empty",
        ),
        (rule("ttl = \"1d\"\nexclude = [\"!x\"]"), "starts with `!`"),
        (rule("ttl = \"1d\"\nusers = []"), ":8:9: users is empty"),
        (
            rule("ttl = \"1d\"\nusers = [\"no-such-user\"]"),
            "is unknown on this host",
        ),
        (rule("ttl = \"1d\"\nclock = []"), "clock is empty"),
        (
            rule("ttl = \"1d\"\nclock = [\"acces\"]"),
            "did you mean \"access\"?",
        ),
        (rule("ttl = \"1d\"\ndepth = 2"), "depth has no meaning for files"),
        (
            rule("ttl = \"1d\"\ntarget = \"directory\"\ndepth = 0"),
            "never goes",
        ),
        (rule("ttl = \"1d\"\nschedule = \"dayly\""), "is no schedule"),
        (
            rule("ttl = \"1d\"\nauto_apply = true"),
            "auto_apply without a schedule",
        ),
        (
            rule("ttl = \"1d\"\nmax_fraction = 0"),
            "every plan would be refused",
        ),
        (rule("ttl = \"1d\"\nmax_errors = 1.5"), "is no share"),
        (
            rule("ttl = \"1d\"\nmin_size = \"2GB\"\nmax_size = \"1GB\""),
            "min_size is more than max_size",
        ),
        (
            rule("ttl = \"1d\"\naction = \"archive\""),
            "there is no [[archive]]",
        ),
        (
            format!(
                "{}[[archive]]\nname = \"cold\"\nurl = \"file:///mnt/c\"\n",
                rule("ttl = \"1d\"\naction = \"archive\"\narchive = \"colt\"\n")
            ),
            "did you mean \"cold\"?",
        ),
        (
            format!(
                "{}[[archive]]\nname = \"a\"\nurl = \"file:///a\"\n[[archive]]\nname = \"b\"\nurl = \"file:///b\"\n",
                rule("ttl = \"1d\"\naction = \"archive\"\n")
            ),
            "it names no archive, and there are 2",
        ),
        (
            rule("ttl = \"1d\"\narchive = \"cold\""),
            "archive without action = \"archive\"",
        ),
        (
            rule("ttl = \"1d\"\naction = \"archive\"\ntarget = \"directory\""),
            "whole directories are not archived in this version",
        ),
        (
            rule("ttl = \"1d\"\naction = \"archive\"\nafter = \"14d\""),
            "after is not supported by this version",
        ),
        (
            format!("{VOLUME}[[archive]]\nname = \"cold\"\nurl = \"s3://bucket/p\"\n"),
            ":6:7: url \"s3://bucket/p\": s3:// is not supported in this version",
        ),
        (
            format!("{VOLUME}[[archive]]\nname = \"cold\"\nurl = \"/mnt/cold\"\n"),
            "it names no store",
        ),
        (
            format!("{VOLUME}[[archive]]\nname = \"cold\"\nurl = \"file:///export/s/cold\"\n"),
            "lie in each other",
        ),
        (
            format!("{VOLUME}[[archive]]\nname = \"cold\"\nurl = \"file:///mnt/c\"\nverify = \"checksum\"\n"),
            "verify is not supported by this version",
        ),
        (
            format!("{VOLUME}[[archive]]\nname = \"cold\"\nurl = \"file:///mnt/c\"\nconcurrency = 0\n"),
            "concurrency is 0",
        ),
        (
            rule("ttl = \"1d\"\nexclude = [\"/export/s/keep\"]"),
            "starts with the volume's own path",
        ),
        (
            format!("{VOLUME}collector = \"fuse\"\n"),
            "collector = \"fuse\" without mount",
        ),
        (
            format!("{VOLUME}[[rule]]\nname = \"r\"\nvolume = \"s\"\nannounce = \"14d\"\n"),
            "announce without a ttl",
        ),
        (
            format!(
                "{VOLUME}[[rule]]\nname = \"r\"\nvolume = \"s\"\nttl = \"28d\"\nannounce = \"14d\"\nannounce_to = \"/export/s/lists\"\n"
            ),
            "announce_to lies on volume s",
        ),
        (
            format!("{VOLUME}[[quota]]\nname = \"q\"\nvolume = \"s\"\nsubject = \"user\"\n"),
            ":4:1: the quota limits nothing",
        ),
        (
            format!("{VOLUME}[[quota]]\nname = \"q\"\nvolume = \"s\"\nsubject = \"projet\"\nhard = \"1B\"\n"),
            "project",
        ),
        (
            format!("{VOLUME}[[watermark]]\nvolume = \"s\"\nrule = \"r\"\nhigh = \"70%\"\nlow = \"75%\"\n"),
            ":8:7: low is not below high",
        ),
        (
            format!("{VOLUME}[[watermark]]\nvolume = \"s\"\nrule = \"r\"\nhigh = \"90%\"\nlow = \"75%\"\n"),
            "names rule \"r\", which volume s has not",
        ),
        (format!("{VOLUME}{VOLUME}"), "is given twice"),
        (
            format!("{VOLUME}[[volume]]\nname = \"t\"\npath = \"/export/s/t\"\n"),
            "overlaps that of volume s",
        ),
        (
            format!("{VOLUME}[[rule]]\nname = \"r\"\nvolume = \"ss\"\nttl = \"1d\"\n"),
            "did you mean \"s\"?",
        ),
        (
            "[[volume]]\nname = \"s\"\npath = \"/\"\n".into(),
            ":3:8: path \"/\" is the whole system",
        ),
        (
            "[[volume]]\nname = \"s\"\npath = \"\"\n".into(),
            "path \"\" is empty",
        ),
        (
            "[[volume]]\nname = \"s\"\npath = \"a/b\"\n".into(),
            "is not absolute",
        ),
        (
            "[[volume]]\nname = \"s\"\npath = \"/a/../b\"\n".into(),
            "is not normalised",
        ),
        (
            "[[volume]]\nname = \"a b\"\npath = \"/a\"\n".into(),
            "use letters, digits",
        ),
        (String::new(), "there is no volume"),
        ("x = [".into(), ":1:"),
    ];
    for (text, expected) in cases {
        let found = faults(&text);
        assert!(
            found.iter().any(|f| f.contains(expected)),
            "{text}\nexpected {expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn all_faults_are_told_at_once() {
    assert_eq!(
        faults("a = 1\nb = 2\n[[volume]]\nname = \"\"\npath = \"x\"\n").len(),
        4
    );
}

#[test]
fn rules_lie_in_drop_ins_too_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    fs::write(&file, VOLUME).unwrap();
    fs::create_dir(dir.path().join("rules.d")).unwrap();
    fs::write(
        dir.path().join("rules.d/b.toml"),
        "[[rule]]\nname=\"b\"\nvolume=\"s\"\nttl=\"1d\"\n",
    )
    .unwrap();
    fs::write(
        dir.path().join("rules.d/a.toml"),
        "[[rule]]\nname=\"a\"\nvolume=\"s\"\nttl=\"1d\"\n",
    )
    .unwrap();
    fs::write(dir.path().join("rules.d/c.txt"), "no toml").unwrap();
    let names: Vec<_> = Config::load(&file)
        .unwrap()
        .rules
        .into_iter()
        .map(|r| r.name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    fs::write(dir.path().join("rules.d/d.toml"), "state_dir = \"/x\"\n").unwrap();
    assert!(
        Config::load(&file).unwrap_err()[0]
            .to_string()
            .contains("d.toml:1:1: unknown key")
    );
}

#[test]
fn the_example_is_right() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../systemd/agent.toml");
    match Config::load(&file) {
        Ok(config) => assert!(!config.rules.is_empty()),
        Err(faults) => panic!("{faults:#?}"),
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(lines in prop::collection::vec("(\\[\\[(volume|rule)\\]\\]|(name|path|ttl|depth|clock|max_bytes|include|max_fraction) = (\"[a-z0-9/*!\\[{. ]{0,8}\"|-?[0-9]{1,22}|[0-9.e]{1,6}|\\[\\]|true|\\{\\}))", 0..12)) {
        let _ = parse(&lines.join("\n"));
    }
}

#[test]
fn a_mount_is_a_place_apart_from_all_volumes() {
    let of = |keys: &str| faults(&format!("{VOLUME}collector = \"fuse\"\n{keys}")).join("\n");
    for (keys, word) in [
        ("mount = \"/\"\n", "the whole system"),
        ("mount = \"scratch\"\n", "is not absolute"),
        ("mount = \"/export/s/in\"\n", "overlaps the path"),
        ("mount = \"/export\"\n", "overlaps the path"),
        (
            "mount = \"/seen\"\n[[volume]]\nname = \"t\"\npath = \"/seen/below\"\n",
            "overlaps the mount",
        ),
        (
            "mount = \"/seen\"\nignore_accessors = [{ comm = \"x\" }]\n",
            "ignore_accessors has no effect",
        ),
    ] {
        assert!(of(keys).contains(word), "{keys}: {}", of(keys));
    }
    let without = faults(&format!("{VOLUME}mount = \"/seen\"\n")).join("\n");
    assert!(without.contains("no effect without collector"), "{without}");
    let good = parse(&format!("{VOLUME}collector = \"fuse\"\nmount = \"/seen/\"\n")).unwrap();
    let volume = good.volumes.first().unwrap();
    assert_eq!(volume.mount.as_deref(), Some(Path::new("/seen")));
}
