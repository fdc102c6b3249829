//! `purgectl doctor`

use clap::Args;
use purge_proto::v1;
use serde_json::json;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Cell, Table};
use crate::output::tone::{Span, Tone};

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Ends with 1 where something is bad. JSON: { \"worst\", \"findings\": [ { \"check\", \"volume\", \"verdict\": \
                  \"good|note|bad\", \"found\", \"cure\" } ] }"
)]
pub struct Doctor {}

fn word(verdict: v1::Verdict) -> &'static str {
    match verdict {
        v1::Verdict::Bad => "bad",
        v1::Verdict::Note => "note",
        v1::Verdict::Good | v1::Verdict::Unspecified => "good",
    }
}

impl Doctor {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let findings = client.doctor(v1::DoctorRequest {}).await?.into_inner().findings;
        let worst = findings
            .iter()
            .map(v1::Finding::verdict)
            .max()
            .unwrap_or_default();
        if out.is_table() {
            print(&findings, worst, out)?;
        } else {
            let rows: Vec<_> = findings
                .iter()
                .map(|f| {
                    json!({
                        "check": f.check,
                        "volume": f.volume,
                        "verdict": word(f.verdict()),
                        "found": f.found,
                        "cure": f.cure,
                    })
                })
                .collect();
            out.one_with(&json!({ "worst": word(worst), "findings": rows }), "findings")?;
        }
        Ok(match worst {
            v1::Verdict::Bad => exit::ERROR,
            _ => exit::DONE,
        })
    }
}

fn print(findings: &[v1::Finding], worst: v1::Verdict, out: &mut Out) -> Result<(), CtlError> {
    let mut places: Vec<&str> = Vec::new();
    for f in findings {
        if !places.contains(&f.volume.as_str()) {
            places.push(&f.volume);
        }
    }
    for place in places {
        match place {
            "" => out.heading("host")?,
            name => out.heading(&format!("volume {name}"))?,
        }
        print_place(findings.iter().filter(|f| f.volume == place), out)?;
    }
    out.line("")?;
    let (words, verdict) = match worst {
        v1::Verdict::Bad => (
            "Something is bad: the agent does not do all that it is there for.",
            "bad",
        ),
        v1::Verdict::Note => ("Nothing is bad.", "note"),
        v1::Verdict::Good | v1::Verdict::Unspecified => ("All is well.", "good"),
    };
    out.spans(&[Span::new(words, Tone::of_state(verdict))])?;
    Ok(())
}

/// The findings of one place: what is bad comes first, and what is good last.
fn print_place<'f>(findings: impl Iterator<Item = &'f v1::Finding>, out: &mut Out) -> std::io::Result<()> {
    let mut findings: Vec<&v1::Finding> = findings.collect();
    findings.sort_by_key(|f| std::cmp::Reverse(f.verdict()));
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Words)]);
    for f in findings {
        let verdict = Cell::state(word(f.verdict()));
        // All places have the same columns.
        let check = format!("{:<12}", f.check);
        table.row([verdict, check.into(), f.found.clone().into()]);
        if !f.cure.is_empty() {
            table.row(["    ".to_owned(), String::new(), format!("-> {}", f.cure)]);
        }
    }
    table.print(out, 2)
}
