//! The JSON of what an archive holds.

use purge_proto::v1;
use serde_json::{Value, json};

use super::{at, kind, word};

/// One line of `archive list`, `show`, `verify`, and what `get` says.
pub fn archive_entry(e: &v1::ArchiveEntry) -> Value {
    let lossy = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    at(
        &e.path,
        json!({
            "kind": kind(e.kind()),
            "bytes": e.bytes,
            "sha256": e.sha256,
            "key": e.key,
            "archive": e.archive,
            "volume": e.volume,
            "rule": e.rule,
            "run_id": e.run_id,
            "owner": e.owner,
            "group": e.group,
            "uid": e.uid,
            "gid": e.gid,
            "mode": e.mode,
            "mtime": e.mtime,
            "last_access": e.last_access,
            "archived_at": e.archived_at,
            "names": e.names.iter().map(lossy).collect::<Vec<_>>(),
            "target": lossy(&e.target),
            "xattrs": e.xattrs,
            "found": e.found,
            "state": match e.state() {
                v1::CopyState::Unspecified => "unread".to_owned(),
                state => word(state.as_str_name(), "COPY_STATE_"),
            },
            "trouble": e.trouble,
        }),
    )
}
