//! What a rule looks at: globs, owners, sizes.

use std::ops::Range;

use super::accounts::{group_id, user_id};
use super::section::{At, Section, Source};
use crate::policy::scope::{Globs, Scope};

pub(super) fn read_scope(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Option<Scope> {
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

pub(super) fn read_ids(
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
