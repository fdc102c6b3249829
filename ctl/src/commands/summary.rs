//! A plan summed up by directory.

use std::collections::BTreeMap;

use purge_proto::units::format_size;
use purge_proto::v1;
use serde_json::{Map, Value};

use crate::connect::Client;
use crate::error::CtlError;
use crate::output::Out;
use crate::output::table::{Align, Table, age, count};
use crate::paths;

/// More directories than these are summed up as one: a plan may name millions.
const DIRECTORIES_MAX: usize = 100_000;

/// What a plan takes of one directory.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    files: u64,
    files_inside: u64,
    directories: u64,
    links: u64,
    bytes: u64,
    oldest: u64,
}

/// Prints what a plan takes by directory, at a depth below the volume; the most bytes come first.
pub(super) async fn print(
    client: &mut Client,
    plan: &str,
    depth: u32,
    out: &mut Out,
) -> Result<(), CtlError> {
    let root = root_of(client, plan).await?;
    let request = v1::ShowPlanRequest {
        plan_id: plan.into(),
        ..v1::ShowPlanRequest::default()
    };
    let mut stream = client.show_plan(request).await?.into_inner();
    let mut sums: BTreeMap<Vec<u8>, Sum> = BTreeMap::new();
    let mut rest = Sum::default();
    while let Some(c) = stream.message().await? {
        let mut path = c.path.clone();
        if c.kind() == v1::Kind::Directory {
            // It lies in itself: its row is that of what lies in it.
            path.push(b'/');
        }
        let directory = directory_of(&path, &root, depth);
        let is_room = sums.len() < DIRECTORIES_MAX || sums.contains_key(directory);
        match is_room {
            true => sums.entry(directory.to_vec()).or_default().add(&c),
            false => rest.add(&c),
        }
    }
    let mut rows: Vec<(Vec<u8>, Sum)> = sums.into_iter().collect();
    rows.sort_by(|a, b| b.1.bytes.cmp(&a.1.bytes).then_with(|| a.0.cmp(&b.0)));
    match out.is_table() {
        true => table(&rows, rest, out)?,
        false => list(&rows, out)?,
    }
    Ok(())
}

/// Where the plan's volume lies.
async fn root_of(client: &mut Client, plan: &str) -> Result<Vec<u8>, CtlError> {
    let plan_id = plan.to_owned();
    let plan = client
        .get_plan(v1::GetPlanRequest { plan_id })
        .await?
        .into_inner();
    let status = client
        .get_status(v1::GetStatusRequest::default())
        .await?
        .into_inner();
    let volume = status.volumes.into_iter().find(|v| v.name == plan.volume);
    volume.map(|v| v.path).ok_or_else(|| {
        CtlError::Run(format!(
            "the agent has no volume {} any more; leave out --by",
            plan.volume
        ))
    })
}

/// The directory `depth` levels below the root in which something lies; nearer to the root where that is not so deep.
fn directory_of<'p>(path: &'p [u8], root: &[u8], depth: u32) -> &'p [u8] {
    let Some(below) = path.strip_prefix(root).and_then(|p| p.strip_prefix(b"/")) else {
        return path;
    };
    let slashes = below
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'/')
        .map(|(at, _)| at);
    let end = slashes.take(depth as usize).last();
    let length = end.map_or(root.len(), |end| root.len().saturating_add(1).saturating_add(end));
    path.get(..length).unwrap_or(path)
}

impl Sum {
    fn add(&mut self, c: &v1::Candidate) {
        match c.kind() {
            v1::Kind::Directory => self.directories = self.directories.saturating_add(1),
            v1::Kind::Symlink => self.links = self.links.saturating_add(1),
            _ => self.files = self.files.saturating_add(1),
        }
        self.files_inside = self.files_inside.saturating_add(c.files_inside);
        self.bytes = self.bytes.saturating_add(c.bytes);
        self.oldest = self.oldest.max(c.age_seconds);
    }

    fn row(&self, name: String) -> [String; 6] {
        [
            count(self.files.saturating_add(self.files_inside)),
            count(self.directories),
            count(self.links),
            format_size(self.bytes),
            age(self.oldest),
            name,
        ]
    }
}

fn table(rows: &[(Vec<u8>, Sum)], rest: Sum, out: &mut Out) -> std::io::Result<()> {
    let mut table = Table::new(&[
        ("FILES", Align::Right),
        ("DIRS", Align::Right),
        ("LINKS", Align::Right),
        ("SIZE", Align::Right),
        ("OLDEST", Align::Right),
        ("DIRECTORY", Align::Left),
    ]);
    for (path, sum) in rows {
        table.row(sum.row(paths::printable(path)));
    }
    if rest.files > 0 || rest.directories > 0 || rest.links > 0 {
        table.row(rest.row("(in more directories)".into()));
    }
    table.print(out, 0)
}

fn list(rows: &[(Vec<u8>, Sum)], out: &mut Out) -> std::io::Result<()> {
    out.begin()?;
    for (path, sum) in rows {
        let mut o = Map::new();
        paths::insert(&mut o, path);
        o.insert("files".into(), sum.files.into());
        o.insert("directories".into(), sum.directories.into());
        o.insert("links".into(), sum.links.into());
        o.insert("bytes".into(), sum.bytes.into());
        o.insert("files_inside".into(), sum.files_inside.into());
        o.insert("oldest_age_seconds".into(), sum.oldest.into());
        out.item(&Value::Object(o))?;
    }
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_directory_at_its_depth() {
        let of = |path: &str, depth| {
            String::from_utf8_lossy(directory_of(path.as_bytes(), b"/v", depth)).into_owned()
        };
        assert_eq!(of("/v/a/b/c", 1), "/v/a");
        assert_eq!(of("/v/a/b/c", 2), "/v/a/b");
        assert_eq!(of("/v/a/b/c", 9), "/v/a/b");
        assert_eq!(of("/v/a/", 1), "/v/a");
        assert_eq!(of("/v/f", 1), "/v");
        assert_eq!(of("/vx/f", 1), "/vx/f");
    }
}
