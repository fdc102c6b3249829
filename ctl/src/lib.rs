//! `purgectl`: speaks gRPC with a running purge-agent, and only that; it never touches the index or the volume.
//!
//! - [`commands`] one file a command: its arguments, its call, what it prints
//! - [`output`]   tables, JSON, CSV, progress
//! - [`views`]    the contract's messages as JSON
//! - [`completion`] of words in shells
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
pub mod completion;
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

/// Where the agent listens unless its configuration says otherwise.
const DEFAULT_ENDPOINT: &str = "unix:///run/purge-agent/agent.sock";

/// Headings in `--help` of what every command takes; they come after the command's own options.
const OUTPUT: &str = "Output";
const CONNECTION: &str = "Connection";

/// Ask purge-agent which files are no longer used, and remove exactly those.
#[derive(Debug, Parser)]
#[command(
    name = "purgectl",
    version,
    after_help = "Examples:\n  purgectl status\n  purgectl plan --rule scratch-28d\n  purgectl show PLAN --sort size --limit 20\n  \
                  purgectl apply PLAN\n  purgectl explain /export/scratch/alice/result.dat\n\nExit codes: 0 done, 1 error or \
                  not agreed to, 2 usage, 3 refused by a safety limit or a stale plan,\n4 the agent cannot be reached, 5 partly done, 130 \
                  interrupted; with plan --detailed-exitcode:\n0 nothing to purge, 2 something to purge, 1 also for a wrong command line"
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
        hide_short_help = true,
        env = "PURGECTL_ENDPOINT",
        value_name = "URL",
        help_heading = CONNECTION,
        default_value = DEFAULT_ENDPOINT
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
        .and_then(|m| Ok((Cli::from_arg_matches(&m)?, name_of(&m))));
    let (cli, name) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            // Help and version are asked for; everything else is a usage error, which repeats what was given.
            if e.use_stderr() {
                output::complain_of_arguments(Cli::command(), &arguments, &e);
                return usage_code(&arguments);
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
    let done = done.and_then(|code| flushed.map(|()| code));
    match done.map_err(|e| e.of_command(&name)) {
        Ok(code) => code,
        // The reader of the output has closed it: it has read enough.
        Err(CtlError::Pipe) => exit::DONE,
        Err(e) => {
            output::complain(&format!("purgectl: {e}"));
            match e {
                CtlError::Usage(_) => usage_code(&arguments),
                e => e.exit_code(),
            }
        }
    }
}

/// The command that was given, with the one below it: `hold add`.
fn name_of(matches: &clap::ArgMatches) -> String {
    let mut names = Vec::new();
    let mut at = matches;
    while let Some((name, below)) = at.subcommand() {
        names.push(name);
        at = below;
    }
    names.join(" ")
}

/// What a wrong command line ends with. A script that asked for the detailed exit code reads 2 as "there is something to purge".
fn usage_code(arguments: &[OsString]) -> u8 {
    let options = arguments.iter().take_while(|a| *a != "--");
    let mut options = options.map(|a| a.to_string_lossy());
    match options.any(|a| a.starts_with("--detailed-exitcode")) {
        true => exit::ERROR,
        false => exit::USAGE,
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
            // The connection is told of in the long form alone.
            let ends_well = headings.ends_with(&["Output:", "Connection:"]);
            assert!(
                ends_well || !help.contains("--endpoint"),
                "{headings:?} in\n{help}"
            );
            let own = help.split("Output:").next().unwrap_or_default();
            assert!(!own.contains("--ca ") && !own.contains("--endpoint"), "{help}");
        }
    }

    #[test]
    fn the_short_help_of_a_command_fits_a_screen() {
        let mut command = Cli::command().term_width(80);
        command.build();
        fn short(command: &mut clap::Command) -> Vec<(String, String)> {
            let name = command.get_name().to_owned();
            let help = command.render_help().to_string();
            let below = command.get_subcommands_mut().flat_map(short).collect::<Vec<_>>();
            std::iter::once((name, help)).chain(below).collect()
        }
        for (name, help) in short(&mut command) {
            let is_list = name == "purgectl" || name == "help";
            assert!(
                is_list || help.lines().count() <= 34,
                "{name}: {} lines\n{help}",
                help.lines().count()
            );
            let has_connection = help
                .lines()
                .any(|line| line.trim_start().starts_with("--endpoint"));
            assert!(!has_connection && !help.contains("--cert"), "{help}");
        }
        let plan = command
            .find_subcommand_mut("plan")
            .map(|plan| plan.render_help().to_string());
        assert!(
            plan.as_deref().is_some_and(|help| help.lines().count() <= 24),
            "{plan:?}"
        );
    }
}
