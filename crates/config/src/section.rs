//! One TOML table, read key by key. Each key is read by its entry in [`keys`](super::keys), which also gives its default.

use std::ops::Range;

use purge_proto::units::{parse_duration, parse_size};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Fault;
use super::keys::{Form, Key, Table, Word, parsed_default};
use super::origin::{self, Shown};

/// A file's text and everything found wrong with it so far.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub file: &'a str,
    pub text: &'a str,
    pub faults: Vec<Fault>,
    /// Every key of every section that was read, for those who want to see it.
    pub shown: Vec<Shown>,
}

impl<'a> Source<'a> {
    pub fn of(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            faults: Vec::new(),
            shown: Vec::new(),
        }
    }

    pub fn fault(&mut self, span: &Range<usize>, what: impl Into<String>, mend: impl Into<String>) {
        self.faults
            .push(Fault::at(self.file, self.text, span, what, mend));
    }
}

/// A value and where it stands.
pub(super) type At<T> = (T, Range<usize>);

/// A value without its place. What has a fault is 0 here: its fault keeps the configuration out of force.
pub(super) fn value<T: Default>(found: Option<At<T>>) -> T {
    found.map(|(value, _)| value).unwrap_or_default()
}

/// One table being read.
pub(super) struct Section<'s, 't> {
    keys: &'static Table,
    table: &'s DeTable<'t>,
    pub span: Range<usize>,
}

impl<'s, 't> Section<'s, 't> {
    pub fn new(keys: &'static Table, table: &'s DeTable<'t>, span: Range<usize>) -> Self {
        Self { keys, table, span }
    }

    /// What is written, or the default.
    fn get(&self, key: &'static Key) -> Option<&'s Spanned<DeValue<'t>>> {
        // Tables share keys, and each may have a default of its own.
        let entry = self.keys.key(key.name);
        debug_assert!(entry.is_some(), "{} is not in [{}]", key.name, self.keys.kind);
        let default = || parsed_default(entry?.default_in(self.table)?);
        self.table.get(key.name).or_else(default)
    }

    /// Whether the key is written.
    pub fn has(&self, key: &Key) -> bool {
        self.table.contains_key(key.name)
    }

    /// Where a key's value stands, or the table if the key is not there.
    pub fn span_of(&self, key: &Key) -> Range<usize> {
        self.table
            .get(key.name)
            .map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// The table, for a person.
    fn called(&self) -> String {
        match self.keys.kind.rsplit_once('.') {
            Some((_, kind)) => kind.into(),
            None => format!("the {}", self.keys.kind),
        }
    }

    fn mistyped(&self, src: &mut Source<'_>, key: &Key, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let what = format!("{} is {}, not {wanted}", key.name, value.get_ref().type_str());
        src.fault(&value.span(), what, format!("write {wanted}"));
    }

    /// Tells of a key that must be there.
    pub fn need(&self, src: &mut Source<'_>, key: &Key) {
        if !self.has(key) {
            let mend = format!("add: {} = {}", key.name, key.example);
            src.fault(
                &self.span.clone(),
                format!("{} has no {}", self.called(), key.name),
                mend,
            );
        }
    }

    /// A string.
    pub fn string(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<String>> {
        debug_assert!(
            matches!(key.form, Form::Text(_) | Form::Choice(_)),
            "{}",
            key.name
        );
        self.text(src, key)
    }

    /// What stands in quotes, without a word of what is wrong where nothing does.
    pub fn peek(&self, key: &'static Key) -> Option<String> {
        Some(self.get(key)?.get_ref().as_str()?.to_owned())
    }

    /// What stands in quotes.
    fn text(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some((text.to_owned(), value.span())),
            None => {
                self.mistyped(src, key, value, "a string in quotes");
                None
            }
        }
    }

    /// A string that must be there.
    pub fn needed(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<String>> {
        self.need(src, key);
        self.string(src, key)
    }

    /// What the word means that was chosen.
    pub fn choice<T: Copy>(
        &self,
        src: &mut Source<'_>,
        key: &'static Key,
        meanings: &[(&str, T)],
    ) -> Option<T> {
        let Form::Choice(words) = key.form else {
            debug_assert!(false, "{} is no choice", key.name);
            return None;
        };
        let now: Vec<&str> = words.iter().filter(|w| !w.later).map(|w| w.name).collect();
        debug_assert!(
            now.iter().eq(meanings.iter().map(|(name, _)| name)),
            "{}",
            key.name
        );
        let (text, span) = self.string(src, key)?;
        let found = meanings.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            match words.iter().any(|w| w.later && w.name == text) {
                true => src.fault(
                    &span,
                    later(key),
                    format!("write {}, or leave it out", one_of(words)),
                ),
                false => src.fault(
                    &span,
                    format!("{} {text:?} is unknown", key.name),
                    suggest(&text, &now),
                ),
            }
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// A duration in seconds.
    pub fn duration(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<u64>> {
        debug_assert!(matches!(key.form, Form::Duration), "{}", key.name);
        let (text, span) = self.text(src, key)?;
        parsed(
            src,
            key,
            &text,
            span,
            parse_duration(&text).map_err(|e| e.to_string()),
        )
    }

    /// A size in bytes.
    pub fn size(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<u64>> {
        debug_assert!(matches!(key.form, Form::Size), "{}", key.name);
        let (text, span) = self.text(src, key)?;
        parsed(
            src,
            key,
            &text,
            span,
            parse_size(&text).map_err(|e| e.to_string()),
        )
    }

    /// A whole number that is not negative.
    pub fn count(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<u64>> {
        debug_assert!(matches!(key.form, Form::Count), "{}", key.name);
        let value = self.get(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .filter(|i| i.radix() == 10)
            .map(|i| i.as_str().replace('_', ""));
        match number.and_then(|n| n.trim_start_matches('+').parse().ok()) {
            Some(n) => Some((n, value.span())),
            None => {
                self.mistyped(src, key, value, "a whole number, 0 or more");
                None
            }
        }
    }

    /// A share between 0 and 1.
    pub fn share(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<f64>> {
        debug_assert!(matches!(key.form, Form::Share), "{}", key.name);
        let value = self.get(key)?;
        let text = match value.get_ref() {
            DeValue::Float(f) => Some(f.as_str().replace('_', "")),
            DeValue::Integer(i) => Some(i.as_str().replace('_', "")),
            _ => None,
        };
        match text
            .and_then(|t| t.parse::<f64>().ok())
            .filter(|n| (0.0..=1.0).contains(n))
        {
            Some(n) => Some((n, value.span())),
            None => {
                src.fault(
                    &value.span(),
                    format!("{} is no share", key.name),
                    "write a number from 0 to 1, such as 0.25",
                );
                None
            }
        }
    }

    /// A share as people write it, "85%", between 1% and 100%.
    pub fn percent(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<f64>> {
        debug_assert!(matches!(key.form, Form::Percent), "{}", key.name);
        let (text, span) = self.text(src, key)?;
        let number = text.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok());
        match number.filter(|n| (1.0..=100.0).contains(n)) {
            Some(n) => Some((n / 100.0, span)),
            None => {
                let mend = "write a share from \"1%\" to \"100%\"";
                src.fault(&span, format!("{} {text:?} is no share", key.name), mend);
                None
            }
        }
    }

    /// true or false.
    pub fn flag(&self, src: &mut Source<'_>, key: &'static Key) -> Option<bool> {
        debug_assert!(matches!(key.form, Form::Flag), "{}", key.name);
        let value = self.get(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.mistyped(src, key, value, "true or false");
        }
        found
    }

    /// The same, or a word that means more than true: none then.
    pub fn flag_or(&self, src: &mut Source<'_>, key: &'static Key) -> Option<Option<bool>> {
        let Form::FlagOr(word) = key.form else {
            debug_assert!(false, "{} is no flag", key.name);
            return None;
        };
        let value = self.get(key)?;
        let (flag, text) = (value.get_ref().as_bool(), value.get_ref().as_str());
        if flag.is_none() && text != Some(word) {
            self.mistyped(src, key, value, &format!("true, false or {word:?}"));
            return None;
        }
        Some(flag)
    }

    /// A list of strings, or a single one.
    pub fn strings(&self, src: &mut Source<'_>, key: &'static Key) -> Option<At<Vec<At<String>>>> {
        debug_assert!(matches!(key.form, Form::Texts(_)), "{}", key.name);
        let value = self.get(key)?;
        if let Some(one) = value.get_ref().as_str() {
            return Some((vec![(one.to_owned(), value.span())], value.span()));
        }
        let Some(array) = value.get_ref().as_array() else {
            self.mistyped(src, key, value, "a list of strings");
            return None;
        };
        let mut all = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => all.push((text.to_owned(), item.span())),
                None => self.mistyped(src, key, item, "a string in quotes"),
            }
        }
        Some((all, value.span()))
    }

    /// Sub-tables: `[key]` or `[[key]]`.
    pub fn tables(&self, src: &mut Source<'_>, key: &'static Key) -> Vec<At<&'s DeTable<'t>>> {
        debug_assert!(matches!(key.form, Form::Tables(_)), "{}", key.name);
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        match value.get_ref() {
            DeValue::Table(table) => vec![(table, value.span())],
            DeValue::Array(array) => {
                let mut all = Vec::new();
                for item in array.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => all.push((table, item.span())),
                        _ => self.mistyped(src, key, item, "a table"),
                    }
                }
                all
            }
            _ => {
                self.mistyped(src, key, value, "a table");
                Vec::new()
            }
        }
    }

    /// Tells of every key that the table has not, and of those that a later version reads; records the others.
    pub fn finish(self, src: &mut Source<'_>) {
        self.record(src);
        for key in self
            .keys
            .keys
            .iter()
            .filter(|key| matches!(key.form, Form::Later))
        {
            if self.has(key) {
                src.fault(&self.span_of(key), later(key), "take it out");
            }
        }
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if self.keys.key(name).is_none() {
                let of = match self.keys.kind {
                    "" => String::new(),
                    kind => format!(" in [{kind}]"),
                };
                src.fault(
                    &key.span(),
                    format!("unknown key {name:?}{of}"),
                    suggest(name, &self.keys.names()),
                );
            }
        }
    }

    fn record(&self, src: &mut Source<'_>) {
        let Some(prefix) = self.keys.shown_as else { return };
        let name = self.table.get(self.keys.named_by);
        let name = name.and_then(|value| value.get_ref().as_str());
        let shown = self.keys.keys.iter().filter(|key| !self.is_shown_by_itself(key));
        let shown = shown.map(|key| {
            let given = self.table.get(key.name).map(|value| {
                let place = Fault::at(src.file, src.text, &value.span(), "", "");
                (value.get_ref(), place)
            });
            match given {
                Some((value, place)) => origin::given(key, value, &place),
                None => origin::default(key, key.default_in(self.table)),
            }
            .of(prefix, name)
        });
        let shown: Vec<Shown> = shown.collect();
        src.shown.extend(shown);
    }

    /// Tables are sections of their own, and what a later version reads is nothing yet.
    fn is_shown_by_itself(&self, key: &Key) -> bool {
        let Form::Tables(below) = key.form else {
            return matches!(key.form, Form::Later);
        };
        let is_table = self
            .table
            .get(key.name)
            .is_some_and(|value| match value.get_ref() {
                DeValue::Table(_) => true,
                DeValue::Array(items) => items.iter().any(|i| matches!(i.get_ref(), DeValue::Table(_))),
                _ => false,
            });
        below.shown_as.is_some() && (is_table || self.keys.kind.is_empty())
    }
}

fn later(key: &Key) -> String {
    format!("{} is not supported by this version", key.name)
}

/// `"a", "b" or "c"`, of what this version knows.
fn one_of(words: &[Word]) -> String {
    let words = words.iter().filter(|w| !w.later).map(|w| format!("{:?}", w.name));
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn parsed(
    src: &mut Source<'_>,
    key: &Key,
    text: &str,
    span: Range<usize>,
    result: Result<u64, String>,
) -> Option<At<u64>> {
    match result {
        Ok(n) => Some((n, span)),
        Err(why) => {
            src.fault(&span, format!("{} {text:?} {why}", key.name), "");
            None
        }
    }
}

/// Names the nearest of the known words, or all of them.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|k| (strsim::jaro_winkler(word, k), k))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((similarity, near)) if similarity > 0.75 => format!("did you mean {near:?}?"),
        _ if known.is_empty() => String::new(),
        _ => format!("known are {}", known.join(", ")),
    }
}
