//! When a rule's plans are made: `hourly`, `daily`, `weekly`, or a cron expression, in local time. Pure given the time.

use chrono::{DateTime, Local, TimeZone};
use croner::Cron;

/// Words for common schedules. At two in the morning storage is quiet.
const WORDS: [(&str, &str); 3] = [
    ("hourly", "0 * * * *"),
    ("daily", "0 2 * * *"),
    ("weekly", "0 2 * * 0"),
];

/// A parsed schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
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
        })
    }

    /// The first moment after `unix` (seconds since 1970) at which it is due; none if there never is one.
    pub fn next_after(&self, unix: i64) -> Option<i64> {
        let from: DateTime<Local> = Local.timestamp_opt(unix, 0).single()?;
        // In an hour that clocks go through twice croner has been seen to answer with a past moment.
        let next = self.cron.find_next_occurrence(&from, false).ok()?.timestamp();
        (next > unix).then_some(next)
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

    #[test]
    fn schedules_are_due_after_the_given_moment() {
        let hourly = Schedule::parse("hourly").unwrap();
        assert_eq!(hourly.next_after(1_700_000_000).unwrap() % 3600, 0);
        let minutes = Schedule::parse("*/5 * * * *").unwrap();
        let next = minutes.next_after(1_700_000_100).unwrap();
        assert!(next > 1_700_000_100 && next % 300 == 0 && next <= 1_700_000_400);
        assert!(Schedule::parse("daily").unwrap().next_after(0).unwrap() > 0);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "now", "* * * *", "61 * * * *", "* * * * * * *", "a b c d e"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
