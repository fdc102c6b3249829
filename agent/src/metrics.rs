//! What the agent counts, in Prometheus' text format. Names follow its conventions: base units, `_total` for counters.
//!
//! - `page`    the text format
//! - `volumes` how the volumes are
//! - `work`    what the work on them came to

mod page;
mod volumes;
mod work;

use std::fmt::Write;

use self::page::Page;
use crate::host::Host;
use crate::host::roster::Member;
use crate::volume::State;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a host.
pub fn render(host: &Host) -> String {
    let mut page = Page::default();
    page.metric(
        "info",
        "gauge",
        "The agent's version.",
        [(format!("version={:?}", env!("CARGO_PKG_VERSION")), 1)],
    );
    page.single(
        "uptime_seconds",
        "gauge",
        "Since the agent started.",
        host.uptime().as_secs(),
    );
    page.single(
        "resident_bytes",
        "gauge",
        "Memory of the agent.",
        purge_sys::memory::resident_bytes(),
    );
    page.single("index_bytes", "gauge", "The index on disk.", host.index_bytes());
    notices(&mut page, host);
    volumes::render(&mut page, host);
    work::render(&mut page, host);
    page.text
}

/// By sink. What was sent or given up long ago is forgotten, so these are no counters.
fn notices(page: &mut Page, host: &Host) {
    let counts = host.notifier.counts();
    for (position, state) in ["waiting", "sent", "failed"].into_iter().enumerate() {
        let help = match state {
            "waiting" => "Notices that no sink has taken yet.",
            "sent" => "Notices that were sent, of those that are remembered.",
            _ => "Notices that were given up, of those that are remembered.",
        };
        let values = counts.iter().map(|(sink, by_state)| {
            let value = by_state.get(position).copied().unwrap_or(0);
            (format!("sink={sink:?}"), value)
        });
        page.metric(&format!("notices_{state}"), "gauge", help, values);
    }
}

/// Whether every volume is well; if not, why.
///
/// # Errors
/// A line for each volume that is degraded.
pub fn health(host: &Host) -> Result<(), String> {
    let mut why = String::new();
    for member in host.ground.members() {
        let state = match &member {
            Member::Watched(volume) => volume.condition().state,
            Member::Absent(absent) => State::Degraded(absent.words.clone()),
        };
        if let State::Degraded(reason) = state {
            let _ = writeln!(why, "volume {}: {reason}", member.name());
        }
    }
    if why.is_empty() { Ok(()) } else { Err(why) }
}
