//! `purgectl restore`

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use purge_proto::units::format_size;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::{count, plural};
use crate::output::{Out, amount};
use crate::{paths, views};

/// Failures that are named.
const FAILURES_SHOWN: usize = 10;
/// Things that would go back, and are named.
const ITEMS_SHOWN: usize = 100;

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is put over anything that is there now. A word with a slash is a path, another is a run.\n\n\
    Examples:\n  purgectl restore /export/scratch/alice/results\n  purgectl restore RUN\n  \
    purgectl restore RUN /export/scratch/alice/results --dry-run\n  \
    purgectl restore RUN --to /export/scratch/restored"
)]
pub struct Restore {
    /// What lies at or below these paths in the trash; after a run, only of that run. Without a run, the newest that there is of each path.
    #[arg(value_name = "RUN|PATH", required = true, num_args = 1..)]
    what: Vec<PathBuf>,
    /// Put everything below this directory of the same volume, not where it came from.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Say what would happen to each, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Restore {
    /// The run, if one is named first, and the paths.
    fn run_and_paths(&self) -> (String, &[PathBuf]) {
        let is_path = |what: &PathBuf| what.as_os_str().as_bytes().contains(&b'/');
        match self.what.split_first() {
            Some((first, rest)) if !is_path(first) => (first.to_string_lossy().into_owned(), rest),
            _ => (String::new(), &self.what),
        }
    }

    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let (run_id, what) = self.run_and_paths();
        let request = v1::RestoreRequest {
            run_id,
            paths: what.iter().map(|path| paths::absolute(path)).collect(),
            to: self.to.as_deref().map(paths::absolute).unwrap_or_default(),
            dry_run: self.dry_run,
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
    let (one, many) = match report.dry_run {
        true => ("would stay", "would stay"),
        false => ("stays", "stay"),
    };
    for item in report.items.iter().take(ITEMS_SHOWN) {
        let inside = match (item.kind(), item.files_inside) {
            (v1::Kind::Directory, 0) => "/".to_owned(),
            (v1::Kind::Directory, n) => format!("/ ({})", plural(n, "file", "files")),
            _ => String::new(),
        };
        out.line(&format!(
            "{:>10}  {}{inside}",
            format_size(item.bytes),
            paths::printable(&item.path)
        ))?;
    }
    if report.items_total > ITEMS_SHOWN as u64 {
        let more = report.items_total.saturating_sub(ITEMS_SHOWN as u64);
        out.line(&format!("            ... and {} more", count(more)))?;
    }
    let of = match report.run_ids.as_slice() {
        [] if report.run_id.is_empty() => String::new(),
        [] => format!(" of run {}", report.run_id),
        [one] => format!(" of run {one}"),
        many => format!(" of runs {}", many.join(", ")),
    };
    let done = if report.dry_run {
        "Would restore"
    } else {
        "Restored"
    };
    out.line(&format!(
        "{done} {} ({}){of}.",
        amount::things(&t),
        format_size(t.bytes)
    ))?;
    if report.dry_run {
        out.line("Nothing has been changed.")?;
    }
    if report.older_total > 0 {
        let older = plural(report.older_total, "older version", "older versions");
        let stay = if report.older_total == 1 { one } else { many };
        out.line(&format!("{older} of that {stay} in the trash."))?;
        out.line("  List them:      purgectl trash PATH")?;
        out.line("  Put one aside:  purgectl restore RUN PATH --to DIR")?;
    }
    if report.failed_total > 0 {
        out.line(&format!(
            "{} {} in the trash:",
            plural(report.failed_total, "entry", "entries"),
            if report.failed_total == 1 { one } else { many }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_with_a_slash_is_a_path_and_another_is_a_run() {
        let split = |words: &[&str]| {
            let restore = Restore {
                what: words.iter().map(PathBuf::from).collect(),
                to: None,
                dry_run: false,
            };
            let (run, paths) = restore.run_and_paths();
            (run, paths.len())
        };
        assert_eq!(split(&["r0tp9bjam7np"]), ("r0tp9bjam7np".into(), 0));
        assert_eq!(split(&["r1", "/v/a", "b"]), ("r1".into(), 2));
        assert_eq!(split(&["/v/a", "/v/b"]), (String::new(), 2));
        assert_eq!(split(&["./a"]), (String::new(), 1));
    }
}
