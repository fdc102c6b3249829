//! Publishes what announcing rules will take.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::lists;
use crate::host::judge::Judge;
use crate::host::{Ground, HostError};
use crate::volume::Volume;
use purge_base::clock;
use purge_model::Seconds;
use purge_policy::expiring::named_by;
use purge_policy::rule::Rule;
use purge_sys::private::shown;

/// A list is published at least so often, in seconds.
const PUBLISH_EVERY_MAX: u64 = 86_400;
/// And no more often, however short the rule announces.
const PUBLISH_EVERY_MIN: u64 = 2;
/// Lists within the time that a rule announces: what is named waits longer than that by one of them at most.
const LISTS: u64 = 14;

/// A list that could not be published is tried again after this number of seconds.
const RETRY_EVERY: u64 = 60;

/// How it stands with the rules' lists.
type Published = HashMap<String, Standing>;

/// How it stands with a rule's lists.
#[derive(Debug, Default)]
struct Standing {
    /// When they were published last.
    at: Option<Seconds>,
    /// Why that failed since, and when it was tried.
    failed: Option<(Seconds, String)>,
}

/// Publishes lists.
#[derive(Debug)]
pub struct Announcer {
    ground: Arc<Ground>,
    judge: Arc<Judge>,
    /// When lists were published.
    published: Mutex<Published>,
}

impl Announcer {
    pub(in crate::host) fn new(ground: Arc<Ground>, judge: Arc<Judge>) -> Self {
        Self {
            ground,
            judge,
            published: Mutex::default(),
        }
    }

    /// Publishes the lists that are due.
    pub fn publish(&self) {
        for rule in self.ground.rules().iter().filter(|r| r.announce > 0) {
            let Ok(volume) = self.ground.volume(&rule.volume) else {
                continue;
            };
            // A volume that is not wholly seen would drop names, which are then missing from one list.
            if !self.is_due(rule) || self.judge.check_certain(&volume).is_err() {
                continue;
            }
            let failed = self.publish_rule(&volume, rule).err().map(|e| e.to_string());
            if let Some(error) = &failed {
                tracing::error!(
                    rule = %rule.name,
                    volume = %rule.volume,
                    error,
                    "the lists of what the rule will take cannot be written: nothing new is announced, and it is tried again"
                );
            }
            let mut published = self.published.lock();
            published.entry(rule.name.clone()).or_default().failed = failed.map(|why| (clock::judged(), why));
        }
    }

    fn is_due(&self, rule: &Rule) -> bool {
        let now = clock::judged();
        let has_passed = |since: Seconds, seconds: u64| since > now || since.age_at(now) >= seconds;
        let every = self.every(rule);
        let last = self.last_published(&rule.name);
        let known = self.published.lock();
        let tried = known.get(&rule.name).and_then(|s| Some(s.failed.as_ref()?.0));
        last.is_none_or(|last| has_passed(last, every))
            && tried.is_none_or(|tried| has_passed(tried, RETRY_EVERY.min(every)))
    }

    /// The rules whose lists could not be published when that was tried last, and why.
    pub fn unpublished(&self) -> Vec<(String, String)> {
        let rules = self.ground.rules();
        let known = self.published.lock();
        let announcing = rules.iter().filter(|r| r.announce > 0);
        let failed =
            announcing.filter_map(|r| Some((r.name.clone(), known.get(&r.name)?.failed.as_ref()?.1.clone())));
        failed.collect()
    }

    /// How often a rule's lists are published, in seconds.
    pub fn every(&self, rule: &Rule) -> u64 {
        (rule.announce / LISTS).clamp(PUBLISH_EVERY_MIN, PUBLISH_EVERY_MAX)
    }

    /// When a rule's next list is due; the present where it is overdue.
    pub fn next_list(&self, rule: &Rule) -> Seconds {
        let now = clock::judged();
        let last = self.last_published(&rule.name);
        last.map_or(now, |last| last.plus(self.every(rule)).max(now))
    }

    fn last_published(&self, rule: &str) -> Option<Seconds> {
        let mut known = self.published.lock();
        if let Some(at) = known.get(rule).and_then(|s| s.at) {
            return Some(at);
        }
        let (at, _) = self.judge.lists.read(rule)?;
        known.entry(rule.to_owned()).or_default().at = Some(at);
        Some(at)
    }

    fn publish_rule(&self, volume: &Volume, rule: &Rule) -> Result<(), HostError> {
        volume.sync();
        let at = self.judge.circumstances(volume);
        let names = named_by(&volume.watched.index.read(), rule, &at)?;
        let before = self
            .judge
            .lists
            .read(&rule.name)
            .map(|(_, named)| named)
            .unwrap_or_default();
        let next = before.next(names.into_iter(), at.now);
        // For people first: what they could not read is not announced, and its time does not begin.
        if let Some(to) = &rule.announce_to {
            lists::write(volume, rule, to, &next)
                .map_err(|e| HostError::Refused(format!("announce_to {}: {e}", to.display())))?;
        }
        let failed = |e: io::Error| {
            HostError::Refused(format!(
                "{}: {e}",
                shown(&self.judge.lists.file_of(&rule.name)).display()
            ))
        };
        self.judge
            .lists
            .write(&rule.name, at.now, &next)
            .map_err(failed)?;
        self.published.lock().entry(rule.name.clone()).or_default().at = Some(at.now);
        tracing::info!(rule = %rule.name, volume = %rule.volume, files = next.names().len(), "announced what the rule will take");
        Ok(())
    }
}
