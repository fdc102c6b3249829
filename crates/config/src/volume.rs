//! `[[volume]]` tables, checked.

use std::path::PathBuf;

use super::accessor::read_accessors;
use super::keys::Key;
use super::keys::volume as key;
use super::names::read_name;
use super::parts::Parts;
use super::section::{At, Section, Source, value};
use super::{Baseline, Collector, VolumeConfig};

/// A longer one would lose more to a power cut, and spare little.
const FLUSH_INTERVAL_MAX: u64 = 60;
/// A rarer checkpoint would be a longer gap when the index is lost.
const CHECKPOINT_INTERVAL_MAX: u64 = 3600;

/// Seconds between two scans.
const SCAN_INTERVALS: (u64, u64) = (60, 7 * 86_400);

const COLLECTORS: [(&str, Collector); 5] = [
    ("auto", Collector::Auto),
    ("fanotify", Collector::Fanotify),
    ("inotify", Collector::Inotify),
    ("fuse", Collector::Fuse),
    ("scan", Collector::Scan),
];
const BASELINES: [(&str, Baseline); 4] = [
    ("auto", Baseline::Auto),
    ("observed", Baseline::Observed),
    ("atime", Baseline::Atime),
    ("mtime", Baseline::Mtime),
];

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
fn read_interval(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key, max: u64) -> u64 {
    read_between(s, src, key, (1, max))
}

/// A duration between two others.
fn read_between(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key, (min, max): (u64, u64)) -> u64 {
    let Some((n, span)) = s.duration(src, key) else {
        return max;
    };
    if n < min || n > max {
        let mend = "write a time between these limits, or leave it out";
        src.fault(
            &span,
            format!("{} is {n} s; it may be {min} to {max} s", key.name),
            mend,
        );
    }
    n
}

fn read_path(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<At<PathBuf>> {
    let (path, span) = s.needed(src, key::PATH)?;
    match volume_path(path.strip_suffix('/').filter(|p| !p.is_empty()).unwrap_or(&path)) {
        Ok(()) => Some((PathBuf::from(path.trim_end_matches('/')), span)),
        Err((what, mend)) => {
            src.fault(&span, what, mend);
            None
        }
    }
}

/// Where users see the volume.
fn read_mount(s: &Section<'_, '_>, src: &mut Source<'_>, collector: Collector) -> Option<At<PathBuf>> {
    let told = s.string(src, key::MOUNT);
    match (&told, collector == Collector::Fuse) {
        (None, true) => src.fault(
            &s.span_of(key::COLLECTOR),
            "collector = \"fuse\" without mount".to_owned(),
            "say where users see the volume, such as mount = \"/scratch\"",
        ),
        (Some((_, span)), false) => src.fault(
            span,
            "mount has no effect without collector = \"fuse\"".to_owned(),
            "write collector = \"fuse\", or take it out",
        ),
        _ => {}
    }
    let (path, span) = told?;
    match volume_path(path.strip_suffix('/').filter(|p| !p.is_empty()).unwrap_or(&path)) {
        Ok(()) => Some((PathBuf::from(path.trim_end_matches('/')), span)),
        Err((what, _)) => {
            let what = what.replacen("path", "mount", 1);
            src.fault(
                &span,
                what,
                "write the absolute path of a directory, such as /scratch",
            );
            None
        }
    }
}

/// Reads a table, and adds the volume.
pub(super) fn read_volume(s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    let name = read_name(&s, src, key::NAME, &parts.mentions.volumes);
    match &name {
        Some(name) => parts.mentions.volumes.push(name.clone()),
        None => parts.mentions.nameless_volume |= s.peek(key::NAME).is_none(),
    }
    let path = read_path(&s, src);
    let collector = s
        .choice(src, key::COLLECTOR, &COLLECTORS)
        .unwrap_or(Collector::Auto);
    let scan_interval = read_between(&s, src, key::SCAN_INTERVAL, SCAN_INTERVALS);
    let sole_client = s.flag(src, key::SOLE_CLIENT).unwrap_or(false);
    let baseline = s.choice(src, key::BASELINE, &BASELINES).unwrap_or(Baseline::Auto);
    let precision = value(s.duration(src, key::PRECISION));
    let gap_tolerance = value(s.duration(src, key::GAP_TOLERANCE));
    let flush_interval = read_interval(&s, src, key::FLUSH_INTERVAL, FLUSH_INTERVAL_MAX);
    let checkpoint_interval = read_interval(&s, src, key::CHECKPOINT_INTERVAL, CHECKPOINT_INTERVAL_MAX);
    let sweep_interval = value(s.duration(src, key::SWEEP_INTERVAL));
    let sweep_rate = value(s.count(src, key::SWEEP_RATE));
    let adopt = s.flag(src, key::ADOPT).unwrap_or(false);
    let reboots = [("gap", false), ("ordered", true)];
    let reboots_are_ordered = s.choice(src, key::REBOOTS, &reboots).unwrap_or(false);
    let access_times = [("partial", false), ("complete", true)];
    let access_times_are_complete = s.choice(src, key::ACCESS_TIMES, &access_times).unwrap_or(false);
    let ignore_accessors = read_accessors(&s, src);
    let is_nameless = match collector {
        Collector::Auto | Collector::Fanotify => None,
        Collector::Inotify => Some("inotify"),
        Collector::Fuse => Some("fuse"),
        Collector::Scan => Some("scan"),
    };
    if let Some(word) = is_nameless
        && s.has(key::IGNORE_ACCESSORS)
    {
        src.fault(
            &s.span_of(key::IGNORE_ACCESSORS),
            format!(
                "ignore_accessors has no effect with collector = {word:?}, which does not know which process uses a file"
            ),
            "take it out",
        );
    }
    let mount = read_mount(&s, src, collector);
    s.finish(src);
    let (Some(name), Some((path, span))) = (name, path) else {
        return;
    };
    for other in &parts.volumes {
        if let Some(mount) = other
            .mount
            .as_ref()
            .filter(|mount| mount.starts_with(&path) || path.starts_with(mount))
        {
            let what = format!(
                "path {} overlaps the mount {} of volume {}",
                path.display(),
                mount.display(),
                other.name
            );
            src.fault(
                &span,
                what,
                "write a directory apart from all mounts: the agent works behind them",
            );
        }
        if path.starts_with(&other.path) || other.path.starts_with(&path) {
            let what = format!("path {} overlaps that of volume {}", path.display(), other.name);
            src.fault(&span, what, "keep volumes apart: no file may belong to two");
        }
    }
    if let Some((mount, span)) = &mount {
        let others = parts.volumes.iter().map(|other| &other.path);
        if let Some(above) = others
            .chain([&path])
            .find(|path| mount.starts_with(path) || path.starts_with(mount))
        {
            let what = format!("mount {} overlaps the path {}", mount.display(), above.display());
            src.fault(
                span,
                what,
                "write a directory apart from all volumes: the agent works behind the mount",
            );
        }
    }
    parts.volumes.push(VolumeConfig {
        name,
        path,
        collector,
        mount: mount.map(|(mount, _)| mount),
        scan_interval,
        sole_client,
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
        access_times_are_complete,
        only_looks: false,
    });
}
