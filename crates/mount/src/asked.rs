//! What the agent asks while it takes files (the questions are in [`purge_collect::fuse::asking`]).
//!
//! ```text
//!   agent ──socket──> a thread for each connection ──> Nodes: kept, wanted, went
//!                                  └── names that went ──> a thread that tells the kernel
//! ```
//! The kernel takes the lock of a directory to forget a name in it, and a user who is busy there may hold that for long. So that is told by a thread of
//! its own, and only as a favour: a name that is not forgotten leads to nothing, and the kernel looks once more.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, SyncSender};

use crate::serve::Server;
use purge_collect::fuse::asking::{Question, Reply, Went};

/// There is one agent, and for a moment two.
const CONNECTIONS_MAX: usize = 4;
/// Names that wait to be told to the kernel; what is more expires there within a second.
const NAMES_MAX: usize = 4096;

/// Names that went: of a directory's number.
type Names = (u64, CString);

/// Answers the agent.
#[derive(Debug)]
pub struct Asked {
    server: Arc<Server>,
    /// Each mapping of a file keeps it open here: files can be kept from users.
    guards: bool,
    connections: AtomicUsize,
    /// Of the next connection.
    next: AtomicU64,
    names: SyncSender<Names>,
}

/// Begins to answer the agent.
///
/// # Errors
/// When no thread can be started.
pub fn answer(server: &Arc<Server>, listener: UnixListener, guards: bool) -> std::io::Result<()> {
    let (names, went) = mpsc::sync_channel(NAMES_MAX);
    let asked = Arc::new(Asked {
        server: Arc::clone(server),
        guards,
        connections: AtomicUsize::new(0),
        next: AtomicU64::new(1),
        names,
    });
    let teller = Arc::clone(server);
    // Both end with the process.
    std::thread::Builder::new()
        .name("names".into())
        .spawn(move || tell_names(&teller, &went))?;
    std::thread::Builder::new()
        .name("asked".into())
        .spawn(move || asked.accept(&listener))?;
    Ok(())
}

fn tell_names(server: &Server, went: &Receiver<Names>) {
    while let Ok((dir, name)) = went.recv() {
        // The kernel need not know it.
        let _ = server.device().name_went(dir, &name);
    }
}

impl Asked {
    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            if self.connections.fetch_add(1, SeqCst) >= CONNECTIONS_MAX {
                self.connections.fetch_sub(1, SeqCst);
                continue;
            }
            let asked = Arc::clone(self);
            let by = self.next.fetch_add(1, SeqCst);
            let began = std::thread::Builder::new()
                .name("asked".into())
                .spawn(move || asked.serve(&stream, by));
            if began.is_err() {
                self.connections.fetch_sub(1, SeqCst);
            }
        }
    }

    fn serve(&self, stream: &UnixStream, by: u64) {
        let mut questions = std::io::BufReader::new(stream);
        loop {
            match Question::read(&mut questions) {
                Ok(Some(question)) => {
                    let Some(reply) = self.reply(question, by) else {
                        continue;
                    };
                    if (&mut &*stream).write_all(&[reply.byte()]).is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a question of the agent");
                    break;
                }
            }
        }
        self.server.nodes().taking().leave_all(by);
        self.connections.fetch_sub(1, SeqCst);
    }

    fn reply(&self, question: Question, by: u64) -> Option<Reply> {
        let is = |yes: bool| Some(if yes { Reply::Yes } else { Reply::No });
        match question {
            Question::Hello if self.guards && self.server.nodes().knows_all() => Some(Reply::Guards),
            Question::Hello => Some(Reply::Tells),
            Question::Take(ino) => is(self.guards && self.server.nodes().keep(ino, by)),
            Question::Look(ino) => is(self.server.nodes().taking().is_whole(ino, by)),
            Question::Leave(ino) => {
                self.server.nodes().taking().leave(ino, by);
                None
            }
            Question::Went(went) => {
                self.went(went);
                None
            }
        }
    }

    fn went(&self, Went { ino, dir, name }: Went) {
        self.server.nodes().go(ino);
        if dir == 0 {
            return;
        }
        if let Ok(name) = CString::new(name) {
            // Full: the kernel forgets it by itself, soon.
            let _ = self.names.try_send((self.server.number_of(dir), name));
        }
    }
}
