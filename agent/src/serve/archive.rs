//! What an archive holds, listed, compared and fetched as the client takes it.

use std::collections::VecDeque;
use std::time::Duration;

use purge_proto::v1;
use tonic::Status;

use super::convert;
use super::walk::Walk;
use crate::host::HostError;
use crate::host::archive::Opened;
use purge_archive::catalogue::{self, Line};
use purge_archive::reading::{Found, Reading};
use purge_archive::store::StoreError;
use purge_query::Step;

/// A copy is compared for so long before others have a turn.
const TURN: Duration = Duration::from_millis(20);
/// Names and attributes of an entry that are told.
const NAMED_MAX: usize = 100;

/// The entries of an archive.
pub(super) struct Listed {
    opened: Opened,
    left: u64,
    /// One in this number is compared; none: nothing is.
    one_in: Option<u64>,
    count: u64,
    waiting: VecDeque<Line>,
    reading: Option<(Line, Reading)>,
}

impl Listed {
    /// At most `limit` entries; 0: all.
    pub(super) fn new(opened: Opened, limit: u64, one_in: Option<u32>) -> Self {
        Self {
            opened,
            left: if limit == 0 { u64::MAX } else { limit },
            one_in: one_in.map(|n| u64::from(n.max(1))),
            count: 0,
            waiting: VecDeque::new(),
            reading: None,
        }
    }

    fn refused(&self, error: &StoreError) -> Status {
        convert::status(HostError::Refused(format!(
            "archive {}: {error}",
            self.opened.name
        )))
    }

    /// Reads the next object of a catalogue; what is wrong with it is an entry of its own.
    fn read(&mut self) -> Option<Vec<v1::ArchiveEntry>> {
        let trouble = |what: String| v1::ArchiveEntry {
            archive: self.opened.name.clone(),
            trouble: convert::plain(what),
            state: v1::CopyState::Unreadable.into(),
            ..v1::ArchiveEntry::default()
        };
        Some(match self.opened.catalogues.next()? {
            Err(error) => vec![trouble(error.to_string())],
            Ok(object) => {
                let is_wanted = |line: &Line| line.path().is_some_and(|path| self.opened.asked.has(&path));
                let troubles = match object.damaged {
                    0 => Vec::new(),
                    n => vec![trouble(format!("{n} lines of {:?} are damaged", object.key))],
                };
                self.waiting.extend(object.lines.into_iter().filter(is_wanted));
                troubles
            }
        })
    }

    /// What waits, without a look at copies.
    fn listed(&mut self) -> Vec<v1::ArchiveEntry> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let count = self.waiting.len().min(room);
        let name = self.opened.name.clone();
        self.left = self.left.saturating_sub(count as u64);
        self.waiting
            .drain(..count)
            .map(|line| entry(&name, &line))
            .collect()
    }

    /// Goes on comparing; an entry for a copy that was compared.
    fn compare(&mut self) -> Option<v1::ArchiveEntry> {
        let (line, mut reading) = match self.reading.take() {
            Some(going_on) => going_on,
            None => {
                let line = self.waiting.pop_front()?;
                self.count = self.count.saturating_add(1);
                let is_drawn = self.one_in.is_some_and(|n| self.count.is_multiple_of(n));
                if line.key.is_empty() || !is_drawn {
                    return None;
                }
                match Reading::begin(&*self.opened.store, &line) {
                    Ok(reading) => (line, reading),
                    Err(error) => return Some(self.compared(&line, Err(error))),
                }
            }
        };
        match reading.check(&line, TURN) {
            Ok(None) => {
                self.reading = Some((line, reading));
                None
            }
            Ok(Some(is_good)) => Some(self.compared(&line, Ok(is_good))),
            Err(error) => Some(self.compared(&line, Err(error))),
        }
    }

    fn compared(&mut self, line: &Line, found: Result<bool, StoreError>) -> v1::ArchiveEntry {
        self.left = self.left.saturating_sub(1);
        let mut entry = entry(&self.opened.name, line);
        let (state, trouble) = match found {
            Ok(true) => (v1::CopyState::Good, String::new()),
            Ok(false) => (
                v1::CopyState::Differs,
                "its bytes are not those that were copied".to_owned(),
            ),
            Err(error) => (v1::CopyState::Unreadable, error.to_string()),
        };
        entry.state = state.into();
        entry.trouble = convert::plain(trouble);
        entry
    }
}

impl Walk for Listed {
    type Item = v1::ArchiveEntry;

    fn step(&mut self) -> Result<Step<v1::ArchiveEntry>, Status> {
        if self.left == 0 {
            return Ok(Step::Done);
        }
        if self.waiting.is_empty() && self.reading.is_none() {
            return Ok(match self.read() {
                None => Step::Done,
                Some(troubles) if troubles.is_empty() => Step::Working,
                Some(troubles) => Step::Items(troubles),
            });
        }
        let found = match self.one_in {
            None => self.listed(),
            Some(_) => self.compare().into_iter().collect(),
        };
        Ok(match found.is_empty() {
            true => Step::Working,
            false => Step::Items(found),
        })
    }
}

/// The bytes of the newest copy of one file.
pub(super) struct Fetched {
    looked: Listed,
    found: Option<(Line, Reading)>,
}

impl Fetched {
    pub(super) fn new(opened: Opened) -> Self {
        Self {
            looked: Listed::new(opened, 0, None),
            found: None,
        }
    }

    /// Looks for the file in the next object of a catalogue.
    fn look(&mut self) -> Result<Step<v1::ArchivedBytes>, Status> {
        if self.looked.read().is_none() {
            let why = "the catalogue names no copy of this file";
            return Err(convert::status(HostError::NotFound(why.into())));
        }
        let asked = self.looked.opened.asked.below.clone();
        let mut lines = std::mem::take(&mut self.looked.waiting).into_iter();
        let is_it = |line: &Line| !line.key.is_empty() && line.path().is_some_and(|path| path == asked);
        let Some(line) = lines.find(is_it) else {
            return Ok(Step::Working);
        };
        let reading = Reading::begin(&*self.looked.opened.store, &line);
        let reading = reading.map_err(|error| self.looked.refused(&error))?;
        let first = v1::ArchivedBytes {
            entry: Some(entry(&self.looked.opened.name, &line)),
            bytes: Vec::new(),
        };
        self.found = Some((line, reading));
        Ok(Step::Items(vec![first]))
    }
}

impl Walk for Fetched {
    type Item = v1::ArchivedBytes;

    fn step(&mut self) -> Result<Step<v1::ArchivedBytes>, Status> {
        let Some((line, reading)) = &mut self.found else {
            return self.look();
        };
        match reading.step(line) {
            Ok(Found::Bytes(bytes)) => Ok(Step::Items(vec![v1::ArchivedBytes { entry: None, bytes }])),
            Ok(Found::Good) => Ok(Step::Done),
            Ok(Found::Differs) => Err(Status::data_loss(
                "the copy is not what the catalogue says: its bytes have changed in the store",
            )),
            Err(error) => Err(self.looked.refused(&error)),
        }
    }
}

/// What a line says. Words that others may have written are made plain.
fn entry(archive: &str, line: &Line) -> v1::ArchiveEntry {
    let plain = |words: &str| convert::plain(words.to_owned());
    let bytes = |text: &String| catalogue::decoded(text).unwrap_or_default();
    let kind = match line.kind.as_str() {
        "directory" => v1::Kind::Directory,
        "symlink" => v1::Kind::Symlink,
        _ => v1::Kind::File,
    };
    v1::ArchiveEntry {
        path: line.path().unwrap_or_default(),
        kind: kind.into(),
        bytes: line.size,
        sha256: plain(&line.sha256),
        key: line.key.clone(),
        archive: archive.to_owned(),
        volume: plain(&line.volume),
        rule: plain(&line.rule),
        run_id: plain(&line.run),
        owner: plain(&line.owner),
        group: plain(&line.group),
        uid: line.uid,
        gid: line.gid,
        mode: plain(&line.mode),
        mtime: plain(&line.mtime),
        last_access: plain(&line.last_access),
        archived_at: plain(&line.archived_at),
        names: line.names.iter().take(NAMED_MAX).map(bytes).collect(),
        target: bytes(&line.target),
        found: line.found,
        xattrs: line
            .xattrs
            .keys()
            .take(NAMED_MAX)
            .map(|name| plain(name))
            .collect(),
        state: v1::CopyState::Unspecified.into(),
        trouble: String::new(),
    }
}
