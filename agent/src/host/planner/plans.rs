//! Plans that rules ask for: on request, or because their time has come.

use std::sync::Arc;
use std::time::Instant;

use purge_proto::units::format_size;
use rustc_hash::FxHashSet;

use crate::host::planner::survey::evaluate_surveyed;
use crate::host::{Host, HostError};
use crate::volume::Volume;
use crate::work::{Outcome, Phase};
use purge_base::accounts::{Persons, largest_named, user_name};
use purge_policy::apart::TOGETHER_MAX;
use purge_policy::evaluate::Evaluation;
use purge_policy::portion::{self, ByOwner, Portion};
use purge_policy::rule::{AUTO_MAX_FRACTION, Rule};
use purge_removal::plans::{By, Occasion, Plan};

/// Which plan is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Rules by name; empty: all of the volume.
    pub rules: Vec<String>,
    /// Volume by name; empty: the rules', or the only one.
    pub volume: String,
    /// Instead of the rules' own.
    pub ttl: Option<u64>,
    /// No user looks at the plan before it is applied.
    pub unattended: bool,
    /// More candidates than this are refused; none: as many as there are.
    pub candidates_max: Option<u64>,
}

impl Host {
    /// Evaluates rules and saves the plan.
    ///
    /// # Errors
    /// When the rules are unknown or do not belong together, or the volume is in doubt.
    pub fn create_plan(&self, wanted: &Wanted, by: By<'_>) -> Result<Plan, HostError> {
        let (volume, rules) = self.choose_rules(wanted)?;
        let made = self.make_plan(volume, rules, wanted, by);
        volume.keeping.work.plans.count(outcome_of(made.as_ref()));
        made
    }

    fn make_plan(
        &self,
        volume: &Arc<Volume>,
        mut rules: Vec<Rule>,
        wanted: &Wanted,
        by: By<'_>,
    ) -> Result<Plan, HostError> {
        self.judge.check_certain(volume)?;
        if wanted.unattended {
            for rule in &mut rules {
                rule.max_fraction.get_or_insert(AUTO_MAX_FRACTION);
            }
        }
        // Every use up to now is in the index before anything is judged.
        if !volume.sync() {
            return Err(HostError::Refused(format!(
                "volume {}: the collector is not running",
                volume.config.name
            )));
        }
        self.holds.look_up(&volume.config.name, &volume.config.path);
        let mut at = self.judge.circumstances(volume);
        let (began, wall) = (Instant::now(), purge_sys::time::wall());
        let mut found = evaluate_surveyed(volume, &rules, &mut at, TOGETHER_MAX)?;
        let whole = whole_of(volume);
        let mut left_out = Vec::new();
        // A person who looks at the plan decides by themselves.
        if wanted.unattended
            && let Some(many) = owners_too_many(volume, &rules, &found)
        {
            let why = many.why;
            tracing::warn!(volume = %volume.config.name, %why, "files are left out of the plan");
            at.left_out.extend(many.uids);
            left_out.push(why);
            found = evaluate_surveyed(volume, &rules, &mut at, TOGETHER_MAX)?;
        }
        check_size(&found, wanted.candidates_max)?;
        let idle = self.idle_patterns(volume, &rules);
        let occasion = Occasion {
            volume: &volume.config.name,
            rules: &rules,
            at: &at,
            began: wall,
            seconds: began.elapsed().as_secs_f64(),
            whole,
            left_out,
            own_ttl: wanted.ttl.is_some() || wanted.unattended,
            owner_names: largest_named,
            trigger: None,
            idle,
            guard: volume.guard(),
            by,
        };
        self.save_plan(volume, found, &occasion)
    }

    /// Writes down what was found.
    pub(in crate::host) fn save_plan(
        &self,
        volume: &Volume,
        found: Evaluation,
        occasion: &Occasion<'_>,
    ) -> Result<Plan, HostError> {
        let phases = &volume.keeping.work.phases;
        phases.observe(Phase::Evaluate, occasion.seconds);
        let began = Instant::now();
        let saved = self.plans.save(&volume.watched.index, found, occasion)?;
        phases.observe(Phase::Save, began.elapsed().as_secs_f64());
        Ok(saved)
    }

    pub(in crate::host) fn choose_rules(
        &self,
        wanted: &Wanted,
    ) -> Result<(&Arc<Volume>, Vec<Rule>), HostError> {
        self.meet_all_owners();
        let all = self.rules();
        let mut chosen = Vec::new();
        for name in &wanted.rules {
            let rule = all.iter().find(|r| r.name == *name);
            let known: Vec<&str> = all.iter().map(|r| r.name.as_str()).collect();
            let known = if known.is_empty() {
                "there are none".into()
            } else {
                format!("there are {}", known.join(", "))
            };
            chosen.push(
                rule.cloned()
                    .ok_or_else(|| HostError::NotFound(format!("there is no rule {name:?}; {known}")))?,
            );
        }
        let volume = match (chosen.first(), wanted.volume.is_empty()) {
            (Some(rule), true) => self.volume(&rule.volume)?,
            (None, true) if self.volumes.len() > 1 => {
                let mut named = all.iter().map(|r| r.volume.as_str());
                let first = named.next().filter(|f| named.all(|n| n == *f));
                self.volume(first.unwrap_or_default())?
            }
            _ => self.volume(&wanted.volume)?,
        };
        let name = &volume.config.name;
        if let Some(stray) = chosen.iter().find(|r| r.volume != *name) {
            let why = format!(
                "rule {} speaks of volume {}, not {name}: make one plan for each",
                stray.name, stray.volume
            );
            return Err(HostError::Invalid { field: "rules", why });
        }
        if wanted.rules.is_empty() {
            chosen = all.into_iter().filter(|r| r.volume == *name).collect();
        }
        match wanted.ttl {
            Some(0) => {
                let why = "is 0: everything would go; give a time such as 28d".into();
                return Err(HostError::Invalid {
                    field: "ttl_seconds",
                    why,
                });
            }
            Some(ttl) if wanted.rules.is_empty() => chosen = vec![Rule::everything_older(name, ttl)],
            Some(ttl) => chosen.iter_mut().for_each(|r| r.ttl = Some(ttl)),
            None if chosen.is_empty() => {
                let why = format!(
                    "volume {name} has no rule; write one into the configuration, or give a TTL (--ttl 28d)"
                );
                return Err(HostError::Invalid { field: "rules", why });
            }
            None => {}
        }
        Ok((volume, chosen))
    }
}

/// All files of a volume.
pub(in crate::host) fn whole_of(volume: &Volume) -> Portion {
    let totals = volume.watched.index.read().totals();
    Portion {
        files: totals.files,
        bytes: totals.bytes,
        takes: totals.takes,
    }
}

/// Files by the person who has them, with all uids of that person.
pub(in crate::host) fn by_person(persons: &Persons, owners: impl Iterator<Item = (u32, Portion)>) -> ByOwner {
    let mut all = ByOwner::default();
    for (uid, part) in owners {
        let sum = all.entry(persons.of(uid)).or_default();
        *sum = sum.plus(part);
    }
    all
}

/// What each person has of a volume.
pub(in crate::host) fn portions_of(volume: &Volume, persons: &Persons) -> ByOwner {
    let clip = |bytes: u128| u64::try_from(bytes).unwrap_or(u64::MAX);
    let index = volume.watched.index.read();
    let portions = index.ledger().users().iter().map(|(uid, sums)| {
        let portion = Portion {
            files: sums.files,
            bytes: clip(sums.bytes),
            takes: clip(sums.takes),
        };
        (*uid, portion)
    });
    by_person(persons, portions)
}

/// Owners by whose files a plan passes `max_fraction`.
pub(in crate::host) struct TooMany {
    /// All uids that they may use.
    pub uids: FxHashSet<u32>,
    /// What the plan takes of them.
    pub part: Portion,
    /// For a person.
    pub why: String,
}

/// What a plan takes, with what went before it and counts as well.
pub(in crate::host) struct Going<'a> {
    /// The plan alone, by uid.
    pub plan: &'a ByOwner,
    /// All of it.
    pub all: Portion,
    /// What went before, by uid.
    pub before: &'a ByOwner,
    /// What there was before any of it went.
    pub whole: Portion,
}

impl TooMany {
    /// None: it is within the limit, or no few owners are found without whom it is.
    pub(in crate::host) fn find(volume: &Volume, limit: f64, going: &Going<'_>) -> Option<Self> {
        let share = going.all.share_of(going.whole);
        if share <= limit {
            return None;
        }
        let persons = Persons::of_host();
        let of = |owners: &ByOwner| by_person(&persons, owners.iter().map(|(uid, part)| (*uid, *part)));
        let (planned, before, there) = (of(going.plan), of(going.before), portions_of(volume, &persons));
        let mut both = planned.clone();
        for (owner, part) in &before {
            let sum = both.entry(*owner).or_default();
            *sum = sum.plus(*part);
        }
        let get = |all: &ByOwner, owner: u32| all.get(&owner).copied().unwrap_or_default();
        let has = |owner| get(&there, owner).plus(get(&before, owner));
        let owners = portion::owners_too_many(limit, (going.all, &both), going.whole, has)?;
        let mut parts: Vec<(u32, Portion)> = owners.iter().map(|o| (*o, get(&planned, *o))).collect();
        parts.sort_unstable_by_key(|(owner, part)| (std::cmp::Reverse(part.files), *owner));
        Some(Self {
            uids: uids_of(volume, &owners.iter().copied().collect()),
            part: parts
                .iter()
                .fold(Portion::default(), |sum, (_, part)| sum.plus(*part)),
            why: too_many_in_words(&parts, share, limit),
        })
    }
}

/// The uids of owners whose files are left alone: all that each of them may use.
pub(super) fn uids_of(volume: &Volume, owners: &FxHashSet<u32>) -> FxHashSet<u32> {
    let persons = Persons::of_host();
    let index = volume.watched.index.read();
    let users = index.ledger().users().keys().copied();
    let theirs = users.filter(|uid| owners.contains(&persons.of(*uid)));
    theirs.chain(owners.iter().copied()).collect()
}

/// The owners by whose files the rules take more than `max_fraction`, if a few are found without whom they do not.
fn owners_too_many(volume: &Volume, rules: &[Rule], found: &Evaluation) -> Option<TooMany> {
    let limit = rules.iter().filter_map(|r| r.max_fraction).fold(1.0, f64::min);
    let going = Going {
        plan: &found.by_owner,
        all: found.portion(),
        before: &ByOwner::default(),
        whole: whole_of(volume),
    };
    TooMany::find(volume, limit, &going)
}

/// Owners that are named.
const OWNERS_NAMED_MAX: usize = 5;

/// Why the files of some owners are left out of a plan, for a person.
fn too_many_in_words(parts: &[(u32, Portion)], share: f64, limit: f64) -> String {
    let all = parts
        .iter()
        .fold(Portion::default(), |sum, (_, part)| sum.plus(*part));
    let named = parts.iter().take(OWNERS_NAMED_MAX);
    let mut named: Vec<String> = named
        .map(|(uid, _)| format!("{} (uid {uid})", user_name(*uid)))
        .collect();
    if parts.len() > named.len() {
        named.push(format!("{} more", parts.len().saturating_sub(named.len())));
    }
    let them = match parts.len() {
        1 => "that one owner",
        _ => "those owners",
    };
    format!(
        "{} files ({} on the disk) of {}: with them the plan would take {:.1}% of the volume, and max_fraction is {}%; without {them} it is \
         within the limit. To take them, look at a plan and apply it: purgectl plan, purgectl apply",
        all.files,
        format_size(all.takes),
        named.join(", "),
        share * 100.0,
        limit * 100.0
    )
}

/// What became of a plan that was asked for.
pub(in crate::host) fn outcome_of(made: Result<&Plan, &HostError>) -> Outcome {
    match made {
        Ok(plan) if plan.refusal.is_some() => Outcome::Refused,
        Ok(_) => Outcome::Done,
        Err(HostError::Store(_)) => Outcome::Failed,
        Err(_) => Outcome::Refused,
    }
}

/// A client may be allowed plans of some size only.
pub(in crate::host) fn check_size(found: &Evaluation, max: Option<u64>) -> Result<(), HostError> {
    let (count, max) = (found.candidates(), max.unwrap_or(u64::MAX));
    if count <= max {
        return Ok(());
    }
    Err(HostError::TooMuch(format!(
        "the plan would have {count} candidates; yours may have {max} (max_plan_files): name fewer rules, or ask root"
    )))
}
