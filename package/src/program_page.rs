//! The manual page of a program: one page with all its commands.

use std::io;

use clap::Command;
use clap_mangen::Man;

/// What a command line does not say of itself: sections of the page, in roff.
pub const AGENT: &str = r#".SH SIGNALS
.TP
SIGHUP
reads the rules of the configuration again, and opens the audit log again. A file with a fault leaves the running rules in force.
\fBpurge\-agent reload\fR sends it and says how it went.
.TP
SIGTERM, SIGINT
ends the agent; nothing that it has seen is lost.
.SH FILES
.TP
/etc/purge-agent/agent.toml
the configuration, see \fBpurge\-agent.toml\fR(5)
.TP
/etc/purge-agent/rules.d/*.toml
further rules, in the order of their names
.TP
/var/lib/purge-agent
the index, the clocks beside it, plans, runs and holds
.TP
/run/purge-agent/agent.sock
where \fBpurgectl\fR(1) comes in
.SH ENVIRONMENT
.TP
RUST_LOG
what is logged: error, warn, info (the default), debug, trace, also by module
.SH EXIT STATUS
0: ended as it should, or the configuration is good. 1: an error; stderr says which.
.SH SEE ALSO
.BR purgectl (1),
.BR purge\-agent.toml (5),
.BR fanotify (7)
"#;

/// As [`AGENT`], for purgectl.
pub const CTL: &str = r#".SH SEE ALSO
.BR purge\-agent (8),
.BR purge\-agent.toml (5)
"#;

/// Renders a program's page; `more` follows the commands.
pub fn page(command: &Command, section: &str, more: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).section(section).manual("purge-agent");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    commands(command, command.get_name(), &mut page)?;
    let mut notes = Vec::new();
    man.render_extra_section(&mut notes)?;
    page.extend_from_slice(
        String::from_utf8_lossy(&notes)
            .replace(".SH EXTRA", ".SH NOTES")
            .as_bytes(),
    );
    page.extend_from_slice(more.as_bytes());
    Ok(page)
}

/// A subsection for each command, and those of commands after it.
fn commands(of: &Command, path: &str, page: &mut Vec<u8>) -> io::Result<()> {
    for command in of.get_subcommands().filter(|c| !c.is_hide_set()) {
        let path = format!("{path} {}", command.get_name());
        page.extend_from_slice(
            format!(".SS {:?}\n", path.replace('-', "\\-"))
                .replace("\\\\", "\\")
                .as_bytes(),
        );
        // As a command of its own: the program's options are not told again with each.
        let man = Man::new(
            command
                .clone()
                .bin_name(path.clone())
                .disable_help_flag(true)
                .disable_help_subcommand(true),
        );
        let mut part = Vec::new();
        man.render_synopsis_section(&mut part)?;
        man.render_description_section(&mut part)?;
        man.render_options_section(&mut part)?;
        man.render_extra_section(&mut part)?;
        for line in String::from_utf8_lossy(&part)
            .lines()
            .filter(|l| !l.starts_with(".ie") && !l.starts_with(".el"))
        {
            // The parts follow each other as paragraphs.
            let line = if line.starts_with(".SH") { ".PP" } else { line };
            page.extend_from_slice(line.as_bytes());
            page.push(b'\n');
        }
        commands(command, &path, page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::{Arg, CommandFactory};

    #[test]
    fn every_command_and_option_is_in_the_page() {
        fn assert_told(command: &Command, path: &str, page: &str) {
            assert!(page.contains(&path.replace('-', "\\-")), "{path}");
            for option in command.get_arguments().filter_map(Arg::get_long) {
                let told = format!("\\-\\-{}", option.replace('-', "\\-"));
                assert!(page.contains(&told), "{path} --{option}");
            }
            for sub in command.get_subcommands() {
                assert_told(sub, &format!("{path} {}", sub.get_name()), page);
            }
        }
        for (command, more) in [
            (purge_agent::arguments::Arguments::command(), AGENT),
            (purgectl::Cli::command(), CTL),
        ] {
            let page = String::from_utf8(page(&command, "8", more).unwrap()).unwrap();
            assert_told(&command, command.get_name(), &page);
        }
    }
}
