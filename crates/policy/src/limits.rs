//! Limits of a plan: each rule's picks in the rule's order, as far as they fit.

use std::cmp::Reverse;

use super::pick::Pick;
use super::rule::numbered;
use crate::rule::{Rule, Sequence};
use purge_model::Seconds;

const DAY: u64 = 86_400;

/// Size x (whole days present + 1): what a temporal quota counts, and what `order = "byte-days"` sorts by.
pub fn byte_days(bytes: u64, birth: Seconds, now: Seconds) -> u128 {
    u128::from(bytes).saturating_mul(u128::from(birth.age_at(now) / DAY).saturating_add(1))
}

/// Puts picks into the order in which they are taken. Among equally old ones the largest comes first.
pub(super) fn sort(picks: &mut [Pick], sequence: Sequence, now: Seconds) {
    match sequence {
        Sequence::Oldest => picks.sort_unstable_by_key(|p| (p.last.at, Reverse(p.bytes), p.ino)),
        Sequence::Largest => picks.sort_unstable_by_key(|p| (Reverse(p.bytes), p.last.at, p.ino)),
        Sequence::ByteDays => {
            picks.sort_unstable_by_key(|p| (Reverse(byte_days(p.bytes, p.birth, now)), p.last.at, p.ino));
        }
    }
}

/// How many of `picks`, from the first on, fit the rule's limits. Of bytes counts what a file takes: a sparse file uses up no limit.
pub(super) fn fitting(picks: &[Pick], rule: &Rule) -> usize {
    let (mut files, mut bytes) = (0u64, 0u64);
    let fits = picks.iter().take_while(|p| {
        files = files.saturating_add(p.files.max(1).into());
        bytes = bytes.saturating_add(p.takes);
        (rule.max_files == 0 || files <= rule.max_files) && (rule.max_bytes == 0 || bytes <= rule.max_bytes)
    });
    fits.count()
}

/// Whether a rule takes some of its files only, in its order.
pub(super) fn is_limited(rule: &Rule) -> bool {
    rule.max_files > 0 || rule.max_bytes > 0
}

/// Keeps of each rule's picks, in the rule's order, those that fit its limits; returns the others.
pub(super) fn apply_limits(picks: &mut Vec<Pick>, rules: &[Rule], now: Seconds) -> Vec<Pick> {
    let mut dropped = Vec::new();
    for (number, rule) in numbered(rules).filter(|(_, r)| is_limited(r)) {
        let (mut mine, others): (Vec<Pick>, Vec<Pick>) = picks.drain(..).partition(|p| p.rule == number);
        sort(&mut mine, rule.sequence, now);
        dropped.extend(mine.split_off(fitting(&mine, rule)));
        *picks = others;
        picks.extend(mine);
    }
    dropped
}
