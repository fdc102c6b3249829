//! `purgectl show`

use clap::{Args, ValueEnum};
use purge_proto::units::format_size;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::age;
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  purgectl show PLAN --sort size --limit 20\n  purgectl show PLAN --by directory --depth 2"
)]
pub struct Show {
    /// The plan.
    plan: String,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    /// In this order; otherwise as apply takes them.
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// Summed up, instead of one by one.
    #[arg(long, value_enum, conflicts_with_all = ["limit", "sort"])]
    by: Option<By>,
    /// With --by directory: the number of levels below the volume.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "by")]
    depth: u32,
}

/// What candidates are summed up by.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum By {
    /// The directory that they lie in.
    Directory,
}

/// Orders of candidates and entries.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Sort {
    /// Oldest last use first.
    Age,
    /// Largest first.
    Size,
    /// By path.
    Path,
}

impl Sort {
    pub(super) fn message(sort: Option<Self>) -> v1::Sort {
        match sort {
            None => v1::Sort::Unspecified,
            Some(Self::Age) => v1::Sort::Age,
            Some(Self::Size) => v1::Sort::Size,
            Some(Self::Path) => v1::Sort::Path,
        }
    }
}

impl Show {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        match self.by {
            Some(By::Directory) => super::summary::print(&mut client, &self.plan, self.depth, out).await?,
            None => candidates(client, &self.plan, self.limit, self.sort, out).await?,
        }
        Ok(exit::DONE)
    }
}

/// Prints the candidates of a plan as they come.
pub(super) async fn candidates(
    mut client: Client,
    plan: &str,
    limit: u64,
    sort: Option<Sort>,
    out: &mut Out,
) -> Result<(), CtlError> {
    let request = v1::ShowPlanRequest {
        plan_id: plan.into(),
        limit,
        sort: Sort::message(sort).into(),
    };
    let mut stream = client.show_plan(request).await?.into_inner();
    out.begin()?;
    if out.is_table() {
        out.heading(&format!(
            "{:>5}  {:>10}  {:<8}  {:<10}  {:<12}  PATH",
            "AGE", "SIZE", "SOURCE", "OWNER", "RULE"
        ))?;
    }
    while let Some(c) = stream.message().await? {
        if !out.is_table() {
            out.item(&views::candidate(&c))?;
            continue;
        }
        let slash = if c.kind() == v1::Kind::Directory { "/" } else { "" };
        out.line(&format!(
            "{:>5}  {:>10}  {:<8}  {:<10}  {:<12}  {}{slash}",
            age(c.age_seconds),
            format_size(c.bytes),
            views::source(c.source()),
            c.owner,
            c.rule,
            paths::printable(&c.path)
        ))?;
    }
    if !out.is_table() {
        out.end()?;
    }
    Ok(())
}
