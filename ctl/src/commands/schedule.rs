//! `purgectl schedule`

use clap::Args;
use purge_proto::units::format_duration;
use purge_proto::v1;
use serde_json::{Value, json};

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, when};
use crate::views::time;

/// Arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  purgectl schedule\n  purgectl schedule --output json")]
pub struct Schedule {}

impl Schedule {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let told = client.get_schedule(v1::GetScheduleRequest {}).await?.into_inner();
        match out.is_table() {
            true => print(&told, out)?,
            false => out.all(&told.acts.iter().map(view).collect::<Vec<_>>())?,
        }
        Ok(exit::DONE)
    }
}

fn view(act: &v1::ScheduledAct) -> Value {
    json!({
        "what": act.what,
        "name": act.name,
        "volume": act.volume,
        "schedule": act.schedule,
        "every_seconds": act.every_seconds,
        "next_at": time(act.next_at),
        "deletes": act.deletes,
    })
}

fn print(told: &v1::Schedule, out: &mut Out) -> std::io::Result<()> {
    let mut table = Table::new(&[
        ("NEXT", Align::Left),
        ("EVERY", Align::Left),
        ("WHAT", Align::Left),
        ("NAME", Align::Left),
        ("VOLUME", Align::Left),
    ]);
    for act in &told.acts {
        let every = match act.every_seconds {
            0 if act.schedule.is_empty() => "-".to_owned(),
            0 => act.schedule.clone(),
            seconds => format_duration(seconds),
        };
        let next = match act.next_at {
            None => "on request".to_owned(),
            at => when(at),
        };
        let name = act.name.clone();
        table.row([next, every, words(act).to_owned(), name, act.volume.clone()]);
    }
    table.print(out, 0)
}

fn words(act: &v1::ScheduledAct) -> &'static str {
    match (act.what.as_str(), act.deletes) {
        ("purge", _) => "plan and apply",
        ("announce", _) => "list what will go",
        ("quota", true) => "quota: purge if over",
        ("quota", false) => "quota: tell if over",
        ("watermark", _) => "watermark: purge if over",
        _ => "plan",
    }
}
