//! `purgectl find`

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use purge_proto::shown::Shown;
use purge_proto::units::format_size;
use purge_proto::v1;

use super::show::{Sort, WIDE};
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{age, fitted, plural};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  purgectl find /export/scratch --older 90d --user alice --sort size\n  \
                        purgectl find --name '*.tmp' -0 | xargs -0 ls -l"
)]
pub struct Find {
    /// Below this directory; without it, on every volume.
    path: Option<PathBuf>,
    /// Not used for longer than this.
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    older: Option<u64>,
    /// Used within this time.
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    newer: Option<u64>,
    /// Taken by a rule within this time, or already expired, unless it is used.
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    expiring: Option<u64>,
    /// Owned by this user (name or number).
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// Of this group (name or number).
    #[arg(long, default_value = "", hide_default_value = true)]
    group: String,
    /// At least this large.
    #[arg(long, value_name = "SIZE", value_parser = super::size)]
    min_size: Option<u64>,
    /// At most this large.
    #[arg(long, value_name = "SIZE", value_parser = super::size)]
    max_size: Option<u64>,
    /// With a name that matches this glob.
    #[arg(long, value_name = "GLOB", default_value = "", hide_default_value = true)]
    name: String,
    /// Files or directories only.
    #[arg(long = "type", value_enum)]
    kind: Option<Type>,
    /// Paths only, each ended by NUL and not escaped; not to a terminal.
    #[arg(short = '0', long)]
    null: bool,
    /// In this order.
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Type {
    /// Files.
    F,
    /// Directories.
    D,
}

impl Find {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        if self.null && std::io::stdout().is_terminal() {
            return Err(CtlError::Usage(
                "-0 writes names as they are, and a terminal may obey them; pipe them into a program, or leave -0 out"
                    .into(),
            ));
        }
        let kind = match self.kind {
            None => v1::Kind::Unspecified,
            Some(Type::F) => v1::Kind::File,
            Some(Type::D) => v1::Kind::Directory,
        };
        let request = v1::FindRequest {
            path: self.path.as_deref().map(paths::absolute).unwrap_or_default(),
            older_seconds: self.older,
            newer_seconds: self.newer,
            user: self.user.clone(),
            group: self.group.clone(),
            min_size: self.min_size,
            max_size: self.max_size,
            name: self.name.clone(),
            kind: kind.into(),
            sort: Sort::message(self.sort).into(),
            limit: self.limit,
            expiring_seconds: self.expiring,
        };
        let mut stream = client.find(request).await?.into_inner();
        if self.null {
            return write_paths(&mut stream, out).await;
        }
        out.begin()?;
        let columns = Columns {
            expires: self.expiring.is_some(),
            source: out.width.is_none_or(|width| width >= WIDE),
        };
        if out.is_table() {
            out.heading(&columns.line(["AGE", "SIZE", "SOURCE", "EXPIRES", "OWNER", "PATH"]))?;
        }
        let (mut entries, mut bytes) = (0u64, 0u64);
        while let Some(e) = stream.message().await? {
            entries = entries.saturating_add(1);
            bytes = bytes.saturating_add(e.bytes);
            if out.is_table() {
                columns.print(&e, out)?;
                continue;
            }
            let mut item = views::entry(&e);
            if out.has_columns() {
                item["hidden"] = e.hidden.into();
            }
            out.item(&item)?;
        }
        if out.is_table() {
            let found = plural(entries, "entry", "entries");
            out.total(&format!("{found}, {}", format_size(bytes)))?;
        } else {
            out.end()?;
        }
        Ok(exit::DONE)
    }
}

/// Paths as they are, each ended by NUL.
async fn write_paths(stream: &mut tonic::Streaming<v1::Entry>, out: &mut Out) -> Result<u8, CtlError> {
    let mut hidden = 0u64;
    while let Some(e) = stream.message().await? {
        if e.hidden {
            // What is left of the path names another thing.
            hidden = hidden.saturating_add(1);
        } else {
            out.raw(&e.path)?;
            out.raw(&[0])?;
        }
    }
    if hidden > 0 {
        let files = plural(hidden, "entry lies", "entries lie");
        out.remark(&format!(
            "{files} in directories that you cannot enter: not named"
        ));
    }
    Ok(exit::DONE)
}

/// A longer name is cut.
const OWNER_COLUMNS: usize = 8;

/// The columns before the path.
struct Columns {
    expires: bool,
    source: bool,
}

impl Columns {
    fn print(&self, e: &v1::Entry, out: &mut Out) -> std::io::Result<()> {
        let is_directory = e.kind() == v1::Kind::Directory && !e.hidden;
        let slash = if is_directory { "/" } else { "" };
        let owner = Shown::from(e.owner.as_str());
        out.line(&self.line([
            &age(super::age_of(e.last_access)),
            &format_size(e.bytes),
            &views::source(e.source()),
            &e.expires_at.map_or_else(|| "-".into(), left),
            owner.as_str(),
            &format!("{}{slash}", paths::partly(&e.path, e.hidden)),
        ]))
    }

    fn line(&self, [age, size, source, expires, owner, path]: [&str; 6]) -> String {
        let mut line = format!("{age:>5}  {size:>10}  ");
        if self.source {
            line.push_str(&format!("{source:<8}  "));
        }
        if self.expires {
            line.push_str(&format!("{expires:<7}  "));
        }
        line.push_str(&format!("{}  {path}", fitted(owner, OWNER_COLUMNS)));
        line
    }
}

/// How long is left until a file expires, for a person.
pub(super) fn left(at: prost_types::Timestamp) -> String {
    let left = at.seconds.saturating_sub(chrono::Utc::now().timestamp());
    match u64::try_from(left) {
        Ok(0) | Err(_) => "now".into(),
        Ok(left) => format!("in {}", age(left)),
    }
}
