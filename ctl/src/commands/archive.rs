//! `purgectl archive`

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use purge_proto::units::format_size;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::plural;
use crate::{paths, views};

/// Of a moment: the day.
const DAY_CHARS: usize = 10;

/// Arguments.
#[derive(Debug, Args)]
pub struct Archive {
    #[command(subcommand)]
    what: What,
}

/// What to do with an archive.
#[derive(Debug, Subcommand)]
enum What {
    /// What the catalogue names, the newest run first.
    List(List),
    /// All that the catalogue says of the copies of a path.
    Show(Show),
    /// Read copies, and compare them with the catalogue.
    Verify(Verify),
    /// Write the newest copy of a file to a file of your own.
    Get(Get),
}

/// Which archive, and what of it.
#[derive(Debug, Args)]
struct Which {
    /// The archive; where there is one, it may be left out.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    archive: String,
    /// Of this volume.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    volume: String,
    /// Copies that this run made.
    #[arg(long, value_name = "RUN", default_value = "", hide_default_value = true)]
    run: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A path that does not begin with / is one in its volume, which need not be configured any more.\n\n\
    Examples:\n  purgectl archive list /export/scratch/closed\n  purgectl archive list --volume scratch closed/apollo --output ndjson"
)]
struct List {
    /// At or below this path; without it, everything.
    path: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  purgectl archive show /export/scratch/closed/apollo/data.h5")]
struct Show {
    /// The path.
    path: PathBuf,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
#[command(after_help = "Ends with 5 if a copy is not what the catalogue says.\n\n\
    Examples:\n  purgectl archive verify\n  purgectl archive verify /export/scratch/closed --sample 100")]
struct Verify {
    /// At or below this path; without it, everything.
    path: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// Read one copy in this number.
    #[arg(long, value_name = "N", default_value_t = 1)]
    sample: u32,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  purgectl archive get /export/scratch/closed/apollo/data.h5 -o data.h5")]
struct Get {
    /// The file, as it was called on its volume.
    path: PathBuf,
    /// Write it to this file, which must not exist.
    #[arg(short = 'o', long = "output-file", value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    which: Which,
}

impl Archive {
    pub(super) async fn run(&self, client: Client, out: &mut Out) -> Result<u8, CtlError> {
        match &self.what {
            What::List(c) => c.run(client, out).await,
            What::Show(c) => c.run(client, out).await,
            What::Verify(c) => c.run(client, out).await,
            What::Get(c) => c.run(client, out).await,
        }
    }
}

impl Which {
    fn request(&self, path: Option<&Path>, limit: u64) -> v1::ListArchiveRequest {
        v1::ListArchiveRequest {
            archive: self.archive.clone(),
            path: path
                .map(|path| path.as_os_str().as_bytes().to_vec())
                .unwrap_or_default(),
            volume: self.volume.clone(),
            run_id: self.run.clone(),
            limit,
        }
    }
}

impl List {
    async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = self.which.request(self.path.as_deref(), self.limit);
        let mut stream = client.list_archive(request).await?.into_inner();
        out.begin()?;
        if out.is_table() {
            out.heading(&format!(
                "{:>10}  {:<8}  {:<12}  {:<10}  PATH",
                "SIZE", "OWNER", "RUN", "ARCHIVED"
            ))?;
        }
        let mut unread = 0u64;
        while let Some(e) = stream.message().await? {
            unread += u64::from(!e.trouble.is_empty());
            match out.is_table() {
                true => print_line(&e, out)?,
                false => out.item(&views::archive_entry(&e))?,
            }
        }
        if !out.is_table() {
            out.end()?;
        }
        Ok(if unread > 0 { exit::PARTIAL } else { exit::DONE })
    }
}

impl Show {
    async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = self.which.request(Some(&self.path), 0);
        let mut stream = client.list_archive(request).await?.into_inner();
        out.begin()?;
        let mut found = false;
        while let Some(e) = stream.message().await? {
            let is_below = self.path.as_os_str().as_bytes().ends_with(&e.path);
            if !is_below && e.trouble.is_empty() {
                continue;
            }
            found |= is_below;
            match out.is_table() {
                true => print(&e, out)?,
                false => out.item(&views::archive_entry(&e))?,
            }
        }
        if !out.is_table() {
            out.end()?;
        }
        match found {
            true => Ok(exit::DONE),
            false => Err(CtlError::Run("the catalogue names no copy of this path".into())),
        }
    }
}

impl Verify {
    async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::VerifyArchiveRequest {
            which: Some(self.which.request(self.path.as_deref(), 0)),
            one_in: self.sample,
        };
        let mut stream = client.verify_archive(request).await?.into_inner();
        out.begin()?;
        let (mut good, mut bad, mut bytes) = (0u64, 0u64, 0u64);
        while let Some(e) = stream.message().await? {
            let is_good = e.state() == v1::CopyState::Good;
            good += u64::from(is_good);
            bad += u64::from(!is_good);
            bytes = bytes.saturating_add(if is_good { e.bytes } else { 0 });
            match out.is_table() {
                true if is_good => {}
                true => print_line(&e, out)?,
                false => out.item(&views::archive_entry(&e))?,
            }
        }
        match out.is_table() {
            true => out.line(&format!(
                "  As the catalogue says: {} ({}). Not so: {bad}",
                plural(good, "copy", "copies"),
                format_size(bytes)
            ))?,
            false => out.end()?,
        }
        Ok(if bad > 0 { exit::PARTIAL } else { exit::DONE })
    }
}

impl Get {
    async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let which = self.which.request(Some(&self.path), 0);
        let request = v1::FetchArchivedRequest {
            archive: which.archive,
            path: which.path,
            volume: which.volume,
            run_id: which.run_id,
        };
        let mut stream = client.fetch_archived(request).await?.into_inner();
        let mut part = Part::begin(&self.to)?;
        let mut entry = None;
        // A last message that is an error says that the bytes are not good: the part goes with it.
        while let Some(step) = stream.message().await? {
            entry = step.entry.or(entry);
            part.file.write_all(&step.bytes)?;
        }
        part.give(&self.to)?;
        let entry = entry.ok_or_else(|| CtlError::Run("the agent ended the call without a file".into()))?;
        match out.is_table() {
            true => out.line(&format!(
                "{} of run {}, SHA-256 {}",
                format_size(entry.bytes),
                entry.run_id,
                entry.sha256
            ))?,
            false => out.one(&views::archive_entry(&entry))?,
        }
        Ok(exit::DONE)
    }
}

/// A file that is not complete: it has another name, and is removed unless it is given its own.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn begin(to: &Path) -> Result<Self, CtlError> {
        if to.symlink_metadata().is_ok() {
            return Err(CtlError::Run(format!("{} exists already", to.display())));
        }
        let mut name = to.as_os_str().as_bytes().to_vec();
        name.extend_from_slice(format!(".part-{}", std::process::id()).as_bytes());
        let path = PathBuf::from(std::ffi::OsString::from_vec(name));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { path, file })
    }

    /// Gives it its name, and replaces nothing.
    fn give(self, to: &Path) -> Result<(), CtlError> {
        self.file.sync_all()?;
        Ok(std::fs::hard_link(&self.path, to)?)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A line of the table, and what is wrong below it.
fn print_line(e: &v1::ArchiveEntry, out: &mut Out) -> std::io::Result<()> {
    if !e.path.is_empty() {
        out.line(&line(e))?;
    }
    match e.trouble.as_str() {
        "" => Ok(()),
        trouble => out.line(&format!("    {}", paths::printable(trouble.as_bytes()))),
    }
}

fn line(e: &v1::ArchiveEntry) -> String {
    let slash = if e.kind() == v1::Kind::Directory { "/" } else { "" };
    let day: String = e.archived_at.chars().take(DAY_CHARS).collect();
    format!(
        "{:>10}  {:<8}  {:<12}  {:<10}  {}{slash}",
        format_size(e.bytes),
        paths::printable(e.owner.as_bytes()),
        paths::printable(e.run_id.as_bytes()),
        paths::printable(day.as_bytes()),
        paths::printable(&e.path)
    )
}

/// All that the catalogue says of a copy.
fn print(e: &v1::ArchiveEntry, out: &mut Out) -> Result<(), CtlError> {
    if e.path.is_empty() {
        out.line(&format!("  {}", paths::printable(e.trouble.as_bytes())))?;
        return Ok(());
    }
    let words = |text: &str| paths::printable(text.as_bytes());
    out.heading(&paths::printable(&e.path))?;
    let names = e.names.iter().map(|name| paths::printable(name));
    let rows = [
        ("kind", views::kind(e.kind())),
        ("size", format_size(e.bytes)),
        ("SHA-256", words(&e.sha256)),
        ("key", words(&e.key)),
        ("archive", words(&e.archive)),
        ("volume", words(&e.volume)),
        ("rule", words(&e.rule)),
        ("run", words(&e.run_id)),
        ("archived", words(&e.archived_at)),
        ("last use", words(&e.last_access)),
        ("modified", words(&e.mtime)),
        ("owner", format!("{} ({})", words(&e.owner), e.uid)),
        ("group", format!("{} ({})", words(&e.group), e.gid)),
        ("mode", words(&e.mode)),
        ("names", names.collect::<Vec<_>>().join(", ")),
        ("leads to", paths::printable(&e.target)),
        ("attributes", words(&e.xattrs.join(", "))),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        out.line(&format!("  {name:<10} {value}"))?;
    }
    Ok(())
}
