//! What the work on the volumes came to: runs, plans, rules, and how long it took.

use super::page::Page;
use crate::host::Host;
use crate::volume::Volume;
use crate::work::rules::{Amount, How};
use crate::work::{Outcome, Outcomes};
use purge_policy::rule::Rule;
use purge_removal::runs::counts::{FATES, RunCounts, STATES, reasons};

/// The figures of all work.
pub(super) fn render(page: &mut Page, host: &Host) {
    runs(page, host);
    rules(page, host);
    outcomes(page, host);
    let watched = host.volumes();
    let phases = watched.iter().flat_map(|volume| {
        let name = &volume.config.name;
        let counted = volume.keeping.work.phases.counted().into_iter();
        counted.map(move |(phase, of)| (format!("volume={name:?},phase=\"{}\"", phase.name()), of))
    });
    let help = "What scans (sweep: slow ones), evaluations, the saving of plans and their runs (apply) took.";
    page.histogram("phase_duration_seconds", help, phases);
}

/// What runs came to since the agent started.
fn runs(page: &mut Page, host: &Host) {
    let watched = host.volumes();
    let names = watched.iter().map(|v| v.config.name.as_str());
    let counts: Vec<(&str, RunCounts)> = names.map(|name| (name, host.runs.counts.of(name))).collect();
    let labelled = |label: &'static str, names: Vec<&'static str>, of: fn(&RunCounts) -> &[u64]| {
        let rows = counts.iter().flat_map(|(volume, counts)| {
            let row =
                |(name, value): (&&str, &u64)| (format!("volume={volume:?},{label}=\"{name}\""), *value);
            names.iter().zip(of(counts)).map(row).collect::<Vec<_>>()
        });
        rows.collect::<Vec<_>>()
    };
    let states = STATES.map(|(name, _)| name).to_vec();
    let rows = labelled("state", states, |c| &c.runs);
    page.metric("runs_total", "counter", "Runs that have ended.", rows);
    let rows = labelled("fate", FATES.to_vec(), |c| &c.candidates);
    let help = "Files and directories of plans, by what became of them.";
    page.metric("run_candidates_total", "counter", help, rows);
    let rows = labelled("reason", reasons().to_vec(), |c| &c.skipped);
    let help = "Files and directories of plans that were left alone, by the reason.";
    page.metric("run_skipped_total", "counter", help, rows);
    let rows = labelled("fate", vec!["deleted", "trashed"], |c| &c.bytes);
    page.metric(
        "run_bytes_total",
        "counter",
        "What was taken, apparent size.",
        rows,
    );
    let rows = labelled("fate", vec!["deleted", "trashed"], |c| &c.files);
    let help = "Files that were taken, those in directories that went as a whole included.";
    page.metric("run_files_total", "counter", help, rows);
    let label = |volume: &str| format!("volume={volume:?}");
    let rows = counts.iter().map(|(v, c)| (label(v), c.seconds));
    page.metric(
        "run_seconds_total",
        "counter",
        "What the runs took together.",
        rows,
    );
    let rows = counts.iter().map(|(v, c)| (label(v), c.last_end));
    let help = "When the last run ended; 0: none since the start.";
    page.metric("last_run_end_timestamp_seconds", "gauge", help, rows);
}

/// What each rule took; also of rules that took nothing. Names of rules need no escaping: letters, digits, `-`, `_` and `.` only, and
/// what quotas and watermarks are called adds a space to these.
fn rules(page: &mut Page, host: &Host) {
    let configured = host.ground.rules();
    let rows: Vec<(String, Amount)> = host
        .volumes()
        .iter()
        .flat_map(|v| of_rules(v, &configured))
        .collect();
    let mut each = |name: &str, help: &str, of: fn(&Amount) -> u64| {
        let rows = rows.iter().map(|(labels, amount)| (labels.clone(), of(amount)));
        page.metric(name, "counter", help, rows);
    };
    let help = "Regular files that a rule, quota or watermark took, those in directories that went as a whole included.";
    each("rule_files_total", help, |a| a.files);
    let help = "Directories that it took, as a whole or because they were empty.";
    each("rule_directories_total", help, |a| a.directories);
    each("rule_bytes_total", "What it took, apparent size.", |a| a.bytes);
}

fn of_rules(volume: &Volume, configured: &[Rule]) -> Vec<(String, Amount)> {
    let of_volume = configured.iter().filter(|r| r.volume == volume.config.name);
    let rows = volume
        .keeping
        .work
        .by_rule
        .counted(of_volume.map(|r| r.name.as_str()));
    let labelled = |(rule, how, amount): (String, How, Amount)| {
        let (volume, fate) = (&volume.config.name, how.name());
        (format!("volume={volume:?},rule={rule:?},fate=\"{fate}\""), amount)
    };
    rows.into_iter().map(labelled).collect()
}

/// How plans, and what the agent cleans up by itself, ended.
fn outcomes(page: &mut Page, host: &Host) {
    const PLANS: &[(&str, Outcome)] = &[
        ("status=\"saved\"", Outcome::Done),
        ("status=\"refused\"", Outcome::Refused),
        ("status=\"failed\"", Outcome::Failed),
    ];
    const CLEANUPS: &[(&str, Outcome)] = &[
        ("operation=\"free_trash\",status=\"done\"", Outcome::Done),
        ("operation=\"free_trash\",status=\"failed\"", Outcome::Failed),
    ];
    let watched = host.volumes();
    let rows = |of: fn(&Volume) -> &Outcomes, named: &'static [(&'static str, Outcome)]| {
        watched.iter().flat_map(move |volume| {
            let (name, outcomes) = (&volume.config.name, of(volume));
            let row = move |(labels, outcome): &(&str, Outcome)| {
                (format!("volume={name:?},{labels}"), outcomes.counted(*outcome))
            };
            named.iter().map(row)
        })
    };
    let help =
        "Plans that were asked for; refused: by a limit, a request that cannot be, or a volume in doubt.";
    page.metric(
        "plans_total",
        "counter",
        help,
        rows(|v| &v.keeping.work.plans, PLANS),
    );
    let help = "Parts of the trash whose grace had ended, or whose space was needed.";
    let cleanups = rows(|v| &v.keeping.work.freed, CLEANUPS);
    page.metric("cleanup_operations_total", "counter", help, cleanups);
}
