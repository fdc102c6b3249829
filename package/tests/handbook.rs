//! The handbook's commands and configurations: those that the programs would refuse are faults of the handbook.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap::error::ErrorKind;
use purge_config::Config;

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The chapters of the handbook in the order of its index, by their place below `docs`.
fn chapters() -> Vec<String> {
    let index = fs::read_to_string(documents().join("README.md")).unwrap();
    let links = index.split("](").skip(1).filter_map(|l| l.split(')').next());
    links
        .filter(|l| l.starts_with("handbook/"))
        .map(str::to_owned)
        .collect()
}

/// The README and every chapter, with their names.
fn pages() -> Vec<(String, String)> {
    let mut names = vec!["../README.md".to_owned()];
    names.extend(chapters());
    let read = |name: String| {
        let text = fs::read_to_string(documents().join(&name));
        let text = text.unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, text)
    };
    names.into_iter().map(read).collect()
}

#[test]
fn the_index_names_every_chapter_once() {
    let mut named = chapters();
    named.sort();
    let files = fs::read_dir(documents().join("handbook")).unwrap();
    let mut there: Vec<String> = files
        .map(|f| format!("handbook/{}", f.unwrap().file_name().display()))
        .collect();
    there.sort();
    assert_eq!(named, there);
}

/// The fenced blocks of a page in a language; "" is a block of commands.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.split_once('\n'))
        .filter(|(named, _)| *named == language)
        .map(|(_, block)| block)
        .collect()
}

/// The words of a shell's line, as far as the handbook goes: double quotes, and comments.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.split(" #").next().unwrap_or_default().chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|w| !w.is_empty()));
    words
}

#[test]
fn every_command_is_one() {
    let mut tried = 0;
    for (page, text) in &pages() {
        let lines = blocks(text, "").into_iter().flat_map(str::lines);
        for line in lines.flat_map(|l| l.split(" && ")) {
            let words = words(line);
            let program = words.first().map(|w| w.rsplit('/').next().unwrap_or(w));
            let command = match program {
                Some("purgectl") => purgectl::Cli::command(),
                Some("purge-agent") => purge_agent::arguments::Arguments::command(),
                _ => continue,
            };
            let parsed = command.try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{page}: {line}\n{}", parsed.unwrap_err());
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried} commands");
}

/// What stands in the text between backquotes, and names a command with something behind it.
#[test]
fn every_command_in_a_sentence_is_one() {
    let mut tried = 0;
    for (page, text) in &pages() {
        let prose: String = text.split("```").step_by(2).collect();
        for span in prose.split('`').skip(1).step_by(2) {
            let command = match span.split(' ').next() {
                Some("purgectl") if span.contains("COMMAND") => continue,
                Some("purgectl") => purgectl::Cli::command(),
                Some("purge-agent") => purge_agent::arguments::Arguments::command(),
                _ => continue,
            };
            if let Err(error) = command.try_get_matches_from(words(span)) {
                let is_half = matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelp
                        | ErrorKind::DisplayVersion
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                assert!(is_half, "{page}: {span}\n{error}");
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried} commands");
}

/// The example, with every configuration of the handbook where it says that it belongs, one after another.
#[test]
fn every_configuration_is_good() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("rules.d")).unwrap();
    let main = dir.path().join("agent.toml");
    fs::write(&main, include_str!("../../systemd/agent.toml")).unwrap();
    let mut tried = 0;
    for (page, text) in &pages() {
        for block in blocks(text, "toml") {
            let place = block
                .lines()
                .next()
                .and_then(|l| l.strip_prefix("# /etc/purge-agent/"));
            let place = place.unwrap_or_else(|| panic!("{page}: where does this belong?\n{block}"));
            let (name, below) = match place.split_once(", below ") {
                Some((name, line)) => (name, Some(format!("{line}\n"))),
                None => (place, None),
            };
            let file = dir.path().join(name);
            let before = fs::read_to_string(&file).unwrap_or_default();
            let after = match below {
                Some(line) => before.replacen(&line, &format!("{line}{block}"), 1),
                None => format!("{before}\n{block}"),
            };
            assert_ne!(before, after, "{page}: there is no such place\n{block}");
            fs::write(&file, after).unwrap();
            // What lies on the reader's host does not lie here; the whole program's test has it.
            let mut faults = Config::load(&main).err().unwrap_or_default();
            faults.retain(|fault| !fault.what.contains("/etc/purge-agent/"));
            assert!(faults.is_empty(), "{page}: {block}\n{faults:?}");
            tried += 1;
        }
    }
    assert!(tried >= 3);
}

/// The text of all programs, with the lines of a literal joined.
fn source(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &source(&path);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// The parts of a message that stand in the source: without what `...` and words in capitals stand for.
fn parts(message: &str) -> Vec<String> {
    let is_filled_in = |word: &str| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase());
    let words = message.split_whitespace();
    let marked: Vec<&str> = words.map(|w| if is_filled_in(w) { "..." } else { w }).collect();
    let marked = marked.join(" ");
    let parts = marked.split("...").map(|p| p.trim_matches([' ', ':', ',', ';']));
    parts.filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

/// A reader looks for a message with its words, so a message that was worded otherwise since is a fault of the handbook.
#[test]
fn every_message_that_the_handbook_explains_is_one() {
    let top = documents().join("..");
    let dirs = ["agent", "crates", "ctl", "proto"].map(|dir| source(&top.join(dir)));
    let joined: Vec<String> = (dirs.concat().split("\\\n"))
        .map(|line| line.trim_start().to_owned())
        .collect();
    let joined = joined.concat();
    let mut tried = 0;
    for (page, text) in pages() {
        if !page.ends_with("troubleshooting.md") && !page.ends_with("gaps.md") {
            continue;
        }
        let rows = text
            .lines()
            .filter_map(|l| l.strip_prefix("| ")?.split('|').next());
        for message in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
            for part in parts(message) {
                // "0 B" is how a size of nothing is shown.
                let part = part.strip_prefix("0 B ").unwrap_or(&part);
                assert!(
                    joined.contains(part),
                    "{page}: no program says {part:?} ({message})"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 30, "{tried}");
}
