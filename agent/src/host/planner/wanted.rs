//! What a client wants a plan or a forecast of.

use std::sync::Arc;

use crate::host::{Ground, HostError, shown};
use crate::volume::Volume;
use purge_index::DirId;
use purge_policy::evaluate::Only;
use purge_policy::rule::Rule;

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
    /// A part of the volume.
    pub only: Part,
    /// The plan is told and not kept: it cannot be applied.
    pub is_draft: bool,
}

/// A part of a volume, for which alone a plan is made.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// What lies below a directory, and its path.
    pub below: Option<(DirId, Vec<u8>)>,
    /// What a user has: the name that was given, and its uids.
    pub owner: Option<(String, Vec<u32>)>,
}

impl Part {
    /// For an evaluation.
    pub(super) fn only(&self) -> Only {
        Only {
            below: self.below.as_ref().map(|(directory, _)| *directory),
            owners: self
                .owner
                .as_ref()
                .map(|(_, uids)| uids.iter().copied().collect()),
        }
    }

    /// What that leaves out, for a person.
    pub(super) fn left_out(&self) -> Vec<String> {
        let below = self
            .below
            .iter()
            .map(|(_, path)| format!("all that is not below {}", shown(path)));
        let owner = self
            .owner
            .iter()
            .map(|(name, _)| format!("all that {name} does not own"));
        below.chain(owner).collect()
    }
}

impl Wanted {
    /// The volume that it speaks of, and the rules, those of the configuration or the one that a TTL stands for.
    ///
    /// # Errors
    /// When the rules are unknown or do not belong together.
    pub(in crate::host) fn choose(&self, ground: &Ground) -> Result<(Arc<Volume>, Vec<Rule>), HostError> {
        ground.meet_all_owners();
        let all = ground.rules();
        let mut chosen = Vec::new();
        for name in &self.rules {
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
        let volume = match (chosen.first(), self.volume.is_empty()) {
            (Some(rule), true) => ground.volume(&rule.volume)?,
            (None, true) if ground.volumes().len() > 1 => {
                let mut named = all.iter().map(|r| r.volume.as_str());
                let first = named.next().filter(|f| named.all(|n| n == *f));
                ground.volume(first.unwrap_or_default())?
            }
            _ => ground.volume(&self.volume)?,
        };
        let name = &volume.config.name;
        if let Some(stray) = chosen.iter().find(|r| r.volume != *name) {
            let why = format!(
                "rule {} speaks of volume {}, not {name}: make one plan for each",
                stray.name, stray.volume
            );
            return Err(HostError::Invalid { field: "rules", why });
        }
        if self.rules.is_empty() {
            chosen = all.into_iter().filter(|r| r.volume == *name).collect();
        }
        match self.ttl {
            Some(0) => {
                let why = "is 0: everything would go; give a time such as 28d".into();
                return Err(HostError::Invalid {
                    field: "ttl_seconds",
                    why,
                });
            }
            Some(ttl) if self.rules.is_empty() => chosen = vec![Rule::everything_older(name, ttl)],
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
