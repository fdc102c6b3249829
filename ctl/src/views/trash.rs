//! The JSON of what runs took: where it is, and what came back.

use purge_proto::v1;
use serde_json::{Value, json};

use super::{at, failure, kind, time, totals, word};

/// `restore`.
pub fn restore(r: &v1::RestoreReport) -> Value {
    json!({
        "run_id": r.run_id,
        "restored": totals(r.restored),
        "failed": r.failed.iter().map(failure).collect::<Vec<_>>(),
        "failed_total": r.failed_total,
        "run_ids": r.run_ids,
        "older_total": r.older_total,
        "dry_run": r.dry_run,
        "items": r.items.iter().map(restore_item).collect::<Vec<_>>(),
        "items_total": r.items_total,
    })
}

fn restore_item(i: &v1::RestoreItem) -> Value {
    at(
        &i.path,
        json!({ "kind": kind(i.kind()), "bytes": i.bytes, "files_inside": i.files_inside }),
    )
}

/// One line of `trash`.
pub fn trash_entry(e: &v1::TrashEntry) -> Value {
    at(
        &e.path,
        json!({
            "kind": kind(e.kind()),
            "bytes": e.bytes,
            "files_inside": e.files_inside,
            "owner": e.owner,
            "uid": e.uid,
            "run_id": e.run_id,
            "volume": e.volume,
            "taken_at": time(e.taken_at),
            "trash_until": time(e.trash_until),
        }),
    )
}

/// The state of something that a run took, in a word.
pub fn taken_state(s: v1::TakenState) -> String {
    word(s.as_str_name(), "TAKEN_STATE_")
}

pub(super) fn taken(t: &v1::Taken) -> Value {
    at(
        &t.path,
        json!({
            "kind": kind(t.kind()),
            "bytes": t.bytes,
            "files_inside": t.files_inside,
            "owner": t.owner,
            "last_access": time(t.last_access),
            "taken_at": time(t.taken_at),
            "run_id": t.run_id,
            "rule": t.rule,
            "requested_by": t.requested_by,
            "state": taken_state(t.state()),
            "trash_until": time(t.trash_until),
            "freed_at": time(t.freed_at),
            "only_below": t.only_below,
            "amount_hidden": t.amount_hidden,
        }),
    )
}
