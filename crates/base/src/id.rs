//! Names for plans, runs and holds: short enough to type, in the order of time, never given twice.

use purge_model::Seconds;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Digits for the seconds since 1970: enough until 2106.
const TIME_DIGITS: usize = 7;
/// Random digits, so that two of one second differ.
const RANDOM_DIGITS: usize = 4;

/// Characters of a name.
pub const LENGTH: usize = 1 + TIME_DIGITS + RANDOM_DIGITS;
/// Characters of a name that say when it was given: its letter, and the time.
pub const TIMED: usize = 1 + TIME_DIGITS;

/// A new name that starts with `prefix`.
pub fn new_id(prefix: char, now: Seconds) -> String {
    let mut random = [0u8; 8];
    // Without randomness the process's own clock has to do: names of one second may then collide, and the caller
    // finds that out when it saves.
    if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        random = (std::time::Instant::now().elapsed().as_nanos() as u64).to_le_bytes();
    }
    let mut id = String::from(prefix);
    push_digits(&mut id, now.0.into(), TIME_DIGITS);
    push_digits(&mut id, u64::from_le_bytes(random), RANDOM_DIGITS);
    id
}

fn push_digits(out: &mut String, mut n: u64, count: usize) {
    let mut digits = Vec::with_capacity(count);
    for _ in 0..count {
        digits.push(DIGITS.get((n % 36) as usize).copied().unwrap_or(b'0'));
        n /= 36;
    }
    out.extend(digits.iter().rev().map(|d| char::from(*d)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_names_sort_later() {
        assert!(new_id('p', Seconds(100)) < new_id('p', Seconds(101)));
        assert!(new_id('p', Seconds(1_800_000_000)) < new_id('p', Seconds::MAX));
        assert_eq!(new_id('p', Seconds(0)).len(), 12);
    }
}
