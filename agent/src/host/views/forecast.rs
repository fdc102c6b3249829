//! What will expire, and which limits will be reached.

use std::collections::HashMap;
use std::sync::Arc;

use super::growth::{History, SHARES_MAX, Sample, Share, measured_for_at_least};
use crate::host::asker::Asker;
use crate::host::asker::namer;
use crate::host::asker::projects_of;
use crate::host::judge::Judge;
use crate::host::space::space_of;
use crate::host::trash::TrashKeeper;
use crate::host::{Ground, HostError, Wanted, lossy};
use crate::volume::{State, Volume};
use purge_base::accounts::largest_named;
use purge_base::clock;
use purge_index::DirId;
use purge_model::{Seconds, Totals};
use purge_policy::allowance::{Quota, Watermark};
use purge_policy::evaluate::{Circumstances, Pick};
use purge_policy::forecast::{self, By, Outlook};
use purge_policy::growth::{growth, reached_at};
use purge_policy::quota;
use purge_policy::watermark;

const DAY: u64 = 86_400;
/// Rows of limits in an answer.
const LIMITS_MAX: usize = 1000;
/// For at most this number of limits, an evaluation of the whole index says what would be purged.
const EVALUATED_MAX: usize = 10;
/// Days that may be asked for.
pub const DAYS_MAX: u32 = 3650;

/// What will expire, and which limits will be reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// The volume's name.
    pub volume: String,
    /// The rules' names.
    pub rules: Vec<String>,
    /// The moment from which days are counted.
    pub from: Seconds,
    /// What has expired already.
    pub due: Option<Due>,
    /// What expires on each of the next days, of 24 hours.
    pub days: Vec<Due>,
    /// The same by subject, most bytes first.
    pub subjects: Vec<SubjectForecast>,
    /// Limits that are reached, or will be within these days; the next first.
    pub limits: Vec<LimitForecast>,
    /// For how many seconds the use of the volume has been noted, and for how many it must be before its growth is told; 0: it has no limit.
    pub noted: (u64, u64),
}

/// What expires on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The end of the day. For what has expired already, the present.
    pub until: Seconds,
    /// How many files.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
}

/// What expires of one user, or in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectForecast {
    /// A user, or a path below the volume.
    pub subject: String,
    /// How many files in all.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// What has expired already.
    pub due: Option<Due>,
    /// Only days on which something expires.
    pub days: Vec<Due>,
}

/// When a limit is reached at the present growth.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitForecast {
    /// "quota NAME" or "watermark VOLUME".
    pub limit: String,
    /// Of a quota: whose use it is.
    pub subject: String,
    /// bytes, byte-days or inodes.
    pub measure: &'static str,
    /// How much is used.
    pub used: f64,
    /// How much may be used.
    pub most: f64,
    /// None while nothing was measured for long enough.
    pub growth_per_day: Option<f64>,
    /// Over how many seconds the growth was measured.
    pub measured: u64,
    /// The present where it is reached; none where it will not be at this growth.
    pub reached: Option<Seconds>,
    /// What would be deleted then if nothing is used until then; for the first limits.
    pub would_go: Option<Totals>,
}

/// Something that is limited.
pub(super) struct Limited<'a> {
    asker: &'a Asker,
    pub(super) subject: String,
    pub(super) measure: &'static str,
    pub(super) used: f64,
    pub(super) most: f64,
    /// What is used once as much was freed as is freed when the limit is reached.
    low: f64,
    /// Earlier values.
    pub(super) samples: Vec<(Seconds, f64)>,
}

/// Makes forecasts.
#[derive(Debug)]
pub struct Forecaster {
    pub(super) ground: Arc<Ground>,
    pub(super) judge: Arc<Judge>,
    /// What lies there is as good as free.
    trash: Arc<TrashKeeper>,
    /// How much there was at earlier times.
    pub(super) history: History,
}

impl Forecaster {
    /// With what earlier processes sampled.
    pub(in crate::host) fn load((ground, judge): (Arc<Ground>, Arc<Judge>), trash: Arc<TrashKeeper>) -> Self {
        Self {
            history: History::load(&ground.anchor),
            ground,
            judge,
            trash,
        }
    }

    /// Notes how much there is on each volume, for forecasts, if that was not done for an hour.
    pub fn note_growth(&self) {
        let now = clock::judged();
        for volume in &self.ground.volumes() {
            let is_whole = matches!(volume.condition().state, State::Tracking);
            if !is_whole || !self.history.is_due(&volume.config.name, now) {
                continue;
            }
            let noted = self.sample(volume, now).and_then(|sample| {
                let added = self.history.add(sample);
                added.map_err(|e| HostError::Refused(format!("{}: {e}", self.ground.state_dir.display())))
            });
            if let Err(error) = noted {
                tracing::warn!(volume = %volume.config.name, %error, "the growth cannot be noted");
            }
        }
    }

    fn sample(&self, volume: &Volume, now: Seconds) -> Result<Sample, HostError> {
        let space = space_of(volume)?;
        let mut shares = Vec::new();
        for q in self.quotas_of(volume) {
            let used = quota::used(
                &volume.watched.index.read(),
                (&q, &projects_of(&q, volume)),
                now,
                namer(&q),
            )?;
            shares.extend(used.into_iter().map(|(_, subject, used)| Share {
                quota: q.name.clone(),
                subject,
                bytes: used.bytes as f64,
                byte_days: used.byte_days as f64,
            }));
        }
        shares.sort_by(|a, b| b.byte_days.total_cmp(&a.byte_days));
        shares.truncate(SHARES_MAX);
        Ok(Sample {
            at: now.0,
            volume: volume.config.name.clone(),
            used: space.used,
            inodes: space.inodes_used,
            shares,
        })
    }

    fn quotas_of(&self, volume: &Volume) -> Vec<Quota> {
        let all = self.ground.limits().quotas.into_iter();
        all.filter(|q| q.volume == volume.config.name).collect()
    }

    /// How many bytes [`Forecaster::forecast`] takes at most, besides what rules take to be evaluated.
    ///
    /// # Errors
    /// When the rules are unknown or do not belong together.
    pub fn forecast_bytes(&self, wanted: &Wanted, days: u32, by: By) -> Result<u64, HostError> {
        const DAY_BYTES: u64 = size_of::<forecast::Share>() as u64;
        let (volume, _) = wanted.choose(&self.ground)?;
        let index = volume.watched.index.read();
        let subjects = match by {
            By::Nothing => 1,
            By::User => index.ledger().users().len(),
            By::Directory(depth) => {
                let levels = index.dirs().inherit(0u32, |_, _, above| above.saturating_add(1));
                levels
                    .into_iter()
                    .filter(|level| *level <= depth.saturating_add(1))
                    .count()
            }
        };
        Ok((subjects as u64).saturating_mul(u64::from(days).saturating_mul(DAY_BYTES)))
    }

    /// What the rules take on which of the next days, and which limits will be reached in that time.
    ///
    /// # Errors
    /// When the rules are unknown or do not belong together, or the volume is in doubt.
    pub fn forecast(&self, wanted: &Wanted, days: u32, by: By) -> Result<Forecast, HostError> {
        let (volume, rules) = wanted.choose(&self.ground)?;
        self.judge.check_certain(&volume)?;
        volume.sync_soon();
        let at = self.judge.circumstances(&volume);
        let (outlook, paths) = {
            let index = volume.watched.index.read();
            let outlook = forecast::forecast(&index, &rules, &at, days, by)?;
            let path = |id: &u32| match index.dirs().path(DirId(*id)) {
                Some(path) if !path.is_empty() => (*id, lossy(&path)),
                _ => (*id, ".".into()),
            };
            let of_directories = matches!(by, By::Directory(_)).then(|| outlook.subjects.keys().map(path));
            let paths: Option<HashMap<u32, String>> = of_directories.map(Iterator::collect);
            (outlook, paths)
        };
        // Uses are recorded while a directory service is asked for names.
        let names = paths.unwrap_or_else(|| largest_named(&by_weight(&outlook)));
        let name = |id: u32| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let subjects = subjects(&outlook, at.now, name);
        let mut days_told = due_days(&outlook.days, at.now);
        Ok(Forecast {
            volume: volume.config.name.clone(),
            rules: rules.into_iter().map(|r| r.name).collect(),
            from: at.now,
            due: (!days_told.is_empty()).then(|| days_told.remove(0)),
            days: days_told,
            subjects,
            limits: self.limits_ahead(&volume, &at, days)?,
            noted: self.noted_for(&volume, at.now),
        })
    }

    fn noted_for(&self, volume: &Volume, now: Seconds) -> (u64, u64) {
        let name = &volume.config.name;
        let first = self.history.of(name).into_iter().next();
        let noted = first.map_or(0, |first| Seconds(first.at).age_at(now));
        let limits = self.ground.limits();
        let is_limited = limits.quotas.iter().any(|q| q.volume == *name)
            || limits.watermarks.iter().any(|w| w.volume == *name);
        (noted, if is_limited { measured_for_at_least() } else { 0 })
    }

    /// The limits that are reached, or will be within `days` days; the next first.
    fn limits_ahead(
        &self,
        volume: &Volume,
        at: &Circumstances,
        days: u32,
    ) -> Result<Vec<LimitForecast>, HostError> {
        let samples = self.history.of(&volume.config.name);
        let quotas = self.quotas_of(volume).into_iter().map(Asker::Quota);
        let watermarks = self.ground.limits().watermarks.into_iter();
        let watermarks = watermarks.filter(|w| w.volume == volume.config.name);
        let askers: Vec<Asker> = quotas.chain(watermarks.map(Asker::Watermark)).collect();
        let mut all = Vec::new();
        for asker in &askers {
            match asker {
                Asker::Quota(q) => all.extend(limited_by_quota(asker, q, volume, at, &samples)?),
                Asker::Watermark(w) => all.extend(self.limited_by_watermark(asker, w, volume, &samples)?),
            }
        }
        let horizon = at.now.plus(u64::from(days).saturating_mul(DAY));
        let mut rows: Vec<(Option<Seconds>, LimitForecast, Limited<'_>)> = Vec::new();
        for limited in all {
            let growth = growth(
                limited.samples.iter().copied(),
                limited.used,
                at.now,
                measured_for_at_least(),
            );
            let reached = reached_at(limited.used, limited.most, growth, at.now);
            // A watermark is one for the whole volume: how it stands is always told.
            let is_watermark = matches!(limited.asker, Asker::Watermark(_));
            if is_watermark || reached.is_some_and(|reached| reached <= horizon) {
                let row = LimitForecast {
                    limit: limited.asker.name(),
                    subject: limited.subject.clone(),
                    measure: limited.measure,
                    used: limited.used,
                    most: limited.most,
                    growth_per_day: growth.map(|g| g.per_day),
                    measured: growth.map_or(0, |g| g.measured),
                    reached,
                    would_go: None,
                };
                rows.push((reached, row, limited));
            }
        }
        rows.sort_by(|a, b| {
            let key = |row: &(Option<Seconds>, LimitForecast, Limited<'_>)| {
                (
                    row.0.unwrap_or(Seconds::MAX),
                    row.1.limit.clone(),
                    row.1.subject.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        rows.truncate(LIMITS_MAX);
        let due = rows.iter_mut().filter(|row| row.0.is_some()).take(EVALUATED_MAX);
        for (reached, row, limited) in due {
            let then = Circumstances {
                now: reached.unwrap_or(at.now),
                ..at.clone()
            };
            row.would_go = Some(self.would_go(volume, limited, &then)?);
        }
        Ok(rows.into_iter().map(|(_, row, _)| row).collect())
    }

    fn limited_by_watermark<'a>(
        &self,
        asker: &'a Asker,
        w: &Watermark,
        volume: &Volume,
        samples: &[Sample],
    ) -> Result<Vec<Limited<'a>>, HostError> {
        let space = space_of(volume)?;
        let trash = self.trash.trash_of(&w.volume);
        let all = space.used.saturating_add(space.available);
        let part = |measure, used: u64, all: u64, samples| Limited {
            asker,
            subject: String::new(),
            measure,
            used: used as f64,
            most: all as f64 * w.high,
            low: all as f64 * w.low,
            samples,
        };
        let earlier = |of: fn(&Sample) -> u64| {
            let values = samples.iter().map(|s| (Seconds(s.at), of(s) as f64));
            values.collect()
        };
        let in_trash = trash.all_files().saturating_add(trash.directories);
        let mut found = vec![part(
            "bytes",
            space.used.saturating_sub(trash.bytes),
            all,
            earlier(|s| s.used),
        )];
        if space.inodes > 0 {
            let used = space.inodes_used.saturating_sub(in_trash);
            found.push(part("inodes", used, space.inodes, earlier(|s| s.inodes)));
        }
        Ok(found)
    }

    /// What would go at `then.now`, if nothing is used until then.
    fn would_go(
        &self,
        volume: &Volume,
        limited: &Limited<'_>,
        then: &Circumstances,
    ) -> Result<Totals, HostError> {
        let rule = self.ground.rule_of(limited.asker)?;
        let need = limited.used.max(limited.most) - limited.low;
        let index = volume.watched.index.read();
        match limited.asker {
            Asker::Watermark(w) => {
                let need = match limited.measure {
                    "bytes" => (need.ceil() as u128, 0),
                    _ => (0, need.ceil() as u128),
                };
                let found = watermark::watermark(&index, (&rule, w.min_age), need, String::new(), then)?;
                Ok(sum(found.evaluation.picks.iter()))
            }
            Asker::Quota(q) => {
                let named = projects_of(q, volume);
                let limit = of_subject(q, &limited.subject, (limited.measure, need), |q| {
                    let used = quota::used(&index, (q, &named), then.now, namer(q))?;
                    let theirs = used.into_iter().find(|(_, name, _)| *name == limited.subject);
                    Ok(theirs.map(|(_, _, sums)| sums).unwrap_or_default())
                })?;
                let found = quota::quota(&index, (&limit, &named), None, &rule, then, namer(q))?;
                let wanted = format!("{}/{}", q.name, limited.subject);
                let theirs = found.evaluation.picks.iter().filter(|p| {
                    let reason = found.reasons.get(usize::from(p.rule));
                    reason.is_some_and(|r| r.name == wanted)
                });
                Ok(sum(theirs))
            }
        }
    }
}

/// A quota under which exactly `need` of one measure is too much for one subject.
fn of_subject(
    q: &Quota,
    subject: &str,
    (measure, need): (&str, f64),
    used: impl FnOnce(&Quota) -> Result<quota::Sums, HostError>,
) -> Result<Quota, HostError> {
    let used = used(q)?;
    let left = |used: u128| {
        let left = used.saturating_sub(need.ceil() as u128);
        Some(u64::try_from(left).unwrap_or(u64::MAX))
    };
    let (hard, temporal) = match measure {
        "bytes" => (left(used.bytes), None),
        _ => (None, left(used.byte_days)),
    };
    tracing::debug!(quota = %q.name, subject, hard, temporal, "what would go");
    Ok(Quota {
        hard,
        temporal,
        max_age: None,
        low: 1.0,
        overrides: Vec::new(),
        ..q.clone()
    })
}

pub(super) fn limited_by_quota<'a>(
    asker: &'a Asker,
    q: &Quota,
    volume: &Volume,
    at: &Circumstances,
    samples: &[Sample],
) -> Result<Vec<Limited<'a>>, HostError> {
    let mut all = Vec::new();
    let used = quota::used(
        &volume.watched.index.read(),
        (q, &projects_of(q, volume)),
        at.now,
        namer(q),
    )?;
    // By subject: when, bytes and byte-days.
    let mut earlier: HashMap<&str, Vec<(Seconds, f64, f64)>> = Default::default();
    for sample in samples {
        for share in sample.shares.iter().filter(|s| s.quota == q.name) {
            let values = earlier.entry(&share.subject).or_default();
            values.push((Seconds(sample.at), share.bytes, share.byte_days));
        }
    }
    for (whose, subject, sums) in used {
        let (hard, temporal) = q.limits_of(whose.id(), &subject);
        let of = |measure, used: u128, most: u64, pick: fn(&(Seconds, f64, f64)) -> f64| Limited {
            asker,
            measure,
            used: used as f64,
            most: most as f64,
            low: most as f64 * q.low,
            samples: earlier
                .get(subject.as_str())
                .map(|values| values.iter().map(|v| (v.0, pick(v))).collect())
                .unwrap_or_default(),
            subject: subject.clone(),
        };
        all.extend(hard.map(|most| of("bytes", sums.bytes, most, |v| v.1)));
        all.extend(temporal.map(|most| of("byte-days", sums.byte_days, most, |v| v.2)));
    }
    Ok(all)
}

fn sum<'p>(picks: impl Iterator<Item = &'p Pick>) -> Totals {
    picks.fold(Totals::default(), |sum, pick| Totals {
        files: sum.files.saturating_add(pick.files.into()),
        bytes: sum.bytes.saturating_add(pick.bytes),
        ..Totals::default()
    })
}

fn due_days(days: &[forecast::Share], now: Seconds) -> Vec<Due> {
    let told = days.iter().enumerate().map(|(day, (files, bytes))| Due {
        until: now.plus((day as u64).saturating_mul(DAY)),
        files: *files,
        bytes: u64::try_from(*bytes).unwrap_or(u64::MAX),
    });
    told.collect()
}

/// The subjects, those with most bytes first.
fn by_weight(outlook: &Outlook) -> Vec<u32> {
    let weight = |days: &[forecast::Share]| days.iter().fold(0u128, |sum, day| sum.saturating_add(day.1));
    let all = outlook.subjects.iter();
    let mut all: Vec<(u128, u32)> = all.map(|(id, days)| (weight(days), *id)).collect();
    all.sort_unstable_by_key(|(weight, id)| (std::cmp::Reverse(*weight), *id));
    all.into_iter().map(|(_, id)| id).collect()
}

fn subjects(outlook: &Outlook, now: Seconds, name: impl Fn(u32) -> String) -> Vec<SubjectForecast> {
    let mut rows: Vec<SubjectForecast> = outlook
        .subjects
        .iter()
        .map(|(subject, days)| {
            let mut told = due_days(days, now);
            let due = (!told.is_empty()).then(|| told.remove(0));
            let all = days.iter().fold((0u64, 0u128), |a, b| {
                (a.0.saturating_add(b.0), a.1.saturating_add(b.1))
            });
            told.retain(|day| day.files > 0);
            SubjectForecast {
                subject: name(*subject),
                files: all.0,
                bytes: u64::try_from(all.1).unwrap_or(u64::MAX),
                due: due.filter(|due| due.files > 0),
                days: told,
            }
        })
        .collect();
    rows.sort_unstable_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.subject.cmp(&b.subject)));
    rows
}
