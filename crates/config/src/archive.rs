//! `[[archive]]` tables, checked, and the stores that rules name.

use std::path::Path;

use super::fault::Fault;
use super::keys::{archive as key, rule as rule_key};
use super::names::read_name;
use super::parts::Parts;
use super::section::{Section, Source, suggest, value};
use purge_archive::settings::{Place, Settings, UrlError};
use purge_policy::rule::{Action, Destination, Rule, Target};

/// More at a time would only wait for each other.
const CONCURRENCY_MAX: u64 = 256;

/// Reads a table, and adds the store if it has no fault.
pub(super) fn read_archive(s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    let before = src.faults.len();
    let name = read_name(&s, src, key::NAME, &parts.archive_names);
    parts.archive_names.extend(name.clone());
    parts.nameless_archive |= name.is_none();
    let url = s.needed(src, key::URL);
    let place = url.as_ref().and_then(|(url, span)| match Place::parse(url) {
        Ok(place) => Some(place),
        Err(error) => {
            let mend = match error {
                UrlError::Later(_) => "write a directory, such as \"file:///mnt/cold/scratch\"",
                UrlError::Unknown | UrlError::Path => {
                    "write file:// and an absolute path, such as \"file:///mnt/cold/scratch\""
                }
            };
            src.fault(span, format!("url {url:?}: {error}"), mend);
            None
        }
    });
    s.choice(src, key::VERIFY, &[("readback", ())]);
    let concurrency = s.count(src, key::CONCURRENCY);
    if let Some((n, span)) = &concurrency
        && !(1..=CONCURRENCY_MAX).contains(n)
    {
        src.fault(
            span,
            format!("concurrency is {n}"),
            format!("write a number from 1 to {CONCURRENCY_MAX}"),
        );
    }
    let concurrency = usize::try_from(value(concurrency)).unwrap_or(1);
    let of_table = Fault::at(src.file, src.text, &s.span, "", "");
    s.finish(src);
    let (Some(name), Some((url, _)), Some(place)) = (name, url, place) else {
        return;
    };
    if src.faults.len() == before {
        parts.archive_places.push(of_table);
        parts.archives.push(Settings {
            name,
            url,
            place,
            concurrency,
        });
    }
}

/// What a rule says of a store: it may be named in any file, so that it is looked for when all are read.
pub(super) fn read_destination(
    s: &Section<'_, '_>,
    src: &mut Source<'_>,
    (action, target): (Action, Target),
) -> Action {
    let named = s.string(src, rule_key::ARCHIVE);
    match (action, named) {
        (Action::Archive(_), named) => {
            if matches!(target, Target::Directory { .. }) {
                src.fault(
                    &s.span_of(rule_key::ACTION),
                    "whole directories are not archived in this version",
                    "take target out: the rule archives files, and removes directories that become empty",
                );
            }
            Action::Archive(Destination {
                name: named.map(|(name, _)| name).unwrap_or_default(),
                url: String::new(),
            })
        }
        (other, Some((_, span))) => {
            src.fault(
                &span,
                "archive without action = \"archive\"",
                "add: action = \"archive\", or take archive out",
            );
            other
        }
        (other, None) => other,
    }
}

/// Gives each rule the store that it names, and says what is wrong with that and with where stores are.
pub(super) fn settle(parts: &mut Parts) {
    let mut faults = Vec::new();
    for (rule, place) in parts.rules.iter_mut().zip(&parts.rule_places) {
        if let Err((what, mend)) = destination(
            rule,
            &parts.archives,
            (&parts.archive_names, parts.nameless_archive),
        ) {
            faults.push(Fault {
                what: format!("rule {}: {what}", rule.name),
                mend,
                ..place.clone()
            });
        }
    }
    for (archive, place) in parts.archives.iter().zip(&parts.archive_places) {
        let Place::Directory(dir) = &archive.place;
        let overlaps = |path: &Path| dir.starts_with(path) || path.starts_with(dir);
        if let Some(volume) = parts.volumes.iter().find(|volume| overlaps(&volume.path)) {
            faults.push(Fault {
                what: format!(
                    "archive {}: its directory and volume {} lie in each other",
                    archive.name, volume.name
                ),
                mend: "name a directory outside of every volume".into(),
                ..place.clone()
            });
        }
    }
    parts.faults.append(&mut faults);
}

/// Puts the store in a rule that archives.
fn destination(
    rule: &mut Rule,
    all: &[Settings],
    (names, is_nameless): (&[String], bool),
) -> Result<(), (String, String)> {
    let Action::Archive(to) = &mut rule.action else {
        return Ok(());
    };
    let named = |name: &str| all.iter().find(|archive| archive.name == name);
    let found = match (to.name.as_str(), all) {
        ("", [only]) if names.len() == 1 => Some(only),
        (name, _) => named(name),
    };
    if let Some(found) = found {
        (to.name, to.url) = (found.name.clone(), found.url.clone());
        return Ok(());
    }
    // One with a fault of its own is there, and has been told.
    if is_nameless || names.contains(&to.name) || (to.name.is_empty() && names.len() == 1) {
        return Ok(());
    }
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    Err(match (to.name.as_str(), known.as_slice()) {
        ("", []) => (
            "action = \"archive\", and there is no [[archive]]".into(),
            "add an [[archive]] table with name and url".into(),
        ),
        ("", several) => (
            format!("it names no archive, and there are {}", several.len()),
            format!(
                "add: archive = {:?}",
                several.first().copied().unwrap_or_default()
            ),
        ),
        (name, known) => (
            format!("it names archive {name:?}, which there is not"),
            suggest(name, known),
        ),
    })
}
