//! Anything that people write into the configuration, into files of `rules.d` and into the environment: it is taken or refused,
//! with a place that there is in the text; and what is taken keeps the promises that the rest of the agent rests on.
//!
//! Pieces are separated by a NUL: the configuration, then files of `rules.d`; pieces that begin with `=` are the values of
//! environment variables instead, in their order.

#![no_main]

use std::collections::BTreeSet;
use std::ffi::OsString;

use libfuzzer_sys::fuzz_target;
use purge_config::environment::variables;
use purge_config::{Config, Fault};

const NAMES: [&str; 4] = ["agent.toml", "rules.d/a.toml", "rules.d/b.toml", "rules.d/c.toml"];

fuzz_target!(|input: &[u8]| {
    let Ok(input) = std::str::from_utf8(input) else {
        return;
    };
    let (values, texts): (Vec<&str>, Vec<&str>) = input.split('\0').partition(|piece| piece.starts_with('='));
    let texts: Vec<(&str, &str)> = NAMES.into_iter().zip(texts).collect();
    let variable = |name: &str| {
        let position = variables().iter().position(|(known, ..)| *known == name)?;
        values.get(position).map(|value| OsString::from(&value[1..]))
    };
    match Config::of_texts(&texts, variable) {
        Ok(config) => {
            check(&config);
            let again = Config::of_texts(&texts, variable);
            assert_eq!(
                format!("{config:?}"),
                format!("{:?}", again.expect("it was taken a moment ago"))
            );
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            faults.iter().for_each(|fault| check_place(fault, &texts));
        }
    }
});

/// What is taken without another look by all code that uses a configuration.
fn check(config: &Config) {
    assert!(!config.volumes.is_empty());
    assert!(config.state_dir.is_absolute());
    let volumes: BTreeSet<&str> = config.volumes.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(volumes.len(), config.volumes.len(), "two volumes of one name");
    for volume in &config.volumes {
        assert!(is_name(&volume.name));
        assert!(
            volume.path.is_absolute() && volume.path.parent().is_some(),
            "{:?}",
            volume.path
        );
        let climbs = volume.path.components().any(|c| c.as_os_str() == "..");
        assert!(!climbs, "{:?}", volume.path);
    }
    let rules: BTreeSet<&str> = config.rules.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(rules.len(), config.rules.len(), "two rules of one name");
    for rule in &config.rules {
        assert!(is_name(&rule.name));
        assert!(volumes.contains(rule.volume.as_str()));
        assert_ne!(rule.ttl, Some(0), "everything would go at once");
        assert!((0.0..=1.0).contains(&rule.max_errors));
        assert!(rule.max_fraction.is_none_or(|f| f > 0.0 && f <= 1.0));
        assert!(!rule.scope.include.patterns().is_empty(), "nothing is in scope");
        if rule.ttl.is_none() {
            let quotas = config.limits.quotas.iter().filter_map(|q| q.rule.as_deref());
            let watermarks = config.limits.watermarks.iter().map(|w| w.rule.as_str());
            assert!(
                quotas.chain(watermarks).any(|name| name == rule.name)
                    || config.limits.quotas.iter().any(|q| q.volume == rule.volume),
                "no ttl, and nothing that triggers the rule"
            );
        }
    }
    for watermark in &config.limits.watermarks {
        assert!(watermark.low < watermark.high && watermark.high <= 1.0);
        assert!(rules.contains(watermark.rule.as_str()));
    }
    for shown in &config.shown {
        assert!(!shown.key.is_empty() && !shown.origin.is_empty());
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A fault in a text is at a line and column of that text.
fn check_place(fault: &Fault, texts: &[(&str, &str)]) {
    assert!(!fault.what.is_empty());
    let Some((line, column)) = fault.position else {
        return;
    };
    let (_, text) = texts
        .iter()
        .find(|(name, _)| *name == fault.place)
        .expect("the place is one of the texts");
    let found = text
        .split('\n')
        .nth(line.checked_sub(1).expect("lines count from 1"));
    let found = found.expect("the line is there");
    assert!(
        (1..=found.chars().count() + 1).contains(&column),
        "column {column} of {found:?}"
    );
}
