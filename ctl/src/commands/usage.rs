//! `purgectl usage`

use clap::{Args, ValueEnum};
use prost_types::Timestamp;
use purge_proto::units::format_size;
use purge_proto::v1;

use super::show::WIDE;
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, age, count, share};
use crate::{paths, views};

/// Rows of a table: a person does not read more, and half a million rows take a second to align.
const TABLE_ROWS: u64 = 1000;

/// Arguments.
#[derive(Debug, Args)]
pub struct Usage {
    /// Tell files apart by this.
    #[arg(long, value_enum, default_value_t = By::User)]
    by: By,
    /// With --by directory: how deep.
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: u32,
    /// This volume; without it, all.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    volume: String,
    /// How old the files are.
    #[arg(long)]
    age: bool,
    /// Whose files are kept alive by mass changes of timestamps or reads of next to nothing; nothing follows from it.
    #[arg(long, conflicts_with_all = ["by", "depth", "age", "limit"])]
    touched: bool,
    /// Only this many rows, those with the most bytes; 0: all. Without it, a table has 1,000 rows; JSON and CSV have all.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    /// Owner.
    User,
    /// Owning group.
    Group,
    /// Project id.
    Project,
    /// Directory.
    Directory,
}

impl By {
    fn head(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Group => "GROUP",
            Self::Project => "PROJECT",
            Self::Directory => "DIRECTORY",
        }
    }

    /// A subject in a table: a directory is a path.
    fn shown(self, subject: &str) -> String {
        match self {
            Self::Directory => paths::printable(subject.as_bytes()),
            Self::User | Self::Group | Self::Project => subject.to_owned(),
        }
    }
}

impl Usage {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        if self.touched {
            return self.touched(client, out).await;
        }
        let by = match self.by {
            By::User => v1::UsageBy::User,
            By::Group => v1::UsageBy::Group,
            By::Project => v1::UsageBy::Project,
            By::Directory => v1::UsageBy::Directory,
        };
        let request = v1::UsageRequest {
            volume: self.volume.clone(),
            by: by.into(),
            depth: self.depth,
            limit: self.limit.unwrap_or(if out.is_table() { TABLE_ROWS } else { 0 }),
            without_ages: !self.age,
        };
        let mut parts = client.list_usage(request).await?.into_inner();
        if !out.is_table() {
            out.begin()?;
            while let Some(part) = parts.message().await? {
                part.rows
                    .iter()
                    .try_for_each(|r| out.item(&views::usage_row(r, self.age)))?;
            }
            out.end()?;
            return Ok(exit::DONE);
        }
        let mut report = v1::UsageReport::default();
        while let Some(part) = parts.message().await? {
            report.rows.extend(part.rows);
            report.subjects = part.subjects;
        }
        if self.age {
            let is_wide = out.width.is_none_or(|width| width >= WIDE);
            let (table, unit) = ages(&report, self.by, is_wide);
            out.heading(&format!("Size by the time since the last use, in {unit}"))?;
            table.print(out, 0)?;
        } else {
            totals(&report, self.by).print(out, 0)?;
        }
        let hidden = report.subjects.saturating_sub(report.rows.len() as u64);
        if hidden > 0 {
            out.remark(&format!(
                "{} more have fewer bytes: --limit 0 lists all of them.",
                count(hidden)
            ));
        }
        Ok(exit::DONE)
    }
}

impl Usage {
    async fn touched(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::TouchedRequest {
            volume: self.volume.clone(),
        };
        let report = client.get_touched(request).await?.into_inner();
        if !out.is_table() {
            out.begin()?;
            let mut owners = report.owners.iter();
            owners.try_for_each(|o| out.item(&views::touched_owner(o)))?;
            out.end()?;
            return Ok(exit::DONE);
        }
        let since = age(super::age_of(report.since));
        if report.owners.is_empty() {
            out.line(&format!(
                "Nothing of the kind since the agent started, {since} ago."
            ))?;
            return Ok(exit::DONE);
        }
        let mut table = Table::new(&[
            ("STAMPED", Align::Right),
            ("READ", Align::Right),
            ("LAST", Align::Right),
            ("VOLUME", Align::Left),
            ("OWNER", Align::Left),
            ("PROCESS", Align::Left),
        ]);
        for o in &report.owners {
            table.row([
                count(o.stamped),
                count(o.read),
                age(super::age_of(o.last)),
                o.volume.clone(),
                o.owner.clone(),
                match o.process.as_str() {
                    "" => format!("has ended ({})", o.pid),
                    name => format!("{name} ({})", o.pid),
                },
            ]);
        }
        table.print(out, 0)?;
        out.remark(&format!(
            "Files since the agent started, {since} ago. Nothing follows from it."
        ));
        Ok(exit::DONE)
    }
}

/// All of a report: the rows that are shown, and those that have no room.
fn sum_of(report: &v1::UsageReport) -> v1::UsageRow {
    let mut all = v1::UsageRow::default();
    let oldest = |a: Option<Timestamp>, b: Option<Timestamp>| match (a, b) {
        (Some(a), Some(b)) if a.seconds <= b.seconds => Some(a),
        (a, b) => b.or(a),
    };
    for row in &report.rows {
        all.files = all.files.saturating_add(row.files);
        all.bytes = all.bytes.saturating_add(row.bytes);
        all.allocated_bytes = all.allocated_bytes.saturating_add(row.allocated_bytes);
        all.byte_days += row.byte_days;
        all.oldest = oldest(all.oldest, row.oldest);
        all.newest = match (all.newest, row.newest) {
            (Some(a), Some(b)) if a.seconds >= b.seconds => Some(a),
            (a, b) => b.or(a),
        };
        for (i, age) in row.ages.iter().enumerate() {
            match all.ages.get_mut(i) {
                Some(sum) => sum.bytes = sum.bytes.saturating_add(age.bytes),
                None => all.ages.push(*age),
            }
        }
    }
    all.subject = match report.subjects > report.rows.len() as u64 {
        true => "these".into(),
        false => "all".into(),
    };
    all
}

fn totals(report: &v1::UsageReport, by: By) -> Table {
    let mut table = Table::new(&[
        (by.head(), Align::Left),
        ("VOLUME", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("%", Align::Right),
        ("ON DISK", Align::Right),
        ("SIZE-DAYS", Align::Right),
        ("OLDEST", Align::Right),
        ("NEWEST", Align::Right),
    ]);
    let all = sum_of(report);
    let several = several_volumes(report);
    for r in report.rows.iter().chain([&all]) {
        table.row([
            by.shown(&r.subject),
            if several { r.volume.clone() } else { String::new() },
            count(r.files),
            format_size(r.bytes),
            share(r.bytes, all.bytes),
            format_size(r.allocated_bytes),
            format_size(r.byte_days as u64),
            age(super::age_of(r.oldest)),
            age(super::age_of(r.newest)),
        ]);
    }
    table.without_if_alike("VOLUME")
}

fn several_volumes(report: &v1::UsageReport) -> bool {
    let first = report.rows.first().map(|r| &r.volume);
    report.rows.iter().any(|r| Some(&r.volume) != first)
}

/// Columns of `usage --age`: how long ago the last use is.
const AGES: [&str; 7] = ["0-1d", "1-7d", "7-30d", "30-90d", "90-180d", "to 1y", "older"];

fn ages(report: &v1::UsageReport, by: By, is_wide: bool) -> (Table, &'static str) {
    let mut columns = vec![(by.head(), Align::Left), ("VOLUME", Align::Left)];
    if is_wide {
        columns.push(("FILES", Align::Right));
    }
    columns.extend([("SIZE", Align::Right), ("%", Align::Right)]);
    columns.extend(AGES.iter().map(|head| (*head, Align::Right)));
    let mut table = Table::new(&columns);
    let all = sum_of(report);
    let several = several_volumes(report);
    let unit = unit_of(all.ages.iter().map(|age| age.bytes).max().unwrap_or(0));
    for r in report.rows.iter().chain([&all]) {
        let mut cells = vec![
            by.shown(&r.subject),
            if several { r.volume.clone() } else { String::new() },
        ];
        if is_wide {
            cells.push(count(r.files));
        }
        cells.extend([format_size(r.bytes), share(r.bytes, all.bytes)]);
        cells.extend(r.ages.iter().map(|age| in_unit(age.bytes, unit)));
        table.row(cells);
    }
    (table.without_if_alike("VOLUME"), unit.0)
}

/// The unit in which the largest of these numbers has few digits.
fn unit_of(largest: u64) -> (&'static str, f64) {
    let units = [
        ("KiB", 1u64 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("PiB", 1 << 50),
    ];
    let fits = units.into_iter().rev().find(|(_, bytes)| largest >= *bytes);
    let (name, bytes) = fits.unwrap_or(("KiB", 1 << 10));
    (name, bytes as f64)
}

fn in_unit(bytes: u64, (_, unit): (&str, f64)) -> String {
    match bytes as f64 / unit {
        0.0 => "-".into(),
        n if n < 0.05 => "<0.1".into(),
        n if n < 99.95 => format!("{n:.1}"),
        n => count(n.round() as u64),
    }
}
