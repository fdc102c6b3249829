//! `purgectl plan`

use std::path::PathBuf;

use clap::Args;
use purge_proto::ONLY_TELLS;
use purge_proto::units::{format_duration, format_size};
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::{Align, Table, count, plural, share, when};
use crate::output::tone::{Span, Tone};
use crate::output::{Out, amount};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  purgectl plan\n  purgectl plan --rule scratch-28d --detailed-exitcode\n  \
                        purgectl plan --volume scratch --ttl 90d\n  purgectl plan /export/scratch/alice --user alice --no-save"
)]
pub struct Plan {
    /// Only what lies below this directory.
    path: Option<PathBuf>,
    /// Only what this user owns (name or number).
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// This rule; may be given several times.
    ///
    /// Without it, every rule of the volume.
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// This volume.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    volume: String,
    /// Instead of the rules' own TTL.
    ///
    /// Without a rule, everything on the volume that was not used for this long.
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    ttl: Option<u64>,
    /// What this quota asks for, instead of rules.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, conflicts_with_all = ["rules", "ttl", "watermark", "path", "user"])]
    quota: String,
    /// What the watermark asks for, instead of rules.
    #[arg(long, conflicts_with_all = ["rules", "ttl", "path", "user"])]
    watermark: bool,
    /// Only tell: the plan cannot be applied.
    ///
    /// It is not saved, so it has no name and takes no room.
    #[arg(long)]
    no_save: bool,
    /// Exit with 2 if there is something to purge.
    ///
    /// With 0 if there is nothing, with 3 if apply would refuse the plan, and with 1 also if the command line is wrong.
    #[arg(long)]
    detailed_exitcode: bool,
}

impl Plan {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::CreatePlanRequest {
            rules: self.rules.clone(),
            volume: self.volume.clone(),
            ttl_seconds: self.ttl,
            quota: self.quota.clone(),
            watermark: self.watermark,
            path: self.path.as_deref().map(paths::absolute).unwrap_or_default(),
            user: self.user.clone(),
            no_save: self.no_save,
        };
        let plan = create(&mut client, request).await?;
        match out.is_table() {
            true => print(&plan, out)?,
            false => out.one(&views::plan(&plan))?,
        }
        let is_something = views::entries(&plan.candidates.unwrap_or_default()) > 0;
        // A rule that only tells is looked at like this: without the option, that is no refusal.
        let is_refused = match self.detailed_exitcode {
            true => !plan.refusal.is_empty(),
            false => !plan.refusal.is_empty() && !plan.refusal.contains(ONLY_TELLS),
        };
        Ok(match (is_refused, self.detailed_exitcode && is_something) {
            (true, _) => exit::REFUSED,
            (false, true) => exit::SOMETHING,
            (false, false) => exit::DONE,
        })
    }
}

/// Makes a plan.
pub(super) async fn create(
    client: &mut Client,
    request: v1::CreatePlanRequest,
) -> Result<v1::Plan, CtlError> {
    let mut news = client.create_plan(request).await?.into_inner();
    while let Some(step) = news.message().await? {
        if let Some(v1::plan_progress::Step::Plan(plan)) = step.step {
            return Ok(plan);
        }
    }
    Err(CtlError::Run("the agent ended the call without a plan".into()))
}

/// Owners that are named.
const OWNERS_SHOWN: usize = 10;

/// What an operator reads before he decides.
pub(super) fn print(p: &v1::Plan, out: &mut Out) -> Result<(), CtlError> {
    let totals = p.candidates.unwrap_or_default();
    let kept = p.kept.unwrap_or_default();
    if p.plan_id.is_empty() {
        out.heading(&format!("Plan for volume {}, not saved", p.volume))?;
    } else {
        out.heading(&format!("Plan {} for volume {}", p.plan_id, p.volume))?;
        out.line(&format!(
            "  made {}, expires {}",
            when(p.created_at),
            when(p.expires_at)
        ))?;
    }
    out.line("")?;
    if views::entries(&totals) == 0 {
        out.line(&format!(
            "  Nothing to purge among {}.",
            plural(p.index_files, "file", "files")
        ))?;
    } else {
        out.line(&format!("  Would go: {}", amount::words(&totals)))?;
        if amount::files(&totals) > 0 {
            let of = share(amount::files(&totals), p.index_files);
            out.line(&format!("            {of} of the volume's files"))?;
        }
    }
    out.line("")?;
    let has_links = totals.links > 0;
    let mut columns = vec![
        ("RULE", Align::Left),
        ("FILES", Align::Right),
        ("DIRS", Align::Right),
        ("SIZE", Align::Right),
        ("", Align::Left),
    ];
    if has_links {
        columns.insert(3, ("LINKS", Align::Right));
    }
    let mut rules = Table::new(&columns);
    for r in &p.rules {
        let t = r.totals.unwrap_or_default();
        let nothing = views::entries(&t) == 0;
        let remark = if nothing { "matched nothing" } else { "" };
        let mut row = vec![
            r.rule.clone(),
            count(amount::files(&t)),
            count(t.directories),
            format_size(t.bytes),
            remark.into(),
        ];
        if has_links {
            row.insert(3, count(t.links));
        }
        rules.row(row);
    }
    rules.print(out, 2)?;
    for rule in &p.rules {
        for remark in remarks(rule) {
            out.words(&format!("    {}: {remark}", rule.rule))?;
        }
    }
    if !p.by_owner.is_empty() {
        out.line("")?;
        let mut owners = Table::new(&[
            ("OWNER", Align::Left),
            ("FILES", Align::Right),
            ("SIZE", Align::Right),
        ]);
        for o in p.by_owner.iter().take(OWNERS_SHOWN) {
            owners.row([o.owner.clone(), count(o.files), format_size(o.bytes)]);
        }
        owners.print(out, 2)?;
        if p.by_owner.len() > OWNERS_SHOWN {
            out.line(&format!("  and {} more owners", p.by_owner.len() - OWNERS_SHOWN))?;
        }
    }
    out.line("")?;
    print_kept(&kept, p.index_files, out)?;
    if let Some(forgiven) = &p.forgiven {
        for line in in_words(*forgiven) {
            out.line(&format!("  {line}"))?;
        }
        out.line("")?;
    }
    for idle in &p.idle_patterns {
        out.line(&format!(
            "  Warning: an exclude pattern of rule {} matches nothing:",
            idle.rule
        ))?;
        let meant = match idle.did_you_mean.as_str() {
            "" => String::new(),
            meant => format!("  did you mean {meant:?}?"),
        };
        out.line(&format!("    {:?}{meant}", idle.pattern))?;
    }
    if !p.idle_patterns.is_empty() {
        out.line("")?;
    }
    for why in &p.left_out {
        out.words(&format!("  Left out: {why}"))?;
    }
    if !p.left_out.is_empty() {
        out.line("")?;
    }
    if p.times_ahead > 0 {
        let files = plural(p.times_ahead, "file has", "files have");
        out.line(&format!(
            "  {files} a time in the future: it counts as the moment it was seen"
        ))?;
        out.line("")?;
    }
    if p.mounted > 0 {
        let candidates = plural(p.mounted, "candidate is", "candidates are");
        out.line(&format!("  {candidates} in use by mounts: a run keeps them"))?;
        out.line("")?;
    }
    if !p.blind.is_empty() {
        out.words(&format!("  Not seen: {}", super::unseen(&p.blind, &p.reads)))?;
        out.line("")?;
    }
    if p.grace_seconds > 0 {
        let why = match p.guard.as_str() {
            "grace" | "requests" => " (no leases on this file system: at least a day)",
            _ => "",
        };
        let grace = format_duration(p.grace_seconds);
        out.line(&format!("  What is taken stays in the trash for {grace}{why}"))?;
    }
    if !p.refusal.is_empty() {
        out.spans(&[Span::new("  Apply will refuse this plan:", Tone::Bad)])?;
        out.words(&format!("    {}", p.refusal))?;
    }
    if p.grace_seconds > 0 || !p.refusal.is_empty() {
        out.line("")?;
    }
    out.line(&format!(
        "  Evaluated in {:.3} s. Nothing has been changed.",
        p.evaluation_seconds
    ))?;
    print_next(p, out)
}

/// How many files stay, and why.
fn print_kept(kept: &v1::Kept, of: u64, out: &mut Out) -> Result<(), CtlError> {
    let reasons = reasons(kept).into_iter().filter(|(n, _)| *n > 0);
    let mut table = Table::new(&[("KEPT", Align::Right), ("WHY", Align::Left)]);
    let mut all = 0_u64;
    for (files, why) in reasons {
        all = all.saturating_add(files);
        table.row([count(files), why]);
    }
    if table.is_empty() {
        return Ok(());
    }
    let part = share(all, of);
    out.line(&format!(
        "  Stays:    {}, {part} of the volume's files",
        plural(all, "file", "files")
    ))?;
    table.print(out, 2)?;
    Ok(out.line("")?)
}

/// Why files stay, and how many for each reason.
fn reasons(kept: &v1::Kept) -> [(u64, String); 10] {
    let ripe = match (kept.ripe_from, kept.ripe_until) {
        (Some(from), Some(until)) if from == until => format!(", ripe at {}", when(Some(from))),
        (Some(from), until) => format!(", ripe from {} to {}", when(Some(from)), when(until)),
        _ => String::new(),
    };
    [
        (kept.young, "young: used within the ttl".into()),
        (kept.out_of_scope, "out of scope: no rule speaks of them".into()),
        (kept.excluded, "expired, but excluded".into()),
        (kept.announced, format!("announced{ripe}")),
        (kept.held, "held".into()),
        (
            kept.mounted,
            "mounted: something is mounted in their directory".into(),
        ),
        (kept.uncovered, "not observed long enough".into()),
        (
            kept.limit,
            "beyond a limit of their rule, or not asked for".into(),
        ),
        (
            kept.other_subjects,
            "other subjects, who are within their limits".into(),
        ),
        (kept.not_needed, "not needed: enough goes without them".into()),
    ]
}

/// What a person ought to know of a rule: why it takes nothing, and what goes with directories of others.
fn remarks(r: &v1::RuleShare) -> Vec<String> {
    let with = |g: &v1::GoesWith| {
        let files = plural(g.files, "file", "files");
        format!("{files}, taken with their directories by {}", g.rule)
    };
    let mut parts: Vec<String> = r.goes_with.iter().map(with).collect();
    let copied = |to: &v1::Destination| format!("copied to archive {} ({}) first", to.name, to.url);
    parts.extend(r.archive.as_ref().map(copied));
    let others = [&r.remark, &r.because];
    parts.extend(others.into_iter().filter(|text| !text.is_empty()).cloned());
    parts
}

/// What can be done with the plan.
fn print_next(p: &v1::Plan, out: &mut Out) -> Result<(), CtlError> {
    if views::entries(&p.candidates.unwrap_or_default()) == 0 || p.plan_id.is_empty() {
        return Ok(());
    }
    out.line(&format!("  Look:   purgectl show {}", p.plan_id))?;
    if p.refusal.is_empty() {
        out.line(&format!("  Remove: purgectl apply {}", p.plan_id))?;
    }
    Ok(())
}

/// That a pattern protects nothing.
pub fn idle_in_words(idle: &v1::IdlePattern) -> String {
    let meant = match idle.did_you_mean.as_str() {
        "" => String::new(),
        meant => format!("; did you mean {meant:?}?"),
    };
    format!(
        "exclude pattern {:?} of rule {} matches nothing on the volume{meant}",
        idle.pattern, idle.rule
    )
}

/// What a plan takes although its use may not have been seen.
fn in_words(f: v1::Forgiven) -> [String; 2] {
    let stretches = match f.stretches {
        1 => format!("1 unwatched stretch, {} s, is forgiven:", f.seconds),
        n => format!("{n} unwatched stretches, {} s in all, are forgiven:", f.seconds),
    };
    let candidates = plural(f.candidates, "candidate", "candidates");
    let them = if f.stretches == 1 { "it" } else { "them" };
    [stretches, format!("{candidates} might have been used in {them}")]
}
