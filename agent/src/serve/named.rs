//! Short forms of the names of plans, runs and holds: their first characters, where no other begins so, and `latest`.

use purge_base::id::LENGTH;

use crate::host::{Host, HostError};

/// The newest.
const LATEST: &str = "latest";
/// Names that an error lists.
const LISTED_MAX: usize = 5;

/// Whether a name is given whole: nothing has to be looked up for it.
pub fn is_whole(given: &str) -> bool {
    given.is_empty() || given.len() >= LENGTH
}

/// The whole name of a plan.
///
/// # Errors
/// When several begin so.
pub fn plan(host: &Host, given: String) -> Result<String, HostError> {
    whole("plan_id", given, |prefix| Ok(host.plans.ids(prefix)))
}

/// The whole name of a plan that is to be applied: `latest` may be another by then than the caller has looked at.
///
/// # Errors
/// When several begin so, or it is `latest`.
pub fn plan_to_apply(host: &Host, given: String) -> Result<String, HostError> {
    if given == LATEST {
        let why =
            "latest may be another plan by now than you have looked at: give its name, which GetPlan tells"
                .into();
        return Err(HostError::Invalid {
            field: "plan_id",
            why,
        });
    }
    plan(host, given)
}

/// The whole name of a run.
///
/// # Errors
/// When several begin so, or the store cannot be read.
pub fn run(host: &Host, given: String) -> Result<String, HostError> {
    whole("run_id", given, |prefix| Ok(host.runs.ids(prefix)?))
}

/// The whole name of a hold; with `by`, among those that they made.
///
/// # Errors
/// When several begin so.
pub fn hold(host: &Host, given: String, by: Option<&str>) -> Result<String, HostError> {
    whole("hold_id", given, |prefix| Ok(host.holds.ids(prefix, by)))
}

/// The whole name that is meant. What begins no name is left as it is: who looks it up says that it is not there.
fn whole(
    field: &'static str,
    given: String,
    known: impl Fn(&str) -> Result<Vec<String>, HostError>,
) -> Result<String, HostError> {
    if is_whole(&given) {
        return Ok(given);
    }
    if given == LATEST {
        return Ok(known("")?.pop().unwrap_or(given));
    }
    let mut found = known(&given)?;
    match found.len() {
        0 => Ok(given),
        1 => Ok(found.pop().unwrap_or(given)),
        n => {
            let more = match n {
                0..=LISTED_MAX => "",
                _ => ", ...",
            };
            found.truncate(LISTED_MAX);
            let why = format!("{given} stands for {}{more}: give more of it", found.join(", "));
            Err(HostError::Invalid { field, why })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_found_by_its_first_characters_alone() {
        let all = ["p0aaaaaaaaa1", "p0aaaaaaaab2", "p0bbbbbbbbb3"];
        let known = |prefix: &str| {
            let named = all.into_iter().filter(|id| id.starts_with(prefix));
            Ok(named.map(str::to_owned).collect())
        };
        let of = |given: &str| whole("plan_id", given.into(), known);
        assert_eq!(of("p0b").unwrap(), "p0bbbbbbbbb3");
        assert_eq!(of("latest").unwrap(), "p0bbbbbbbbb3");
        assert_eq!(of("nothing").unwrap(), "nothing");
        assert_eq!(of("").unwrap(), "");
        // A whole name is looked up as it is.
        assert_eq!(of("p0aaaaaaaaa9").unwrap(), "p0aaaaaaaaa9");
        let several = of("p0a").unwrap_err().to_string();
        assert_eq!(
            several,
            "plan_id: p0a stands for p0aaaaaaaaa1, p0aaaaaaaab2: give more of it"
        );
    }
}
