//! Packages as `package/build` makes them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::once::once;
use crate::skip::Unmet;
use crate::{binary, sh};

/// The version of these sources.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// One that follows it.
pub const NEXT: &str = concat!(env!("CARGO_PKG_VERSION"), ".1");

/// Packs the programs that the tests use, or with `PURGE_TESTS_STATIC` those that `package/build` has made: `deb` or `rpm`, as this
/// version and into this directory.
///
/// # Errors
/// When this host cannot pack: a reason to skip.
///
/// # Panics
/// When it cannot be written.
pub fn package(kind: &str, version: &str, to: &Path) -> Result<PathBuf, Unmet> {
    let name = match kind {
        "deb" => format!("purge-agent_{version}-1_{}.deb", architecture("deb")),
        _ => format!("purge-agent-{version}-1.{}.rpm", architecture("rpm")),
    };
    let of = if are_static() { "static" } else { "dynamic" };
    let pack = |fresh: &Path| pack(kind, version, &name, fresh);
    let made = once(&format!("{of}-{name}"), &sources(), pack).map_err(Unmet)?;
    let package = to.join(&name);
    fs::copy(made, &package).expect("the package");
    Ok(package)
}

/// What a package holds, and what makes it.
fn sources() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let parts = [
        "package",
        "systemd",
        "monitoring",
        "docs",
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ];
    let parts = parts.iter().map(|part| top.join(part));
    let built: Vec<PathBuf> = match static_profile() {
        // Below the name of the processor and the system.
        Some(profile) => {
            let targets = fs::read_dir(top.join("target")).into_iter().flatten().flatten();
            targets.map(|target| target.path().join(&profile)).collect()
        }
        None => binary("purge-agent")
            .parent()
            .map(Path::to_owned)
            .into_iter()
            .collect(),
    };
    let programs = ["purge-agent", "purgectl", "purge-package"];
    let programs = built
        .iter()
        .flat_map(|dir| programs.map(|program| dir.join(program)));
    parts.chain(programs).collect()
}

/// Packs to `fresh`.
fn pack(kind: &str, version: &str, name: &str, fresh: &Path) -> Result<(), String> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/package");
    fs::create_dir_all(&packed).map_err(|e| e.to_string())?;
    // One at a time: all of them write there.
    let lock = File::create(packed.join("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../package/build");
    let mut build = Command::new(script);
    build.args(["--no-build", "--fast", "--version", version, "--only", kind]);
    match static_profile() {
        Some(profile) => build.args(["--profile", &profile]),
        None => {
            let programs = binary("purge-agent");
            let profile = programs.parent().and_then(Path::file_name);
            build
                .args(["--dynamic", "--profile"])
                .arg(profile.expect("target/PROFILE"))
        }
    };
    sh(&mut build)?;
    fs::copy(packed.join(name), fresh)
        .map(drop)
        .map_err(|e| e.to_string())
}

/// The profile of the static programs, if they are tested.
fn static_profile() -> Option<String> {
    std::env::var("PURGE_TESTS_STATIC").ok()
}

/// Whether the static programs are tested.
pub fn are_static() -> bool {
    static_profile().is_some()
}

/// What a kind of package calls this architecture.
pub fn architecture(kind: &str) -> &'static str {
    match (kind, std::env::consts::ARCH) {
        ("deb", "x86_64") => "amd64",
        ("deb", "aarch64") => "arm64",
        (_, other) => other,
    }
}
