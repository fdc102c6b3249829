//! `purgectl status`

use clap::Args;
use purge_proto::units::{format_duration, format_size};
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::{Align, Cell, Table, age, count, plural, when};
use crate::output::tone::{Span, Tone};
use crate::output::{Out, amount};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
pub struct Status {}

impl Status {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let status = client.get_status(v1::GetStatusRequest {}).await?.into_inner();
        if !out.is_table() {
            out.one_with(&views::status(&status), "volumes")?;
            return Ok(exit::DONE);
        }
        out.line(&format!(
            "purge-agent {}, up {}, {} resident",
            status.version,
            age(status.uptime_seconds),
            format_size(status.resident_bytes)
        ))?;
        for volume in &status.volumes {
            print_volume(volume, out)?;
        }
        print_due(&status.schedules, out)?;
        if !status.last_runs.is_empty() {
            out.line("")?;
            super::runs::table(&status.last_runs).print(out, 0)?;
        }
        Ok(exit::DONE)
    }
}

/// Rules whose time has come.
fn print_due(schedules: &[v1::DueSchedule], out: &mut Out) -> Result<(), CtlError> {
    if schedules.is_empty() {
        return Ok(());
    }
    let left = |name| (name, Align::Left);
    let columns = ["SCHEDULE", "VOLUME", "STATE", "SINCE", "NEXT"].map(left);
    let mut t = Table::new(&columns);
    for due in schedules {
        t.row([
            due.rule.clone().into(),
            due.volume.clone().into(),
            Cell::state(due.state.clone()),
            stamp(due.since).into(),
            stamp(due.next_at).into(),
        ]);
    }
    out.line("")?;
    t.print(out, 0)?;
    Ok(())
}

fn print_volume(v: &v1::VolumeStatus, out: &mut Out) -> Result<(), CtlError> {
    out.line("")?;
    out.spans(&[
        Span::new(v.name.clone(), Tone::Head),
        Span::plain("  "),
        Span::state(&views::volume_state(v.state())),
    ])?;
    let mut t = Table::new(&[("", Align::Left), ("", Align::Words)]);
    let mut row = |name: &str, value: String| t.row([name.to_owned(), value]);
    if !v.reason.is_empty() {
        row("reason", v.reason.clone());
    }
    row("path", paths::printable(&v.path));
    row(
        "watched by",
        format!(
            "{} on {}, baseline {}",
            views::collector(v.collector()),
            v.filesystem,
            v.baseline
        ),
    );
    let window = match v.precision_seconds {
        0 => "every use is recorded by itself".to_owned(),
        seconds => format!(
            "windows of {}, {} in use",
            format_duration(seconds.into()),
            plural(v.ignore_marks, "mark", "marks")
        ),
    };
    row("precision", window);
    let files = plural(v.files, "file", "files");
    let directories = plural(v.directories, "directory", "directories");
    row(
        "holds",
        format!("{files} in {directories}, {}", format_size(v.bytes)),
    );
    if let Some(t) = v.trash.filter(|t| !amount::is_nothing(t)) {
        row("trash", amount::words(&t));
    }
    if let Some(until) = v.trash_waits_until {
        row(
            "waits",
            format!(
                "some of the trash until {}: a process may have used it while no agent was watching",
                stamp(Some(until))
            ),
        );
    }
    if let Some(stuck) = &v.stuck_trash {
        let totals = stuck.totals.unwrap_or_default();
        let things = amount::files(&totals).saturating_add(totals.directories);
        row(
            "stuck",
            format!(
                "{}, {}, cannot be freed from the trash: {}: {}; {}",
                plural(things, "thing", "things"),
                format_size(totals.bytes),
                paths::printable(&stuck.path),
                stuck.why,
                stuck.cure
            ),
        );
    }
    if !v.run_failure.is_empty() {
        row("FAILED", v.run_failure.clone());
    }
    for trigger in v.triggers.iter().filter(|t| t.state() != v1::TriggerState::Ready) {
        row(&trigger.name, trigger_in_words(&v.name, trigger));
    }
    for trigger in &v.triggers {
        for why in &trigger.left_out {
            row(&trigger.name, format!("leaves out {why}"));
        }
    }
    if v.guard == "grace" {
        let what = "no leases on this file system: what is taken stays in the trash for a day at least";
        row("guard", what.to_owned());
    }
    if let Some(s) = &v.scan {
        row(
            "scanning",
            format!(
                "{} found in {:.1} s",
                plural(s.entries, "entry", "entries"),
                s.seconds
            ),
        );
    }
    if v.unreadable > 0 {
        row(
            "unreadable",
            format!("{}; they and what is above them stay", count(v.unreadable)),
        );
    }
    for lock in &v.locked_by {
        row("locked", lock.clone());
    }
    if v.times_ahead > 0 {
        let files = plural(v.times_ahead, "file has", "files have");
        row(
            "ahead",
            format!("{files} a time in the future; see purgectl doctor"),
        );
    }
    if v.subvolumes > 0 {
        row(
            "not covered",
            format!(
                "{}; see purgectl doctor",
                plural(v.subvolumes, "subvolume", "subvolumes")
            ),
        );
    }
    row(
        "observed",
        format!(
            "for {}, since {}",
            age(super::age_of(v.coverage_since)),
            stamp(v.coverage_since)
        ),
    );
    if let Some(gap) = v.gaps.last() {
        let gaps = plural(v.gaps.len() as u64, "gap", "gaps");
        row(
            "gaps",
            format!(
                "{gaps}, the last until {} ({}{})",
                stamp(gap.to),
                gap.cause,
                counted(gap)
            ),
        );
    }
    let lost = if v.events_lost_total > 0 {
        format!(", {} LOST", count(v.events_lost_total))
    } else {
        ", none lost".into()
    };
    row(
        "events",
        format!(
            "{} so far, {:.0} a second{lost}",
            count(v.events_total),
            v.events_per_second
        ),
    );
    row("index", format!("{} on disk", format_size(v.index_bytes)));
    t.print(out, 2)?;
    Ok(())
}

fn trigger_in_words(volume: &str, trigger: &v1::TriggerStatus) -> String {
    let (reason, since) = (&trigger.reason, age(super::age_of(trigger.since)));
    match trigger.state() {
        v1::TriggerState::Stopped => {
            format!("STOPPED {since} ago: {reason} When that is cleared up: purgectl resume {volume}")
        }
        v1::TriggerState::Waiting => format!("waits for {since}: {reason}"),
        _ => reason.clone(),
    }
}

/// What a gap means for every file.
pub(super) fn counted(gap: &v1::Gap) -> &'static str {
    match (gap.counts, gap.cause.as_str()) {
        (true, _) => "; counts as a use of every file",
        (false, _) if gap.closed => "; access times show what was used",
        // No use was lost.
        (false, "clock-jump" | "names") => "",
        (false, _) => "; forgiven: a use in it is not known",
    }
}

/// A time for people.
pub(super) fn stamp(at: Option<prost_types::Timestamp>) -> String {
    when(at)
}
