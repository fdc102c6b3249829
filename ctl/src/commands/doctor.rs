//! `purgectl doctor`

use clap::Args;
use purge_proto::v1;
use serde_json::json;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;

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
            out.one(&json!({ "worst": word(worst), "findings": rows }))?;
        }
        Ok(match worst {
            v1::Verdict::Bad => exit::ERROR,
            _ => exit::DONE,
        })
    }
}

fn print(findings: &[v1::Finding], worst: v1::Verdict, out: &mut Out) -> Result<(), CtlError> {
    let mut about = None;
    for f in findings {
        if about != Some(&f.volume) {
            match f.volume.as_str() {
                "" => out.heading("host")?,
                name => out.heading(&format!("volume {name}"))?,
            }
            about = Some(&f.volume);
        }
        out.line(&format!(
            "  {:<4}  {:<12}  {}",
            word(f.verdict()),
            f.check,
            f.found
        ))?;
        if !f.cure.is_empty() {
            out.line(&format!("{:22}-> {}", "", f.cure))?;
        }
    }
    out.line("")?;
    out.line(match worst {
        v1::Verdict::Bad => "Something is bad: the agent does not do all that it is there for.",
        v1::Verdict::Note => "Nothing is bad.",
        v1::Verdict::Good | v1::Verdict::Unspecified => "All is well.",
    })?;
    Ok(())
}
