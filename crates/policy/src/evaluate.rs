//! All rules of a volume against its index.
//!
//! File rules are one linear pass over the clock column: a page whose files were all used lately is passed over
//! without a look at its attributes. Whole directories come first ([`super::units`]), empty ones last.

use std::ops::Range;

use super::apart::Apart;
pub use super::circumstances::{Circumstances, Lead, Leads, Only, Survey};
use super::evaluation::remove_owner;
pub use super::evaluation::{Evaluation, Kept};
use super::files::{Counting, FilePass};
use super::kept::Stays;
use super::limits::{apply_limits, is_limited};
use super::near;
pub use super::pick::{Pick, Shape, Why};
use super::tables::Tables;
use super::tail::Tail;
use super::units::{self, DirectoryRule};
use crate::rule::Rule;
use purge_index::{Index, StoreError};

/// Evaluates `rules` in their order; the first that takes an entry is its reason.
///
/// # Errors
/// When the index is damaged or its names cannot be read: there is no plan for what cannot be seen whole.
pub fn evaluate(index: &Index, rules: &[Rule], at: &Circumstances) -> Result<Evaluation, StoreError> {
    evaluate_rules(index, rules, at, (usize::MAX, false))
}

/// The same for a plan, which may take all there is: more files than `together` are set apart, unless a rule's limit asks for an order
/// among all of them. Rules that take nothing say why.
///
/// # Errors
/// As for [`evaluate`].
pub fn evaluate_with(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    together: usize,
) -> Result<Evaluation, StoreError> {
    evaluate_rules(index, rules, at, (together, true))
}

fn evaluate_rules(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    (together, says_why): (usize, bool),
) -> Result<Evaluation, StoreError> {
    let tables = Tables::new(index, at);
    let mut out = Evaluation {
        index_files: index.totals().files,
        ..Evaluation::default()
    };
    let mut taken = vec![false; index.dirs().table_len()];
    let directory_rules = DirectoryRule::among(rules);
    let mut found = units::evaluate(index, &directory_rules, at, &tables, &mut taken)?;
    out.examined = found.examined;
    out.picks = std::mem::take(&mut found.picks);
    out.by_owner = std::mem::take(&mut found.by_owner);
    out.gone_with = std::mem::take(&mut found.gone_with);
    out.nothing = std::mem::take(&mut found.nothing);
    let together = match rules.iter().any(is_limited) {
        true => usize::MAX,
        false => together,
    };
    let pass = FilePass::new(index, rules, at, &tables, &taken).keeping(together);
    if pass.is_needed() {
        let counting = Counting {
            stays: (!directory_rules.is_empty()).then_some(&found.stays),
            young_from: DirectoryRule::young_from(&directory_rules, at.now),
            taken_by: &found.taken_by,
        };
        for part in pass.counting(counting).run()? {
            out.merge(part);
        }
    } else if directory_rules.is_empty() {
        out.kept.out_of_scope = out.index_files;
    } else {
        count_by_directory(&found, &taken, &mut out.kept);
    }
    out.kept.add(&found.ripe);
    if says_why {
        near::ask_again(index, rules, at, (&tables, &taken, &found.taken_by), &mut out)?;
    }
    out.know_taken(taken);
    let dropped = apply_limits(&mut out.picks, rules, at.now);
    for pick in &dropped {
        out.targets.remove(&pick.ino);
        let is_counted = pick.shape == Shape::File && at.mounted.contains(&pick.ino);
        out.mounted = out.mounted.saturating_sub(is_counted.into());
    }
    let beyond: u64 = dropped.iter().map(|p| u64::from(p.files)).sum();
    out.kept.limit = out.kept.limit.saturating_add(beyond);
    for pick in &dropped {
        if let Some((attributes, _)) = index.get(pick.ino) {
            remove_owner(&mut out.by_owner, attributes.uid, pick);
        }
    }
    let gone = out.files();
    let last = Tail::new(index, rules, at, &tables, &out).run()?;
    out.picks.extend(last);
    let others = out.picks.iter().filter(|pick| pick.shape != Shape::File);
    let others = others.filter(|pick| at.mounted.contains(&pick.ino)).count();
    out.mounted = out.mounted.saturating_add(others as u64);
    let named = gone.saturating_add(out.kept.all());
    out.kept.young = out.index_files.saturating_sub(named);
    Ok(out)
}

/// Counts what stays where there are directory rules alone.
fn count_by_directory(found: &units::Units, taken: &[bool], kept: &mut Kept) {
    let all = found.stays.iter().zip(&found.files_in).zip(taken);
    // What is young is what is left of all files in the end.
    for ((why, files), _) in all.filter(|((why, _), is_taken)| !**is_taken && **why != Stays::Young) {
        kept.count(*why, u64::from(*files));
    }
}

/// Finds again what depends on the rest: symbolic links, and directories that are empty then. To be called when more is known of them.
///
/// # Errors
/// As for [`evaluate`].
pub fn reconsider(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    found: &mut Evaluation,
) -> Result<(), StoreError> {
    found.picks.retain(|pick| !pick.shape.is_last());
    let tables = Tables::new(index, at);
    let last = Tail::new(index, rules, at, &tables, found).run()?;
    found.picks.extend(last);
    Ok(())
}

/// The files that go of some of the directories of a plan whose files were set apart, as the index says now.
///
/// # Errors
/// As for [`evaluate`].
pub fn part_of(
    apart: &Apart,
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    directories: Range<usize>,
) -> Result<Vec<Pick>, StoreError> {
    let tables = Tables::new(index, at);
    let pass = FilePass::new(index, rules, at, &tables, apart.taken()).within(directories);
    let mut picks = Vec::new();
    for found in pass.run()? {
        picks.extend(found.picks);
    }
    Ok(picks)
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "kept_tests.rs"]
mod kept_tests;
