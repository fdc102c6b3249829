//! A volume over its watermark, and which of its files would go. Pure.
//!
//! What may go at all is `needed::eligible`. Of that, files are taken in the rule's order until enough is free.

use super::circumstances::Circumstances;
use super::evaluate::evaluate;
use super::evaluation::Evaluation;
use super::limits::sort;
use super::needed::{Need, Reason, Triggered, choose, eligible, settle};
use super::pick::{Pick, Shape};
use crate::rule::Rule;
use purge_index::{Index, StoreError};
use purge_model::Seconds;

/// What a volume over its watermark would lose: `need` is (bytes, files). Of each file counts what it takes on disk.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn watermark(
    index: &Index,
    (rule, min_age): (&Rule, u64),
    need: Need,
    because: String,
    at: &Circumstances,
) -> Result<Triggered, StoreError> {
    let (evaluation, picks) = may_go(index, (rule, min_age), at)?;
    let gain = |p: &Pick| {
        let entry = index.get(p.ino);
        let frees = entry.map_or(0, |(entry, _)| entry.allocated);
        (u128::from(frees), u128::from(p.files))
    };
    let chosen = choose(picks, need, gain);
    Ok(settled(index, evaluation, chosen, rule, (because, at.now)))
}

/// What may go at all of a volume over its watermark, in the order in which it would.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn may_go(
    index: &Index,
    (rule, min_age): (&Rule, u64),
    at: &Circumstances,
) -> Result<(Evaluation, Vec<Pick>), StoreError> {
    let mut evaluation = evaluate(index, &[eligible(rule, min_age)], at)?;
    let mut picks = std::mem::take(&mut evaluation.picks);
    picks.retain(|p| p.shape == Shape::File);
    sort(&mut picks, rule.sequence, at.now);
    Ok((evaluation, picks))
}

/// The plan of a watermark, of what was chosen.
pub fn settled(
    index: &Index,
    mut evaluation: Evaluation,
    chosen: (Vec<Pick>, Vec<Pick>),
    rule: &Rule,
    (because, now): (String, Seconds),
) -> Triggered {
    settle(index, &mut evaluation, rule, now, chosen);
    let reasons = vec![Reason {
        name: format!("watermark/{}", rule.name),
        because,
    }];
    Triggered {
        evaluation,
        reasons,
        left_out: Vec::new(),
    }
}
