//! `[[quota]]` and `[[watermark]]` tables, checked.

use super::keys::{Key, quota, watermark};
use super::mentions::{Mention, RuleNamed, place};
use super::names::read_name;
use super::parts::Parts;
use super::section::{Section, Source, value};
use purge_base::accounts::{group_ids, user_ids};
use purge_policy::allowance::{Override, Quota, QuotaAction, Watermark};
use purge_policy::whom::QuotaSubject;
use purge_policy::whom::Whom;

pub(super) fn read_quota(s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    let before = src.faults.len();
    let name = read_name(&s, src, quota::NAME, &parts.quotas);
    parts.quotas.extend(name.clone());
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
    let rule = s.string(src, quota::RULE);
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
    let who = name
        .as_ref()
        .map_or("a quota".into(), |name| format!("quota {name}"));
    let named = match &rule {
        Some((rule, span)) => RuleNamed::Here(rule.clone(), place(src, span)),
        None => RuleNamed::Left(place(src, &s.span)),
    };
    let of = volume
        .as_ref()
        .map(|(volume, span)| (volume.clone(), place(src, span)));
    parts.mentions.all.push(Mention::new(who, of, named));
    s.finish(src);
    let (Some(name), Some((volume, _)), true) = (name, volume, src.faults.len() == before) else {
        return;
    };
    parts.limits.quotas.push(Quota {
        name,
        volume,
        subject,
        hard,
        temporal,
        max_age: max_age.map(|(n, _)| n),
        action,
        low,
        min_age,
        rule: rule.map(|(name, _)| name),
        overrides,
    });
}

pub(super) fn read_watermark(s: Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
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
    let who = volume.as_ref().map_or("a watermark".into(), |(volume, _)| {
        format!("the watermark of {volume}")
    });
    let named = match &rule {
        Some((rule, span)) => RuleNamed::Here(rule.clone(), place(src, span)),
        None => RuleNamed::None,
    };
    let of = volume
        .as_ref()
        .map(|(volume, span)| (volume.clone(), place(src, span)));
    parts.mentions.all.push(Mention::new(who, of, named));
    s.finish(src);
    if let Some((volume, at)) = &volume {
        if parts.watermarks.contains(volume) {
            src.fault(
                at,
                format!("volume {volume} has a watermark already"),
                "give each volume one",
            );
        }
        parts.watermarks.push(volume.clone());
    }
    let (Some((volume, _)), Some((rule, _)), Some((high, _)), Some((low, _))) = (volume, rule, high, low)
    else {
        return;
    };
    if src.faults.len() > before {
        return;
    }
    parts.limits.watermarks.push(Watermark {
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
