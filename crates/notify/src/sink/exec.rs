//! A program that gets the notice as JSON on its standard input. It has taken it when it ends with 0.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::{Letter, Receipt, SendError};
use crate::settings::Exec;
use purge_sys::descriptor::keep_standard_only;
use purge_sys::trusted;

/// So much of what a failing program says is told on.
const WORDS_BYTES_MAX: u64 = 2000;

/// And so long is waited for it, once the program has ended.
const WORDS_WITHIN: Duration = Duration::from_millis(500);

/// A program.
#[derive(Debug)]
pub struct Program {
    config: Exec,
}

impl Program {
    pub fn new(config: Exec) -> Self {
        Self { config }
    }

    pub async fn send(&self, letter: &Letter, receipt: &Receipt) -> Result<(), SendError> {
        let Some((program, arguments)) = self.config.command.split_first() else {
            return Err(SendError::Never("there is no program".into()));
        };
        // It may have been exchanged since the configuration was read.
        if let Err(e) = trusted::file(Path::new(program)) {
            return Err(SendError::Down(format!(
                "cannot start the program: {}",
                io::Error::from(e)
            )));
        }
        let limit = Duration::from_secs(self.config.timeout);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("PURGE_NOTICE_ID", &letter.notice.notice_id)
            .env("PURGE_EVENT", letter.kind())
            .env("PURGE_TO", letter.notice.to.name())
            .env("PURGE_SUBJECT", &letter.words.subject)
            .current_dir("/")
            // A group of its own: what it has started ends with it, if it takes too long.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        keep_standard_only(command.as_std_mut());
        match tokio::time::timeout(limit, run(command, letter.text(), receipt)).await {
            Ok(done) => done,
            Err(_) => Err(SendError::Refused(format!(
                "{program} did not end within {} s and was killed",
                limit.as_secs()
            ))),
        }
    }
}

/// The processes of the program; killed with it where it did not end by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// The program has ended: what it left in the background goes on.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The program itself has not been waited for, so the number is still its own.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn run(mut command: Command, text: String, receipt: &Receipt) -> Result<(), SendError> {
    let failed = |doing: &str, e: io::Error| SendError::Down(format!("cannot {doing}: {e}"));
    let mut child = command.spawn().map_err(|e| failed("start the program", e))?;
    let group = Group::of(&child);
    let mut input = child.stdin.take();
    let feed = async {
        if let Some(mut input) = input.take() {
            // A program that does not read it may still end well.
            let _ = input.write_all(text.as_bytes()).await;
            let _ = input.shutdown().await;
        }
    };
    let mut words = Vec::new();
    let complaints = child.stderr.take();
    let listen = async {
        if let Some(mut complaints) = complaints {
            let mut said = (&mut complaints).take(WORDS_BYTES_MAX);
            let _ = said.read_to_end(&mut words).await;
            // The rest is read, so that it does not wait for a reader.
            let _ = tokio::io::copy(&mut complaints, &mut tokio::io::sink()).await;
        }
    };
    let mut talk = Box::pin(async { tokio::join!(feed, listen) });
    // A child of its own may keep its pipes open: its end is what counts.
    let (status, heard) = tokio::select! {
        biased;
        status = child.wait() => (status, false),
        _ = &mut talk => (child.wait().await, true),
    };
    group.ended();
    if status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        receipt.taken();
    } else if !heard {
        // What it said lies in the pipe.
        let _ = tokio::time::timeout(WORDS_WITHIN, &mut talk).await;
    }
    drop(talk);
    let status = status.map_err(|e| failed("wait for the program", e))?;
    if status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&words);
    Err(SendError::Refused(format!("{status}: {}", words.trim())))
}
