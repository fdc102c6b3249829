//! A few owners by whose files a plan passes `max_fraction`: their files are left out of what the agent takes by itself.

use purge_proto::units::{format_count, format_size};
use rustc_hash::FxHashSet;

use crate::host::space::space_of;
use crate::volume::Volume;
use purge_base::accounts::{Persons, user_name};
use purge_policy::evaluate::Evaluation;
use purge_policy::portion::{self, ByOwner, Portion};
use purge_policy::rule::Rule;

/// All files of a volume. One user's file of shared blocks has each block many times: together they take no more than is in use.
pub(super) fn whole_of(volume: &Volume) -> Portion {
    let totals = volume.watched.index.read().totals();
    let in_use = space_of(volume).map_or(u64::MAX, |space| space.used);
    Portion {
        files: totals.files,
        bytes: totals.bytes,
        takes: totals.takes.min(in_use),
    }
}

/// Files by the person who has them, with all uids of that person.
fn by_person(persons: &Persons, owners: impl Iterator<Item = (u32, Portion)>) -> ByOwner {
    let mut all = ByOwner::default();
    for (uid, part) in owners {
        let sum = all.entry(persons.of(uid)).or_default();
        *sum = sum.plus(part);
    }
    all
}

/// What each person has of a volume.
fn portions_of(volume: &Volume, persons: &Persons) -> ByOwner {
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
pub(super) struct TooMany {
    /// All uids that they may use.
    pub uids: FxHashSet<u32>,
    /// What the plan takes of them.
    pub part: Portion,
    /// For a person.
    pub why: String,
}

/// What a plan takes, with what went before it and counts as well.
pub(super) struct Going<'a> {
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
    pub(super) fn find(volume: &Volume, limit: f64, going: &Going<'_>) -> Option<Self> {
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
pub(super) fn owners_too_many(volume: &Volume, rules: &[Rule], found: &Evaluation) -> Option<TooMany> {
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
        format_count(all.files),
        format_size(all.takes),
        named.join(", "),
        share * 100.0,
        limit * 100.0
    )
}
