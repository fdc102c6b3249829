//! Owners and directories over their limit, and which of their files a quota would take. Pure.
//!
//! What may go at all is `needed::eligible`. Of that, each subject's files are taken in the rule's order until what is
//! left is no more than `low`; a file that brings it no nearer stays.

use rustc_hash::{FxHashMap, FxHashSet};

use super::blocks::{Counts, LOOKED_AT_MAX, OnDisk};
use super::circumstances::Circumstances;
use super::evaluate::evaluate;
use super::limits::{byte_days, sort};
use super::needed::{Need, Reason, Triggered, choose, eligible, settle};
use super::pick::{Pick, Shape};
use super::rooted::{Named, Outside, Rooted};
use super::sample::{Few, Kept};
use crate::allowance::Quota;
use crate::rule::{Rule, Sequence};
use crate::whom::QuotaSubject;
use purge_index::{Attributes, DirId, Index, StoreError};
use purge_model::{Inode, Kind, Seconds};

/// One whose files are summed: a uid, a gid, a project, or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// uid, gid or project id.
    Id(u32),
    /// A directory.
    Directory(DirId),
}

/// What one subject uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Regular files; one with several names counts once.
    pub files: u64,
    /// Bytes, as files count.
    pub bytes: u128,
    /// Sum of size x (whole days present + 1).
    pub byte_days: u128,
}

/// A subject and the limits it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Which.
    pub subject: Subject,
    /// Its name, or its path below the volume.
    pub name: String,
    /// What it uses.
    pub used: Sums,
    /// Bytes it may have, if it has more.
    pub hard: Option<u64>,
    /// Byte-days it may have, if it has more.
    pub temporal: Option<u64>,
}

/// A quota, and the directories that `/etc/projects` names.
pub type Asked<'a> = (&'a Quota, &'a Named);

/// Tells whose a file is.
struct Owners<'a> {
    by: QuotaSubject,
    /// What was seen of the files on the disk, where they were looked at.
    on_disk: Option<&'a OnDisk>,
    /// By directory: the one at the quota's depth that holds it, if one does.
    units: Vec<Option<DirId>>,
    /// Where projects delete: whose project ids count.
    rooted: Option<Rooted>,
}

impl<'a> Owners<'a> {
    fn new(index: &Index, (quota, named): Asked<'_>, on_disk: Option<&'a OnDisk>) -> Self {
        let by = quota.subject;
        let units = match by {
            QuotaSubject::Directory { depth } => {
                let of = |id, _: &_, (level, unit): (u32, Option<DirId>)| {
                    let level = level.saturating_add(1);
                    (level, if level == depth { Some(id) } else { unit })
                };
                let all = index.dirs().inherit((0, None), of);
                all.into_iter().map(|(_, unit)| unit).collect()
            }
            QuotaSubject::User | QuotaSubject::Group | QuotaSubject::Project => Vec::new(),
        };
        let is_guarded = quota.purges() && by == QuotaSubject::Project;
        Self {
            by,
            on_disk,
            units,
            rooted: is_guarded.then(|| Rooted::new(index, named)),
        }
    }

    /// What a file counts for. Of a user it is the apparent size. What several users share is over its limit by what is on the disk alone:
    /// neither a sparse file of one of them nor one whose blocks copies share may make the others' files go.
    fn counted(&self, ino: Inode, entry: &Attributes) -> Counts {
        let bytes = match (self.by, self.on_disk) {
            (QuotaSubject::User, _) => entry.size,
            (_, None) => entry.takes(),
            (_, Some(seen)) => return seen.of(ino),
        };
        Counts {
            stands_for: bytes,
            brings: bytes,
        }
    }

    /// Whether a file has a project id that only its owner gave to it.
    fn is_outside(&self, entry: &Attributes) -> bool {
        let rooted = self.rooted.as_ref();
        rooted.is_some_and(|rooted| entry.project != 0 && !rooted.counts(entry))
    }

    fn of(&self, entry: &Attributes) -> Option<Subject> {
        match self.by {
            QuotaSubject::User => Some(Subject::Id(entry.uid)),
            QuotaSubject::Group => Some(Subject::Id(entry.gid)),
            // What belongs to no project is not the property of project 0.
            QuotaSubject::Project => {
                let counts = entry.project != 0 && !self.is_outside(entry);
                counts.then_some(Subject::Id(entry.project))
            }
            QuotaSubject::Directory { .. } => {
                let unit = self.units.get(entry.parent.index()).copied().flatten();
                unit.map(Subject::Directory)
            }
        }
    }

    /// The files that count for nothing because of their project id; none where all count.
    fn left_out(&self, index: &Index) -> Result<Option<Outside>, StoreError> {
        if self.rooted.is_none() {
            return Ok(None);
        }
        let mut outside = Outside::default();
        for page in index.pages() {
            let mut attributes = page.attributes();
            for _ in page.inodes() {
                let entry = attributes.next_entry()?;
                if entry.kind == Kind::File && self.is_outside(&entry) {
                    outside.add(&entry);
                }
            }
        }
        Ok(Some(outside))
    }

    fn sums(&self, index: &Index, now: Seconds) -> Result<FxHashMap<Subject, Sums>, StoreError> {
        let mut all: FxHashMap<Subject, Sums> = FxHashMap::default();
        for page in index.pages() {
            let mut attributes = page.attributes();
            for ino in page.inodes() {
                let entry = attributes.next_entry()?;
                if entry.kind == Kind::File
                    && let Some(subject) = self.of(&entry)
                {
                    let sums = all.entry(subject).or_default();
                    sums.files = sums.files.saturating_add(1);
                    let bytes = self.counted(ino, &entry).stands_for;
                    sums.bytes = sums.bytes.saturating_add(bytes.into());
                    let days = byte_days(bytes, entry.birth, now);
                    sums.byte_days = sums.byte_days.saturating_add(days);
                }
            }
        }
        Ok(all)
    }
}

/// Each subject that is over a limit of the quota, by name. `name` names a uid or gid.
///
/// # Errors
/// When the index is damaged.
pub fn over(
    index: &Index,
    asked: Asked<'_>,
    now: Seconds,
    name: impl Fn(u32) -> String,
) -> Result<Vec<Over>, StoreError> {
    over_among(index, asked.0, now, &Owners::new(index, asked, None), name)
}

/// What each subject of the quota uses. `name` names a uid or gid.
///
/// # Errors
/// When the index is damaged.
pub fn used(
    index: &Index,
    asked: Asked<'_>,
    now: Seconds,
    name: impl Fn(u32) -> String,
) -> Result<Vec<(Subject, String, Sums)>, StoreError> {
    let sums = Owners::new(index, asked, None).sums(index, now)?;
    let named = sums
        .into_iter()
        .map(|(s, used)| (s, name_of(index, s, &name), used));
    Ok(named.collect())
}

fn name_of(index: &Index, subject: Subject, name: impl Fn(u32) -> String) -> String {
    match subject {
        Subject::Id(id) => name(id),
        Subject::Directory(id) => {
            String::from_utf8_lossy(&index.dirs().path(id).unwrap_or_default()).into_owned()
        }
    }
}

fn over_among(
    index: &Index,
    quota: &Quota,
    now: Seconds,
    owners: &Owners<'_>,
    name: impl Fn(u32) -> String,
) -> Result<Vec<Over>, StoreError> {
    let mut all = uses_among(index, quota, now, owners, name)?;
    all.retain(|o| o.hard.is_some() || o.temporal.is_some());
    Ok(all)
}

/// Each subject that the quota sums up, by name; a limit is named where it is passed.
///
/// # Errors
/// When the index is damaged.
pub fn uses(
    index: &Index,
    asked: Asked<'_>,
    now: Seconds,
    name: impl Fn(u32) -> String,
) -> Result<Vec<Over>, StoreError> {
    uses_among(index, asked.0, now, &Owners::new(index, asked, None), name)
}

fn uses_among(
    index: &Index,
    quota: &Quota,
    now: Seconds,
    owners: &Owners<'_>,
    name: impl Fn(u32) -> String,
) -> Result<Vec<Over>, StoreError> {
    let mut all = Vec::new();
    for (subject, used) in owners.sums(index, now)? {
        let name = name_of(index, subject, &name);
        let (hard, temporal) = quota.limits_of(subject.id(), &name);
        let hard = hard.filter(|limit| used.bytes > u128::from(*limit));
        let temporal = temporal.filter(|limit| used.byte_days > u128::from(*limit));
        all.push(Over {
            subject,
            name,
            used,
            hard,
            temporal,
        });
    }
    all.sort_unstable_by(|a, b| a.name.cmp(&b.name).then(a.subject.cmp(&b.subject)));
    Ok(all)
}

impl Over {
    /// How far over which limit, for a person.
    pub fn in_words(&self) -> String {
        let part = |used: u128, limit: u64, unit: &str| {
            let over = used.saturating_sub(limit.into());
            format!("{used} of {limit} {unit}, {over} over")
        };
        let hard = self.hard.map(|l| part(self.used.bytes, l, "bytes"));
        let temporal = self.temporal.map(|l| part(self.used.byte_days, l, "byte-days"));
        let parts: Vec<String> = hard.into_iter().chain(temporal).collect();
        format!("{} uses {}", self.name, parts.join(" and "))
    }

    /// What must go, so that no more than `low` of each limit is left.
    fn need(&self, low: f64) -> Need {
        // A share of a limit: whole bytes, cut off, so that what is left is never above it.
        let excess = |used: u128, limit: Option<u64>| {
            limit.map_or(0, |limit| used.saturating_sub((limit as f64 * low) as u128))
        };
        (
            excess(self.used.bytes, self.hard),
            excess(self.used.byte_days, self.temporal),
        )
    }
}

/// Files to look at on the disk before [`quota`] is asked: some of each subject that seems to be over a limit, where several users share
/// that. `luck` gives a random number for each.
///
/// # Errors
/// When the index is damaged.
pub fn to_look_at(
    index: &Index,
    asked: Asked<'_>,
    now: Seconds,
    name: impl Fn(u32) -> String,
    luck: impl Fn(Inode) -> u64,
) -> Result<Vec<Kept>, StoreError> {
    let owners = Owners::new(index, asked, None);
    if owners.by == QuotaSubject::User {
        return Ok(Vec::new());
    }
    let over = over_among(index, asked.0, now, &owners, name)?;
    let room = LOOKED_AT_MAX.checked_div(over.len()).unwrap_or(0).max(1);
    let few = over.iter().map(|over| (over.subject, Few::new(room)));
    let mut few: FxHashMap<Subject, Few> = few.collect();
    for page in index.pages() {
        let mut attributes = page.attributes();
        for ino in page.inodes() {
            let entry = attributes.next_entry()?;
            let takes = entry.takes();
            if entry.kind == Kind::File
                && takes > 0
                && let Some(few) = owners.of(&entry).and_then(|subject| few.get_mut(&subject))
            {
                few.add(entry.uid, (ino, takes), takes, luck(ino));
            }
        }
    }
    Ok(few.into_values().map(Few::kept).collect())
}

/// What a quota would take. With `on_disk` its files count for what was seen of them; without, for what the index says.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn quota(
    index: &Index,
    (quota, named): Asked<'_>,
    on_disk: Option<&OnDisk>,
    rule: &Rule,
    at: &Circumstances,
    name: impl Fn(u32) -> String,
) -> Result<Triggered, StoreError> {
    let owners = Owners::new(index, (quota, named), on_disk);
    let over = over_among(index, quota, at.now, &owners, name)?;
    let mut allowed = eligible(rule, quota.min_age);
    if quota.max_age.is_none() && quota.subject == QuotaSubject::User {
        // No other user's files need be looked at.
        let over: FxHashSet<u32> = over.iter().filter_map(|o| o.subject.id()).collect();
        let users = match allowed.scope.users.take() {
            Some(users) => users.into_iter().filter(|u| over.contains(u)).collect(),
            None => over.into_iter().collect(),
        };
        allowed.scope.users = Some(users);
    }
    let mut evaluation = evaluate(index, std::slice::from_ref(&allowed), at)?;
    if let Some(wanted) = &allowed.scope.users {
        // They were not looked at, and no scope leaves them out.
        let is_other =
            |uid: u32| !wanted.contains(&uid) && rule.scope.users.as_ref().is_none_or(|u| u.contains(&uid));
        let others = index.ledger().users().iter().filter(|(uid, _)| is_other(**uid));
        let others: u64 = others.map(|(_, sums)| sums.files).sum();
        let kept = &mut evaluation.kept;
        let others = others.min(kept.out_of_scope);
        kept.out_of_scope = kept.out_of_scope.saturating_sub(others);
        kept.other_subjects = kept.other_subjects.saturating_add(others);
    }
    let mut reasons: Vec<Reason> = over
        .iter()
        .map(|o| Reason {
            name: format!("{}/{}", quota.name, o.name),
            because: format!("quota {}: {}", quota.name, o.in_words()),
        })
        .collect();
    let places: FxHashMap<Subject, usize> = over.iter().enumerate().map(|(i, o)| (o.subject, i)).collect();
    reasons.push(Reason {
        name: quota.name.clone(),
        because: match quota.max_age {
            Some(age) => format!(
                "quota {}: on the volume for more than {} days",
                quota.name,
                age / 86_400
            ),
            None => format!("quota {}", quota.name),
        },
    });
    // Last of all those who are over nothing: theirs is only what has stayed too long.
    let mut groups: Vec<Vec<Pick>> = vec![Vec::new(); reasons.len()];
    for pick in evaluation.picks.drain(..) {
        let entry = index.get(pick.ino).map(|(entry, _)| entry);
        if entry.is_some_and(|entry| owners.is_outside(&entry)) {
            evaluation.kept.excluded = evaluation.kept.excluded.saturating_add(pick.files.into());
            continue;
        }
        let subject = entry.and_then(|entry| owners.of(&entry));
        let place = subject
            .and_then(|s| places.get(&s))
            .copied()
            .unwrap_or(over.len());
        if let Some(group) = groups.get_mut(place) {
            group.push(pick);
        }
    }
    let outstayed = |p: &Pick| quota.max_age.is_some_and(|age| p.birth.age_at(at.now) > age);
    let gain = |p: &Pick| {
        let bytes = index
            .get(p.ino)
            .map_or(0, |(entry, _)| owners.counted(p.ino, &entry).brings);
        (u128::from(bytes), byte_days(bytes, p.birth, at.now))
    };
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for (place, group) in groups.into_iter().enumerate() {
        let need = over.get(place).map_or((0, 0), |o| o.need(quota.low));
        let (mut goes, stays) = select(group, rule.sequence, at.now, need, gain, outstayed);
        let number = u16::try_from(place).unwrap_or(u16::MAX);
        goes.iter_mut().for_each(|p| p.rule = number);
        taken.extend(goes);
        match over.get(place) {
            Some(_) => left.extend(stays),
            None => {
                let files: u64 = stays.iter().map(|p| u64::from(p.files)).sum();
                let kept = &mut evaluation.kept;
                kept.other_subjects = kept.other_subjects.saturating_add(files);
            }
        }
    }
    settle(index, &mut evaluation, rule, at.now, (taken, left));
    let left_out = owners.left_out(index)?.and_then(|outside| outside.in_words());
    Ok(Triggered {
        evaluation,
        reasons,
        left_out: left_out.into_iter().collect(),
    })
}

/// Takes picks in their order until `need` is met, after those that go in any case. Returns what goes and what stays.
fn select(
    mut picks: Vec<Pick>,
    sequence: Sequence,
    now: Seconds,
    mut need: Need,
    gain: impl Fn(&Pick) -> Need,
    goes_anyway: impl Fn(&Pick) -> bool,
) -> (Vec<Pick>, Vec<Pick>) {
    picks.retain(|p| p.shape == Shape::File);
    sort(&mut picks, sequence, now);
    let (mut taken, rest): (Vec<Pick>, Vec<Pick>) = picks.into_iter().partition(&goes_anyway);
    for pick in &taken {
        let brings = gain(pick);
        need = (need.0.saturating_sub(brings.0), need.1.saturating_sub(brings.1));
    }
    let (more, left) = choose(rest, need, gain);
    taken.extend(more);
    (taken, left)
}

impl Subject {
    /// The id of a subject that has one.
    pub fn id(self) -> Option<u32> {
        match self {
            Self::Id(id) => Some(id),
            Self::Directory(_) => None,
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
