//! `[[rule]]` tables, checked.

use std::path::PathBuf;

use super::archive::read_destination;
use super::fault::Fault;
use super::keys::rule as key;
use super::mentions::{Mention, Mentions, RuleNamed, place};
use super::names::{check_absolute, read_name};
use super::parts::Parts;
use super::scope::read_scope;
use super::section::{At, Section, Source, suggest, value};
use purge_model::Clocks;
use purge_policy::rule::{Action, Destination, Rule, Sequence, Symlinks, Target};
use purge_policy::schedule::Schedule;

/// Reads a table, and adds the rule if it has no fault.
pub(super) fn read_rule(s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    let before = src.faults.len();
    let taken: Vec<String> = parts
        .mentions
        .rules
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    let name = read_name(&s, src, key::NAME, &taken);
    let volume = s.needed(src, key::VOLUME);
    note_names((&s, name.as_ref()), volume.as_ref(), src, &mut parts.mentions);
    note_missing_ttl(&s, src, parts, name.as_deref());

    let target = read_target(&s, src);
    let ttl = read_ttl(&s, src);
    let clocks = read_clocks(&s, src);
    let scope = read_scope(&s, src);
    let dirs = read_dirs(&s, src, target);
    let symlinks = s.choice(src, key::SYMLINKS, &SYMLINKS);
    let action = read_action(&s, src);
    let action = read_destination(&s, src, (action, target));
    let (announce, announce_to) = read_announcement(&s, src);
    let grace = value(s.duration(src, key::GRACE));
    let timing = read_timing(&s, src);
    let limits = read_limits(&s, src);
    let sequence = s.choice(src, key::ORDER, &SEQUENCES);
    s.finish(src);

    let (Some(name), Some((volume, span)), Some(scope), Some(symlinks), Some(sequence)) =
        (name, volume, scope, symlinks, sequence)
    else {
        return;
    };
    if src.faults.len() > before {
        return;
    }
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
        remove_empty_dirs: dirs.remove_empty,
        spares_dirs: dirs.spares,
        keep_depth: dirs.keep_depth,
        max_empty_dirs: dirs.max_empty,
        symlinks,
        sequence,
        action,
        schedule: timing.schedule,
        catches_up: timing.catches_up,
        auto_apply: timing.auto_apply,
        max_files: limits.files,
        max_bytes: limits.bytes,
        max_errors: limits.errors,
        announce,
        announce_to,
        grace,
        max_fraction: limits.fraction,
    });
}

const SYMLINKS: [(&str, Symlinks); 3] = [
    ("keep", Symlinks::Keep),
    ("with-target", Symlinks::WithTarget),
    ("expired", Symlinks::Expired),
];
const SEQUENCES: [(&str, Sequence); 3] = [
    ("oldest", Sequence::Oldest),
    ("largest", Sequence::Largest),
    ("byte-days", Sequence::ByteDays),
];
const TARGETS: [(&str, Target); 2] = [
    ("file", Target::File),
    ("directory", Target::Directory { depth: 1 }),
];

/// Whether its volume is there shows only when all files are read.
fn note_names(
    (s, name): (&Section<'_, '_>, Option<&String>),
    volume: Option<&At<String>>,
    src: &Source<'_>,
    mentions: &mut Mentions,
) {
    match name {
        Some(name) => mentions
            .rules
            .push((name.clone(), volume.map(|(volume, _)| volume.clone()))),
        // A name that is given twice is known from the first.
        None => mentions.nameless_rule |= s.peek(key::NAME).is_none(),
    }
    let who = name.map_or("a rule".into(), |name| format!("rule {name}"));
    let of = volume.map(|(volume, span)| (volume.clone(), place(src, span)));
    mentions.all.push(Mention::new(who, of, RuleNamed::None));
}

/// Whether a rule may do without a ttl shows only when all files are read.
fn note_missing_ttl(s: &Section<'_, '_>, src: &Source<'_>, parts: &mut Parts, name: Option<&str>) {
    if !s.has(key::TTL) {
        let what = "the rule has no ttl, so it would select everything";
        let fault = Fault::at(src.file, src.text, &s.span, what, "add: ttl = \"28d\"");
        parts
            .without_ttl
            .push((name.unwrap_or_default().to_owned(), fault));
    }
}

fn read_target(s: &Section<'_, '_>, src: &mut Source<'_>) -> Target {
    let target = s.choice(src, key::TARGET, &TARGETS).unwrap_or(Target::File);
    let depth = s.count(src, key::DEPTH);
    match (target, depth) {
        (Target::File, Some((_, span))) => {
            src.fault(
                &span,
                "depth has no meaning for files",
                "add: target = \"directory\", or take depth out",
            );
            Target::File
        }
        (Target::Directory { .. }, Some((0, span))) => {
            src.fault(
                &span,
                "depth 0 is the volume's root, which never goes",
                "write 1 or more",
            );
            target
        }
        (Target::Directory { .. }, Some((n, _))) => Target::Directory {
            depth: u32::try_from(n).unwrap_or(u32::MAX),
        },
        (target, None) => target,
    }
}

fn read_ttl(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<u64> {
    let ttl = s.duration(src, key::TTL);
    if let Some((0, span)) = &ttl {
        src.fault(
            span,
            "ttl is 0: everything would go",
            "write a time such as \"28d\"",
        );
    }
    ttl.map(|(n, _)| n)
}

fn read_clocks(s: &Section<'_, '_>, src: &mut Source<'_>) -> Clocks {
    let (names, span) = s.strings(src, key::CLOCK).unwrap_or_default();
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

/// What becomes of directories that are empty.
struct Dirs {
    remove_empty: bool,
    spares: bool,
    keep_depth: u32,
    max_empty: u64,
}

fn read_dirs(s: &Section<'_, '_>, src: &mut Source<'_>, target: Target) -> Dirs {
    let (remove_empty, spares) = match s.flag_or(src, key::REMOVE_EMPTY_DIRS) {
        Some(Some(remove)) => (remove, true),
        Some(None) => (true, false),
        None => (true, true),
    };
    if s.has(key::KEEP_DEPTH) && matches!(target, Target::Directory { .. }) {
        src.fault(
            &s.span_of(key::KEEP_DEPTH),
            "keep_depth speaks of directories that become empty, and this rule takes directories as a whole",
            "take keep_depth out; depth says which directories the rule takes",
        );
    }
    Dirs {
        remove_empty,
        spares,
        keep_depth: u32::try_from(value(s.count(src, key::KEEP_DEPTH))).unwrap_or(u32::MAX),
        max_empty: value(s.count(src, key::MAX_EMPTY_DIRS)),
    }
}

fn read_action(s: &Section<'_, '_>, src: &mut Source<'_>) -> Action {
    #[derive(Clone, Copy)]
    enum Named {
        Delete,
        Notify,
        Archive,
    }
    let actions = [
        ("delete", Named::Delete),
        ("notify", Named::Notify),
        ("archive", Named::Archive),
    ];
    match s.choice(src, key::ACTION, &actions) {
        Some(Named::Delete) | None => Action::Delete,
        Some(Named::Notify) => Action::Notify,
        Some(Named::Archive) => Action::Archive(Destination::default()),
    }
}

fn read_announcement(s: &Section<'_, '_>, src: &mut Source<'_>) -> (u64, Option<PathBuf>) {
    let announce = value(s.duration(src, key::ANNOUNCE));
    if announce > 0 && !s.has(key::TTL) {
        src.fault(
            &s.span_of(key::ANNOUNCE),
            "announce without a ttl names nothing",
            "give the rule a ttl, or take announce out",
        );
    }
    let announce_to = s.string(src, key::ANNOUNCE_TO).map(|(dir, span)| {
        check_absolute(src, key::ANNOUNCE_TO, &dir, &span);
        if announce == 0 {
            src.fault(&span, "announce_to without announce", "add: announce = \"14d\"");
        }
        PathBuf::from(dir)
    });
    (announce, announce_to)
}

/// When plans are made, and applied.
struct Timing {
    schedule: Option<Schedule>,
    catches_up: bool,
    auto_apply: bool,
}

fn read_timing(s: &Section<'_, '_>, src: &mut Source<'_>) -> Timing {
    let schedule = s.string(src, key::SCHEDULE).and_then(|(text, span)| {
        let parsed = Schedule::parse(&text);
        parsed
            .map_err(|e| src.fault(&span, format!("schedule {text:?} {e}"), ""))
            .ok()
    });
    let missed = [("skip", false), ("run", true)];
    let catches_up = s.choice(src, key::SCHEDULE_MISSED, &missed).unwrap_or(false);
    let auto_apply = s.flag(src, key::AUTO_APPLY).unwrap_or(false);
    if auto_apply && !s.has(key::SCHEDULE) {
        src.fault(
            &s.span_of(key::AUTO_APPLY),
            "auto_apply without a schedule",
            "add: schedule = \"daily\"",
        );
    }
    Timing {
        schedule,
        catches_up,
        auto_apply,
    }
}

/// How much a plan may take.
struct Limits {
    files: u64,
    bytes: u64,
    errors: f64,
    fraction: Option<f64>,
}

fn read_limits(s: &Section<'_, '_>, src: &mut Source<'_>) -> Limits {
    let limits = Limits {
        files: value(s.count(src, key::MAX_FILES)),
        bytes: value(s.size(src, key::MAX_BYTES)),
        errors: value(s.share(src, key::MAX_ERRORS)),
        fraction: s.share(src, key::MAX_FRACTION).map(|(n, _)| n),
    };
    if limits.fraction.is_some_and(|share| share <= 0.0) {
        src.fault(
            &s.span_of(key::MAX_FRACTION),
            "max_fraction is 0: every plan would be refused",
            "write a share such as 0.25",
        );
    }
    limits
}
