//! What runs when: the schedules of rules, the lists of announcing rules, and the looks at quotas and watermarks.

use crate::host::Host;
use crate::host::unattended::looks::{QUOTAS_EVERY, WATERMARKS_EVERY};
use purge_base::clock;
use purge_model::Seconds;

/// Something that the agent does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// plan, purge, announce, quota or watermark.
    pub what: &'static str,
    /// The rule or the quota; of a watermark the volume.
    pub name: String,
    /// The volume's name.
    pub volume: String,
    /// How often: a schedule as it is configured, or a number of seconds.
    pub every: Every,
    /// When it does so next; none: never by itself.
    pub next: Option<Seconds>,
    /// It takes files without being asked.
    pub deletes: bool,
}

/// How often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Every {
    /// A schedule as it is configured; empty: only on request.
    Schedule(String),
    /// After this number of seconds.
    Seconds(u64),
}

impl Host {
    /// What the agent does by itself, the next first; last what it does on request only.
    pub fn calendar(&self) -> Vec<Act> {
        let mut all = self.acts_of_rules();
        all.extend(self.acts_of_limits());
        all.sort_by(|a, b| {
            let key = |act: &Act| (act.next.is_none(), act.next, act.name.clone(), act.what);
            key(a).cmp(&key(b))
        });
        all
    }

    fn acts_of_rules(&self) -> Vec<Act> {
        let now = clock::wall().unix();
        let mut all = Vec::new();
        for rule in self.ground.rules() {
            let schedule = rule.schedule.as_ref();
            let deletes = schedule.is_some() && rule.auto_apply && rule.action.is_applied();
            if rule.announce > 0 {
                all.push(Act {
                    what: "announce",
                    name: rule.name.clone(),
                    volume: rule.volume.clone(),
                    every: Every::Seconds(self.announcer.every(&rule)),
                    next: Some(self.announcer.next_list(&rule)),
                    deletes: false,
                });
            }
            all.push(Act {
                what: if deletes { "purge" } else { "plan" },
                every: Every::Schedule(schedule.map_or_else(String::new, |s| s.text().to_owned())),
                next: schedule.and_then(|s| s.next_after(now)).map(Seconds::from_unix),
                name: rule.name,
                volume: rule.volume,
                deletes,
            });
        }
        all
    }

    fn acts_of_limits(&self) -> Vec<Act> {
        let limits = self.ground.limits();
        let looks = &self.unattended.looks;
        let quotas = limits.quotas.into_iter().map(|q| Act {
            what: "quota",
            deletes: q.purges(),
            name: q.name,
            volume: q.volume,
            every: Every::Seconds(QUOTAS_EVERY.as_secs()),
            next: looks.quotas(),
        });
        let watermarks = limits.watermarks.into_iter().map(|w| Act {
            what: "watermark",
            deletes: true,
            name: w.volume.clone(),
            volume: w.volume,
            every: Every::Seconds(WATERMARKS_EVERY.as_secs()),
            next: looks.watermarks(),
        });
        quotas.chain(watermarks).collect()
    }
}
