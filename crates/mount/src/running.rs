//! Beginning and end of a mount.
//!
//! ```text
//!   begin:  mount, first exchange ──> the descriptor and the slots are given to whom keeps them (systemd, the parent)
//!   resume: both come back; what an earlier process did not answer is asked again
//! ```

use std::cell::RefCell;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::asked;
use crate::crew::Crew;
use crate::device::{Device, REQUEST_BYTES_MAX, Ticket};
use crate::ground::Ground;
use crate::nodes::Nodes;
use crate::protocol::opening::{self, Agreed};
use crate::protocol::{Op, Request, request};
use crate::serve::Server;
use crate::slots::Slots;
use purge_collect::fuse::told::Teller;
use purge_sys::{fuse, memory};
use rustix::io::Errno;

/// This number of requests is worked on at once: one that waits for a disk, or for a file server, holds up no other.
const THREADS: usize = 16;

/// What is mounted where.
#[derive(Debug, Clone)]
pub struct Place {
    /// The directory behind the mount.
    pub behind: PathBuf,
    /// Where users see it.
    pub point: PathBuf,
    /// The kernel may read and write files by itself.
    pub passthrough: bool,
    /// The kernel asks again what was not answered.
    pub resend: bool,
}

/// How the agent hears of the mount and asks it.
#[derive(Debug)]
pub struct Agent {
    /// Uses are told here.
    pub teller: Teller,
    /// It asks here while it takes files.
    pub listener: UnixListener,
}

/// What outlives this process.
#[derive(Debug)]
pub struct Kept {
    /// `/dev/fuse`.
    pub device: OwnedFd,
    /// The slots; none: nothing is found again after the end of this process.
    pub slots: Option<OwnedFd>,
}

/// A mount that is served.
#[derive(Debug)]
pub struct Running {
    server: Arc<Server>,
    threads: Vec<JoinHandle<()>>,
    agreed: Agreed,
}

/// Mounts.
///
/// # Errors
/// What `mount(2)` says.
pub fn mount(place: &Place, ground: &Ground) -> io::Result<Kept> {
    let slots = Slots::memory().inspect_err(|error| {
        tracing::warn!(%error, "no memory that outlives this process: after its end files are looked for by their names");
    });
    Ok(Kept {
        device: fuse::mount(ground.top(), &place.behind, &place.point)?,
        slots: slots.ok(),
    })
}

/// The file system behind.
///
/// # Errors
/// What `open(2)` says.
pub fn ground(place: &Place, hidden: &CStr) -> io::Result<Ground> {
    Ground::at(&place.behind, hidden)
}

impl Running {
    /// Serves what was mounted, by this process or an earlier one.
    ///
    /// # Errors
    /// When the kernel is too old, or no thread can be started.
    pub fn begin(place: &Place, ground: Ground, kept: Kept, agent: Option<Agent>) -> io::Result<Self> {
        let device = Arc::new(Device::of(kept.device));
        let mut slots = match &kept.slots {
            Some(memory) => Slots::of(memory)?,
            None => Slots::none(),
        };
        let (agreed, is_resumed) = match slots.agreed() {
            Some(flags) => (Agreed::of(flags), true),
            None => (first_exchange(&device, place)?, false),
        };
        slots.agree(agreed.flags);
        let nodes = Nodes::of(slots);
        let (teller, listener) =
            agent.map_or((None, None), |agent| (Some(agent.teller), Some(agent.listener)));
        let known = nodes.len();
        let server = Arc::new(Server::new(
            ground,
            Arc::clone(&device),
            nodes,
            teller,
            agreed.passthrough,
        ));
        if is_resumed {
            tracing::info!(known, "goes on with the mount of an earlier process");
            // Before any other request is read: these are answered first, in front of those that were made since.
            if let Err(error) = device.ask_again() {
                tracing::warn!(%error, "requests that an earlier process had read are not asked again: who made them waits until the mount ends");
            }
        }
        let threads = begin_threads(&server, &device)?;
        let patience = Arc::clone(server.patience());
        // It ends with the process.
        std::thread::Builder::new()
            .name("patience".into())
            .spawn(move || patience.keep())?;
        if let Some(listener) = listener {
            // What the kernel reads by itself may be mapped and not be open here.
            asked::answer(&server, listener, !agreed.passthrough)?;
        }
        Ok(Self {
            server,
            threads,
            agreed,
        })
    }

    /// What the kernel and this mount can.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// How many files are open through it.
    pub fn open_files(&self) -> usize {
        self.server.open_files()
    }

    /// Whether it is unmounted.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

fn begin_threads(server: &Arc<Server>, device: &Arc<Device>) -> io::Result<Vec<JoinHandle<()>>> {
    let crew = Arc::new(Crew::of(THREADS));
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let (server, device, crew) = (Arc::clone(server), Arc::clone(device), Arc::clone(&crew));
        let thread = std::thread::Builder::new().name(format!("mount-{number}"));
        threads.push(thread.spawn(move || answer_all(&server, &device, &crew))?);
    }
    // It ends with them.
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || crew.watch())?;
    Ok(threads)
}

/// Reads and answers, as one of a crew, until it is unmounted.
fn answer_all(server: &Arc<Server>, device: &Device, crew: &Crew) {
    // Made by a thread that reads for the first time. Resident: a request that the kernel writes to a page that is not there, while this process is
    // killed, ends with EIO and is not asked again (`fuse_dev_do_read`, fs/fuse/dev.c).
    let buffer = RefCell::new(Vec::new());
    let read = || match device.read(ready(&mut buffer.borrow_mut())) {
        Ok(request) => request.map(<[u8]>::len),
        Err(error) => {
            tracing::error!(%error, "requests cannot be read: the mount ends");
            None
        }
    };
    let answer = |length: usize| {
        let buffer = buffer.borrow();
        let request = buffer.get(..length).unwrap_or_default();
        crew.is_asked_by(request::asker(request));
        server.serve(request)
    };
    crew.serve(read, answer);
}

fn ready(buffer: &mut Vec<u8>) -> &mut [u8] {
    if buffer.is_empty() {
        *buffer = memory::resident(REQUEST_BYTES_MAX);
    }
    buffer
}

fn first_exchange(device: &Arc<Device>, place: &Place) -> io::Result<Agreed> {
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let too_old = || io::Error::new(io::ErrorKind::Unsupported, "a mount needs Linux 5.4 or later");
    loop {
        let request = device.read(&mut buffer)?.ok_or(io::ErrorKind::NotConnected)?;
        let Ok(request) = Request::parse(request) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let ticket = Ticket::new(device, request.head.unique);
        let Op::Opening { body } = request.op else {
            ticket.answer(Err(Errno::IO));
            continue;
        };
        let agreed = opening::answer(body, place.passthrough, place.resend)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let Some((answer, agreed)) = agreed else {
            ticket.answer(Err(Errno::PROTO));
            return Err(too_old());
        };
        ticket.answer(Ok(answer));
        return Ok(agreed);
    }
}
