//! A plan as it lies in the index store: its head. See [`crate::stored`] for what may change.
//!
//! The head has two parts, for clients and for the run that applies it, because an older agent kept the contract's message in it as a whole.
//! While a plan is made or removed the store has a head that says only that, and which plan it is.

use prost::Message;
use prost_types::Timestamp;

use super::fingerprint::Fingerprint;
use super::plan::{
    EXPIRES_AFTER_SECONDS, IdlePattern, OwnerProbes, OwnerShare, Plan, Probe, Promise, RuleShare,
};
use crate::protection::Guard;
use crate::stored::{Damaged, StoredTotals, seconds, timestamp, totals, words};
use purge_model::Seconds;
use purge_policy::evaluate::Kept;
use purge_policy::forgiven::Forgiven;
use purge_policy::rule::Destination;

#[derive(Clone, PartialEq, Message)]
struct StoredPlan {
    #[prost(message, optional, tag = "1")]
    shown: Option<StoredShown>,
    #[prost(uint32, tag = "2")]
    chunks: u32,
    #[prost(string, tag = "3")]
    fingerprint: String,
    #[prost(double, tag = "4")]
    max_errors: f64,
    #[prost(uint32, tag = "5")]
    first_empty_chunk: u32,
    /// The names of `shown.rules` again.
    #[prost(string, repeated, tag = "6")]
    rules: Vec<String>,
    #[prost(bool, tag = "7")]
    own_ttl: bool,
    #[prost(string, tag = "8")]
    trigger: String,
    /// For a quota or watermark, beside each of `rules`.
    #[prost(string, repeated, tag = "9")]
    reasons: Vec<String>,
    /// Beside each of `rules`.
    #[prost(uint64, repeated, tag = "10")]
    graces: Vec<u64>,
    #[prost(string, tag = "11")]
    by: String,
    #[prost(uint64, tag = "12")]
    bytes: u64,
    /// It is being made, or being removed: no client sees it.
    #[prost(bool, tag = "13")]
    is_partial: bool,
    #[prost(int64, tag = "14")]
    began: i64,
    /// Beside each of `rules`, empty where nothing is copied; nothing where no rule archives.
    #[prost(string, repeated, tag = "15")]
    archives: Vec<String>,
    #[prost(string, repeated, tag = "16")]
    archive_urls: Vec<String>,
    #[prost(message, optional, tag = "20")]
    promise: Option<StoredPromise>,
    #[prost(message, repeated, tag = "21")]
    drawn: Vec<StoredProbes>,
}

/// What clients see.
#[derive(Clone, PartialEq, Message)]
struct StoredShown {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    created: Option<Timestamp>,
    #[prost(message, optional, tag = "3")]
    expires: Option<Timestamp>,
    #[prost(string, tag = "4")]
    volume: String,
    #[prost(message, repeated, tag = "5")]
    rules: Vec<StoredRule>,
    #[prost(double, tag = "6")]
    seconds: f64,
    #[prost(uint64, tag = "7")]
    index_files: u64,
    #[prost(uint64, tag = "8")]
    examined: u64,
    #[prost(message, optional, tag = "9")]
    totals: Option<StoredTotals>,
    #[prost(message, optional, tag = "10")]
    kept: Option<StoredKept>,
    #[prost(message, repeated, tag = "11")]
    by_owner: Vec<StoredOwner>,
    #[prost(string, tag = "12")]
    refusal: String,
    #[prost(string, tag = "13")]
    run: String,
    #[prost(string, tag = "30")]
    guard: String,
    #[prost(uint64, tag = "31")]
    grace: u64,
    #[prost(message, optional, tag = "40")]
    forgiven: Option<StoredForgiven>,
    #[prost(message, repeated, tag = "50")]
    idle: Vec<StoredIdle>,
    #[prost(uint64, tag = "60")]
    times_ahead: u64,
    #[prost(uint64, tag = "61")]
    mounted: u64,
    #[prost(uint64, optional, tag = "62")]
    takes: Option<u64>,
    #[prost(string, repeated, tag = "63")]
    left_out: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredRule {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    totals: Option<StoredTotals>,
    #[prost(string, tag = "3")]
    remark: String,
    #[prost(message, repeated, tag = "4")]
    goes_with: Vec<StoredGoesWith>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredGoesWith {
    #[prost(string, tag = "1")]
    rule: String,
    #[prost(uint64, tag = "2")]
    files: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredKept {
    #[prost(uint64, tag = "1")]
    held: u64,
    #[prost(uint64, tag = "2")]
    excluded: u64,
    #[prost(uint64, tag = "3")]
    young: u64,
    #[prost(uint64, tag = "4")]
    uncovered: u64,
    #[prost(uint64, tag = "5")]
    limit: u64,
    #[prost(uint64, tag = "6")]
    out_of_scope: u64,
    #[prost(uint64, tag = "7")]
    announced: u64,
    #[prost(message, optional, tag = "8")]
    ripe_from: Option<Timestamp>,
    #[prost(message, optional, tag = "9")]
    ripe_until: Option<Timestamp>,
    #[prost(uint64, tag = "10")]
    mounted: u64,
    #[prost(uint64, tag = "11")]
    other_subjects: u64,
    #[prost(uint64, tag = "12")]
    not_needed: u64,
}

impl From<Kept> for StoredKept {
    fn from(kept: Kept) -> Self {
        Self {
            held: kept.held,
            excluded: kept.excluded,
            young: kept.young,
            uncovered: kept.uncovered,
            limit: kept.limit,
            out_of_scope: kept.out_of_scope,
            announced: kept.announced,
            ripe_from: kept.ripe.map(|(from, _)| timestamp(from)),
            ripe_until: kept.ripe.map(|(_, until)| timestamp(until)),
            mounted: kept.mounted,
            other_subjects: kept.other_subjects,
            not_needed: kept.not_needed,
        }
    }
}

impl From<StoredKept> for Kept {
    fn from(kept: StoredKept) -> Self {
        Self {
            held: kept.held,
            excluded: kept.excluded,
            young: kept.young,
            uncovered: kept.uncovered,
            limit: kept.limit,
            out_of_scope: kept.out_of_scope,
            announced: kept.announced,
            ripe: kept.ripe_from.map(seconds).zip(kept.ripe_until.map(seconds)),
            mounted: kept.mounted,
            other_subjects: kept.other_subjects,
            not_needed: kept.not_needed,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct StoredOwner {
    #[prost(string, tag = "1")]
    owner: String,
    #[prost(uint32, tag = "2")]
    uid: u32,
    #[prost(uint64, tag = "3")]
    files: u64,
    #[prost(uint64, tag = "4")]
    bytes: u64,
    #[prost(uint64, tag = "5")]
    takes: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredForgiven {
    #[prost(uint64, tag = "1")]
    stretches: u64,
    #[prost(uint64, tag = "2")]
    seconds: u64,
    #[prost(uint64, tag = "3")]
    taken: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredIdle {
    #[prost(string, tag = "1")]
    rule: String,
    #[prost(string, tag = "2")]
    pattern: String,
    #[prost(string, tag = "3")]
    did_you_mean: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredPromise {
    #[prost(uint64, tag = "1")]
    bytes: u64,
    #[prost(uint64, tag = "2")]
    files: u64,
    #[prost(uint64, tag = "3")]
    allocated: u64,
    #[prost(bool, tag = "4")]
    wants_bytes: bool,
    #[prost(bool, tag = "5")]
    wants_files: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StoredProbes {
    #[prost(uint32, tag = "1")]
    uid: u32,
    #[prost(uint64, tag = "2")]
    threshold: u64,
    #[prost(message, repeated, tag = "3")]
    probes: Vec<Probe>,
}

/// An earlier version would delete what such a plan takes without a copy. It reads that the plan is refused.
const ARCHIVES: &str = "it archives, which this version of the agent does not know; make a new plan";

/// What a head says.
pub(super) enum Head {
    /// A plan.
    Whole(Box<Plan>),
    /// This plan is being made, or being removed: what there is of it is to be removed.
    Partial(String),
}

/// The head of a plan that is being made, or being removed.
pub(super) fn encode_partial(id: &str, made: Option<(Seconds, &str)>) -> Vec<u8> {
    let shown = StoredShown {
        id: id.to_owned(),
        created: made.map(|(at, _)| timestamp(at)),
        volume: made.map(|(_, volume)| volume.to_owned()).unwrap_or_default(),
        ..StoredShown::default()
    };
    let stored = StoredPlan {
        shown: Some(shown),
        is_partial: true,
        ..StoredPlan::default()
    };
    stored.encode_to_vec()
}

/// The head of a plan.
pub(super) fn encode(plan: &Plan) -> Vec<u8> {
    stored(plan).encode_to_vec()
}

/// How long that is.
pub(super) fn encoded_len(plan: &Plan) -> usize {
    stored(plan).encoded_len()
}

fn stored(plan: &Plan) -> StoredPlan {
    let rules = plan.rules.iter();
    let archives = |of: fn(&Destination) -> &str| match plan.archives() {
        true => {
            let all = plan.rules.iter();
            all.map(|rule| rule.archive.as_ref().map_or("", of).to_owned())
                .collect()
        }
        false => Vec::new(),
    };
    StoredPlan {
        shown: Some(shown(plan)),
        chunks: plan.chunks,
        fingerprint: plan.fingerprint.text().to_owned(),
        max_errors: plan.max_errors,
        first_empty_chunk: plan.first_empty_chunk,
        rules: rules.clone().map(|rule| rule.name.clone()).collect(),
        own_ttl: plan.own_ttl,
        trigger: plan.trigger.clone().unwrap_or_default(),
        reasons: rules.clone().filter_map(|rule| rule.because.clone()).collect(),
        graces: rules.map(|rule| rule.grace).collect(),
        archives: archives(|to| &to.name),
        archive_urls: archives(|to| &to.url),
        by: plan.by.clone(),
        bytes: plan.bytes,
        is_partial: false,
        began: plan.began,
        promise: plan.promise.map(|p| StoredPromise {
            bytes: p.bytes,
            files: p.files,
            allocated: p.allocated,
            wants_bytes: p.wants_bytes,
            wants_files: p.wants_files,
        }),
        drawn: plan.drawn.iter().map(StoredProbes::of).collect(),
    }
}

fn goes_with(rule: &str, files: u64) -> StoredGoesWith {
    StoredGoesWith {
        rule: rule.to_owned(),
        files,
    }
}

fn shown(plan: &Plan) -> StoredShown {
    let rule = |rule: &RuleShare| StoredRule {
        name: rule.name.clone(),
        totals: Some(rule.totals.into()),
        remark: rule.remark.clone(),
        goes_with: rule
            .goes_with
            .iter()
            .map(|(rule, files)| goes_with(rule, *files))
            .collect(),
    };
    let owner = |o: &OwnerShare| StoredOwner {
        owner: o.owner.clone(),
        uid: o.uid,
        files: o.files,
        bytes: o.bytes,
        takes: o.takes,
    };
    let idle = |i: &IdlePattern| StoredIdle {
        rule: i.rule.clone(),
        pattern: i.pattern.clone(),
        did_you_mean: i.did_you_mean.clone().unwrap_or_default(),
    };
    StoredShown {
        id: plan.id.clone(),
        created: Some(timestamp(plan.created)),
        expires: Some(timestamp(plan.expires)),
        volume: plan.volume.clone(),
        rules: plan.rules.iter().map(rule).collect(),
        seconds: plan.seconds,
        index_files: plan.index_files,
        examined: plan.examined,
        totals: Some(plan.totals.into()),
        kept: Some(plan.kept.into()),
        by_owner: plan.by_owner.iter().map(owner).collect(),
        refusal: match &plan.refusal {
            None if plan.archives() => ARCHIVES.to_owned(),
            refusal => refusal.clone().unwrap_or_default(),
        },
        run: plan.run.clone().unwrap_or_default(),
        guard: plan.guard.map_or("", Guard::name).into(),
        grace: plan.grace,
        forgiven: plan.forgiven.map(|f| StoredForgiven {
            stretches: f.stretches,
            seconds: f.seconds,
            taken: f.taken,
        }),
        idle: plan.idle.iter().map(idle).collect(),
        times_ahead: plan.times_ahead,
        mounted: plan.mounted,
        takes: plan.takes,
        left_out: plan.left_out.clone(),
    }
}

/// What a head says.
pub(super) fn decode(bytes: &[u8]) -> Result<Head, Damaged> {
    let stored = StoredPlan::decode(bytes)?;
    let shown = stored.shown.ok_or(Damaged::Lacks("plan"))?;
    if stored.is_partial {
        return Ok(Head::Partial(shown.id));
    }
    let created = seconds(shown.created.ok_or(Damaged::Lacks("time at which it was made"))?);
    let (reasons, graces) = (stored.reasons, stored.graces);
    let (archives, urls) = (stored.archives, stored.archive_urls);
    let archive = |n: usize| {
        let (name, url) = (archives.get(n)?.clone(), urls.get(n)?.clone());
        (!name.is_empty()).then_some(Destination { name, url })
    };
    let all = shown.rules.into_iter().enumerate();
    let rules = all.map(|(n, rule)| RuleShare {
        name: rule.name,
        totals: totals(rule.totals),
        grace: graces.get(n).copied().unwrap_or(0),
        archive: archive(n),
        because: reasons.get(n).cloned(),
        remark: rule.remark,
        goes_with: rule.goes_with.into_iter().map(|g| (g.rule, g.files)).collect(),
    });
    let kept = shown.kept.unwrap_or_default();
    let owners = shown.by_owner.into_iter().map(|o| OwnerShare {
        owner: o.owner,
        uid: o.uid,
        files: o.files,
        bytes: o.bytes,
        takes: o.takes,
    });
    let idle = shown.idle.into_iter().map(|i| IdlePattern {
        rule: i.rule,
        pattern: i.pattern,
        did_you_mean: words(i.did_you_mean),
    });
    Ok(Head::Whole(Box::new(Plan {
        id: shown.id,
        created,
        expires: shown.expires.map_or(created.plus(EXPIRES_AFTER_SECONDS), seconds),
        volume: shown.volume,
        by: stored.by,
        trigger: words(stored.trigger),
        rules: rules.collect(),
        totals: totals(shown.totals),
        takes: shown.takes,
        kept: kept.into(),
        by_owner: owners.collect(),
        mounted: shown.mounted,
        times_ahead: shown.times_ahead,
        left_out: shown.left_out,
        forgiven: shown.forgiven.map(|f| Forgiven {
            stretches: f.stretches,
            seconds: f.seconds,
            taken: f.taken,
        }),
        idle: idle.collect(),
        seconds: shown.seconds,
        index_files: shown.index_files,
        examined: shown.examined,
        began: stored.began,
        guard: Guard::named(&shown.guard),
        grace: shown.grace,
        refusal: words(shown.refusal).filter(|why| why != ARCHIVES),
        run: words(shown.run),
        max_errors: stored.max_errors,
        fingerprint: Fingerprint::stored(stored.fingerprint),
        own_ttl: stored.own_ttl,
        chunks: stored.chunks,
        first_empty_chunk: stored.first_empty_chunk,
        bytes: stored.bytes,
        promise: stored.promise.map(|p| Promise {
            bytes: p.bytes,
            files: p.files,
            allocated: p.allocated,
            wants_bytes: p.wants_bytes,
            wants_files: p.wants_files,
        }),
        drawn: stored.drawn.into_iter().map(StoredProbes::read).collect(),
    })))
}

impl StoredProbes {
    fn of(drawn: &OwnerProbes) -> Self {
        Self {
            uid: drawn.uid,
            threshold: drawn.threshold,
            probes: drawn.probes.clone(),
        }
    }

    fn read(self) -> OwnerProbes {
        OwnerProbes {
            uid: self.uid,
            threshold: self.threshold,
            probes: self.probes,
        }
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
