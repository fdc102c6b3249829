//! `purgectl`: speaks gRPC with a running purge-agent, and only that; it never touches the index or the volume.
//!
//! - [`commands`] one file a command: its arguments, its call, what it prints
//! - [`output`]   tables, JSON, CSV, progress
//! - [`views`]    the contract's messages as JSON
//! - [`connect`]  reaching the agent
//! - [`tls`]      certificates
//! - [`error`]    what went wrong, and the exit code
//! - [`paths`]    paths from and for people

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is printed passes through `output`"
)]

pub mod commands;
pub mod connect;
pub mod error;
pub mod output;
pub mod paths;
pub mod tls;
pub mod views;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser};

use commands::Command;
use connect::{Client, Connect};
use error::{CtlError, exit};
use output::{Format, Out};

/// Headings in `--help` of what every command takes; they come after the command's own options.
const OUTPUT: &str = "Output";
const CONNECTION: &str = "Connection";

/// Ask purge-agent which files are no longer used, and remove exactly those.
#[derive(Debug, Parser)]
#[command(
    name = "purgectl",
    version,
    after_help = "Examples:\n  purgectl status\n  purgectl plan --rule scratch-28d\n  purgectl show PLAN --sort size --limit 20\n  \
                  purgectl apply PLAN\n  purgectl explain /export/scratch/alice/result.dat\n\nExit codes: 0 done, 1 error, \
                  2 usage, 3 refused by a safety limit or a stale plan,\n4 the agent cannot be reached, 5 partly done, 130 \
                  interrupted"
)]
pub struct Cli {
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, help_heading = OUTPUT)]
    pub output: Format,
    /// No progress and no remarks.
    #[arg(long, short, global = true, help_heading = OUTPUT)]
    pub quiet: bool,
    /// Where the agent listens.
    #[arg(
        long,
        global = true,
        env = "PURGECTL_ENDPOINT",
        value_name = "URL",
        help_heading = CONNECTION,
        default_value = "unix:///run/purge-agent/agent.sock"
    )]
    pub endpoint: String,
    #[command(flatten)]
    /// Certificates, for an https endpoint.
    pub tls: tls::Tls,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Runs one command line (the program's name first) and returns the exit code. Prints to stdout and stderr.
pub async fn run(arguments: Vec<OsString>) -> u8 {
    let parsed = Cli::command()
        .try_get_matches_from(&arguments)
        .and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are asked for; everything else is a usage error, which repeats what was given.
            if e.use_stderr() {
                output::complain_of_arguments(Cli::command(), &arguments, &e);
                return exit::USAGE;
            }
            let _ = e.print();
            return exit::DONE;
        }
    };
    let mut out = Out::new(cli.output, cli.quiet);
    let done = match cli.command.offline(&mut out) {
        Some(done) => done,
        None => match <Client as Connect>::connect(&cli.endpoint, &cli.tls).await {
            Ok(client) => cli.command.run(client, &mut out).await,
            Err(e) => Err(e),
        },
    };
    let flushed = out.flush().map_err(CtlError::from);
    match done.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        // The reader of the output has closed it: it has read enough.
        Err(CtlError::Pipe) => exit::DONE,
        Err(e) => {
            output::complain(&format!("purgectl: {e}"));
            e.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The help of a command and of all commands below it, whole and in short.
    fn helps(command: &mut clap::Command) -> Vec<String> {
        let mut all = vec![
            command.render_help().to_string(),
            command.render_long_help().to_string(),
        ];
        command
            .get_subcommands_mut()
            .for_each(|below| all.extend(helps(below)));
        all
    }

    #[test]
    fn what_every_command_takes_comes_last_in_its_help() {
        let mut command = Cli::command();
        command.build();
        let helps = helps(&mut command);
        assert!(helps.len() > 40);
        for help in helps {
            assert!(
                !help.contains("[default: \"\"]") && !help.contains("[default: ]"),
                "{help}"
            );
            let headings = help.lines().filter(|l| l.ends_with(':') && !l.contains(' '));
            let headings: Vec<&str> = headings.filter(|l| *l != "Examples:").collect();
            let ends_well = headings.ends_with(&["Output:", "Connection:"]);
            assert!(
                ends_well || !help.contains("--endpoint"),
                "{headings:?} in\n{help}"
            );
            let own = help.split("Output:").next().unwrap_or_default();
            assert!(!own.contains("--ca ") && !own.contains("--endpoint"), "{help}");
        }
    }
}
