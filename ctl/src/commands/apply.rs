//! `purgectl apply`

use std::io::{BufRead, IsTerminal};

use clap::Args;
use purge_proto::units::{format_duration, format_size};
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::pager::Pager;
use crate::output::table::{Align, Table, count, plural};
use crate::output::{self, Out, amount, progress};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  purgectl apply PLAN\n  purgectl apply --rule scratch-28d --yes --output json"
)]
pub struct Apply {
    /// A saved plan.
    #[arg(conflicts_with = "rules", required_unless_present = "rules")]
    plan: Option<String>,
    /// Plan this rule and apply it in one step; may be given several times.
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Free at once what the rules would keep in the trash for a while.
    #[arg(long)]
    no_grace: bool,
    /// At most this many candidates a second.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_rate: u64,
}

/// Failures that are named.
const FAILURES_SHOWN: usize = 10;
/// Levels of directories in the summary before all candidates.
const SUMMARY_DEPTH: u32 = 2;
/// Owners of failures that are shown.
const OWNERS_SHOWN: usize = 5;

impl Apply {
    /// Whether the command can ask for confirmation.
    pub(super) fn check(&self) -> Result<(), CtlError> {
        if self.yes || std::io::stdin().is_terminal() {
            return Ok(());
        }
        Err(CtlError::Usage(
            "cannot ask for confirmation: stdin is not a terminal. Nothing was done; use --yes to go on"
                .into(),
        ))
    }

    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let plan = match &self.plan {
            Some(id) => client
                .get_plan(v1::GetPlanRequest { plan_id: id.clone() })
                .await?
                .into_inner(),
            None => {
                let request = v1::CreatePlanRequest {
                    rules: self.rules.clone(),
                    ..Default::default()
                };
                super::plan::create(&mut client, request).await?
            }
        };
        // Of nothing there is nothing to ask.
        let is_nothing = plan.candidates.is_none_or(|t| amount::is_nothing(&t));
        if !self.yes && !is_nothing && !self.agreed(&client, &plan, out).await? {
            return Err(super::declined());
        }
        let request = v1::ApplyRequest {
            plan_id: plan.plan_id,
            no_grace: self.no_grace,
            max_rate: self.max_rate,
        };
        let mut news = client.apply(request).await?.into_inner();
        let mut last: Option<v1::Run> = None;
        let mut bar = None;
        loop {
            let step = tokio::select! {
                step = news.message() => step?,
                _ = tokio::signal::ctrl_c() => return Err(CtlError::Interrupted(still_running(last.as_ref()))),
            };
            let Some(step) = step else { break };
            let bar = bar.get_or_insert_with(|| progress::bar(out, step.total, "removing"));
            bar.set_position(step.done);
            last = step.run.or(last);
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let run = last.ok_or_else(|| CtlError::Run("the agent ended the call without a run".into()))?;
        match out.is_table() {
            true => print(&run, out)?,
            false => out.one(&views::run(&run))?,
        }
        code_of(&run)
    }

    async fn agreed(&self, client: &Client, plan: &v1::Plan, out: &mut Out) -> Result<bool, CtlError> {
        loop {
            out.flush()?;
            let question = question(plan, self.no_grace);
            output::ask(&question)?;
            let mut answer = String::new();
            if std::io::stdin().lock().read_line(&mut answer)? == 0 {
                return Ok(false);
            }
            match answer.trim() {
                "y" | "Y" | "yes" => return Ok(true),
                "d" | "D" => in_full(client.clone(), &plan.plan_id, out).await?,
                _ => return Ok(false),
            }
        }
    }
}

/// What is asked before anything goes: how much, where to, and for how long.
fn question(plan: &v1::Plan, no_grace: bool) -> String {
    let t = plan.candidates.unwrap_or_default();
    // Without leases all stays in the trash for a while, also with --no-grace.
    let goes_for_good =
        plan.grace_seconds == 0 || (no_grace && !matches!(plan.guard.as_str(), "grace" | "requests"));
    let many_rules = plan
        .rules
        .iter()
        .filter(|r| !r.totals.is_none_or(|t| amount::is_nothing(&t)));
    let at_most = if many_rules.count() > 1 { "up to " } else { "" };
    let to = match goes_for_good {
        true => "for good: it cannot be restored".to_owned(),
        false => format!(
            "to the trash for {at_most}{}",
            format_duration(plan.grace_seconds)
        ),
    };
    let (what, size) = (amount::things(&t), format_size(t.bytes));
    let volume = &plan.volume;
    let first = archives(plan);
    let to = match goes_for_good && first.is_some() {
        true => "for good: only the copies are left".to_owned(),
        false => to,
    };
    let first = first.unwrap_or_default();
    format!("{first}Remove {what} ({size}) from volume {volume}, {to}? d shows all of it. [y/N/d] ")
}

/// What is copied before it is removed, where anything is.
fn archives(plan: &v1::Plan) -> Option<String> {
    let takes = |r: &&v1::RuleShare| !r.totals.is_none_or(|t| amount::is_nothing(&t));
    let taking: Vec<&v1::RuleShare> = plan.rules.iter().filter(takes).collect();
    let copied: Vec<_> = taking
        .iter()
        .filter_map(|r| Some((&r.rule, r.archive.as_ref()?)))
        .collect();
    let mut urls: Vec<&str> = copied.iter().map(|(_, to)| to.url.as_str()).collect();
    urls.dedup();
    let what = match copied.len() {
        0 => return None,
        all if all == taking.len() => "everything".to_owned(),
        _ => {
            let rules: Vec<&str> = copied.iter().map(|(rule, _)| rule.as_str()).collect();
            format!("what {} takes", rules.join(", "))
        }
    };
    let urls = paths::printable(urls.join(", ").as_bytes());
    Some(format!(
        "First {what} is copied to {urls}, fetched back and compared. "
    ))
}

/// The whole dry run: summed up by directory, then each candidate. A terminal has it page by page.
async fn in_full(mut client: Client, plan: &str, out: &mut Out) -> Result<(), CtlError> {
    let Some((pager, mut into)) = Pager::start(out) else {
        return write_in_full(&mut client, plan, out).await;
    };
    let written = write_in_full(&mut client, plan, &mut into).await;
    let written = written.and_then(|()| into.flush().map_err(CtlError::from));
    // The pager waits for the end of its input.
    drop(into);
    pager.wait()?;
    match written {
        // Enough was read.
        Err(CtlError::Pipe) => Ok(()),
        written => written,
    }
}

async fn write_in_full(client: &mut Client, plan: &str, out: &mut Out) -> Result<(), CtlError> {
    if out.is_table() {
        super::summary::print(client, plan, SUMMARY_DEPTH, out).await?;
        out.line("")?;
    }
    super::show::candidates(client.clone(), plan, 0, None, out).await
}

fn still_running(run: Option<&v1::Run>) -> String {
    match run {
        Some(run) => format!(
            "interrupted; run {id} goes on at the agent. Watch it: purgectl run {id}. Stop it: purgectl cancel {id}",
            id = run.run_id
        ),
        None => "interrupted; `purgectl runs` tells whether the run began".into(),
    }
}

/// The exit code that a finished run means.
fn code_of(run: &v1::Run) -> Result<u8, CtlError> {
    let why = if run.error.is_empty() {
        String::new()
    } else {
        format!(": {}", run.error)
    };
    match run.state() {
        v1::RunState::Completed => Ok(exit::DONE),
        v1::RunState::Partial => Ok(exit::PARTIAL),
        v1::RunState::Cancelled => Err(CtlError::Run(format!("run {} was cancelled{why}", run.run_id))),
        _ => Err(CtlError::Run(format!("run {} failed{why}", run.run_id))),
    }
}

fn stamp(at: prost_types::Timestamp) -> String {
    purge_proto::units::format_time(at.seconds)
}

/// Whose candidates failed, in brackets; nothing if that is not known.
fn owners(all: &[v1::OwnerFailures]) -> String {
    let name = |of: &v1::OwnerFailures| match of.owner.is_empty() {
        true => of.uid.to_string(),
        false => paths::printable(of.owner.as_bytes()),
    };
    let mut words: Vec<String> = all
        .iter()
        .take(OWNERS_SHOWN)
        .map(|of| format!("{} of {}", count(of.failed), name(of)))
        .collect();
    if all.len() > OWNERS_SHOWN {
        words.push("the rest of others".into());
    }
    match words.is_empty() {
        true => String::new(),
        false => format!(" ({})", words.join(", ")),
    }
}

/// What went, and where to: first what most of it became.
fn print_taken(
    run: &v1::Run,
    (deleted, trashed): (v1::Totals, v1::Totals),
    out: &mut Out,
) -> std::io::Result<()> {
    let took = format!("in {:.1} s", run.seconds);
    if trashed == v1::Totals::default() {
        let nothing = deleted == v1::Totals::default();
        return match nothing {
            true => out.line(&format!("  Removed nothing {took}")),
            false => out.line(&format!("  Deleted {} {took}", amount::words(&deleted))),
        };
    }
    out.line(&format!("  To the trash: {} {took}", amount::words(&trashed)))?;
    match (run.trash_freed_at, run.trash_until) {
        (Some(freed), _) => out.line(&format!("    freed {}", stamp(freed)))?,
        (None, Some(until)) => out.line(&format!(
            "    until {}; put back by: purgectl restore {}",
            stamp(until),
            run.run_id
        ))?,
        (None, None) => {}
    }
    if let Some(stuck) = run.trash_stuck.filter(|t| *t != v1::Totals::default()) {
        let words = amount::words(&stuck);
        out.line(&format!(
            "  Still in the trash: {words}, which cannot be freed; purgectl status says why"
        ))?;
    }
    match deleted == v1::Totals::default() {
        true => Ok(()),
        false => out.line(&format!("  Deleted {}", amount::words(&deleted))),
    }
}

/// What came back since, and what is still in the trash.
fn print_back(run: &v1::Run, trashed: &v1::Totals, out: &mut Out) -> std::io::Result<()> {
    let Some(restored) = run.restored.filter(|t| !amount::is_nothing(t)) else {
        return Ok(());
    };
    let share = match amount::back(trashed, &restored).as_str() {
        "-" => String::new(),
        share => format!(" ({share})"),
    };
    out.line(&format!("  Put back since: {}{share}", amount::words(&restored)))?;
    match run.in_trash.filter(|t| !amount::is_nothing(t)) {
        Some(left) => out.line(&format!("  Still in the trash: {}", amount::words(&left))),
        None => Ok(()),
    }
}

/// How many were left alone for a reason.
type Counter = fn(&v1::Skipped) -> u64;

/// The reasons for which candidates are left alone, in words.
const REASONS: [(Counter, &str); 14] = [
    (|s| s.accessed, "used since the plan was made"),
    (|s| s.changed, "changed since the plan was made"),
    (|s| s.open, "open"),
    (|s| s.locked, "locked"),
    (|s| s.held, "held"),
    (|s| s.gone, "no longer there"),
    (|s| s.hardlinked, "with a name outside the plan"),
    (|s| s.leased, "leased by another process"),
    (|s| s.deep, "too deep, or with a path too long"),
    (|s| s.quota, "no place in the trash: a quota or limit is used up"),
    (|s| s.mounted, "with something mounted on it"),
    (|s| s.protected, "immutable, append-only or otherwise protected"),
    (
        |s| s.many_names,
        "with names in more directories than the agent may open together, or can look at in time",
    ),
    (|s| s.cancelled, "not reached"),
];

/// What was left alone, by the reason; of directories also how many files are in them.
fn print_left_alone(run: &v1::Run, out: &mut Out) -> std::io::Result<()> {
    let candidates = run.skipped.unwrap_or_default();
    let inside = run.skipped_files_inside.unwrap_or_default();
    let has_inside = REASONS.iter().any(|(of, _)| of(&inside) > 0);
    let mut columns = vec![("LEFT ALONE", Align::Right), ("WHY", Align::Left)];
    if has_inside {
        columns.insert(1, ("FILES INSIDE", Align::Right));
    }
    let mut kept = Table::new(&columns);
    for (of, why) in REASONS.iter().filter(|(of, _)| of(&candidates) > 0) {
        let mut row = vec![count(of(&candidates)), (*why).to_owned()];
        if has_inside {
            row.insert(1, count(of(&inside)));
        }
        kept.row(row);
    }
    if !kept.is_empty() {
        out.line("")?;
        kept.print(out, 2)?;
    }
    Ok(())
}

/// What became of a run.
pub(super) fn print(run: &v1::Run, out: &mut Out) -> Result<(), CtlError> {
    let (deleted, trashed) = (run.deleted.unwrap_or_default(), run.trashed.unwrap_or_default());
    out.heading(&format!(
        "Run {} of plan {}: {}",
        run.run_id,
        run.plan_id,
        views::run_state(run.state())
    ))?;
    if !run.error.is_empty() {
        out.line(&format!("  {}", run.error))?;
    }
    let rules = match run.rules.join(", ").as_str() {
        "" => String::new(),
        rules => format!(" by {rules}"),
    };
    out.line(&format!(
        "  Volume {}{rules}, asked for by {}",
        run.volume,
        super::asker(&run.requested_by)
    ))?;
    if let Some(copied) = run.archived.filter(|t| !amount::is_nothing(t)) {
        let words = amount::words(&copied);
        out.line(&format!("  Copied to the archive, and compared: {words}"))?;
    }
    print_taken(run, (deleted, trashed), out)?;
    print_back(run, &trashed, out)?;
    print_left_alone(run, out)?;
    for lock in &run.locked_by {
        out.line(&format!("  {lock}"))?;
    }
    if run.failed_total > 0 {
        out.line("")?;
        out.line(&format!(
            "  {} failed{}:",
            plural(run.failed_total, "candidate", "candidates"),
            owners(&run.failed_by_owner)
        ))?;
        for f in run.failed.iter().take(FAILURES_SHOWN) {
            out.line(&format!("    {}: {}", paths::printable(&f.path), f.error))?;
        }
        if run.failed_total > FAILURES_SHOWN as u64 {
            out.line(&format!(
                "  all of them: purgectl run {} --output json",
                run.run_id
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_how_much_goes_where_to_and_for_how_long() {
        let totals = Some(v1::Totals {
            directories: 811,
            files_inside: 11_057,
            bytes: 333_657_000,
            ..v1::Totals::default()
        });
        let rule = |name: &str, totals| v1::RuleShare {
            rule: name.into(),
            totals,
            ..v1::RuleShare::default()
        };
        let mut plan = v1::Plan {
            volume: "scratch".into(),
            candidates: totals,
            rules: vec![
                rule("jobs-14d", totals),
                rule("idle", Some(v1::Totals::default())),
            ],
            grace_seconds: 604_800,
            guard: "leases".into(),
            ..v1::Plan::default()
        };
        let what = "Remove 11,057 files in 811 directories (318.2 MiB) from volume scratch";
        let end = "? d shows all of it. [y/N/d] ";
        assert_eq!(
            question(&plan, false),
            format!("{what}, to the trash for 7d{end}")
        );
        let for_good = format!("{what}, for good: it cannot be restored{end}");
        assert_eq!(question(&plan, true), for_good);
        // Another rule may have a shorter grace.
        plan.rules.push(rule("scratch-28d", totals));
        assert!(question(&plan, false).contains("for up to 7d"));
        // Without leases it is in the trash for a while, also with --no-grace.
        plan.guard = "grace".into();
        assert!(question(&plan, true).contains("to the trash"));
        plan.grace_seconds = 0;
        assert_eq!(question(&plan, false), for_good);
        let to = Some(v1::Destination {
            name: "cold".into(),
            url: "file:///mnt/cold".into(),
        });
        plan.rules[0].archive.clone_from(&to);
        let asked = question(&plan, false);
        let first =
            "First what jobs-14d takes is copied to file:///mnt/cold, fetched back and compared. Remove";
        assert!(asked.starts_with(first), "{asked}");
        plan.rules[2].archive = to;
        let asked = question(&plan, false);
        assert!(
            asked.starts_with("First everything is copied to file:///mnt/cold, fetched"),
            "{asked}"
        );
        assert!(asked.contains("for good: only the copies are left?"), "{asked}");
    }
}
