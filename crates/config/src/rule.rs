//! `[[rule]]` tables, checked.

use std::path::PathBuf;

use super::check::{Parts, read_name};
use super::fault::Fault;
use super::scope::read_scope;
use super::section::{Section, Source, suggest};
use purge_model::Clocks;
use purge_policy::rule::{Action, Rule, Sequence, Symlinks, Target};
use purge_policy::schedule::Schedule;

const DEFAULT_MAX_EMPTY_DIRS: u64 = 500;
const DEFAULT_MAX_ERRORS: f64 = 0.05;

pub(super) fn read_rule(mut s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
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
    let (remove_empty_dirs, spares_dirs) = match s.flag_or(src, "remove_empty_dirs", "all") {
        Some(Some(remove)) => (remove, true),
        Some(None) => (true, false),
        None => (true, true),
    };
    let keep_depth = read_keep_depth(&mut s, src, target);
    let symlinks = read_symlinks(&mut s, src, target, remove_empty_dirs);
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
    let announce_to = s.string(src, "announce_to").map(|(dir, span)| {
        if !dir.starts_with('/') {
            src.fault(
                &span,
                "announce_to is not absolute",
                "write the whole path of a directory",
            );
        }
        if announce == 0 {
            src.fault(&span, "announce_to without announce", "add: announce = \"14d\"");
        }
        PathBuf::from(dir)
    });
    let action = match s.string(src, "action") {
        Some((action, _)) if action == "notify" => Action::Notify,
        _ => Action::Delete,
    };
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
    let missed = [("skip", false), ("run", true)];
    let catches_up = s.choice(src, "schedule_missed", &missed).unwrap_or(false);
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
        spares_dirs,
        keep_depth,
        max_empty_dirs,
        symlinks,
        sequence,
        action,
        schedule,
        catches_up,
        auto_apply,
        max_files,
        max_bytes,
        max_errors,
        announce,
        announce_to,
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

fn read_keep_depth(s: &mut Section<'_, '_>, src: &mut Source<'_>, target: Target) -> u32 {
    let Some((levels, span)) = s.count(src, "keep_depth") else {
        return 0;
    };
    if matches!(target, Target::Directory { .. }) {
        src.fault(
            &span,
            "keep_depth speaks of directories that become empty, and this rule takes directories as a whole",
            "take keep_depth out; depth says which directories the rule takes",
        );
    }
    u32::try_from(levels).unwrap_or(u32::MAX)
}

/// A link keeps its directory from becoming empty, so links go where empty directories do. A directory rule takes what lies in its directories
/// with them, and by default nothing else.
fn read_symlinks(
    s: &mut Section<'_, '_>,
    src: &mut Source<'_>,
    target: Target,
    remove_empty_dirs: bool,
) -> Symlinks {
    let choices = [
        ("keep", Symlinks::Keep),
        ("with-target", Symlinks::WithTarget),
        ("expired", Symlinks::Expired),
    ];
    let by_default = match (target, remove_empty_dirs) {
        (Target::File, true) => Symlinks::WithTarget,
        _ => Symlinks::Keep,
    };
    s.choice(src, "symlinks", &choices).unwrap_or(by_default)
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
