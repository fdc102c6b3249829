//! Tables that fit a terminal of 80 columns: aligned, without frames.

use std::io;

use purge_proto::shown::Shown;
use purge_proto::units;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Out;
use super::tone::{Span, Tone};

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
    /// Sentences, in the last column: they go on below where the terminal is not wide enough.
    Words,
}

/// What stands in a table: escaped, so its width is that of what is seen.
#[derive(Debug)]
pub struct Cell {
    text: Shown<'static>,
    tone: Tone,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self {
            text: Shown::from(text),
            tone: Tone::Plain,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl Cell {
    /// A word for a state, in its colour.
    pub fn state(word: impl Into<String>) -> Self {
        let word = word.into();
        let tone = Tone::of_state(&word);
        Self {
            text: Shown::from(word),
            tone,
        }
    }

    fn width(&self) -> usize {
        self.text.as_str().width()
    }
}

/// A small table, held whole; the last column may be as long as it likes.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Leaves a column out that tells no rows apart: each has the same cell, or none has any.
    #[must_use]
    pub fn without_if_alike(mut self, head: &str) -> Self {
        let Some(at) = self.columns.iter().position(|(h, _)| *h == head) else {
            return self;
        };
        let mut cells = self
            .rows
            .iter()
            .filter_map(|row| row.get(at))
            .map(|c| c.text.as_str());
        let first = cells.next();
        if cells.all(|cell| Some(cell) == first) {
            self.columns.remove(at);
            self.rows.retain_mut(|row| {
                (at < row.len()).then(|| row.remove(at));
                true
            });
        }
        self
    }

    /// Prints it, indented by `indent` columns.
    pub fn print(&self, out: &mut Out, indent: usize) -> io::Result<()> {
        let widths = self.widths();
        let heads: Vec<Cell> = self.columns.iter().map(|(head, _)| (*head).into()).collect();
        let heading = self.spans(&heads, &widths, indent, Tone::Head);
        if heading.iter().any(|span| !span.text.trim().is_empty()) {
            out.spans(&heading)?;
        }
        for row in &self.rows {
            self.print_row(row, &widths, indent, out)?;
        }
        Ok(())
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |i: usize, head: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(i));
            cells.map(Cell::width).max().unwrap_or(0).max(head.width())
        };
        let columns = self.columns.iter().enumerate();
        columns.map(|(i, (head, _))| widest(i, head)).collect()
    }

    fn print_row(&self, row: &[Cell], widths: &[usize], indent: usize, out: &mut Out) -> io::Result<()> {
        let is_words = matches!(self.columns.last(), Some((_, Align::Words)));
        let (Some((last, before)), true, Some(width)) = (row.split_last(), is_words, out.width) else {
            return out.spans(&self.spans(row, widths, indent, Tone::Plain));
        };
        let gaps = before.len().saturating_mul(GAP);
        let margin = widths.iter().take(before.len()).sum::<usize>() + indent + gaps;
        let lines = wrapped(last.text.as_str(), width.saturating_sub(margin).max(WORDS_LEAST));
        let mut spans = self.spans(before, widths, indent, Tone::Plain);
        // The cell before the last keeps its blanks where something follows.
        for (i, line) in lines.iter().enumerate() {
            if i > 0 {
                spans.clear();
            }
            let written: usize = spans.iter().map(|s| s.text.width()).sum();
            spans.push(Span::plain(" ".repeat(margin.saturating_sub(written))));
            spans.push(Span::new(line.clone(), last.tone));
            out.spans(&spans)?;
        }
        Ok(())
    }

    /// The heads, then a line for each row, without colours.
    #[cfg(test)]
    pub(crate) fn lines(&self) -> Vec<String> {
        let widths = self.widths();
        let heads: Vec<Cell> = self.columns.iter().map(|(head, _)| (*head).into()).collect();
        let line = |row: &[Cell]| {
            let spans = self.spans(row, &widths, 0, Tone::Plain).into_iter();
            spans.map(|span| span.text).collect()
        };
        std::iter::once(line(&heads))
            .chain(self.rows.iter().map(|row| line(row)))
            .collect()
    }

    /// The cells of a line, with the blanks between them.
    fn spans(&self, cells: &[Cell], widths: &[usize], indent: usize, tone: Tone) -> Vec<Span> {
        let mut line = vec![Span::new(" ".repeat(indent), tone)];
        for (i, ((cell, (_, align)), width)) in cells.iter().zip(&self.columns).zip(widths).enumerate() {
            // A terminal gives some characters two columns, and some none.
            let blanks = " ".repeat(width.saturating_sub(cell.width()));
            if i > 0 {
                line.push(Span::new(" ".repeat(GAP), tone));
            }
            let text = Span::new(
                cell.text.as_str().to_owned(),
                if tone == Tone::Head { tone } else { cell.tone },
            );
            match align {
                Align::Right => line.extend([Span::new(blanks, tone), text]),
                Align::Left | Align::Words => line.extend([text, Span::new(blanks, tone)]),
            }
        }
        while let Some(last) = line.last_mut() {
            last.text.truncate(last.text.trim_end().len());
            match last.text.is_empty() {
                true => drop(line.pop()),
                false => break,
            }
        }
        line
    }
}

/// Blanks between two columns.
const GAP: usize = 2;
/// Sentences have at least this width, also on a terminal that is too narrow for it.
const WORDS_LEAST: usize = 20;

/// A text in lines of at most a width, cut between words; a word that is longer has a line of its own.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let is_first = line.is_empty();
        if is_first || line.width().saturating_add(1).saturating_add(word.width()) <= width {
            if !is_first {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A text in a column of this width: blanks behind it, or cut, with a mark that something is missing.
pub fn fitted(text: &str, width: usize) -> String {
    let has = text.width();
    if has <= width {
        return format!("{text}{}", " ".repeat(width.saturating_sub(has)));
    }
    let mut cut = String::new();
    let mut taken = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if taken + wide >= width {
            break;
        }
        taken += wide;
        cut.push(c);
    }
    format!("{cut}{}\u{2026}", " ".repeat(width.saturating_sub(taken + 1)))
}

/// A number with separators: `1,234,567`.
pub fn count(n: u64) -> String {
    units::format_count(n)
}

/// A time for people; `-` where there is none.
pub fn when(at: Option<prost_types::Timestamp>) -> String {
    at.map_or_else(|| "-".into(), |at| units::format_time(at.seconds))
}

/// An age in its largest unit: `28d`, `3h`, `5m`, `12s`.
pub fn age(seconds: u64) -> String {
    match seconds {
        s if s >= 86_400 => format!("{}d", s / 86_400),
        s if s >= 3_600 => format!("{}h", s / 3_600),
        s if s >= 60 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// A share in percent, with as many digits as tell something.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0%".into();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    match percent {
        p if p > 0.0 && p < 0.1 => "<0.1%".into(),
        p if p < 10.0 => format!("{p:.1}%"),
        p => format!("{p:.0}%"),
    }
}

/// `1 file`, `2 files`.
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn columns_stand_under_each_other_in_every_script() {
        let mut table = Table::new(&[("name", Align::Left), ("files", Align::Right)]);
        for name in ["plain", "日本語", "e\u{301}te\u{301}", ""] {
            table.row([name, "7"]);
        }
        let widths = table.widths();
        let lines = table
            .rows
            .iter()
            .map(|row| table.spans(row, &widths, 0, Tone::Plain));
        let columns: Vec<usize> = lines
            .map(|line| line.iter().map(|span| span.text.width()).sum())
            .collect();
        assert_eq!(columns, [13; 4]);
    }

    #[test]
    fn long_sentences_are_cut_between_words_and_long_names_in_the_middle_of_them() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("averylongword x", 4), ["averylongword", "x"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(
            (fitted("ab", 4), fitted("abcdef", 4)),
            ("ab  ".into(), "abc\u{2026}".into())
        );
        assert_eq!(fitted("日本語", 4).width(), 4);
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            (count(0), count(999), count(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!(
            (age(59), age(3_600), age(90_000)),
            ("59s".into(), "1h".into(), "1d".into())
        );
        assert_eq!(
            (share(1, 0), share(1, 10_000), share(1, 3)),
            ("0%".into(), "<0.1%".into(), "33%".into())
        );
    }
}
