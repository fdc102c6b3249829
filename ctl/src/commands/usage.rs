//! `purgectl usage`

use clap::{Args, ValueEnum};
use purge_proto::units::format_size;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, age, count};
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
        match self.age {
            true => ages(&report, self.by).print(out, 0)?,
            false => totals(&report, self.by).print(out, 0)?,
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

fn totals(report: &v1::UsageReport, by: By) -> Table {
    let mut table = Table::new(&[
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("ON DISK", Align::Right),
        ("SIZE-DAYS", Align::Right),
        ("OLDEST", Align::Right),
        ("NEWEST", Align::Right),
        ("VOLUME", Align::Left),
        ("SUBJECT", Align::Left),
    ]);
    for r in &report.rows {
        table.row([
            count(r.files),
            format_size(r.bytes),
            format_size(r.allocated_bytes),
            format_size(r.byte_days as u64),
            age(super::age_of(r.oldest)),
            age(super::age_of(r.newest)),
            r.volume.clone(),
            by.shown(&r.subject),
        ]);
    }
    table
}

fn ages(report: &v1::UsageReport, by: By) -> Table {
    const HEADS: [&str; 7] = ["<1d", "<7d", "<30d", "<90d", "<180d", "<1y", "older"];
    let mut columns: Vec<(&'static str, Align)> = HEADS.iter().map(|h| (*h, Align::Right)).collect();
    columns.push(("SUBJECT (bytes by last use)", Align::Left));
    let mut table = Table::new(&columns);
    for r in &report.rows {
        let cells = r
            .ages
            .iter()
            .map(|a| short_size(a.bytes))
            .chain([by.shown(&r.subject)]);
        table.row(cells);
    }
    table
}

/// A size in five columns or so.
fn short_size(bytes: u64) -> String {
    match bytes {
        0 => "-".into(),
        _ => format_size(bytes).replace("iB", "").replace(' ', ""),
    }
}
