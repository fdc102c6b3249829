//! `purgectl plans`

use clap::Args;
use purge_proto::v1;

use super::PAGE_ROWS;
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table};
use crate::views;

/// Arguments.
#[derive(Debug, Args)]
pub struct Plans {}

impl Plans {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let mut table = Table::new(&[
            ("PLAN", Align::Left),
            ("VOLUME", Align::Left),
            ("MADE", Align::Right),
            ("CANDIDATES", Align::Right),
            ("SIZE", Align::Right),
            ("STATE", Align::Left),
        ]);
        let mut page_token = String::new();
        out.begin()?;
        loop {
            let request = v1::ListPlansRequest {
                page_size: PAGE_ROWS,
                page_token,
            };
            let page = client.list_plans(request).await?.into_inner();
            for plan in &page.plans {
                match out.is_table() {
                    true => table.row(super::plan::in_a_line(plan)),
                    false => out.item(&views::plan(plan))?,
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        match (out.is_table(), table.is_empty()) {
            (true, true) => out.line("No plans yet: purgectl plan")?,
            (true, false) => table.print(out, 0)?,
            (false, _) => out.end()?,
        }
        Ok(exit::DONE)
    }
}
