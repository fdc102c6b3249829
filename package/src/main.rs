//! `purge-package DIR`: writes the manual pages and shell completions into DIR, for `package/build`.
//!
//! Nothing is written twice by hand: the programs' pages are made from their command lines, the configuration's page from the
//! entries of its keys.

mod config_page;
mod program_page;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use purge_agent::arguments::Arguments;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = dir.context("usage: purge-package DIR")?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, content) in pages()? {
        write(&dir, name, &content)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut agent(), "purge-agent", &mut script);
        write(&dir, &completion_file("purge-agent", shell), &script)?;
        // It asks purgectl itself, which asks the agent.
        let script = purgectl::completion::script(&shell.to_string())?;
        let script = script.with_context(|| format!("no completions for {shell}"))?;
        write(&dir, &completion_file("purgectl", shell), &script)?;
    }
    Ok(())
}

fn pages() -> anyhow::Result<[(&'static str, Vec<u8>); 3]> {
    let config = config_page::page();
    Ok([
        (
            "purge-agent.8",
            program_page::page(&agent(), "8", program_page::AGENT)?,
        ),
        (
            "purgectl.1",
            program_page::page(&purgectl::Cli::command(), "1", program_page::CTL)?,
        ),
        ("purge-agent.toml.5", config.into_bytes()),
    ])
}

fn agent() -> Command {
    Arguments::command()
}

/// What the shells look for.
fn completion_file(program: &str, shell: Shell) -> String {
    match shell {
        Shell::Zsh => format!("_{program}"),
        Shell::Fish => format!("{program}.fish"),
        _ => format!("{program}.bash"),
    }
}

fn write(dir: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = dir.join(name);
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}
