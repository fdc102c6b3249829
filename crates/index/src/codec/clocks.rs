//! Clock rows.

use purge_format::Damaged;
use purge_model::Source;

/// Appends a clock row.
pub fn put_clocks(out: &mut Vec<u8>, present: u64, clocks: &[u32], sources: &[u8]) {
    out.extend_from_slice(&present.to_le_bytes());
    for clock in clocks {
        out.extend_from_slice(&clock.to_le_bytes());
    }
    out.extend_from_slice(sources);
}

/// Reads a clock row: which offsets are present, their access times and sources.
///
/// # Errors
/// [`Damaged`] when the length does not fit the number of entries, or a source has no meaning.
pub fn read_clocks(row: &[u8]) -> Result<(u64, Vec<u32>, Vec<u8>), Damaged> {
    let damaged = |at| Damaged { row: "clock", at };
    let (present, rest) = split_present(row).ok_or(damaged(0))?;
    let count = present.count_ones() as usize;
    if rest.len() != count * 5 {
        return Err(damaged(row.len()));
    }
    let (clocks, sources) = rest.split_at(count * 4);
    if sources.iter().any(|s| Source::from_u8(*s).is_none()) {
        return Err(damaged(8 + count * 4));
    }
    let clocks = clocks
        .as_chunks::<4>()
        .0
        .iter()
        .map(|c| u32::from_le_bytes(*c))
        .collect();
    Ok((present, clocks, sources.to_vec()))
}

/// The first eight bytes of a clock or attribute row, and the rest.
pub fn split_present(row: &[u8]) -> Option<(u64, &[u8])> {
    row.split_first_chunk::<8>()
        .map(|(head, rest)| (u64::from_le_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn clocks_come_back_as_they_were_put(present: u64, seed: u32) {
            let n = present.count_ones();
            let clocks: Vec<u32> = (0..n).map(|i| seed.wrapping_mul(i)).collect();
            let sources: Vec<u8> = (0..n).map(|i| (i % 7) as u8).collect();
            let mut row = Vec::new();
            put_clocks(&mut row, present, &clocks, &sources);
            prop_assert_eq!(read_clocks(&row).unwrap(), (present, clocks, sources));
        }
    }
}
