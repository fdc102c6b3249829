//! One TOML table, read key by key. Keys that nobody asked for are unknown, and the nearest known one is named.

use std::ops::Range;

use purge_proto::units::{parse_duration, parse_size};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Fault;
use super::origin::{self, Shown};
use super::unsupported;

/// A file's text and everything found wrong with it so far.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub file: &'a str,
    pub text: &'a str,
    pub faults: Vec<Fault>,
    /// Every key of every section that was read, for those who want to see it.
    pub shown: Vec<Shown>,
}

impl Source<'_> {
    pub fn fault(&mut self, span: &Range<usize>, what: impl Into<String>, mend: impl Into<String>) {
        self.faults
            .push(Fault::at(self.file, self.text, span, what, mend));
    }
}

/// A value and where it stands.
pub(super) type At<T> = (T, Range<usize>);

/// One table being read.
pub(super) struct Section<'s, 't> {
    /// "volume", "rule", ...; empty for the top.
    kind: &'static str,
    table: &'s DeTable<'t>,
    pub span: Range<usize>,
    asked: Vec<&'static str>,
}

impl<'s, 't> Section<'s, 't> {
    pub fn new(kind: &'static str, table: &'s DeTable<'t>, span: Range<usize>) -> Self {
        Self {
            kind,
            table,
            span,
            asked: Vec::new(),
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'s Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.table.get(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key's value stands, or the table if the key is not there.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.table
            .get(key)
            .map_or_else(|| self.span.clone(), Spanned::span)
    }

    fn mistyped(&self, src: &mut Source<'_>, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let what = format!("{key} is {}, not {wanted}", value.get_ref().type_str());
        src.fault(&value.span(), what, format!("write {wanted}"));
    }

    /// A string.
    pub fn string(&mut self, src: &mut Source<'_>, key: &'static str) -> Option<At<String>> {
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
    pub fn needed(&mut self, src: &mut Source<'_>, key: &'static str, such_as: &str) -> Option<At<String>> {
        let found = self.string(src, key);
        if found.is_none() && !self.has(key) {
            let mend = format!("add: {key} = {such_as:?}");
            src.fault(&self.span.clone(), format!("has no {key}"), mend);
        }
        found
    }

    /// A string that names one of `choices`.
    pub fn choice<T: Copy>(
        &mut self,
        src: &mut Source<'_>,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let (text, span) = self.string(src, key)?;
        let found = choices
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            src.fault(
                &span,
                format!("{key} {text:?} is unknown"),
                suggest(&text, &names),
            );
        }
        found
    }

    /// A duration in seconds.
    pub fn duration(&mut self, src: &mut Source<'_>, key: &'static str) -> Option<At<u64>> {
        let (text, span) = self.string(src, key)?;
        parsed(
            src,
            key,
            &text,
            span,
            parse_duration(&text).map_err(|e| e.to_string()),
        )
    }

    /// A size in bytes.
    pub fn size(&mut self, src: &mut Source<'_>, key: &'static str) -> Option<At<u64>> {
        let (text, span) = self.string(src, key)?;
        parsed(
            src,
            key,
            &text,
            span,
            parse_size(&text).map_err(|e| e.to_string()),
        )
    }

    /// A whole number that is not negative.
    pub fn count(&mut self, src: &mut Source<'_>, key: &'static str) -> Option<At<u64>> {
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
    pub fn share(&mut self, src: &mut Source<'_>, key: &'static str) -> Option<At<f64>> {
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
                    format!("{key} is no share"),
                    "write a number from 0 to 1, such as 0.25",
                );
                None
            }
        }
    }

    /// A share as people write it, "85%", between 1% and 100%.
    pub fn percent(&mut self, src: &mut Source<'_>, key: &'static str) -> Option<At<f64>> {
        let (text, span) = self.string(src, key)?;
        let number = text.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok());
        match number.filter(|n| (1.0..=100.0).contains(n)) {
            Some(n) => Some((n / 100.0, span)),
            None => {
                let mend = "write a share from \"1%\" to \"100%\"";
                src.fault(&span, format!("{key} {text:?} is no share"), mend);
                None
            }
        }
    }

    /// true or false.
    pub fn flag(&mut self, src: &mut Source<'_>, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.mistyped(src, key, value, "true or false");
        }
        found
    }

    /// The same, or a word that means more than true: none then.
    pub fn flag_or(&mut self, src: &mut Source<'_>, key: &'static str, word: &str) -> Option<Option<bool>> {
        let value = self.get(key)?;
        let (flag, text) = (value.get_ref().as_bool(), value.get_ref().as_str());
        if flag.is_none() && text != Some(word) {
            self.mistyped(src, key, value, &format!("true, false or {word:?}"));
            return None;
        }
        Some(flag)
    }

    /// A list of strings, or a single one.
    pub fn strings(&mut self, src: &mut Source<'_>, key: &'static str) -> Option<At<Vec<At<String>>>> {
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
    pub fn tables(&mut self, src: &mut Source<'_>, key: &'static str) -> Vec<At<&'s DeTable<'t>>> {
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

    /// Refuses what this version does not do: to be called for keys that `unsupported` knows.
    pub fn refuse(&mut self, src: &mut Source<'_>, key: &'static str) {
        let Some(value) = self.get(key) else { return };
        let text = match value.get_ref() {
            DeValue::String(s) => match parse_duration(s) {
                Ok(0) => "0".to_owned(),
                _ => s.to_string(),
            },
            DeValue::Array(a) if a.is_empty() => "[]".into(),
            _ => "given".into(),
        };
        if let Some((what, mend)) = unsupported::refused(self.kind, key, &text) {
            src.fault(&value.span(), format!("{key} {what}"), mend);
        }
    }

    /// Reports every key that nobody asked for, and records the others.
    pub fn finish(self, src: &mut Source<'_>) {
        self.record(src);
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let of = if self.kind.is_empty() {
                    String::new()
                } else {
                    format!(" in [{}]", self.kind)
                };
                src.fault(
                    &key.span(),
                    format!("unknown key {name:?}{of}"),
                    suggest(name, &self.asked),
                );
            }
        }
    }
}

impl Section<'_, '_> {
    fn record(&self, src: &mut Source<'_>) {
        // A watermark has no name of its own: there is one for a volume.
        let called = if self.kind == "watermark" {
            "volume"
        } else {
            "name"
        };
        let name = self.table.get(called).and_then(|v| v.get_ref().as_str());
        let mut asked = self.asked.clone();
        asked.dedup();
        for key in asked {
            let given = self.table.get(key);
            if given.is_some_and(|value| self.is_shown_by_itself(key, value.get_ref())) {
                continue;
            }
            let given = given.map(|value| {
                let place = Fault::at(src.file, src.text, &value.span(), "", "");
                (value.get_ref(), place)
            });
            let given = given.as_ref().map(|(value, place)| (*value, place));
            let mut shown = origin::shown(self.kind, name, key, given);
            if let Some(shown) = &mut shown
                && given.is_none()
                && (self.kind, key) == ("rule", "symlinks")
                && self.keeps_links()
            {
                shown.value = "\"keep\"".into();
            }
            src.shown.extend(shown);
        }
    }

    /// Whether a rule that says nothing of symbolic links keeps them.
    fn keeps_links(&self) -> bool {
        let value = |key: &str| self.table.get(key).map(|value| value.get_ref());
        let keeps_dirs = value("remove_empty_dirs").and_then(DeValue::as_bool) == Some(false);
        keeps_dirs || value("target").and_then(DeValue::as_str) == Some("directory")
    }

    /// Tables are sections of their own.
    fn is_shown_by_itself(&self, key: &str, value: &DeValue<'_>) -> bool {
        let is_table = match value {
            DeValue::Table(_) => true,
            DeValue::Array(items) => items.iter().any(|i| matches!(i.get_ref(), DeValue::Table(_))),
            _ => false,
        };
        is_table && (self.kind.is_empty() || origin::prefix(key).is_some())
    }
}

fn parsed(
    src: &mut Source<'_>,
    key: &str,
    text: &str,
    span: Range<usize>,
    result: Result<u64, String>,
) -> Option<At<u64>> {
    match result {
        Ok(n) => Some((n, span)),
        Err(why) => {
            src.fault(&span, format!("{key} {text:?} {why}"), "");
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
