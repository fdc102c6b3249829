//! What became of a reload, for the process that asked for it: a signal has no answer of its own.
//!
//! `STATE_DIR/reloaded` is one line, `PID NUMBER good` or `PID NUMBER refused`: which process has read its configuration how often, and
//! what became of the last time. It is replaced as a whole, and says nothing that a crash may not take away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use rustix::process::{Pid, Signal, kill_process};

/// How often a process that waits looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What became of one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    pid: i32,
    number: u64,
    good: bool,
}

impl Answer {
    fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            good: words.next()? == "good",
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.good { "good" } else { "refused" };
        writeln!(f, "{} {} {said}", self.pid, self.number)
    }
}

fn file_in(state_dir: &Path) -> PathBuf {
    state_dir.join("reloaded")
}

/// The agent's side.
#[derive(Debug)]
pub struct Answers {
    file: PathBuf,
    last: Answer,
}

impl Answers {
    /// The agent has read its configuration for the first time.
    pub fn begin(state_dir: &Path) -> Self {
        let answers = Self {
            file: file_in(state_dir),
            last: Answer {
                pid: purge_base::handover::visible_pid(),
                number: 0,
                good: true,
            },
        };
        answers.write();
        answers
    }

    /// It has done so again.
    pub fn tell(&mut self, good: bool) {
        self.last.number = self.last.number.saturating_add(1);
        self.last.good = good;
        self.write();
    }

    fn write(&self) {
        let new = self.file.with_extension("new");
        let written = purge_sys::private::write(&new, self.last.to_string().as_bytes())
            .and_then(|()| fs::rename(&new, &self.file));
        if let Err(error) = written {
            tracing::warn!(%error, file = %purge_sys::private::shown(&self.file).display(), "the process that asked for the reload is not told its result");
        }
    }
}

/// Why a reload was not seen to succeed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no such process, or it is not the caller's.
    #[error(
        "process {0} cannot be asked to reload: {1}; `systemctl status purge-agent` names the agent's process"
    )]
    Signal(i32, io::Error),
    /// The configuration had a fault by the time that the agent read it.
    #[error("the agent has refused the configuration and goes on with the one before; its log says why")]
    Refused,
    /// It did not answer.
    #[error("the agent (process {0}) has not read its configuration again within {wait} s: see its log", wait = .1.as_secs())]
    Silent(i32, Duration),
    /// It keeps its state in another directory.
    #[error("{} is not of process {pid}: either that is not the agent, or state_dir has changed, which needs a restart of the agent", file.display())]
    Elsewhere {
        /// What would hold its answer.
        file: PathBuf,
        /// The process.
        pid: i32,
    },
}

/// Has the process `pid`, an agent with its state in `state_dir`, read its configuration again, and waits until it is in force.
///
/// # Errors
/// When it is not, or not within this time.
pub fn ask(state_dir: &Path, pid: i32, within: Duration) -> Result<(), AskError> {
    let file = file_in(state_dir);
    let of_process = |file| Answer::read(file).filter(|answer| answer.pid == pid);
    let Some(before) = of_process(&file) else {
        return Err(AskError::Elsewhere { file, pid });
    };
    let sent = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH);
    sent.and_then(|process| kill_process(process, Signal::HUP))
        .map_err(|e| AskError::Signal(pid, e.into()))?;
    let began = Instant::now();
    while began.elapsed() < within {
        match of_process(&file).filter(|now| now.number > before.number) {
            Some(Answer { good: true, .. }) => return Ok(()),
            Some(_) => return Err(AskError::Refused),
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
    Err(AskError::Silent(pid, within))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut answers = Answers::begin(dir.path());
        for good in [false, true] {
            answers.tell(good);
            assert_eq!(Answer::read(&file_in(dir.path())), Some(answers.last));
        }
        assert_eq!((answers.last.number, answers.last.good), (2, true));
    }

    #[test]
    fn only_the_agent_whose_state_it_is_gets_a_signal() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id().cast_signed();
        let ask_own = || ask(dir.path(), own, Duration::ZERO).unwrap_err();
        assert!(matches!(ask_own(), AskError::Elsewhere { .. }));
        fs::write(file_in(dir.path()), "1 7 good\n").unwrap();
        assert!(matches!(ask_own(), AskError::Elsewhere { .. }));
    }
}
