//! `[[quota]]` and `[[watermark]]` tables, checked.

use super::VolumeConfig;
use super::fault::Fault;
use super::keys::{Key, quota, watermark};
use super::names::read_name;
use super::section::{Section, Source, suggest, value};
use purge_base::accounts::{group_ids, user_ids};
use purge_policy::allowance::{Limits, Override, Quota, QuotaAction, Watermark};
use purge_policy::rule::Rule;
use purge_policy::whom::QuotaSubject;
use purge_policy::whom::Whom;

/// The limits of a file, and where each stands, for the check that needs all files.
#[derive(Default)]
pub(super) struct Read {
    pub limits: Limits,
    quota_places: Vec<Fault>,
    watermark_places: Vec<Fault>,
}

pub(super) fn read_quota(s: Section<'_, '_>, src: &mut Source<'_>, read: &mut Read) {
    let before = src.faults.len();
    let taken: Vec<String> = read.limits.quotas.iter().map(|q| q.name.clone()).collect();
    let name = read_name(&s, src, quota::NAME, &taken);
    let volume = s.needed(src, quota::VOLUME);
    let subject = read_subject(&s, src);
    let hard = s.size(src, quota::HARD).map(|(n, _)| n);
    let temporal = s.size(src, quota::TEMPORAL).map(|(n, _)| n);
    let max_age = s.duration(src, quota::MAX_AGE);
    let actions = [("notify", QuotaAction::Notify), ("purge", QuotaAction::Purge)];
    let action = s
        .choice(src, quota::ACTION, &actions)
        .unwrap_or(QuotaAction::Notify);
    let low = value(s.percent(src, quota::LOW));
    let min_age = read_min_age(&s, src, quota::MIN_AGE);
    let rule = s.string(src, quota::RULE).map(|(name, _)| name);
    let overrides = s.tables(src, quota::OVERRIDES).into_iter();
    let overrides: Vec<_> = overrides
        .filter_map(|(table, span)| read_override(Section::new(&quota::OVERRIDE, table, span), src, subject))
        .collect();
    if let Some((0, span)) = &max_age {
        src.fault(
            span,
            "max_age is 0: everything would go",
            "write a time such as \"365d\", or leave it out",
        );
    }
    let limited = hard.is_some() || temporal.is_some() || max_age.is_some() || !overrides.is_empty();
    if !limited && src.faults.len() == before {
        let mend = "add hard = \"40TB\", temporal = \"300TB\" or max_age = \"365d\"";
        src.fault(&s.span.clone(), "the quota limits nothing", mend);
    }
    let place = Fault::at(src.file, src.text, &s.span, "", "");
    s.finish(src);
    let (Some(name), Some((volume, _)), true) = (name, volume, src.faults.len() == before) else {
        return;
    };
    read.quota_places.push(place);
    read.limits.quotas.push(Quota {
        name,
        volume,
        subject,
        hard,
        temporal,
        max_age: max_age.map(|(n, _)| n),
        action,
        low,
        min_age,
        rule,
        overrides,
    });
}

pub(super) fn read_watermark(s: Section<'_, '_>, src: &mut Source<'_>, read: &mut Read) {
    let before = src.faults.len();
    let volume = s.needed(src, watermark::VOLUME);
    let rule = s.needed(src, watermark::RULE);
    s.need(src, watermark::HIGH);
    s.need(src, watermark::LOW);
    let high = s.percent(src, watermark::HIGH);
    let low = s.percent(src, watermark::LOW);
    if let (Some((high, _)), Some((low, span))) = (&high, &low)
        && low >= high
    {
        src.fault(span, "low is not below high", "write a smaller share than high");
    }
    let min_age = read_min_age(&s, src, watermark::MIN_AGE);
    let free_trash = s.flag(src, watermark::FREE_TRASH).unwrap_or(false);
    let place = Fault::at(src.file, src.text, &s.span, "", "");
    s.finish(src);
    let (Some((volume, at)), Some((rule, _)), Some((high, _)), Some((low, _))) = (volume, rule, high, low)
    else {
        return;
    };
    if read.limits.watermarks.iter().any(|w| w.volume == volume) {
        src.fault(
            &at,
            format!("volume {volume} has a watermark already"),
            "give each volume one",
        );
    }
    if src.faults.len() > before {
        return;
    }
    read.watermark_places.push(place);
    read.limits.watermarks.push(Watermark {
        volume,
        high,
        low,
        rule,
        min_age,
        free_trash,
    });
}

fn read_min_age(s: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> u64 {
    match s.duration(src, key) {
        Some((0, span)) => {
            src.fault(
                &span,
                "min_age is 0: files in use would go",
                "write a time such as \"2d\"",
            );
            0
        }
        found => value(found),
    }
}

fn read_subject(s: &Section<'_, '_>, src: &mut Source<'_>) -> QuotaSubject {
    let subjects = [
        ("user", QuotaSubject::User),
        ("group", QuotaSubject::Group),
        ("project", QuotaSubject::Project),
        ("directory", QuotaSubject::Directory { depth: 1 }),
    ];
    s.need(src, quota::SUBJECT);
    let subject = s.choice(src, quota::SUBJECT, &subjects);
    let depth = s.count(src, quota::DEPTH);
    match (subject.unwrap_or(QuotaSubject::User), depth) {
        (QuotaSubject::Directory { .. }, Some((0, span))) => {
            src.fault(
                &span,
                "depth 0 is the whole volume",
                "write 1 or more; a [[watermark]] limits the volume",
            );
            QuotaSubject::Directory { depth: 1 }
        }
        (QuotaSubject::Directory { .. }, Some((n, _))) => QuotaSubject::Directory {
            depth: u32::try_from(n).unwrap_or(u32::MAX),
        },
        (other, Some((_, span))) => {
            src.fault(&span, "depth has a meaning for directories only", "take it out");
            other
        }
        (other, None) => other,
    }
}

fn read_override(s: Section<'_, '_>, src: &mut Source<'_>, subject: QuotaSubject) -> Option<Override> {
    let (pattern, span) = s.needed(src, quota::other::MATCH)?;
    let hard = s.size(src, quota::other::HARD).map(|(n, _)| n);
    let temporal = s.size(src, quota::other::TEMPORAL).map(|(n, _)| n);
    s.finish(src);
    let ids = match subject {
        QuotaSubject::User => user_ids(&pattern).unwrap_or_default(),
        QuotaSubject::Group => group_ids(&pattern).unwrap_or_default(),
        QuotaSubject::Project | QuotaSubject::Directory { .. } => Vec::new(),
    };
    match Whom::new(&pattern, subject, ids) {
        Ok(whom) => Some(Override { whom, hard, temporal }),
        Err(e) => {
            src.fault(&span, format!("match {pattern:?} is no glob: {}", e.kind()), "");
            None
        }
    }
}

/// What only all files together show: every volume and rule that is named is there, and they belong together.
pub(super) fn check_together(read: &Read, volumes: &[VolumeConfig], rules: &[Rule]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let known: Vec<&str> = volumes.iter().map(|v| v.name.as_str()).collect();
    let mut check = |who: String, volume: &str, rule: Option<&str>, place: &Fault| {
        let mut fault = |what: String, mend: String| {
            faults.push(Fault {
                what,
                mend,
                ..place.clone()
            });
        };
        if !known.contains(&volume) {
            return fault(
                format!("{who} names volume {volume:?}, which there is not"),
                suggest(volume, &known),
            );
        }
        let of_volume: Vec<&str> = rules
            .iter()
            .filter(|r| r.volume == volume)
            .map(|r| r.name.as_str())
            .collect();
        match rule {
            Some(rule) if !of_volume.contains(&rule) => fault(
                format!("{who} names rule {rule:?}, which volume {volume} has not"),
                suggest(rule, &of_volume),
            ),
            None if of_volume.len() > 1 => fault(
                format!("{who} names no rule, and volume {volume} has {}", of_volume.len()),
                format!(
                    "add: rule = {:?}, whose scope and exclusions it shall respect",
                    of_volume.first().copied().unwrap_or_default()
                ),
            ),
            _ => {}
        }
    };
    for (q, place) in read.limits.quotas.iter().zip(&read.quota_places) {
        check(format!("quota {}", q.name), &q.volume, q.rule.as_deref(), place);
    }
    for (w, place) in read.limits.watermarks.iter().zip(&read.watermark_places) {
        check(
            format!("the watermark of {}", w.volume),
            &w.volume,
            Some(&w.rule),
            place,
        );
    }
    faults
}

/// Whether a quota or a watermark triggers this rule: then it may do without a ttl of its own.
pub(super) fn triggers(read: &Read, rule: &str) -> bool {
    read.limits.quotas.iter().any(|q| q.rule.as_deref() == Some(rule))
        || read.limits.watermarks.iter().any(|w| w.rule == rule)
}
