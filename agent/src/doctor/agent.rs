//! The agent's own certificate, what of the configuration waits for a restart, and lists that could not be published.

use super::Finding;
use crate::in_force::InForce;
use crate::tls::RevocationList;
use purge_base::clock;

/// A certificate that ends sooner than this is to be replaced.
const CERTIFICATE_DAYS_MIN: i64 = 21;
/// A list of revoked certificates that ends sooner than this is to be replaced.
const LIST_DAYS_MIN: i64 = 2;
const DAY: i64 = 86_400;

/// Looks at what is in force.
pub fn examine(in_force: &InForce) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(not_after) = in_force.certificate_ends() {
        findings.push(certificate(not_after, clock::wall().unix()));
    }
    findings.extend(in_force.certificate_trouble().map(|why| unusable(&why)));
    let now = clock::wall().unix();
    findings.extend(
        in_force
            .revocation_lists()
            .iter()
            .map(|l| revocation_list(l, now)),
    );
    let shown = in_force.shown();
    let pending: Vec<String> = shown
        .into_iter()
        .filter(|s| s.pending.is_some())
        .map(|s| s.key)
        .collect();
    findings.push(match pending.is_empty() {
        true => Finding::good("config", "what was read last is in force"),
        false => Finding::note(
            "config",
            format!("not in force yet: {}", pending.join(", ")),
            "systemctl restart purge-agent",
        ),
    });
    findings
}

/// The rules whose lists people cannot read, each with why.
pub fn lists(unpublished: &[(String, String)]) -> Option<Finding> {
    let rules: Vec<String> = unpublished
        .iter()
        .map(|(rule, why)| format!("rule {rule}: {why}"))
        .collect();
    let cure = "correct the directory that announce_to names: the lists are tried again each minute, and until then nothing new is \
                announced and so nothing new is taken";
    (!rules.is_empty()).then(|| Finding::bad("lists", rules.join("; "), cure))
}

fn unusable(why: &str) -> Finding {
    Finding::bad(
        "certificate",
        format!(
            "the files that listen.tls names have changed and cannot be used, so the earlier ones stay in force: {why}"
        ),
        "correct them: they are read again at once",
    )
}

fn certificate(not_after: i64, now: i64) -> Finding {
    let left = not_after.saturating_sub(now);
    let cure = "replace the files that listen.tls names: they are read again at once";
    match left.div_euclid(DAY) {
        ..0 => Finding::bad(
            "certificate",
            "the agent's certificate has ended: no client believes it",
            cure,
        ),
        days if days < CERTIFICATE_DAYS_MIN => Finding::note(
            "certificate",
            format!("the agent's certificate ends in {days} days"),
            cure,
        ),
        days => Finding::good(
            "certificate",
            format!("the agent's certificate lasts for {days} days"),
        ),
    }
}

fn revocation_list(list: &RevocationList, now: i64) -> Finding {
    let file = list.file.display();
    let cure = "put the authority's newest list there (listen.tls.crl): it is read again at once";
    let Some(ends) = list.ends else {
        return Finding::note(
            "certificate",
            format!("the list of revoked certificates {file} does not say when it ends"),
            cure,
        );
    };
    match ends.saturating_sub(now).div_euclid(DAY) {
        ..0 => Finding::bad(
            "certificate",
            format!(
                "the list of revoked certificates {file} has ended: clients of its authority are refused"
            ),
            cure,
        ),
        days if days < LIST_DAYS_MIN => Finding::note(
            "certificate",
            format!("the list of revoked certificates {file} ends in {days} days"),
            cure,
        ),
        days => Finding::good(
            "certificate",
            format!("the list of revoked certificates {file} is good for {days} days"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn lists_that_could_not_be_published_are_bad() {
        assert!(lists(&[]).is_none());
        let found = lists(&[("r".into(), "no room".into())]);
        assert!(found.is_some_and(|f| f.verdict == Verdict::Bad && f.found == "rule r: no room"));
    }

    #[test]
    fn a_certificate_is_judged_by_what_is_left_of_it() {
        let verdict = |left| certificate(1_000_000_000 + left, 1_000_000_000).verdict;
        assert_eq!(verdict(-1), Verdict::Bad);
        assert_eq!(verdict(0), Verdict::Note);
        assert_eq!(verdict(20 * DAY), Verdict::Note);
        assert_eq!(verdict(22 * DAY), Verdict::Good);
        let list = |left: Option<i64>| {
            let ends = left.map(|left| 1_000_000_000 + left);
            let list = RevocationList {
                file: "/crl".into(),
                ends,
            };
            revocation_list(&list, 1_000_000_000).verdict
        };
        assert_eq!(list(Some(-1)), Verdict::Bad);
        assert_eq!([list(Some(DAY)), list(None)], [Verdict::Note; 2]);
        assert_eq!(list(Some(30 * DAY)), Verdict::Good);
    }
}
