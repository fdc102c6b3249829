//! `purgectl explain`

use std::path::PathBuf;

use clap::Args;
use purge_proto::units::format_size;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, age, plural, when};
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

/// What runs took of a path.
fn print_taken(taken: &v1::Taken, path: &[u8], out: &mut Out) -> std::io::Result<()> {
    let mut t = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let mut row = |name: &str, value: String| t.row([name.to_owned(), value]);
    let rule = match taken.rule.as_str() {
        "" => String::new(),
        rule => format!(" by {rule}"),
    };
    row("taken", format!("{}{rule}", when(taken.taken_at)));
    row(
        "run",
        format!(
            "{}, asked for by {}",
            taken.run_id,
            super::asker(&taken.requested_by)
        ),
    );
    if taken.path != path {
        row("with", format!("{}, as a whole", paths::printable(&taken.path)));
    }
    row("was", was(taken));
    row("now", now(taken));
    if taken.state() == v1::TakenState::Trashed {
        row("back", format!("purgectl restore {}", paths::quoted(path)));
    }
    t.print(out, 2)
}

fn was(taken: &v1::Taken) -> String {
    let owner = &taken.owner;
    if taken.only_below {
        return format!("a directory; files of {owner} below it were taken");
    }
    let used = match taken.last_access {
        None => String::new(),
        at => {
            let before = super::age_of(at).saturating_sub(super::age_of(taken.taken_at));
            format!(", last used {} before", age(before))
        }
    };
    if taken.amount_hidden {
        return format!("a directory of {owner}{used}; `purgectl trash` counts what in it is yours");
    }
    let inside = match (taken.kind(), taken.files_inside) {
        (v1::Kind::Directory, 0) => ", empty".to_owned(),
        (v1::Kind::Directory, n) => format!(", {}", plural(n, "file", "files")),
        _ => String::new(),
    };
    format!(
        "{} of {owner}{inside}, {}{used}",
        views::kind(taken.kind()),
        format_size(taken.bytes)
    )
}

/// Where it is.
fn now(taken: &v1::Taken) -> String {
    match (taken.state(), taken.trash_until) {
        (v1::TakenState::Trashed, Some(until)) => format!("in the trash until {}", when(Some(until))),
        (v1::TakenState::Trashed, None) => "in the trash, and kept: it was used".into(),
        (v1::TakenState::Freed, _) => {
            format!("deleted: its time in the trash ended {}", when(taken.freed_at))
        }
        (v1::TakenState::Restored, _) => "restored, or removed from the trash by root".into(),
        _ => "deleted by the run".into(),
    }
}

fn print(e: &v1::Explanation, out: &mut Out) -> Result<(), CtlError> {
    if e.inode == 0 {
        out.heading(&format!(
            "{}  is not there: a run took it",
            paths::printable(&e.path)
        ))?;
        for (n, taken) in e.taken.iter().enumerate() {
            if n > 0 {
                out.line("")?;
            }
            print_taken(taken, &e.path, out)?;
        }
        return Ok(());
    }
    print_there(e, out)?;
    for taken in &e.taken {
        out.line("")?;
        out.line("  Before, a run took this path:")?;
        print_taken(taken, &e.path, out)?;
    }
    Ok(())
}

fn print_there(e: &v1::Explanation, out: &mut Out) -> Result<(), CtlError> {
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
    let ago = |at| format!("{}, {} ago", when(at), age(super::age_of(at)));
    row(
        "last use",
        format!("{} ({})", ago(e.last_access), views::source(e.source())),
    );
    row(
        "access",
        format!("{} ({})", when(e.access), views::source(e.access_source())),
    );
    row("modify", when(e.modify));
    row("change", when(e.change));
    row("birth", when(e.birth));
    row("observed", format!("since {}", when(e.coverage_since)));
    if !e.blind.is_empty() {
        row("not seen", super::unseen(&e.blind, &e.reads));
    }
    for gap in &e.gaps {
        row(
            "gap",
            format!(
                "{} ({}{})",
                super::status::stretch(gap),
                gap.cause,
                super::status::counted(gap)
            ),
        );
    }
    for hold in &e.holds {
        let until = hold
            .expires_at
            .map_or_else(String::new, |at| format!(", until {}", when(Some(at))));
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
                when(r.expires_at)
            } else {
                "never".into()
            };
            rules.row([r.name.clone(), expires, r.because.clone()]);
        }
        rules.print(out, 2)?;
    }
    Ok(())
}
