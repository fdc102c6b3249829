//! What will expire, which limits will be reached, what quotas and watermarks do, and what is due.

use purge_proto::v1;

use super::{timestamp, totals};
use crate::host::brakes::status::{TriggerState, TriggerStatus};
use crate::host::unattended::due::DueSchedule;
use crate::host::views::calendar::{Act, Every};
use crate::host::views::forecast::{Due, Forecast, LimitForecast, SubjectForecast};
use crate::host::views::mine::{MineDirectory, MineReport, MineRule};
use crate::host::views::standing::Standing;
use crate::serve::pages;

/// A forecast, with as many subjects as one message holds.
pub(in crate::serve) fn forecast(forecast: Forecast) -> v1::Forecast {
    let subjects_total = forecast.subjects.len() as u64;
    let subjects = forecast.subjects.into_iter().map(subject);
    v1::Forecast {
        volume: forecast.volume,
        rules: forecast.rules,
        from: Some(timestamp(forecast.from)),
        due: forecast.due.map(due),
        days: forecast.days.into_iter().map(due).collect(),
        subjects: pages::first(subjects, pages::FORECAST_BYTES_MAX),
        subjects_total,
        limits: forecast.limits.into_iter().map(limit).collect(),
        noted_seconds: forecast.noted.0,
        needed_seconds: forecast.noted.1,
    }
}

/// What subjects of quotas use, as many as one message holds.
pub(in crate::serve) fn standings(all: Vec<Standing>) -> v1::QuotaReport {
    let uses_total = all.len() as u64;
    let one = |s: Standing| v1::QuotaUse {
        over: s.most.is_some_and(|most| s.used > most),
        quota: s.quota,
        volume: s.volume,
        subject: s.subject,
        measure: s.measure.into(),
        files: s.files,
        used: s.used,
        most: s.most,
        over_since: s.over_since.map(timestamp),
        growth_per_day: s.growth_per_day,
        reached_at: s.reached.map(timestamp),
    };
    v1::QuotaReport {
        uses: pages::first(all.into_iter().map(one), pages::ANSWER_BYTES_MAX),
        uses_total,
    }
}

/// What the agent does by itself.
pub(in crate::serve) fn calendar(all: Vec<Act>) -> v1::Schedule {
    let one = |act: Act| {
        let (schedule, every_seconds) = match act.every {
            Every::Schedule(text) => (text, 0),
            Every::Seconds(seconds) => (String::new(), seconds),
        };
        v1::ScheduledAct {
            what: act.what.into(),
            name: act.name,
            volume: act.volume,
            schedule,
            every_seconds,
            next_at: act.next.map(timestamp),
            deletes: act.deletes,
        }
    };
    v1::Schedule {
        acts: all.into_iter().map(one).collect(),
    }
}

fn due(due: Due) -> v1::Due {
    v1::Due {
        until: Some(timestamp(due.until)),
        files: due.files,
        bytes: due.bytes,
    }
}

fn subject(subject: SubjectForecast) -> v1::SubjectForecast {
    v1::SubjectForecast {
        subject: subject.subject,
        files: subject.files,
        bytes: subject.bytes,
        due: subject.due.map(due),
        days: subject.days.into_iter().map(due).collect(),
    }
}

fn limit(limit: LimitForecast) -> v1::LimitForecast {
    v1::LimitForecast {
        limit: limit.limit,
        subject: limit.subject,
        measure: limit.measure.into(),
        used: limit.used,
        most: limit.most,
        growth_per_day: limit.growth_per_day,
        measured_seconds: limit.measured,
        reached_at: limit.reached.map(timestamp),
        would_go: limit.would_go.map(totals),
    }
}

/// One owner's files that expire soon, with as many directories as one message holds.
pub(in crate::serve) fn mine(report: MineReport) -> v1::MineReport {
    let directory = |d: MineDirectory| v1::MineDirectory {
        volume: d.volume,
        path: d.path,
        files: d.files,
        bytes: d.bytes,
        first_expires_at: Some(timestamp(d.first_expires)),
        hidden: d.hidden,
        expired_files: d.expired_files,
    };
    let rule = |r: MineRule| v1::MineRule {
        rule: r.rule,
        volume: r.volume,
        next_at: r.next.map(timestamp),
        grace_seconds: r.grace,
    };
    let directories = report.directories.into_iter().map(directory);
    v1::MineReport {
        user: report.user,
        files: report.files,
        bytes: report.bytes,
        directories: pages::first(directories, pages::ANSWER_BYTES_MAX),
        directories_total: report.directories_total,
        expired_files: report.expired_files,
        expired_bytes: report.expired_bytes,
        held_files: report.held_files,
        held_bytes: report.held_bytes,
        rules: report.rules.into_iter().map(rule).collect(),
    }
}

pub(in crate::serve) fn trigger(status: TriggerStatus) -> v1::TriggerStatus {
    let state = match status.state {
        TriggerState::Ready => v1::TriggerState::Ready,
        TriggerState::Measuring => v1::TriggerState::Measuring,
        TriggerState::Waiting => v1::TriggerState::Waiting,
        TriggerState::Stopped => v1::TriggerState::Stopped,
    };
    v1::TriggerStatus {
        name: status.name,
        state: state.into(),
        reason: status.reason,
        since: status.since.map(timestamp),
        measured: status.measured.map(|m| v1::Freed {
            deleted_bytes: m.deleted_bytes,
            promised_bytes: m.promised_bytes,
            freed_bytes: m.freed_bytes,
            promised_files: m.promised_files,
            freed_files: m.freed_files,
        }),
        taken_lately: status.taken_lately.map(totals),
        left_out: status.left_out,
    }
}

pub(in crate::serve) fn schedule(due: DueSchedule) -> v1::DueSchedule {
    v1::DueSchedule {
        rule: due.rule,
        volume: due.volume,
        state: due.stage.name().into(),
        since: Some(timestamp(due.since)),
        next_at: due.next.map(timestamp),
    }
}
