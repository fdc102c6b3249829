//! Progress on stderr, where a person looks.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::Out;
use super::table::count;

/// A bar for a known total, or a counter for an unknown one; nothing where stderr is no terminal.
pub fn bar(out: &Out, total: u64, what: &'static str) -> ProgressBar {
    if out.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match total {
        0 => "{msg} {human_pos} {rate}",
        _ => "{msg} {bar:30} {percent}% {human_pos}/{human_len} {rate} {eta}",
    };
    let bar = ProgressBar::new(total).with_message(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.with_key("rate", write_rate)),
        Err(_) => bar,
    }
}

/// Whole items a second.
fn write_rate(state: &ProgressState, to: &mut dyn std::fmt::Write) {
    // No rate is negative, and none has more digits than u64.
    let _ = write!(to, "{}/s", count(state.per_sec().round() as u64));
}
