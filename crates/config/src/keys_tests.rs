//! The entries hold what they promise: each is read, by its form, with its default, and the pages are made from them.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::Config;
use file::FILE;
use purge_policy::rule::Rule;
use purge_proto::units::{parse_duration, parse_size};

fn tables() -> Vec<Table> {
    FILE.all()
}

/// Where a table stands, and the tables around it.
fn head(table: &Table) -> String {
    let volume = "[[volume]]\nname = \"s\"\npath = \"/export/s\"\n";
    match table.kind {
        "" => String::new(),
        "tls" => "[listen.tls]\n".into(),
        "viewer" | "operator" | "admin" => format!("[access.{}]\n", table.kind),
        "ignore_accessors" => format!("{volume}[[volume.ignore_accessors]]\n"),
        "quota.overrides" => "[[quota.overrides]]\n".into(),
        kind if kind.starts_with("notify.") => format!("[[{kind}]]\n"),
        _ => format!("{}\n", table.heading),
    }
}

/// What is said of a table with this value for a key, and the other keys that must be there.
fn said(table: &Table, key: &Key, value: &str) -> Vec<String> {
    let others = table
        .keys
        .iter()
        .filter(|k| k.preset == Preset::Required && k.name != key.name);
    let others: String = others.map(|k| format!("{} = {}\n", k.name, k.example)).collect();
    let text = format!("{}{others}{} = {value}\n", head(table), key.name);
    let faults = Config::of_texts(&[("agent.toml", &text)], |_| None).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn every_key_of_the_list_is_read() {
    for table in tables() {
        for key in table.keys.iter().filter(|key| !matches!(key.form, Form::Later)) {
            let said = said(&table, key, "1979-05-27");
            let refused = format!(" {} is ", key.name);
            let is_refused = said.iter().any(|fault| fault.contains(&refused));
            assert!(is_refused, "[{}] {}: {said:?}", table.kind, key.name);
        }
    }
}

#[test]
fn a_key_stands_once_in_its_table() {
    for table in tables() {
        let mut names = table.names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table.keys.len(), "[{}]", table.kind);
    }
}

#[test]
fn keys_of_a_table_in_a_line_wait_as_long_as_the_line() {
    for table in tables() {
        for key in table.keys.iter().filter(|key| key.reload == Reload::AtRestart) {
            if let Form::Tables(below) = key.form {
                assert!(below.keys.iter().all(|k| k.reload == key.reload), "{}", key.name);
            }
        }
    }
}

#[test]
fn defaults_and_examples_are_of_the_form() {
    for table in tables() {
        for key in table.keys {
            let is_table = matches!(key.form, Form::Tables(below) if !below.heading.is_empty());
            let example = Some(key.example).filter(|_| !is_table && !matches!(key.form, Form::Later));
            assert!(
                example.is_none() || !key.doc.is_empty(),
                "{} says nothing",
                key.name
            );
            for text in key.defaults().chain(example) {
                let value = DeValue::parse(text).unwrap_or_else(|e| panic!("{} = {text}: {e}", key.name));
                assert!(is_of(key.form, value.get_ref()), "{} = {text}", key.name);
            }
        }
    }
}

fn is_of(form: Form, value: &DeValue<'_>) -> bool {
    let (text, flag) = (value.as_str(), value.as_bool());
    match form {
        Form::Text(_) => text.is_some(),
        Form::Duration => parse_duration(text.unwrap_or("?")).is_ok(),
        Form::Size => parse_size(text.unwrap_or("?")).is_ok(),
        Form::Count => value.as_integer().is_some(),
        Form::Share => value.as_float().is_some(),
        Form::Percent => text.is_some_and(|t| t.ends_with('%')),
        Form::Flag | Form::FlagOr(_) => flag.is_some(),
        Form::Choice(words) => words.iter().any(|w| !w.later && Some(w.name) == text),
        Form::Texts(_) => text.is_some() || value.as_array().is_some(),
        Form::Tables(_) => value.as_table().is_some() || value.as_array().is_some(),
        Form::Later => false,
    }
}

#[test]
fn words_of_a_later_version_are_refused_as_such() {
    let mut refused = 0;
    for table in tables() {
        for key in table.keys {
            let words = match key.form {
                Form::Choice(words) => words,
                _ => &[],
            };
            for word in words.iter().filter(|word| word.later) {
                let said = said(&table, key, &format!("{:?}", word.name)).join("\n");
                assert!(
                    said.contains(&format!("{} is not supported by this version", key.name)),
                    "{said}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    let said = said(&rule::RULE, rule::AFTER, "\"14d\"").join("\n");
    assert!(said.contains("after is not supported by this version"), "{said}");
}

/// The rule of a command line has the defaults of a file.
#[test]
fn the_rule_for_everything_has_the_defaults_of_a_file() {
    let text =
        "[[volume]]\nname = \"s\"\npath = \"/s\"\n[[rule]]\nname = \"ttl\"\nvolume = \"s\"\nttl = \"60s\"\n";
    let config = Config::of_texts(&[("agent.toml", text)], |_| None).unwrap();
    let expected = Rule::everything_older("s", 60);
    assert_eq!(format!("{:?}", config.rules), format!("{:?}", [expected]));
    assert_eq!(config.listen.unix.to_str(), Some(purge_proto::DEFAULT_SOCKET));
    assert_eq!(config.state_dir.to_str(), Some(crate::DEFAULT_STATE_DIR));
    assert_eq!(config.audit_log, config.state_dir.join("audit.jsonl"));
}

#[test]
fn the_pages_are_made_from_the_entries() {
    let cure = "run: cargo run -p purge-config --example write-pages";
    assert!(
        pages::example() == include_str!("../../../systemd/agent.toml"),
        "{cure}"
    );
    assert!(
        pages::reference() == include_str!("../../../docs/configuration.md"),
        "{cure}"
    );
}

/// Every key stands in the example, and no other does.
#[test]
fn the_example_has_every_key_and_no_other() {
    let example = pages::example();
    for table in tables() {
        for key in table.keys.iter().filter(|key| !matches!(key.form, Form::Later)) {
            let is_head = matches!(key.form, Form::Tables(below) if !below.heading.is_empty());
            let is_inline = table.heading.is_empty() && !table.kind.is_empty();
            let is_there = match (is_head, is_inline) {
                (true, _) => example.contains(&format!("[{}]", key.name)),
                (_, true) => example
                    .lines()
                    .any(|l| l.starts_with(&format!("#   {} ", key.name))),
                _ => {
                    example.contains(&format!("\n{} = {}\n", key.name, key.example))
                        || example.contains(&format!("\n# {} = {}\n", key.name, key.example))
                }
            };
            assert!(is_there, "[{}] {}", table.kind, key.name);
        }
    }
    let known: Vec<&str> = tables().iter().flat_map(Table::names).collect();
    for line in example.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((name, _)) = line.split_once(" = ")
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            assert!(known.contains(&name), "{line}");
        }
    }
}
