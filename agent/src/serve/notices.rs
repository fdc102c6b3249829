//! The contract's notices from the outbox's.

use chrono::DateTime;
use purge_proto::v1;
use tonic::Status;

use super::{convert, pages, requests};
use crate::host::{Host, HostError};
use purge_model::Seconds;
use purge_notify::event::{Audience, Event, Kind};
use purge_notify::notice::{Fate, Notice};
use purge_notify::preview::{Draft, Wanted};
use purge_notify::sender::TestError;

/// Notices that are shown before they are sent.
const DRAFTS_MAX: usize = 200;
/// And bytes of their texts together.
const DRAFTS_BYTES_MAX: usize = 1 << 20;

pub(super) fn status(error: &TestError) -> Status {
    let words = convert::plain(error.to_string());
    match error {
        TestError::Unknown(_) => Status::not_found(words),
        TestError::Failed { .. } => Status::aborted(words),
    }
}

pub(super) fn state(fate: Fate) -> v1::NoticeState {
    match fate {
        Fate::Gathering | Fate::Waiting => v1::NoticeState::Waiting,
        Fate::Sent => v1::NoticeState::Sent,
        Fate::Failed => v1::NoticeState::Failed,
    }
}

/// The notices that are asked for.
pub(super) fn list(host: &Host, r: &v1::ListNoticesRequest) -> v1::ListNoticesResponse {
    let wanted = r.state();
    let all = host.notifier.outbox.list(|n| {
        (r.sink.is_empty() || n.sink == r.sink)
            && (wanted == v1::NoticeState::Unspecified || state(n.fate) == wanted)
    });
    let all = all.iter().map(notice).collect();
    let (notices, next_page_token) = pages::notices(all, r.page_size, &r.page_token);
    v1::ListNoticesResponse {
        notices,
        next_page_token,
    }
}

/// What a client wants to look at before it is sent: whose, and whether also what was told already.
pub(super) fn wanted(r: v1::PreviewNoticesRequest) -> Result<(Wanted, bool), Status> {
    requests::names([("user", &r.user), ("event", &r.event)])?;
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    let kind = match r.event.as_str() {
        "" => None,
        word => Some(
            Kind::ALL
                .into_iter()
                .find(|k| k.as_str() == word)
                .ok_or_else(|| {
                    let why = format!("event: {word:?} is unknown; there are {}", known());
                    Status::invalid_argument(convert::plain(why))
                })?,
        ),
    };
    let user = (!r.user.is_empty()).then_some(r.user);
    Ok((Wanted { user, kind }, r.again))
}

/// What would be sent now.
pub(super) fn preview(
    host: &Host,
    (wanted, again): &(Wanted, bool),
) -> Result<v1::PreviewNoticesResponse, HostError> {
    let (all, count) = host.preview_notices(*again, wanted, DRAFTS_MAX)?;
    let mut room = DRAFTS_BYTES_MAX;
    let fits = |d: &Draft| {
        let left = room.checked_sub(d.body.len().saturating_add(d.subject.len()));
        room = left.unwrap_or_default();
        left.is_some()
    };
    let drafts: Vec<_> = all.into_iter().take_while(fits).map(draft).collect();
    Ok(v1::PreviewNoticesResponse {
        left_out: count.saturating_sub(drafts.len()) as u64,
        drafts,
        dry_run: host.notifier.config().dry_run,
        held_until: host.first_notices_at().map(moment),
    })
}

/// Lets the first notices go.
pub(super) fn release(host: &Host) -> Result<v1::ReleaseNoticesResponse, Status> {
    let Some(until) = host.first_notices_at() else {
        return Err(Status::failed_precondition("no first notices wait"));
    };
    host.notifier.release();
    Ok(v1::ReleaseNoticesResponse {
        held_until: Some(moment(until)),
    })
}

fn draft(d: Draft) -> v1::NoticeDraft {
    let (user, uid) = person(&d.to);
    let (notice_id, due_at) = d.waiting.map(|w| (w.notice_id, moment(w.due_at))).unzip();
    v1::NoticeDraft {
        sink: d.sink,
        user,
        uid,
        address: d.address,
        events: d.kinds.iter().map(|k| k.as_str().to_owned()).collect(),
        subject: d.subject,
        text: d.body,
        notice_id: notice_id.unwrap_or_default(),
        due_at,
    }
}

fn moment(seconds: u64) -> prost_types::Timestamp {
    convert::timestamp(Seconds::from_unix(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

fn person(to: &Audience) -> (String, Option<u32>) {
    match to {
        Audience::Owner { user, uid } => (user.clone(), Some(*uid)),
        Audience::Operator => (String::new(), None),
    }
}

pub(super) fn notice(n: &Notice) -> v1::Notice {
    let at = moment;
    let (user, uid) = person(&n.to);
    v1::Notice {
        notice_id: n.notice_id.clone(),
        sink: n.sink.clone(),
        state: state(n.fate).into(),
        user,
        uid,
        created_at: Some(at(n.created_at)),
        due_at: (!n.is_over()).then(|| at(n.due_at)),
        ended_at: n.is_over().then(|| at(n.ended_at)),
        attempts: n.attempts,
        error: n.error.clone(),
        events: n.events.iter().map(event).collect(),
    }
}

fn event(e: &Event) -> v1::NoticeEvent {
    let at = DateTime::parse_from_rfc3339(&e.at).ok();
    v1::NoticeEvent {
        event_id: e.event_id.clone(),
        event: e.what.kind().as_str().into(),
        volume: e.volume.clone(),
        at: at.map(|t| convert::timestamp(Seconds::from_unix(t.timestamp()))),
    }
}
