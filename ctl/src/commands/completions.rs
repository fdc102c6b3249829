//! `purgectl completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::error::{CtlError, exit};
use crate::output::Out;

/// Arguments.
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, out: &mut Out) -> Result<u8, CtlError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "purgectl", &mut script);
        out.raw(&script)?;
        Ok(exit::DONE)
    }
}
