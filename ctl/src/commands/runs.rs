//! `purgectl runs` and `purgectl run`

use clap::Args;
use purge_proto::units::format_size;
use purge_proto::v1;

use super::PAGE_ROWS;
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Cell, Table, age, count};
use crate::views;

/// Arguments.
#[derive(Debug, Args)]
pub struct Runs {}

/// Arguments.
#[derive(Debug, Args)]
pub struct Run {
    /// The run.
    run: String,
}

/// Runs in a table.
pub(super) fn table(runs: &[v1::Run]) -> Table {
    let mut table = Table::new(&[
        ("RUN", Align::Left),
        ("VOLUME", Align::Left),
        ("STARTED", Align::Right),
        ("DELETED", Align::Right),
        ("SIZE", Align::Right),
        ("FAILED", Align::Right),
        ("STATE", Align::Left),
    ]);
    for run in runs {
        let d = run.deleted.unwrap_or_default();
        table.row([
            run.run_id.clone().into(),
            run.volume.clone().into(),
            format!("{} ago", age(super::age_of(run.started_at))).into(),
            count(views::entries(&d)).into(),
            format_size(d.bytes).into(),
            count(run.failed_total).into(),
            Cell::state(views::run_state(run.state())),
        ]);
    }
    table
}

impl Runs {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let mut page_token = String::new();
        let mut all = Vec::new();
        out.begin()?;
        loop {
            let request = v1::ListRunsRequest {
                page_size: PAGE_ROWS,
                page_token,
            };
            let page = client.list_runs(request).await?.into_inner();
            match out.is_table() {
                true => all.extend(page.runs),
                false => page.runs.iter().try_for_each(|r| out.item(&views::run(r)))?,
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        match (out.is_table(), all.is_empty()) {
            (true, true) => out.line("No runs yet: purgectl apply PLAN")?,
            (true, false) => table(&all).print(out, 0)?,
            (false, _) => out.end()?,
        }
        Ok(exit::DONE)
    }
}

impl Run {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let run = client
            .get_run(v1::GetRunRequest {
                run_id: self.run.clone(),
            })
            .await?
            .into_inner();
        match out.is_table() {
            true => super::apply::print(&run, out)?,
            false => out.one(&views::run(&run))?,
        }
        Ok(exit::DONE)
    }
}
