//! `purgectl rescan`

use clap::Args;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::{count, plural};
use crate::output::{Out, progress};
use crate::views;

/// Arguments.
#[derive(Debug, Args)]
pub struct Rescan {
    /// This volume; without it, all.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    volume: String,
}

impl Rescan {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let mut news = client
            .rescan(v1::RescanRequest {
                volume: self.volume.clone(),
            })
            .await?
            .into_inner();
        let bar = progress::bar(out, 0, "entries");
        out.begin()?;
        loop {
            let step = tokio::select! {
                step = news.message() => step?,
                _ = tokio::signal::ctrl_c() => {
                    return Err(CtlError::Interrupted("interrupted; the rescan goes on at the agent".into()));
                }
            };
            let Some(step) = step else { break };
            bar.set_position(step.entries);
            if !step.finished {
                continue;
            }
            if !out.is_table() {
                out.item(&views::scan(&step))?;
                continue;
            }
            let unreadable = match step.unreadable {
                0 => String::new(),
                n => format!(", {} unreadable", count(n)),
            };
            out.line(&format!(
                "{}: looked at {}{unreadable}",
                step.volume,
                plural(step.entries, "entry", "entries")
            ))?;
        }
        bar.finish_and_clear();
        if !out.is_table() {
            out.end()?;
        }
        Ok(exit::DONE)
    }
}
