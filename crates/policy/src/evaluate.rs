//! All rules of a volume against its index.
//!
//! File rules are one linear pass over the clock column: a page whose files were all used lately is passed over
//! without a look at its attributes. Whole directories come first ([`super::units`]), empty ones last.

use std::ops::Range;

use super::apart::Apart;
pub use super::circumstances::{Circumstances, Lead, Leads, Only, Survey};
use super::evaluation::remove_owner;
pub use super::evaluation::{Evaluation, Kept};
use super::files::FilePass;
use super::limits::{apply_limits, is_limited};
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
    evaluate_with(index, rules, at, usize::MAX)
}

/// The same for a plan, which may take all there is: more files than `together` are set apart, unless a rule's limit asks for an order
/// among all of them.
///
/// # Errors
/// As for [`evaluate`].
pub fn evaluate_with(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    together: usize,
) -> Result<Evaluation, StoreError> {
    let tables = Tables::new(index, at);
    let mut out = Evaluation {
        index_files: index.totals().files,
        ..Evaluation::default()
    };
    let mut taken = vec![false; index.dirs().table_len()];
    let found = units::evaluate(index, &DirectoryRule::among(rules), at, &tables, &mut taken)?;
    out.examined = found.examined;
    out.kept.held = found.held;
    out.kept.excluded = found.excluded;
    out.kept.uncovered = found.uncovered;
    out.picks = found.picks;
    out.kept.limit = found.left_out;
    out.by_owner = found.by_owner;
    let together = match rules.iter().any(is_limited) {
        true => usize::MAX,
        false => together,
    };
    let pass = FilePass::new(index, rules, at, &tables, &taken).keeping(together);
    if pass.is_needed() {
        for part in pass.run()? {
            out.merge(part);
        }
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
    let kept = &mut out.kept;
    let named = gone + kept.held + kept.excluded + kept.uncovered + kept.limit;
    kept.young = out.index_files.saturating_sub(named);
    Ok(out)
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
