//! Progress on stderr, where a person looks.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::Out;

/// A bar for a known total, or a counter for an unknown one; nothing where nobody looks.
pub fn bar(out: &Out, total: u64, what: &'static str) -> ProgressBar {
    if out.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match total {
        0 => "{msg} {human_pos} {per_sec}",
        _ => "{msg} {bar:30} {percent}% {human_pos}/{human_len} {per_sec} {eta}",
    };
    let bar = ProgressBar::new(total).with_message(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
