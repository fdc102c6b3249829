//! The handbook's commands and configurations: those that the programs would refuse are faults of the handbook.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;

use clap::CommandFactory;
use purge_agent::config::Config;

const PAGES: [(&str, &str); 2] = [
    ("README.md", include_str!("../../README.md")),
    ("docs/README.md", include_str!("../../docs/README.md")),
];

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
    for (page, text) in PAGES {
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

#[test]
fn every_configuration_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    let mut tried = 0;
    for (page, text) in PAGES {
        for block in blocks(text, "toml") {
            // A block without a table is a part of the volume's.
            let volume = "[[volume]]\nname = \"scratch\"\npath = \"/export/scratch\"\n";
            fs::write(&file, format!("{volume}{block}")).unwrap();
            if let Err(faults) = Config::load(&file) {
                panic!("{page}: {block}\n{faults:?}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 3);
}
