//! `purgectl notices`

use clap::{Args, Subcommand, ValueEnum};
use purge_proto::v1;

use super::PAGE_ROWS;
use super::status::stamp;
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, plural};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Examples:\n  purgectl notices --state failed\n  purgectl notices test --sink webhook"
)]
pub struct Notices {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only those of this sink.
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Only those in this state.
    #[arg(long)]
    state: Option<State>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a test by one sink, now, and say whether it was taken.
    Test {
        /// Which; the configuration names it, or it is called smtp, webhook, amqp or exec.
        #[arg(long, value_name = "NAME")]
        sink: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Waiting,
    Sent,
    Failed,
}

impl Notices {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let Some(Command::Test { sink }) = &self.command else {
            return self.list(client, out).await;
        };
        let request = v1::TestNoticeRequest { sink: sink.clone() };
        let taken = client.test_notice(request).await?.into_inner();
        match out.is_table() {
            true => out.line(&format!(
                "Sink {} has taken the test {}.",
                taken.sink, taken.notice_id
            ))?,
            false => out.one(&views::notice_test(&taken))?,
        }
        Ok(exit::DONE)
    }

    async fn list(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let state = match self.state {
            None => v1::NoticeState::Unspecified,
            Some(State::Waiting) => v1::NoticeState::Waiting,
            Some(State::Sent) => v1::NoticeState::Sent,
            Some(State::Failed) => v1::NoticeState::Failed,
        };
        let mut page_token = String::new();
        let mut all = Vec::new();
        out.begin()?;
        loop {
            let request = v1::ListNoticesRequest {
                page_size: PAGE_ROWS,
                page_token,
                sink: self.sink.clone().unwrap_or_default(),
                state: state.into(),
            };
            let page = client.list_notices(request).await?.into_inner();
            match out.is_table() {
                true => all.extend(page.notices),
                false => page
                    .notices
                    .iter()
                    .try_for_each(|n| out.item(&views::notice(n)))?,
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        match (out.is_table(), all.is_empty()) {
            (true, true) => out.line("No notices.")?,
            (true, false) => print(&all, out)?,
            (false, _) => out.end()?,
        }
        Ok(exit::DONE)
    }
}

fn print(notices: &[v1::Notice], out: &mut Out) -> Result<(), CtlError> {
    let mut table = Table::new(&[
        ("NOTICE", Align::Left),
        ("SINK", Align::Left),
        ("TO", Align::Left),
        ("MADE", Align::Left),
        ("STATE", Align::Left),
        ("WHAT", Align::Left),
    ]);
    for n in notices {
        table.row([
            n.notice_id.clone(),
            n.sink.clone(),
            match n.user.is_empty() {
                true => "operator".into(),
                false => paths::printable(n.user.as_bytes()),
            },
            stamp(n.created_at),
            views::notice_state(n.state()),
            what(n),
        ]);
    }
    table.print(out, 0)?;
    for n in notices.iter().filter(|n| !n.error.is_empty()) {
        let again = match n.due_at {
            Some(_) => format!(", again at {}", stamp(n.due_at)),
            None => ", given up".into(),
        };
        let attempts = plural(n.attempts.into(), "attempt", "attempts");
        out.line(&format!("{} ({attempts}{again}):", n.notice_id))?;
        out.line(&format!("  {}", n.error))?;
    }
    Ok(())
}

/// The kind of its first event, and how many others there are.
fn what(n: &v1::Notice) -> String {
    let first = n.events.first().map(|e| e.event.as_str()).unwrap_or_default();
    match n.events.len().saturating_sub(1) {
        0 => first.into(),
        others => format!("{first} +{others}"),
    }
}
