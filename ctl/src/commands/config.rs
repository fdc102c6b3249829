//! `purgectl config`

use clap::{Args, Subcommand};
use purge_proto::v1;
use serde_json::json;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;

/// What a terminal has.
const COLUMNS: usize = 80;
const REMARK: &str = "  # ";

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
        #[arg(value_name = "KEY", default_value = "", hide_default_value = true)]
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
        let (mut any, mut pending) = (false, Vec::new());
        for v in values {
            any = true;
            print(v, out)?;
            if let Some(next) = &v.pending {
                pending.push(format!("  {} = {next}", v.key));
            }
        }
        if !any {
            out.line(&format!("No key begins with {prefix}."))?;
        }
        if !pending.is_empty() {
            out.line("")?;
            out.line("Written, and in force after a restart (systemctl restart purge-agent):")?;
            pending.iter().try_for_each(|line| out.line(line))?;
        }
        Ok(exit::DONE)
    }
}

/// As TOML would have it, with the place as a remark.
fn print(v: &v1::ConfigValue, out: &mut Out) -> Result<(), CtlError> {
    let value = format!("{} = {}", v.key, v.value);
    if value.chars().count() + v.origin.chars().count() < COLUMNS - REMARK.len() {
        return Ok(out.line(&format!("{value}{REMARK}{}", v.origin))?);
    }
    out.line(&value)?;
    Ok(out.line(&format!("  {REMARK}{}", v.origin))?)
}
