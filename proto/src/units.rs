//! Durations and sizes as people write them: `28d`, `1h30m`, `10GB`, `1.5TiB`.

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

    proptest! {
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
