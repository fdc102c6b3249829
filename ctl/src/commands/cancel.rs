//! `purgectl cancel`

use clap::Args;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::views;

/// Arguments.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The run.
    run: String,
}

impl Cancel {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let run = client
            .cancel_run(v1::CancelRunRequest {
                run_id: self.run.clone(),
            })
            .await?
            .into_inner();
        match out.is_table() {
            true => out.line(&format!(
                "Run {} stops after the files that it is processing.",
                run.run_id
            ))?,
            false => out.one(&views::run(&run))?,
        }
        Ok(exit::DONE)
    }
}
