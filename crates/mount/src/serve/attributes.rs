//! What is said of a file, and what is set.

use std::ffi::CStr;
use std::io;
use std::sync::Arc;

use super::Server;
use crate::device::{Ticket, errno};
use crate::protocol::request::Set;
use crate::protocol::{Answer, Head};
use purge_sys::acting;
use purge_sys::backing::{self, Time};
use rustix::fs::OFlags;
use rustix::io::Errno;

impl Server {
    pub(super) fn attributes(&self, node: u64, handle: Option<u64>) -> io::Result<Answer> {
        let open = handle.and_then(|handle| self.files.lock().get(&handle).cloned());
        let found = match open {
            Some(open) => backing::attributes(&open.file)?,
            None => backing::attributes(self.reach(node)?)?,
        };
        Ok(Answer::attributes(&found))
    }

    pub(super) fn set_attributes(self: &Arc<Self>, head: Head, set: Set, ticket: Ticket) {
        if set.size.is_some() {
            self.tell(head.node);
        }
        let server = Arc::clone(self);
        let attempt = move || match server.set_now(head, &set) {
            // A process has a lease on it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            done => Some(done.map_err(|error| errno(&error))),
        };
        self.patience.answer(ticket, Box::new(attempt), false);
    }

    fn set_now(&self, head: Head, set: &Set) -> io::Result<Answer> {
        let _using = match set.size {
            Some(_) => Some(self.begin_use(head.node)?.1),
            None => {
                self.touch(head.node);
                None
            }
        };
        let node = self.reach(head.node)?;
        // First what may have to wait.
        if let Some(length) = set.size {
            match set.kills {
                true => acting::without_keeping_bits(|| self.set_length(head.node, set.handle, length)),
                false => acting::keeping_bits(|| self.set_length(head.node, set.handle, length)),
            }?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            acting::keeping_bits(|| backing::set_owner(&node, set.uid, set.gid))?;
        }
        if let Some(mode) = set.mode {
            acting::keeping_bits(|| backing::set_mode(&node, mode))?;
        }
        let time = |set: Option<Option<(i64, u32)>>| match set {
            None => Time::Kept,
            Some(None) => Time::Now,
            Some(Some((seconds, nanos))) => Time::At(seconds, nanos),
        };
        if set.atime.is_some() || set.mtime.is_some() {
            backing::set_times(&node, time(set.atime), time(set.mtime))?;
        }
        Ok(Answer::attributes(&backing::attributes(&node)?))
    }

    fn set_length(&self, node: u64, handle: Option<u64>, length: u64) -> io::Result<()> {
        let open = handle.and_then(|handle| self.files.lock().get(&handle).cloned());
        match open {
            Some(open) => backing::set_length(&open.file, length),
            None => {
                let file = self.ground.open(self.leads(node)?.as_ref(), OFlags::WRONLY)?;
                backing::set_length(file, length)
            }
        }
    }

    pub(super) fn set_attribute(
        &self,
        node: u64,
        (name, value, flags): (&CStr, &[u8], u32),
        again: bool,
    ) -> io::Result<Answer> {
        let node = self.reach(node)?;
        let set = acting::keeping_bits(|| backing::set_attribute(node, name, value, flags));
        done_before(set, again.then_some(Errno::EXIST))
    }

    pub(super) fn remove_attribute(&self, node: u64, name: &CStr, again: bool) -> io::Result<Answer> {
        let removed = backing::remove_attribute(self.reach(node)?, name);
        done_before(removed, again.then_some(Errno::NODATA))
    }

    pub(super) fn attribute(&self, node: u64, name: &CStr, size: u32) -> io::Result<Answer> {
        of_size(&backing::attribute(self.reach(node)?, name)?, size)
    }

    pub(super) fn attribute_names(&self, node: u64, size: u32) -> io::Result<Answer> {
        of_size(&backing::attribute_names(self.reach(node)?)?, size)
    }
}

/// This error says that an earlier process has done it, and was killed before it could say so.
fn done_before(done: io::Result<()>, says: Option<Errno>) -> io::Result<Answer> {
    match done {
        Err(error) if says == Some(errno(&error)) => {}
        done => done?,
    }
    Ok(Answer::done())
}

/// What was asked for, as far as there is room for it; its length, where none is given.
fn of_size(value: &[u8], room: u32) -> io::Result<Answer> {
    let length = u32::try_from(value.len()).map_err(|_| Errno::RANGE)?;
    match room {
        0 => Ok(Answer::with_room(8).u32(length).u32(0)),
        room if room < length => Err(Errno::RANGE.into()),
        _ => Ok(Answer::bytes(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_process_has_done_is_no_error_where_it_is_asked_again() {
        let lacks = || Err(Errno::NODATA.into());
        assert!(done_before(Ok(()), None).is_ok());
        assert!(done_before(lacks(), Some(Errno::NODATA)).is_ok());
        assert!(done_before(lacks(), None).is_err());
        assert!(done_before(lacks(), Some(Errno::EXIST)).is_err());
    }
}
