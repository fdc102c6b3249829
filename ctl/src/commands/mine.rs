//! `purgectl mine`

use clap::Args;
use purge_proto::units::{format_duration, format_size};
use purge_proto::v1;
use serde_json::{Map, Value, json};

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, count, plural};
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
            return out.line(&format!("Nothing of {} expires within {within}.", report.user));
        }
        out.heading(&format!(
            "{} of {} ({}) expire within {within} unless they are used",
            plural(report.files, "file", "files"),
            report.user,
            format_size(report.bytes)
        ))?;
        let mut table = Table::new(&[
            ("FILES", Align::Right),
            ("SIZE", Align::Right),
            ("FIRST", Align::Left),
            ("DIRECTORY", Align::Left),
        ]);
        for d in &report.directories {
            table.row([
                count(d.files),
                format_size(d.bytes),
                d.first_expires_at.map_or_else(String::new, super::find::left),
                paths::partly(&d.path, d.hidden),
            ]);
        }
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

fn view(report: &v1::MineReport) -> Value {
    let directory = |d: &v1::MineDirectory| {
        let mut o = Map::new();
        o.insert("volume".into(), d.volume.clone().into());
        paths::insert(&mut o, &d.path);
        o.insert("files".into(), d.files.into());
        o.insert("bytes".into(), d.bytes.into());
        o.insert("first_expires_at".into(), views::time(d.first_expires_at));
        if d.hidden {
            o.insert("hidden".into(), true.into());
        }
        Value::Object(o)
    };
    json!({
        "user": report.user,
        "files": report.files,
        "bytes": report.bytes,
        "directories_total": report.directories_total,
        "directories": report.directories.iter().map(directory).collect::<Vec<_>>(),
    })
}
