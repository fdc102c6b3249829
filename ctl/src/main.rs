//! `purgectl`: the command line of purge-agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    purgectl::completion::complete();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => ExitCode::from(runtime.block_on(purgectl::run(std::env::args_os().collect()))),
        Err(error) => {
            purgectl::output::complain(&format!("purgectl: cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}
