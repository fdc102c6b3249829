//! Telling people and programs what happened, or will, on a volume: once, in time, in words that help.
//!
//! ```text
//!   host (looks) --Event--> Outbox --Notice--> sender, one a sink --> smtp | webhook | amqp | exec
//!        |                    |                    |
//!     Memory               STATE_DIR/notices    text: templates -> subject and body
//!   what was told       one file a notice
//! ```
//! - [`settings`] which sinks there are, and what each gets (values); [`url`] addresses that may hold a secret
//! - [`event`]    what there is to tell (values)
//! - [`expiring`] whose files will expire, and whether they know (pure)
//! - [`memory`]   what was told already
//! - [`digest`]   into which notice an event goes, and when that is due (pure)
//! - [`notice`]   what one sink tells one audience (values)
//! - [`receipts`] what sinks have answered: outlives the process
//! - [`outbox`]   notices that wait, were sent, or failed: durable
//! - [`text`]     a notice in words
//! - [`address`]  an owner's mail address
//! - [`tally`]    who lost what in a run
//! - [`sink`]     the means: mail, HTTP, AMQP, a program
//! - [`preview`]  what would be sent now
//! - [`sender`]   one task a sink: sends, waits, tries again
//!
//! What may never happen: that a purge or the collector waits for a sink; that a sink sends an event twice (an event
//! has a name that is the same each time it is found); that a notice is lost because no sink took it in time.
//!
//! Where sending twice cannot be excluded: a sink that took a notice and could not say so, because the connection broke or the agent
//! was killed before it had read the answer and noted it in memory that outlives it ([`receipts`]). The second one carries the same
//! name, as Message-ID, `webhook-id`, AMQP message id or PURGE_NOTICE_ID, so that the receiver can tell.

pub mod address;
pub mod digest;
pub mod event;
pub mod expiring;
mod file;
pub mod memory;
pub mod notice;
pub mod outbox;
pub mod preview;
pub mod receipts;
pub mod sender;
pub mod settings;
pub mod sink;
pub mod tally;
pub mod text;
pub mod url;
