//! The table: a figure of ours, the peer's beside it, and how many times better ours is.

use std::fmt::{self, Display};

/// What a figure counts, and with it which way is better.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Seconds of work; fewer is better.
    Seconds,
    /// Something a second; more is better.
    PerSecond,
    /// Bytes on disk or in memory; fewer is better.
    Bytes,
    /// A plain number.
    Count,
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Self::Seconds if figure < 1e-3 => format!("{:.1} us", figure * 1e6),
            Self::Seconds if figure < 1.0 => format!("{:.1} ms", figure * 1e3),
            Self::Seconds => format!("{figure:.2} s"),
            Self::PerSecond => format!("{}/s", grouped(figure)),
            Self::Bytes if figure < 1e5 => format!("{figure:.1} B"),
            Self::Bytes => format!("{:.1} MiB", figure / f64::from(1 << 20)),
            Self::Count => grouped(figure),
        }
    }

    fn times_better(self, ours: f64, peers: f64) -> f64 {
        match self {
            Self::Seconds | Self::Bytes => peers / ours,
            Self::PerSecond | Self::Count => ours / peers,
        }
    }
}

fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut out = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What several measurements gave.
struct Range {
    least: f64,
    median: f64,
    most: f64,
}

impl Range {
    fn of(figures: &[f64]) -> Option<Self> {
        let mut figures = figures.to_vec();
        figures.sort_by(f64::total_cmp);
        Some(Self {
            least: *figures.first()?,
            median: *figures.get(figures.len() / 2)?,
            most: *figures.last()?,
        })
    }
}

#[derive(Debug, Default)]
struct Row {
    what: String,
    ours: String,
    peer: String,
    peers: String,
    ratio: String,
}

/// Rows as they are measured, and remarks on what is not as it should be.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    remarks: Vec<String>,
}

impl Report {
    /// A figure that has no peer.
    pub fn figure(&mut self, what: &str, unit: Unit, ours: f64) {
        self.rows.push(Row {
            what: what.into(),
            ours: unit.show(ours),
            ..Row::default()
        });
    }

    /// A figure beside a peer's.
    pub fn beside(&mut self, what: &str, unit: Unit, ours: f64, peer: &str, peers: f64) {
        self.rows.push(Row {
            what: what.into(),
            ours: unit.show(ours),
            peer: peer.into(),
            peers: unit.show(peers),
            ratio: format!("{:.2}x", unit.times_better(ours, peers)),
        });
    }

    /// Figures that were measured by turns with a peer's: medians, the least and the most.
    pub fn by_turns(&mut self, what: &str, unit: Unit, ours: &[f64], peer: &str, peers: &[f64]) {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(peers)
            .map(|(ours, peers)| unit.times_better(*ours, *peers))
            .collect();
        let shown = |figures: &[f64]| match Range::of(figures) {
            Some(range) if range.least == range.most => unit.show(range.median),
            Some(range) => format!(
                "{} ({} to {})",
                unit.show(range.median),
                unit.show(range.least).trim_end_matches("/s"),
                unit.show(range.most).trim_end_matches("/s")
            ),
            None => String::new(),
        };
        self.rows.push(Row {
            what: what.into(),
            ours: shown(ours),
            peer: peer.into(),
            peers: shown(peers),
            ratio: Range::of(&ratios).map_or_else(String::new, |ratio| format!("{:.2}x", ratio.median)),
        });
    }

    /// Something the reader must know beside the figures.
    pub fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = Row {
            what: "measured".into(),
            ours: "purge-agent".into(),
            peer: "beside".into(),
            peers: String::new(),
            ratio: "ratio".into(),
        };
        let width = |column: fn(&Row) -> &str| {
            self.rows
                .iter()
                .chain([&head])
                .map(|row| column(row).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (what, ours) = (width(|row| &row.what), width(|row| &row.ours));
        let (peer, peers) = (width(|row| &row.peer), width(|row| &row.peers));
        for row in [&head].into_iter().chain(&self.rows) {
            let line = format!(
                "{:what$}  {:>ours$}   {:peer$}  {:>peers$}  {:>8}",
                row.what, row.ours, row.peer, row.peers, row.ratio
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        writeln!(
            out,
            "ratio: how many times better than what stands beside it; medians of {} where cheap",
            crate::measure::REPEATS
        )?;
        self.remarks
            .iter()
            .try_for_each(|remark| writeln!(out, "note: {remark}"))
    }
}
