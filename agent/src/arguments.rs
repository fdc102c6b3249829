//! The command line of `purge-agent`: here, and not in the program, so that its man page is made from it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use purge_proto::units::parse_duration;

use crate::mounting::Mounting;
use crate::once::Once;
use purge_config::{DEFAULT_FILE, DEFAULT_STATE_DIR};

/// Records when files were last used and purges those that are no longer used.
///
/// Nothing is deleted that anyone used inside its TTL, and doubt counts as use.
#[derive(Debug, Parser)]
#[command(
    name = "purge-agent",
    version,
    after_help = "Talk to a running agent with purgectl."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch volumes and serve clients, until SIGTERM.
    Run(Run),
    /// Validate a configuration; print every fault with its place.
    Check {
        /// The configuration file.
        #[arg(long, default_value = DEFAULT_FILE)]
        config: PathBuf,
    },
    /// Have a running agent read its configuration again, and wait until that is in force; what `systemctl reload` runs.
    Reload {
        /// The configuration file.
        #[arg(long, default_value = DEFAULT_FILE)]
        config: PathBuf,
        /// The agent's process.
        #[arg(long)]
        pid: i32,
    },
    /// Scan a directory, plan, apply and end: a job in a container.
    Once(Once),
    /// Mount a volume with collector = "fuse" where its users see it, until SIGTERM.
    Mount(Mounting),
    /// The main job in one command, on a small tree made for it, or on a directory (which it leaves as it is).
    Demo {
        /// Index this directory, show usage and a plan, delete nothing.
        #[arg(long)]
        volume: Option<PathBuf>,
        /// Not used for this long counts as expired.
        #[arg(long, value_parser = duration)]
        ttl: Option<u64>,
    },
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The configuration file.
    #[arg(long, conflicts_with = "volume", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
    /// Watch this one directory instead; no configuration file is read.
    #[arg(long)]
    pub volume: Option<PathBuf>,
    /// One rule over the whole volume: what was not used for this long.
    #[arg(long, requires = "volume", value_parser = duration)]
    pub ttl: Option<u64>,
    /// Where the index lives.
    #[arg(long, requires = "volume", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// Where clients come in, as unix:PATH.
    #[arg(long, requires = "volume", default_value = "unix:/run/purge-agent/agent.sock")]
    pub listen: String,
    /// Do without the parent process that keeps the event queues over a crash where systemd does not.
    ///
    /// PURGE_AGENT_SINGLE_PROCESS=1 in the environment does the same.
    #[arg(long)]
    pub single_process: bool,
}

fn duration(text: &str) -> Result<u64, String> {
    parse_duration(text).map_err(|e| e.to_string())
}
