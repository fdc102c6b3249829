//! `purgectl plans`

use clap::Args;
use purge_proto::units::format_size;
use purge_proto::v1;

use super::PAGE_ROWS;
use crate::connect::Client;
use crate::error::{CtlError, exit};
use crate::output::Out;
use crate::output::table::{Align, Cell, Table, age, count, plural};
use crate::views;

/// Arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "ID stands for a plan's name here and in every other command; so do its first characters where no other plan's \
                  name begins so, and `latest`."
)]
pub struct Plans {
    /// Also those that take nothing.
    #[arg(long)]
    all: bool,
}

impl Plans {
    pub(super) async fn run(&self, mut client: Client, out: &mut Out) -> Result<u8, CtlError> {
        let plans = every(&mut client).await?;
        if !out.is_table() {
            let views: Vec<_> = plans.iter().map(views::plan).collect();
            out.all(&views)?;
            return Ok(exit::DONE);
        }
        let takes = |plan: &v1::Plan| views::entries(&plan.candidates.unwrap_or_default()) > 0;
        let (shown, empty): (Vec<_>, Vec<_>) = plans.iter().partition(|p| self.all || takes(p));
        match (plans.is_empty(), shown.is_empty()) {
            (true, _) => out.line("No plans yet: purgectl plan")?,
            (false, true) => {}
            (false, false) => table(&shown).print(out, 0)?,
        }
        if !empty.is_empty() {
            let n = plural(empty.len() as u64, "plan takes", "plans take");
            out.line(&format!("{n} nothing: --all lists them as well"))?;
        }
        Ok(exit::DONE)
    }
}

/// All saved plans, newest first: the agent keeps a bounded number.
pub(super) async fn every(client: &mut Client) -> Result<Vec<v1::Plan>, CtlError> {
    let (mut plans, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListPlansRequest {
            page_size: PAGE_ROWS,
            page_token,
        };
        let page = client.list_plans(request).await?.into_inner();
        plans.extend(page.plans);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(plans);
        }
    }
}

fn table(plans: &[&v1::Plan]) -> Table {
    let mut table = Table::new(&[
        ("PLAN", Align::Left),
        ("VOLUME", Align::Left),
        ("FOR", Align::Left),
        ("BY", Align::Left),
        ("AGE", Align::Right),
        ("TAKES", Align::Right),
        ("SIZE", Align::Right),
        ("STATE", Align::Left),
    ]);
    for plan in plans {
        table.row(row(plan));
    }
    table.without_if_alike("VOLUME")
}

fn row(p: &v1::Plan) -> [Cell; 8] {
    let t = p.candidates.unwrap_or_default();
    let left = p
        .expires_at
        .map_or(0, |at| at.seconds.saturating_sub(chrono::Utc::now().timestamp()));
    let state = match (p.run_id.is_empty(), p.refusal.is_empty(), u64::try_from(left)) {
        (false, ..) => "applied".into(),
        (true, false, _) => "refused".into(),
        (true, true, Ok(left @ 1..)) => format!("open for {}", age(left)),
        (true, true, _) => "expired".into(),
    };
    // A rule, a quota or a watermark that asks by itself is named in the column before.
    let by = match p.requested_by.as_str() {
        "uid 0" => "root",
        by if by.starts_with("uid ") || by.starts_with("certificate ") => by,
        "" => "-",
        _ => "agent",
    };
    [
        p.plan_id.clone().into(),
        p.volume.clone().into(),
        made_for(p).into(),
        by.into(),
        age(super::age_of(p.created_at)).into(),
        count(views::entries(&t)).into(),
        format_size(t.bytes).into(),
        Cell::state(state),
    ]
}

/// The rules, the quota or the watermark that a plan was made for, in a few words.
fn made_for(p: &v1::Plan) -> String {
    if !p.trigger.is_empty() {
        return p.trigger.clone();
    }
    match p.rules.as_slice() {
        [] => "-".into(),
        [one] => one.rule.clone(),
        [first, rest @ ..] => format!("{} +{}", first.rule, rest.len()),
    }
}
