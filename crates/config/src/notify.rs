//! The `[notify]` table, checked.

use std::ops::Range;
use std::path::PathBuf;

use super::means::{read_amqp, read_exec, read_smtp, read_webhook};
use super::section::{Section, Source, suggest};
use purge_notify::event::Kind;
use purge_notify::settings::{Addresses, Means, Notify, Sink};
use purge_notify::text::Texts;

/// Owners get a mail a day at most.
const MAIL_EVERY: u64 = 86_400;
/// A digest that is rarer says nothing in time.
const DIGEST_MAX: u64 = 31 * 86_400;
/// A list of so many lines is as much as a mail server takes.
const LIST_MAX_MAX: u64 = 100_000;

/// Reads the table.
pub(super) fn read_notify(mut s: Section<'_, '_>, src: &mut Source<'_>) -> Notify {
    let defaults = Notify::default();
    let mut sinks: Vec<Sink> = Vec::new();
    let readers: [(&'static str, &'static str, ReadMeans); 4] = [
        ("smtp", "notify.smtp", read_smtp),
        ("webhook", "notify.webhook", read_webhook),
        ("amqp", "notify.amqp", read_amqp),
        ("exec", "notify.exec", read_exec),
    ];
    for (key, kind, means) in readers {
        for (table, span) in s.tables(src, key) {
            if let Some(sink) = read_sink(Section::new(kind, table, span), src, (key, means), &sinks) {
                sinks.push(sink);
            }
        }
    }
    let warn_before = s
        .duration(src, "warn_before")
        .map_or(defaults.warn_before, |(n, _)| n);
    let retry_for = s
        .duration(src, "retry_for")
        .map_or(defaults.retry_for, |(n, _)| n);
    let list_max = match s.count(src, "list_max") {
        Some((n, span)) if n > LIST_MAX_MAX => {
            src.fault(
                &span,
                format!("list_max is {n}"),
                format!("write at most {LIST_MAX_MAX}"),
            );
            defaults.list_max
        }
        given => given.map_or(defaults.list_max, |(n, _)| {
            usize::try_from(n).unwrap_or(usize::MAX)
        }),
    };
    let templates = absolute(&mut s, src, "templates");
    if let Some((dir, span)) = &templates
        && let Err(why) = Texts::load(Some(dir))
    {
        src.fault(
            span,
            why,
            "correct it; without the file the built-in text is used",
        );
    }
    let addresses = Addresses {
        map: absolute(&mut s, src, "addresses").map(|(path, _)| path),
        gecos: s.flag(src, "gecos").unwrap_or(false),
    };
    if sinks.is_empty() && src.faults.is_empty() {
        let mend = "add one, such as: smtp = { host = \"127.0.0.1\", port = 25, from = \"purge@host\", to = \"{user}@example.org\" }";
        src.fault(
            &s.span.clone(),
            "[notify] has no smtp, webhook, amqp or exec",
            mend,
        );
    }
    s.finish(src);
    Notify {
        sinks,
        warn_before,
        addresses,
        templates: templates.map(|(path, _)| path),
        list_max,
        retry_for,
    }
}

type ReadMeans = fn(&mut Section<'_, '_>, &mut Source<'_>) -> Option<Means>;

fn read_sink(
    mut s: Section<'_, '_>,
    src: &mut Source<'_>,
    (key, means): (&'static str, ReadMeans),
    others: &[Sink],
) -> Option<Sink> {
    let named = s.string(src, "name");
    let (name, span) = named.unwrap_or_else(|| (key.to_owned(), s.span.clone()));
    if name.is_empty() || !name.chars().all(super::check::is_name_char) {
        src.fault(
            &span,
            format!("name {name:?} is none"),
            "use letters, digits and . _ -",
        );
    }
    if others.iter().any(|o| o.name == name) {
        src.fault(
            &span,
            format!("two sinks are called {name:?}"),
            format!("give this one its own: name = \"{name}-2\""),
        );
    }
    let events = read_events(&mut s, src);
    let default = if key == "smtp" { MAIL_EVERY } else { 0 };
    let digest = match s.duration(src, "digest") {
        Some((n, span)) if n > DIGEST_MAX => {
            src.fault(
                &span,
                format!("digest is {n} s"),
                "write 31d or less: a notice that comes later is none",
            );
            default
        }
        given => given.map_or(default, |(n, _)| n),
    };
    let means = means(&mut s, src);
    s.finish(src);
    Some(Sink {
        name,
        events,
        digest,
        means: means?,
    })
}

fn read_events(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Vec<Kind> {
    let Some((words, span)) = s.strings(src, "events") else {
        return Kind::ALL.to_vec();
    };
    if words.is_empty() {
        src.fault(
            &span,
            "events is empty: nothing would be sent",
            "leave it out for all of them",
        );
    }
    let known: Vec<&str> = Kind::ALL.iter().map(|k| k.as_str()).collect();
    let mut kinds = Vec::new();
    for (word, span) in words {
        match Kind::ALL.into_iter().find(|k| k.as_str() == word) {
            Some(kind) => kinds.push(kind),
            None => src.fault(
                &span,
                format!("event {word:?} is unknown"),
                suggest(&word, &known),
            ),
        }
    }
    kinds
}

/// An absolute path.
fn absolute(
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static str,
) -> Option<(PathBuf, Range<usize>)> {
    let (path, span) = s.string(src, key)?;
    if !path.starts_with('/') {
        src.fault(
            &span,
            format!("{key} is not absolute"),
            "write a path that starts with /",
        );
        return None;
    }
    Some((path.into(), span))
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
