//! Directories that are empty, or will be.

use rustc_hash::FxHashMap;

use super::evaluate::{Circumstances, Evaluation, Pick, Shape, Tables, numbered};
use super::last_use::{covered, is_expired, last_use};
use super::verdicts::Verdicts;
use crate::config::{Rule, Target};
use crate::index::{DirId, Index};

/// Directories that are empty, or will be once what was `found` is gone: children before their parents.
pub(super) fn empty_directories(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    tables: &Tables,
    found: &Evaluation,
) -> Vec<Pick> {
    let mut removers: Vec<_> = numbered(rules)
        .filter(|(_, r)| r.target == Target::File && r.remove_empty_dirs)
        .filter_map(|(n, r)| {
            Some((
                n,
                r,
                r.ttl?,
                if r.max_empty_dirs == 0 {
                    u64::MAX
                } else {
                    r.max_empty_dirs
                },
            ))
        })
        .collect();
    let mut empty = Vec::new();
    if removers.is_empty() {
        return empty;
    }
    let dirs = index.dirs();
    let verdicts: FxHashMap<u16, Verdicts> = removers
        .iter()
        .map(|(number, ..)| (*number, Verdicts::new(dirs)))
        .collect();
    let mut left: Vec<u32> = dirs.children_table();
    let mut tree = vec![false; left.len()];
    for (dir, count) in found.apart.iter().flat_map(|apart| apart.by_directory()) {
        if let Some(left) = left.get_mut(dir.index()) {
            *left = left.saturating_sub(count);
        }
    }
    for pick in &found.picks {
        if pick.shape == Shape::Tree
            && let Some(place) = dirs.of_inode(pick.ino).and_then(|id| tree.get_mut(id.index()))
        {
            *place = true;
        }
        if let Some(count) = left.get_mut(pick.parent.index()) {
            *count = count.saturating_sub(1);
        }
    }
    let mut ready: std::collections::VecDeque<DirId> = dirs
        .iter()
        .map(|(id, _)| id)
        .filter(|id| left.get(id.index()) == Some(&0))
        .collect();
    while let Some(id) = ready.pop_front() {
        let Some(dir) = dirs.get(id) else { continue };
        let stays = id == DirId::ROOT
            || dir.unreadable
            || dir.has_mounts
            || dir.crowded
            || Tables::is(&tree, id)
            || Tables::is(&tables.held, id)
            || Tables::is(&tables.protected, id)
            || !Tables::is(&tables.connected, id)
            || Tables::is(&tables.deep, id);
        if stays {
            continue;
        }
        let Some((attributes, access)) = index.get(dir.ino) else {
            continue;
        };
        let taker = removers.iter_mut().find_map(|(number, rule, ttl, room)| {
            let last = last_use(&attributes, covered(access, at.gap_end), rule.clocks);
            let takes = *room > 0
                && is_expired(last.at, at.now, *ttl)
                && rule.scope.admits_owner(attributes.uid, attributes.gid)
                && verdicts
                    .get(number)
                    .is_some_and(|v| v.admits(dirs, &rule.scope, (dir.parent, &dir.name), true));
            takes.then(|| {
                *room -= 1;
                (*number, last)
            })
        });
        let Some((rule, last)) = taker else { continue };
        let (ino, parent) = (dir.ino, dir.parent);
        empty.push(Pick {
            ino,
            parent,
            shape: Shape::EmptyDirectory,
            last,
            birth: attributes.birth,
            bytes: 0,
            files: 0,
            rule,
        });
        if let Some(count) = left.get_mut(dir.parent.index()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                ready.push_back(dir.parent);
            }
        }
    }
    empty
}
