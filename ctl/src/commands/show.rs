//! `purgectl show`

use clap::{Args, ValueEnum};
use purge_proto::shown::Shown;
use purge_proto::units::format_size;
use purge_proto::v1;
use unicode_width::UnicodeWidthStr;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::table::{age, count, fitted, plural};
use crate::output::{Out, amount};
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

/// What follows a candidate's path: of a directory, that it is one, and how many files go with it.
fn inside(c: &v1::Candidate) -> String {
    match (c.kind(), c.files_inside) {
        (v1::Kind::Directory, 0) => "/".into(),
        (v1::Kind::Directory, n) => format!("/ ({})", plural(n, "file", "files")),
        _ => String::new(),
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
    let head = match out.is_table() {
        true => Some(
            client
                .get_plan(v1::GetPlanRequest { plan_id: plan.into() })
                .await?
                .into_inner(),
        ),
        false => None,
    };
    let mut stream = client.show_plan(request).await?.into_inner();
    let Some(head) = head else {
        out.begin()?;
        while let Some(c) = stream.message().await? {
            out.item(&views::candidate(&c))?;
        }
        out.end()?;
        return Ok(());
    };
    let columns = Columns::of(&head, out);
    columns.print_head(out)?;
    let mut shown = v1::Totals::default();
    while let Some(c) = stream.message().await? {
        add(&mut shown, &c);
        columns.print(&c, out)?;
    }
    let all = views::entries(&head.candidates.unwrap_or_default());
    let of_all = match views::entries(&shown) {
        n if n < all => format!(" of {}", count(all)),
        _ => String::new(),
    };
    out.total(&format!(
        "{}{of_all}: {}",
        count(views::entries(&shown)),
        amount::words(&shown)
    ))?;
    Ok(())
}

/// On a terminal of this width there is room for columns that most people do not look at.
pub(super) const WIDE: usize = 100;
/// A longer name is cut.
const OWNER_COLUMNS_MAX: usize = 12;

/// The columns before the path: so narrow as the plan allows, because what comes as a stream cannot be measured first.
struct Columns {
    owner: usize,
    /// None: one rule takes everything, and the heading names it.
    rule: Option<usize>,
    source: bool,
    heading: String,
}

impl Columns {
    fn of(plan: &v1::Plan, out: &Out) -> Self {
        let widest =
            |names: &mut dyn Iterator<Item = &str>| names.map(UnicodeWidthStr::width).max().unwrap_or(0);
        let rules = widest(&mut plan.rules.iter().map(|r| r.rule.as_str()));
        let owners = widest(&mut plan.by_owner.iter().map(|o| o.owner.as_str()));
        let names: Vec<&str> = plan.rules.iter().map(|r| r.rule.as_str()).collect();
        Self {
            owner: owners.clamp("OWNER".len(), OWNER_COLUMNS_MAX),
            rule: (names.len() > 1).then(|| rules.max("RULE".len())),
            source: out.width.is_none_or(|width| width >= WIDE),
            heading: format!(
                "Plan {} of volume {}: {}",
                plan.plan_id,
                plan.volume,
                names.join(", ")
            ),
        }
    }

    fn print_head(&self, out: &mut Out) -> std::io::Result<()> {
        out.heading(&self.heading)?;
        out.heading(&self.line(["AGE", "SIZE", "SOURCE", "OWNER", "RULE", "PATH"]))
    }

    fn print(&self, c: &v1::Candidate, out: &mut Out) -> std::io::Result<()> {
        let owner = Shown::from(c.owner.as_str());
        out.line(&self.line([
            &age(c.age_seconds),
            &format_size(c.bytes),
            &views::source(c.source()),
            owner.as_str(),
            &c.rule,
            &format!("{}{}", paths::printable(&c.path), inside(c)),
        ]))
    }

    fn line(&self, [age, size, source, owner, rule, path]: [&str; 6]) -> String {
        let source = match self.source {
            true => format!("{source:<8}  "),
            false => String::new(),
        };
        let rule = match self.rule {
            Some(width) => format!("{}  ", fitted(rule, width)),
            None => String::new(),
        };
        format!(
            "{age:>5}  {size:>10}  {source}{}  {rule}{path}",
            fitted(owner, self.owner)
        )
    }
}

fn add(sum: &mut v1::Totals, c: &v1::Candidate) {
    let of_kind = match c.kind() {
        v1::Kind::Directory => &mut sum.directories,
        v1::Kind::Symlink => &mut sum.links,
        _ => &mut sum.files,
    };
    *of_kind = of_kind.saturating_add(1);
    sum.files_inside = sum.files_inside.saturating_add(c.files_inside);
    sum.bytes = sum.bytes.saturating_add(c.bytes);
}
