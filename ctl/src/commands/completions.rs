//! `purgectl completions`

use clap::Args;
use clap_complete::Shell;

use crate::completion;
use crate::error::{CtlError, exit};
use crate::output::Out;

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "The script asks purgectl for each word: also plans, runs, holds, rules, quotas and volumes are completed.\n\n\
                  Examples:\n  source <(purgectl completions bash)\n  purgectl completions fish > ~/.config/fish/completions/purgectl.fish"
)]
pub struct Completions {
    /// For which shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, out: &mut Out) -> Result<u8, CtlError> {
        let shell = self.shell.to_string();
        match completion::script(&shell)? {
            Some(script) => out.raw(&script)?,
            None => return Err(CtlError::Usage(format!("there are no completions for {shell}"))),
        }
        Ok(exit::DONE)
    }
}
