//! `purgectl status`

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use purge_proto::units::{format_duration, format_size};
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::{Align, Cell, Table, age, count, plural, share, when};
use crate::output::tone::{Span, Tone};
use crate::output::{Out, amount};
use crate::{paths, views};

/// Gaps of fewer seconds are short.
const SHORT: u64 = 3_600;

/// Arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  purgectl status\n  purgectl status --watch 5")]
pub struct Status {
    /// Show it again each SECONDS (2), until it is interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
}

impl Status {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let Some(seconds) = self.watch else {
            return Self::once(&mut client, out).await;
        };
        if !out.is_table() {
            let why = "--watch is for people: a program asks again with `purgectl status --output json`";
            return Err(CtlError::Usage(why.into()));
        }
        loop {
            if std::io::stdout().is_terminal() {
                out.raw(b"\x1b[H\x1b[2J")?;
            }
            Self::once(&mut client, out).await?;
            out.line("")?;
            out.flush()?;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                _ = tokio::signal::ctrl_c() => return Ok(exit::INTERRUPTED),
            }
        }
    }

    async fn once(client: &mut Client, out: &mut Out) -> Result<u8, CtlError> {
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
        let of_all = status.attention.iter().filter(|a| a.volume.is_empty());
        let of_all: Vec<_> = of_all.map(|a| ("attention".to_owned(), attention(a))).collect();
        if !of_all.is_empty() {
            print_rows(of_all, out)?;
        }
        for volume in &status.volumes {
            print_volume(volume, &status, out)?;
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
            when(due.since).into(),
            when(due.next_at).into(),
        ]);
    }
    out.line("")?;
    t.print(out, 0)?;
    Ok(())
}

/// What needs attention stands first, then what comes next, then what is well.
fn rank(name: &str) -> u8 {
    match name {
        "reason" => 0,
        "attention" | "FAILED" | "stuck" => 1,
        "waits" | "guard" | "scanning" | "unreadable" | "locked" | "ahead" | "not covered" => 3,
        "next" => 4,
        "path" | "watched by" | "not seen" | "precision" | "contains" | "disk" | "trash" | "observed"
        | "gaps" | "events" | "index" => 5,
        // A trigger's name.
        _ => 2,
    }
}

fn attention(a: &v1::Attention) -> String {
    let from = match a.at {
        Some(_) => format!(" at {}", when(a.at)),
        None => String::new(),
    };
    let cure = match a.cure.is_empty() {
        true => String::new(),
        false => format!(" ({})", a.cure),
    };
    format!("{}{from}{cure}", a.what)
}

/// When the rules of a volume come due: those with the same moment in one line.
fn upcoming(volume: &str, all: &[v1::Upcoming]) -> Vec<String> {
    let mut groups: Vec<(&v1::Upcoming, Vec<&str>)> = Vec::new();
    for u in all.iter().filter(|u| u.volume == volume) {
        let same =
            |(first, _): &&mut (&v1::Upcoming, Vec<&str>)| first.at == u.at && first.applies == u.applies;
        match groups.iter_mut().find(same) {
            Some((_, rules)) => rules.push(&u.rule),
            None => groups.push((u, vec![&u.rule])),
        }
    }
    let words = |(first, rules): (&v1::Upcoming, Vec<&str>)| {
        let what = match first.applies {
            true => "planned and applied",
            false => "planned, not applied",
        };
        format!("{} at {}: {what}", rules.join(", "), when(first.at))
    };
    groups.into_iter().map(words).collect()
}

fn print_rows(rows: Vec<(String, String)>, out: &mut Out) -> Result<(), CtlError> {
    let mut t = Table::new(&[("", Align::Left), ("", Align::Words)]);
    for (name, value) in rows {
        t.row([name, value]);
    }
    t.print(out, 2)?;
    Ok(())
}

fn print_volume(v: &v1::VolumeStatus, all: &v1::AgentStatus, out: &mut Out) -> Result<(), CtlError> {
    out.line("")?;
    out.spans(&[
        Span::new(v.name.clone(), Tone::Head),
        Span::plain("  "),
        Span::state(&views::volume_state(v.state())),
    ])?;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    for a in all
        .attention
        .iter()
        .filter(|a| a.volume == v.name && a.check != "volume")
    {
        row("attention", attention(a));
    }
    for next in upcoming(&v.name, &all.upcoming) {
        row("next", next);
    }
    if !v.reason.is_empty() {
        row("reason", v.reason.clone());
    }
    row("path", paths::printable(&v.path));
    let trash = v.trash.filter(|t| !amount::is_nothing(t));
    // It is not watched, so little is known of it.
    if v.coverage_since.is_none() {
        trash.iter().for_each(|t| row("trash", amount::words(t)));
        rows.sort_by_key(|(name, _)| rank(name));
        return print_rows(rows, out);
    }
    row(
        "watched by",
        format!(
            "{}{} on {}, baseline {}",
            views::collector(v.collector()),
            match v.collector_mode.as_str() {
                "" => String::new(),
                mode => format!(" ({mode})"),
            },
            v.filesystem,
            v.baseline
        ),
    );
    if !v.blind.is_empty() {
        row("not seen", super::unseen(&v.blind, &v.reads));
    }
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
        "contains",
        format!("{files} in {directories}, {}", format_size(v.bytes)),
    );
    if let Some(disk) = &v.disk {
        row("disk", disk_in_words(disk));
    }
    trash.iter().for_each(|t| row("trash", amount::words(t)));
    if let Some(until) = v.trash_waits_until {
        row(
            "waits",
            format!(
                "some of the trash until {}: a process may have used it while no agent was watching",
                when(Some(until))
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
    let guard = match v.guard.as_str() {
        "grace" => "no leases on this file system: what is taken stays in the trash for a day at least",
        "requests" => {
            "no leases on this file system: the mount keeps its users from what is being removed, and what is taken stays in the trash for a \
             day at least"
        }
        _ => "",
    };
    if !guard.is_empty() {
        row("guard", guard.to_owned());
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
    if !v.missing_features.is_empty() {
        let names: Vec<&str> = v.missing_features.iter().map(|f| f.name.as_str()).collect();
        row(
            "kernel",
            format!("lacks {}; see purgectl doctor", names.join(", ")),
        );
    }
    row(
        "observed",
        format!(
            "for {}, since {}",
            age(super::age_of(v.coverage_since)),
            when(v.coverage_since)
        ),
    );
    if let Some(gap) = v.gaps.last() {
        let gaps = plural(v.gaps.len() as u64, "gap", "gaps");
        row(
            "gaps",
            format!(
                "{gaps}, the last {} ({}{})",
                stretch(gap),
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
    rows.sort_by_key(|(name, _)| rank(name));
    print_rows(rows, out)
}

/// How full it is. A watermark looks at the space and at the inodes, so these are named where they are the larger share.
fn disk_in_words(d: &v1::Disk) -> String {
    let whole = d.used_bytes.saturating_add(d.available_bytes);
    let mut words = format!(
        "{} full, {} free",
        share(d.used_bytes, whole),
        format_size(d.available_bytes)
    );
    let (inodes, bytes) = (
        u128::from(d.inodes_used).saturating_mul(u128::from(whole)),
        u128::from(d.used_bytes).saturating_mul(u128::from(d.inodes)),
    );
    if d.inodes > 0 && inodes > bytes {
        words.push_str(&format!(", {} of inodes", share(d.inodes_used, d.inodes)));
    }
    if let Some(high) = d.high {
        words.push_str(&format!(" (watermark {:.0}%)", high * 100.0));
    }
    words
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

/// From when to when. Times for people have no seconds: of a short one it is said how long it was.
pub(super) fn stretch(gap: &v1::Gap) -> String {
    let second = |at: Option<prost_types::Timestamp>| at.map_or(0, |at| at.seconds);
    let seconds = second(gap.to).saturating_sub(second(gap.from));
    match u64::try_from(seconds).unwrap_or(0) {
        0 => format!("at {}", when(gap.to)),
        s if s < SHORT => format!("at {}, for {}", when(gap.from), format_duration(s)),
        _ => format!("{} to {}", when(gap.from), when(gap.to)),
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
