//! Open files. The agent is told before a file is opened, and again when it is closed: it may have been used until then.
//!
//! What may never happen: that making a file opens another's. The kernel has looked whether the name is free, and asked nothing of a file that
//! another user has made since.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Open, Server, for_user};
use crate::device::{Done, Ticket, errno};
use crate::protocol::request::{Lock, Part};
use crate::protocol::{Answer, Head, Op, Request};
use crate::taking::MADE_NOW;
use purge_sys::{acting, backing};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// How a file behind the mount is opened for one that was opened by it. Data is copied through memory of any place where the kernel does
/// not read it by itself.
fn behind(flags: u32) -> OFlags {
    let not = OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::DIRECT | OFlags::CREATE | OFlags::EXCL;
    OFlags::from_bits_retain(flags) & !not
}

/// For both where a request says this, which it could not be made with: the kernel does not say how the file was opened when it writes what was
/// changed through a mapping.
fn able(flags: u32, lacks: OFlags) -> u32 {
    let mode = OFlags::ACCMODE.bits();
    match flags & mode == lacks.bits() {
        true => (flags & !mode) | OFlags::RDWR.bits(),
        false => flags,
    }
}

fn is_leased(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn is_there(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

fn is_exclusive(flags: u32) -> bool {
    OFlags::from_bits_retain(flags).contains(OFlags::EXCL)
}

impl Server {
    pub(super) fn open(self: &Arc<Self>, head: Head, flags: u32, kills: bool, ticket: Ticket) {
        self.tell(head.node);
        let server = Arc::clone(self);
        let attempt = move || match server.open_now(head, flags, kills) {
            Err(error) if is_leased(&error) => None,
            done => Some(done.map_err(|error| errno(&error))),
        };
        self.patience.answer(ticket, Box::new(attempt), false);
    }

    fn open_now(&self, head: Head, flags: u32, kills: bool) -> io::Result<Answer> {
        let (leads, using) = self.begin_use(head.node)?;
        let flags = behind(flags);
        let file = match kills {
            true => acting::without_keeping_bits(|| self.ground.open(leads.as_ref(), flags)),
            false => acting::keeping_bits_if(flags.contains(OFlags::TRUNC), || {
                self.ground.open(leads.as_ref(), flags)
            }),
        }?;
        let (handle, backing) = self.opened(head.node, file);
        drop(using);
        Ok(Answer::with_room(16).and_open(handle, backing))
    }

    /// Notes an open file.
    fn opened(&self, node: u64, file: OwnedFd) -> (u64, Option<i32>) {
        let handle = self.number();
        let backing = self.nodes.lock().opened(node, || self.register(&file));
        self.files.lock().insert(handle, Arc::new(Open { file, node }));
        (handle, backing)
    }

    /// Has the kernel read and write it by itself, where it can.
    fn register(&self, file: &OwnedFd) -> Option<i32> {
        if !self.passthrough.load(Relaxed) {
            return None;
        }
        // Who writes that way takes the bits away that let a program run as its owner.
        match acting::without_keeping_bits(|| self.device.register(file.as_fd())) {
            Ok(number) => Some(number),
            Err(error) => {
                let lacks = [
                    Errno::PERM,
                    Errno::LOOP,
                    Errno::OPNOTSUPP,
                    Errno::NOTTY,
                    Errno::INVAL,
                ];
                if lacks.contains(&errno(&error)) && self.passthrough.swap(false, Relaxed) {
                    tracing::warn!(%error, "the kernel does not read and write files of this file system by itself: the mount does, which is slower");
                }
                None
            }
        }
    }

    pub(super) fn create(&self, request: &Request<'_>, again: bool) -> io::Result<Answer> {
        let (head, groups) = (request.head, request.groups.as_slice());
        let dir = self.reach_dir(head.node)?;
        let file = match request.op {
            Op::Create {
                name,
                flags,
                mode,
                umask,
            } => {
                if self.ground.hides(head.node, name) {
                    return Err(Errno::ACCESS.into());
                }
                let made = {
                    let _acting = for_user(head, groups, umask, mode)?;
                    backing::make_file(&dir, name, behind(flags), mode)
                };
                match made {
                    // An earlier process has made it, and was killed before it could say so.
                    Err(error) if is_there(&error) && again => {
                        backing::made_before(&dir, name, behind(flags), head.uid)?
                    }
                    // It is there by now. The kernel looks once more, and asks whether this user may open it.
                    Err(error) if is_there(&error) && !is_exclusive(flags) => return Err(Errno::STALE.into()),
                    made => made?,
                }
            }
            Op::Nameless { flags, mode, umask } => {
                let exclusive = OFlags::from_bits_retain(flags) & OFlags::EXCL;
                let _acting = for_user(head, groups, umask, mode)?;
                backing::make_nameless(&dir, behind(flags) | exclusive, mode)?
            }
            _ => return Err(Errno::NOSYS.into()),
        };
        // One that an earlier process has made may be on its way into the trash by now.
        let began = match again {
            true => self.nodes.lock().now(),
            false => MADE_NOW,
        };
        let met = self.ground.meet_open(&file)?;
        self.tell(met.number);
        let entry = self.entry(met, began)?;
        let using = self.begin_use(entry.node).map_err(|_| Errno::STALE)?;
        let (handle, backing) = self.opened(entry.node, file);
        drop(using);
        Ok(Answer::entry(&entry).and_open(handle, backing))
    }

    /// An open file. One that an earlier process had open is opened once more, as the request says that it was.
    fn file(&self, handle: u64, node: u64, flags: u32) -> io::Result<Arc<Open>> {
        if let Some(open) = self.files.lock().get(&handle) {
            return Ok(Arc::clone(open));
        }
        let open = self.open_again(node, behind(flags) & !OFlags::TRUNC)?;
        Ok(Arc::clone(self.files.lock().entry(handle).or_insert(open)))
    }

    /// The same for a request that does not say how the file was opened: good for all but reading and writing.
    pub(super) fn some_file(&self, handle: u64, node: u64) -> io::Result<Arc<Open>> {
        // Locks are those of the descriptor by which they were taken.
        if let Some(open) = self.found_again.lock().get(&handle) {
            return Ok(Arc::clone(open));
        }
        if let Some(open) = self.files.lock().get(&handle) {
            return Ok(Arc::clone(open));
        }
        let open = self.open_again(node, OFlags::RDONLY)?;
        Ok(Arc::clone(self.found_again.lock().entry(handle).or_insert(open)))
    }

    fn open_again(&self, node: u64, flags: OFlags) -> io::Result<Arc<Open>> {
        let file = self.ground.open(self.leads(node)?.as_ref(), flags)?;
        Ok(Arc::new(Open { file, node }))
    }

    /// Takes, frees or moves room of a file, which was opened for writing.
    pub(super) fn allocate(&self, node: u64, op: Op<'_>) -> io::Result<Answer> {
        let Op::Allocate {
            handle,
            at,
            length,
            mode,
        } = op
        else {
            return Err(Errno::NOSYS.into());
        };
        let known = self.files.lock().get(&handle).cloned();
        let open = known.map_or_else(|| self.open_again(node, OFlags::RDWR), Ok)?;
        acting::keeping_bits(|| backing::allocate(&open.file, mode, at, length))?;
        Ok(Answer::done())
    }

    pub(super) fn read(&self, node: u64, part: Part) -> io::Result<Answer> {
        let open = self.file(part.handle, node, able(part.flags, OFlags::WRONLY))?;
        let most = usize::try_from(part.size).unwrap_or(0);
        let mut answer = Answer::with_room(most);
        backing::read(&open.file, answer.body(), part.at)?;
        answer.cut(most);
        Ok(answer)
    }

    pub(super) fn write(&self, node: u64, part: Part, data: &[u8], kills: bool) -> io::Result<Answer> {
        let open = self.file(part.handle, node, able(part.flags, OFlags::RDONLY))?;
        let written = match kills {
            true => acting::without_keeping_bits(|| backing::write(&open.file, data, part.at)),
            false => acting::keeping_bits(|| backing::write(&open.file, data, part.at)),
        }?;
        Ok(Answer::with_room(8)
            .u32(u32::try_from(written).unwrap_or(0))
            .u32(0))
    }

    /// `again`: an earlier process may have done this, and what it has taken back is not taken back twice. Then the file counts as open for longer.
    pub(super) fn release(&self, node: u64, handle: u64, again: bool) -> Answer {
        self.found_again.lock().remove(&handle);
        let open = self.files.lock().remove(&handle);
        let is_known = open.is_some();
        let node = open.as_ref().map_or(node, |open| open.node);
        self.tell(node);
        drop(open);
        if again && !is_known {
            return Answer::done();
        }
        let left = self.nodes.lock().closed(node);
        if let Some(number) = left {
            self.device.forget(number);
        }
        Answer::done()
    }

    pub(super) fn copy(&self, node: u64, op: Op<'_>) -> io::Result<Answer> {
        let Op::Copy {
            from,
            from_at,
            to,
            to_at,
            length,
        } = op
        else {
            return Err(Errno::NOSYS.into());
        };
        /// Longer copies go in parts, so that no request takes long.
        const COPIED_AT_ONCE: u64 = 64 << 20;
        let source = match self.files.lock().get(&from).cloned() {
            Some(open) => open,
            None => self.open_again(node, OFlags::RDONLY)?,
        };
        // What an earlier process had open is known to it alone: the caller copies by reading and writing then.
        let target = self.files.lock().get(&to).cloned().ok_or(Errno::XDEV)?;
        let length = usize::try_from(length.min(COPIED_AT_ONCE)).unwrap_or(0);
        let copied =
            acting::keeping_bits(|| backing::copy(&source.file, from_at, &target.file, to_at, length))?;
        Ok(Answer::with_room(8)
            .u32(u32::try_from(copied).unwrap_or(0))
            .u32(0))
    }

    /// Locks behind the mount as well, so that who goes around it, and the agent, see the lock.
    pub(super) fn lock(self: &Arc<Self>, head: Head, lock: Lock, ticket: Ticket) {
        /// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
        const KINDS: [backing::Lock; 3] = [
            backing::Lock::Shared,
            backing::Lock::Exclusive,
            backing::Lock::Released,
        ];
        let kind = usize::try_from(lock.kind)
            .ok()
            .and_then(|kind| KINDS.get(kind).copied());
        let (Some(kind), true) = (kind, lock.is_whole) else {
            return ticket.answer(Err(Errno::NOSYS));
        };
        let open = match self.some_file(lock.handle, head.node) {
            Ok(open) => open,
            Err(error) => return ticket.answer(Err(errno(&error))),
        };
        let attempt = move || -> Option<Done> {
            match backing::lock(&open.file, kind) {
                Err(error) if is_leased(&error) && lock.waits => None,
                done => Some(done.map(|()| Answer::done()).map_err(|error| errno(&error))),
            }
        };
        self.patience.answer(ticket, Box::new(attempt), true);
    }
}
