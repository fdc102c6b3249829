//! The contract's notices from the outbox's.

use chrono::DateTime;
use purge_proto::v1;
use tonic::Status;

use super::convert;
use purge_model::Seconds;
use purge_notify::event::{Audience, Event};
use purge_notify::notice::{Fate, Notice};
use purge_notify::sender::TestError;

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

pub(super) fn notice(n: &Notice) -> v1::Notice {
    let at =
        |seconds: u64| convert::timestamp(Seconds::from_unix(i64::try_from(seconds).unwrap_or(i64::MAX)));
    let (user, uid) = match &n.to {
        Audience::Owner { user, uid } => (user.clone(), Some(*uid)),
        Audience::Operator => (String::new(), None),
    };
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
