//! `purgectl explain`

use std::path::PathBuf;

use clap::Args;
use purge_proto::units::format_size;
use purge_proto::v1;

use super::status::stamp;
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, age};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
pub struct Explain {
    /// A file or directory.
    path: PathBuf,
}

impl Explain {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::ExplainRequest {
            path: paths::absolute(&self.path),
        };
        let e = client.explain(request).await?.into_inner();
        match out.is_table() {
            true => print(&e, out)?,
            false => out.one_with(&views::explanation(&e), "rules")?,
        }
        Ok(exit::DONE)
    }
}

fn print(e: &v1::Explanation, out: &mut Out) -> Result<(), CtlError> {
    out.heading(&paths::printable(&e.path))?;
    let mut t = Table::new(&[("", Align::Left), ("", Align::Words)]);
    let mut row = |name: &str, value: String| t.row([name.to_owned(), value]);
    row(
        "is",
        format!(
            "{} of {}, {}, inode {}",
            views::kind(e.kind()),
            e.owner,
            format_size(e.bytes),
            e.inode
        ),
    );
    let ago = |at| format!("{}, {} ago", stamp(at), age(super::age_of(at)));
    row(
        "last use",
        format!("{} ({})", ago(e.last_access), views::source(e.source())),
    );
    row(
        "access",
        format!("{} ({})", stamp(e.access), views::source(e.access_source())),
    );
    row("modify", stamp(e.modify));
    row("change", stamp(e.change));
    row("birth", stamp(e.birth));
    row("observed", format!("since {}", stamp(e.coverage_since)));
    for gap in &e.gaps {
        row(
            "gap",
            format!(
                "{} to {} ({}{})",
                stamp(gap.from),
                stamp(gap.to),
                gap.cause,
                super::status::counted(gap)
            ),
        );
    }
    for hold in &e.holds {
        let until = hold
            .expires_at
            .map_or_else(String::new, |at| format!(", until {}", stamp(Some(at))));
        let name = match hold.hold_id.as_str() {
            "" => String::new(),
            id => format!(" ({id}{until})"),
        };
        row("held", format!("{}{name}", hold.reason));
    }
    if e.holds_total > e.holds.len() as u64 {
        row("", format!("{} holds in all", e.holds_total));
    }
    t.print(out, 2)?;
    if !e.rules.is_empty() {
        out.line("")?;
        let mut rules = Table::new(&[
            ("RULE", Align::Left),
            ("EXPIRES", Align::Left),
            ("BECAUSE", Align::Words),
        ]);
        for r in &e.rules {
            let expires = if r.expires_at.is_some() {
                stamp(r.expires_at)
            } else {
                "never".into()
            };
            rules.row([r.name.clone(), expires, r.because.clone()]);
        }
        rules.print(out, 2)?;
    }
    Ok(())
}
