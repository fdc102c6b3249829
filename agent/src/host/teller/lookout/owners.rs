//! What owners are told of before anything is taken: that they are over a quota, and what will expire.

use purge_proto::shown::Shown;

use super::{DAY, LookError, Lookout};
use crate::host::asker::namer;
use crate::host::asker::projects_of;
use crate::volume::Volume;
use purge_base::accounts::user_account;
use purge_base::clock;
use purge_index::{Index, StoreError};
use purge_model::Seconds;
use purge_notify::event::{Audience, Entry, Expiring, Use, What, rfc3339};
use purge_notify::expiring::{self, Share, Told};
use purge_policy::allowance::Quota;
use purge_policy::evaluate::{Pick, Shape, evaluate};
use purge_policy::quota::{self, Over, Subject};
use purge_policy::rule::{Action, Rule};
use purge_policy::whom::QuotaSubject;

impl Lookout {
    /// Who is over a quota, or no longer.
    pub(super) fn quota(&mut self, q: &Quota) -> Result<(), LookError> {
        let volume = self.ground.volume(&q.volume)?;
        if self.judge.check_certain(&volume).is_err() {
            // It is told of as soon as what is there is known.
            return Ok(());
        }
        volume.sync();
        let named = projects_of(q, &volume);
        let all = {
            let index = volume.watched.index.read();
            let all = quota::uses(&index, (q, &named), clock::judged(), namer(q))?;
            let to = |o: &Over| audience(&index, o, q.subject);
            all.iter().map(|o| (to(o), o.clone())).collect::<Vec<_>>()
        };
        let prefix = format!("quota/{}/{}/", q.name, kind_of(q.subject));
        let mut gone = self.memory.going_on(&prefix);
        for (to, used) in all {
            let key = format!("{prefix}{}", used.name);
            gone.retain(|name| *name != used.name);
            let before = self.memory.episode(&key);
            let is_over = used.hard.is_some() || used.temporal.is_some();
            if is_over == before.on || self.waits(&to) {
                continue;
            }
            let what = match is_over {
                true => What::OverQuota(use_of(q, &used)),
                false => What::BackUnder(use_of(q, &used)),
            };
            self.turn(&key, &before, is_over, (&q.volume, to, what))?;
        }
        for name in gone {
            // A subject that has no file left uses nothing.
            let key = format!("{prefix}{name}");
            let before = self.memory.episode(&key);
            let to = before.to.clone().unwrap_or(Audience::Operator);
            if self.waits(&to) {
                continue;
            }
            let nothing = Over {
                subject: Subject::Id(0),
                name,
                used: quota::Sums::default(),
                hard: None,
                temporal: None,
            };
            let what = What::BackUnder(use_of(q, &nothing));
            self.turn(&key, &before, false, (&q.volume, to, what))?;
        }
        Ok(())
    }

    /// Whether this audience is told nothing yet.
    fn waits(&self, to: &Audience) -> bool {
        matches!(to, Audience::Owner { .. }) && self.is_held()
    }

    /// What a rule will take, or has found.
    pub(super) fn rule(&mut self, rule: &Rule) -> Result<(), LookError> {
        let Some(ttl) = rule.ttl else { return Ok(()) };
        let volume = self.ground.volume(&rule.volume)?;
        if self.judge.check_certain(&volume).is_err() {
            return Ok(());
        }
        volume.sync();
        let config = self.notifier.config();
        // A rule that only tells speaks of what has expired, one that deletes of what will.
        let ahead = if rule.action.is_applied() {
            config.warn_before
        } else {
            0
        };
        let (rules, place) = self.together_with(rule);
        let wider: Vec<Rule> = rules.into_iter().map(|rule| wider(rule, ahead)).collect();
        let at = self.judge.circumstances(&volume);
        let fingerprint = fingerprint(rule, ahead);
        let key = |uid: u32| format!("{}/{}/{uid}", rule.volume, rule.name);
        let shares = {
            let index = volume.watched.index.read();
            let mut found = evaluate(&index, &wider, &at)?;
            found.picks.retain(|pick| usize::from(pick.rule) == place);
            let told = |uid| {
                let told = self.memory.heard(&key(uid)).filter(|t| t.rule == fingerprint);
                told.map(|t| Seconds(t.until))
            };
            let owner = |pick: &Pick| index.get(pick.ino).map(|(entry, _)| entry.uid);
            expiring::by_owner(found.picks, ttl, config.list_max, owner, told)
        };
        for (uid, share) in shares {
            let before = self.memory.heard(&key(uid)).cloned();
            if !expiring::is_news(before.as_ref(), &share, fingerprint, at.now, DAY) {
                continue;
            }
            let times = before.map_or(0, |t| t.times).saturating_add(1);
            let until = at.now.plus(ahead);
            let told = Told {
                times,
                at: at.now.0,
                until: until.0,
                entries: share.entries(),
                rule: fingerprint,
            };
            self.tell_owner(&volume, (rule, ttl), uid, &share, &told)?;
            self.memory.hear(&key(uid), told);
        }
        Ok(())
    }

    /// The rules that are asked together, and the place of this one: what several rules delete is told of once, by the rule that will take it.
    fn together_with(&self, rule: &Rule) -> (Vec<Rule>, usize) {
        let is_with =
            |other: &Rule| other.volume == rule.volume && other.action.is_applied() && other.ttl.is_some();
        let all: Vec<Rule> = self.ground.rules().into_iter().filter(is_with).collect();
        match all.iter().position(|other| other.name == rule.name) {
            Some(place) if rule.action.is_applied() => (all, place),
            _ => (vec![rule.clone()], 0),
        }
    }

    fn tell_owner(
        &self,
        volume: &Volume,
        (rule, ttl): (&Rule, u64),
        uid: u32,
        share: &Share,
        told: &Told,
    ) -> Result<(), LookError> {
        let expiring = Expiring {
            rule: rule.name.clone(),
            ttl_seconds: ttl,
            files: share.files,
            directories: share.directories,
            files_inside: share.files_inside,
            bytes: share.bytes,
            // What has expired may go at any moment.
            first_at: rfc3339(share.first.max(Seconds(told.at))),
            until: rfc3339(Seconds(told.until)),
            deletes: rule.action.is_applied(),
        };
        let what = match rule.action {
            Action::Notify => What::Expired(expiring),
            Action::Delete | Action::Archive(_) => What::WillExpire(expiring),
        };
        let to = Audience::Owner {
            user: user_account(uid),
            uid,
        };
        let id = format!(
            "{}/{}/{}/{uid}/{}",
            what.kind().as_str(),
            rule.volume,
            rule.name,
            told.times
        );
        let entries = named(volume, &share.picks, ttl)?;
        let event = self.notices.event(id, &rule.volume, to, what);
        self.tell(event, entries, share.entries())
    }
}

/// A rule that takes already what it will take within `ahead` seconds.
fn wider(mut rule: Rule, ahead: u64) -> Rule {
    let ttl = rule.ttl.map(|ttl| ttl.saturating_sub(ahead).max(1));
    (rule.ttl, rule.max_files, rule.max_bytes, rule.remove_empty_dirs) = (ttl, 0, 0, false);
    rule
}

/// The entries of picks, in their order; what is no longer there is left out.
fn named(volume: &Volume, picks: &[Pick], ttl: u64) -> Result<Vec<Entry>, StoreError> {
    let root = volume.config.path.as_os_str().as_encoded_bytes();
    let mut entries = Vec::with_capacity(picks.len());
    for pick in picks {
        // The lock is taken again for each: events must not wait for a list.
        let index = volume.watched.index.read();
        if let Some(below) = path_of(&index, pick)? {
            let path = [root, b"/", below.as_slice()].concat();
            entries.push(Entry::new(&path, pick.bytes, Some(expiring::expires(pick, ttl))));
        }
    }
    Ok(entries)
}

fn path_of(index: &Index, pick: &Pick) -> Result<Option<Vec<u8>>, StoreError> {
    let dirs = index.dirs();
    if pick.shape != Shape::File {
        return Ok(dirs.of_inode(pick.ino).and_then(|id| dirs.path(id)));
    }
    let (page, place) = (pick.ino / 64, (pick.ino % 64) as u8);
    let mut found = None;
    index.names_of_page(page, |offset, parent, name| {
        if offset == place && found.is_none() {
            found = Some((parent, name.to_vec()));
        }
    })?;
    let path = found.and_then(|(parent, name)| {
        let mut path = dirs.path(parent)?;
        purge_model::path::push(&mut path, &name);
        Some(path)
    });
    Ok(path)
}

fn kind_of(subject: QuotaSubject) -> &'static str {
    match subject {
        QuotaSubject::User => "user",
        QuotaSubject::Group => "group",
        QuotaSubject::Project => "project",
        QuotaSubject::Directory { .. } => "directory",
    }
}

/// A user hears of their own quota, a directory's owner of its, the operator of a group's or a project's.
fn audience(index: &Index, over: &Over, by: QuotaSubject) -> Audience {
    let owner = |uid: u32| Audience::Owner {
        user: user_account(uid),
        uid,
    };
    match (over.subject, by) {
        (Subject::Id(uid), QuotaSubject::User) => owner(uid),
        (Subject::Directory(id), _) => {
            let ino = index.dirs().get(id).map(|d| d.ino);
            let uid = ino
                .and_then(|ino| Some(index.get(ino)?.0.uid))
                .filter(|uid| *uid != 0);
            uid.map_or(Audience::Operator, owner)
        }
        (Subject::Id(_), _) => Audience::Operator,
    }
}

fn use_of(q: &Quota, over: &Over) -> Use {
    let clamp = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    Use {
        quota: q.name.clone(),
        subject_kind: kind_of(q.subject).into(),
        subject: Shown::text(&over.name).into_string(),
        files: over.used.files,
        used_bytes: clamp(over.used.bytes),
        limit_bytes: over.hard,
        used_byte_days: clamp(over.used.byte_days),
        limit_byte_days: over.temporal,
        purges: q.purges(),
    }
}

/// Changes when the rule means other times.
fn fingerprint(rule: &Rule, ahead: u64) -> u64 {
    let words = format!("{:?} {:?} {:?} {ahead}", rule.ttl, rule.target, rule.clocks);
    crc32fast::hash(words.as_bytes()).into()
}
