//! From an evaluation to a plan in the store: the candidates in chunks, and the head that is written last.

use std::collections::HashMap;

use super::fingerprint::Fingerprint;
use super::plan::{EXPIRES_AFTER_SECONDS, IdlePattern, OwnerShare, Plan, RuleShare};
use super::shelf::By;
use super::writer::ChunkWriter;
use crate::protection::Guard;
use purge_index::{Index, Store, StoreError};
use purge_model::{Kind, Totals};
use purge_policy::apart::TOGETHER_MAX;
use purge_policy::evaluate::{Circumstances, Evaluation, Pick, Shape, part_of};
use purge_policy::forgiven::{Forgiven, forgiven};
use purge_policy::needed::Reason;
use purge_policy::portion::Portion;
use purge_policy::rule::{Rule, Target};
use purge_proto::ONLY_TELLS;

/// What a plan is made from, besides the evaluation.
pub struct Occasion<'a> {
    /// The volume's name.
    pub volume: &'a str,
    /// The rules in the order of the evaluation.
    pub rules: &'a [Rule],
    /// When it was evaluated, and what decided besides.
    pub at: &'a Circumstances,
    /// When that began, in nanoseconds since 1970, by the wall clock: what is in the index by then was seen.
    pub began: i64,
    /// How long that took.
    pub seconds: f64,
    /// All files of the volume.
    pub whole: Portion,
    /// What was left out of the evaluation and why, for a person.
    pub left_out: Vec<String>,
    /// The TTL came with the request, not from the rules.
    pub own_ttl: bool,
    /// Names owners, those with most first; whom it does not name is shown by number.
    pub owner_names: fn(&[u32]) -> HashMap<u32, String>,
    /// The quota or watermark that asked for it.
    pub trigger: Option<&'a Trigger>,
    /// Exclude patterns of the rules that match nothing.
    pub idle: Vec<IdlePattern>,
    /// What keeps a file that is used in the moment of its removal.
    pub guard: Guard,
    /// Who asked for the plan.
    pub by: By<'a>,
}

/// A quota or watermark that asks for a plan.
pub struct Trigger {
    /// Which.
    pub name: String,
    /// Changes when it, or its rule, changes.
    pub fingerprint: Fingerprint,
    /// What a pick's `rule` points at.
    pub reasons: Vec<Reason>,
}

/// The forgiven stretches that a plan rests on, if there are any.
fn forgiven_in(on: &Occasion<'_>, by_rule: &[Totals]) -> Option<Forgiven> {
    // A directory that a file rule takes is empty.
    let taken = |rule: &Rule, t: &Totals| match rule.target {
        Target::File => t.files,
        Target::Directory { .. } => t.files.saturating_add(t.directories),
    };
    let by_rule: Vec<(&Rule, u64)> = match (on.trigger, on.rules) {
        // A quota or watermark has one rule, and as many totals as reasons.
        (Some(_), [rule, ..]) => by_rule.iter().map(|t| (rule, taken(rule, t))).collect(),
        _ => {
            let pairs = on.rules.iter().zip(by_rule);
            pairs.map(|(rule, t)| (rule, taken(rule, t))).collect()
        }
    };
    let found = forgiven(&on.at.forgiven, on.at.now, by_rule.iter().copied());
    (found.taken > 0).then_some(found)
}

/// Candidates on their way into the store.
struct Saving<'a> {
    writer: ChunkWriter<'a>,
    totals: Totals,
    /// Of the files that go: of each the smaller of its size and its space on the disk.
    takes: u64,
    by_rule: Vec<Totals>,
}

impl Saving<'_> {
    /// One directory after the other, as apply takes them.
    fn add_sorted(&mut self, mut picks: Vec<Pick>) -> Result<(), StoreError> {
        picks.sort_unstable_by_key(|p| (p.rule, p.parent, p.ino));
        self.add(&picks)
    }

    fn add(&mut self, picks: &[Pick]) -> Result<(), StoreError> {
        for pick in picks {
            if !self.writer.add(pick)? {
                continue;
            }
            self.takes = self.takes.saturating_add(pick.takes);
            let share = self.by_rule.get_mut(usize::from(pick.rule));
            for t in [Some(&mut self.totals), share].into_iter().flatten() {
                match pick.shape {
                    Shape::File => t.add(Kind::File, pick.bytes),
                    Shape::Tree => t.add_directory(pick.files.into(), pick.bytes),
                    Shape::EmptyDirectory => t.add(Kind::Directory, pick.bytes),
                    Shape::Link(_) => t.add(Kind::Symlink, pick.bytes),
                }
            }
        }
        Ok(())
    }
}

/// Candidates in the store, counted.
struct Saved {
    totals: Totals,
    takes: u64,
    by_rule: Vec<Totals>,
    chunks: u32,
    first_empty_chunk: u32,
    bytes: u64,
}

/// Writes the candidates; without a store, only counts them. The plan that is returned is the head, which is not written.
pub(super) fn write(
    (store, index): (Option<&Store>, &parking_lot::RwLock<Index>),
    mut found: Evaluation,
    on: &Occasion<'_>,
    plan_id: &str,
) -> Result<Plan, StoreError> {
    let mut going = found.portion();
    let saved = candidates((store, index), &mut found, on, plan_id)?;
    going.takes = saved.takes;
    Ok(head(found, on, plan_id, (saved, going)))
}

fn candidates(
    (store, index): (Option<&Store>, &parking_lot::RwLock<Index>),
    found: &mut Evaluation,
    on: &Occasion<'_>,
    plan_id: &str,
) -> Result<Saved, StoreError> {
    let clocks = on.rules.iter().map(|r| r.clocks).collect();
    let rules = match on.trigger {
        Some(trigger) => trigger.reasons.len(),
        None => on.rules.len(),
    };
    let mut picks = std::mem::take(&mut found.picks);
    let split = picks.iter().position(|p| p.shape.is_last());
    let empty = picks.split_off(split.unwrap_or(picks.len()));
    let mut saving = Saving {
        writer: ChunkWriter::new(store, plan_id, index, on.at.now, clocks),
        totals: Totals::default(),
        takes: 0,
        by_rule: vec![Totals::default(); rules],
    };
    saving.add_sorted(picks)?;
    if let Some(apart) = &found.apart {
        // No more than were counted: limits have been compared with that count, and the index has changed since.
        let mut room = usize::try_from(apart.files()).unwrap_or(usize::MAX);
        for part in apart.parts(TOGETHER_MAX) {
            let mut picks = part_of(apart, &index.read(), on.rules, on.at, part)?;
            picks.truncate(room);
            room -= picks.len();
            saving.add_sorted(picks)?;
        }
    }
    saving.writer.end_chunk()?;
    let first_empty_chunk = saving.writer.chunks;
    saving.add(&empty)?;
    let Saving {
        mut writer,
        totals,
        takes,
        by_rule,
    } = saving;
    let chunks = writer.finish()?;
    Ok(Saved {
        totals,
        takes,
        by_rule,
        chunks,
        first_empty_chunk,
        bytes: writer.bytes,
    })
}

fn head(found: Evaluation, on: &Occasion<'_>, plan_id: &str, (saved, going): (Saved, Portion)) -> Plan {
    let forgiven = forgiven_in(on, &saved.by_rule);
    let shares = rule_shares(on, &saved.by_rule, &found);
    let mut by_owner: Vec<_> = found.by_owner.into_iter().collect();
    by_owner.sort_unstable_by_key(|(uid, part)| (std::cmp::Reverse(part.bytes), *uid));
    let longest = shares.iter().map(|share| share.grace).max().unwrap_or(0);
    let uids: Vec<u32> = by_owner.iter().map(|(uid, _)| *uid).collect();
    let named = (on.owner_names)(&uids);
    let owners = by_owner.into_iter().map(|(uid, part)| OwnerShare {
        owner: named.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
        uid,
        files: part.files,
        bytes: part.bytes,
        takes: part.takes,
    });
    Plan {
        id: plan_id.to_owned(),
        created: on.at.now,
        expires: on.at.now.plus(EXPIRES_AFTER_SECONDS),
        volume: on.volume.into(),
        by: on.by.name.to_owned(),
        trigger: on.trigger.map(|t| t.name.clone()),
        rules: shares,
        totals: saved.totals,
        takes: Some(saved.takes),
        kept: found.kept,
        by_owner: owners.collect(),
        mounted: found.mounted,
        times_ahead: found.ahead,
        left_out: on.left_out.clone(),
        forgiven,
        idle: on.idle.clone(),
        seconds: on.seconds,
        index_files: found.index_files,
        examined: found.examined,
        began: on.began,
        guard: Some(on.guard),
        grace: longest.max(on.guard.least_grace()),
        refusal: refusal(on, going),
        run: None,
        max_errors: on.rules.iter().map(|r| r.max_errors).fold(1.0, f64::min),
        fingerprint: on.trigger.map_or_else(
            || Fingerprint::of_rules(on.rules),
            |trigger| trigger.fingerprint.clone(),
        ),
        own_ttl: on.own_ttl,
        chunks: saved.chunks,
        first_empty_chunk: saved.first_empty_chunk,
        bytes: saved.bytes,
        promise: None,
        drawn: Vec::new(),
    }
}

/// Why a rule takes nothing; empty where it takes something.
fn remark_of(number: u16, found: &Evaluation) -> String {
    let nothing = found.nothing.iter().find(|(rule, _)| *rule == number);
    nothing.map(|(_, nothing)| nothing.in_words()).unwrap_or_default()
}

/// The rules with whose directories files go that a rule would take, those with most files first.
fn goes_with(number: u16, rules: &[Rule], found: &Evaluation) -> Vec<(String, u64)> {
    let mine = found.gone_with.iter().filter(|((rule, _), _)| *rule == number);
    let named = mine.filter_map(|((_, by), files)| Some((rules.get(usize::from(*by))?.name.clone(), *files)));
    let mut all: Vec<(String, u64)> = named.filter(|(_, files)| *files > 0).collect();
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    all
}

/// What is taken by each rule, or for each reason of a quota or watermark.
fn rule_shares(on: &Occasion<'_>, by_rule: &[Totals], found: &Evaluation) -> Vec<RuleShare> {
    let share = |name: &str, totals: &Totals, rule: Option<&Rule>, because| RuleShare {
        name: name.to_owned(),
        totals: *totals,
        grace: rule.map_or(0, |rule| rule.grace),
        archive: rule.and_then(|rule| rule.action.destination().cloned()),
        because,
        remark: String::new(),
        goes_with: Vec::new(),
    };
    match on.trigger {
        // A quota or watermark has one rule.
        Some(trigger) => {
            let reasons = trigger.reasons.iter().zip(by_rule);
            reasons
                .map(|(r, totals)| share(&r.name, totals, on.rules.first(), Some(r.because.clone())))
                .collect()
        }
        None => {
            let rules = on.rules.iter().zip(by_rule);
            rules
                .zip(0u16..)
                .map(|((r, totals), number)| RuleShare {
                    remark: remark_of(number, found),
                    goes_with: goes_with(number, on.rules, found),
                    ..share(&r.name, totals, Some(r), None)
                })
                .collect()
        }
    }
}

/// Why apply would refuse such a plan.
fn refusal(on: &Occasion<'_>, going: Portion) -> Option<String> {
    if let Some(rule) = on.rules.iter().find(|r| !r.action.is_applied()) {
        return Some(match on.trigger {
            Some(trigger) => format!("{} {ONLY_TELLS}: it tells, and deletes nothing", trigger.name),
            None => format!(
                "rule {} {ONLY_TELLS}: it tells, and deletes nothing; to apply other rules, make a plan \
                 that names them (--rule)",
                rule.name
            ),
        });
    }
    let most = going.share_of(on.whole);
    let rule = on
        .rules
        .iter()
        .filter(|r| r.max_fraction.is_some_and(|limit| most > limit))
        .min_by(|a, b| {
            let limit = |r: &Rule| r.max_fraction.unwrap_or(1.0);
            limit(a).total_cmp(&limit(b))
        })?;
    let limit = rule.max_fraction.unwrap_or(1.0) * 100.0;
    Some(format!(
        "it would take {:.1}% of the volume, and rule {} has max_fraction {limit}%; if that is meant, raise \
         max_fraction in the rule, reload the agent, and make a new plan",
        most * 100.0,
        rule.name
    ))
}
