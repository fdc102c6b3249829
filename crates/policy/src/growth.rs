//! How fast something grows, and when it will reach a limit if it goes on like that. Pure.

use purge_model::Seconds;

/// A growth that was measured over less says nothing: at night less is written than by day.
pub const MEASURED_MIN: u64 = DAY;
/// What is measured over: samples older than this are not looked at.
pub const MEASURED_MAX: u64 = 7 * DAY;

const DAY: u64 = 86_400;
const HOUR: u64 = 3600;

/// How much more there is each day, and over how many seconds that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Units a day; negative when it shrinks.
    pub per_day: f64,
    /// Seconds.
    pub measured: u64,
}

/// The growth from the oldest of `samples` that is no older than [`MEASURED_MAX`] to what is used `now`. None while nothing
/// was measured for `least` seconds ([`MEASURED_MIN`]).
pub fn growth(
    samples: impl Iterator<Item = (Seconds, f64)>,
    used: f64,
    now: Seconds,
    least: u64,
) -> Option<Growth> {
    let (at, before) = samples
        .filter(|(at, _)| (least..=MEASURED_MAX).contains(&at.age_at(now)))
        .min_by_key(|(at, _)| *at)?;
    let measured = at.age_at(now);
    let per_day = (used - before) / measured as f64 * DAY as f64;
    Some(Growth { per_day, measured })
}

/// When `limit` will be reached: now if it is, none if what is used does not grow, or if it takes longer than any user plans.
pub fn reached_at(used: f64, limit: f64, growth: Option<Growth>, now: Seconds) -> Option<Seconds> {
    if used >= limit {
        return Some(now);
    }
    let per_day = growth.filter(|g| g.per_day > 0.0)?.per_day;
    let seconds = (limit - used) / per_day * DAY as f64;
    (seconds < (36_500 * DAY) as f64).then(|| now.plus(seconds as u64))
}

/// Which of the samples at these times are worth keeping: those of the last day, of the week before one in four hours.
/// `at` ascends.
pub fn worth_keeping(at: &[Seconds], now: Seconds) -> Vec<bool> {
    let mut last: Option<Seconds> = None;
    at.iter()
        .map(|at| {
            let age = at.age_at(now);
            let apart = last.map_or(u64::MAX, |last| last.age_at(*at));
            let keep = age <= MEASURED_MAX.saturating_add(DAY) && (age <= DAY || apart >= 4 * HOUR);
            if keep {
                last = Some(*at);
            }
            keep
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_when_the_growth_of_the_last_week_says() {
        let now = Seconds(100 * 86_400);
        let at = |days: u32| Seconds(now.0 - days * 86_400);
        let samples = [(at(30), 1.0), (at(5), 100.0), (at(1), 900.0)];
        let g = growth(samples.into_iter(), 600.0, now, MEASURED_MIN).unwrap_or(Growth {
            per_day: 0.0,
            measured: 0,
        });
        assert_eq!((g.per_day, g.measured), (100.0, 5 * DAY));
        assert_eq!(
            reached_at(600.0, 1000.0, Some(g), now),
            Some(Seconds(now.0 + 4 * 86_400))
        );
        assert_eq!(reached_at(1000.0, 1000.0, None, now), Some(now));
        assert_eq!(reached_at(1.0, 2.0, None, now), None);
        let shrinks = Growth {
            per_day: -1.0,
            measured: 60,
        };
        assert_eq!(reached_at(1.0, 2.0, Some(shrinks), now), None);
        let this_morning = Seconds(now.0 - 6 * 3600);
        for at in [at(0), this_morning] {
            assert_eq!(growth([(at, 5.0)].into_iter(), 6.0, now, MEASURED_MIN), None);
        }
    }

    #[test]
    fn old_samples_are_thinned_and_then_forgotten() {
        let now = Seconds(100 * 86_400);
        let hourly: Vec<Seconds> = (0..20 * 24).rev().map(|h| Seconds(now.0 - h * 3600)).collect();
        let kept = worth_keeping(&hourly, now).into_iter().filter(|k| *k).count();
        assert!((60..80).contains(&kept), "{kept}");
    }
}
