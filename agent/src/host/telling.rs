//! What people are told of: looks now and then at runs, gaps, space, quotas and what will expire, and gives what is new to
//! the outbox. Nothing here waits for a sink, and no purge waits for this.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use purge_proto::v1;

use super::triggered::{namer, shares, space_of};
use super::{Host, HostError};
use crate::config::{Quota, QuotaSubject, Rule, Watermark, user_name};
use crate::index::{Index, StoreError};
use crate::model::Seconds;
use crate::notify::event::{Audience, Entry, Event, Expiring, Fill, List, Purged, Use, What, rfc3339};
use crate::notify::expiring::{self, Share, Told};
use crate::notify::memory::{Episode, Memory};
use crate::notify::sender::Notifier;
use crate::notify::tally::{self, Lost};
use crate::policy::evaluate::{Pick, Shape, evaluate};
use crate::policy::quota::{self, Over, Subject};
use crate::purge::recover::{Witness, Witnesses};
use crate::volume::Volume;

/// What costs a pass over the index is looked at this often at most, and seldom enough to cost a hundredth of a processor.
const PASS_EVERY: Duration = Duration::from_secs(60);
const PASS_SHARE: u32 = 100;
/// A volume's space is asked for this often.
const SPACE_EVERY: Duration = Duration::from_secs(15);
/// An owner hears of one rule at most so often.
const DAY: u64 = 86_400;
/// Where nothing is known of what was told, what is older than this is taken as told.
const RECENT: u64 = 3600;
/// Runs older than this are not told of any more.
const LATE: u64 = 60 * DAY;
/// What is over is tidied up this often.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// Something went wrong while looking: it is looked at again.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("the outbox cannot be written: {0}")]
    Outbox(#[from] io::Error),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Host {
    /// A run that the agent wanted to make was not made. Told once a day.
    pub(super) fn tell_of_failure(&self, volume: &str, by: &str, error: &HostError) {
        let now = Seconds::wall();
        let what = What::RunFailed {
            run_id: String::new(),
            by: by.to_owned(),
            error: error.to_string(),
            failed: 0,
        };
        let day = u64::from(now.0).checked_div(DAY).unwrap_or(0);
        let event = self.event(format!("not-run/{by}/{day}"), volume, Audience::Operator, what);
        if let Err(error) = self.notifier.tell(event, &[]) {
            tracing::error!(by, %error, "nobody can be told that the run was not made");
        }
    }

    fn event(&self, event_id: String, volume: &str, to: Audience, what: What) -> Event {
        let path = self.volumes.iter().find(|v| v.config.name == volume);
        Event {
            event_id,
            at: rfc3339(Seconds::wall()),
            volume: volume.to_owned(),
            path: path.map_or_else(String::new, |v| v.config.path.display().to_string()),
            to,
            what,
            list: None,
        }
    }
}

impl Witnesses for Arc<Notifier> {
    fn of_run(&self, run: &str, root: &Path) -> Witness {
        let tally = self.tally(run, root);
        Box::new(move |taken| {
            if let Some(tally) = &tally {
                tally.note(taken);
            }
        })
    }
}

/// A pass over the index that is made now and then.
#[derive(Debug)]
struct Pass {
    next: Instant,
}

impl Pass {
    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn made(&mut self, began: Instant) {
        self.next = Instant::now() + PASS_EVERY.max(began.elapsed().saturating_mul(PASS_SHARE));
    }
}

/// Looks.
#[derive(Debug)]
pub struct Lookout {
    host: Arc<Host>,
    memory: Memory,
    /// Runs that had ended when it looked last; none: it has not.
    ended: Option<u64>,
    space: Instant,
    quotas: Pass,
    expiring: Pass,
    tidied: Option<Instant>,
    began: Seconds,
}

impl Lookout {
    /// Reads what was told.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn new(host: Arc<Host>) -> io::Result<Self> {
        let memory = Memory::open(host.notifier.outbox.dir())?;
        let now = Instant::now();
        Ok(Self {
            host,
            memory,
            ended: None,
            space: now,
            quotas: Pass { next: now },
            expiring: Pass { next: now },
            tidied: None,
            began: Seconds::wall(),
        })
    }

    /// Looks at everything whose time it is.
    pub fn look(&mut self) {
        if self.tidied.is_none_or(|at| at.elapsed() > TIDY_EVERY) {
            self.tidied = Some(Instant::now());
            let tidied = self.host.notifier.outbox.tidy(wall());
            said("what was sent long ago", tidied.map_err(LookError::from));
        }
        if !self.host.notifier.tells() {
            return;
        }
        let runs = self.runs();
        said("runs", runs);
        let gaps = self.gaps();
        said("gaps", gaps);
        if Instant::now() >= self.space {
            self.space = Instant::now() + SPACE_EVERY;
            for watermark in self.host.limits().watermarks {
                let looked = self.watermark(&watermark);
                said("a watermark", looked);
            }
        }
        if self.quotas.is_due() {
            let began = Instant::now();
            for quota in self.host.limits().quotas {
                let looked = self.quota(&quota);
                said("a quota", looked);
            }
            self.quotas.made(began);
        }
        let asked = std::mem::take(&mut *self.host.to_tell.lock());
        let due = self.expiring.is_due();
        if due || !asked.is_empty() {
            let began = Instant::now();
            for rule in self.host.rules() {
                // A rule that only tells does so by its schedule, if it has one.
                let waits = rule.tells_only && rule.schedule.is_some();
                if asked.contains(&rule.name) || (due && !waits) {
                    let looked = self.rule(&rule);
                    said("what will expire", looked);
                }
            }
            if due {
                self.expiring.made(began);
            }
        }
        let saved = self.memory.save(wall());
        said("what was told", saved.map_err(LookError::from));
    }

    /// Gives an event to the outbox; what was told may be noted afterwards.
    fn tell(&self, mut event: Event, entries: &[Entry], total: u64) -> Result<(), LookError> {
        if !entries.is_empty() {
            event.list = Some(List {
                total,
                shown: entries.len() as u64,
                file: String::new(),
            });
        }
        Ok(self.host.notifier.tell(event, entries)?)
    }

    // ------------------------------------------------------------ runs

    fn runs(&mut self) -> Result<(), LookError> {
        let ended = self.host.runs.ended();
        if self.ended == Some(ended) {
            return Ok(());
        }
        for run in self.host.runs.list()? {
            let key = format!("run/{}", run.run_id);
            let over = run.finished_at.or(run.started_at).map_or(0, |t| t.seconds);
            let age = Seconds::from_unix(over).age_at(Seconds::now());
            if run.state() == v1::RunState::Running || self.memory.has(&key) || age > LATE {
                continue;
            }
            let long_past = self.memory.is_new && Seconds::from_unix(over).age_at(self.began) > RECENT;
            if !long_past {
                self.run(&run)?;
            }
            self.memory.note(&key, wall());
            self.memory.save(wall())?;
            tally::forget(self.host.notifier.outbox.dir(), &run.run_id)?;
        }
        self.ended = Some(ended);
        Ok(())
    }

    fn run(&self, run: &v1::Run) -> Result<(), LookError> {
        let rules = self
            .host
            .plans
            .get(&run.plan_id)
            .map(|p| p.rules)
            .unwrap_or_default();
        for lost in tally::read(self.host.notifier.outbox.dir(), &run.run_id)? {
            self.lost(run, &rules, lost)?;
        }
        let failed = matches!(run.state(), v1::RunState::Failed | v1::RunState::Partial);
        if failed {
            let error = match run.error.is_empty() {
                true => run.failed.first().map(|f| f.error.clone()).unwrap_or_default(),
                false => run.error.clone(),
            };
            let what = What::RunFailed {
                run_id: run.run_id.clone(),
                by: run.requested_by.clone(),
                error,
                failed: run.failed_total,
            };
            let id = format!("run-failed/{}", run.run_id);
            let event = self.host.event(id, &run.volume, Audience::Operator, what);
            self.tell(event, &[], 0)?;
        }
        Ok(())
    }

    fn lost(&self, run: &v1::Run, rules: &[String], lost: Lost) -> Result<(), LookError> {
        let to = Audience::Owner {
            user: user_name(lost.uid),
            uid: lost.uid,
        };
        let what = What::Purged(Purged {
            run_id: run.run_id.clone(),
            rules: rules.to_vec(),
            files: lost.files,
            directories: lost.directories,
            bytes: lost.bytes,
            restorable_until: lost
                .until
                .map(|at| rfc3339(Seconds::from_unix(i64::try_from(at).unwrap_or(i64::MAX)))),
        });
        let id = format!("purged/{}/{}", run.run_id, lost.uid);
        let event = self.host.event(id, &run.volume, to, what);
        let total = lost.files.saturating_add(lost.directories);
        self.tell(event, &lost.entries, total)
    }

    // ------------------------------------------------------------ gaps

    fn gaps(&mut self) -> Result<(), LookError> {
        let host = Arc::clone(&self.host);
        for volume in host.volumes() {
            let name = &volume.config.name;
            for gap in volume.condition().gaps.iter().filter(|g| g.counts) {
                // Its end may still move.
                let key = format!("gap/{name}/{}/{}", gap.from, gap.cause);
                if self.memory.has(&key) {
                    continue;
                }
                let long_past = self.memory.is_new && Seconds(gap.to).age_at(self.began) > RECENT;
                if !long_past {
                    let what = What::CoverageGap {
                        from: rfc3339(Seconds(gap.from)),
                        until: rfc3339(Seconds(gap.to)),
                        cause: gap.cause.clone(),
                        counts: gap.counts,
                    };
                    let event = host.event(key.clone(), name, Audience::Operator, what);
                    self.tell(event, &[], 0)?;
                }
                self.memory.note(&key, wall());
            }
        }
        Ok(())
    }

    // ------------------------------------------------------------ watermarks

    fn watermark(&mut self, w: &Watermark) -> Result<(), LookError> {
        let volume = Arc::clone(self.host.volume(&w.volume)?);
        let (space, inodes) = shares(&space_of(&volume)?);
        let key = format!("watermark/{}", w.volume);
        let before = self.memory.episode(&key);
        let fullest = space.max(inodes);
        // What swings around the mark is not told each time: it has ended half way down.
        let is_on = match before.on {
            true => fullest > (w.high + w.low) / 2.0,
            false => fullest > w.high,
        };
        if is_on == before.on {
            return Ok(());
        }
        let fill = Fill {
            space_percent: space * 100.0,
            inodes_percent: inodes * 100.0,
            high_percent: w.high * 100.0,
            low_percent: w.low * 100.0,
            rule: w.rule.clone(),
        };
        let what = match is_on {
            true => What::WatermarkReached(fill),
            false => What::WatermarkEnded(fill),
        };
        self.turn(&key, &before, is_on, (&w.volume, Audience::Operator, what))
    }

    /// Tells that an episode begins or ends, and then notes it.
    fn turn(
        &mut self,
        key: &str,
        before: &Episode,
        on: bool,
        (volume, to, what): (&str, Audience, What),
    ) -> Result<(), LookError> {
        let number = match on {
            true => before.number.saturating_add(1),
            false => before.number,
        };
        let state = if on { "begun" } else { "ended" };
        let event = self
            .host
            .event(format!("{key}/{number}/{state}"), volume, to.clone(), what);
        self.tell(event, &[], 0)?;
        self.memory.turn(
            key,
            Episode {
                number,
                on,
                to: Some(to),
            },
        );
        Ok(())
    }

    // ------------------------------------------------------------ quotas

    fn quota(&mut self, q: &Quota) -> Result<(), LookError> {
        let volume = Arc::clone(self.host.volume(&q.volume)?);
        if self.host.check_certain(&volume).is_err() {
            // It is told of as soon as what is there is known.
            return Ok(());
        }
        volume.sync();
        let all = {
            let index = volume.watched.index.read();
            let all = quota::uses(&index, q, Seconds::judged(), namer(q))?;
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
            if is_over == before.on {
                continue;
            }
            let what = match is_over {
                true => What::OverQuota(use_of(q, &used)),
                false => What::BackUnder(use_of(q, &used)),
            };
            self.turn(&key, &before, is_over, (&q.volume, to, what))?;
        }
        for name in gone {
            // Whoever has no file left uses nothing.
            let key = format!("{prefix}{name}");
            let before = self.memory.episode(&key);
            let to = before.to.clone().unwrap_or(Audience::Operator);
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

    // ------------------------------------------------------------ what will expire

    fn rule(&mut self, rule: &Rule) -> Result<(), LookError> {
        let Some(ttl) = rule.ttl else { return Ok(()) };
        let volume = Arc::clone(self.host.volume(&rule.volume)?);
        if self.host.check_certain(&volume).is_err() {
            return Ok(());
        }
        volume.sync();
        let config = self.host.notifier.config();
        // A rule that only tells speaks of what has expired, one that deletes of what will.
        let ahead = if rule.tells_only { 0 } else { config.warn_before };
        let mut wider = rule.clone();
        wider.ttl = Some(ttl.saturating_sub(ahead).max(1));
        (wider.max_files, wider.max_bytes, wider.remove_empty_dirs) = (0, 0, false);
        let at = self.host.circumstances(&volume);
        let fingerprint = fingerprint(rule, ahead);
        let key = |uid: u32| format!("{}/{}/{uid}", rule.volume, rule.name);
        let shares = {
            let index = volume.watched.index.read();
            let found = evaluate(&index, &[wider], &at)?;
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
            bytes: share.bytes,
            // What has expired may go at any moment.
            first_at: rfc3339(share.first.max(Seconds(told.at))),
            until: rfc3339(Seconds(told.until)),
            deletes: !rule.tells_only,
        };
        let what = match rule.tells_only {
            true => What::Expired(expiring),
            false => What::WillExpire(expiring),
        };
        let to = Audience::Owner {
            user: user_name(uid),
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
        let event = self.host.event(id, &rule.volume, to, what);
        self.tell(event, &entries, share.entries())
    }
}

/// The entries of picks, in their order; what is gone by now is left out.
fn named(volume: &Volume, picks: &[Pick], ttl: u64) -> Result<Vec<Entry>, StoreError> {
    let root = volume.config.path.as_os_str().as_encoded_bytes();
    let mut entries = Vec::with_capacity(picks.len());
    for pick in picks {
        // Taken anew for each: events must not wait for a list.
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
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        Some(path)
    });
    Ok(path)
}

fn kind_of(subject: QuotaSubject) -> &'static str {
    match subject {
        QuotaSubject::User => "user",
        QuotaSubject::Group => "group",
        QuotaSubject::Directory { .. } => "directory",
    }
}

/// A user hears of their own quota, a directory's owner of its, the operator of a group's.
fn audience(index: &Index, over: &Over, by: QuotaSubject) -> Audience {
    let owner = |uid: u32| Audience::Owner {
        user: user_name(uid),
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
        subject: over.name.chars().flat_map(printable).collect(),
        files: over.used.files,
        used_bytes: clamp(over.used.bytes),
        limit_bytes: over.hard,
        used_byte_days: clamp(over.used.byte_days),
        limit_byte_days: over.temporal,
        purges: q.purges,
    }
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// Changes when the rule means other times.
fn fingerprint(rule: &Rule, ahead: u64) -> u64 {
    let words = format!("{:?} {:?} {:?} {ahead}", rule.ttl, rule.target, rule.clocks);
    crc32fast::hash(words.as_bytes()).into()
}

fn said(what: &str, looked: Result<(), LookError>) {
    if let Err(error) = looked {
        tracing::error!(%error, "{what}: nobody could be told; it is looked at again");
    }
}

fn wall() -> u64 {
    Seconds::wall().0.into()
}
