//! Limits of a plan: each rule's picks, the oldest first.

use super::evaluate::{Pick, numbered};
use crate::config::Rule;

/// Keeps of each rule's picks the oldest that fit its limits; returns the others.
pub(super) fn apply_limits(picks: &mut Vec<Pick>, rules: &[Rule]) -> Vec<Pick> {
    let mut dropped = Vec::new();
    for (number, rule) in numbered(rules).filter(|(_, r)| r.max_files > 0 || r.max_bytes > 0) {
        let (mut mine, others): (Vec<Pick>, Vec<Pick>) = picks.drain(..).partition(|p| p.rule == number);
        mine.sort_unstable_by_key(|p| (p.last.at, p.ino));
        let (mut files, mut bytes) = (0u64, 0u64);
        let fits = mine
            .iter()
            .take_while(|p| {
                files = files.saturating_add(p.files.max(1).into());
                bytes = bytes.saturating_add(p.bytes);
                (rule.max_files == 0 || files <= rule.max_files)
                    && (rule.max_bytes == 0 || bytes <= rule.max_bytes)
            })
            .count();
        dropped.extend(mine.split_off(fits));
        *picks = others;
        picks.extend(mine);
    }
    dropped
}
