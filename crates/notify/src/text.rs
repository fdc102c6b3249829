//! A notice in words: templates in Jinja's language, each of which can be replaced by a file.
//!
//! They are given `to` (audience, user, uid), `events` (as JSON has them, with `entries` below `list`), `host`, `notice_id`,
//! `warn_seconds` and `list_place`, and the filters `size`, `when`, `day`, `duration` and `things`.

use std::path::Path;

use chrono::DateTime;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use purge_proto::shown::{Shown, page};
use purge_proto::units::{format_count, format_duration, format_limit, format_size};

use super::event::{Audience, Entry};
use super::notice::Notice;
use purge_sys::trusted;

/// File name and built-in text. The first two speak to an owner, the others to the operator.
const BUILT_IN: [(&str, &str); 4] = [
    ("owner-subject.txt", include_str!("templates/owner-subject.txt")),
    ("owner-body.txt", include_str!("templates/owner-body.txt")),
    (
        "operator-subject.txt",
        include_str!("templates/operator-subject.txt"),
    ),
    ("operator-body.txt", include_str!("templates/operator-body.txt")),
];
/// Built-in templates are asked for by this prefix.
const OWN: &str = "built-in/";
/// Characters of a subject: more is cut off by those who show it.
const SUBJECT_MAX: usize = 200;
/// A template is not longer.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Instructions that a template may take: one that never ends must not hold up a sink.
const FUEL: u64 = 5_000_000;

impl Default for Texts {
    /// No text at all: only where even the built-in ones cannot be had.
    fn default() -> Self {
        Self {
            templates: Environment::empty(),
        }
    }
}

/// What a notice says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// One line.
    pub subject: String,
    /// Plain text.
    pub body: String,
}

/// The templates in force.
#[derive(Debug)]
pub struct Texts {
    templates: Environment<'static>,
}

impl Texts {
    /// The built-in texts, with those replaced that lie in `dir`.
    ///
    /// # Errors
    /// What is wrong with a file, and where.
    pub fn load(dir: Option<&Path>) -> Result<Self, String> {
        let mut templates = Environment::new();
        // What is misspelt is found when it is tried, not by the reader who gets an empty line.
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        templates.set_fuel(Some(FUEL));
        templates.add_filter("size", |n: f64| format_size(n.max(0.0) as u64));
        templates.add_filter("limit", |n: f64| format_limit(n.max(0.0) as u64));
        templates.add_filter("count", format_count);
        templates.add_filter("duration", format_duration);
        templates.add_filter("at_least_one", |n: i64| n.max(1));
        templates.add_filter("when", |t: String| moment(&t, "%Y-%m-%d %H:%M UTC"));
        templates.add_filter("day", |t: String| moment(&t, "%Y-%m-%d"));
        templates.add_filter("things", things);
        for (name, text) in BUILT_IN {
            let own = templates.add_template_owned(format!("{OWN}{name}"), text);
            own.map_err(|e| format!("built-in {name}: {e:#}"))?;
            let file = dir.map(|d| d.join(name));
            let replaced = match file.as_deref().map(own_text).transpose()?.flatten() {
                Some(replaced) => replaced,
                None => text.to_owned(),
            };
            templates
                .add_template_owned(name.to_owned(), replaced)
                .map_err(|e| format!("{}: {e:#}", file.unwrap_or_default().display()))?;
        }
        if let Some(dir) = dir.filter(|d| !d.is_dir()) {
            return Err(format!("{} is no directory", dir.display()));
        }
        Ok(Self { templates })
    }

    /// A notice in words. A template that fails is replaced by the built-in one: a notice is not lost for its form.
    pub fn words(&self, notice: &Notice, lists: &[Vec<Entry>], about: &About<'_>) -> Words {
        let who = match notice.to {
            Audience::Owner { .. } => "owner",
            Audience::Operator => "operator",
        };
        // Names of others are escaped here, so a template cannot forget it; the ends of its own lines stay.
        let events: Vec<serde_json::Value> = notice
            .events
            .iter()
            .zip(lists.iter().map(Some).chain(std::iter::repeat(None)))
            .map(|(event, entries)| with_entries(event, entries.map_or(&[], Vec::as_slice)))
            .map(in_words)
            .collect();
        let to = in_words(serde_json::to_value(&notice.to).unwrap_or_default());
        let values = context! {
            to => Value::from(Serde(&to)),
            events => Value::from(Serde(&events)),
            host => about.host,
            notice_id => notice.notice_id.as_str(),
            warn_seconds => about.warn_before,
            list_place => about.list_place,
        };
        let subject = self.render(&format!("{who}-subject.txt"), &values);
        let line: String = subject.split_whitespace().collect::<Vec<_>>().join(" ");
        Words {
            subject: Shown::text(&line).as_str().chars().take(SUBJECT_MAX).collect(),
            body: page(&self.render(&format!("{who}-body.txt"), &values)).into_owned(),
        }
    }

    fn render(&self, name: &str, values: &Value) -> String {
        let render = |name: &str| self.templates.get_template(name)?.render(values);
        render(name)
            .or_else(|error| {
                tracing::error!(template = name, error = %format!("{error:#}"), "the template fails: the built-in text is sent");
                render(&format!("{OWN}{name}"))
            })
            .unwrap_or_else(|error| {
                tracing::error!(template = name, error = %format!("{error:#}"), "the built-in template fails");
                "See `purgectl notices`.".to_owned()
            })
    }
}

/// A text of the administrator's own; none where there is no such file.
fn own_text(file: &Path) -> Result<Option<String>, String> {
    match trusted::read(file, TEXT_BYTES_MAX) {
        Err(e) if e.is_absent() => Ok(None),
        read => read.map(Some).map_err(|e| std::io::Error::from(e).to_string()),
    }
}

/// What a template is told besides the notice.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// This host.
    pub host: &'a str,
    /// Owners hear of what will expire within this number of seconds.
    pub warn_before: u64,
    /// Where the reader finds a list, such as "the attachment".
    pub list_place: &'a str,
}

/// An event as JSON has it, with its list's entries.
pub(super) fn with_entries(event: &super::event::Event, entries: &[Entry]) -> serde_json::Value {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Some(list) = value.get_mut("list").and_then(serde_json::Value::as_object_mut) {
        list.remove("file");
        list.insert(
            "entries".into(),
            serde_json::to_value(entries).unwrap_or_default(),
        );
    }
    value
}

/// Every text in it escaped.
fn in_words(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::String(text) => Json::String(Shown::from(text).into_string()),
        Json::Array(items) => items.into_iter().map(in_words).collect(),
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key, in_words(value)));
            Json::Object(fields.collect())
        }
        other => other,
    }
}

fn moment(text: &str, format: &str) -> String {
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => at.to_utc().format(format).to_string(),
        Err(_) => text.to_owned(),
    }
}

/// "3 files and 1 directory"
fn things(event: &Value) -> Result<String, Error> {
    let number = |key: &str| -> Result<u64, Error> {
        let value = event.get_attr(key)?;
        u64::try_from(value)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("{key} is no number")))
    };
    let part = |n: u64, one: &str, many: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{} {many}", format_count(n)),
    };
    // Those in the directories too, where an event counts them apart.
    let inside = event.get_attr("files_inside")?;
    let inside = u64::try_from(inside).unwrap_or(0);
    let files = number("files")?.saturating_add(inside);
    let directories = number("directories")?;
    Ok(match (files, directories) {
        (files, 0) => part(files, "file", "files"),
        (0, directories) => part(directories, "directory", "directories"),
        (files, directories) => format!(
            "{} and {}",
            part(files, "file", "files"),
            part(directories, "directory", "directories")
        ),
    })
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
