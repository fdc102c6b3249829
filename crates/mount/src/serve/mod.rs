//! Answers to what the kernel asks.
//!
//! - `names`       looking up, making, removing, renaming
//! - `files`       open files
//! - `attributes`  what is said of a file, and what is set
//! - `listing`     directories
//!
//! What may never happen: an open that is answered before the agent was told; a request that holds up all others.

mod attributes;
mod files;
mod listing;
mod names;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

use self::listing::{Listings, OpenDir};
use crate::device::{Device, Done, Ticket, errno};
use crate::ground::{Ground, Met, Reached};
use crate::nodes::{Leads, Nodes, TOP, Turn};
use crate::patience::Patience;
use crate::protocol::answer::Entry;
use crate::protocol::{Answer, Head, Op, Request};
use crate::taking::Moment;
use purge_collect::fuse::told::Teller;
use purge_sys::acting::{Acting, Whose};
use purge_sys::time;
use rustix::fs::Mode;
use rustix::io::Errno;

/// An open file.
#[derive(Debug)]
struct Open {
    file: OwnedFd,
    node: u64,
}

/// The mount's state.
#[derive(Debug)]
pub struct Server {
    ground: Ground,
    device: Arc<Device>,
    nodes: Mutex<Nodes>,
    files: Mutex<FxHashMap<u64, Arc<Open>>>,
    /// What an earlier process had open, and how is not known.
    found_again: Mutex<FxHashMap<u64, Arc<Open>>>,
    dirs: Mutex<FxHashMap<u64, Arc<OpenDir>>>,
    listings: Mutex<Listings>,
    next: AtomicU64,
    patience: Arc<Patience>,
    teller: Option<Teller>,
    /// The kernel may read and write files by itself.
    passthrough: AtomicBool,
}

impl Server {
    /// One that has not been asked anything yet.
    pub fn new(
        ground: Ground,
        device: Arc<Device>,
        nodes: Nodes,
        teller: Option<Teller>,
        passthrough: bool,
    ) -> Self {
        Self {
            ground,
            device,
            nodes: Mutex::new(nodes),
            files: Mutex::default(),
            found_again: Mutex::default(),
            dirs: Mutex::default(),
            listings: Mutex::default(),
            // No earlier process had these numbers: it did not open a file each nanosecond.
            next: AtomicU64::new(time::since_boot().cast_unsigned()),
            patience: Arc::default(),
            teller,
            passthrough: AtomicBool::new(passthrough),
        }
    }

    /// Those that wait.
    pub fn patience(&self) -> &Arc<Patience> {
        &self.patience
    }

    /// The kernel's end.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the kernel knows. Nothing waits for anything while it is locked.
    pub fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock()
    }

    /// What the kernel calls the file of this inode.
    pub fn number_of(&self, ino: u64) -> u64 {
        self.ground.number_of(ino)
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.files.lock().len()
    }

    /// Answers a request. False: the mount ends.
    pub fn serve(self: &Arc<Self>, bytes: &[u8]) -> bool {
        let request = match Request::parse(bytes) {
            Ok(request) => request,
            Err((unique, error)) => {
                tracing::error!(%error, "a request");
                if let Some(unique) = unique {
                    Ticket::new(&self.device, unique).answer(Err(Errno::IO));
                }
                return true;
            }
        };
        let ticket = Ticket::new(&self.device, request.head.unique);
        match request.op {
            Op::Forget { times } => {
                ticket.keep_silent();
                self.forget(request.head.node, times);
            }
            Op::ForgetMany { list } => {
                ticket.keep_silent();
                self.forget_many(list);
            }
            Op::Interrupt { unique } => {
                ticket.keep_silent();
                self.patience.interrupt(unique);
            }
            Op::Destroy => {
                ticket.answer(Ok(Answer::done()));
                return false;
            }
            Op::Open { flags, kills } => self.open(request.head, flags, kills, ticket),
            Op::SetAttributes(set) => self.set_attributes(request.head, set, ticket),
            Op::SetLock(lock) => self.lock(request.head, lock, ticket),
            _ => {
                let again = ticket.is_asked_again();
                ticket.answer(
                    self.answer(&request, again)
                        .unwrap_or_else(|error| Err(errno(&error))),
                );
            }
        }
        true
    }

    /// What is answered at once.
    fn answer(&self, request: &Request<'_>, again: bool) -> io::Result<Done> {
        let head = request.head;
        let answer = match request.op {
            Op::Lookup { name } => self.lookup(head.node, name)?,
            Op::MakeLink { .. } | Op::MakeNode { .. } | Op::MakeDir { .. } | Op::AddName { .. } => {
                self.make(request, again)?
            }
            Op::Unlink { .. } | Op::RemoveDir { .. } | Op::Rename { .. } => self.take_away(request, again)?,
            Op::Create { .. } | Op::Nameless { .. } => self.create(request, again)?,
            Op::ReadLink => Answer::bytes(&purge_sys::backing::target(self.reach(head.node)?)?),
            Op::GetAttributes { handle } => self.attributes(head.node, handle)?,
            Op::SetAttribute { name, value, flags } => {
                self.touch(head.node);
                self.set_attribute(head.node, (name, value, flags), again)?
            }
            Op::Attribute { name, size } => self.attribute(head.node, name, size)?,
            Op::AttributeNames { size } => self.attribute_names(head.node, size)?,
            Op::RemoveAttribute { name } => {
                self.touch(head.node);
                self.remove_attribute(head.node, name, again)?
            }
            Op::Room => Answer::room(&purge_sys::backing::room(self.ground.top())?),
            Op::OpenDir => self.open_dir(head.node)?,
            Op::List(part) => self.list(head.node, part)?,
            Op::ListWithAttributes(part) => self.list_with_attributes(head.node, part)?,
            Op::ReleaseDir { handle } => {
                self.dirs.lock().remove(&handle);
                Answer::done()
            }
            Op::SyncDir { handle, data } => self.sync_dir(head.node, handle, data)?,
            Op::Read(part) => self.read(head.node, part)?,
            Op::Write { part, data, kills } => self.write(head.node, part, data, kills)?,
            Op::Release { handle } => self.release(head.node, handle, again),
            Op::Sync { handle, data } => {
                let open = self.some_file(handle, head.node)?;
                purge_sys::backing::sync(&open.file, data)?;
                Answer::done()
            }
            Op::Allocate { .. } => self.allocate(head.node, request.op)?,
            Op::Find { handle, at, whence } => {
                let open = self.some_file(handle, head.node)?;
                Answer::with_room(8).u64(purge_sys::backing::find(&open.file, at, whence)?)
            }
            Op::Copy { .. } => self.copy(head.node, request.op)?,
            Op::SyncAll => {
                purge_sys::stat::sync(self.ground.top())?;
                Answer::done()
            }
            _ => return Ok(Err(Errno::NOSYS)),
        };
        Ok(Ok(answer))
    }

    /// How a file is found; none: it is the top.
    fn leads(&self, node: u64) -> io::Result<Option<Leads>> {
        match node {
            TOP => Ok(None),
            node => self.nodes.lock().leads(node).map(Some),
        }
    }

    /// Opens a file for a look.
    fn reach(&self, node: u64) -> io::Result<Reached<'_>> {
        self.ground.reach(self.leads(node)?.as_ref())
    }

    /// The same for a directory in which something is looked for or changed.
    fn reach_dir(&self, node: u64) -> io::Result<Reached<'_>> {
        self.ground.reach_dir(self.leads(node)?.as_ref())
    }

    /// The kernel is about to be told of what was met by a look that began in this moment.
    ///
    /// # Errors
    /// ESTALE: it lies there no more.
    fn entry(&self, met: Met, began: Moment) -> io::Result<Entry> {
        if let Some(leads) = met.leads {
            self.nodes.lock().meet(met.number, leads, began)?;
        }
        Ok(Entry {
            node: met.number,
            generation: met.generation,
            found: met.found,
        })
    }

    /// A user is about to use a file. EWOULDBLOCK: the agent is about to take it, and has to decide first.
    fn begin_use(&self, node: u64) -> io::Result<(Option<Leads>, Using<'_>)> {
        let leads = match node {
            TOP => None,
            node => {
                let turn = self.nodes.lock().begin_use(node)?;
                match turn {
                    Turn::Now(leads) => Some(leads),
                    Turn::Later => return Err(Errno::WOULDBLOCK.into()),
                }
            }
        };
        Ok((leads, Using { server: self, node }))
    }

    /// A user does something to a file: the agent does not take it now.
    fn touch(&self, node: u64) {
        self.nodes.lock().touch(node);
    }

    fn forget(&self, node: u64, times: u64) {
        self.nodes.lock().forget(node, times);
    }

    fn forget_many(&self, list: &[u8]) {
        let mut nodes = self.nodes.lock();
        for one in list.chunks_exact(16) {
            let (node, times) = one.split_at(8);
            if let (Ok(node), Ok(times)) = (node.try_into(), times.try_into()) {
                nodes.forget(u64::from_ne_bytes(node), u64::from_ne_bytes(times));
            }
        }
    }

    /// A file is about to be used: the agent knows before it is.
    fn tell(&self, node: u64) {
        if let Some(teller) = &self.teller {
            teller.used(node);
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }
}

/// A use that has begun, until this is dropped.
struct Using<'a> {
    server: &'a Server,
    node: u64,
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.server.nodes.lock().end_use(self.node);
    }
}

/// From now on this thread makes files for who asks: what is made has this mode.
fn for_user(head: Head, groups: &[u32], umask: u32, mode: u32) -> io::Result<Acting> {
    let bits = Mode::SUID | Mode::SGID;
    Acting::for_user(Whose {
        uid: head.uid,
        gid: head.gid,
        groups,
        umask,
        sets_bits: Mode::from_raw_mode(mode).intersects(bits),
    })
}
