//! What an announcing rule will take, as files that people can read without the agent: `announce_to/RULE/USER`, a file each
//! owner, for that owner's eyes.
//!
//! Root writes there, so the directory is one that only root can change ([`trusted`]), and everything in it is made, given to its owner
//! and put in place by descriptors: a list is a new file under a name of its own, and takes the old one's place when it is whole.
//!
//! A line a file: when it expires if no process uses it, its bytes, its path; separated by tabs, the path written as purgectl's
//! tables have it: what is no printable character stands as an escape, and so does `\`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use purge_proto::shown::{self, Shown};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::volume::Volume;
use purge_base::accounts::user_name;
use purge_base::sight::Sights;
use purge_index::DirId;
use purge_index::codec::PAGE_INODES;
use purge_model::Seconds;
use purge_policy::announced::{Name, Named};
use purge_policy::last_use::expires_at;
use purge_policy::rule::Rule;
use purge_sys::trusted::{self, Own};

/// The bytes of a path that a line has room for: what is longer loses its middle.
const PATH_BYTES_MAX: usize = 4096;
/// A list has at most this many bytes, and says how many files it does not name.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Lines that wait in memory to be written.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Behind a path that is cut short.
const HIDDEN: &str = " (the rest is in a directory that you cannot enter)";

/// All users can look for their list in it, under any umask.
const DIR_MODE: u32 = 0o755;
const LIST_MODE: u32 = 0o400;

/// Writes the lists of a rule, and takes away those of owners of whom nothing is named any more.
pub(super) fn write(volume: &Volume, rule: &Rule, to: &Path, named: &Named) -> io::Result<()> {
    let mut lists = Lists {
        dir: Own::make(to, DIR_MODE)?.inside(&rule.name, DIR_MODE)?,
        waiting: FxHashMap::default(),
        sights: Sights::of(&volume.config.path),
        bytes: 0,
        begun: FxHashMap::default(),
    };
    for page in named
        .names()
        .chunk_by(|a, b| a.ino / PAGE_INODES == b.ino / PAGE_INODES)
    {
        lists.take_page(volume, rule, page)?;
        if lists.bytes > WAITING_BYTES_MAX {
            lists.flush()?;
        }
    }
    lists.finish()
}

struct Lists {
    dir: Own,
    /// By uid: lines.
    waiting: FxHashMap<u32, Vec<u8>>,
    /// How much of paths each of them may know.
    sights: Sights,
    bytes: usize,
    /// By uid: the list.
    begun: FxHashMap<u32, Begun>,
}

#[derive(Default)]
struct Begun {
    is_made: bool,
    bytes: u64,
    /// Files that it has no room for.
    left_out: u64,
}

impl Lists {
    fn take_page(&mut self, volume: &Volume, rule: &Rule, page: &[Name]) -> io::Result<()> {
        let index = volume.watched.index.read();
        let mut places: FxHashMap<u64, (DirId, Vec<u8>)> = FxHashMap::default();
        if let Some(first) = page.first() {
            let number = first.ino / PAGE_INODES;
            let each = |offset: u8, parent: DirId, name: &[u8]| {
                let ino = number.saturating_mul(PAGE_INODES).saturating_add(offset.into());
                places.entry(ino).or_insert((parent, name.to_vec()));
            };
            index.names_of_page(number, each).map_err(io::Error::other)?;
        }
        let mut found = Vec::with_capacity(page.len());
        for name in page {
            let Some((attributes, _)) = index.get(name.ino) else {
                continue;
            };
            let below = match index.dirs().of_inode(name.ino) {
                Some(dir) => index.dirs().path(dir),
                None => places.get(&name.ino).and_then(|(parent, file)| {
                    let mut path = index.dirs().path(*parent)?;
                    purge_model::path::push(&mut path, file);
                    Some(path)
                }),
            };
            let Some(below) = below else { continue };
            let due = expires_at(name.last, rule.ttl.unwrap_or(0)).max(expires_at(name.at, rule.announce));
            found.push((attributes.uid, attributes.size, due, below));
        }
        // Directories are looked at without it.
        drop(index);
        for (uid, size, due, below) in found {
            let cut = self.sights.shown(uid, &below);
            let line = line(&volume.config.path, due, size, &below, cut);
            let list = self.begun.entry(uid).or_default();
            let more = line.len() as u64;
            if list.bytes.saturating_add(more) > LIST_BYTES_MAX {
                list.left_out = list.left_out.saturating_add(1);
                continue;
            }
            list.bytes = list.bytes.saturating_add(more);
            self.bytes = self.bytes.saturating_add(line.len());
            self.waiting.entry(uid).or_default().extend(line);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.bytes = 0;
        for (uid, lines) in std::mem::take(&mut self.waiting) {
            let new = new_of(uid);
            let list = self.begun.entry(uid).or_default();
            let mut file = match list.is_made {
                true => self.dir.go_on(&new)?,
                false => self.dir.begin(&new)?,
            };
            list.is_made = true;
            file.write_all(&lines)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let mut written = FxHashSet::default();
        for (uid, list) in &self.begun {
            let (new, name) = (new_of(*uid), file_name(*uid));
            let mut file = self.dir.go_on(&new)?;
            if list.left_out > 0 {
                writeln!(
                    file,
                    "{} more files: this list has no room for them",
                    list.left_out
                )?;
            }
            give(file, *uid)?;
            self.dir.rename(&new, &name)?;
            written.insert(name);
        }
        for name in self.dir.names()? {
            if !name.to_str().is_some_and(|name| written.contains(name)) {
                self.dir.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// A list that is being written.
fn new_of(uid: u32) -> String {
    format!(".{uid}.new")
}

/// Gives a list to its reader. One whose disk quota is full reads it by an access control list: it stays root's, and stops no other list.
fn give(file: impl AsFd, uid: u32) -> io::Result<()> {
    match trusted::give(&file, uid, LIST_MODE) {
        Err(e) if e.kind() == io::ErrorKind::QuotaExceeded => trusted::let_read(&file, uid),
        given => given,
    }
}

/// The owner's name, if it can be a file's.
fn file_name(uid: u32) -> String {
    let name = user_name(uid);
    match name.starts_with('.') || name.contains('/') || name.is_empty() {
        true => uid.to_string(),
        false => name,
    }
}

/// A line of which only the first `cut` bytes of the path may be told, if that is not all.
fn line(root: &Path, due: Seconds, bytes: u64, below: &[u8], cut: Option<usize>) -> Vec<u8> {
    let below = below.get(..cut.unwrap_or(below.len())).unwrap_or_default();
    let due = chrono::DateTime::<chrono::Utc>::from_timestamp(due.unix(), 0).unwrap_or_default();
    let due = due.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let mut line = format!("{due}\t{bytes}\t").into_bytes();
    line.extend(Shown::name(root.as_os_str().as_bytes()).as_str().bytes());
    line.push(b'/');
    line.extend(Shown::name(&shown::cut(below, PATH_BYTES_MAX)).as_str().bytes());
    if cut.is_some() {
        line.extend_from_slice(HIDDEN.as_bytes());
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_with_any_name() {
        let line = line(Path::new("/v"), Seconds(86_400), 7, b"a\n\\\t\x07\xff/b", None);
        assert_eq!(line, b"1970-01-02T00:00:00Z\t7\t/v/a\\n\\\\\\t\\x07\\xff/b\n");
    }
}
