//! How much there may be: quotas of owners and directories, watermarks of volumes.

use super::whom::{QuotaSubject, Whom};

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Who may use how much.
    pub quotas: Vec<Quota>,
    /// How full volumes may be.
    pub watermarks: Vec<Watermark>,
}

/// A file used within this time is taken by no quota and no watermark, unless the configuration says otherwise.
pub const DEFAULT_MIN_AGE: u64 = 2 * 86_400;

/// What happens when a limit is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaAction {
    /// Users get a notice. Plans of the quota cannot be applied.
    Notify,
    /// The agent makes a plan and applies it.
    Purge,
}

/// Who may use how much.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Its name.
    pub name: String,
    /// The volume it speaks of.
    pub volume: String,
    /// Whose files are summed.
    pub subject: QuotaSubject,
    /// Sum of apparent sizes, in bytes.
    pub hard: Option<u64>,
    /// Sum of size x (whole days present + 1), in byte-days.
    pub temporal: Option<u64>,
    /// Seconds since its birth after which a file goes, even if the sums are within the limits.
    pub max_age: Option<u64>,
    /// What happens when a limit is passed.
    pub action: QuotaAction,
    /// Share of the limit that is left when a plan is done.
    pub low: f64,
    /// Seconds: nothing used within this time goes.
    pub min_age: u64,
    /// The rule whose scope, order and limits are used.
    pub rule: Option<String>,
    /// Other limits for some; the first that matches counts.
    pub overrides: Vec<Override>,
}

/// Other limits for some subjects.
#[derive(Debug, Clone)]
pub struct Override {
    /// Whom: a name or a glob of the user, the group or the directory's path.
    pub whom: Whom,
    /// Instead of the quota's own.
    pub hard: Option<u64>,
    /// Instead of the quota's own.
    pub temporal: Option<u64>,
}

/// How full a volume may be.
#[derive(Debug, Clone)]
pub struct Watermark {
    /// The volume it speaks of.
    pub volume: String,
    /// Share of its space or inodes in use above which files go.
    pub high: f64,
    /// Share in use at which that ends.
    pub low: f64,
    /// The rule whose scope, order and limits are used.
    pub rule: String,
    /// Seconds: nothing used within this time goes.
    pub min_age: u64,
    /// What lies in the trash is freed before its grace ends, oldest first.
    pub free_trash: bool,
}

impl Quota {
    /// Whether the agent deletes files when a limit is passed.
    pub fn purges(&self) -> bool {
        self.action == QuotaAction::Purge
    }

    /// What one member can do to the others, where a limit that several users share deletes.
    pub fn shared_limit(&self) -> Option<String> {
        let whose = match self.subject {
            QuotaSubject::Group => "all members of a group share one limit",
            QuotaSubject::Directory { .. } => "all who can write in a directory share one limit",
            QuotaSubject::User | QuotaSubject::Project => return None,
        };
        self.purges().then(|| {
            format!(
                "quota {}: {whose}, and what one of them writes can make the files of the others go, oldest use first; write \
                 action = \"notify\", or subject = \"user\", unless that is meant",
                self.name
            )
        })
    }

    /// The limits of one subject, which may have an id: (bytes, byte-days).
    pub fn limits_of(&self, id: Option<u32>, name: &str) -> (Option<u64>, Option<u64>) {
        let other = self.overrides.iter().find(|o| o.whom.is(id, name));
        let hard = other.and_then(|o| o.hard).or(self.hard);
        let temporal = other.and_then(|o| o.temporal).or(self.temporal);
        (hard, temporal)
    }
}

#[cfg(test)]
mod tests {
    use super::QuotaAction::{Notify, Purge};
    use super::*;

    #[test]
    fn a_limit_that_several_share_and_that_deletes_is_warned_of() {
        let quota = |subject, action| Quota {
            name: "q".into(),
            volume: "v".into(),
            subject,
            hard: Some(1),
            temporal: None,
            max_age: None,
            action,
            low: 0.9,
            min_age: 1,
            rule: None,
            overrides: Vec::new(),
        };
        let warned = |subject, action| quota(subject, action).shared_limit().is_some();
        assert!(warned(QuotaSubject::Group, Purge) && warned(QuotaSubject::Directory { depth: 1 }, Purge));
        assert!(!warned(QuotaSubject::Group, Notify) && !warned(QuotaSubject::User, Purge));
        assert!(!warned(QuotaSubject::Project, Purge));
    }
}
