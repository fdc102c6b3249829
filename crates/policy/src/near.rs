//! Why a rule takes nothing, and what lies near. Pure.
//!
//! A directory rule of a wrong `depth` and a rule of a mistyped path look alike: nothing goes. What the rule speaks of, and where most directories
//! lie, tells them apart.

use super::circumstances::Circumstances;
use super::evaluation::Evaluation;
use super::files::{Counting, FilePass};
use super::kept::Kept;
use super::nothing::Nothing;
use super::rule::numbered;
use super::tables::Tables;
use crate::rule::{Rule, Target};
use purge_index::{Index, StoreError};

/// At most this number of file rules is asked again why it takes nothing, and each for this number of files: the index is held meanwhile.
const ASKED_AGAIN_MAX: usize = 8;
const FILES_LOOKED_AT: u64 = 1 << 15;
/// In an index with more directories it is not told what lies near a rule that takes nothing.
const DIRECTORIES_MAX: usize = 1 << 18;

/// How many directories lie at each depth, from depth 1 on: those whose path the rule's `include` has.
pub(super) fn depths(index: &Index, rule: &Rule) -> Vec<u64> {
    let mut all: Vec<u64> = Vec::new();
    let dirs = index.dirs();
    if dirs.table_len() > DIRECTORIES_MAX {
        return all;
    }
    let levels = dirs.inherit(0u32, |_, _, level: u32| level.saturating_add(1));
    for (place, level) in levels.into_iter().enumerate() {
        let id = purge_index::DirId(u32::try_from(place).unwrap_or(u32::MAX));
        let Some(place) = level.checked_sub(1).filter(|_| dirs.get(id).is_some()) else {
            continue;
        };
        let has_all = rule.scope.has_all_paths();
        if has_all
            || dirs
                .path(id)
                .is_some_and(|path| rule.scope.is_included(&path, true))
        {
            let place = place as usize;
            if all.len() <= place {
                all.resize(place.saturating_add(1), 0);
            }
            if let Some(count) = all.get_mut(place) {
                *count = count.saturating_add(1);
            }
        }
    }
    all
}

/// The depth at which most directories lie, if more lie there than `own`; among equals the one nearest to the rule's.
pub(super) fn nearest(depths: &[u64], depth: u32, own: u64) -> Option<(u32, u64)> {
    let all = (1u32..).zip(depths.iter().copied());
    let others = all.filter(|(at, n)| *at != depth && *n > own);
    others.max_by_key(|(at, n)| (*n, std::cmp::Reverse(at.abs_diff(depth))))
}

/// Asks the file rules that take nothing why that is so.
pub(super) fn ask_again(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    (tables, taken, taken_by): (&Tables, &[bool], &[u16]),
    out: &mut Evaluation,
) -> Result<(), StoreError> {
    let is_silent =
        |number: u16| !out.took.contains(&number) && !out.gone_with.keys().any(|(rule, _)| *rule == number);
    let silent = numbered(rules).filter(|(_, rule)| rule.target == Target::File);
    let silent: Vec<(u16, &Rule)> = silent
        .filter(|(n, _)| is_silent(*n))
        .take(ASKED_AGAIN_MAX)
        .collect();
    let stride = out.index_files.div_ceil(FILES_LOOKED_AT).max(1);
    for (number, rule) in silent {
        let Some(ttl) = rule.ttl else { continue };
        let counting = Counting {
            stays: None,
            young_from: None,
            taken_by,
        };
        let pass = FilePass::new(index, std::slice::from_ref(rule), at, tables, taken);
        let (mut kept, mut there) = (Kept::default(), 0u64);
        for part in pass.counting(counting).looking_at_all(stride).run()? {
            kept.add(&part.kept);
            there = there.saturating_add(part.examined);
        }
        kept.young = there.saturating_sub(kept.all());
        let nothing = Nothing {
            depth: None,
            ttl,
            there,
            in_scope: there.saturating_sub(kept.out_of_scope),
            is_sample: stride > 1,
            kept,
            near: None,
        };
        out.nothing.push((number, nothing));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::Stays;

    #[test]
    fn a_wrong_depth_is_told_with_what_lies_near() {
        let mut nothing = Nothing {
            depth: Some(2),
            ttl: 14 * 86_400,
            near: nearest(&[4, 0, 1480], 2, 0),
            ..Nothing::default()
        };
        assert_eq!(
            nothing.in_words(),
            "scope matches 0 directories at depth 2; 1,480 lie at depth 3"
        );
        for why in [Stays::Young, Stays::Young, Stays::Held, Stays::OutOfScope] {
            nothing.count(why);
        }
        assert_eq!(
            nothing.in_words(),
            "scope matches 3 directories at depth 2: 2 used within 14d, 1 held; 1,480 lie at depth 3"
        );
        assert_eq!(nearest(&[4, 12, 1], 2, 12), None);
        assert_eq!(nearest(&[5, 0, 5], 1, 0), Some((3, 5)));
        assert_eq!(nearest(&[5, 0, 5, 0], 2, 0).map(|(_, n)| n), Some(5));
    }

    #[test]
    fn a_file_rule_says_what_is_in_its_scope() {
        let mut nothing = Nothing {
            ttl: 3600,
            there: 20_000,
            ..Nothing::default()
        };
        assert_eq!(nothing.in_words(), "scope matches 0 of 20,000 files");
        nothing.in_scope = 1;
        nothing.kept.young = 1;
        assert_eq!(nothing.in_words(), "scope matches 1 file: 1 used within 1h");
    }
}
