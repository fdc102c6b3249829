#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::scope::Globs;

/// The volume `scratch` at /export/scratch, with directories and files.
fn idle(patterns: &[&str], directories: &[&str], files: &[&str]) -> Vec<Idle> {
    let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
    let names = ["scratch", "export/scratch"].map(str::to_owned);
    let mut search = Search::new(&patterns, &names).unwrap();
    directories
        .iter()
        .for_each(|path| search.look(path.as_bytes(), true));
    files.iter().for_each(|path| search.look(path.as_bytes(), false));
    search.idle()
}

#[test]
fn what_may_have_been_meant_is_named() {
    let directories = [
        "alice",
        "alice/Software",
        "keep",
        "Projects",
        "m\u{fc}ller",
        "[old]",
        "jobs",
        "jobs/x",
    ];
    let files = [
        "alice/note.txt",
        "alice/a.KEEP",
        "notes.TXT",
        "jobs/x/b[1].dat",
        "keep/\u{e9}t\u{e9}",
    ];
    for (pattern, meant) in [
        ("~/alice", Some("/alice")),
        ("~bob/note.txt", Some("**/note.txt")),
        ("$HOME/keep/**", Some("/keep/**")),
        ("scratch/keep/**", Some("/keep/**")),
        ("/export/scratch/jobs/*", Some("/jobs/*")),
        ("/KEEP", Some("/keep")),
        ("alice/software/**", Some("/alice/Software/**")),
        ("projects/", Some("/Projects")),
        ("[old]", Some("\\[old\\]")),
        ("b[1].dat", Some("b\\[1\\].dat")),
        ("mu\u{308}ller", Some("/m\u{fc}ller")),
        ("keep/e\u{301}te\u{301}", Some("/keep/\u{e9}t\u{e9}")),
        ("jobs\\x", Some("jobs/x")),
        ("note.txt/", Some("note.txt")),
        ("/note.txt", None),
        ("x/b*.dat", Some("**/x/b*.dat")),
        ("/projcets/**", Some("/Projects/**")),
        ("nothing-like-it", None),
    ] {
        let found = idle(&[pattern], &directories, &files);
        let found: Vec<Option<&str>> = found.iter().map(|i| i.did_you_mean.as_deref()).collect();
        assert_eq!(found, [meant], "{pattern}");
    }
    let good = [
        "alice",
        "/keep/**",
        "*.KEEP",
        "\\[old\\]",
        "**/x",
        "jobs/",
        "note.txt",
        "**",
    ];
    assert_eq!(idle(&good, &directories, &files), [], "each of these matches");
}

#[test]
fn an_empty_directory_is_there() {
    assert_eq!(idle(&["new/**", "/new/"], &["new"], &[]), []);
    assert_eq!(
        idle(&["new/**"], &["other", "other/new"], &[]).len(),
        1,
        "at its place only"
    );
}

proptest! {
    /// What a rule's globs match is what is looked for.
    #[test]
    fn it_matches_what_a_rule_matches(
        pattern in "/?(\\*\\*/)?[abA*]{1,3}(/[ab*]{1,2}){0,2}(/\\*\\*)?/?",
        path in "[abA]{1,3}(/[ab]{1,2}){0,3}",
        is_dir: bool,
    ) {
        let patterns = vec![pattern.clone()];
        if let Ok(globs) = Globs::compile(&patterns) {
            let mut search = Search::new(&patterns, &[]).unwrap();
            search.look(path.as_bytes(), is_dir);
            let is_above = pattern.strip_suffix("/**").is_some();
            let names = globs.names(path.as_bytes(), is_dir);
            prop_assert!(search.is_done() == names || is_above && search.is_done(), "{pattern} {path} {names}");
        }
    }

    #[test]
    fn no_path_makes_it_panic(path in prop::collection::vec(any::<u8>(), 0..40), is_dir: bool) {
        let patterns = ["~/x", "[a]", "b?", "\\[", "**/c/"].map(str::to_owned);
        let mut search = Search::new(&patterns, &["v".into()]).unwrap();
        search.look(&path, is_dir);
        prop_assert!(search.idle().len() <= 5);
    }
}
