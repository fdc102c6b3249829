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

/// Ask purge-agent what nobody uses any more, and remove exactly that.
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
    /// Where the agent listens.
    #[arg(
        long,
        global = true,
        env = "PURGECTL_ENDPOINT",
        value_name = "URL",
        default_value = "unix:///run/purge-agent/agent.sock"
    )]
    pub endpoint: String,
    #[command(flatten)]
    /// Certificates, for an https endpoint.
    pub tls: tls::Tls,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// No progress and no remarks.
    #[arg(long, short, global = true)]
    pub quiet: bool,
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
        // Whoever read the output has enough.
        Err(CtlError::Pipe) => exit::DONE,
        Err(e) => {
            output::complain(&format!("purgectl: {e}"));
            e.exit_code()
        }
    }
}
