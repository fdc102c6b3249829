//! A program that gets the notice as JSON on its standard input. It has taken it when it ends with 0.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{Letter, Receipt, SendError};
use crate::config::Exec;

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
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        match tokio::time::timeout(limit, run(command, letter.json().to_string(), receipt)).await {
            Ok(done) => done,
            Err(_) => Err(SendError::Refused(format!(
                "{program} did not end within {} s and was killed",
                limit.as_secs()
            ))),
        }
    }
}

async fn run(mut command: Command, text: String, receipt: &Receipt) -> Result<(), SendError> {
    let failed = |doing: &str, e: std::io::Error| SendError::Down(format!("cannot {doing}: {e}"));
    let mut child = command.spawn().map_err(|e| failed("start the program", e))?;
    let mut input = child.stdin.take();
    let feed = async {
        if let Some(mut input) = input.take() {
            // Whoever does not read it may still end well.
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
