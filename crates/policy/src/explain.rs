//! What each rule says of one entry, in words. The same primitives as the evaluation, one entry at a time.

use purge_proto::units::format_duration;

use super::circumstances::{Circumstances, Leads};
use super::files::has_too_many_names;
use super::forgiven::forgiven;
use super::kept::Stays;
use super::last_use::{covered, expires_at, is_ahead, is_expired, last_use};
use super::links::own_change;
pub use super::subject::Subject;
use super::tables::is_quota_file;
use super::units;
use crate::rule::{Rule, Symlinks, Target};
use purge_index::dirs::PATH_BYTES_MAX;
use purge_index::{DirId, Index, NAMES_MAX, StoreError};
use purge_model::{Kind, Seconds, Source};

/// What one rule says of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The rule's name.
    pub rule: String,
    /// The entry is in the rule's scope, regardless of its age.
    pub matches: bool,
    /// When the rule would take it if it is not used before; none if it never would.
    pub expires_at: Option<Seconds>,
    /// Why, for a person.
    pub because: String,
}

/// What every rule says of `subject`.
///
/// # Errors
/// When the index cannot be read.
pub fn explain(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    subject: &Subject,
) -> Result<Vec<Verdict>, StoreError> {
    let mut all: Vec<Verdict> = Vec::with_capacity(rules.len());
    for rule in rules {
        all.push(one(index, rule, at, subject)?);
    }
    name_directory_rule(rules, &mut all);
    Ok(all)
}

/// Where a directory goes before a file rule takes the file in it, the file goes with that: the file rule's verdict says so.
fn name_directory_rule(rules: &[Rule], all: &mut [Verdict]) {
    let directories = rules
        .iter()
        .zip(all.iter())
        .filter(|(rule, _)| rule.target != Target::File);
    let first = directories.filter_map(|(_, verdict)| Some((verdict.expires_at?, verdict.rule.clone())));
    let Some((due, by)) = first.min_by_key(|(due, _)| *due) else {
        return;
    };
    for (rule, verdict) in rules.iter().zip(all) {
        if rule.target == Target::File && verdict.expires_at.is_some_and(|own| own >= due) {
            verdict
                .because
                .push_str(&format!("; it goes with its directory, by rule {by}"));
        }
    }
}

/// What a directory rule says of what lies in a directory that goes as a whole.
fn with_unit(rule: &Rule, at: &Circumstances, said: &units::Said) -> Verdict {
    let unit = String::from_utf8_lossy(&said.path).into_owned();
    let by = source_in_words(said.last.source);
    let (matches, expires_at, why) = match said.stays {
        None if said.due <= at.now => (
            true,
            Some(said.due),
            format!("everything in that has expired: {by}"),
        ),
        None => (true, Some(said.due), format!("young: of the newest in that {by}")),
        Some(Stays::Held) => (true, None, "held".to_owned()),
        Some(Stays::OutOfScope) => (false, None, "which is not in the rule's scope".into()),
        Some(Stays::Mounted) => (false, None, "in which something is mounted: it is kept".into()),
        Some(_) => (
            false,
            None,
            "in which something is that the rule may not take: it is kept".into(),
        ),
    };
    Verdict {
        rule: rule.name.clone(),
        matches,
        expires_at,
        because: format!("goes with {unit} as a whole, {why}"),
    }
}

fn one(index: &Index, rule: &Rule, at: &Circumstances, subject: &Subject) -> Result<Verdict, StoreError> {
    let verdict = |matches, expires_at, because: String| Verdict {
        rule: rule.name.clone(),
        matches,
        expires_at,
        because,
    };
    let Some(ttl) = rule.ttl else {
        return Ok(verdict(false, None, "the rule has no ttl".into()));
    };
    let a = &subject.attributes;
    if let Some(why) = never(index, subject) {
        return Ok(verdict(false, None, why));
    }
    let is_dir = a.kind == Kind::Directory;
    let last = match rule.target {
        Target::File if is_dir => return Ok(verdict(false, None, when_empty(rule, at, subject))),
        Target::File if a.kind == Kind::Symlink => return Ok(link(index, rule, ttl, at, subject)),
        Target::File => last_use(a, covered(subject.access, at.gap_end), rule.clocks, at.now),
        Target::Directory { depth } => match units::said_of(index, rule, depth, at, subject)? {
            Some(said) if *said.path == *subject.path => {
                let is_left = matches!(said.stays, Some(Stays::Excluded | Stays::Mounted));
                if is_left
                    && rule
                        .scope
                        .why_not(&subject.path, is_dir, a.uid, a.gid, a.size)
                        .is_none()
                {
                    let why = "it holds something that the rule may not take: it is kept";
                    return Ok(verdict(false, None, why.into()));
                }
                said.last
            }
            Some(said) => return Ok(with_unit(rule, at, &said)),
            None if a.kind == Kind::Symlink => return Ok(link(index, rule, ttl, at, subject)),
            None => return Ok(verdict(false, None, format!("lies above depth {depth}"))),
        },
    };
    if let Some(why) = rule.scope.why_not(&subject.path, is_dir, a.uid, a.gid, a.size) {
        return Ok(verdict(false, None, why));
    }
    let announced = at.announced.allows_from(rule, subject.ino, a.birth, last.at);
    let expires = expires_at(last.at, ttl).max(announced);
    let held = is_held(index, at, subject);
    let by = source_in_words(last.source);
    let because = match (held, is_expired(last.at, at.now, ttl)) {
        (true, _) => "held".into(),
        (false, true) if at.mounted.contains(&subject.ino) => {
            format!(
                "expired: {by}; a run keeps it (mounted): something is mounted on it, or it is mounted elsewhere"
            )
        }
        (false, true) if announced > at.now => {
            let since = at.announced.since(rule, subject.ino, a.birth, last.at);
            let since = since.map_or("no list has named it yet".into(), |since| {
                format!("it was named {} ago", format_duration(since.age_at(at.now)))
            });
            let needed = format_duration(rule.announce);
            format!("expired, but the rule takes only what was announced for {needed}: {since}; {by}")
        }
        (false, true) => format!("expired: {by}{}", in_forgiven(rule, at)),
        (false, false) => format!("young: {by}"),
    };
    let ahead = match is_ahead(a, at.now) {
        true => "; a time of it lies in the future and counts as the moment in which the agent saw it first",
        false => "",
    };
    let because = format!("{because}{ahead}");
    Ok(verdict(true, (!held).then_some(expires), because))
}

/// What a file rule says of a directory.
fn when_empty(rule: &Rule, at: &Circumstances, subject: &Subject) -> String {
    let level = subject.path.split(|b| *b == b'/').count();
    let stays = match () {
        () if !rule.remove_empty_dirs => Some("remove_empty_dirs is off".to_owned()),
        () if level <= rule.keep_depth as usize => Some(format!("keep_depth = {} keeps it", rule.keep_depth)),
        () if rule.spares_dirs && at.survey.spared.contains(&subject.ino) => {
            Some("it stays: its users could not make it again in the directory above".to_owned())
        }
        () => None,
    };
    let stays = stays.map(|why| format!("; {why}")).unwrap_or_default();
    format!("a file rule takes a directory only when it is empty{stays}")
}

/// What a rule says of a symbolic link.
fn link(index: &Index, rule: &Rule, ttl: u64, at: &Circumstances, subject: &Subject) -> Verdict {
    let a = &subject.attributes;
    let verdict = |matches, expires_at, because: String| Verdict {
        rule: rule.name.clone(),
        matches,
        expires_at,
        because,
    };
    let stays = |why: &str| verdict(false, None, why.to_owned());
    // Of what goes with its target, the target's size counts.
    let size = match rule.symlinks {
        Symlinks::WithTarget => rule.scope.min_size,
        _ => a.size,
    };
    if let Some(why) = rule.scope.why_not(&subject.path, false, a.uid, a.gid, size) {
        return verdict(false, None, why);
    }
    if a.links > 1 {
        return stays("a symbolic link with several names is kept");
    }
    let own = own_change((a, subject.access), rule.clocks, at.now);
    let lead = at.survey.leads.get(&subject.ino);
    let (last, ttl) = match rule.symlinks {
        Symlinks::Keep => return stays("the rule keeps symbolic links"),
        Symlinks::WithTarget => (own.at, ttl),
        Symlinks::Expired => {
            let followed = lead.map(|l| l.followed).filter(|followed| *followed <= at.now);
            let last = followed.map_or(own.at, |followed| own.at.max(followed));
            (last, ttl.saturating_add(rule.announce))
        }
    };
    if is_held(index, at, subject) {
        return verdict(true, None, "held".into());
    }
    let expires = Some(expires_at(last, ttl));
    let is_old = is_expired(last, at.now, ttl);
    let age = if is_old { "expired" } else { "young" };
    match (rule.symlinks, lead.map(|l| l.target)) {
        (Symlinks::Expired, _) => verdict(
            true,
            expires,
            format!("{age}: its own change counts, and its being followed"),
        ),
        (_, Some(Leads::Nowhere)) => verdict(
            true,
            expires,
            format!("{age}: it leads to nothing, and its own change counts"),
        ),
        (_, Some(Leads::To(_))) => verdict(
            true,
            None,
            format!("{age}: its own change counts, and it goes only when its target goes by this rule"),
        ),
        (_, Some(Leads::Unknown)) => {
            stays("it leads out of the volume, or where it leads cannot be told: it is kept")
        }
        (_, None) => verdict(
            true,
            None,
            format!(
                "{age}: its own change counts, and it goes only when its target goes by this rule, or does not exist"
            ),
        ),
    }
}

/// The stretches that were not watched and in which it may have been used after all.
fn in_forgiven(rule: &Rule, at: &Circumstances) -> String {
    let found = forgiven(&at.forgiven, at.now, std::iter::once((rule, 1)));
    match found.stretches {
        0 => String::new(),
        1 => format!(
            "; it may have been used in 1 unwatched stretch ({} s), which gap_tolerance forgives",
            found.seconds
        ),
        n => format!(
            "; it may have been used in {n} unwatched stretches ({} s in all), which gap_tolerance forgives",
            found.seconds
        ),
    }
}

fn never(index: &Index, subject: &Subject) -> Option<String> {
    let kind = match subject.attributes.kind {
        Kind::File | Kind::Directory | Kind::Symlink => None,
        Kind::Special => Some("sockets, fifos and devices are never candidates"),
    };
    let root = index
        .dirs()
        .get(DirId::ROOT)
        .is_some_and(|d| d.ino == subject.ino);
    let quota = is_quota_file(subject.attributes.parent, &subject.path);
    let crowded = (subject.attributes.kind == Kind::File
        && has_too_many_names(index, subject.ino, &subject.attributes))
    .then(|| {
        let names = subject.attributes.links;
        format!(
            "it has {names} names, and the agent does not know where a file with more than {NAMES_MAX} is used: it is kept"
        )
    });
    let deep = index
        .dirs()
        .is_too_deep(subject.attributes.parent)
        .then(|| format!("it lies too deep: of a path longer than {PATH_BYTES_MAX} bytes nothing is taken"));
    let lost = subject.path.split(|b| *b == b'/').next() == Some(b"lost+found");
    kind.or(root.then_some("the volume's root is never a candidate"))
        .or((quota || lost).then_some("the file system's own files are never candidates"))
        .map(Into::into)
        .or(crowded)
        .or(deep)
}

fn is_held(index: &Index, at: &Circumstances, subject: &Subject) -> bool {
    let mut dir = subject.attributes.parent;
    if at.held.contains(&subject.ino) {
        return true;
    }
    for _ in 0..=index.dirs().table_len() {
        let Some(entry) = index.dirs().get(dir) else {
            return false;
        };
        if at.held.contains(&entry.ino) {
            return true;
        }
        if dir == DirId::ROOT {
            return false;
        }
        dir = entry.parent;
    }
    false
}

/// What a source means, for a person.
pub fn source_in_words(source: Source) -> &'static str {
    match source {
        Source::Observed => "its last access was observed",
        Source::Atime => "the file system's access time is believed",
        Source::Mtime => "its modification time counts",
        Source::Ctime => "its change time counts",
        Source::Birth => "its birth time counts",
        Source::Baseline => "observation began then, and nothing is known of the time before",
        Source::Gap => "no agent watched until then, which counts as a use",
    }
}
