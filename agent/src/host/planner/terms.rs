//! What a plan is wanted for, and the rules and limits that count for it.

use super::wanted::Part;
use crate::host::asker::Asker;
use purge_policy::needed::Reason;
use purge_policy::rule::Rule;
use purge_removal::plans::{By, Fingerprint, Trigger};

/// What a plan is wanted for.
pub(super) enum What<'a> {
    /// Rules: all that they take.
    Rules {
        rules: Vec<Rule>,
        /// The plan stands for itself: its TTL came with the request, or its limits are not the rules' own.
        own_ttl: bool,
    },
    /// A quota or a watermark: as much as it needs.
    Limit(&'a Asker),
}

/// A plan that is wanted.
pub(super) struct Want<'a> {
    pub what: What<'a>,
    /// No person looks at it before it is applied.
    pub unattended: bool,
    /// More candidates than this are refused; none: as many as there are.
    pub candidates_max: Option<u64>,
    /// A part of the volume.
    pub only: Part,
    /// The plan is told and not kept.
    pub is_draft: bool,
    pub by: By<'a>,
}

/// What a plan is wanted for, with the rules and limits that count.
pub(super) enum Terms<'a> {
    Rules {
        rules: Vec<Rule>,
        own_ttl: bool,
    },
    Limit {
        asker: &'a Asker,
        rule: Box<Rule>,
        /// Of the asker and its rule as they are configured.
        fingerprint: Fingerprint,
    },
}

impl Terms<'_> {
    /// The rules in the order of the evaluation.
    pub(super) fn rules(&self) -> &[Rule] {
        match self {
            Self::Rules { rules, .. } => rules,
            Self::Limit { rule, .. } => std::slice::from_ref(rule),
        }
    }

    /// Whether the plan stands for itself.
    pub(super) fn has_own_ttl(&self) -> bool {
        match self {
            Self::Rules { own_ttl, .. } => *own_ttl,
            Self::Limit { .. } => true,
        }
    }

    /// Who asked, where that is a quota or watermark.
    pub(super) fn trigger(&self, reasons: Vec<Reason>) -> Option<Trigger> {
        match self {
            Self::Rules { .. } => None,
            Self::Limit {
                asker, fingerprint, ..
            } => Some(Trigger {
                name: asker.name(),
                fingerprint: fingerprint.clone(),
                reasons,
            }),
        }
    }
}
