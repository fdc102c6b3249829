//! When a rule's plans are made: `hourly`, `daily`, `weekly`, or a cron expression, in local time. Pure given the time.

use chrono::{Local, LocalResult, NaiveDateTime, TimeDelta, TimeZone};
use croner::Cron;

/// Words for common schedules. At two in the morning storage is quiet.
const WORDS: [(&str, &str); 3] = [
    ("hourly", "0 * * * *"),
    ("daily", "0 2 * * *"),
    ("weekly", "0 2 * * 0"),
];

/// Clocks are set by less than this at once.
const NEAR: i64 = 3 * 3600;
/// Moments that are looked at for the next one: as many minutes as are near a turn of the clocks, and more.
const LOOKED_AT_MAX: usize = 2000;

/// When clocks show this: the first and the second time. Where they jump over it: when they have jumped.
fn instants(zone: &impl TimeZone, shown: NaiveDateTime) -> Option<(i64, Option<i64>)> {
    match zone.from_local_datetime(&shown) {
        LocalResult::Single(at) => Some((at.timestamp(), None)),
        LocalResult::Ambiguous(a, b) => {
            let (a, b) = (a.timestamp(), b.timestamp());
            Some((a.min(b), Some(a.max(b))))
        }
        LocalResult::None => {
            // The offset from before the jump shows how much was jumped over.
            let before = shown.checked_sub_signed(TimeDelta::seconds(NEAR))?;
            let at = zone.from_local_datetime(&before).earliest()?.timestamp();
            let unjumped = at.checked_add(NEAR)?;
            let (mut low, mut high) = (at, unjumped);
            let show = |at: i64| Some(zone.timestamp_opt(at, 0).single()?.naive_local());
            // The first moment that shows something later.
            while low.checked_add(1)? < high {
                let middle = low.checked_add(high.checked_sub(low)? / 2)?;
                match show(middle)? > shown {
                    true => high = middle,
                    false => low = middle,
                }
            }
            Some((high, None))
        }
    }
}

/// A parsed schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
    /// It names no hour.
    every_hour: bool,
}

/// Not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no schedule ({why}): write hourly, daily, weekly, or five cron fields such as \"30 3 * * 1-5\"")]
pub struct BadSchedule {
    why: String,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// [`BadSchedule`] says why it is none.
    pub fn parse(text: &str) -> Result<Self, BadSchedule> {
        let bad = |why: String| BadSchedule { why };
        let pattern = WORDS
            .iter()
            .find(|(word, _)| *word == text)
            .map_or(text, |(_, cron)| *cron);
        if pattern.split_whitespace().count() != 5 {
            return Err(bad("not five fields".into()));
        }
        let cron = pattern.parse::<Cron>().map_err(|e| bad(e.to_string()))?;
        Ok(Self {
            text: text.into(),
            cron,
            every_hour: pattern.split_whitespace().nth(1) == Some("*"),
        })
    }

    /// The first moment after `unix` (seconds since 1970) at which it is due; none if there never is one.
    pub fn next_after(&self, unix: i64) -> Option<i64> {
        self.next_in(&Local, unix)
    }

    /// The same by the clocks of `zone`. What a clock that is set forward jumps over is due when it has jumped. What it shows twice is due
    /// the first time; both times where the schedule names no hour, because it is due in every hour then.
    fn next_in(&self, zone: &impl TimeZone, unix: i64) -> Option<i64> {
        let shown = |at: i64| Some(zone.timestamp_opt(at, 0).single()?.naive_local());
        let turns = shown(unix.checked_sub(NEAR)?)? - shown(unix.checked_add(NEAR)?)?;
        let is_near_a_turn = turns != TimeDelta::seconds(-2 * NEAR);
        // A moment that is shown for the second time lies before what is shown now.
        let before = if is_near_a_turn { NEAR } else { 0 };
        let mut from = shown(unix)?
            .checked_sub_signed(TimeDelta::seconds(before))?
            .and_utc();
        let mut next: Option<i64> = None;
        for _ in 0..LOOKED_AT_MAX {
            // Clocks that are never set: by the real ones croner has been seen to answer with a past moment.
            from = self.cron.find_next_occurrence(&from, false).ok()?;
            let (first, second) = instants(zone, from.naive_utc())?;
            let both = [Some(first), second.filter(|_| self.every_hour)];
            let due = both.into_iter().flatten().filter(|at| *at > unix).min();
            next = next.into_iter().chain(due).min();
            let is_past = shown(unix)?.checked_add_signed(TimeDelta::seconds(before))? < from.naive_utc();
            if next.is_some() && (is_past || !is_near_a_turn) {
                break;
            }
        }
        next
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use chrono::{FixedOffset, NaiveDate};

    #[test]
    fn schedules_are_due_after_the_given_moment() {
        let hourly = Schedule::parse("hourly").unwrap();
        assert_eq!(hourly.next_after(1_700_000_000).unwrap() % 3600, 0);
        let minutes = Schedule::parse("*/5 * * * *").unwrap();
        let next = minutes.next_after(1_700_000_100).unwrap();
        assert!(next > 1_700_000_100 && next % 300 == 0 && next <= 1_700_000_400);
        assert!(Schedule::parse("daily").unwrap().next_after(0).unwrap() > 0);
    }

    /// Clocks that are set forward from 02:00 to 03:00 at `SPRING`, and back from 03:00 to 02:00 at `AUTUMN`.
    #[derive(Debug, Clone, Copy)]
    struct Zone;
    /// 2026-03-29 01:00 UTC, 2026-10-25 01:00 UTC.
    const SPRING: i64 = 1_774_746_000;
    const AUTUMN: i64 = 1_792_890_000;

    impl TimeZone for Zone {
        type Offset = FixedOffset;
        fn from_offset(_: &FixedOffset) -> Self {
            Self
        }
        fn offset_from_local_date(&self, _: &NaiveDate) -> LocalResult<FixedOffset> {
            LocalResult::None
        }
        fn offset_from_local_datetime(&self, local: &NaiveDateTime) -> LocalResult<FixedOffset> {
            let fits = |hours: i32| {
                let offset = FixedOffset::east_opt(hours * 3600).unwrap();
                let utc = local.checked_sub_offset(offset).unwrap();
                (self.offset_from_utc_datetime(&utc) == offset).then_some(offset)
            };
            match (fits(2), fits(1)) {
                (Some(a), Some(b)) => LocalResult::Ambiguous(a, b),
                (Some(a), None) | (None, Some(a)) => LocalResult::Single(a),
                (None, None) => LocalResult::None,
            }
        }
        fn offset_from_utc_date(&self, _: &NaiveDate) -> FixedOffset {
            FixedOffset::east_opt(0).unwrap()
        }
        fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> FixedOffset {
            let is_summer = (SPRING..AUTUMN).contains(&utc.and_utc().timestamp());
            FixedOffset::east_opt(if is_summer { 7200 } else { 3600 }).unwrap()
        }
    }

    /// When it is due around a turn, in minutes from it.
    fn due(text: &str, turn: i64, minutes: std::ops::Range<i64>) -> Vec<i64> {
        let schedule = Schedule::parse(text).unwrap();
        let mut all = Vec::new();
        let mut at = turn + minutes.start * 60 - 1;
        while let Some(next) = schedule.next_in(&Zone, at) {
            assert!(next > at);
            // A caller that asks in between gets the same answer.
            assert_eq!(
                schedule.next_in(&Zone, at + (next - at) / 2),
                Some(next),
                "{text}"
            );
            at = next;
            if next >= turn + minutes.end * 60 {
                break;
            }
            all.push((next - turn) / 60);
        }
        all
    }

    #[test]
    fn turns_of_the_clocks_drop_nothing_and_repeat_nothing() {
        let day = 24 * 60;
        // 02:30 does not exist on the one day, and exists twice on the other.
        assert_eq!(due("30 2 * * *", SPRING, -day..day), [30 - day, 0, day - 30]);
        assert_eq!(due("30 2 * * *", AUTUMN, -60..day), [-30]);
        assert_eq!(due("daily", SPRING, -120..120), [0]);
        assert_eq!(due("daily", AUTUMN, -120..120), [-60]);
        // In every hour that goes by.
        assert_eq!(due("hourly", SPRING, -60..181), [-60, 0, 60, 120, 180]);
        assert_eq!(due("hourly", AUTUMN, -120..181), [-120, -60, 0, 60, 120, 180]);
        let minutes: Vec<i64> = (-90..90).collect();
        assert_eq!(due("* * * * *", AUTUMN, -90..90), minutes);
        assert_eq!(due("* * * * *", SPRING, -90..90), minutes);
        // Hours that are named are due once.
        assert_eq!(due("0 1-3 * * *", AUTUMN, -180..180), [-120, -60, 60]);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "now", "* * * *", "61 * * * *", "* * * * * * *", "a b c d e"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
