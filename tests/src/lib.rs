//! What the whole-program tests stand on: real file systems, the real agent, the real purgectl.
//!
//! - [`mount`]  file systems of their own, in loop-mounted images or in memory
//! - [`config`] the agent's configuration as text
//! - [`agent`]  a running `purge-agent`
//! - [`archive`] a directory that serves as a store
//! - [`accounts`] users and groups that it sees
//! - [`ctl`]    `purgectl` and what it answered
//! - [`rpc`]    gRPC without it
//! - [`certs`]  certificates
//! - [`cable`]  a network that can be cut
//! - [`scanner`] a virus scanner
//! - [`elsewhere`] another mount namespace
//! - [`files`]  making, ageing and using files
//! - [`wait`]   polling with a deadline
//! - [`queue`]  what the agent has not read of the kernel's queue
//! - [`nfs`]    an NFS server and clients of it
//! - [`systemd`] a machine with a real systemd
//! - [`sinks`]  those whom the agent tells: an HTTP endpoint, a mail server, a broker
//! - [`notices`] a tree of which something is to be told, and what was told
//! - [`silent`] a mount whose server does not answer
//! - [`once`]   what is made for all tests together
//! - [`structure`] which crate uses which, and which module
//! - [`through`] a volume that users come to through a mount of the agent's
//! - [`job`]    `purge-agent once`, and a file server that is far away
//! - [`skip`]   tests that cannot run where they are
//!
//! The binaries are those beside the test's own executable; `tests/run` builds them first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test harness fails by panicking"
)]

pub mod accounts;
pub mod agent;
pub mod archive;
pub mod cable;
pub mod certs;
pub mod config;
pub mod container;
pub mod ctl;
pub mod elsewhere;
pub mod files;
pub mod handbook;
pub mod job;
pub mod mount;
pub mod nfs;
pub mod notices;
pub mod once;
pub mod package;
pub mod queue;
pub mod rpc;
pub mod scanner;
pub mod silent;
pub mod sinks;
pub mod skip;
pub mod structure;
#[allow(unsafe_code)]
pub mod sys;
pub mod systemd;
pub mod through;
pub mod volumes;
pub mod wait;
pub mod ways;

pub use agent::Agent;
pub use config::Config;
pub use ctl::{Answer, Ctl, Plan};
pub use mount::{Fs, Mount};

use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The path of one of the workspace's binaries. `PURGE_BIN_DIR` names another place for them.
///
/// # Panics
/// When it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    let beside = own.ancestors().nth(2).expect("target/PROFILE").to_owned();
    let dir = std::env::var_os("PURGE_BIN_DIR").map_or(beside, PathBuf::from);
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is not built: run tests/run, or `cargo build --workspace --bins` before `cargo test`",
        path.display()
    );
    path
}

/// Runs a command to its end and returns its stdout, or what went wrong in words.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub fn sh(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| format!("cannot run {name}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(format!("{name}: {}: {stderr}", out.status))
}
