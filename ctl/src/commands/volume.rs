//! `purgectl volume`

use std::io::{BufRead, IsTerminal};

use clap::{Args, Subcommand};
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::plural;
use crate::output::{Out, ask};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
pub struct Volume {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give a volume's name to the file system that lies at its path now, after the old one was replaced.
    ///
    /// Rules and holds stay as they are. The index starts from nothing: what the new file system holds expires by the volume's
    /// baseline. The files about the old file system are set aside in the state directory.
    Reset {
        /// The volume.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

impl Volume {
    /// Whether the command can ask for confirmation.
    pub(super) fn check(&self) -> Result<(), CtlError> {
        let Command::Reset { yes, .. } = &self.command;
        if *yes || std::io::stdin().is_terminal() {
            return Ok(());
        }
        let why =
            "cannot ask for confirmation: stdin is not a terminal. Nothing was done; use --yes to go on";
        Err(CtlError::Usage(why.into()))
    }

    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let Command::Reset { name, yes } = &self.command;
        let request = |confirmed| v1::ResetVolumeRequest {
            volume: name.clone(),
            confirmed,
        };
        let would = client.reset_volume(request(false)).await?.into_inner();
        if !yes && !agreed(&would)? {
            return Err(super::declined());
        }
        let done = client.reset_volume(request(true)).await?.into_inner();
        match out.is_table() {
            true => out.line(&format!(
                "Volume {} is reset: the agent opens it again and scans {}. See `purgectl status`.",
                done.volume,
                paths::printable(&done.path)
            ))?,
            false => out.one(&views::volume_reset(&done))?,
        }
        Ok(exit::DONE)
    }
}

fn agreed(would: &v1::ResetVolumeResponse) -> Result<bool, CtlError> {
    let holds = plural(would.holds, "hold", "holds");
    ask(&format!(
        "The file system at {} takes the name {} and is indexed from nothing. Rules and {holds} stay; the files about the old one are kept in {}. \
         Reset? [y/N] ",
        paths::printable(&would.path),
        would.volume,
        would.set_aside
    ))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
