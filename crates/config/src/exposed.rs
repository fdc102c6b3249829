//! Places of the configuration that others than root can change: what the agent reads, runs or writes there as root would be theirs.

use std::path::Path;

use super::Config;
use super::fault::Fault;
use purge_archive::settings::Place;
use purge_notify::settings::Means;
use purge_sys::trusted::{self, Distrust};

/// What is wrong with a place, why that matters, and the cure.
pub(super) fn fault(place: &Path, why: &str, distrust: &Distrust) -> Fault {
    let what = format!("others than root can change it: {distrust}, and {why}");
    let what = match distrust {
        Distrust::Foreign { .. } | Distrust::Open { .. } => what,
        other => other.to_string(),
    };
    Fault::elsewhere(&place.display().to_string(), what, distrust.cure())
}

/// The faults of all places that a whole configuration names.
pub(super) fn faults(config: &Config) -> Vec<Fault> {
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    let mut dirs = vec![
        (config.state_dir.clone(), "the index is kept there"),
        (parent(&config.audit_log), "the audit log is written there"),
    ];
    let stores = config.archives.iter().map(|archive| {
        let Place::Directory(dir) = &archive.place;
        (dir.clone(), "copies are kept there")
    });
    dirs.extend(stores);
    let announced = config.rules.iter().filter_map(|r| r.announce_to.clone());
    dirs.extend(announced.map(|dir| (dir, "lists are written there")));
    let mut faults: Vec<Fault> = dirs
        .iter()
        .filter_map(|(dir, why)| Some(fault(dir, why, &is_exposed(trusted::look(dir))?)))
        .collect();
    for sink in &config.notify.sinks {
        if let Means::Exec(exec) = &sink.means
            && let Some(program) = exec.command.first().map(Path::new)
            && let Some(distrust) = is_exposed(trusted::file(program).map(drop))
        {
            faults.push(fault(program, "the agent runs it as root", &distrust));
        }
    }
    if let Some(map) = &config.notify.addresses.map
        && let Some(distrust) = is_exposed(trusted::file(map).map(drop))
    {
        faults.push(fault(map, "notices go where it says", &distrust));
    }
    faults
}

/// What is missing, or cannot be looked at, is not exposed: the code that needs it says so.
fn is_exposed(looked: Result<(), Distrust>) -> Option<Distrust> {
    looked.err().filter(|e| !matches!(e, Distrust::Io { .. }))
}
