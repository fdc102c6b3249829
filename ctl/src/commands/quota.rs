//! `purgectl quota`

use clap::Args;
use purge_proto::units::{format_limit, format_size};
use purge_proto::v1;
use serde_json::{Value, json};

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, count, when};
use crate::paths;
use crate::views::time;

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  purgectl quota\n  purgectl quota user\n  purgectl plan --quota user\n\n\
                        OVER SINCE is told as far back as the agent has noted the use, about once an hour."
)]
pub struct Quota {
    /// This quota. Without it, all of them.
    #[arg(default_value = "", hide_default_value = true)]
    name: String,
}

impl Quota {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::ListQuotasRequest {
            quota: self.name.clone(),
        };
        let told = client.list_quotas(request).await?.into_inner();
        match out.is_table() {
            true => print(&told, out)?,
            false => out.all(&told.uses.iter().map(view).collect::<Vec<_>>())?,
        }
        Ok(exit::DONE)
    }
}

fn view(u: &v1::QuotaUse) -> Value {
    json!({
        "quota": u.quota,
        "volume": u.volume,
        "subject": u.subject,
        "measure": u.measure,
        "files": u.files,
        "used": u.used,
        "limit": u.most,
        "share": u.most.filter(|most| *most > 0.0).map(|most| u.used / most),
        "over": u.over,
        "over_since": time(u.over_since),
        "growth_per_day": u.growth_per_day,
        "reached_at": time(u.reached_at),
    })
}

fn print(told: &v1::QuotaReport, out: &mut Out) -> std::io::Result<()> {
    if told.uses.is_empty() {
        return out.line("There is no [[quota]] in the configuration, or its volume is empty.");
    }
    let mut table = Table::new(&[
        ("QUOTA", Align::Left),
        ("SUBJECT", Align::Left),
        ("FILES", Align::Right),
        ("USED", Align::Right),
        ("LIMIT", Align::Right),
        ("%", Align::Right),
        ("OVER SINCE", Align::Left),
        ("REACHED", Align::Left),
    ]);
    for u in &told.uses {
        table.row(row(u));
    }
    table.print(out, 0)?;
    let more = told.uses_total.saturating_sub(told.uses.len() as u64);
    if more > 0 {
        out.line(&format!("and {} more: name one quota", count(more)))?;
    }
    Ok(())
}

fn row(u: &v1::QuotaUse) -> [String; 8] {
    let days = if u.measure == "byte-days" { " d" } else { "" };
    let whole = |n: f64| n.max(0.0) as u64;
    let limit = u.most.map_or_else(
        || "-".into(),
        |most| format!("{}{days}", format_limit(whole(most))),
    );
    let share = match u.most {
        Some(most) if most > 0.0 => format!("{:.0}%", u.used / most * 100.0),
        _ => "-".into(),
    };
    let since = match (u.over, u.over_since) {
        (false, _) => "-".into(),
        (true, None) => "now".into(),
        (true, at) => when(at),
    };
    let reached = match (u.over, u.reached_at, u.growth_per_day) {
        (true, _, _) => "is reached".into(),
        (false, Some(at), _) => when(Some(at)),
        (false, None, Some(_)) => "not at this growth".into(),
        (false, None, None) => "?".into(),
    };
    [
        u.quota.clone(),
        paths::printable(u.subject.as_bytes()),
        count(u.files),
        format!("{}{days}", format_size(whole(u.used))),
        limit,
        share,
        since,
        if u.most.is_none() { "-".into() } else { reached },
    ]
}
