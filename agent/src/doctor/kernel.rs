//! What the kernel has of what the agent uses, as it was tried, and what its absence means.

use super::Finding;
use purge_collect::listeners;
use purge_sys::fanotify::{Feature, Features};
use purge_sys::openers;

/// What a volume's kernel and file system give.
pub(super) fn features(there: Features) -> Finding {
    let names = |features: &mut dyn Iterator<Item = Feature>| {
        features.map(Feature::name).collect::<Vec<_>>().join(", ")
    };
    let missing = names(&mut there.missing());
    if missing.is_empty() {
        // Whether names move in one step is found out where something is moved.
        let mut tried = Feature::ALL.into_iter().filter(|f| *f != Feature::NoReplace);
        let all = names(&mut tried);
        return Finding::good(
            "features",
            format!("the kernel has all that the agent uses ({all})"),
        );
    }
    let mut absences: Vec<&str> = there.missing().map(Feature::absence).collect();
    absences.dedup();
    Finding::note(
        "features",
        format!("the kernel lacks {missing}: {}", absences.join("; ")),
        "no use is lost by that; a newer kernel has what is missing",
    )
}

/// Whether a process that waits for a virus scanner before it opens a file is seen by the last look of a removal.
pub(super) fn waiting_openers() -> Finding {
    let sees = match openers::are_seen() {
        Ok(true) => {
            return Finding::good(
                "openers",
                "a lease is refused while a process waits to open the file",
            );
        }
        Ok(false) => {
            "a lease is granted while a process waits to open the file (for a virus scanner's answer)"
                .to_owned()
        }
        Err(error) => format!(
            "it cannot be tried whether a lease is refused while a process waits to open the file: {error}"
        ),
    };
    let scanners = listeners::that_decide_on_opens();
    match scanners.words() {
        None => Finding::good("openers", format!("{sees}; no process decides on opens")),
        Some(who) => Finding::note(
            "openers",
            format!("{sees}, and {who}"),
            "give each rule a grace: a process that waits for the scanner at the moment of a removal may get a file that is just removed; \
             its data is in the trash for as long as the grace lasts",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_it_means() {
        assert_eq!(features(Features::ALL).verdict, Verdict::Good);
        for feature in Feature::ALL {
            let found = features(Features::ALL.without(feature));
            assert_eq!(found.verdict, Verdict::Note);
            assert!(
                found.found.contains(feature.name()) && found.found.contains(feature.absence()),
                "{found:?}"
            );
        }
        let both = features(Features::ALL.without(Feature::Rename).without(Feature::TargetFid)).found;
        assert!(both.contains("target_fid, rename"), "{both}");
        assert_eq!(both.matches(Feature::Rename.absence()).count(), 1, "{both}");
    }
}
