//! How it stands with quotas: what each subject uses of what it may.

use super::forecast::{Forecaster, Limited, limited_by_quota};
use super::growth::measured_for_at_least;
use crate::host::HostError;
use crate::host::asker::{Asker, namer, projects_of};
use crate::volume::Volume;
use purge_model::Seconds;
use purge_policy::allowance::Quota;
use purge_policy::growth::{growth, reached_at};
use purge_policy::quota;

/// What one subject of a quota uses of what it may.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The quota's name.
    pub quota: String,
    /// The volume's name.
    pub volume: String,
    /// Whose use it is.
    pub subject: String,
    /// bytes or byte-days.
    pub measure: &'static str,
    /// How many files.
    pub files: u64,
    /// How much is used.
    pub used: f64,
    /// How much may be used; none: there is no limit.
    pub most: Option<f64>,
    /// Since when it is over its limit, as far as growth was noted; none: it is not, or that was not noted.
    pub over_since: Option<Seconds>,
    /// None while nothing was measured for long enough.
    pub growth_per_day: Option<f64>,
    /// When the limit is reached at this growth; the present where it is; none where it will not be.
    pub reached: Option<Seconds>,
}

impl Standing {
    fn share(&self) -> f64 {
        self.most.map_or(-1.0, |most| self.used / most.max(1.0))
    }
}

impl Forecaster {
    /// Every subject of a quota, or of all quotas, with an empty name; of each volume those that use most of their limit first.
    ///
    /// # Errors
    /// When there is no quota of this name, or a volume is in doubt.
    pub fn standings(&self, name: &str) -> Result<Vec<Standing>, HostError> {
        let all = self.ground.limits().quotas;
        let known: Vec<&str> = all.iter().map(|q| q.name.as_str()).collect();
        let known = known.join(", ");
        let wanted: Vec<Quota> = all
            .iter()
            .filter(|q| name.is_empty() || q.name == name)
            .cloned()
            .collect();
        if wanted.is_empty() && !name.is_empty() {
            let why = format!("there is no quota {name:?}; there are [{known}]");
            return Err(HostError::NotFound(why));
        }
        let mut rows = Vec::new();
        for q in wanted {
            let volume = self.ground.volume(&q.volume)?;
            self.ground.meet_owners(&volume.config.name);
            self.judge.check_certain(&volume)?;
            volume.sync_soon();
            let mut of_quota = self.of_quota(&q, &volume)?;
            of_quota.sort_by(|a, b| {
                b.share()
                    .total_cmp(&a.share())
                    .then_with(|| a.subject.cmp(&b.subject))
            });
            rows.extend(of_quota);
        }
        Ok(rows)
    }

    fn of_quota(&self, q: &Quota, volume: &Volume) -> Result<Vec<Standing>, HostError> {
        let at = self.judge.circumstances(volume);
        let samples = self.history.of(&volume.config.name);
        let asker = Asker::Quota(q.clone());
        let uses = quota::used(
            &volume.watched.index.read(),
            (q, &projects_of(q, volume)),
            at.now,
            namer(q),
        )?;
        let limited = limited_by_quota(&asker, q, volume, &at, &samples)?;
        let files = |subject: &str| {
            let found = uses.iter().find(|(_, name, _)| name == subject);
            found.map_or(0, |(_, _, sums)| sums.files)
        };
        let row = |subject: &str, measure, used| Standing {
            quota: q.name.clone(),
            volume: q.volume.clone(),
            subject: subject.to_owned(),
            measure,
            files: files(subject),
            used,
            most: None,
            over_since: None,
            growth_per_day: None,
            reached: None,
        };
        let mut rows: Vec<Standing> = limited
            .iter()
            .map(|one| {
                let growth = growth(
                    one.samples.iter().copied(),
                    one.used,
                    at.now,
                    measured_for_at_least(),
                );
                Standing {
                    most: Some(one.most),
                    over_since: over_since(one, at.now),
                    growth_per_day: growth.map(|g| g.per_day),
                    reached: reached_at(one.used, one.most, growth, at.now),
                    ..row(&one.subject, one.measure, one.used)
                }
            })
            .collect();
        let without = uses
            .iter()
            .filter(|(_, name, _)| !limited.iter().any(|l| l.subject == *name));
        rows.extend(without.map(|(_, name, sums)| row(name, "bytes", sums.bytes as f64)));
        Ok(rows)
    }
}

/// Since when more is used than may be, without a break in what was noted.
fn over_since(one: &Limited<'_>, now: Seconds) -> Option<Seconds> {
    if one.used <= one.most {
        return None;
    }
    let mut noted: Vec<(Seconds, f64)> = one.samples.iter().copied().filter(|(at, _)| *at <= now).collect();
    noted.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let over = noted.iter().take_while(|(_, used)| *used > one.most);
    over.last().map(|(at, _)| *at)
}
