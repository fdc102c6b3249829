//! Publishes what announcing rules will take, and remembers since when.
//!
//! ```text
//! STATE_DIR/announced/RULE   frames: { published:u32 }  n x { up to 100,000 x { ino:u64 birth:u32 last:u32 at:u32 } }
//! ```
//! A list that is damaged or missing names nothing: what it named begins its wait again.

use std::collections::HashMap;
use std::fs::{self};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::lists;
use crate::host::{Host, HostError};
use crate::volume::Volume;
use purge_base::clock;
use purge_format::frame::{Frames, put_frame};
use purge_model::Seconds;
use purge_policy::announced::{Announced, Name, Named};
use purge_policy::expiring::named_by;
use purge_policy::rule::Rule;
use purge_sys::private::shown;

/// A list is published at least so often, in seconds.
const PUBLISH_EVERY_MAX: u64 = 86_400;
/// And no more often, however short the rule announces.
const PUBLISH_EVERY_MIN: u64 = 2;
/// Lists within the time that a rule announces: what is named waits longer than that by one of them at most.
const LISTS: u64 = 14;
const NAME_BYTES: usize = 20;
const NAMES_A_FRAME: usize = 100_000;

/// A list that could not be published is tried again after this number of seconds.
const RETRY_EVERY: u64 = 60;

/// How it stands with the rules' lists.
pub type Published = HashMap<String, Standing>;

/// How it stands with a rule's lists.
#[derive(Debug, Default)]
pub struct Standing {
    /// When they were published last.
    at: Option<Seconds>,
    /// Why that failed since, and when it was tried.
    failed: Option<(Seconds, String)>,
}

impl Host {
    /// Publishes the lists that are due.
    pub fn publish(&self) {
        for rule in self.rules().iter().filter(|r| r.announce > 0) {
            let Ok(volume) = self.volume(&rule.volume) else {
                continue;
            };
            // A volume that is not wholly seen would drop names, which are then missing from one list.
            if !self.is_due(rule) || self.check_certain(volume).is_err() {
                continue;
            }
            let failed = self.publish_rule(volume, rule).err().map(|e| e.to_string());
            if let Some(error) = &failed {
                tracing::error!(
                    rule = %rule.name,
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
        let every = (rule.announce / LISTS).clamp(PUBLISH_EVERY_MIN, PUBLISH_EVERY_MAX);
        let last = self.last_published(&rule.name);
        let known = self.published.lock();
        let tried = known.get(&rule.name).and_then(|s| Some(s.failed.as_ref()?.0));
        last.is_none_or(|last| has_passed(last, every))
            && tried.is_none_or(|tried| has_passed(tried, RETRY_EVERY.min(every)))
    }

    /// The rules whose lists could not be published when that was tried last, and why.
    pub fn unpublished(&self) -> Vec<(String, String)> {
        let rules = self.rules();
        let known = self.published.lock();
        let announcing = rules.iter().filter(|r| r.announce > 0);
        let failed =
            announcing.filter_map(|r| Some((r.name.clone(), known.get(&r.name)?.failed.as_ref()?.1.clone())));
        failed.collect()
    }

    fn last_published(&self, rule: &str) -> Option<Seconds> {
        let mut known = self.published.lock();
        if let Some(at) = known.get(rule).and_then(|s| s.at) {
            return Some(at);
        }
        let (at, _) = self.read_list(rule)?;
        known.entry(rule.to_owned()).or_default().at = Some(at);
        Some(at)
    }

    fn publish_rule(&self, volume: &Volume, rule: &Rule) -> Result<(), HostError> {
        volume.sync();
        let at = self.circumstances(volume);
        let names = named_by(&volume.watched.index.read(), rule, &at)?;
        let before = self
            .read_list(&rule.name)
            .map(|(_, named)| named)
            .unwrap_or_default();
        let next = before.next(names.into_iter(), at.now);
        // For people first: what they could not read is not announced, and its time does not begin.
        if let Some(to) = &rule.announce_to {
            lists::write(volume, rule, to, &next)
                .map_err(|e| HostError::Refused(format!("announce_to {}: {e}", to.display())))?;
        }
        let failed =
            |e: io::Error| HostError::Refused(format!("{}: {e}", shown(&self.list_of(&rule.name)).display()));
        self.write_list(&rule.name, at.now, &next).map_err(failed)?;
        self.published.lock().entry(rule.name.clone()).or_default().at = Some(at.now);
        tracing::info!(rule = %rule.name, files = next.names().len(), "announced what the rule will take");
        Ok(())
    }

    /// What the lists of the volume's rules name.
    pub(in crate::host) fn announced(&self, volume: &Volume, now: Seconds) -> Announced {
        let rules = self.rules();
        let announcing = rules
            .iter()
            .filter(|r| r.announce > 0 && r.volume == volume.config.name);
        let lists = announcing.filter_map(|r| Some((r.name.clone(), Arc::new(self.read_list(&r.name)?.1))));
        Announced {
            now,
            by_rule: lists.collect(),
        }
    }

    fn list_of(&self, rule: &str) -> PathBuf {
        self.anchor.join("announced").join(rule)
    }

    fn read_list(&self, rule: &str) -> Option<(Seconds, Named)> {
        let bytes = fs::read(self.list_of(rule)).ok()?;
        let list = decode(&bytes);
        if list.is_none() {
            tracing::warn!(
                rule,
                "the list of what is announced is damaged; each file in it begins its wait again"
            );
        }
        list
    }

    fn write_list(&self, rule: &str, published: Seconds, named: &Named) -> io::Result<()> {
        let path = self.list_of(rule);
        if let Some(dir) = path.parent() {
            purge_sys::private::dir(dir)?;
        }
        let next = self.anchor.join("announced").join(format!("{rule} new"));
        let mut file = purge_sys::private::create(&next)?;
        file.write_all(&encode(published, named))?;
        file.sync_all()?;
        fs::rename(&next, &path)
    }
}

fn encode(published: Seconds, named: &Named) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = u64::try_from(named.names().len()).unwrap_or(u64::MAX);
    put_frame(&mut bytes, |body| {
        body.extend(published.0.to_le_bytes());
        body.extend(count.to_le_bytes());
    });
    for names in named.names().chunks(NAMES_A_FRAME) {
        put_frame(&mut bytes, |body| {
            for name in names {
                body.extend(name.ino.to_le_bytes());
                for at in [name.birth, name.last, name.at] {
                    body.extend(at.0.to_le_bytes());
                }
            }
        });
    }
    bytes
}

/// None when it is not whole.
fn decode(bytes: &[u8]) -> Option<(Seconds, Named)> {
    let mut frames = Frames::new(bytes);
    let (published, count) = frames.next()?.split_first_chunk::<4>()?;
    let count = u64::from_le_bytes(count.try_into().ok()?);
    let mut names = Vec::new();
    for body in frames {
        let (all, rest) = body.as_chunks::<NAME_BYTES>();
        rest.is_empty().then_some(())?;
        names.extend(all.iter().filter_map(name_of));
    }
    let is_whole = u64::try_from(names.len()) == Ok(count);
    is_whole.then(|| (Seconds(u32::from_le_bytes(*published)), Named::new(names)))
}

fn name_of(bytes: &[u8; NAME_BYTES]) -> Option<Name> {
    let (ino, rest) = bytes.split_first_chunk::<8>()?;
    let (times, _) = rest.as_chunks::<4>();
    let [birth, last, at] = times else { return None };
    let seconds = |bytes: &[u8; 4]| Seconds(u32::from_le_bytes(*bytes));
    Some(Name {
        ino: u64::from_le_bytes(*ino),
        birth: seconds(birth),
        last: seconds(last),
        at: seconds(at),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_comes_back_whole_or_not_at_all() {
        for count in [0u64, 1, 7, 250_000] {
            let names = (0..count).map(|i| (i * 3, Seconds(1), Seconds(i as u32)));
            let named = Named::default().next(names, Seconds(99));
            let bytes = encode(Seconds(100), &named);
            assert_eq!(decode(&bytes), Some((Seconds(100), named)));
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
            let mut damaged = bytes.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(decode(&damaged), None);
        }
    }
}
