//! The parent of an agent that no systemd keeps descriptors for: a small process that keeps the event queues over a crash of the agent, and
//! starts it again. The kernel goes on queueing meanwhile, so nothing goes unseen.
//!
//! It speaks the protocol of systemd's store: the agent says `FDSTORE=1`, `FDNAME=` and `FDSTOREREMOVE=1` to `NOTIFY_SOCKET`
//! (sd_notify(3)), and gets back what is kept as `LISTEN_FDS` and `LISTEN_FDNAMES` (sd_listen_fds(3)).
//!
//! | what happens | what follows |
//! |---|---|
//! | SIGTERM, SIGINT | passed on; the parent ends when the agent has, with its exit code |
//! | SIGHUP | passed on: the agent reads its configuration again |
//! | the agent ends before it was ever ready | the parent ends with its exit code: the configuration, or this host, is at fault |
//! | it is killed before that, and what it watches or mounts is kept already | it is started again: others rely on it |
//! | the agent ends with 0 | it was told to end: so does the parent |
//! | the agent is killed, or ends with an error | it is started again at once, then after longer and longer rests |
//! | the agent has ended, and threads of it still wait for a disk | the parent ends with an error if it is to end; otherwise it waits |
//! | the agent does not end within 70 s of an order | it is killed |
//! | the parent is killed | the kernel kills the agent too (PR_SET_PDEATHSIG): a gap, as if the agent were killed without a parent |

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use std::{env, io};

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use purge_base::handover::{self, KEPT_MAX, PARENT};
use purge_sys::child::{self, FIRST};

/// Set to 1: there is no parent, as with `--single-process`.
const SINGLE: &str = "PURGE_AGENT_SINGLE_PROCESS";
/// Longer messages are none of the agent's.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Descriptors of one message.
const FDS_AT_ONCE: usize = 4;
/// Between a crash and the next start: the first rest, and the longest.
#[derive(Debug, Clone, Copy)]
pub struct Rests {
    min: Duration,
    max: Duration,
}

/// Of an agent.
pub const OF_AN_AGENT: Rests = Rests {
    min: Duration::from_millis(100),
    max: Duration::from_secs(10),
};
/// Of a mount: its users wait.
pub const OF_A_MOUNT: Rests = Rests {
    min: Duration::from_millis(1),
    max: Duration::from_secs(1),
};
/// How often it is looked whether an agent that must end has ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The kernel lets go of a process that has ended within this time, unless a thread of it waits for a disk.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);
/// An agent that is to end ends within 50 s.
const ENDS_WITHIN: Duration = Duration::from_secs(70);
/// An agent that was up for so long has not crashed because of its start.
const STEADY: Duration = Duration::from_secs(60);

/// Whether this process should be a parent: it is not an agent already, and nothing else offers to keep descriptors.
pub fn is_wanted(single_process: bool) -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let single = single_process || env::var(SINGLE).is_ok_and(|v| v == "1");
    !single && !is_set("NOTIFY_SOCKET") && handover::parent().is_none()
}

/// Starts the agent, and again after each crash, until it is to end. None: this host has no place for the socket, and the agent must do
/// without a parent.
///
/// # Errors
/// When the agent cannot be started.
pub fn run(rests: Rests) -> anyhow::Result<Option<ExitCode>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    runtime.block_on(async {
        let inbox = match Inbox::open() {
            Ok(inbox) => inbox,
            Err(error) => {
                tracing::warn!(%error, "there is no place for the socket of a parent: a crash of the agent will be a gap");
                return Ok(None);
            }
        };
        Parent::new(inbox)?.keep(rests).await.map(Some)
    })
}

/// Where the agent's messages come in. The socket has no name that others could find: the agent gets a descriptor of its inode.
#[derive(Debug)]
struct Inbox {
    socket: UnixDatagram,
    address: OwnedFd,
}

/// A message.
#[derive(Debug)]
struct Message {
    text: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    fn open() -> io::Result<Self> {
        let mut dirs = ["/run".into(), "/dev/shm".into(), env::temp_dir()].into_iter();
        let made = |dir| tempfile::Builder::new().prefix("purge-agent-").tempdir_in(dir);
        // Its mode is 0700, and it is removed once the socket's inode is open.
        let dir = dirs
            .find_map(|dir| made(dir).ok())
            .ok_or(io::ErrorKind::NotFound)?;
        let path = dir.path().join("notify");
        let socket = net::UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        let address = rustix::fs::open(
            &path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
            address,
        })
    }

    /// A message that is there.
    fn take(&self) -> io::Result<Message> {
        let mut text = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
        let mut more = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut more,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        text.truncate(received.bytes);
        let rights = more.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = rights.flatten().collect();
        Ok(Message { text, fds })
    }

    async fn next(&self) -> io::Result<Message> {
        self.socket.async_io(Interest::READABLE, || self.take()).await
    }
}

/// What is kept, in the order in which it came.
#[derive(Debug, Default)]
struct Kept(Vec<(String, OwnedFd)>);

impl Kept {
    /// Does what a message asks for. True: it says that the agent is ready.
    fn note(&mut self, message: Message) -> bool {
        let text = String::from_utf8_lossy(&message.text).into_owned();
        let says = |wanted: &str| text.lines().any(|line| line == wanted);
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
        // What systemd takes for a name.
        let is_name = |name: &&str| !name.is_empty() && name.len() < 256 && !name.contains([':', '\0']);
        if let Some(name) = name.filter(is_name) {
            if says("FDSTOREREMOVE=1") {
                self.0.retain(|(known, _)| known != name);
            }
            if says("FDSTORE=1") {
                let room = KEPT_MAX.saturating_sub(self.0.len());
                let new = message.fds.into_iter().take(room);
                self.0.extend(new.map(|fd| (name.to_owned(), fd)));
            }
        }
        says("READY=1")
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.join(":")
    }
}

/// How the parent goes on after the agent has ended.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    End(u8),
    StartAgain,
}

/// What follows an end of the agent. `ordered`: the parent has passed on an order to end.
/// `keeps`: others rely on what is kept of it already.
fn after(code: Option<i32>, ordered: bool, was_ready: bool, keeps: bool) -> Next {
    let failed = u8::try_from(code.unwrap_or(1)).unwrap_or(1);
    match (code, ordered) {
        (Some(0), _) => Next::End(0),
        // Killed by the order itself, before it could listen to any.
        (None, true) if !was_ready => Next::End(0),
        (_, true) => Next::End(failed),
        // That it was killed says nothing of its configuration.
        (None, false) if keeps => Next::StartAgain,
        _ if !was_ready => Next::End(failed.max(1)),
        _ => Next::StartAgain,
    }
}

/// Whether a process has ended though its parent has not been told: a thread of it is still in the kernel.
fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // The state follows the name, which ends with the last parenthesis.
    stat.is_ok_and(|stat| {
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| state.starts_with(['Z', 'X']))
    })
}

struct Parent {
    inbox: Inbox,
    kept: Kept,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    was_ready: bool,
    ordered: bool,
}

impl Parent {
    fn new(inbox: Inbox) -> io::Result<Self> {
        Ok(Self {
            inbox,
            kept: Kept::default(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            was_ready: false,
            ordered: false,
        })
    }

    async fn keep(mut self, rests: Rests) -> anyhow::Result<ExitCode> {
        let mut rest = rests.min;
        loop {
            let began = Instant::now();
            let status = match self.start() {
                Ok(mut child) => match self.until_it_ends(&mut child).await? {
                    Some(status) => status,
                    None => {
                        tracing::error!(
                            "the agent has ended, and threads of it wait for a disk that does not answer (dmesg; is the file system of the \
                             state directory frozen?): the kernel lets go of them when it does"
                        );
                        return Ok(ExitCode::FAILURE);
                    }
                },
                Err(error) if self.was_ready => {
                    tracing::error!(%error, "the agent cannot be started again");
                    ExitStatus::default()
                }
                Err(error) => return Err(error).context("cannot start the agent"),
            };
            while let Ok(message) = self.inbox.take() {
                self.was_ready |= self.kept.note(message);
            }
            // As the first process of a container it inherits what the agent had started.
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
            let code = status.code();
            if let Next::End(code) = after(code, self.ordered, self.was_ready, !self.kept.0.is_empty()) {
                return Ok(ExitCode::from(code));
            }
            if began.elapsed() >= STEADY {
                rest = rests.min;
            }
            let is_queue = |(name, _): &&(String, OwnedFd)| !name.ends_with(handover::BUFFER);
            let queues = self.kept.0.iter().filter(is_queue).count();
            tracing::warn!(%status, queues, "the agent has ended and is started again; its event queues are kept");
            if self.is_told_to_end_within(rest).await {
                return Ok(ExitCode::SUCCESS);
            }
            rest = rest.saturating_mul(2).min(rests.max);
        }
    }

    /// The same program with the same arguments, and what is kept.
    fn start(&self) -> io::Result<Child> {
        let own = env::current_exe()?;
        // It may have been replaced since.
        let program = if own.exists() {
            own
        } else {
            "/proc/self/exe".into()
        };
        let mut command = Command::new(program);
        let mut fds: Vec<&OwnedFd> = self.kept.0.iter().map(|(_, fd)| fd).collect();
        let address = usize::try_from(FIRST).unwrap_or(0).saturating_add(fds.len());
        command
            .args(env::args_os().skip(1))
            .env(PARENT, std::process::id().to_string())
            .env("NOTIFY_SOCKET", format!("/proc/self/fd/{address}"))
            .env("FDSTORE", KEPT_MAX.to_string())
            .env("LISTEN_FDS", fds.len().to_string())
            .env("LISTEN_FDNAMES", self.kept.names())
            .env_remove("LISTEN_PID")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID");
        fds.push(&self.inbox.address);
        child::hand_over(&mut command, &fds);
        tokio::process::Command::from(command).spawn()
    }

    /// None: it was to end and has ended, but the kernel cannot let go of it.
    async fn until_it_ends(&mut self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pass_on = |signal| pid.map(|pid| kill_process(pid, signal));
        let (mut ordered_at, mut ended_at): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            if self.ordered {
                let now = Instant::now();
                if ordered_at.get_or_insert(now).elapsed() > ENDS_WITHIN {
                    pass_on(Signal::KILL);
                }
                if pid.is_some_and(has_ended) && ended_at.get_or_insert(now).elapsed() > LET_GO_WITHIN {
                    return Ok(None);
                }
            }
            tokio::select! {
                status = child.wait() => return status.map(Some),
                () = tokio::time::sleep(LOOK_EVERY), if self.ordered => {}
                message = self.inbox.next() => self.was_ready |= self.kept.note(message?),
                _ = self.hang_up.recv() => drop(pass_on(Signal::HUP)),
                _ = self.terminate.recv() => {
                    self.ordered = true;
                    pass_on(Signal::TERM);
                }
                _ = self.interrupt.recv() => {
                    self.ordered = true;
                    pass_on(Signal::INT);
                }
            }
        }
    }

    async fn is_told_to_end_within(&mut self, rest: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(rest) => false,
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(text: &str, fds: usize) -> Message {
        let fd = || std::fs::File::open("/dev/null").unwrap().into();
        Message {
            text: text.into(),
            fds: (0..fds).map(|_| fd()).collect(),
        }
    }

    #[test]
    fn descriptors_are_kept_by_name_until_they_are_taken_out() {
        let mut kept = Kept::default();
        assert!(!kept.note(message("FDSTORE=1\nFDNAME=a.events\nFDPOLL=0", 1)));
        kept.note(message("FDSTORE=1\nFDNAME=b.events", 1));
        assert_eq!(kept.names(), "a.events:b.events");
        kept.note(message("FDSTOREREMOVE=1\nFDNAME=a.events", 0));
        kept.note(message("FDNAME=c", 1));
        kept.note(message("FDSTORE=1\nFDNAME=x:y", 1));
        kept.note(message("FDSTORE=1", 1));
        assert_eq!(kept.names(), "b.events");
        assert!(kept.note(message("READY=1\nSTATUS=fine", 0)));
        for _ in 0..KEPT_MAX {
            kept.note(message("FDSTORE=1\nFDNAME=d", 1));
        }
        assert_eq!(kept.0.len(), KEPT_MAX);
    }

    #[test]
    fn only_a_crash_of_an_agent_that_was_ready_is_followed_by_a_start() {
        assert_eq!(after(None, false, true, false), Next::StartAgain);
        assert_eq!(after(Some(1), false, true, false), Next::StartAgain);
        assert_eq!(after(Some(1), false, false, false), Next::End(1));
        assert_eq!(after(None, false, false, false), Next::End(1));
        assert_eq!(after(Some(0), false, true, false), Next::End(0));
        assert_eq!(after(Some(0), true, true, false), Next::End(0));
        assert_eq!(after(Some(1), true, true, false), Next::End(1));
        assert_eq!(after(None, true, true, false), Next::End(1));
        assert_eq!(after(None, true, false, false), Next::End(0));
        assert_eq!(after(None, false, false, true), Next::StartAgain);
        assert_eq!(after(Some(1), false, false, true), Next::End(1));
        assert_eq!(after(None, true, false, true), Next::End(0));
    }

    #[tokio::test]
    async fn a_message_comes_through_the_inode_and_brings_its_descriptors() {
        use std::os::fd::{AsFd, AsRawFd};
        let inbox = Inbox::open().unwrap();
        let sender = net::UnixDatagram::unbound().unwrap();
        let address = format!("/proc/self/fd/{}", inbox.address.as_raw_fd());
        sender.connect(address).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let fds = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut more = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(more.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let text = [io::IoSlice::new(b"FDSTORE=1\nFDNAME=a")];
        rustix::net::sendmsg(&sender, &text, &mut more, rustix::net::SendFlags::empty()).unwrap();
        let message = inbox.next().await.unwrap();
        assert_eq!(
            (message.text.as_slice(), message.fds.len()),
            (&b"FDSTORE=1\nFDNAME=a"[..], 1)
        );
    }
}
