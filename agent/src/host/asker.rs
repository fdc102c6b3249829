//! Who asks for plans besides rules: quotas and watermarks.

use std::path::Path;

use super::{Ground, HostError};
use crate::volume::Volume;
use purge_base::accounts::{group_name, user_name};
use purge_policy::allowance::{Quota, Watermark};
use purge_policy::rooted::Named;
use purge_policy::rule::{Action, Rule};
use purge_policy::whom::QuotaSubject;
use purge_removal::plans::{Fingerprint, Plan};
use purge_sys::trusted;

/// Who asks.
pub(super) enum Asker {
    Quota(Quota),
    Watermark(Watermark),
}

impl Asker {
    pub(super) fn volume(&self) -> &str {
        match self {
            Self::Quota(q) => &q.volume,
            Self::Watermark(w) => &w.volume,
        }
    }

    /// As it is remembered with a plan.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Quota(q) => format!("quota {}", q.name),
            Self::Watermark(w) => format!("watermark {}", w.volume),
        }
    }

    /// What two equal ones have in common, together with their rule.
    pub(super) fn fingerprint(&self, rule: &Rule) -> Fingerprint {
        match self {
            Self::Quota(q) => Fingerprint::of_quota(q, rule),
            Self::Watermark(w) => Fingerprint::of_watermark(w, rule),
        }
    }
}

impl Ground {
    /// The rule whose scope counts. Without one the whole volume is in scope, which the configuration accepts only
    /// where the volume has no other rule to choose from.
    pub(super) fn rule_of(&self, asker: &Asker) -> Result<Rule, HostError> {
        let of_volume: Vec<Rule> = self
            .rules()
            .into_iter()
            .filter(|r| r.volume == asker.volume())
            .collect();
        let named = match asker {
            Asker::Quota(q) => q.rule.as_deref(),
            Asker::Watermark(w) => Some(w.rule.as_str()),
        };
        let mut rule = match (named, of_volume.as_slice()) {
            (Some(name), all) => all.iter().find(|r| r.name == name).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, []) => Some(Rule::everything_older(asker.volume(), 1)),
            (None, _) => None,
        }
        .ok_or_else(|| HostError::Refused(format!("{}: its rule is not in force", asker.name())))?;
        if let Asker::Quota(q) = asker
            && !q.purges()
        {
            rule.action = Action::Notify;
        }
        Ok(rule)
    }

    /// Whether the quota or watermark that asked for a plan is still what it was then.
    pub(super) fn is_unchanged(&self, plan: &Plan) -> bool {
        let limits = self.limits();
        let quotas = limits.quotas.into_iter().map(Asker::Quota);
        let mut askers = quotas.chain(limits.watermarks.into_iter().map(Asker::Watermark));
        askers
            .find(|a| Some(a.name()) == plan.trigger)
            .and_then(|a| Some(a.fingerprint(&self.rule_of(&a).ok()?)))
            .is_some_and(|now| now == plan.fingerprint)
    }
}

/// What root calls the directories of projects.
const PROJECTS: &str = "/etc/projects";
/// A larger file is not believed.
const PROJECTS_BYTES_MAX: u64 = 1 << 20;

/// The directories that `/etc/projects` names, where a quota asks for them.
pub(super) fn projects_of(q: &Quota, volume: &Volume) -> Named {
    if !q.purges() || q.subject != QuotaSubject::Project {
        return Named::default();
    }
    match trusted::read(Path::new(PROJECTS), PROJECTS_BYTES_MAX) {
        Ok(text) => Named::read(&text, &volume.config.path),
        Err(error) if error.is_absent() => Named::default(),
        Err(error) => {
            tracing::warn!(quota = %q.name, %error, "the directories that it names count for nothing");
            Named::default()
        }
    }
}

/// Names the ids that a quota sums by.
pub(super) fn namer(q: &Quota) -> fn(u32) -> String {
    match q.subject {
        QuotaSubject::Group => group_name,
        QuotaSubject::Project => |id| id.to_string(),
        _ => user_name,
    }
}
