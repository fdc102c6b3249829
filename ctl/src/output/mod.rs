//! What is printed: tables for people, JSON and CSV for programs, progress on stderr.
//!
//! All that is printed passes through [`purge_proto::shown`] here, at the last moment: no command can forget it. The only ways around
//! that are [`Out::raw`] and the colours of [`Out::spans`].

pub mod amount;
mod flat;
pub mod pager;
pub mod progress;
pub mod table;
pub mod tone;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::ValueEnum;
use purge_proto::shown::{self, Shown, csv_field};
use serde_json::Value;

use self::tone::{Span, Tone};
use crate::paths;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// Exactly one JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// A header and one line an item.
    Csv,
}

/// Where the output goes.
pub struct Out {
    /// How to print.
    pub format: Format,
    /// No progress and no remarks.
    pub quiet: bool,
    /// Headings stand out, and states have colours.
    pub colour: bool,
    /// Columns of the terminal; none where no person looks, so that nothing is cut into lines.
    pub width: Option<usize>,
    to: io::BufWriter<Box<dyn Write + Send>>,
    /// Items printed of the list being printed.
    items: usize,
    /// The columns of the CSV being printed.
    columns: Vec<String>,
}

impl Out {
    /// Prints to stdout; colours only on a terminal, and not where NO_COLOR is set.
    pub fn new(format: Format, quiet: bool) -> Self {
        Self {
            colour: tone::is_wanted(),
            width: width(),
            ..Self::into(Box::new(io::stdout()), format, quiet)
        }
    }

    /// Prints into something else, without colours.
    pub fn into(to: Box<dyn Write + Send>, format: Format, quiet: bool) -> Self {
        Self {
            format,
            quiet,
            colour: false,
            width: None,
            to: io::BufWriter::new(to),
            items: 0,
            columns: Vec::new(),
        }
    }

    /// Whether a person reads the output.
    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// A line of text.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.raw(Shown::text(text).as_str().as_bytes())?;
        self.raw(b"\n")
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) -> io::Result<()> {
        self.spans(&[Span::new(text, Tone::Head)])
    }

    /// A line whose parts have colours.
    pub fn spans(&mut self, parts: &[Span]) -> io::Result<()> {
        for part in parts {
            let text = Shown::text(&part.text);
            match part.tone.code().filter(|_| self.colour && !part.text.is_empty()) {
                Some(code) => self.raw(format!("{code}{}{}", text.as_str(), tone::PLAIN).as_bytes())?,
                None => self.raw(text.as_str().as_bytes())?,
            }
        }
        self.raw(b"\n")
    }

    /// Sentences: where the terminal is too narrow, they go on below, two columns further in than they begin.
    pub fn words(&mut self, text: &str) -> io::Result<()> {
        let Some(width) = self.width else {
            return self.line(text);
        };
        let indent = text.len().saturating_sub(text.trim_start().len());
        let (first, rest) = (" ".repeat(indent), " ".repeat(indent.saturating_add(2)));
        let shown = Shown::text(text.trim_start()).into_string();
        let lines = table::wrapped(&shown, width.saturating_sub(rest.len()).max(20));
        for (i, line) in lines.iter().enumerate() {
            let margin = if i == 0 { &first } else { &rest };
            self.raw(format!("{margin}{line}\n").as_bytes())?;
        }
        Ok(())
    }

    /// The last line of a list: how much that was. It can be left out with `--quiet`.
    pub fn total(&mut self, text: &str) -> io::Result<()> {
        match self.quiet {
            true => Ok(()),
            false => self.line(text),
        }
    }

    /// Bytes as they are: for programs that asked for just that.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// A remark for a person, on stderr.
    pub fn remark(&mut self, text: &str) {
        if !self.quiet {
            // It comes after what was printed before it. What stops that is told by the next that is printed.
            let _ = self.flush();
            complain(text);
        }
    }

    /// The one document of a command that answers with one.
    pub fn one(&mut self, value: &Value) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
                self.raw(shown::json(&text).as_bytes())?;
                self.raw(b"\n")
            }
            Format::Ndjson | Format::Csv | Format::Table => self.item(value),
        }
    }

    /// The one document of a command; in CSV, a row for each item of the list at `key`, with what is said of all of them.
    pub fn one_with(&mut self, value: &Value, key: &str) -> io::Result<()> {
        match self.format {
            Format::Csv => self.csv(flat::rows(value, key)),
            _ => self.one(value),
        }
    }

    /// A list that is known whole: in CSV, each row has the columns of all.
    pub fn all(&mut self, values: &[Value]) -> io::Result<()> {
        if self.format == Format::Csv {
            return self.csv(values.iter().map(flat::row).collect());
        }
        self.begin()?;
        values.iter().try_for_each(|value| self.item(value))?;
        self.end()
    }

    fn csv(&mut self, rows: Vec<Value>) -> io::Result<()> {
        self.columns = flat::columns(&rows);
        self.csv_head()?;
        rows.iter().try_for_each(|row| self.csv_row(row))
    }

    /// Begins a list.
    pub fn begin(&mut self) -> io::Result<()> {
        self.items = 0;
        self.columns.clear();
        Ok(())
    }

    /// Whether every item of a list has the fields of the first.
    pub fn has_columns(&self) -> bool {
        self.format == Format::Csv
    }

    /// An item of a list. Nothing is held back: a million items take no memory.
    pub fn item(&mut self, value: &Value) -> io::Result<()> {
        self.items += 1;
        match self.format {
            Format::Ndjson | Format::Table => {
                self.json(value)?;
                self.raw(b"\n")
            }
            Format::Json => {
                self.raw(if self.items == 1 { b"[\n  " } else { b",\n  " })?;
                self.json(value)
            }
            Format::Csv => self.csv_row(value),
        }
    }

    /// Ends a list.
    pub fn end(&mut self) -> io::Result<()> {
        match (self.format, self.items) {
            (Format::Json, 0) => self.line("[]"),
            (Format::Json, _) => self.raw(b"\n]\n"),
            _ => Ok(()),
        }
    }

    fn json(&mut self, value: &Value) -> io::Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.raw(shown::json(&text).as_bytes())
    }

    fn csv_row(&mut self, value: &Value) -> io::Result<()> {
        let Value::Object(object) = &flat::row(value) else {
            return Ok(());
        };
        if self.columns.is_empty() {
            self.columns = object.keys().cloned().collect();
            self.csv_head()?;
        }
        let fields: Vec<String> = self.columns.iter().map(|c| field(object, c)).collect();
        self.raw(format!("{}\n", fields.join(",")).as_bytes())
    }

    fn csv_head(&mut self) -> io::Result<()> {
        let heads: Vec<String> = self.columns.iter().map(|c| field_of_text(c)).collect();
        self.raw(format!("{}\n", heads.join(",")).as_bytes())
    }

    /// Everything printed so far goes out.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Columns of the terminal: as `COLUMNS` says, else as the terminal itself does.
fn width() -> Option<usize> {
    let said = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let measured = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    said.or_else(measured).filter(|width| *width > 0)
}

/// What went wrong, or a remark, on stderr.
pub fn complain(text: &str) {
    complain_in_lines(Shown::text(text).as_str());
}

/// The same in several lines of our own.
#[expect(clippy::print_stderr, reason = "this is where stderr is written")]
pub fn complain_in_lines(text: &str) {
    eprintln!("{}", shown::page(text));
}

/// What is wrong with a command line. The error repeats arguments among lines of its own, so it is made from arguments that are escaped
/// already.
pub fn complain_of_arguments(command: clap::Command, arguments: &[OsString], error: &clap::Error) {
    let escaped = |a: &OsString| OsString::from(Shown::text(&a.to_string_lossy()).as_str());
    let again = command.try_get_matches_from(arguments.iter().map(escaped));
    match again {
        Err(e) if e.use_stderr() => complain_in_lines(e.render().to_string().trim_end()),
        _ => complain(error.render().to_string().trim_end()),
    }
}

/// A question on stderr; the answer comes on its line.
#[expect(clippy::print_stderr, reason = "this is where stderr is written")]
pub fn ask(question: &str) -> io::Result<()> {
    eprint!("{}", Shown::text(question));
    io::stderr().flush()
}

/// A value as a field of CSV. A path is written as in tables, from its bytes, because a field has no second form for what is no UTF-8.
fn field(object: &serde_json::Map<String, Value>, column: &str) -> String {
    match object.get(column) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if column == paths::PATH => match paths::bytes_of(object) {
            Some(bytes) => csv_field(&Shown::name(&bytes)),
            None => field_of_text(text),
        },
        Some(Value::String(text)) => field_of_text(text),
        Some(number @ (Value::Number(_) | Value::Bool(_))) => number.to_string(),
        // No cell holds a list or an object: see `flat`.
        Some(Value::Array(_) | Value::Object(_)) => String::new(),
    }
}

fn field_of_text(text: &str) -> String {
    csv_field(&Shown::name(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_csv_are_texts_and_numbers() {
        let value = json!({
            "path": "/v/\u{fffd}", "path_bytes": "L3Yv/w==", "subject": "=cmd|' /C calc'!A0", "a": -5, "b": null,
            "d": "a\nb\\", "e": true,
        });
        let Value::Object(object) = &value else { return };
        let of = |column: &str| field(object, column);
        assert_eq!(of("path"), "/v/\\xff");
        assert_eq!(of("subject"), "\"'=cmd|' /C calc'!A0\"");
        assert_eq!(
            (of("a"), of("b"), of("none"), of("e")),
            ("-5".into(), "".into(), "".into(), "true".into())
        );
        assert_eq!(of("d"), "a\\nb\\\\");
    }
}
