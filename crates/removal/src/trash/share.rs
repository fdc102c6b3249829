//! A run's part of the trash, and its name.

/// The end of the name of a run's share while the run is going on.
const OPEN: &str = ".open";
/// In the place of a grace's end in a share's name: there is none.
const KEPT: &str = "kept";

/// A run's part of the trash. What rules take that have different graces lies in different shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The run.
    pub run: String,
    /// When its grace ends, in unix seconds; 0: it has none; [`Share::KEPT`]: never.
    pub until: u64,
    /// The run is going on, or was killed.
    pub open: bool,
}

impl Share {
    /// No grace ends then: what could not be put back is never freed.
    pub const KEPT: u64 = u64::MAX;

    /// Whether it is kept without end.
    pub fn is_kept(&self) -> bool {
        self.until == Self::KEPT
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (rest, open) = match name.strip_suffix(OPEN) {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let (run, until) = rest.rsplit_once('.')?;
        Some(Self {
            run: run.into(),
            until: match until {
                KEPT => Self::KEPT,
                until => until.parse().ok()?,
            },
            open,
        })
    }

    /// Its directory's name.
    pub fn name(&self) -> String {
        let end = if self.open { OPEN } else { "" };
        match self.until {
            Self::KEPT => format!("{}.{KEPT}{end}", self.run),
            until => format!("{}.{until}{end}", self.run),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_are_told_by_their_names(run in "[a-z0-9]{1,20}", until: u64, open: bool) {
            let share = Share { run, until, open };
            prop_assert_eq!(Share::parse(&share.name()), Some(share));
        }

        #[test]
        fn any_name_is_a_share_or_none(name in "\\PC{0,40}") {
            if let Some(share) = Share::parse(&name) {
                let _ = share.name();
            }
        }
    }
}
