//! The `[notify]` table, checked.

use std::ops::Range;
use std::path::PathBuf;

use super::keys::notify::{self as key, sink};
use super::keys::{Key, Table};
use super::means::{read_amqp, read_exec, read_smtp, read_webhook};
use super::names::{check_absolute, check_name};
use super::section::{Section, Source, suggest, value};
use purge_notify::event::Kind;
use purge_notify::settings::{Addresses, Means, Notify, Sink};
use purge_notify::text::Texts;

/// A digest that is rarer says nothing in time.
const DIGEST_MAX: u64 = 31 * 86_400;
/// A list of this number of lines is as much as a mail server takes.
const LIST_MAX_MAX: u64 = 100_000;

/// Reads the table.
pub(super) fn read_notify(s: Section<'_, '_>, src: &mut Source<'_>) -> Notify {
    let mut sinks: Vec<Sink> = Vec::new();
    let readers: [(&'static Key, &'static Table, ReadMeans); 4] = [
        (key::SMTP, &key::SMTP_TABLE, read_smtp),
        (key::WEBHOOK, &key::WEBHOOK_TABLE, read_webhook),
        (key::AMQP, &key::AMQP_TABLE, read_amqp),
        (key::EXEC, &key::EXEC_TABLE, read_exec),
    ];
    for (key, keys, means) in readers {
        for (table, span) in s.tables(src, key) {
            if let Some(sink) = read_sink(Section::new(keys, table, span), src, (key, means), &sinks) {
                sinks.push(sink);
            }
        }
    }
    let warn_before = value(s.duration(src, key::WARN_BEFORE));
    let retry_for = value(s.duration(src, key::RETRY_FOR));
    let list_max = value(s.count(src, key::LIST_MAX));
    if list_max > LIST_MAX_MAX {
        src.fault(
            &s.span_of(key::LIST_MAX),
            format!("list_max is {list_max}"),
            format!("write at most {LIST_MAX_MAX}"),
        );
    }
    let dry_run = s.flag(src, key::DRY_RUN).unwrap_or(false);
    let hold_first = value(s.duration(src, key::HOLD_FIRST));
    let templates = absolute(&s, src, key::TEMPLATES);
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
        map: absolute(&s, src, key::ADDRESSES).map(|(path, _)| path),
        gecos: s.flag(src, key::GECOS).unwrap_or(false),
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
        list_max: usize::try_from(list_max).unwrap_or(usize::MAX),
        retry_for,
        dry_run,
        hold_first,
    }
}

type ReadMeans = fn(&Section<'_, '_>, &mut Source<'_>) -> Option<Means>;

fn read_sink(
    s: Section<'_, '_>,
    src: &mut Source<'_>,
    (kind, means): (&'static Key, ReadMeans),
    others: &[Sink],
) -> Option<Sink> {
    let named = s.string(src, sink::NAME);
    let (name, span) = named.unwrap_or_else(|| (kind.name.to_owned(), s.span.clone()));
    check_name(src, &name, &span);
    if others.iter().any(|o| o.name == name) {
        src.fault(
            &span,
            format!("two sinks are called {name:?}"),
            format!("give this one its own: name = \"{name}-2\""),
        );
    }
    let events = read_events(&s, src);
    let digest = value(s.duration(src, sink::DIGEST));
    if digest > DIGEST_MAX {
        src.fault(
            &s.span_of(sink::DIGEST),
            format!("digest is {digest} s"),
            "write 31d or less: a notice that comes later is of no use",
        );
    }
    let means = means(&s, src);
    s.finish(src);
    Some(Sink {
        name,
        events,
        digest,
        means: means?,
    })
}

fn read_events(s: &Section<'_, '_>, src: &mut Source<'_>) -> Vec<Kind> {
    let Some((words, span)) = s.strings(src, sink::EVENTS) else {
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
fn absolute(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> Option<(PathBuf, Range<usize>)> {
    let (path, span) = s.string(src, key)?;
    check_absolute(src, key, &path, &span).then(|| (path.into(), span))
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
