//! `purgectl notices`

use clap::{Args, Subcommand, ValueEnum};
use purge_proto::v1;

use super::PAGE_ROWS;
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Table, plural, when};
use crate::{paths, views};

/// Arguments.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Examples:\n  purgectl notices --state failed\n  purgectl notices preview --user alice --event will-expire\n  purgectl notices test --sink webhook"
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
    /// Show what would be sent now, to whom and by which sink; nothing is sent.
    Preview {
        /// Only those to this user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Only those that tell of this, such as will-expire.
        #[arg(long, value_name = "EVENT")]
        event: Option<String>,
        /// Also what was told already, in today's words.
        #[arg(long)]
        again: bool,
    },
    /// Send the first notices after notices were switched on, which wait for this.
    Release,
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
        let sink = match &self.command {
            None => return self.list(client, out).await,
            Some(Command::Preview { user, event, again }) => {
                let request = v1::PreviewNoticesRequest {
                    user: user.clone().unwrap_or_default(),
                    event: event.clone().unwrap_or_default(),
                    again: *again,
                };
                let found = client.preview_notices(request).await?.into_inner();
                return preview(&found, out);
            }
            Some(Command::Release) => return release(client, out).await,
            Some(Command::Test { sink }) => sink,
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
            when(n.created_at),
            views::notice_state(n.state()),
            what(n),
        ]);
    }
    table.print(out, 0)?;
    for n in notices.iter().filter(|n| !n.error.is_empty()) {
        let again = match n.due_at {
            Some(_) => format!(", again at {}", when(n.due_at)),
            None => ", given up".into(),
        };
        let attempts = plural(n.attempts.into(), "attempt", "attempts");
        out.line(&format!("{} ({attempts}{again}):", n.notice_id))?;
        out.line(&format!("  {}", n.error))?;
    }
    Ok(())
}

async fn release(mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
    let released = client
        .release_notices(v1::ReleaseNoticesRequest {})
        .await?
        .into_inner();
    match out.is_table() {
        true => out.line("The first notices are sent now. See `purgectl notices`.")?,
        false => out.one(&views::notices_released(&released))?,
    }
    Ok(exit::DONE)
}

fn preview(found: &v1::PreviewNoticesResponse, out: &mut Out) -> Result<u8, CtlError> {
    if !out.is_table() {
        out.one(&views::notices_preview(found))?;
        return Ok(exit::DONE);
    }
    for draft in &found.drafts {
        out.words(&heading(draft))?;
        if !draft.notice_id.is_empty() {
            let due = when(draft.due_at);
            out.line(&format!("Waits as {} until {due}", draft.notice_id))?;
        }
        out.line(&format!(
            "Subject: {}",
            paths::printable(draft.subject.as_bytes())
        ))?;
        out.line("")?;
        for line in draft.text.trim_end().lines() {
            let indent = if line.trim().is_empty() { "" } else { "  " };
            out.line(&format!(
                "{indent}{}",
                paths::printable(line.trim_end().as_bytes())
            ))?;
        }
        out.line("")?;
    }
    if found.left_out > 0 {
        let more = plural(found.left_out, "notice", "notices");
        out.line(&format!("{more} more: choose with --user or --event."))?;
    }
    for line in summary(found) {
        out.words(&line)?;
    }
    Ok(exit::DONE)
}

/// `To alice <alice@example.org>, by smtp: will-expire, over-quota`.
fn heading(draft: &v1::NoticeDraft) -> String {
    let who = match draft.user.is_empty() {
        true => "the operator".to_owned(),
        false => paths::printable(draft.user.as_bytes()),
    };
    let address = match draft.address.is_empty() {
        true => String::new(),
        false => format!(" <{}>", paths::printable(draft.address.as_bytes())),
    };
    format!(
        "To {who}{address}, by {}: {}",
        draft.sink,
        draft.events.join(", ")
    )
}

/// How many there are, and when they are sent.
fn summary(found: &v1::PreviewNoticesResponse) -> [String; 2] {
    let count = (found.drafts.len() as u64).saturating_add(found.left_out);
    let when = match (found.dry_run, found.held_until) {
        (true, _) => "Nothing is sent: notify.dry_run is on.".to_owned(),
        (_, Some(_)) => {
            let at = when(found.held_until);
            format!("To owners at {at}, or with `purgectl notices release`.")
        }
        _ => "The agent sends what is due by itself.".to_owned(),
    };
    match count {
        0 => [
            "Nothing would be sent now.".to_owned(),
            "With --again: what was told already.".to_owned(),
        ],
        _ => [
            format!(
                "{}; this command has sent nothing.",
                plural(count, "notice", "notices")
            ),
            when,
        ],
    }
}

/// The kind of its first event, and how many others there are.
fn what(n: &v1::Notice) -> String {
    let first = n.events.first().map(|e| e.event.as_str()).unwrap_or_default();
    match n.events.len().saturating_sub(1) {
        0 => first.into(),
        others => format!("{first} +{others}"),
    }
}
