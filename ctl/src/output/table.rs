//! Tables that fit a terminal of 80 columns: aligned, without frames.

use std::io;

use purge_proto::shown::Shown;
use unicode_width::UnicodeWidthStr;

use super::Out;

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A small table, held whole; the last column may be as long as it likes.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Shown<'static>>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. A cell can only hold what is escaped, so its width is that of what is seen.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(Shown::from).collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints it, indented by `indent` columns.
    pub fn print(&self, out: &mut Out, indent: usize) -> io::Result<()> {
        let mut lines = self.lines(indent).into_iter();
        let heading = lines.next().unwrap_or_default();
        if !heading.trim().is_empty() {
            out.heading(&heading)?;
        }
        lines.try_for_each(|line| out.line(&line))
    }

    /// The heads, then a line for each row.
    fn lines(&self, indent: usize) -> Vec<String> {
        let heads: Vec<Shown<'_>> = self.columns.iter().map(|(head, _)| Shown::from(*head)).collect();
        let widest = |i: usize, head: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(i));
            let widest = cells.map(|cell| cell.as_str().width()).max();
            widest.unwrap_or(0).max(head.width())
        };
        let columns = self.columns.iter().enumerate();
        let widths: Vec<usize> = columns.map(|(i, (head, _))| widest(i, head)).collect();
        let line = |cells: &[Shown<'_>]| {
            let mut text = " ".repeat(indent);
            for ((cell, (_, align)), width) in cells.iter().zip(&self.columns).zip(&widths) {
                // A terminal gives some characters two columns, and some none.
                let blanks = " ".repeat(width.saturating_sub(cell.as_str().width()));
                match align {
                    Align::Right => text.extend([blanks.as_str(), cell.as_str()]),
                    Align::Left => text.extend([cell.as_str(), blanks.as_str()]),
                }
                text.push_str("  ");
            }
            text.trim_end().to_owned()
        };
        let rows = self.rows.iter().map(|row| line(row));
        std::iter::once(line(&heads)).chain(rows).collect()
    }
}

/// A number with separators: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
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
            table.row([name.to_owned(), "7".to_owned()]);
        }
        let lines = table.lines(0);
        let columns: Vec<usize> = lines.iter().map(|line| line.width()).collect();
        assert_eq!(columns, [13; 5], "{lines:?}");
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
