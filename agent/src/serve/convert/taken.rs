//! What runs took, and what lies in the trash.

use std::sync::Arc;

use purge_proto::v1;

use super::{absolute, explanation, kind, timestamp};
use crate::host::trash::taken::{Now, Taken};
use crate::host::views::questions::Explained;
use crate::volume::Volume;
use purge_base::accounts::user_name;
use purge_model::Seconds;
use purge_removal::taken::What;
use purge_removal::trash::listing::Lying;

/// What lies at a path, or what runs took of it.
pub(in crate::serve) fn explained(explained: Explained) -> v1::Explanation {
    let (place, taken) = match explained {
        Explained::There(answer, taken) => {
            let volume = Arc::clone(&answer.volume);
            return v1::Explanation {
                taken: taken.into_iter().map(|t| taken_of(&volume, t)).collect(),
                ..explanation(*answer)
            };
        }
        Explained::Taken(place, taken) => (place, taken),
    };
    let path = place.path();
    let volume = place.volume;
    let taken: Vec<v1::Taken> = taken.into_iter().map(|t| taken_of(&volume, t)).collect();
    let newest = taken.first().cloned().unwrap_or_default();
    let is_itself = newest.path == path;
    v1::Explanation {
        path,
        kind: if is_itself {
            newest.kind
        } else {
            v1::Kind::Unspecified.into()
        },
        bytes: if is_itself { newest.bytes } else { 0 },
        owner: newest.owner,
        last_access: newest.last_access,
        volume: volume.config.name.clone(),
        coverage_since: Some(timestamp(volume.condition().coverage_since)),
        taken,
        ..v1::Explanation::default()
    }
}

fn taken_of(volume: &Volume, taken: Taken) -> v1::Taken {
    let entry = &taken.entry;
    let only_below = entry.what == What::Above;
    let (kind, inside) = match entry.what {
        What::File => (v1::Kind::File, 0),
        What::Link => (v1::Kind::Symlink, 0),
        What::Tree => (v1::Kind::Directory, entry.files.into()),
        What::EmptyDirectory | What::Above => (v1::Kind::Directory, 0),
    };
    let (state, until, freed) = match taken.now {
        Now::InTrash(until) => (v1::TakenState::Trashed, Some(until), None),
        Now::Kept => (v1::TakenState::Trashed, None, None),
        Now::Deleted => (v1::TakenState::Deleted, None, None),
        Now::Freed(at) => (v1::TakenState::Freed, None, Some(at)),
        Now::Back => (v1::TakenState::Restored, None, None),
    };
    v1::Taken {
        path: absolute(&volume.config.path, &taken.path),
        kind: kind.into(),
        bytes: entry.bytes,
        files_inside: inside,
        owner: user_name(entry.uid),
        last_access: (!only_below && entry.last > Seconds::MIN).then(|| timestamp(entry.last)),
        taken_at: Some(timestamp(entry.at)),
        run_id: taken.run.id,
        rule: taken.rule.unwrap_or_default(),
        requested_by: taken.run.by,
        state: state.into(),
        trash_until: until.map(timestamp),
        freed_at: freed.map(timestamp),
        only_below,
        amount_hidden: taken.is_amount_hidden,
    }
}

/// Something that lies in the trash.
pub(in crate::serve) fn in_trash(volume: &Volume, lying: Lying) -> v1::TrashEntry {
    let share = &lying.share;
    let until = i64::try_from(share.until).ok().filter(|_| !share.is_kept());
    v1::TrashEntry {
        path: absolute(&volume.config.path, &lying.path),
        kind: kind(lying.kind).into(),
        bytes: lying.bytes,
        files_inside: lying.files_inside,
        owner: user_name(lying.uid),
        uid: lying.uid,
        run_id: share.run.clone(),
        volume: volume.config.name.clone(),
        taken_at: Some(timestamp(lying.taken)),
        trash_until: until.map(|until| timestamp(Seconds::from_unix(until))),
    }
}
