//! Sections -> typed configuration. Goes on after a fault, so that all of them are told at once.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::accessor::read_accessors;
use super::accounts::{group_id, user_id};
use super::fault::Fault;
use super::limit;
use super::notify::read_notify;
use super::section::{At, Section, Source, suggest};
use super::{
    AUDIT_LOG, Baseline, Config, DEFAULT_STATE_DIR, Listen, Notify, Rule, Sequence, Target, VolumeConfig,
};
use crate::model::Clocks;
use crate::policy::schedule::Schedule;
use crate::policy::scope::{Globs, Scope};

pub(super) const DEFAULT_PRECISION: u64 = 3600;
pub(super) const DEFAULT_GAP_TOLERANCE: u64 = 600;
pub(super) const DEFAULT_FLUSH_INTERVAL: u64 = 1;
pub(super) const DEFAULT_CHECKPOINT_INTERVAL: u64 = 300;
pub(super) const DEFAULT_SWEEP_INTERVAL: u64 = 7 * 86_400;
pub(super) const DEFAULT_SWEEP_RATE: u64 = 5000;
/// A longer one would lose more to a power cut, and spare little.
const FLUSH_INTERVAL_MAX: u64 = 60;
/// A rarer checkpoint would be a longer gap when the index is lost.
const CHECKPOINT_INTERVAL_MAX: u64 = 3600;
const DEFAULT_MAX_EMPTY_DIRS: u64 = 500;
const DEFAULT_MAX_ERRORS: f64 = 0.05;

/// A file's content, still to be checked against the other files.
#[derive(Default)]
struct Parts {
    state_dir: Option<PathBuf>,
    audit_log: Option<PathBuf>,
    listen: Option<Listen>,
    volumes: Vec<VolumeConfig>,
    rules: Vec<Rule>,
    faults: Vec<Fault>,
    /// Where each rule named its volume, for the check that needs all files.
    rule_places: Vec<Fault>,
    /// Where each rule without a ttl stands: only what a quota or a watermark triggers may do without.
    without_ttl: Vec<(String, Fault)>,
    limits: limit::Read,
    notify: Option<Notify>,
}

pub(super) fn load(path: &Path) -> Result<Config, Vec<Fault>> {
    let mut parts = Parts::default();
    read_file(path, true, &mut parts);
    for file in rule_files(path, &mut parts.faults) {
        read_file(&file, false, &mut parts);
    }
    check_together(path, &mut parts);
    if !parts.faults.is_empty() {
        return Err(parts.faults);
    }
    let state_dir = parts.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    Ok(Config {
        audit_log: parts.audit_log.unwrap_or_else(|| state_dir.join(AUDIT_LOG)),
        state_dir,
        listen: parts.listen.unwrap_or_else(|| Listen {
            unix: purge_proto::DEFAULT_SOCKET.into(),
            group: None,
            metrics: None,
        }),
        volumes: parts.volumes,
        rules: parts.rules,
        limits: parts.limits.limits,
        notify: parts.notify.unwrap_or_default(),
    })
}

/// `rules.d/*.toml` beside the file, in name order.
fn rule_files(path: &Path, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let dir = path.parent().unwrap_or(Path::new(".")).join("rules.d");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            faults.push(Fault::elsewhere(
                &dir.display().to_string(),
                format!("cannot be read: {e}"),
                "",
            ));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
    files.retain(|f| f.extension().is_some_and(|x| x == "toml"));
    files.sort();
    files
}

fn read_file(path: &Path, main: bool, parts: &mut Parts) {
    let file = path.display().to_string();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => {
            let mend = "give an existing file with --config; systemd/agent.toml is an example";
            parts
                .faults
                .push(Fault::elsewhere(&file, format!("cannot be read: {e}"), mend));
            return;
        }
    };
    read_text(&file, &text, main, parts);
}

fn read_text(file: &str, text: &str, main: bool, parts: &mut Parts) {
    let mut src = Source {
        file,
        text,
        faults: Vec::new(),
    };
    match DeTable::parse(text) {
        Err(e) => {
            let span = e.span().unwrap_or(0..0);
            src.fault(&span, e.message().trim().replace('\n', ", "), "");
        }
        Ok(table) => {
            let mut top = Section::new("", table.get_ref(), 0..0);
            if main {
                read_main(&mut top, &mut src, parts);
            }
            for (table, span) in top.tables(&mut src, "rule") {
                read_rule(Section::new("rule", table, span), &mut src, parts);
            }
            top.finish(&mut src);
        }
    }
    parts.faults.append(&mut src.faults);
}

fn read_main(top: &mut Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    if let Some((dir, span)) = top.string(src, "state_dir") {
        if !dir.starts_with('/') {
            src.fault(
                &span,
                "state_dir is not absolute",
                "write a path that starts with /",
            );
        }
        parts.state_dir = Some(dir.into());
    }
    if let Some((file, span)) = top.string(src, "audit_log") {
        if !file.starts_with('/') {
            src.fault(
                &span,
                "audit_log is not absolute",
                "write a path that starts with /",
            );
        }
        parts.audit_log = Some(file.into());
    }
    for (table, span) in top.tables(src, "listen") {
        parts.listen = Some(read_listen(Section::new("listen", table, span), src));
    }
    for (table, span) in top.tables(src, "volume") {
        read_volume(Section::new("volume", table, span), src, parts);
    }
    for (table, span) in top.tables(src, "quota") {
        limit::read_quota(Section::new("quota", table, span), src, &mut parts.limits);
    }
    for (table, span) in top.tables(src, "watermark") {
        limit::read_watermark(Section::new("watermark", table, span), src, &mut parts.limits);
    }
    for (table, span) in top.tables(src, "notify") {
        parts.notify = Some(read_notify(Section::new("notify", table, span), src));
    }
    top.refuse(src, "archive");
}

fn read_listen(mut s: Section<'_, '_>, src: &mut Source<'_>) -> Listen {
    let unix = s
        .string(src, "unix")
        .map_or_else(|| purge_proto::DEFAULT_SOCKET.to_owned(), |(path, _)| path);
    let group = s.string(src, "group").and_then(|(name, span)| {
        let id = group_id(&name);
        if id.is_none() {
            src.fault(
                &span,
                format!("group {name:?} is unknown"),
                "name a group of this host, or its number",
            );
        }
        id
    });
    s.refuse(src, "tcp");
    let metrics = s.string(src, "metrics").and_then(|(text, span)| {
        let address = text.parse().ok();
        if address.is_none() {
            let what = format!("metrics {text:?} is no address and port");
            src.fault(&span, what, "write such as \"127.0.0.1:9469\"");
        }
        address
    });
    s.finish(src);
    Listen {
        unix: unix.into(),
        group,
        metrics,
    }
}

/// Characters of a name: it stands in file names, commands and metrics.
pub(super) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

fn read_name(s: &mut Section<'_, '_>, src: &mut Source<'_>, taken: &[String]) -> Option<String> {
    let Some((name, span)) = s.string(src, "name") else {
        if !s.has("name") {
            src.fault(
                &s.span.clone(),
                "has no name",
                "add a line such as: name = \"scratch\"",
            );
        }
        return None;
    };
    if name.is_empty() || !name.chars().all(is_name_char) {
        src.fault(
            &span,
            format!("name {name:?} is none"),
            "use letters, digits and . _ -",
        );
        return None;
    }
    if taken.contains(&name) {
        src.fault(
            &span,
            format!("name {name:?} is given twice"),
            "give each its own",
        );
        return None;
    }
    Some(name)
}

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

fn read_volume(mut s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
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
    });
}

fn read_rule(mut s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    let before = src.faults.len();
    let taken: Vec<String> = parts.rules.iter().map(|r| r.name.clone()).collect();
    let name = read_name(&mut s, src, &taken);
    let volume = s.string(src, "volume");
    if volume.is_none() && !s.has("volume") {
        src.fault(
            &s.span.clone(),
            "the rule names no volume",
            "add a line such as: volume = \"scratch\"",
        );
    }
    let target = read_target(&mut s, src);
    let ttl = read_ttl(&mut s, src);
    let clocks = read_clocks(&mut s, src);
    let scope = read_scope(&mut s, src);
    let remove_empty_dirs = s.flag(src, "remove_empty_dirs").unwrap_or(true);
    let max_empty_dirs = s
        .count(src, "max_empty_dirs")
        .map_or(DEFAULT_MAX_EMPTY_DIRS, |(n, _)| n);
    let grace = s.duration(src, "grace").map_or(0, |(n, _)| n);
    s.refuse(src, "action");
    let announce = s.duration(src, "announce").map_or(0, |(n, _)| n);
    if announce > 0 && !s.has("ttl") {
        let mend = "give the rule a ttl, or take announce out";
        src.fault(
            &s.span_of("announce"),
            "announce without a ttl names nothing",
            mend,
        );
    }
    let tells_only = s
        .string(src, "action")
        .is_some_and(|(action, _)| action == "notify");
    let sequences = [
        ("oldest", Sequence::Oldest),
        ("largest", Sequence::Largest),
        ("byte-days", Sequence::ByteDays),
    ];
    let sequence = s.choice(src, "order", &sequences).unwrap_or(Sequence::Oldest);
    let schedule = s.string(src, "schedule").and_then(|(text, span)| {
        let parsed = Schedule::parse(&text);
        parsed
            .map_err(|e| src.fault(&span, format!("schedule {text:?} {e}"), ""))
            .ok()
    });
    let auto_apply = s.flag(src, "auto_apply").unwrap_or(false);
    if auto_apply && !s.has("schedule") {
        src.fault(
            &s.span_of("auto_apply"),
            "auto_apply without a schedule",
            "add: schedule = \"daily\"",
        );
    }
    let max_files = s.count(src, "max_files").map_or(0, |(n, _)| n);
    let max_bytes = s.size(src, "max_bytes").map_or(0, |(n, _)| n);
    let max_errors = s.share(src, "max_errors").map_or(DEFAULT_MAX_ERRORS, |(n, _)| n);
    let max_fraction = s.share(src, "max_fraction");
    if let Some((share, span)) = &max_fraction
        && *share <= 0.0
    {
        src.fault(
            span,
            "max_fraction is 0: every plan would be refused",
            "write a share such as 0.25",
        );
    }
    let without_ttl = (!s.has("ttl")).then(|| {
        let what = "the rule has no ttl, so it would select everything";
        Fault::at(src.file, src.text, &s.span, what, "add: ttl = \"28d\"")
    });
    if let Some(fault) = without_ttl {
        parts.without_ttl.push((name.clone().unwrap_or_default(), fault));
    }
    s.finish(src);
    if src.faults.len() > before {
        return;
    }
    let (Some(name), Some((volume, span)), Some(scope)) = (name, volume, scope) else {
        return;
    };
    parts
        .rule_places
        .push(Fault::at(src.file, src.text, &span, "", ""));
    parts.rules.push(Rule {
        name,
        volume,
        target,
        ttl,
        clocks,
        scope,
        remove_empty_dirs,
        max_empty_dirs,
        sequence,
        tells_only,
        schedule,
        auto_apply,
        max_files,
        max_bytes,
        max_errors,
        announce,
        grace,
        max_fraction: max_fraction.map(|(n, _)| n),
    });
}

fn read_target(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Target {
    let directory = s
        .choice(src, "target", &[("file", false), ("directory", true)])
        .unwrap_or(false);
    let depth = s.count(src, "depth");
    match (directory, depth) {
        (false, Some((_, span))) => {
            src.fault(
                &span,
                "depth has no meaning for files",
                "add: target = \"directory\", or take depth out",
            );
            Target::File
        }
        (false, None) => Target::File,
        (true, Some((0, span))) => {
            src.fault(
                &span,
                "depth 0 is the volume's root, which never goes",
                "write 1 or more",
            );
            Target::Directory { depth: 1 }
        }
        (true, depth) => Target::Directory {
            depth: depth.map_or(1, |(n, _)| u32::try_from(n).unwrap_or(u32::MAX)),
        },
    }
}

fn read_ttl(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<u64> {
    let ttl = s.duration(src, "ttl");
    if let Some((0, span)) = &ttl {
        src.fault(
            span,
            "ttl is 0: everything would go",
            "write a time such as \"28d\"",
        );
    }
    ttl.map(|(n, _)| n)
}

fn read_clocks(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Clocks {
    let Some((names, span)) = s.strings(src, "clock") else {
        return Clocks::ALL;
    };
    let mut clocks = Clocks {
        access: false,
        modify: false,
        change: false,
        birth: false,
    };
    if names.is_empty() {
        src.fault(
            &span,
            "clock is empty: everything would be expired",
            "leave it out, or name a clock",
        );
    }
    for (name, span) in names {
        match name.as_str() {
            "access" => clocks.access = true,
            "modify" => clocks.modify = true,
            "change" => clocks.change = true,
            "birth" => clocks.birth = true,
            _ => {
                let mend = suggest(&name, &["access", "modify", "change", "birth"]);
                src.fault(&span, format!("clock {name:?} is unknown"), mend);
            }
        }
    }
    clocks
}

fn read_scope(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Scope> {
    let include = match s.strings(src, "include") {
        None => Some(Scope::all().include),
        Some((patterns, span)) if patterns.is_empty() => {
            src.fault(
                &span,
                "include is empty",
                "leave it out for everything, or name a glob",
            );
            None
        }
        Some(patterns) => compile(src, "include", patterns),
    };
    let exclude = match s.strings(src, "exclude") {
        Some(patterns) if !patterns.0.is_empty() => Some(compile(src, "exclude", patterns)?),
        _ => None,
    };
    let users = read_ids(s, src, "users", user_id, true);
    let groups = read_ids(s, src, "groups", group_id, true);
    let exclude_users = read_ids(s, src, "exclude_users", user_id, false).unwrap_or_default();
    let exclude_groups = read_ids(s, src, "exclude_groups", group_id, false).unwrap_or_default();
    let min_size = s.size(src, "min_size").map_or(0, |(n, _)| n);
    let max_size = s.size(src, "max_size").map_or(u64::MAX, |(n, _)| n);
    if min_size > max_size {
        src.fault(
            &s.span_of("min_size"),
            "min_size is more than max_size: nothing is in scope",
            "exchange them",
        );
    }
    Some(Scope {
        include: include?,
        exclude,
        users,
        groups,
        exclude_users,
        exclude_groups,
        min_size,
        max_size,
    })
}

fn compile(src: &mut Source<'_>, key: &str, (patterns, list): At<Vec<At<String>>>) -> Option<Globs> {
    // One by one first, so that the fault stands at the pattern.
    let mut good = true;
    for (pattern, span) in &patterns {
        if let Err(e) = Globs::compile(std::slice::from_ref(pattern)) {
            src.fault(span, format!("{key}: {e}"), "");
            good = false;
        }
    }
    let all: Vec<String> = patterns.into_iter().map(|(p, _)| p).collect();
    if !good {
        return None;
    }
    Globs::compile(&all)
        .map_err(|e| src.fault(&list, format!("{key}: {e}"), ""))
        .ok()
}

fn read_ids(
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static str,
    id_of: impl Fn(&str) -> Option<u32>,
    selects: bool,
) -> Option<Vec<u32>> {
    let (names, span): At<Vec<At<String>>> = s.strings(src, key)?;
    if names.is_empty() && selects {
        src.fault(
            &span,
            format!("{key} is empty"),
            "leave it out for everybody, or name somebody",
        );
    }
    let mut ids = Vec::new();
    for (name, span) in names {
        match id_of(&name) {
            Some(id) => ids.push(id),
            None => unknown_account(src, key, &name, &span),
        }
    }
    Some(ids)
}

pub(super) fn unknown_account(src: &mut Source<'_>, key: &str, name: &str, span: &Range<usize>) {
    let what = format!("{key}: {name:?} is unknown on this host");
    src.fault(span, what, "correct the name, or write its number in quotes");
}

/// What only all files together show.
fn check_together(path: &Path, parts: &mut Parts) {
    let file = path.display().to_string();
    if parts.volumes.is_empty() && parts.faults.is_empty() {
        let mend = "add a [[volume]] table with name and path";
        parts
            .faults
            .push(Fault::elsewhere(&file, "there is no volume", mend));
    }
    for (rule, fault) in std::mem::take(&mut parts.without_ttl) {
        if !limit::triggers(&parts.limits, &rule) {
            parts.faults.push(fault);
        }
    }
    parts
        .faults
        .extend(limit::check_together(&parts.limits, &parts.volumes, &parts.rules));
    let known: Vec<&str> = parts.volumes.iter().map(|v| v.name.as_str()).collect();
    for (rule, place) in parts.rules.iter().zip(&parts.rule_places) {
        let root = parts
            .volumes
            .iter()
            .find(|v| v.name == rule.volume)
            .map(|v| v.path.display().to_string());
        let patterns = rule.scope.include.patterns().iter();
        let patterns = patterns.chain(rule.scope.exclude.iter().flat_map(Globs::patterns));
        for pattern in patterns.filter(|p| root.as_ref().is_some_and(|root| p.starts_with(root.as_str()))) {
            let what = format!(
                "rule {}: pattern {pattern:?} starts with the volume's own path, so it matches nothing",
                rule.name
            );
            let mend = "write it relative to the volume, such as \"/keep/**\"".into();
            parts.faults.push(Fault {
                what,
                mend,
                ..place.clone()
            });
        }
        if !known.contains(&rule.volume.as_str()) {
            let what = format!(
                "rule {} names volume {:?}, which there is not",
                rule.name, rule.volume
            );
            parts.faults.push(Fault {
                what,
                mend: suggest(&rule.volume, &known),
                ..place.clone()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const VOLUME: &str = "[[volume]]\nname = \"s\"\npath = \"/export/s\"\n";

    fn parse(text: &str) -> Result<Config, Vec<Fault>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        fs::write(&file, text).unwrap();
        Config::load(&file)
    }

    fn faults(text: &str) -> Vec<String> {
        parse(text)
            .unwrap_err()
            .into_iter()
            .map(|f| f.to_string())
            .collect()
    }

    #[test]
    fn a_small_configuration_has_the_documented_defaults() {
        let text = format!("{VOLUME}[[rule]]\nname = \"r\"\nvolume = \"s\"\nttl = \"28d\"\n");
        let config = parse(&text).unwrap();
        assert_eq!(config.state_dir, Path::new("/var/lib/purge-agent"));
        assert_eq!(config.listen.unix, Path::new("/run/purge-agent/agent.sock"));
        let rule = &config.rules[0];
        assert_eq!(
            (rule.ttl, rule.target, rule.clocks),
            (Some(28 * 86_400), Target::File, Clocks::ALL)
        );
        assert!(rule.remove_empty_dirs && !rule.auto_apply && !rule.scope.needs_path());
        assert_eq!((rule.max_empty_dirs, rule.max_fraction), (500, None));
    }

    #[test]
    fn every_fault_says_where_and_how_to_mend_it() {
        let rule = |lines: &str| format!("{VOLUME}[[rule]]\nname = \"r\"\nvolume = \"s\"\n{lines}\n");
        let cases = [
            (
                "state_dri = \"/x\"\n".to_owned() + VOLUME,
                ":1:1: unknown key \"state_dri\"; did you mean \"state_dir\"?",
            ),
            (
                rule("ttl = \"28d\"\nttll = \"3d\""),
                ":8:1: unknown key \"ttll\" in [rule]; did you mean \"ttl\"?",
            ),
            (
                rule(""),
                ":4:1: the rule has no ttl, so it would select everything; add: ttl = \"28d\"",
            ),
            (rule("ttl = \"0s\""), ":7:7: ttl is 0"),
            (rule("ttl = \"28\""), ":7:7: ttl \"28\" has no known unit"),
            (rule("ttl = 28"), ":7:7: ttl is integer, not a string"),
            (rule("ttl = \"1d\"\ninclude = []"), ":8:11: include is empty"),
            (
                rule("ttl = \"1d\"\ninclude = [\"\"]"),
                ":8:12: include: pattern \"\" is empty",
            ),
            (rule("ttl = \"1d\"\nexclude = [\"!x\"]"), "starts with `!`"),
            (rule("ttl = \"1d\"\nusers = []"), ":8:9: users is empty"),
            (
                rule("ttl = \"1d\"\nusers = [\"no-such-user\"]"),
                "is unknown on this host",
            ),
            (rule("ttl = \"1d\"\nclock = []"), "clock is empty"),
            (
                rule("ttl = \"1d\"\nclock = [\"acces\"]"),
                "did you mean \"access\"?",
            ),
            (rule("ttl = \"1d\"\ndepth = 2"), "depth has no meaning for files"),
            (
                rule("ttl = \"1d\"\ntarget = \"directory\"\ndepth = 0"),
                "never goes",
            ),
            (rule("ttl = \"1d\"\nschedule = \"dayly\""), "is no schedule"),
            (
                rule("ttl = \"1d\"\nauto_apply = true"),
                "auto_apply without a schedule",
            ),
            (
                rule("ttl = \"1d\"\nmax_fraction = 0"),
                "every plan would be refused",
            ),
            (rule("ttl = \"1d\"\nmax_errors = 1.5"), "is no share"),
            (
                rule("ttl = \"1d\"\nmin_size = \"2GB\"\nmax_size = \"1GB\""),
                "min_size is more than max_size",
            ),
            (
                rule("ttl = \"1d\"\naction = \"archive\""),
                "action is not supported by this version",
            ),
            (
                rule("ttl = \"1d\"\nexclude = [\"/export/s/keep\"]"),
                "starts with the volume's own path",
            ),
            (
                format!("{VOLUME}collector = \"fuse\"\n"),
                "collector is not supported",
            ),
            (
                format!("{VOLUME}[[quota]]\nname = \"q\"\nvolume = \"s\"\nsubject = \"user\"\n"),
                ":4:1: the quota limits nothing",
            ),
            (
                format!(
                    "{VOLUME}[[quota]]\nname = \"q\"\nvolume = \"s\"\nsubject = \"projet\"\nhard = \"1B\"\n"
                ),
                "project",
            ),
            (
                format!(
                    "{VOLUME}[[watermark]]\nvolume = \"s\"\nrule = \"r\"\nhigh = \"70%\"\nlow = \"75%\"\n"
                ),
                ":8:7: low is not below high",
            ),
            (
                format!(
                    "{VOLUME}[[watermark]]\nvolume = \"s\"\nrule = \"r\"\nhigh = \"90%\"\nlow = \"75%\"\n"
                ),
                "names rule \"r\", which volume s has not",
            ),
            (format!("{VOLUME}{VOLUME}"), "is given twice"),
            (
                format!("{VOLUME}[[volume]]\nname = \"t\"\npath = \"/export/s/t\"\n"),
                "overlaps that of volume s",
            ),
            (
                format!("{VOLUME}[[rule]]\nname = \"r\"\nvolume = \"ss\"\nttl = \"1d\"\n"),
                "did you mean \"s\"?",
            ),
            (
                "[[volume]]\nname = \"s\"\npath = \"/\"\n".into(),
                ":3:8: path \"/\" is the whole system",
            ),
            (
                "[[volume]]\nname = \"s\"\npath = \"\"\n".into(),
                "path \"\" is empty",
            ),
            (
                "[[volume]]\nname = \"s\"\npath = \"a/b\"\n".into(),
                "is not absolute",
            ),
            (
                "[[volume]]\nname = \"s\"\npath = \"/a/../b\"\n".into(),
                "is not normalised",
            ),
            (
                "[[volume]]\nname = \"a b\"\npath = \"/a\"\n".into(),
                "use letters, digits",
            ),
            (String::new(), "there is no volume"),
            ("x = [".into(), ":1:"),
        ];
        for (text, expected) in cases {
            let found = faults(&text);
            assert!(
                found.iter().any(|f| f.contains(expected)),
                "{text}\nexpected {expected}\nfound {found:#?}"
            );
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        assert_eq!(
            faults("a = 1\nb = 2\n[[volume]]\nname = \"\"\npath = \"x\"\n").len(),
            4
        );
    }

    #[test]
    fn rules_lie_in_drop_ins_too_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        fs::write(&file, VOLUME).unwrap();
        fs::create_dir(dir.path().join("rules.d")).unwrap();
        fs::write(
            dir.path().join("rules.d/b.toml"),
            "[[rule]]\nname=\"b\"\nvolume=\"s\"\nttl=\"1d\"\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("rules.d/a.toml"),
            "[[rule]]\nname=\"a\"\nvolume=\"s\"\nttl=\"1d\"\n",
        )
        .unwrap();
        fs::write(dir.path().join("rules.d/c.txt"), "no toml").unwrap();
        let names: Vec<_> = Config::load(&file)
            .unwrap()
            .rules
            .into_iter()
            .map(|r| r.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        fs::write(dir.path().join("rules.d/d.toml"), "state_dir = \"/x\"\n").unwrap();
        assert!(
            Config::load(&file).unwrap_err()[0]
                .to_string()
                .contains("d.toml:1:1: unknown key")
        );
    }

    #[test]
    fn the_example_is_right() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/agent.toml");
        match Config::load(&file) {
            Ok(config) => assert!(!config.rules.is_empty()),
            Err(faults) => panic!("{faults:#?}"),
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(lines in prop::collection::vec("(\\[\\[(volume|rule)\\]\\]|(name|path|ttl|depth|clock|max_bytes|include|max_fraction) = (\"[a-z0-9/*!\\[{. ]{0,8}\"|-?[0-9]{1,22}|[0-9.e]{1,6}|\\[\\]|true|\\{\\}))", 0..12)) {
            let _ = parse(&lines.join("\n"));
        }
    }
}
