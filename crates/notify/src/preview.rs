//! What would be sent now, in the words of each sink: nothing is sent, and nothing is noted.

use std::collections::BTreeMap;

use super::address;
use super::event::{Audience, Entry, Event, Kind};
use super::notice::Notice;
use super::sender::Notifier;
use super::sink::Letter;
use crate::settings::{Means, Notify, Sink};

/// The name of a notice that is not made.
const NOT_MADE: &str = "preview";

/// An event with the entries that it speaks of.
pub type Found = (Event, Vec<Entry>);

/// A notice as it would be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// By which sink.
    pub sink: String,
    /// To whom.
    pub to: Audience,
    /// The address, of a mail; or why there is none.
    pub address: String,
    /// What it tells.
    pub kinds: Vec<Kind>,
    /// One line.
    pub subject: String,
    /// The text.
    pub body: String,
    /// The notice that waits already; none: it would be made.
    pub waiting: Option<Waiting>,
}

/// A notice that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub notice_id: String,
    /// When it is sent, seconds since 1970.
    pub due_at: u64,
}

/// Whose notices are asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this user, by name or by number in digits; none: of all, the operator among them.
    pub user: Option<String>,
    /// That tell of this.
    pub kind: Option<Kind>,
}

impl Wanted {
    /// Whether a notice is asked for.
    fn has(&self, to: &Audience, kinds: &[Kind]) -> bool {
        let of_user = self.user.as_ref().is_none_or(|wanted| match to {
            Audience::Owner { user, uid } => user == wanted || uid.to_string() == *wanted,
            Audience::Operator => false,
        });
        of_user && self.kind.is_none_or(|wanted| kinds.contains(&wanted))
    }
}

impl Notifier {
    /// The notices that wait, and those that `found` would make: the first `most` of them, and how many they are.
    pub fn drafts(&self, found: &[Found], wanted: &Wanted, most: usize) -> (Vec<Draft>, usize) {
        let notify = self.config();
        let (mut drafts, mut count) = (Vec::new(), 0usize);
        // How many there are costs little, and to write one much.
        let mut is_to_be_made = || {
            count = count.saturating_add(1);
            count <= most
        };
        for sink in &notify.sinks {
            let waiting = self.outbox.list(|n| n.sink == sink.name && !n.is_over());
            for notice in waiting.into_iter().rev() {
                let due = Waiting {
                    notice_id: notice.notice_id.clone(),
                    due_at: notice.due_at,
                };
                if wanted.has(&notice.to, &kinds(&notice)) && is_to_be_made() {
                    let lists = notice.events.iter().map(|e| self.outbox.entries(e)).collect();
                    drafts.push(self.draft((&notify, sink), notice, lists, Some(due)));
                }
            }
            for (notice, lists) in made(sink, found) {
                if wanted.has(&notice.to, &kinds(&notice)) && is_to_be_made() {
                    drafts.push(self.draft((&notify, sink), notice, lists, None));
                }
            }
        }
        (drafts, count)
    }

    fn draft(
        &self,
        (notify, sink): (&Notify, &Sink),
        notice: Notice,
        lists: Vec<Vec<Entry>>,
        waiting: Option<Waiting>,
    ) -> Draft {
        let (to, kinds) = (notice.to.clone(), kinds(&notice));
        let letter = self.letter(sink, notice, lists);
        Draft {
            sink: sink.name.clone(),
            to,
            address: address_of(notify, sink, &letter),
            kinds,
            subject: letter.words.subject,
            body: letter.words.body,
            waiting,
        }
    }
}

fn kinds(notice: &Notice) -> Vec<Kind> {
    notice.events.iter().map(|e| e.what.kind()).collect()
}

fn address_of(notify: &Notify, sink: &Sink, letter: &Letter) -> String {
    let Means::Smtp(smtp) = &sink.means else {
        return String::new();
    };
    match (letter.owner(), &smtp.operator) {
        (None, Some(operator)) => operator.clone(),
        (owner, _) => address::of(owner.unwrap_or("root"), &notify.addresses, &smtp.to)
            .unwrap_or_else(|why| format!("unknown: {why}")),
    }
}

/// The notices that a sink would make of events: one an owner where it has a digest, else one an event.
fn made(sink: &Sink, found: &[Found]) -> Vec<(Notice, Vec<Vec<Entry>>)> {
    let mut digests: BTreeMap<&Audience, (Notice, Vec<Vec<Entry>>)> = BTreeMap::new();
    let mut alone = Vec::new();
    for (event, entries) in found.iter().filter(|(e, _)| sink.events.contains(&e.what.kind())) {
        let new = || (Notice::new(NOT_MADE.into(), sink, &event.to, 0), Vec::new());
        let is_alone = sink.digest == 0 || event.to == Audience::Operator;
        let mut own = new();
        let (notice, lists) = match is_alone {
            true => &mut own,
            false => digests.entry(&event.to).or_insert_with(new),
        };
        notice.events.push(event.clone());
        lists.push(entries.clone());
        if is_alone {
            alone.push(own);
        }
    }
    alone.extend(digests.into_values());
    alone
}
