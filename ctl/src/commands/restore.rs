//! `purgectl restore`

use std::path::PathBuf;

use clap::Args;
use purge_proto::units::format_size;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::plural;
use crate::{paths, views};

/// Failures that are named.
const FAILURES_SHOWN: usize = 10;

/// Arguments.
#[derive(Debug, Args)]
#[command(after_help = "Nothing is put over anything that is there now.\n\n\
    Examples:\n  purgectl restore RUN\n  purgectl restore RUN /export/scratch/alice/results\n  \
    purgectl restore RUN --to /export/scratch/restored")]
pub struct Restore {
    /// The run that moved it to the trash; `purgectl runs` names them.
    run: String,
    /// Only what lies at or below these paths.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Put everything below this directory of the same volume, not where it came from.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

impl Restore {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::RestoreRequest {
            run_id: self.run.clone(),
            paths: self.paths.iter().map(|path| paths::absolute(path)).collect(),
            to: self.to.as_deref().map(paths::absolute).unwrap_or_default(),
        };
        let report = client.restore(request).await?.into_inner();
        match out.is_table() {
            true => print(&report, out)?,
            false => out.one(&views::restore(&report))?,
        }
        Ok(if report.failed_total > 0 {
            exit::PARTIAL
        } else {
            exit::DONE
        })
    }
}

fn print(report: &v1::RestoreReport, out: &mut Out) -> Result<(), CtlError> {
    let t = report.restored.unwrap_or_default();
    out.line(&format!(
        "Restored {}{} and {} ({}) of run {}.",
        plural(t.files, "file", "files"),
        match t.links {
            0 => String::new(),
            n => format!(", {}", plural(n, "symbolic link", "symbolic links")),
        },
        plural(t.directories, "directory", "directories"),
        format_size(t.bytes),
        report.run_id
    ))?;
    if report.failed_total > 0 {
        out.line(&format!(
            "{} in the trash:",
            plural(report.failed_total, "entry stays", "entries stay")
        ))?;
        for f in report.failed.iter().take(FAILURES_SHOWN) {
            out.line(&format!("  {}: {}", paths::printable(&f.path), f.error))?;
        }
        if report.failed_total > FAILURES_SHOWN as u64 {
            out.line("  ... (all of them: --output json)")?;
        }
    }
    Ok(())
}
