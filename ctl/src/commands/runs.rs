//! `purgectl runs` and `purgectl run`

use clap::Args;
use purge_proto::units::format_size;
use purge_proto::v1;

use super::PAGE_ROWS;
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::{Align, Cell, Table, age, count};
use crate::output::{Out, amount};
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

/// Runs in a table. What they have in common is left out: the volume where there is one, failures where there are none.
pub(super) fn table(runs: &[v1::Run]) -> Table {
    let has_volumes = runs
        .windows(2)
        .any(|two| matches!(two, [a, b] if a.volume != b.volume));
    let has_failed = runs.iter().any(|run| run.failed_total > 0);
    let columns = [
        (true, ("RUN", Align::Left)),
        (has_volumes, ("VOLUME", Align::Left)),
        (true, ("WHEN", Align::Right)),
        (true, ("BY", Align::Left)),
        (true, ("TRASHED", Align::Right)),
        (true, ("DELETED", Align::Right)),
        (true, ("SIZE", Align::Right)),
        (true, ("BACK", Align::Right)),
        (has_failed, ("FAILED", Align::Right)),
        (true, ("STATE", Align::Left)),
        (true, ("RULES", Align::Words)),
    ];
    let shown: Vec<_> = columns
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, head)| *head)
        .collect();
    let mut table = Table::new(&shown);
    for run in runs {
        let cells = columns.iter().zip(cells(run));
        table.row(cells.filter(|((is, _), _)| *is).map(|(_, cell)| cell));
    }
    table
}

fn cells(run: &v1::Run) -> [Cell; 11] {
    let (deleted, trashed) = (run.deleted.unwrap_or_default(), run.trashed.unwrap_or_default());
    let restored = run.restored.unwrap_or_default();
    let rules = match run.rules.as_slice() {
        [] => "-".to_owned(),
        rules => rules.join(", "),
    };
    [
        run.run_id.clone().into(),
        run.volume.clone().into(),
        format!("{} ago", age(super::age_of(run.started_at))).into(),
        super::asker(&run.requested_by).into(),
        amount::short(&trashed).into(),
        amount::short(&deleted).into(),
        format_size(deleted.bytes.saturating_add(trashed.bytes)).into(),
        amount::back(&trashed, &restored).into(),
        count(run.failed_total).into(),
        Cell::state(state(run.state())),
        rules.into(),
    ]
}

/// In a word that a column has room for.
fn state(state: v1::RunState) -> String {
    match state {
        v1::RunState::Completed => "done".into(),
        other => views::run_state(other),
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run() -> v1::Run {
        let totals = |directories, files_inside, bytes| {
            Some(v1::Totals {
                directories,
                bytes,
                files_inside,
                ..v1::Totals::default()
            })
        };
        let began = std::time::SystemTime::now() - std::time::Duration::from_secs(22 * 60);
        v1::Run {
            run_id: "r0tp9bjam7np".into(),
            volume: "scratch".into(),
            started_at: Some(began.into()),
            requested_by: "uid 0".into(),
            trashed: totals(811, 11_057, 333_657_000),
            restored: totals(70, 995, 30_030_000),
            state: v1::RunState::Completed.into(),
            rules: vec!["jobs-14d".into()],
            ..v1::Run::default()
        }
    }

    #[test]
    fn a_line_tells_what_went_who_asked_and_what_is_back() {
        let lines = table(&[run()]).lines();
        assert_eq!(
            lines,
            [
                "RUN              WHEN  BY    TRASHED  DELETED       SIZE  BACK  STATE  RULES",
                "r0tp9bjam7np  22m ago  root   11,057        -  318.2 MiB  9.0%  done   jobs-14d",
            ]
        );
        assert!(lines.iter().all(|line| line.len() <= 80), "{lines:?}");
        let elsewhere = v1::Run {
            volume: "home".into(),
            requested_by: "watermark home".into(),
            failed_total: 3,
            ..run()
        };
        let lines = table(&[run(), elsewhere]).lines();
        assert!(
            lines[0].contains("VOLUME") && lines[0].contains("FAILED"),
            "{lines:?}"
        );
        assert!(
            lines[2].contains("home") && lines[2].contains("watermark"),
            "{lines:?}"
        );
    }
}
