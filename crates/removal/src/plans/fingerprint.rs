//! What two equal rule sets have in common, and different ones do not. Pure.
//!
//! A plan keeps the fingerprint of its rules, and is applied only while the rules in force have the same. It is a hash of every field by its
//! name, in a fixed order: neither the layout of a type nor how it is printed matters. The patterns below name all fields, so a new
//! field does not compile until it is added here. A new field changes the fingerprint of every rule; [`FORM`] then needs
//! another number, which makes the message to the operator true: the plan is older than the agent.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use sha2::{Digest, Sha256};

use purge_model::Clocks;
use purge_policy::allowance::{Override, Quota, QuotaAction, Watermark};
use purge_policy::rule::{Action, Destination, Rule, Sequence, Symlinks, Target};
use purge_policy::scope::{Called, Globs, Scope};
use purge_policy::whom::QuotaSubject;

/// Which form a fingerprint has. The first form, of agents before, was the printed rules themselves.
const FORM: &str = "2:";

/// The rules of a plan, as they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of rules.
    pub fn of_rules(rules: &[Rule]) -> Self {
        let mut canon = Canon::default();
        rules.iter().for_each(|r| canon.rule(r));
        canon.finish()
    }

    /// Of a quota and its rule.
    pub fn of_quota(quota: &Quota, rule: &Rule) -> Self {
        let mut canon = Canon::default();
        canon.quota(quota);
        canon.rule(rule);
        canon.finish()
    }

    /// Of a watermark and its rule.
    pub fn of_watermark(watermark: &Watermark, rule: &Rule) -> Self {
        let mut canon = Canon::default();
        canon.watermark(watermark);
        canon.rule(rule);
        canon.finish()
    }

    /// As it was stored.
    pub(super) fn stored(text: String) -> Self {
        Self(text)
    }

    /// As it is stored.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Whether it can be compared. An agent of another version made it if not: whether the rules have changed cannot be told then.
    pub fn is_comparable(&self) -> bool {
        self.0.starts_with(FORM)
    }
}

/// Hashes fields with their names. Every part is preceded by its length, so that no two lists of fields look alike.
#[derive(Default)]
struct Canon(Sha256);

impl Canon {
    fn finish(self) -> Fingerprint {
        let mut text = String::from(FORM);
        for byte in self.0.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        Fingerprint(text)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn field(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.bytes(name.as_bytes());
        self.bytes(value.as_ref());
    }

    fn number(&mut self, name: &str, value: u64) {
        self.field(name, value.to_be_bytes());
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.number(name, value.into());
    }

    /// By its bits: what is written the same way in the configuration has the same.
    fn share(&mut self, name: &str, value: f64) {
        self.number(name, value.to_bits());
    }

    /// A field that may be unset: how many values it has, and these.
    fn optional<T>(&mut self, name: &str, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.number(name, u64::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn list<T>(&mut self, name: &str, values: &[T], mut put: impl FnMut(&mut Self, &T)) {
        self.number(name, values.len() as u64);
        values.iter().for_each(|value| put(self, value));
    }

    fn numbers(&mut self, name: &str, values: &[u32]) {
        self.list(name, values, |c, n| c.bytes(&n.to_be_bytes()));
    }

    fn texts(&mut self, name: &str, values: &[String]) {
        self.list(name, values, |c, text| c.bytes(text.as_bytes()));
    }

    fn rule(&mut self, rule: &Rule) {
        let Rule {
            name,
            volume,
            target,
            ttl,
            clocks,
            scope,
            remove_empty_dirs,
            spares_dirs,
            keep_depth,
            max_empty_dirs,
            symlinks,
            sequence,
            action,
            schedule,
            catches_up,
            auto_apply,
            announce,
            announce_to,
            grace,
            max_files,
            max_bytes,
            max_errors,
            max_fraction,
        } = rule;
        self.field("rule", name);
        self.field("volume", volume);
        match target {
            Target::File => self.field("target", "file"),
            Target::Directory { depth } => self.number("target directory", u64::from(*depth)),
        }
        self.optional("ttl", *ttl, |c, ttl| c.number("seconds", ttl));
        self.clocks(*clocks);
        self.scope(scope);
        self.flag("remove_empty_dirs", *remove_empty_dirs);
        self.flag("spares_dirs", *spares_dirs);
        self.number("keep_depth", u64::from(*keep_depth));
        self.number("max_empty_dirs", *max_empty_dirs);
        let symlinks = match symlinks {
            Symlinks::Keep => "keep",
            Symlinks::WithTarget => "with target",
            Symlinks::Expired => "expired",
        };
        self.field("symlinks", symlinks);
        let sequence = match sequence {
            Sequence::Oldest => "oldest",
            Sequence::Largest => "largest",
            Sequence::ByteDays => "byte-days",
        };
        self.field("sequence", sequence);
        self.action(action);
        self.optional("schedule", schedule.as_ref(), |c, s| c.bytes(s.text().as_bytes()));
        self.flag("catches_up", *catches_up);
        self.flag("auto_apply", *auto_apply);
        self.number("announce", *announce);
        self.optional("announce_to", announce_to.as_ref(), |c, path| {
            c.bytes(path.as_os_str().as_bytes());
        });
        self.number("grace", *grace);
        self.number("max_files", *max_files);
        self.number("max_bytes", *max_bytes);
        self.share("max_errors", *max_errors);
        self.optional("max_fraction", *max_fraction, |c, most| c.share("share", most));
    }

    fn action(&mut self, action: &Action) {
        let action = match action {
            Action::Delete => "delete",
            Action::Notify => "notify",
            Action::Archive(Destination { name, url }) => {
                self.field("archive", name);
                self.field("archive url", url);
                "archive"
            }
        };
        self.field("action", action);
    }

    fn clocks(&mut self, clocks: Clocks) {
        let Clocks {
            access,
            modify,
            change,
            birth,
        } = clocks;
        self.flag("access", access);
        self.flag("modify", modify);
        self.flag("change", change);
        self.flag("birth", birth);
    }

    fn scope(&mut self, scope: &Scope) {
        let Scope {
            include,
            exclude,
            users,
            groups,
            exclude_users,
            exclude_groups,
            called,
            min_size,
            max_size,
        } = scope;
        self.texts("include", include.patterns());
        self.texts("exclude", exclude.as_ref().map_or(&[], Globs::patterns));
        self.optional("users", users.as_ref(), |c, ids| c.numbers("ids", ids));
        self.optional("groups", groups.as_ref(), |c, ids| c.numbers("ids", ids));
        self.numbers("exclude_users", exclude_users);
        self.numbers("exclude_groups", exclude_groups);
        let Called {
            users,
            groups,
            exclude_users,
            exclude_groups,
        } = called;
        self.texts("users by name", users);
        self.texts("groups by name", groups);
        self.texts("exclude_users by name", exclude_users);
        self.texts("exclude_groups by name", exclude_groups);
        self.number("min_size", *min_size);
        self.number("max_size", *max_size);
    }

    fn quota(&mut self, quota: &Quota) {
        let Quota {
            name,
            volume,
            subject,
            hard,
            temporal,
            max_age,
            action,
            low,
            min_age,
            rule,
            overrides,
        } = quota;
        self.field("quota", name);
        self.field("volume", volume);
        match subject {
            QuotaSubject::User => self.field("subject", "user"),
            QuotaSubject::Group => self.field("subject", "group"),
            QuotaSubject::Project => self.field("subject", "project"),
            QuotaSubject::Directory { depth } => self.number("subject directory", u64::from(*depth)),
        }
        self.limit("hard", *hard);
        self.limit("temporal", *temporal);
        self.limit("max_age", *max_age);
        let action = match action {
            QuotaAction::Notify => "notify",
            QuotaAction::Purge => "purge",
        };
        self.field("action", action);
        self.share("low", *low);
        self.number("min_age", *min_age);
        self.optional("rule", rule.as_ref(), |c, name| c.bytes(name.as_bytes()));
        self.list("overrides", overrides, |c, other| {
            let Override { whom, hard, temporal } = other;
            let (pattern, ids) = whom.words();
            c.field("whom", pattern);
            c.numbers("ids", ids);
            c.limit("hard", *hard);
            c.limit("temporal", *temporal);
        });
    }

    fn limit(&mut self, name: &str, limit: Option<u64>) {
        self.optional(name, limit, |c, most| c.number("most", most));
    }

    fn watermark(&mut self, watermark: &Watermark) {
        let Watermark {
            volume,
            high,
            low,
            rule,
            min_age,
            free_trash,
        } = watermark;
        self.field("watermark", volume);
        self.share("high", *high);
        self.share("low", *low);
        self.field("rule", rule);
        self.number("min_age", *min_age);
        self.flag("free_trash", *free_trash);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use purge_policy::schedule::Schedule;

    fn rule() -> Rule {
        Rule::everything_older("v", 3600)
    }

    /// A plan outlives an update of the agent: this changes together with [`FORM`] alone.
    #[test]
    fn the_fingerprint_of_a_rule_does_not_change_by_itself() {
        let known = "2:01f24259a4954d9c3f536ac5029c5bf7a843def459d719a2e6351fbb4f8bf05a";
        assert_eq!(Fingerprint::of_rules(&[rule()]).text(), known);
    }

    #[test]
    fn every_change_of_a_rule_is_seen() {
        type Change = fn(&mut Rule);
        let changes: [Change; 25] = [
            |r| r.name.push('x'),
            |r| r.volume.push('x'),
            |r| r.target = Target::Directory { depth: 1 },
            |r| r.target = Target::Directory { depth: 2 },
            |r| r.ttl = None,
            |r| r.ttl = Some(0),
            |r| r.clocks.birth = false,
            |r| r.scope.exclude = Some(Globs::compile_exclude(&["a".into()]).unwrap()),
            |r| r.scope.users = Some(Vec::new()),
            |r| r.scope.users = Some(vec![1]),
            |r| r.scope.groups = Some(vec![1]),
            |r| r.scope.called.users.push("alice".into()),
            |r| r.scope.min_size = 1,
            |r| r.remove_empty_dirs = false,
            |r| r.symlinks = Symlinks::Keep,
            |r| r.sequence = Sequence::Largest,
            |r| r.action = Action::Notify,
            |r| r.action = Action::Archive(Destination::default()),
            |r| {
                r.action = Action::Archive(Destination {
                    name: "cold".into(),
                    ..Destination::default()
                });
            },
            |r| {
                r.action = Action::Archive(Destination {
                    url: "file:///cold".into(),
                    ..Destination::default()
                });
            },
            |r| r.schedule = Some(Schedule::parse("daily").unwrap()),
            |r| r.schedule = Some(Schedule::parse("hourly").unwrap()),
            |r| r.announce_to = Some("a".into()),
            |r| r.max_fraction = Some(0.5),
            |r| r.max_errors = 0.06,
        ];
        let mut all = vec![
            Fingerprint::of_rules(&[rule()]),
            Fingerprint::of_rules(&[rule(), rule()]),
        ];
        for change in changes {
            let mut changed = rule();
            change(&mut changed);
            all.push(Fingerprint::of_rules(&[changed]));
        }
        for (n, one) in all.iter().enumerate() {
            assert!(one.is_comparable());
            assert!(!all.iter().skip(n + 1).any(|other| other == one), "{n}");
        }
        assert_eq!(Fingerprint::of_rules(&[rule()]), all[0]);
    }

    #[test]
    fn printed_rules_of_an_older_agent_cannot_be_compared() {
        assert!(!Fingerprint::stored("[Rule { name: \"r\" }]".into()).is_comparable());
    }
}
