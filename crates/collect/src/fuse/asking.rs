//! What the agent asks a mount while it takes files: where the file system gives no leases, only the mount can keep its users from a file that is
//! being removed.
//!
//! ```text
//! agent --> mount   kind:u32 length:u32 inode:u64 directory:u64, a name of that length     (native byte order: one host)
//!   HELLO  answered: GUARDS, or only TELLS
//!   TAKE   answered: YES, no process has the file open or mapped by the mount, and who opens it waits; or NO
//!   LOOK   answered: YES, since TAKE no process has come for it; or NO
//!   LEAVE  who waits goes on; not answered
//!   WENT   the file lies at its place no more, and did so under that name; not answered
//! ```
//! By a socket in the directory of the log. The end of the connection leaves everything.
//!
//! What may never happen: a file that is taken for kept while the mount does not keep it. So what cannot be asked, and what was asked on a
//! connection that has ended, is a NO. A mount that takes the place of another waits until no file is kept by that (`taking`).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;

use super::told;
use purge_model::Inode;

/// A mount that does not answer for so long guards nothing.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
const HEAD_BYTES: usize = 24;
/// Longer names there are none (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;
/// So much is sent at once.
const SENT_BYTES: usize = 32 << 10;

const HELLO: u32 = 1;
const TAKE: u32 = 2;
const LOOK: u32 = 3;
const LEAVE: u32 = 4;
const WENT: u32 = 5;

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It is not so, or not known.
    No,
    /// It is so.
    Yes,
    /// To HELLO: the mount keeps files.
    Guards,
    /// To HELLO: it does not know of each open file and mapping, and keeps none.
    Tells,
}

impl Reply {
    /// Its byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::No => 0,
            Self::Yes => 1,
            Self::Guards => 2,
            Self::Tells => 3,
        }
    }
}

/// A question, as the mount reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What the mount can.
    Hello,
    /// Keep users from this file.
    Take(Inode),
    /// Whether no process has come for it.
    Look(Inode),
    /// It is left to users again.
    Leave(Inode),
    /// It lies at its place no more.
    Went(Went),
}

/// A file that lies at its place no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Went {
    /// Which.
    pub ino: Inode,
    /// In this directory; 0: it went with a directory above.
    pub dir: Inode,
    /// Under this name.
    pub name: Vec<u8>,
}

impl Question {
    /// Reads the next. None: the agent has ended the connection.
    ///
    /// # Errors
    /// When it is none, and what `read(2)` says.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD_BYTES];
        match from.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let number = |at: usize| {
            let part = head.get(at..at.saturating_add(4)).ok_or_else(invalid)?;
            Ok::<_, io::Error>(u32::from_ne_bytes(part.try_into().map_err(|_| invalid())?))
        };
        let inode = |at: usize| {
            let part = head.get(at..at.saturating_add(8)).ok_or_else(invalid)?;
            Ok::<_, io::Error>(u64::from_ne_bytes(part.try_into().map_err(|_| invalid())?))
        };
        let length = usize::try_from(number(4)?).map_err(|_| invalid())?;
        if length > NAME_BYTES_MAX {
            return Err(invalid());
        }
        let mut name = vec![0; length];
        from.read_exact(&mut name)?;
        let ino = inode(8)?;
        Ok(Some(match number(0)? {
            HELLO => Self::Hello,
            TAKE => Self::Take(ino),
            LOOK => Self::Look(ino),
            LEAVE => Self::Leave(ino),
            WENT => Self::Went(Went {
                ino,
                dir: inode(16)?,
                name,
            }),
            _ => return Err(invalid()),
        }))
    }

    fn write(&self, into: &mut Vec<u8>) {
        let (kind, ino, dir, name): (u32, Inode, Inode, &[u8]) = match self {
            Self::Hello => (HELLO, 0, 0, &[]),
            Self::Take(ino) => (TAKE, *ino, 0, &[]),
            Self::Look(ino) => (LOOK, *ino, 0, &[]),
            Self::Leave(ino) => (LEAVE, *ino, 0, &[]),
            Self::Went(went) => (WENT, went.ino, went.dir, &went.name),
        };
        let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
        into.extend(kind.to_ne_bytes());
        into.extend(u32::try_from(name.len()).unwrap_or(0).to_ne_bytes());
        into.extend(ino.to_ne_bytes());
        into.extend(dir.to_ne_bytes());
        into.extend_from_slice(name);
    }
}

/// Where the mount is asked, below the directory of its log: a path of any length is short that way.
fn socket(dir: &File) -> String {
    format!("/proc/self/fd/{}/asked", dir.as_raw_fd())
}

/// Files are kept by a mount as long as a process has a shared lock on this; who becomes the mount waits for that.
fn lock_of(dir: &Path) -> io::Result<File> {
    purge_sys::private::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("taking"))
}

/// Waits until the agent keeps no file by an earlier mount. For the mount whose log lies in `dir`, and who has the lock of it. False: one is kept
/// after so long.
///
/// # Errors
/// What `flock(2)` says.
pub fn wait_for_earlier(dir: &Path, within: Duration) -> io::Result<bool> {
    /// How often it is looked.
    const LOOKED_EVERY: Duration = Duration::from_millis(2);
    let lock = lock_of(dir)?;
    let began = std::time::Instant::now();
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < within => {
                std::thread::sleep(LOOKED_EVERY);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Listens for the agent.
///
/// # Errors
/// What `bind(2)` says.
pub fn listen(dir: &Path) -> io::Result<UnixListener> {
    let dir = File::open(dir)?;
    let place = socket(&dir);
    match std::fs::remove_file(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(place),
    }
}

/// How the agent asks the mount of a volume.
#[derive(Debug, Default)]
pub struct Asker {
    /// Where its log lies; none: users come to the volume without one.
    dir: Option<PathBuf>,
    now: Mutex<Weak<Talk>>,
}

impl Asker {
    /// For the mount that tells in `beside`.
    pub fn of(beside: &Path) -> Self {
        Self {
            dir: Some(told::place(beside)),
            now: Mutex::default(),
        }
    }

    /// The connection to the mount; none: there is no mount, or it does not answer.
    pub fn talk(&self) -> Option<Arc<Talk>> {
        let dir = self.dir.as_deref()?;
        let mut now = self.now.lock();
        if let Some(talk) = now.upgrade().filter(|talk| !talk.is_broken()) {
            return Some(talk);
        }
        match Talk::begin(dir) {
            Ok(talk) => {
                let talk = Arc::new(talk);
                *now = Arc::downgrade(&talk);
                Some(talk)
            }
            Err(error) => {
                tracing::debug!(%error, "the mount cannot be asked");
                None
            }
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Talk {
    stream: Mutex<UnixStream>,
    broken: AtomicBool,
    guards: bool,
    /// Locked while the mount keeps files.
    _taking: Option<File>,
}

impl Talk {
    fn begin(dir: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket(&File::open(dir)?))?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
        let talk = Self {
            stream: Mutex::new(stream),
            broken: AtomicBool::new(false),
            guards: false,
            _taking: None,
        };
        if talk.ask(&Question::Hello)? != Reply::Guards.byte() {
            return Ok(talk);
        }
        let lock = lock_of(dir)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared)?;
        Ok(Self {
            guards: true,
            _taking: Some(lock),
            ..talk
        })
    }

    /// Whether the mount keeps files.
    pub fn guards(&self) -> bool {
        self.guards
    }

    /// Whether it has ended: what was kept is not any more.
    pub fn is_broken(&self) -> bool {
        self.broken.load(SeqCst)
    }

    fn send(&self, stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
        if self.is_broken() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        stream
            .write_all(bytes)
            .inspect_err(|_| self.broken.store(true, SeqCst))
    }

    fn ask(&self, question: &Question) -> io::Result<u8> {
        let mut bytes = Vec::new();
        question.write(&mut bytes);
        let mut stream = self.stream.lock();
        self.send(&mut stream, &bytes)?;
        let mut answer = [0];
        // An answer that comes later would be taken for that of another question.
        stream
            .read_exact(&mut answer)
            .inspect_err(|_| self.broken.store(true, SeqCst))?;
        let [answer] = answer;
        Ok(answer)
    }

    fn is_yes(&self, question: &Question) -> bool {
        self.ask(question).is_ok_and(|answer| answer == Reply::Yes.byte())
    }

    /// Keeps users from a file. None: a process has it open or mapped by the mount, or that cannot be said.
    pub fn take(self: &Arc<Self>, ino: Inode) -> Option<Taken> {
        (self.guards && self.is_yes(&Question::Take(ino))).then(|| Taken {
            talk: Arc::clone(self),
            ino,
        })
    }

    /// These lie at their places no more. When this returns, no name that the mount's users know leads to them.
    ///
    /// # Errors
    /// When the mount cannot be told: for a second names may still lead there.
    pub fn tell_went(&self, all: impl IntoIterator<Item = Went>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for went in all {
            Question::Went(went).write(&mut bytes);
            if bytes.len() >= SENT_BYTES {
                self.send(&mut self.stream.lock(), &bytes)?;
                bytes.clear();
            }
        }
        self.send(&mut self.stream.lock(), &bytes)?;
        self.ask(&Question::Hello).map(drop)
    }
}

/// A file that the mount keeps users from, until this is dropped.
#[derive(Debug)]
pub struct Taken {
    talk: Arc<Talk>,
    ino: Inode,
}

impl Taken {
    /// Whether no process has come for it since.
    pub fn is_whole(&self) -> bool {
        self.talk.is_yes(&Question::Look(self.ino))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut bytes = Vec::new();
        Question::Leave(self.ino).write(&mut bytes);
        // Where that fails, the end of the connection says the same.
        let _ = self.talk.send(&mut self.talk.stream.lock(), &bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(stream: UnixStream) {
        let mut reader = &stream;
        let mut taken = std::collections::BTreeSet::new();
        while let Some(question) = Question::read(&mut reader).unwrap() {
            let reply = match question {
                Question::Hello => Reply::Guards,
                Question::Take(7) => Reply::No,
                Question::Take(ino) => {
                    taken.insert(ino);
                    Reply::Yes
                }
                Question::Look(ino) if taken.contains(&ino) => Reply::Yes,
                Question::Look(_) => Reply::No,
                Question::Leave(ino) => {
                    taken.remove(&ino);
                    continue;
                }
                Question::Went(_) => continue,
            };
            (&stream).write_all(&[reply.byte()]).unwrap();
        }
    }

    #[test]
    fn each_question_is_read_as_it_was_written_and_other_bytes_are_an_error() {
        let went = |length: usize| {
            Question::Went(Went {
                ino: 5,
                dir: 9,
                name: vec![b'n'; length],
            })
        };
        let all = [
            Question::Hello,
            Question::Take(1),
            Question::Look(2),
            Question::Leave(u64::MAX),
            went(0),
            went(NAME_BYTES_MAX),
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|question| question.write(&mut bytes));
        let mut left = bytes.as_slice();
        for question in &all {
            assert_eq!(Question::read(&mut left).unwrap().as_ref(), Some(question));
        }
        assert_eq!(Question::read(&mut left).unwrap(), None);
        for wrong in [[9u32, 0], [TAKE, 256], [0, 0]] {
            let mut bytes: Vec<u8> = wrong.into_iter().flat_map(u32::to_ne_bytes).collect();
            bytes.resize(HEAD_BYTES + 300, 0);
            assert!(Question::read(&mut bytes.as_slice()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_a_mount_keeps_is_kept_until_it_is_left_or_the_mount_ends() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = told::place(tmp.path());
        purge_sys::private::dir(&dir).unwrap();
        let asker = Asker::of(tmp.path());
        assert!(asker.talk().is_none(), "there is no mount");
        let is_free = || wait_for_earlier(&dir, Duration::ZERO).unwrap();
        assert!(is_free());
        let listener = listen(&dir).unwrap();
        let mount = std::thread::spawn(move || answer(listener.accept().unwrap().0));
        let talk = asker.talk().unwrap();
        assert!(talk.guards() && Arc::ptr_eq(&talk, &asker.talk().unwrap()));
        assert!(talk.take(7).is_none(), "it is open");
        let taken = talk.take(8).unwrap();
        assert!(taken.is_whole());
        // Another mount waits until it is left.
        assert!(!is_free());
        drop(taken);
        assert!(!talk.is_yes(&Question::Look(8)));
        let taken = talk.take(9).unwrap();
        talk.stream.lock().shutdown(std::net::Shutdown::Write).unwrap();
        mount.join().unwrap();
        assert!(!taken.is_whole() && talk.is_broken());
        drop((taken, talk));
        assert!(is_free());
    }
}
