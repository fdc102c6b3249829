//! `[[volume]]` tables, checked.

use std::path::PathBuf;

use super::accessor::read_accessors;
use super::check::{Parts, read_name};
use super::section::{Section, Source};
use super::{Baseline, VolumeConfig};

pub(super) const DEFAULT_PRECISION: u64 = 3600;
/// Any file may have been used while nobody watched: none of it is forgiven unless the operator says so.
pub(super) const DEFAULT_GAP_TOLERANCE: u64 = 0;
pub(super) const DEFAULT_FLUSH_INTERVAL: u64 = 1;
pub(super) const DEFAULT_CHECKPOINT_INTERVAL: u64 = 300;
pub(super) const DEFAULT_SWEEP_INTERVAL: u64 = 7 * 86_400;
pub(super) const DEFAULT_SWEEP_RATE: u64 = 5000;
/// A longer one would lose more to a power cut, and spare little.
const FLUSH_INTERVAL_MAX: u64 = 60;
/// A rarer checkpoint would be a longer gap when the index is lost.
const CHECKPOINT_INTERVAL_MAX: u64 = 3600;

/// Whether this can be a volume's root.
pub(super) fn volume_path(path: &str) -> Result<(), (String, &'static str)> {
    let mend = "write the absolute path of the volume's root, such as /export/scratch";
    let wrong = |why: &str| Err((format!("path {path:?} {why}"), mend));
    match path {
        "" => wrong("is empty"),
        "/" => wrong("is the whole system"),
        p if !p.starts_with('/') => wrong("is not absolute"),
        p if p.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) => wrong("is not normalised"),
        _ => Ok(()),
    }
}

/// A duration between one second and `max`.
fn read_interval(
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static str,
    (default, max): (u64, u64),
) -> u64 {
    let Some((n, span)) = s.duration(src, key) else {
        return default;
    };
    if n == 0 || n > max {
        let mend = "write a time between 1s and this limit, or leave it out";
        src.fault(&span, format!("{key} is {n} s; it may be 1 to {max} s"), mend);
    }
    n
}

pub(super) fn read_volume(mut s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    let taken: Vec<String> = parts.volumes.iter().map(|v| v.name.clone()).collect();
    let name = read_name(&mut s, src, &taken);
    let path = match s.string(src, "path") {
        Some((path, span)) => {
            match volume_path(path.strip_suffix('/').filter(|p| !p.is_empty()).unwrap_or(&path)) {
                Ok(()) => Some((PathBuf::from(path.trim_end_matches('/')), span)),
                Err((what, mend)) => {
                    src.fault(&span, what, mend);
                    None
                }
            }
        }
        None => {
            if !s.has("path") {
                src.fault(
                    &s.span.clone(),
                    "the volume has no path",
                    "add a line such as: path = \"/export/scratch\"",
                );
            }
            None
        }
    };
    s.refuse(src, "collector");
    let baselines = [
        ("auto", Baseline::Auto),
        ("observed", Baseline::Observed),
        ("atime", Baseline::Atime),
        ("mtime", Baseline::Mtime),
    ];
    let baseline = s.choice(src, "baseline", &baselines).unwrap_or(Baseline::Auto);
    let precision = s.duration(src, "precision").map_or(DEFAULT_PRECISION, |(n, _)| n);
    let gap_tolerance = s
        .duration(src, "gap_tolerance")
        .map_or(DEFAULT_GAP_TOLERANCE, |(n, _)| n);
    let flush_interval = read_interval(
        &mut s,
        src,
        "flush_interval",
        (DEFAULT_FLUSH_INTERVAL, FLUSH_INTERVAL_MAX),
    );
    let checkpoint_interval = read_interval(
        &mut s,
        src,
        "checkpoint_interval",
        (DEFAULT_CHECKPOINT_INTERVAL, CHECKPOINT_INTERVAL_MAX),
    );
    let sweep_interval = s
        .duration(src, "sweep_interval")
        .map_or(DEFAULT_SWEEP_INTERVAL, |(n, _)| n);
    let sweep_rate = s.count(src, "sweep_rate").map_or(DEFAULT_SWEEP_RATE, |(n, _)| n);
    let adopt = s.flag(src, "adopt").unwrap_or(false);
    let reboots = [("gap", false), ("ordered", true)];
    let reboots_are_ordered = s.choice(src, "reboots", &reboots).unwrap_or(false);
    let ignore_accessors = read_accessors(&mut s, src);
    s.finish(src);
    let (Some(name), Some((path, span))) = (name, path) else {
        return;
    };
    for other in &parts.volumes {
        if path.starts_with(&other.path) || other.path.starts_with(&path) {
            let what = format!("path {} overlaps that of volume {}", path.display(), other.name);
            src.fault(&span, what, "keep volumes apart: no file may belong to two");
        }
    }
    parts.volumes.push(VolumeConfig {
        name,
        path,
        baseline,
        precision,
        ignore_accessors,
        gap_tolerance,
        flush_interval,
        checkpoint_interval,
        sweep_interval,
        sweep_rate,
        adopt,
        reboots_are_ordered,
        only_looks: false,
    });
}
