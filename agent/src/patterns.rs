//! What `purge-agent check` asks a running agent: which exclude patterns of a configuration match nothing.

use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use purge_proto::v1;
use purgectl::connect::{Client, Connect};
use purgectl::tls::Tls;

use purge_config::Config;
use purge_policy::rule::Rule;
use purge_policy::scope::Globs;

/// An agent on a large volume looks for this long.
const ANSWERS_WITHIN: Duration = Duration::from_secs(90);

/// What an agent with the configuration's socket says of its exclude patterns, as warnings. Nothing if no agent is running.
pub fn warnings(config: &Config) -> Vec<String> {
    let socket = &config.listen.unix;
    // A look, to leave an agent that is not running alone.
    let is_there = std::fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket());
    let has_patterns = config.rules.iter().any(|r| r.scope.exclude.is_some());
    if !is_there || !has_patterns {
        return Vec::new();
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    runtime.block_on(async {
        match tokio::time::timeout(ANSWERS_WITHIN, ask(config)).await {
            Ok(told) => told,
            Err(_) => vec![not_told("the agent does not answer")],
        }
    })
}

async fn ask(config: &Config) -> Vec<String> {
    let endpoint = format!("unix:{}", config.listen.unix.display());
    let Ok(mut client) = <Client as Connect>::connect(&endpoint, &Tls::default()).await else {
        // It has ended and left its socket.
        return Vec::new();
    };
    let mut told = Vec::new();
    for volume in &config.volumes {
        let of_volume = |r: &&Rule| r.volume == volume.name && r.scope.exclude.is_some();
        let rules: Vec<v1::RulePatterns> = config.rules.iter().filter(of_volume).map(patterns).collect();
        if rules.is_empty() {
            continue;
        }
        let asked = v1::CheckPatternsRequest {
            volume: volume.name.clone(),
            rules,
        };
        match client.check_patterns(asked).await {
            Ok(answer) => {
                let idle = answer.into_inner().idle;
                told.extend(idle.iter().map(purgectl::commands::plan::idle_in_words));
            }
            // An agent of another version, or with another configuration.
            Err(error) => told.push(not_told(error.message())),
        }
    }
    told
}

fn patterns(rule: &Rule) -> v1::RulePatterns {
    let exclude = rule.scope.exclude.iter().flat_map(Globs::patterns);
    v1::RulePatterns {
        rule: rule.name.clone(),
        exclude: exclude.cloned().collect(),
    }
}

fn not_told(why: &str) -> String {
    format!("it is not known whether each exclude pattern matches something: {why}")
}
