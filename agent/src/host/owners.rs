//! Whom the names of rules and overrides mean, among those who own something on a volume.
//!
//! A name leads to one id, which is looked up when the configuration is read. But nothing keeps a directory service from giving
//! other ids the same name. So each owner is asked for all names that it goes by before rules are judged.

use super::Ground;
use purge_base::accounts::{group_names, know_group_names, know_user_names, user_names};
use purge_policy::allowance::Limits;
use purge_policy::rule::Rule;
use purge_policy::whom::QuotaSubject;

impl Ground {
    /// Looks up the names of a volume's owners where a name decides, and gives rules and overrides those that they mean.
    pub fn meet_owners(&self, volume: &str) {
        let (by_user, by_group) = {
            let (rules, limits) = (self.rules.read(), self.limits.read());
            (
                names_decide(&rules, &limits, volume, QuotaSubject::User),
                names_decide(&rules, &limits, volume, QuotaSubject::Group),
            )
        };
        let Some(volume) = self.volumes().into_iter().find(|v| v.config.name == volume) else {
            return;
        };
        let name = &volume.config.name;
        if by_user {
            let uids: Vec<u32> = {
                let index = volume.watched.index.read();
                index.ledger().users().keys().copied().collect()
            };
            know_user_names(uids.iter().copied());
            let named: Vec<_> = uids.into_iter().map(|uid| (uid, user_names(uid))).collect();
            self.meet(name, QuotaSubject::User, &named);
        }
        if by_group {
            let gids: Vec<u32> = {
                let index = volume.watched.index.read();
                index.ledger().groups().keys().copied().collect()
            };
            know_group_names(gids.iter().copied());
            let named: Vec<_> = gids.into_iter().map(|gid| (gid, group_names(gid))).collect();
            self.meet(name, QuotaSubject::Group, &named);
        }
    }

    /// The same for all volumes.
    pub fn meet_all_owners(&self) {
        self.volumes()
            .iter()
            .for_each(|v| self.meet_owners(&v.config.name));
    }

    fn meet(&self, volume: &str, kind: QuotaSubject, named: &[(u32, Vec<String>)]) {
        for rule in self.rules.write().iter_mut().filter(|r| r.volume == volume) {
            for (id, names) in named {
                match kind {
                    QuotaSubject::User => rule.scope.meet_user(*id, names),
                    _ => rule.scope.meet_group(*id, names),
                }
            }
        }
        let mut limits = self.limits.write();
        let quotas = limits.quotas.iter_mut();
        for quota in quotas.filter(|q| q.volume == volume && q.subject == kind) {
            for over in &mut quota.overrides {
                named.iter().for_each(|(id, names)| over.whom.meet(*id, names));
            }
        }
    }
}

/// Whether a rule or a quota of the volume names users, or groups.
fn names_decide(rules: &[Rule], limits: &Limits, volume: &str, kind: QuotaSubject) -> bool {
    let mut rules = rules.iter().filter(|r| r.volume == volume);
    let mut quotas = limits.quotas.iter().filter(|q| q.volume == volume);
    let named = |rule: &Rule| {
        let called = &rule.scope.called;
        match kind {
            QuotaSubject::User => !called.users.is_empty() || !called.exclude_users.is_empty(),
            _ => !called.groups.is_empty() || !called.exclude_groups.is_empty(),
        }
    };
    rules.any(named) || quotas.any(|q| q.subject == kind && !q.overrides.is_empty())
}
