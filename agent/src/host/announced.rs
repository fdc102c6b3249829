//! What announcing rules have named, and since when.
//!
//! ```text
//! STATE_DIR/announced/RULE   frames: { published:u32 }  n x { up to 100,000 x { ino:u64 birth:u32 last:u32 at:u32 } }
//! ```
//! A list that is damaged or missing names nothing: what it named begins its wait again.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use purge_format::frame::{Frames, put_frame};
use purge_model::Seconds;
use purge_policy::announced::{Announced, Name, Named};
use purge_policy::rule::Rule;

const NAME_BYTES: usize = 20;
const NAMES_A_FRAME: usize = 100_000;

/// The lists of all announcing rules.
#[derive(Debug)]
pub(super) struct Lists {
    dir: PathBuf,
}

impl Lists {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join("announced"),
        }
    }

    /// What the lists of the volume's rules name.
    pub(super) fn announced(&self, rules: &[Rule], volume: &str, now: Seconds) -> Announced {
        let announcing = rules.iter().filter(|r| r.announce > 0 && r.volume == volume);
        let lists = announcing.filter_map(|r| Some((r.name.clone(), Arc::new(self.read(&r.name)?.1))));
        Announced {
            now,
            by_rule: lists.collect(),
        }
    }

    /// The file of a rule's list.
    pub(super) fn file_of(&self, rule: &str) -> PathBuf {
        self.dir.join(rule)
    }

    /// When a rule's list was published, and what it names.
    pub(super) fn read(&self, rule: &str) -> Option<(Seconds, Named)> {
        let bytes = fs::read(self.file_of(rule)).ok()?;
        let list = decode(&bytes);
        if list.is_none() {
            tracing::warn!(
                rule,
                "the list of what is announced is damaged; each file in it begins its wait again"
            );
        }
        list
    }

    pub(super) fn write(&self, rule: &str, published: Seconds, named: &Named) -> io::Result<()> {
        let path = self.file_of(rule);
        if let Some(dir) = path.parent() {
            purge_sys::private::dir(dir)?;
        }
        let next = self.dir.join(format!("{rule} new"));
        let mut file = purge_sys::private::create(&next)?;
        file.write_all(&encode(published, named))?;
        file.sync_all()?;
        fs::rename(&next, &path)
    }
}

fn encode(published: Seconds, named: &Named) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = u64::try_from(named.names().len()).unwrap_or(u64::MAX);
    put_frame(&mut bytes, |body| {
        body.extend(published.0.to_le_bytes());
        body.extend(count.to_le_bytes());
    });
    for names in named.names().chunks(NAMES_A_FRAME) {
        put_frame(&mut bytes, |body| {
            for name in names {
                body.extend(name.ino.to_le_bytes());
                for at in [name.birth, name.last, name.at] {
                    body.extend(at.0.to_le_bytes());
                }
            }
        });
    }
    bytes
}

/// None when it is not whole.
fn decode(bytes: &[u8]) -> Option<(Seconds, Named)> {
    let mut frames = Frames::new(bytes);
    let (published, count) = frames.next()?.split_first_chunk::<4>()?;
    let count = u64::from_le_bytes(count.try_into().ok()?);
    let mut names = Vec::new();
    for body in frames {
        let (all, rest) = body.as_chunks::<NAME_BYTES>();
        rest.is_empty().then_some(())?;
        names.extend(all.iter().filter_map(name_of));
    }
    let is_whole = u64::try_from(names.len()) == Ok(count);
    is_whole.then(|| (Seconds(u32::from_le_bytes(*published)), Named::new(names)))
}

fn name_of(bytes: &[u8; NAME_BYTES]) -> Option<Name> {
    let (ino, rest) = bytes.split_first_chunk::<8>()?;
    let (times, _) = rest.as_chunks::<4>();
    let [birth, last, at] = times else { return None };
    let seconds = |bytes: &[u8; 4]| Seconds(u32::from_le_bytes(*bytes));
    Some(Name {
        ino: u64::from_le_bytes(*ino),
        birth: seconds(birth),
        last: seconds(last),
        at: seconds(at),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_comes_back_whole_or_not_at_all() {
        for count in [0u64, 1, 7, 250_000] {
            let names = (0..count).map(|i| (i * 3, Seconds(1), Seconds(i as u32)));
            let named = Named::default().next(names, Seconds(99));
            let bytes = encode(Seconds(100), &named);
            assert_eq!(decode(&bytes), Some((Seconds(100), named)));
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
            let mut damaged = bytes.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(decode(&damaged), None);
        }
    }
}
