//! Whether what was deleted came free. Pure.
//!
//! A snapshot, a copy by reflink, or a snapshot of the volume below the file system keeps blocks that no file here uses any more:
//! to delete more does not help then. Use is compared before and after; what others wrote meanwhile is known from the index.

/// How full a volume was at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Bytes in use on the file system.
    pub used: u64,
    /// Inodes in use on the file system.
    pub inodes_used: u64,
    /// What the volume's files take on disk.
    pub allocated: u64,
    /// The volume's files.
    pub files: u64,
}

/// Bytes and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
}

impl Amount {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }
}

/// What came free between two moments, with what was written meanwhile. `taken` was removed from the volume's files by the agent,
/// and `grown` is what others wrote, as far as it is known besides.
pub fn freed(before: Moment, after: Moment, taken: Amount, grown: Amount) -> Amount {
    let part = |used: (u64, u64), own: (u64, u64), taken: u64, grown: u64| {
        // What users removed themselves is not counted back: where it came free, that is no harm.
        let written = own.1.saturating_add(taken).saturating_sub(own.0);
        used.0.saturating_add(written.max(grown)).saturating_sub(used.1)
    };
    Amount {
        bytes: part(
            (before.used, after.used),
            (before.allocated, after.allocated),
            taken.bytes,
            grown.bytes,
        ),
        files: part(
            (before.inodes_used, after.inodes_used),
            (before.files, after.files),
            taken.files,
            grown.files,
        ),
    }
}

/// What grew in `seconds`, from what grew in the last `of` seconds of them.
pub fn grown(from: Moment, to: Moment, of: u64, seconds: u64) -> Amount {
    let part = |from: u64, to: u64| {
        let grown = u128::from(to.saturating_sub(from)).saturating_mul(seconds.into());
        u64::try_from(grown.checked_div(of.into()).unwrap_or(0)).unwrap_or(u64::MAX)
    };
    Amount {
        bytes: part(from.used, to.used),
        files: part(from.inodes_used, to.inodes_used),
    }
}

/// Smaller promises say nothing: the file system's own bookkeeping is as large. They are added up.
pub const TELLING: Amount = Amount {
    bytes: 1 << 20,
    files: 16,
};

/// What a measurement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// At least half of what was promised came free.
    Helps,
    /// Less did.
    Useless,
    /// Too little was promised.
    Unclear,
}

/// Compares what was promised with what came free. `wanted`: whether space, and whether inodes, were to come free; one of the two
/// that does is enough.
pub fn judge(promised: Amount, freed: Amount, wanted: (bool, bool)) -> Verdict {
    let part = |wanted: bool, promised: u64, freed: u64, telling: u64| match wanted {
        false => None,
        true if promised < telling => Some(Verdict::Unclear),
        true if freed >= promised.div_ceil(2) => Some(Verdict::Helps),
        true => Some(Verdict::Useless),
    };
    let both = [
        part(wanted.0, promised.bytes, freed.bytes, TELLING.bytes),
        part(wanted.1, promised.files, freed.files, TELLING.files),
    ];
    let is = |what| both.contains(&Some(what));
    match () {
        () if is(Verdict::Helps) => Verdict::Helps,
        () if is(Verdict::Unclear) || !is(Verdict::Useless) => Verdict::Unclear,
        () => Verdict::Useless,
    }
}

/// A part of `whole`, as `of` is a part of `all`: by bytes or by files, where more went.
pub fn scaled(whole: u64, (bytes, all_bytes): (u64, u64), (files, all_files): (u64, u64)) -> u64 {
    let by = |of: u64, all: u64| {
        let part = u128::from(whole).saturating_mul(of.min(all).into());
        u64::try_from(part.checked_div(all.into()).unwrap_or(0)).unwrap_or(whole)
    };
    by(bytes, all_bytes).max(by(files, all_files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment(used: u64, allocated: u64) -> Moment {
        Moment {
            used,
            allocated,
            ..Moment::default()
        }
    }

    fn bytes(bytes: u64) -> Amount {
        Amount { bytes, files: 0 }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_others_write_meanwhile_is_not_held_against_the_run() {
        // 100 were removed and came free, and 100 were written.
        let (before, after) = (moment(900, 900), moment(900, 900));
        assert_eq!(freed(before, after, bytes(100), bytes(0)), bytes(100));
        // 100 were removed, and nothing came free.
        let after = moment(900, 800);
        assert_eq!(freed(before, after, bytes(100), bytes(0)), bytes(0));
        // Others wrote 50 outside the volume.
        assert_eq!(freed(before, after, bytes(100), bytes(50)), bytes(50));
    }

    #[test]
    fn one_of_two_wants_that_is_met_is_enough() {
        let promised = Amount {
            bytes: 10 * MIB,
            files: 100,
        };
        let inodes = Amount { bytes: 0, files: 90 };
        assert_eq!(judge(promised, inodes, (true, true)), Verdict::Helps);
        assert_eq!(judge(promised, inodes, (true, false)), Verdict::Useless);
        assert_eq!(judge(bytes(MIB - 1), bytes(0), (true, false)), Verdict::Unclear);
        assert_eq!(judge(promised, inodes, (false, false)), Verdict::Unclear);
    }

    proptest! {
        /// For any amount written meanwhile: a run that frees everything helps, and one that frees nothing does not.
        #[test]
        fn growth_changes_no_verdict(
            taken in MIB..(1 << 40),
            written in 0u64..(1 << 40),
            used in (1u64 << 41)..(1 << 42),
        ) {
            let before = moment(used, used);
            let own = used - taken + written;
            let good = freed(before, moment(used - taken + written, own), bytes(taken), bytes(0));
            prop_assert_eq!(judge(bytes(taken), good, (true, false)), Verdict::Helps);
            let bad = freed(before, moment(used + written, own), bytes(taken), bytes(0));
            prop_assert_eq!(judge(bytes(taken), bad, (true, false)), Verdict::Useless);
        }

        #[test]
        fn a_part_is_no_more_than_the_whole(whole: u64, a: (u64, u64), b: (u64, u64)) {
            prop_assert!(scaled(whole, a, b) <= whole);
        }
    }
}
