//! Says in the log who was let in and who was not, and why. A client that asks again and again is named once in a while only: the log of a root
//! process is not for any user to fill.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The same refusal is said again after this time.
const REFUSED_EVERY: Duration = Duration::from_secs(60);
/// The same admission is said again after this time.
const ADMITTED_EVERY: Duration = Duration::from_secs(3600);
/// Remembered clients. What comes beside them is not said.
const KNOWN_MAX: usize = 1024;
/// Lines about refusals in a minute, of all clients together.
const REFUSALS_MAX: u32 = 60;

/// Who was named in the log lately.
#[derive(Debug, Default)]
pub struct Visitors(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    refused: HashMap<String, Instant>,
    admitted: HashMap<String, Instant>,
    /// When the minute began in which refusals are counted, and how many were said since.
    minute: Option<Instant>,
    said: u32,
    /// Refusals that were not said.
    left_out: u64,
}

impl Visitors {
    /// Says that a call was refused.
    pub fn refuse_call(&self, peer: &str, call: &str, why: &str) {
        if let Some(left_out) = self.is_news(peer, Instant::now()) {
            let more = more(left_out);
            tracing::info!(peer, call, why, "a call was refused{more}");
        }
    }

    /// Says that a connection was refused.
    pub fn refuse_connection(&self, from: &str, why: &str) {
        if let Some(left_out) = self.is_news(&format!("{from} {why}"), Instant::now()) {
            let more = more(left_out);
            tracing::info!(peer = from, why, "a client was not let in{more}");
        }
    }

    /// Says that a client was let in.
    pub fn admit(&self, peer: &str, (role, because): (&str, &str), call: &str) {
        let now = Instant::now();
        let is_first = {
            let mut known = self.0.lock();
            remember(
                &mut known.admitted,
                format!("{peer} {role} {because}"),
                ADMITTED_EVERY,
                now,
            )
        };
        if is_first {
            tracing::info!(peer, role, because, first_call = call, "a client was let in");
        }
    }

    /// Whether a refusal is to be said, and how many were not since the last one that was.
    fn is_news(&self, who: &str, now: Instant) -> Option<u64> {
        let mut known = self.0.lock();
        if known
            .minute
            .is_none_or(|began| now.duration_since(began) >= REFUSED_EVERY)
        {
            (known.minute, known.said) = (Some(now), 0);
        }
        let is_new = remember(&mut known.refused, who.to_owned(), REFUSED_EVERY, now);
        if !is_new || known.said >= REFUSALS_MAX {
            known.left_out = known.left_out.saturating_add(1);
            return None;
        }
        known.said = known.said.saturating_add(1);
        Some(std::mem::take(&mut known.left_out))
    }
}

fn more(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        n => format!("; {n} other refusals since the last line were not logged"),
    }
}

/// Notes that it is said now, unless it was said lately or there is no room to remember it.
fn remember(known: &mut HashMap<String, Instant>, who: String, every: Duration, now: Instant) -> bool {
    if known
        .get(&who)
        .is_some_and(|said| now.duration_since(*said) < every)
    {
        return false;
    }
    if known.len() >= KNOWN_MAX {
        known.retain(|_, said| now.duration_since(*said) < every);
    }
    if known.len() >= KNOWN_MAX {
        return false;
    }
    known.insert(who, now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_again_and_again_is_named_once_a_minute() {
        let (visitors, now) = (Visitors::default(), Instant::now());
        assert_eq!(visitors.is_news("uid 7", now), Some(0));
        assert_eq!(visitors.is_news("uid 7", now), None);
        assert_eq!(visitors.is_news("uid 8", now), Some(1));
        assert_eq!(visitors.is_news("uid 7", now + REFUSED_EVERY), Some(0));
    }

    #[test]
    fn many_clients_together_do_not_fill_the_log() {
        let (visitors, now) = (Visitors::default(), Instant::now());
        let said = (0..5000).filter(|n| visitors.is_news(&format!("uid {n}"), now).is_some());
        assert_eq!(said.count(), REFUSALS_MAX as usize);
        let later = now + REFUSED_EVERY;
        assert_eq!(
            visitors.is_news("uid 1", later),
            Some(5000 - u64::from(REFUSALS_MAX))
        );
    }
}
