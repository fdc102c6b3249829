//! Tables that fit a terminal of 80 columns: aligned, without frames.

use std::io;

use purge_proto::shown::Shown;

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
        let width = |i: usize, head: &str| {
            let cells = self
                .rows
                .iter()
                .filter_map(|r| r.get(i))
                .map(|c| c.as_str().chars().count());
            cells.max().unwrap_or(0).max(head.chars().count())
        };
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (head, _))| width(i, head))
            .collect();
        let line = |cells: &[Shown<'_>]| {
            let mut text = " ".repeat(indent);
            for (i, (cell, (_, align))) in cells.iter().zip(&self.columns).enumerate() {
                let width = widths.get(i).copied().unwrap_or(0);
                match align {
                    Align::Right => text.push_str(&format!("{cell:>width$}")),
                    Align::Left => text.push_str(&format!("{cell:<width$}")),
                }
                text.push_str("  ");
            }
            text.trim_end().to_owned()
        };
        let heads: Vec<Shown<'_>> = self.columns.iter().map(|(head, _)| Shown::from(*head)).collect();
        if heads.iter().any(|h| !h.as_str().is_empty()) {
            out.heading(&line(&heads))?;
        }
        self.rows.iter().try_for_each(|row| out.line(&line(row)))
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
    use super::*;

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
