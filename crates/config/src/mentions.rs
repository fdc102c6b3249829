//! Names that tables have, and names that they name: also of tables with other faults, so that what is not there is reported together with all
//! else that is wrong.

use std::ops::Range;

use super::fault::Fault;
use super::section::{Source, suggest};

/// What all tables say of names.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// The names of volumes.
    pub volumes: Vec<String>,
    /// The names of rules, each with its volume where that can be read.
    pub rules: Vec<(String, Option<String>)>,
    /// A volume, or a rule, has no name that can be read: any name may be meant for it.
    pub nameless_volume: bool,
    pub nameless_rule: bool,
    /// What tables name.
    pub all: Vec<Mention>,
}

/// The names that one table names.
#[derive(Debug)]
pub(super) struct Mention {
    /// Which table, for a person.
    who: String,
    volume: Option<(String, Fault)>,
    rule: RuleNamed,
}

/// The rule that a table names.
#[derive(Debug)]
pub(super) enum RuleNamed {
    /// It needs none.
    None,
    /// It names this one.
    Here(String, Fault),
    /// It names none, and may do so where the volume has one rule. The fault's place is the table's.
    Left(Fault),
}

impl Mention {
    /// A table that names a volume.
    pub fn new(who: String, volume: Option<(String, Fault)>, rule: RuleNamed) -> Self {
        Self { who, volume, rule }
    }
}

/// A place in a file, for a fault that may be found there later.
pub(super) fn place(src: &Source<'_>, span: &Range<usize>) -> Fault {
    Fault::at(src.file, src.text, span, "", "")
}

impl Mentions {
    /// Whether a quota or a watermark names this rule: then it may do without a ttl of its own.
    pub fn names_rule(&self, name: &str) -> bool {
        let mut all = self.all.iter();
        all.any(|mention| matches!(&mention.rule, RuleNamed::Here(rule, _) if rule == name))
    }

    /// What is named and not there.
    pub fn faults(&self) -> Vec<Fault> {
        self.all
            .iter()
            .flat_map(|mention| self.faults_of(mention))
            .collect()
    }

    fn faults_of(&self, mention: &Mention) -> Vec<Fault> {
        let known: Vec<&str> = self.volumes.iter().map(String::as_str).collect();
        let mut faults = Vec::new();
        let volume = mention
            .volume
            .as_ref()
            .filter(|(name, _)| known.contains(&name.as_str()));
        if let (Some((name, place)), None) = (&mention.volume, volume)
            && !self.nameless_volume
        {
            faults.push(Fault {
                what: format!("{} names volume {name:?}, which there is not", mention.who),
                mend: suggest(name, &known),
                ..place.clone()
            });
        }
        faults.extend(self.fault_of_rule(mention, volume.map(|(name, _)| name.as_str())));
        faults
    }

    /// What is wrong with the rule that a table names, on a volume, where that is known.
    fn fault_of_rule(&self, mention: &Mention, volume: Option<&str>) -> Option<Fault> {
        let is_there =
            |of: &Option<String>| volume.is_none_or(|volume| of.as_deref().is_none_or(|of| of == volume));
        let there = self.rules.iter().filter(|(_, of)| is_there(of));
        let there: Vec<&str> = there.map(|(name, _)| name.as_str()).collect();
        match (&mention.rule, volume) {
            (RuleNamed::Here(rule, place), _) if !there.contains(&rule.as_str()) && !self.nameless_rule => {
                let what = match volume {
                    Some(volume) => format!(
                        "{} names rule {rule:?}, which volume {volume} has not",
                        mention.who
                    ),
                    None => format!("{} names rule {rule:?}, which there is not", mention.who),
                };
                Some(Fault {
                    what,
                    mend: suggest(rule, &there),
                    ..place.clone()
                })
            }
            (RuleNamed::Left(place), Some(volume)) if there.len() > 1 => Some(Fault {
                what: format!(
                    "{} names no rule, and volume {volume} has {}",
                    mention.who,
                    there.len()
                ),
                mend: format!(
                    "add: rule = {:?}, whose scope and exclusions it shall respect",
                    there.first().copied().unwrap_or_default()
                ),
                ..place.clone()
            }),
            _ => None,
        }
    }
}
