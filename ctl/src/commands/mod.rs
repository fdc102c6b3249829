//! The commands: one file each.

mod apply;
mod archive;
mod cancel;
mod completions;
mod config;
mod doctor;
mod explain;
mod find;
mod forecast;
mod hold;
mod mine;
mod notices;
pub mod plan;
mod plans;
mod quota;
mod rescan;
mod restore;
mod resume;
mod runs;
mod schedule;
mod show;
mod status;
mod summary;
mod trash;
mod usage;
mod volume;

use clap::Subcommand;
use purge_proto::units::parse_duration;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::CtlError;
use crate::output::Out;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How the agent and its volumes are.
    Status(status::Status),
    /// Evaluate rules from the index and save the plan; nothing is removed.
    Plan(plan::Plan),
    /// The candidates of a saved plan.
    Show(show::Show),
    /// Saved plans, newest first.
    Plans(plans::Plans),
    /// Remove what a saved plan lists, and nothing else.
    Apply(apply::Apply),
    /// Past and current runs, newest first.
    Runs(runs::Runs),
    /// One run in full.
    Run(runs::Run),
    /// Stop a run after the files that it is processing.
    Cancel(cancel::Cancel),
    /// Put back what runs moved to the trash.
    Restore(restore::Restore),
    /// What lies in the trash, the newest run first.
    Trash(trash::Trash),
    /// What rules archived: list it, compare it, and get files back.
    Archive(archive::Archive),
    /// Let a watermark go on that has stopped because what it deleted did not come free.
    Resume(resume::Resume),
    /// When a path was last used, what every rule says of it, and where it is if a run took it.
    Explain(explain::Explain),
    /// Entries of the index that match.
    Find(find::Find),
    /// Who uses how much, and how old it is.
    Usage(usage::Usage),
    /// What will expire when, and which limits will be reached.
    Forecast(forecast::Forecast),
    /// Who uses how much of each quota, and since when it is over.
    Quota(quota::Quota),
    /// What the agent does by itself, and when it does so next.
    Schedule(schedule::Schedule),
    /// Your own files that will expire, by directory.
    Mine(mine::Mine),
    /// Keep paths out of every plan and every apply.
    Hold(hold::Hold),
    /// Replace the file system of a volume, and keep its name, rules and holds.
    Volume(volume::Volume),
    /// Reconcile the index with the file system.
    Rescan(rescan::Rescan),
    /// The configuration in force.
    Config(config::Config),
    /// Probe what this host gives, each with a verdict and the cure.
    Doctor(doctor::Doctor),
    /// What people were told of: sent, waiting, failed.
    Notices(notices::Notices),
    /// Print shell completions.
    Completions(completions::Completions),
}

impl Command {
    /// Does what needs no agent; none for every other command.
    pub fn offline(&self, out: &mut Out) -> Option<Result<u8, CtlError>> {
        match self {
            Self::Completions(c) => Some(c.run(out)),
            Self::Apply(c) => c.check().err().map(Err),
            Self::Volume(c) => c.check().err().map(Err),
            _ => None,
        }
    }

    /// Asks the agent, prints, and returns the exit code.
    pub async fn run(&self, client: Client, out: &mut Out) -> Result<u8, CtlError> {
        match self {
            Self::Status(c) => c.run(client, out).await,
            Self::Plan(c) => c.run(client, out).await,
            Self::Show(c) => c.run(client, out).await,
            Self::Plans(c) => c.run(client, out).await,
            Self::Apply(c) => c.run(client, out).await,
            Self::Runs(c) => c.run(client, out).await,
            Self::Run(c) => c.run(client, out).await,
            Self::Cancel(c) => c.run(client, out).await,
            Self::Restore(c) => c.run(client, out).await,
            Self::Trash(c) => c.run(client, out).await,
            Self::Archive(c) => c.run(client, out).await,
            Self::Resume(c) => c.run(client, out).await,
            Self::Explain(c) => c.run(client, out).await,
            Self::Find(c) => c.run(client, out).await,
            Self::Usage(c) => c.run(client, out).await,
            Self::Forecast(c) => c.run(client, out).await,
            Self::Quota(c) => c.run(client, out).await,
            Self::Schedule(c) => c.run(client, out).await,
            Self::Mine(c) => c.run(client, out).await,
            Self::Hold(c) => c.run(client, out).await,
            Self::Volume(c) => c.run(client, out).await,
            Self::Rescan(c) => c.run(client, out).await,
            Self::Config(c) => c.run(client, out).await,
            Self::Doctor(c) => c.run(client, out).await,
            Self::Notices(c) => c.run(client, out).await,
            Self::Completions(c) => c.run(out),
        }
    }
}

fn duration(text: &str) -> Result<u64, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

fn size(text: &str) -> Result<u64, String> {
    purge_proto::units::parse_size(text).map_err(|e| e.to_string())
}

/// The answer to a question was no: what the command is there for was not done, so it does not end with 0.
fn declined() -> CtlError {
    CtlError::Run("Nothing was done: the answer was not yes.".into())
}

/// Who asked. Root is called so, and what asked by itself by its kind: the rules' column names it.
fn asker(by: &str) -> String {
    match by.split_once(' ') {
        Some(("uid", "0")) => "root".into(),
        Some((kind @ ("quota" | "watermark"), _)) => kind.into(),
        _ => by.into(),
    }
}

/// What a collector cannot see, in words.
fn unseen(blind: &[v1::BlindSpot], reads: &str) -> String {
    let words: Vec<&str> = blind.iter().map(|spot| spot.words.as_str()).collect();
    let words = words.join(", ");
    match reads {
        "at_scans" => format!("{words}. Reads are known only as access times at scans"),
        "unknown" => format!("{words}. READS ARE NOT KNOWN: the last use is the last change"),
        _ => words,
    }
}

/// The age of a moment now.
fn age_of(at: Option<prost_types::Timestamp>) -> u64 {
    let now = chrono::Utc::now().timestamp();
    at.map_or(0, |t| u64::try_from(now.saturating_sub(t.seconds)).unwrap_or(0))
}

/// Rows asked for at once from a paged list.
const PAGE_ROWS: u32 = 100;
