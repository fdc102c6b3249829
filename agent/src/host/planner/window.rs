//! All that quotas and watermarks take within a day is bound by the limits of their rules together, and by `max_fraction` together with
//! what schedules took. What counts is the number of files and what they take on the disk.

use purge_proto::units::{format_count, format_limit, format_size};

use super::Planner;
use super::too_many::{Going, TooMany, whole_of};
use crate::host::HostError;
use crate::volume::Volume;
use purge_policy::evaluate::Evaluation;
use purge_policy::portion::Portion;
use purge_policy::rule::Rule;

/// Some owners by whose files a plan passes `max_fraction`.
pub(super) struct Bound {
    pub many: TooMany,
    /// What goes besides, with what went within the last day.
    rest: Portion,
    whole: Portion,
    limit: f64,
}

impl Bound {
    /// Whether so much of those owners' may go as well.
    pub(super) fn has_room_for(&self, part: Portion) -> bool {
        self.rest.plus(part).share_of(self.whole) <= self.limit
    }
}

impl Planner {
    /// Leaves of a rule's limits what triggers have not taken within the last day.
    ///
    /// # Errors
    /// When nothing is left.
    pub(super) fn bind_to_window(&self, volume: &Volume, rule: &mut Rule) -> Result<(), HostError> {
        let lately = self.brakes.taken_lately(&volume.config.name)?;
        let limits = [
            (
                "max_files",
                &mut rule.max_files,
                lately.triggered.files,
                format_count as fn(u64) -> String,
            ),
            (
                "max_bytes",
                &mut rule.max_bytes,
                lately.triggered_takes,
                format_limit,
            ),
        ];
        let took = (lately.triggered.files, lately.triggered_takes);
        for (key, limit, taken, in_words) in limits {
            // 0: there is no limit.
            if *limit > 0 && taken >= *limit {
                let reached = format!("{key} of rule {} ({})", rule.name, in_words(*limit));
                return Err(HostError::Refused(used_up(&reached, took)));
            }
            *limit = limit.saturating_sub(taken);
        }
        Ok(())
    }

    /// Whether so much more of the volume may go within the same day. It may without some files of a few owners: then which.
    ///
    /// # Errors
    /// When it is too much.
    pub(super) fn check_window(
        &self,
        volume: &Volume,
        rule: &Rule,
        found: &Evaluation,
    ) -> Result<Option<Bound>, HostError> {
        let Some(limit) = rule.max_fraction else {
            return Ok(None);
        };
        let lately = self.brakes.taken_lately(&volume.config.name)?;
        let whole = whole_of(volume).plus(lately.all);
        let going = found.portion().plus(lately.all);
        let share = going.share_of(whole);
        let asked = Going {
            plan: &found.by_owner,
            all: going,
            before: &lately.by_owner,
            whole,
        };
        if let Some(many) = TooMany::find(volume, limit, &asked) {
            let rest = going.minus(many.part);
            return Ok(Some(Bound {
                many,
                rest,
                whole,
                limit,
            }));
        }
        // The plan alone is compared when it is saved.
        if share <= limit || (lately.all.files, lately.all.takes) == (0, 0) {
            return Ok(None);
        }
        let reached = format!(
            "max_fraction of rule {} ({}%; with what is wanted now it would be {:.1}%)",
            rule.name,
            limit * 100.0,
            share * 100.0
        );
        Err(HostError::Refused(used_up(
            &reached,
            (lately.all.files, lately.all.takes),
        )))
    }
}

fn used_up(limit: &str, (files, takes): (u64, u64)) -> String {
    format!(
        "{limit} is used up: {} files, {} on the disk, were taken within the last 24 h without a person; it waits until these 24 h \
         have passed. To take more now, look at a plan and apply it (purgectl plan, purgectl apply), or raise the limit in the rule and \
         reload",
        format_count(files),
        format_size(takes)
    )
}
