//! What rules may ask of a volume whose collector does not see everything. Pure.

use purge_model::blind::{Blind, Reads};

use super::rule::{Rule, Target};

/// Why these rules may not judge a volume whose reads are known so; none: they may.
pub fn refusal<'a>(
    rules: impl IntoIterator<Item = &'a Rule>,
    (reads, blind): (Reads, &[Blind]),
    volume: &str,
) -> Option<String> {
    if reads == Reads::Seen && !blind.contains(&Blind::Names) {
        return None;
    }
    let rules: Vec<&Rule> = rules.into_iter().collect();
    let is_whole = |rule: &&&Rule| matches!(rule.target, Target::Directory { .. });
    if let Some(rule) = rules.iter().find(is_whole) {
        return Some(format!(
            "rule {} takes whole directories, which needs a collector that is told of each use and each name of what is in them; on volume \
             {volume} only scans find names: write target = \"file\" with remove_empty_dirs = true",
            rule.name
        ));
    }
    if reads != Reads::Unknown {
        return None;
    }
    let blind: Vec<&str> = rules
        .into_iter()
        .filter(|rule| rule.clocks.access)
        .map(|rule| rule.name.as_str())
        .collect();
    if blind.is_empty() {
        return None;
    }
    Some(format!(
        "reads are not known on volume {volume}, and rule {} counts them: to purge by the last change alone, which removes files that are \
         still read, write clock = [\"modify\", \"change\"] in it",
        blind.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use purge_model::Clocks;

    #[test]
    fn a_rule_on_reads_is_refused_where_they_are_not_known() {
        let mut rule = Rule::everything_older("v", 60);
        let refusal = |rule: &Rule, reads, blind| refusal([rule], (reads, blind), "v");
        const NAMES: &[Blind] = &[Blind::Names];
        assert_eq!(refusal(&rule, Reads::Seen, &[]), None);
        assert_eq!(refusal(&rule, Reads::Seen, NAMES), None);
        assert_eq!(refusal(&rule, Reads::AtScans, NAMES), None);
        let why = refusal(&rule, Reads::Unknown, NAMES).unwrap_or_default();
        assert!(why.contains("clock = [\"modify\", \"change\"]"), "{why}");
        rule.clocks = Clocks {
            access: false,
            ..Clocks::ALL
        };
        assert_eq!(refusal(&rule, Reads::Unknown, NAMES), None);
        rule.target = Target::Directory { depth: 1 };
        assert_eq!(refusal(&rule, Reads::Seen, &[]), None);
        assert!(refusal(&rule, Reads::Seen, NAMES).is_some());
        assert!(refusal(&rule, Reads::AtScans, NAMES).is_some());
    }
}
