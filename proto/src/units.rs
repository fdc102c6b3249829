//! Durations, sizes, numbers and times as people write them: `28d`, `1h30m`, `10GB`, `1.5TiB`, `20,000`, `2026-11-29 09:25 UTC`.

/// Seconds of each unit of time, the largest first.
const TIME_UNITS: [(&str, u64); 6] = [
    ("y", 365 * 86_400),
    ("w", 7 * 86_400),
    ("d", 86_400),
    ("h", 3_600),
    ("m", 60),
    ("s", 1),
];

/// Bytes of each unit of size.
const SIZE_UNITS: [(&str, u64); 19] = [
    ("b", 1),
    ("k", 1_000),
    ("kb", 1_000),
    ("kib", 1 << 10),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
    ("t", 1_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("tib", 1 << 40),
    ("p", 1_000_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("pib", 1 << 50),
    ("e", 1_000_000_000_000_000_000),
    ("eb", 1_000_000_000_000_000_000),
    ("eib", 1 << 60),
];

/// What is wrong with a duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Nothing there.
    #[error("is empty: write a number and a unit, such as {example}")]
    Empty {
        /// What would be right.
        example: &'static str,
    },
    /// No number where one must be.
    #[error("has no number at {rest:?}: write a number and a unit, such as {example}")]
    NoNumber {
        /// From where on.
        rest: String,
        /// What would be right.
        example: &'static str,
    },
    /// A number without its unit, or an unknown unit.
    #[error("has no known unit at {rest:?}: the units are {known}")]
    Unit {
        /// From where on.
        rest: String,
        /// What would be right.
        known: &'static str,
    },
    /// More than can be held.
    #[error("is too large")]
    TooLarge,
}

const TIME_KNOWN: &str = "s, m, h, d, w and y (365 days)";
const SIZE_KNOWN: &str =
    "B, kB, MB, GB, TB, PB (powers of 1000) and KiB, MiB, GiB, TiB, PiB (powers of 1024)";

/// Seconds of a duration such as `28d`, `12h`, `1h30m`. A unit is needed, except for `0`.
///
/// ```
/// assert_eq!(purge_proto::units::parse_duration("1h30m"), Ok(5400));
/// assert!(purge_proto::units::parse_duration("28").is_err());
/// ```
///
/// # Errors
/// [`UnitError`] says what is wrong and where.
pub fn parse_duration(text: &str) -> Result<u64, UnitError> {
    let example = "28d";
    let mut rest = text.trim();
    match rest {
        "" => return Err(UnitError::Empty { example }),
        "0" => return Ok(0),
        _ => {}
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(UnitError::NoNumber {
                rest: rest.into(),
                example,
            });
        }
        let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, next) = after.split_at(letters);
        let seconds = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, s)| *s);
        let seconds = seconds.ok_or_else(|| UnitError::Unit {
            rest: rest.into(),
            known: TIME_KNOWN,
        })?;
        let part = number.checked_mul(seconds).ok_or(UnitError::TooLarge)?;
        total = total.checked_add(part).ok_or(UnitError::TooLarge)?;
        rest = next;
    }
    Ok(total)
}

/// A duration as [`parse_duration`] reads it, exact.
pub fn format_duration(seconds: u64) -> String {
    if seconds == 0 {
        return "0s".into();
    }
    let mut left = seconds;
    let mut out = String::new();
    // Weeks and years are for reading, not for writing: "28d" is what people expect to see again.
    for (unit, size) in TIME_UNITS.iter().filter(|(u, _)| !matches!(*u, "y" | "w")) {
        if left >= *size {
            out.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    out
}

/// Bytes of a size such as `10GB` (10^10), `10GiB` (10 x 2^30), `1.5TB`, `512`.
///
/// # Errors
/// [`UnitError`] says what is wrong and where.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let example = "10GB";
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty { example });
    }
    let digits = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, unit) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(UnitError::NoNumber {
            rest: text.into(),
            example,
        });
    }
    let unit = unit.trim_start();
    let bytes = match unit {
        "" => Some(1),
        _ => SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, b)| *b),
    };
    let bytes = bytes.ok_or_else(|| UnitError::Unit {
        rest: unit.into(),
        known: SIZE_KNOWN,
    })?;
    let whole: u64 = whole.parse().map_err(|_| UnitError::TooLarge)?;
    // Digits beyond the eighteenth are less than a byte of any unit.
    let fraction = fraction.get(..fraction.len().min(18)).unwrap_or("0");
    let parts: u64 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().map_err(|_| UnitError::TooLarge)?
    };
    let of = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
    let total = u128::from(whole) * u128::from(bytes) + u128::from(parts) * u128::from(bytes) / of;
    u64::try_from(total).map_err(|_| UnitError::TooLarge)
}

/// A size for people: at most four digits and a binary unit.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&"EiB"))
}

/// The units that a configured size is shown in, the largest first.
const LIMIT_UNITS: [(&str, u64); 11] = [
    ("PB", 1_000_000_000_000_000),
    ("PiB", 1 << 50),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Digits behind the point that a configured size may have.
const LIMIT_DECIMALS: usize = 3;
/// A configured size that takes more characters is shown as a measured one is.
const LIMIT_CHARACTERS: usize = 9;

/// A size that stands in a configuration, as it was written there: `150 MB`, not `143.1 MiB`. A size that is round in no unit is shown as
/// [`format_size`] shows it.
pub fn format_limit(bytes: u64) -> String {
    let written = LIMIT_UNITS.iter().filter_map(|unit| exact(bytes, *unit));
    let shortest = written.min_by_key(String::len);
    shortest
        .filter(|text| text.len() <= LIMIT_CHARACTERS)
        .unwrap_or_else(|| format_size(bytes))
}

/// A size in one unit, if a few digits say it exactly.
fn exact(bytes: u64, (name, unit): (&str, u64)) -> Option<String> {
    let whole = bytes / unit;
    if whole == 0 && unit > 1 {
        return None;
    }
    let thousandths = u128::from(bytes % unit) * 10u128.pow(LIMIT_DECIMALS as u32);
    if !thousandths.is_multiple_of(u128::from(unit)) {
        return None;
    }
    let digits = format!("{:0LIMIT_DECIMALS$}", thousandths / u128::from(unit));
    Some(match digits.trim_end_matches('0') {
        "" => format!("{whole} {name}"),
        digits => format!("{whole}.{digits} {name}"),
    })
}

/// A number with separators: `1,234,567`.
pub fn format_count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Days of 400 years, and from 1 March of the year 0 to 1 January 1970.
const DAYS_OF_ERA: i64 = 146_097;
const DAYS_TO_1970: i64 = 719_468;

/// A time, in seconds since 1970, for people: `2026-11-29 09:25 UTC`.
///
/// ```
/// assert_eq!(purge_proto::units::format_time(1_795_944_300), "2026-11-29 09:25 UTC");
/// ```
pub fn format_time(unix: i64) -> String {
    let (days, seconds) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    // The day of the civil calendar, counted in years that begin on 1 March: a leap day is the last of its year.
    let shifted = days.saturating_add(DAYS_TO_1970);
    let (era, of_era) = (shifted.div_euclid(DAYS_OF_ERA), shifted.rem_euclid(DAYS_OF_ERA));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let (month, next) = match shifted_month {
        m @ 0..=9 => (m + 3, 0),
        m => (m - 9, 1),
    };
    let year = era.saturating_mul(400).saturating_add(year_of_era + next);
    let (hour, minute) = (seconds / 3_600, seconds % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, seconds) in [
            ("28d", 2_419_200),
            ("12h", 43_200),
            ("1h30m", 5_400),
            ("2w", 1_209_600),
            ("1y", 31_536_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
        for text in ["", "28", "d", "1x", "1d2", "-1d", "1 d", "9999999999999y", "1.5d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_duration("28").map_err(|e| e.to_string()),
            Err("has no known unit at \"28\": the units are s, m, h, d, w and y (365 days)".into())
        );
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("512", 512),
            ("10GB", 10_000_000_000),
            ("10GiB", 10 << 30),
            ("1.5TB", 1_500_000_000_000),
            ("0B", 0),
            ("1.5KiB", 1536),
            ("1 KiB", 1024),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "1..5GB", "1.GB", "1XB", "-1", "99999999999PB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(format_size(1023), "1023 B");
        assert_eq!(format_size(1536), "1.5 KiB");
        assert_eq!(format_size(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn a_configured_size_is_shown_as_it_was_written() {
        for text in [
            "150 MB", "40 TB", "80 TB", "10 GiB", "1.5 TiB", "1.25 TB", "100 GB", "512 B", "0 B", "1 KiB",
            "1 kB", "2 PB",
        ] {
            let bytes = parse_size(text).unwrap_or_default();
            assert_eq!(format_limit(bytes), text);
        }
        assert_eq!(format_limit(1_234_567_891), "1.1 GiB");
        assert_eq!(format_limit(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn times_and_numbers_for_people() {
        for (unix, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_200, "2024-03-01 00:00 UTC"),
            (4_107_542_340, "2100-02-28 23:59 UTC"),
            (-1, "1969-12-31 23:59 UTC"),
        ] {
            assert_eq!(format_time(unix), text);
        }
        assert_eq!(
            (format_count(999), format_count(1_234_567)),
            ("999".into(), "1,234,567".into())
        );
    }

    proptest! {
        #[test]
        fn a_limit_is_shown_exactly_or_as_measured(bytes: u64) {
            let shown = format_limit(bytes);
            prop_assert!(parse_size(&shown) == Ok(bytes) || shown == format_size(bytes));
        }

        #[test]
        fn no_time_makes_it_panic(unix: i64) {
            let _ = format_time(unix);
        }

        #[test]
        fn durations_are_read_as_they_were_written(seconds: u64) {
            prop_assert_eq!(parse_duration(&format_duration(seconds)), Ok(seconds));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,12}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
            let _ = parse_size(&format!("9{text}"));
        }
    }
}
