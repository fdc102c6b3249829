//! `purgectl resume`

use clap::Args;
use purge_proto::v1;

use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::views;

/// Arguments.
#[derive(Debug, Args)]
pub struct Resume {
    /// The volume; needed only where there are several.
    #[arg(default_value = "", hide_default_value = true)]
    volume: String,
}

impl Resume {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let request = v1::ResumeTriggerRequest {
            volume: self.volume.clone(),
        };
        let answer = client.resume_trigger(request).await?.into_inner();
        match out.is_table() {
            true => out.line(&format!(
                "The watermark of {} goes on at its next look, within a minute.",
                answer.volume
            ))?,
            false => out.one(&views::resumed(&answer))?,
        }
        Ok(exit::DONE)
    }
}
