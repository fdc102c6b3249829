//! Long output for a person goes through a pager: `$PAGER`, else `less` where there is one.

use std::io::{self, IsTerminal};
use std::process::{Child, Command, Stdio};

use super::Out;

/// `less` ends at once where all fits on the screen.
const DEFAULT: &str = "if command -v less >/dev/null 2>&1; then exec less -FX; else exec cat; fi";

/// A pager that is being written to.
pub struct Pager(Child);

impl Pager {
    /// Starts one, and what is printed into it. None: the output goes to no terminal, or no pager can be started.
    pub fn start(out: &Out) -> Option<(Self, Out)> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let pager = std::env::var("PAGER")
            .ok()
            .filter(|pager| !pager.trim().is_empty());
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(pager.as_deref().unwrap_or(DEFAULT))
            .stdin(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let into = child.stdin.take()?;
        let into = Out {
            width: out.width,
            ..Out::into(Box::new(into), out.format, out.quiet)
        };
        Some((Self(child), into))
    }

    /// Waits until the person has seen enough.
    ///
    /// # Errors
    /// What `wait(2)` says.
    pub fn wait(mut self) -> io::Result<()> {
        self.0.wait().map(drop)
    }
}
