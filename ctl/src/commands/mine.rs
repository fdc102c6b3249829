//! `purgectl mine`

use clap::Args;
use purge_proto::units::{format_duration, format_size};
use purge_proto::v1;
use serde_json::{Map, Value, json};

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, count, plural, when};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  purgectl mine --expiring 7d\n  purgectl mine --depth 4\n\n\
                        What you use stays. `purgectl find --expiring 7d --user NAME` names each file; \
                        `purgectl hold add PATH --reason TEXT` asks to keep a path."
)]
pub struct Mine {
    /// Within this time.
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "30d")]
    expiring: u64,
    /// How deep directories are told apart.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,
    /// This volume; without it, all.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    volume: String,
    /// The files of this user (for root).
    #[arg(long, value_name = "USER", default_value = "", hide_default_value = true)]
    user: String,
}

impl Mine {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::MineRequest {
            volume: self.volume.clone(),
            expiring_seconds: self.expiring,
            depth: self.depth,
            user: self.user.clone(),
        };
        let report = client.mine(request).await?.into_inner();
        match out.is_table() {
            true => self.print(&report, out)?,
            false => out.one_with(&view(&report), "directories")?,
        }
        Ok(exit::DONE)
    }

    fn print(&self, report: &v1::MineReport, out: &mut Out) -> std::io::Result<()> {
        let within = format_duration(self.expiring);
        if report.files == 0 {
            out.line(&format!("Nothing of {} expires within {within}.", report.user))?;
            return print_held(report, out);
        }
        out.heading(&heading(report, &within))?;
        out.words(&now(report))?;
        for rules in report.rules.chunk_by(|a, b| a.next_at == b.next_at) {
            out.words(&of_rules(rules))?;
        }
        print_held(report, out)?;
        let mut table = Table::new(&[
            ("FILES", Align::Right),
            ("EXPIRED", Align::Right),
            ("SIZE", Align::Right),
            ("FIRST", Align::Left),
            ("DIRECTORY", Align::Left),
        ]);
        for d in &report.directories {
            table.row([
                count(d.files),
                count(d.expired_files),
                format_size(d.bytes),
                d.first_expires_at.map_or_else(String::new, super::find::left),
                paths::partly(&d.path, d.hidden),
            ]);
        }
        out.line("")?;
        table.print(out, 2)?;
        let told = u64::try_from(report.directories.len()).unwrap_or(u64::MAX);
        match report.directories_total.saturating_sub(told) {
            0 => Ok(()),
            more => out.line(&format!(
                "And {} that expire later; ask for a smaller --depth or a shorter --expiring to see all.",
                plural(more, "directory", "directories")
            )),
        }
    }
}

/// Rules of one time that are named.
const RULES_SHOWN: usize = 5;

/// What has expired may go at any time; the rest has time left.
fn heading(report: &v1::MineReport, within: &str) -> String {
    let files = plural(report.files, "file", "files");
    let all = format!("{files} of {} ({})", report.user, format_size(report.bytes));
    let (have, expire) = match report.files {
        1 => ("has", "expires"),
        _ => ("have", "expire"),
    };
    match report.expired_files {
        0 => format!("{all} {expire} within {within}"),
        n if n == report.files => format!("{all} {have} expired"),
        _ => format!("{all} {have} expired or {expire} within {within}"),
    }
}

/// How much goes as soon as a rule runs.
fn now(report: &v1::MineReport) -> String {
    let size = format_size(report.expired_bytes);
    let goes = match report.expired_files {
        0 => String::new(),
        n if n == report.files => "The next run may take all of it. ".to_owned(),
        n => format!(
            "Of these, {} ({size}) have expired: the next run may take them. ",
            count(n)
        ),
    };
    format!("{goes}A file that is used stays.")
}

/// When rules run that run at the same time, and what becomes of what they take.
fn of_rules(rules: &[v1::MineRule]) -> String {
    let runs = match rules.first().and_then(|r| r.next_at) {
        None => "when an administrator applies a plan".to_owned(),
        at => format!("next at {}", when(at)),
    };
    let then = |r: &v1::MineRule| match r.grace_seconds {
        0 => format!("{} (deletes at once)", r.rule),
        seconds => format!("{} (to the trash for {})", r.rule, format_duration(seconds)),
    };
    let mut named: Vec<String> = rules.iter().take(RULES_SHOWN).map(then).collect();
    if rules.len() > RULES_SHOWN {
        named.push("others".into());
    }
    format!("Rules that run {runs}: {}.", named.join(", "))
}

fn print_held(report: &v1::MineReport, out: &mut Out) -> std::io::Result<()> {
    match report.held_files {
        0 => Ok(()),
        n => out.line(&format!(
            "Kept by holds (purgectl hold list): {} ({}).",
            plural(n, "file", "files"),
            format_size(report.held_bytes)
        )),
    }
}

fn view(report: &v1::MineReport) -> Value {
    let directory = |d: &v1::MineDirectory| {
        let mut o = Map::new();
        o.insert("volume".into(), d.volume.clone().into());
        paths::insert(&mut o, &d.path);
        o.insert("files".into(), d.files.into());
        o.insert("bytes".into(), d.bytes.into());
        o.insert("first_expires_at".into(), views::time(d.first_expires_at));
        o.insert("expired_files".into(), d.expired_files.into());
        if d.hidden {
            o.insert("hidden".into(), true.into());
        }
        Value::Object(o)
    };
    let rule = |r: &v1::MineRule| {
        json!({
            "rule": r.rule,
            "volume": r.volume,
            "next_at": views::time(r.next_at),
            "grace_seconds": r.grace_seconds,
        })
    };
    json!({
        "user": report.user,
        "files": report.files,
        "bytes": report.bytes,
        "expired_files": report.expired_files,
        "expired_bytes": report.expired_bytes,
        "held_files": report.held_files,
        "held_bytes": report.held_bytes,
        "rules": report.rules.iter().map(rule).collect::<Vec<_>>(),
        "directories_total": report.directories_total,
        "directories": report.directories.iter().map(directory).collect::<Vec<_>>(),
    })
}
