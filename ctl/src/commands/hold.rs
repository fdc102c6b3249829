//! `purgectl hold`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, when};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
pub struct Hold {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep a path, or a tree, out of every plan and every apply.
    Add {
        /// A file or directory.
        path: PathBuf,
        /// The reason, for those who find the hold later.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For this long. Without it, the hold stays until it is removed; a hold of an ordinary user ends after the time that the
        /// agent allows such users (self_hold_max).
        #[arg(long = "for", value_name = "DUR", value_parser = super::duration)]
        duration: Option<u64>,
    },
    /// The holds in force.
    List,
    /// Remove a hold.
    Remove {
        /// Which.
        id: String,
    },
}

impl Hold {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        match &self.command {
            Command::Add {
                path,
                reason,
                duration,
            } => {
                let request = v1::AddHoldRequest {
                    path: paths::absolute(path),
                    reason: reason.clone(),
                    for_seconds: *duration,
                };
                let hold = client.add_hold(request).await?.into_inner();
                answer(&hold, &format!("is held {}", until(&hold)), out)?;
            }
            Command::Remove { id } => {
                let hold = client
                    .remove_hold(v1::RemoveHoldRequest { hold_id: id.clone() })
                    .await?
                    .into_inner();
                answer(&hold, "is no longer held", out)?;
            }
            Command::List => list(&all(&mut client).await?, out)?,
        }
        Ok(exit::DONE)
    }
}

async fn all(client: &mut Client) -> Result<Vec<v1::Hold>, CtlError> {
    let (mut holds, mut request) = (Vec::new(), v1::ListHoldsRequest::default());
    loop {
        let page = client.list_holds(request.clone()).await?.into_inner();
        holds.extend(page.holds);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(holds);
        }
    }
}

/// How long a hold lasts.
fn until(hold: &v1::Hold) -> String {
    match hold.expires_at {
        Some(_) => format!("until {}", when(hold.expires_at)),
        None => "until removed".into(),
    }
}

fn answer(hold: &v1::Hold, words: &str, out: &mut Out) -> Result<(), CtlError> {
    match out.is_table() {
        true => out.line(&format!(
            "{} {words} ({}).",
            paths::printable(&hold.path),
            hold.hold_id
        ))?,
        false => out.one(&views::hold(hold))?,
    }
    Ok(())
}

fn list(holds: &[v1::Hold], out: &mut Out) -> Result<(), CtlError> {
    if !out.is_table() {
        out.begin()?;
        holds.iter().try_for_each(|h| out.item(&views::hold(h)))?;
        out.end()?;
        return Ok(());
    }
    if holds.is_empty() {
        out.line("Nothing is held.")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        ("HOLD", Align::Left),
        ("UNTIL", Align::Left),
        ("BY", Align::Left),
        ("REASON", Align::Left),
        ("PATH", Align::Left),
    ]);
    for h in holds {
        let until = match h.expires_at {
            Some(_) => when(h.expires_at),
            None => until(h),
        };
        let by = match h.created_by.as_str() {
            "uid 0" => "root",
            by => by,
        };
        table.row([
            h.hold_id.clone(),
            until,
            by.to_owned(),
            paths::printable(h.reason.as_bytes()),
            paths::printable(&h.path),
        ]);
    }
    table.print(out, 0)?;
    Ok(())
}
