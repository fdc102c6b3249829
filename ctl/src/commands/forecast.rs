//! `purgectl forecast`

use clap::{Args, ValueEnum};
use purge_proto::units::{format_limit, format_size};
use purge_proto::v1;
use serde_json::{Value, json};

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, age, count, when};
use crate::paths;
use crate::views::time;

/// Rows for every day of some thousand subjects.
const FORECAST_BYTES_MAX: usize = 1 << 30;
/// Days that a person sees; further ones are in the JSON.
const ROWS_MAX: usize = 40;

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  purgectl forecast\n  purgectl forecast --rule scratch-28d --days 14 --by user\n\n\
                        The forecast assumes that no file is used in the meantime. A file that is used stays."
)]
pub struct Forecast {
    /// This rule; may be given several times. Without it, every rule of the volume.
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// This volume.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    volume: String,
    /// Instead of the rules' own TTL; without a rule, everything on the volume not used for this long.
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    ttl: Option<u64>,
    /// How far ahead.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Tell files apart by this.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// With --by directory: how deep.
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    /// Owner.
    User,
    /// Directory.
    Directory,
}

impl Forecast {
    pub(super) async fn run(&self, client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let by = match self.by {
            None => v1::UsageBy::Unspecified,
            Some(By::User) => v1::UsageBy::User,
            Some(By::Directory) => v1::UsageBy::Directory,
        };
        let request = v1::ForecastRequest {
            rules: self.rules.clone(),
            volume: self.volume.clone(),
            ttl_seconds: self.ttl,
            days: self.days,
            by: by.into(),
            depth: self.depth,
        };
        let mut client = client.max_decoding_message_size(FORECAST_BYTES_MAX);
        let told = client.get_forecast(request).await?.into_inner();
        match out.is_table() {
            true => print(&told, self.by, out)?,
            false => out.one_with(&view(&told), "days")?,
        }
        Ok(exit::DONE)
    }
}

/// The growth is not told yet.
fn lacks_data(f: &v1::Forecast) -> bool {
    f.noted_seconds < f.needed_seconds
}

fn view(f: &v1::Forecast) -> Value {
    let day = |d: &v1::Due| json!({ "until": time(d.until), "files": d.files, "bytes": d.bytes });
    let now = |d: &Option<v1::Due>| {
        let d = d.unwrap_or_default();
        json!({ "files": d.files, "bytes": d.bytes })
    };
    let days = |all: &[v1::Due]| all.iter().map(day).collect::<Vec<_>>();
    let subject = |s: &v1::SubjectForecast| {
        json!({
            "subject": s.subject, "files": s.files, "bytes": s.bytes, "due": now(&s.due), "days": days(&s.days),
        })
    };
    let limit = |l: &v1::LimitForecast| {
        let go = |t: v1::Totals| json!({ "files": t.files, "bytes": t.bytes });
        json!({
            "limit": l.limit, "subject": l.subject, "measure": l.measure, "used": l.used, "most": l.most,
            "growth_per_day": l.growth_per_day, "measured_seconds": l.measured_seconds,
            "reached_at": time(l.reached_at), "would_go": l.would_go.map(go),
        })
    };
    json!({
        "volume": f.volume,
        "rules": f.rules,
        "from": time(f.from),
        "due": now(&f.due),
        "days": days(&f.days),
        "subjects": f.subjects.iter().map(subject).collect::<Vec<_>>(),
        "enough_data": !lacks_data(f),
        "noted_seconds": f.noted_seconds,
        "needed_seconds": f.needed_seconds,
        "limits": f.limits.iter().map(limit).collect::<Vec<_>>(),
    })
}

fn print(f: &v1::Forecast, by: Option<By>, out: &mut Out) -> std::io::Result<()> {
    let heading = format!(
        "Volume {}: expires if nothing is used ({})",
        f.volume,
        f.rules.join(", ")
    );
    out.heading(&heading)?;
    let mut table = Table::new(&[
        ("UNTIL", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
    ]);
    let due = f.due.unwrap_or_default();
    table.row(["already".into(), count(due.files), format_size(due.bytes)]);
    let told: Vec<&v1::Due> = f.days.iter().filter(|d| d.files > 0).collect();
    for d in told.iter().take(ROWS_MAX) {
        table.row([when(d.until), count(d.files), format_size(d.bytes)]);
    }
    table.print(out, 2)?;
    if told.len() > ROWS_MAX {
        out.line(&format!(
            "  and {} days more: --output json has all",
            told.len() - ROWS_MAX
        ))?;
    }
    let none = f.days.iter().all(|d| d.files == 0);
    if none {
        let last = f.days.last().map_or_else(String::new, |d| when(d.until));
        out.line(&format!("  nothing more until {last}"))?;
    }
    if !f.subjects.is_empty() {
        out.line("")?;
        subjects(f, by).print(out, 2)?;
    }
    if !f.limits.is_empty() {
        out.line("")?;
        limits(f).print(out, 2)?;
        let measured = f.limits.iter().map(|l| l.measured_seconds).max().unwrap_or(0);
        if measured > 0 {
            out.line(&format!("  growth: measured over the last {}", age(measured)))?;
        }
    }
    if lacks_data(f) {
        out.line(&format!(
            "  growth: not enough data yet: it was noted for {}, and is told after {}",
            age(f.noted_seconds),
            age(f.needed_seconds)
        ))?;
    }
    Ok(())
}

fn subjects(f: &v1::Forecast, by: Option<By>) -> Table {
    let mut table = Table::new(&[
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("FIRST", Align::Left),
        ("SUBJECT", Align::Left),
    ]);
    for s in &f.subjects {
        let first = match &s.due {
            Some(_) => "already".into(),
            None => s.days.first().map_or_else(String::new, |d| when(d.until)),
        };
        let subject = match by {
            Some(By::Directory) => paths::printable(s.subject.as_bytes()),
            Some(By::User) | None => s.subject.clone(),
        };
        table.row([count(s.files), format_size(s.bytes), first, subject]);
    }
    table
}

fn limits(f: &v1::Forecast) -> Table {
    let mut table = Table::new(&[
        ("LIMIT", Align::Left),
        ("USED", Align::Right),
        ("OF", Align::Right),
        ("A DAY", Align::Right),
        ("REACHED", Align::Left),
        ("WOULD GO", Align::Right),
    ]);
    for l in &f.limits {
        let amount = |n: f64| match l.measure.as_str() {
            "inodes" => count(n.max(0.0) as u64),
            _ => format_size(n.max(0.0) as u64),
        };
        let most = match l.measure.as_str() {
            "inodes" => amount(l.most),
            _ => format_limit(l.most.max(0.0) as u64),
        };
        let growth = match l.growth_per_day {
            None => "?".into(),
            Some(n) if n < 0.0 => format!("-{}", amount(-n)),
            Some(n) => amount(n),
        };
        let reached = match l.reached_at {
            None if l.growth_per_day.is_none() => "?".into(),
            None => "-".into(),
            at if seconds(at) <= seconds(f.from) => "now".into(),
            at => when(at).split(' ').next().unwrap_or_default().to_owned(),
        };
        let name = [l.limit.as_str(), l.subject.as_str(), l.measure.as_str()];
        let name: Vec<&str> = name.into_iter().filter(|part| !part.is_empty()).collect();
        table.row([
            name.join(" "),
            amount(l.used),
            most,
            growth,
            reached,
            l.would_go.map_or("-".into(), |t| format_size(t.bytes)),
        ]);
    }
    table
}

fn seconds(at: Option<prost_types::Timestamp>) -> i64 {
    at.map_or(0, |t| t.seconds)
}
