//! A hold as it lies in the index store. See [`crate::stored`] for what may change.

use prost::Message;
use prost_types::Timestamp;

use super::hold::{Entry, Hold};
use crate::stored::{Damaged, seconds, timestamp};
use purge_model::path::VolumePath;

#[derive(Clone, PartialEq, Message)]
struct StoredEntry {
    #[prost(message, optional, tag = "1")]
    hold: Option<StoredHold>,
    #[prost(uint64, tag = "2")]
    ino: u64,
    #[prost(string, tag = "3")]
    volume: String,
    #[prost(bytes = "vec", optional, tag = "4")]
    below: Option<Vec<u8>>,
    #[prost(message, optional, tag = "20")]
    own: Option<StoredOwn>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHold {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bytes = "vec", tag = "2")]
    path: Vec<u8>,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(message, optional, tag = "4")]
    created: Option<Timestamp>,
    #[prost(message, optional, tag = "5")]
    expires: Option<Timestamp>,
    #[prost(string, tag = "6")]
    by: String,
}

/// What an ordinary user's hold is bound to.
#[derive(Clone, PartialEq, Message)]
struct StoredOwn {
    #[prost(uint32, tag = "1")]
    uid: u32,
    /// The volume's root, and the place below it, as older agents read them.
    #[prost(bytes = "vec", tag = "2")]
    root: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    below: Vec<u8>,
}

/// A hold's record. `root` is the path of its volume.
pub(super) fn encode(entry: &Entry, root: &[u8]) -> Vec<u8> {
    let stored = StoredEntry {
        hold: Some(StoredHold {
            id: entry.hold.id.clone(),
            path: entry.hold.path.clone(),
            reason: entry.hold.reason.clone(),
            created: Some(timestamp(entry.hold.created)),
            expires: entry.hold.expires.map(timestamp),
            by: entry.hold.by.clone(),
        }),
        ino: entry.ino,
        volume: entry.volume.clone(),
        below: entry.below.clone().map(VolumePath::into_bytes),
        own: entry.own.map(|uid| StoredOwn {
            uid,
            root: root.to_vec(),
            below: entry.below.clone().unwrap_or_default().into_bytes(),
        }),
    };
    stored.encode_to_vec()
}

/// The hold that a record tells of.
pub(super) fn decode(bytes: &[u8]) -> Result<Entry, Damaged> {
    let stored = StoredEntry::decode(bytes)?;
    let hold = stored.hold.ok_or(Damaged::Lacks("hold"))?;
    Ok(Entry {
        hold: Hold {
            id: hold.id,
            path: hold.path,
            reason: hold.reason,
            created: seconds(hold.created.ok_or(Damaged::Lacks("time at which it was made"))?),
            expires: hold.expires.map(seconds),
            by: hold.by,
        },
        ino: stored.ino,
        volume: stored.volume,
        below: stored
            .below
            .or_else(|| stored.own.as_ref().map(|own| own.below.clone()))
            .and_then(VolumePath::new),
        own: stored.own.map(|own| own.uid),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use purge_model::Seconds;

    #[test]
    fn a_hold_is_read_as_it_was_written_and_one_without_words_is_damaged() {
        let entry = Entry {
            hold: Hold {
                id: "h1".into(),
                path: b"/v/a".to_vec(),
                reason: "a paper".into(),
                created: Seconds(1),
                expires: Some(Seconds(2)),
                by: "uid 7".into(),
            },
            ino: 5,
            volume: "v".into(),
            below: VolumePath::new(b"a".to_vec()),
            own: Some(7),
        };
        assert_eq!(decode(&encode(&entry, b"/v")).unwrap(), entry);
        assert!(matches!(decode(&[]), Err(Damaged::Lacks("hold"))));
    }

    #[test]
    fn an_older_users_hold_knows_its_place() {
        let stored = StoredEntry {
            hold: Some(StoredHold {
                created: Some(timestamp(Seconds(1))),
                ..StoredHold::default()
            }),
            own: Some(StoredOwn {
                uid: 7,
                root: b"/v".to_vec(),
                below: b"a/b".to_vec(),
            }),
            ..StoredEntry::default()
        };
        let read = decode(&stored.encode_to_vec()).unwrap();
        assert_eq!(read.below.as_deref(), Some(&b"a/b"[..]));
    }
}
