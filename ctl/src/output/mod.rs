//! What is printed: tables for people, JSON and CSV for programs, progress on stderr.

pub mod progress;
pub mod table;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

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
    /// Headings stand out.
    pub colour: bool,
    to: io::BufWriter<io::Stdout>,
    /// Items printed of the list being printed.
    items: usize,
    /// The columns of the CSV being printed.
    columns: Vec<String>,
}

impl Out {
    /// Prints to stdout; colours only on a terminal, and not where NO_COLOR is set.
    pub fn new(format: Format, quiet: bool) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self {
            format,
            quiet,
            colour,
            to: io::BufWriter::new(io::stdout()),
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
        self.to.write_all(text.as_bytes())?;
        self.to.write_all(b"\n")
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) -> io::Result<()> {
        match self.colour {
            true => self.line(&format!("\x1b[1m{text}\x1b[0m")),
            false => self.line(text),
        }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// A remark for a person, on stderr.
    pub fn remark(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// The one document of a command that answers with one.
    pub fn one(&mut self, value: &Value) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
                self.line(&text)
            }
            Format::Ndjson | Format::Csv | Format::Table => self.item(value),
        }
    }

    /// Begins a list.
    pub fn begin(&mut self) -> io::Result<()> {
        self.items = 0;
        self.columns.clear();
        Ok(())
    }

    /// An item of a list. Nothing is held back: a million items take no memory.
    pub fn item(&mut self, value: &Value) -> io::Result<()> {
        self.items += 1;
        match self.format {
            Format::Ndjson | Format::Table => {
                serde_json::to_writer(&mut self.to, value).map_err(io::Error::other)?;
                self.to.write_all(b"\n")
            }
            Format::Json => {
                self.to
                    .write_all(if self.items == 1 { b"[\n  " } else { b",\n  " })?;
                serde_json::to_writer(&mut self.to, value).map_err(io::Error::other)
            }
            Format::Csv => self.csv_row(value),
        }
    }

    /// Ends a list.
    pub fn end(&mut self) -> io::Result<()> {
        match (self.format, self.items) {
            (Format::Json, 0) => self.line("[]"),
            (Format::Json, _) => self.line("\n]"),
            _ => Ok(()),
        }
    }

    fn csv_row(&mut self, value: &Value) -> io::Result<()> {
        let Value::Object(object) = value else {
            return Ok(());
        };
        let mut writer = csv::Writer::from_writer(Vec::new());
        if self.columns.is_empty() {
            self.columns = object.keys().cloned().collect();
            writer.write_record(&self.columns).map_err(io::Error::other)?;
        }
        let cells = self.columns.iter().map(|c| match object.get(c) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        });
        writer.write_record(cells).map_err(io::Error::other)?;
        let bytes = writer.into_inner().map_err(|e| io::Error::other(e.to_string()))?;
        self.to.write_all(&bytes)
    }

    /// Everything printed so far goes out.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
