//! Completion in shells, also of what only the agent knows: plans, runs, holds, rules, quotas and volumes.
//!
//! The script that `purgectl completions SHELL` prints asks purgectl itself, with the words so far and `COMPLETE` in the environment. The
//! agent gets a moment to answer; without an answer, these words are not completed, and everything else is.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Command, CommandFactory};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use purge_proto::units::{format_count, format_size};
use purge_proto::v1;

use crate::Cli;
use crate::connect::{Client, Connect};
use crate::error::CtlError;
use crate::tls::Tls;
use crate::views;

/// The variable that asks for completion, and names the shell.
const VARIABLE: &str = "COMPLETE";
/// A person waits for the next word.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many plans, runs or holds are looked at, the newest first.
const LOOKED_AT_MAX: u32 = 100;

/// Completes the words of a shell and ends the process, where a shell asks for that.
pub fn complete() {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// The script that makes a shell ask; none: the shell is not known.
///
/// # Errors
/// When it cannot be written.
pub fn script(shell: &str) -> io::Result<Option<Vec<u8>>> {
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(shell) else {
        return Ok(None);
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "purgectl", "purgectl", "purgectl", &mut script)?;
    Ok(Some(script))
}

/// The command line, whose arguments know where their values are asked for.
fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    with_values(command)
}

fn with_values(command: Command) -> Command {
    let is_hold = command.get_name() == "remove";
    let named: Vec<(String, ArgValueCandidates)> = command
        .get_arguments()
        .filter_map(|arg| {
            Some((
                arg.get_id().to_string(),
                values_of(arg.get_id().as_str(), is_hold)?,
            ))
        })
        .collect();
    let command = named.into_iter().fold(command, |command, (id, values)| {
        command.mut_arg(id, |arg| arg.add(values))
    });
    command.mut_subcommands(with_values)
}

fn values_of(argument: &str, is_hold: bool) -> Option<ArgValueCandidates> {
    Some(match argument {
        "plan" => ArgValueCandidates::new(|| asked(plans)),
        "run" => ArgValueCandidates::new(|| asked(runs)),
        "id" if is_hold => ArgValueCandidates::new(|| asked(holds)),
        "rules" | "rule" => ArgValueCandidates::new(|| asked(|client| names(client, "rule"))),
        "quota" => ArgValueCandidates::new(|| asked(|client| names(client, "quota"))),
        "volume" => ArgValueCandidates::new(|| asked(volumes)),
        _ => return None,
    })
}

/// What the agent answers in time.
fn asked<F>(ask: impl Fn(Client) -> F) -> Vec<CompletionCandidate>
where
    F: Future<Output = Result<Vec<CompletionCandidate>, CtlError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    runtime.block_on(async {
        let answer = async {
            let client = <Client as Connect>::connect(&endpoint(), &tls()).await?;
            ask(client).await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    })
}

/// Where the words so far, or the environment, say that the agent listens.
fn endpoint() -> String {
    let given =
        option("--endpoint").or_else(|| std::env::var_os("PURGECTL_ENDPOINT").filter(|v| !v.is_empty()));
    let given = given.and_then(|text| text.into_string().ok());
    given.unwrap_or_else(|| crate::DEFAULT_ENDPOINT.into())
}

fn tls() -> Tls {
    let file = |name: &str, variable: &str| {
        option(name)
            .or_else(|| std::env::var_os(variable))
            .map(PathBuf::from)
    };
    Tls {
        ca: file("--ca", "PURGECTL_CA"),
        cert: file("--cert", "PURGECTL_CERT"),
        key: file("--key", "PURGECTL_KEY"),
    }
}

/// The value of an option among the words so far.
fn option(name: &str) -> Option<OsString> {
    let words: Vec<OsString> = std::env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .collect();
    let joined = format!("{name}=");
    words.iter().enumerate().find_map(|(at, word)| {
        if word == OsStr::new(name) {
            return words.get(at.saturating_add(1)).cloned();
        }
        word.to_str()?.strip_prefix(&joined).map(OsString::from)
    })
}

fn candidate(value: String, help: String) -> CompletionCandidate {
    CompletionCandidate::new(value).help(Some(help.into()))
}

/// The word for the newest, which is no name.
fn latest() -> CompletionCandidate {
    candidate("latest".into(), "the newest".into())
}

async fn plans(mut client: Client) -> Result<Vec<CompletionCandidate>, CtlError> {
    let request = v1::ListPlansRequest {
        page_size: LOOKED_AT_MAX,
        ..v1::ListPlansRequest::default()
    };
    let found = client.list_plans(request).await?.into_inner().plans.into_iter();
    let told = found.map(|plan| {
        let takes = plan.candidates.unwrap_or_default();
        let size = format_size(takes.bytes);
        let help = format!(
            "{}: {}, {size}",
            plan.volume,
            format_count(views::entries(&takes))
        );
        candidate(plan.plan_id, help)
    });
    Ok(std::iter::once(latest()).chain(told).collect())
}

async fn runs(mut client: Client) -> Result<Vec<CompletionCandidate>, CtlError> {
    let request = v1::ListRunsRequest {
        page_size: LOOKED_AT_MAX,
        ..v1::ListRunsRequest::default()
    };
    let found = client.list_runs(request).await?.into_inner().runs.into_iter();
    let told = found.map(|run| {
        let help = format!("{}: {}", run.volume, views::run_state(run.state()));
        candidate(run.run_id, help)
    });
    Ok(std::iter::once(latest()).chain(told).collect())
}

async fn holds(mut client: Client) -> Result<Vec<CompletionCandidate>, CtlError> {
    let request = v1::ListHoldsRequest {
        page_size: LOOKED_AT_MAX,
        ..v1::ListHoldsRequest::default()
    };
    let found = client.list_holds(request).await?.into_inner().holds.into_iter();
    let told = found.map(|hold| candidate(hold.hold_id, crate::paths::printable(&hold.path)));
    Ok(std::iter::once(latest()).chain(told).collect())
}

async fn volumes(mut client: Client) -> Result<Vec<CompletionCandidate>, CtlError> {
    let status = client.get_status(v1::GetStatusRequest {}).await?.into_inner();
    let told = status.volumes.into_iter();
    Ok(told
        .map(|volume| candidate(volume.name, crate::paths::printable(&volume.path)))
        .collect())
}

/// The names of all tables of a kind in the configuration: each has a key `volume`.
async fn names(mut client: Client, kind: &str) -> Result<Vec<CompletionCandidate>, CtlError> {
    let values = client
        .get_config(v1::GetConfigRequest {})
        .await?
        .into_inner()
        .values;
    let prefix = format!("{kind}.");
    let found = values.into_iter().filter_map(|value| {
        let name = value.key.strip_prefix(&prefix)?.strip_suffix(".volume")?;
        Some(candidate(
            name.to_owned(),
            format!("volume {}", value.value.trim_matches('"')),
        ))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_known_shell_gets_a_script_that_asks_purgectl() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = script(shell).unwrap().unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(
                script.contains(VARIABLE) && script.contains("purgectl"),
                "{script}"
            );
        }
        assert!(script("tcsh").unwrap().is_none());
    }
}
