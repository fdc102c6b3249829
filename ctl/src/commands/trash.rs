//! `purgectl trash`

use std::path::PathBuf;

use clap::Args;
use purge_proto::units::format_size;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::{age, count};
use crate::output::{Out, amount};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "TAKEN is how long ago it was moved there, LEFT how long it stays. What the newest run took comes first: directories that \
    went as a whole by their paths, then the rest, directory after directory.\n\n\
    Examples:\n  purgectl trash /export/scratch/alice\n  purgectl trash --volume scratch --limit 20"
)]
pub struct Trash {
    /// What came from this path or from below; without it, everything.
    path: Option<PathBuf>,
    /// On this volume.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    volume: String,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
}

impl Trash {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::ListTrashRequest {
            path: self.path.as_deref().map(paths::absolute).unwrap_or_default(),
            volume: self.volume.clone(),
            limit: self.limit,
        };
        let mut stream = client.list_trash(request).await?.into_inner();
        out.begin()?;
        if out.is_table() {
            out.heading(&format!(
                "{:>6}  {:>5}  {:>7}  {:>10}  {:<8}  {:<12}  PATH",
                "TAKEN", "LEFT", "FILES", "SIZE", "OWNER", "RUN"
            ))?;
        }
        let mut all = v1::Totals::default();
        while let Some(e) = stream.message().await? {
            if !out.is_table() {
                out.item(&views::trash_entry(&e))?;
                continue;
            }
            add(&mut all, &e);
            out.line(&line(&e))?;
        }
        match out.is_table() {
            true => out.line(&format!("  {}", amount::words(&all)))?,
            false => out.end()?,
        }
        Ok(exit::DONE)
    }
}

fn add(all: &mut v1::Totals, e: &v1::TrashEntry) {
    let counter = match e.kind() {
        v1::Kind::Directory => &mut all.directories,
        v1::Kind::Symlink => &mut all.links,
        _ => &mut all.files,
    };
    *counter = counter.saturating_add(1);
    all.files_inside = all.files_inside.saturating_add(e.files_inside);
    all.bytes = all.bytes.saturating_add(e.bytes);
}

fn line(e: &v1::TrashEntry) -> String {
    let now = chrono::Utc::now().timestamp();
    let left = match e.trash_until {
        None => "kept".to_owned(),
        Some(until) => age(u64::try_from(until.seconds.saturating_sub(now)).unwrap_or(0)),
    };
    let (files, slash) = match e.kind() {
        v1::Kind::Directory => (e.files_inside, "/"),
        v1::Kind::Symlink => (0, ""),
        _ => (1, ""),
    };
    format!(
        "{:>6}  {left:>5}  {:>7}  {:>10}  {:<8}  {:<12}  {}{slash}",
        age(super::age_of(e.taken_at)),
        count(files),
        format_size(e.bytes),
        e.owner,
        e.run_id,
        paths::printable(&e.path)
    )
}
