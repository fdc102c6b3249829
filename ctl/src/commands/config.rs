//! `purgectl config`

use clap::{Args, Subcommand};
use purge_proto::v1;
use serde_json::json;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table};

/// Arguments.
#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every value in force, and where it comes from.
    #[command(
        after_help = "Examples:\n  purgectl config show\n  purgectl config show rule.scratch-28d\n\n\
                            To check a file before it is in force: purge-agent check --config FILE"
    )]
    Show {
        /// Only keys that begin with this.
        #[arg(value_name = "KEY", default_value = "")]
        prefix: String,
    },
}

impl Config {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let Command::Show { prefix } = &self.command;
        let report = client.get_config(v1::GetConfigRequest {}).await?.into_inner();
        let values = report
            .values
            .iter()
            .filter(|v| v.key.starts_with(prefix.as_str()));
        if !out.is_table() {
            out.begin()?;
            for v in values {
                out.item(&json!({
                    "key": v.key,
                    "value": v.value,
                    "origin": v.origin,
                    "pending": v.pending,
                }))?;
            }
            out.end()?;
            return Ok(exit::DONE);
        }
        let mut table = Table::new(&[
            ("KEY", Align::Left),
            ("VALUE", Align::Left),
            ("FROM", Align::Left),
        ]);
        let mut pending = Vec::new();
        for v in values {
            table.row([v.key.clone(), v.value.clone(), v.origin.clone()]);
            if let Some(next) = &v.pending {
                pending.push(format!("  {} = {next}", v.key));
            }
        }
        match table.is_empty() {
            true => out.line(&format!("No key begins with {prefix}."))?,
            false => table.print(out, 0)?,
        }
        if !pending.is_empty() {
            out.line("\nWritten, and in force after a restart (systemctl restart purge-agent):")?;
            pending.iter().try_for_each(|line| out.line(line))?;
        }
        Ok(exit::DONE)
    }
}
