//! What a rule looks at: globs, owners, sizes.

use std::ops::Range;

use super::keys::Key;
use super::keys::rule as key;
use super::section::{At, Section, Source};
use purge_base::accounts::{Unclear, group_ids, is_number, user_ids};
use purge_policy::scope::{Called, Globs, Scope};

pub(super) fn read_scope(s: &Section<'_, '_>, src: &mut Source<'_>) -> Option<Scope> {
    let include = match s.strings(src, key::INCLUDE) {
        None => None,
        Some((patterns, span)) if patterns.is_empty() => {
            src.fault(
                &span,
                "include is empty",
                "leave it out for everything, or name a glob",
            );
            None
        }
        Some(patterns) => compile(src, key::INCLUDE, Globs::compile, patterns),
    };
    let exclude = match s.strings(src, key::EXCLUDE) {
        Some(patterns) if !patterns.0.is_empty() => {
            Some(compile(src, key::EXCLUDE, Globs::compile_exclude, patterns)?)
        }
        _ => None,
    };
    let (users, called_users) = read_accounts(s, src, (key::USERS, user_ids), true);
    let (groups, called_groups) = read_accounts(s, src, (key::GROUPS, group_ids), true);
    let (exclude_users, called_exclude_users) = read_accounts(s, src, (key::EXCLUDE_USERS, user_ids), false);
    let (exclude_groups, called_exclude_groups) =
        read_accounts(s, src, (key::EXCLUDE_GROUPS, group_ids), false);
    let min_size = s.size(src, key::MIN_SIZE).map_or(0, |(n, _)| n);
    let max_size = s.size(src, key::MAX_SIZE).map_or(u64::MAX, |(n, _)| n);
    if min_size > max_size {
        src.fault(
            &s.span_of(key::MIN_SIZE),
            "min_size is more than max_size: nothing is in scope",
            "exchange them",
        );
    }
    Some(Scope {
        include: include?,
        exclude,
        users,
        groups,
        exclude_users: exclude_users.unwrap_or_default(),
        exclude_groups: exclude_groups.unwrap_or_default(),
        called: Called {
            users: called_users,
            groups: called_groups,
            exclude_users: called_exclude_users,
            exclude_groups: called_exclude_groups,
        },
        min_size,
        max_size,
    })
}

fn compile<E: std::fmt::Display>(
    src: &mut Source<'_>,
    key: &Key,
    compile: fn(&[String]) -> Result<Globs, E>,
    (patterns, list): At<Vec<At<String>>>,
) -> Option<Globs> {
    // One by one first, so that the fault stands at the pattern.
    let mut good = true;
    for (pattern, span) in &patterns {
        if let Err(e) = compile(std::slice::from_ref(pattern)) {
            src.fault(span, format!("{}: {e}", key.name), "");
            good = false;
        }
    }
    let all: Vec<String> = patterns.into_iter().map(|(p, _)| p).collect();
    if !good {
        return None;
    }
    compile(&all)
        .map_err(|e| src.fault(&list, format!("{}: {e}", key.name), ""))
        .ok()
}

/// Finds the ids of an account.
type IdsOf = fn(&str) -> Result<Vec<u32>, Unclear>;

/// The words of a list that names accounts, and what each leads to.
fn read_words<T>(
    s: &Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static Key,
    find: impl Fn(&str) -> Result<T, Unclear>,
    selects: bool,
) -> Option<Vec<(String, T)>> {
    let (words, span): At<Vec<At<String>>> = s.strings(src, key)?;
    if words.is_empty() && selects {
        src.fault(
            &span,
            format!("{} is empty", key.name),
            "leave it out for all accounts, or name one",
        );
    }
    let mut found = Vec::new();
    for (word, span) in words {
        match find(&word) {
            Ok(ids) => found.push((word, ids)),
            Err(why) => unclear_account(src, key, &word, &span, &why),
        }
    }
    Some(found)
}

/// The ids of a list, and those of its words that are names.
fn read_accounts(
    s: &Section<'_, '_>,
    src: &mut Source<'_>,
    (key, ids_of): (&'static Key, IdsOf),
    selects: bool,
) -> (Option<Vec<u32>>, Vec<String>) {
    let Some(found) = read_words(s, src, key, ids_of, selects) else {
        return (None, Vec::new());
    };
    let (mut all, mut names) = (Vec::new(), Vec::new());
    for (word, ids) in found {
        all.extend(ids);
        if !is_number(&word) {
            names.push(word);
        }
    }
    (Some(all), names)
}

/// The ids of a list that gives a role: of each name the one id that the host gives for it.
pub(super) fn read_ids(
    s: &Section<'_, '_>,
    src: &mut Source<'_>,
    (key, ids_of): (&'static Key, IdsOf),
) -> Vec<u32> {
    let found = read_words(s, src, key, ids_of, false).unwrap_or_default();
    found.iter().filter_map(|(_, ids)| ids.first().copied()).collect()
}

pub(super) fn unclear_account(
    src: &mut Source<'_>,
    key: &Key,
    word: &str,
    span: &Range<usize>,
    why: &Unclear,
) {
    let key = key.name;
    let (what, cure) = match why {
        Unclear::Unknown => (
            format!("{key}: {word:?} is unknown on this host"),
            "correct the name, or write its number in quotes".into(),
        ),
        Unclear::NameOfAnother(id) => (
            format!("{key}: {word:?} is a number, and also the name of an account with the number {id}"),
            format!("write \"+{word}\" for the number, or \"+{id}\" for the account of that name"),
        ),
    };
    src.fault(span, what, cure);
}
