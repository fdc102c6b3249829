//! `purgectl config`

use clap::{Args, Subcommand};
use purge_proto::shown::Shown;
use purge_proto::v1;
use serde_json::json;
use unicode_width::UnicodeWidthStr;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;

/// Values that are longer do not push the remarks of all others to the right.
const MARGIN_MAX: usize = 40;
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
        let lengths = values.clone().map(|v| assignment(v).width());
        let margin = lengths.filter(|length| *length <= MARGIN_MAX).max().unwrap_or(0);
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
            print(v, margin, out)?;
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

/// As TOML would have it.
fn assignment(v: &v1::ConfigValue) -> String {
    format!("{} = {}", v.key, v.value)
}

/// With the place as a remark, in one column for all; a value that reaches into it has its place on the next line where both do not fit.
fn print(v: &v1::ConfigValue, margin: usize, out: &mut Out) -> Result<(), CtlError> {
    let text = Shown::from(assignment(v)).into_string();
    let blanks = " ".repeat(margin.saturating_sub(text.width()));
    let remark = format!("{REMARK}{}", v.origin);
    let has_room = |width: usize| text.width().max(margin).saturating_add(remark.width()) <= width;
    if text.width() <= margin || out.width.is_none_or(has_room) {
        return Ok(out.line(&format!("{text}{blanks}{remark}"))?);
    }
    out.line(&text)?;
    Ok(out.line(&format!("{}{remark}", " ".repeat(margin)))?)
}
