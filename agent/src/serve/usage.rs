//! The report of who uses how much.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use purge_proto::v1;

use super::convert;
use crate::config::{group_name, know_group_names, know_user_names, user_name};
use crate::host::{Host, HostError, lossy};
use crate::index::Index;
use crate::index::dirs::Paths;
use crate::model::Seconds;
use crate::purge::holds::timestamp;
use crate::query::usage::{self, By, Subject, Usage};

/// Of more rows than this, two threads make a half each.
const ALONE_MAX: usize = 10_000;

/// The rows of every volume that is asked for; with `only`, those of this user alone.
pub(super) fn report(
    host: &Host,
    r: &v1::UsageRequest,
    by: By,
    only: Option<u32>,
) -> Result<v1::UsageReport, HostError> {
    let volumes = host.volumes();
    let mut wanted = volumes
        .iter()
        .filter(|v| r.volume.is_empty() || v.config.name == r.volume)
        .peekable();
    if wanted.peek().is_none() && !r.volume.is_empty() {
        host.volume(&r.volume)?;
    }
    let limit = usize::try_from(r.limit).unwrap_or(usize::MAX);
    let (mut rows, mut subjects, mut as_of) = (Vec::new(), 0usize, None);
    for volume in wanted {
        if by == By::Project && !volume.watched.projects.are_told() {
            return Err(HostError::Refused(format!(
                "this kernel tells project ids only of open files (Linux 6.17 and later: of all), and the agent opens those of volume {} only \
                 if it is mounted with prjquota, or has a [[quota]] with subject = \"project\"",
                volume.config.name
            )));
        }
        volume.sync();
        let at = (Seconds::judged(), volume.condition().gap_end);
        usage::refresh(&volume.watched.index, &volume.watched.counting, at)?;
        let index = volume.watched.index.read();
        let counted = index.ledger().as_of();
        as_of = Some(as_of.map_or(counted, |known: Seconds| known.min(counted)));
        let whole = Maker {
            volume: &volume.config.name,
            index: &index,
            by,
            only,
            with_ages: !r.without_ages,
            paths: None,
        };
        // One user's row may be any.
        let most = if only.is_some() { 0 } else { limit };
        let (of_volume, count) = whole.rows(&Usage::of(&index, by, most));
        drop(index);
        rows.extend(of_volume);
        subjects = subjects.saturating_add(count);
    }
    // One volume's come in order: that is a single pass then.
    rows.sort_by(|a, b| (Reverse(a.bytes), &a.subject).cmp(&(Reverse(b.bytes), &b.subject)));
    if limit > 0 {
        rows.truncate(limit);
    }
    Ok(v1::UsageReport {
        rows,
        as_of: as_of.map(timestamp),
        subjects: u64::try_from(subjects).unwrap_or(u64::MAX),
    })
}

/// The rows of one index, at most so many (0: all): what a report is made of, without its order among equals.
pub fn rows(index: &Index, by: By, most: usize) -> Vec<v1::UsageRow> {
    let maker = Maker {
        volume: "",
        index,
        by,
        only: None,
        with_ages: false,
        paths: None,
    };
    maker.rows(&Usage::of(index, by, most)).0
}

/// Makes the rows of a volume.
struct Maker<'a> {
    volume: &'a str,
    index: &'a Index,
    by: By,
    only: Option<u32>,
    with_ages: bool,
    paths: Option<Paths>,
}

impl Maker<'_> {
    /// The rows, and how many there are without a limit.
    fn rows(mut self, usage: &Usage<'_>) -> (Vec<v1::UsageRow>, usize) {
        let all = 0..usage.len();
        self.know_names(usage, all.clone());
        let rows = match usage.len() {
            n if n > ALONE_MAX => {
                let half = n / 2;
                std::thread::scope(|scope| {
                    let second = scope.spawn(|| self.some(usage, half..n));
                    let mut rows = self.some(usage, 0..half);
                    match second.join() {
                        Ok(more) => rows.extend(more),
                        // Contained where any panic of a request is.
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                    rows
                })
            }
            _ => self.some(usage, all),
        };
        let count = match self.only {
            Some(_) => rows.len(),
            None => usage.subjects(),
        };
        (rows, count)
    }

    /// What is found faster for all of them at once.
    fn know_names(&mut self, usage: &Usage<'_>, all: Range<usize>) {
        let ids = || {
            usage.rows(all.clone()).filter_map(|(s, _)| match s {
                Subject::Id(id) if self.only.is_none_or(|uid| uid == id) => Some(id),
                _ => None,
            })
        };
        match self.by {
            By::User => know_user_names(ids()),
            By::Group => know_group_names(ids()),
            By::Project => {}
            By::Directory(_) if all.len() > ALONE_MAX => self.paths = Some(self.index.dirs().paths()),
            By::Directory(_) => {}
        }
    }

    fn some(&self, usage: &Usage<'_>, range: Range<usize>) -> Vec<v1::UsageRow> {
        let now = Seconds::now();
        let mut rows = Vec::with_capacity(range.len());
        for (subject, sums) in usage.rows(range) {
            if self.only.is_some_and(|uid| subject != Subject::Id(uid)) {
                continue;
            }
            let name = self.name(subject);
            rows.push(convert::usage_row(self.volume, name, &sums, self.with_ages, now));
        }
        rows
    }

    fn name(&self, subject: Subject) -> String {
        match (self.by, subject) {
            (By::Project, Subject::Id(project)) => project.to_string(),
            (By::Group, Subject::Id(gid)) => group_name(gid),
            (_, Subject::Id(uid)) => user_name(uid),
            (_, Subject::Directory(id)) => {
                let known = self.paths.as_ref().and_then(|p| p.get(id));
                let path = known.map(Cow::Borrowed);
                match path.or_else(|| Some(Cow::Owned(self.index.dirs().path(id)?))) {
                    Some(path) if path.is_empty() => ".".into(),
                    path => lossy(&path.unwrap_or_default()),
                }
            }
        }
    }
}
