//! The screens that people read, on terminals of 80 and 140 columns, with and without colours.

use std::time::{SystemTime, UNIX_EPOCH};

use super::fake::values::set_now;
use super::{compare, purgectl_with};

/// (name, arguments)
const SCREENS: &[(&str, &[&str])] = &[
    ("status", &["status"]),
    ("doctor", &["doctor"]),
    ("plan", &["plan"]),
    ("plan-refused", &["plan", "--rule", "refused"]),
    ("plans", &["plans"]),
    ("plans-all", &["plans", "--all"]),
    ("show", &["show", "p1"]),
    ("find", &["find", "--older", "1d"]),
    ("find-expiring", &["find", "--expiring", "7d"]),
    ("runs", &["runs"]),
    ("run", &["run", "r1"]),
    ("usage", &["usage"]),
    ("usage-age", &["usage", "--age"]),
    ("forecast", &["forecast", "--by", "user"]),
    ("mine", &["mine"]),
    ("explain", &["explain", "/export/scratch/a.dat"]),
    ("hold-list", &["hold", "list"]),
    ("notices", &["notices"]),
];

/// How each is looked at: a name, and the environment.
const LOOKS: [(&str, &[(&str, &str)]); 3] = [
    ("80", &[("COLUMNS", "80")]),
    ("140", &[("COLUMNS", "140")]),
    ("colour", &[("COLUMNS", "80"), ("CLICOLOR_FORCE", "1")]),
];

/// All times are told from this long ago: nothing that is shown changes while the tests run.
const AGO: i64 = 3 * 86_400 + 3_600 + 1_800;

/// Compares all of them.
pub fn compare_all(endpoint: &str, wrong: &mut Vec<String>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    set_now(now as i64 - AGO);
    for (name, arguments) in SCREENS {
        let printed = LOOKS.map(|(look, environment)| {
            let done = purgectl_with(endpoint, arguments, environment);
            let text = without_dates(&String::from_utf8_lossy(&done.stdout));
            compare(&format!("screens/{name}-{look}"), text.as_bytes(), wrong);
            text
        });
        if !printed[2].contains('\x1b') || without_colours(&printed[2]) != printed[0] {
            wrong.push(format!(
                "{name}: colours change more than colours:\n{}",
                printed[2]
            ));
        }
        let quiet = purgectl_with(
            endpoint,
            arguments,
            &[("COLUMNS", "80"), ("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")],
        );
        if quiet.stdout.contains(&0x1b) {
            wrong.push(format!("{name}: colours although NO_COLOR is set"));
        }
        for line in printed[0].lines().filter(|line| !line.contains("/export/")) {
            if line.chars().count() > 80 {
                wrong.push(format!("{name}: longer than 80 columns: {line}"));
            }
        }
        one_form(name, &printed[0], wrong);
    }
}

/// Numbers are grouped, and times have one form.
fn one_form(name: &str, text: &str, wrong: &mut Vec<String>) {
    let is_time_of_programs = |word: &str| word.ends_with('Z') && word.contains('T') && word.contains(':');
    for word in text.split_whitespace() {
        let digits = word.chars().filter(char::is_ascii_digit).count();
        if digits > 4 && digits == word.chars().count() && !text.contains("inode") {
            wrong.push(format!("{name}: a number without separators: {word}"));
        }
        if is_time_of_programs(word) {
            wrong.push(format!("{name}: a time as programs read it: {word}"));
        }
    }
}

/// The text without what a terminal obeys.
fn without_colours(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut plain, part| {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
        plain
    })
}

/// The text with the same date instead of each, and the same day: what is shown is reckoned from the day of the test.
fn without_dates(text: &str) -> String {
    let text = with_instead(text, "dddd-dd-dd dd:dd UTC", "2026-11-29 09:25 UTC");
    with_instead(&text, "dddd-dd-dd", "2026-11-29")
}

/// The text with `new` instead of all that has a form of the same length: `d` is a digit.
fn with_instead(text: &str, form: &str, new: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let fits = |at: &[u8]| {
        let mut pairs = at.iter().zip(form.bytes());
        at.len() == form.len() && pairs.all(|(b, f)| *b == f || (f == b'd' && b.is_ascii_digit()))
    };
    for at in 0..bytes.len() {
        let end = (at + form.len()).min(bytes.len());
        if fits(&bytes[at..end]) {
            bytes[at..end].copy_from_slice(new.as_bytes());
        }
    }
    String::from_utf8(bytes).unwrap()
}
