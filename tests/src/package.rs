//! Packages as `package/build` makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip::Unmet;
use crate::{binary, sh};

/// Packs the programs that the tests use, or with `PURGE_TESTS_STATIC` those that `package/build` has made: `deb` or `rpm`, as this
/// version and into this directory.
///
/// # Errors
/// When this host cannot pack: a reason to skip.
///
/// # Panics
/// When it cannot be written.
pub fn package(kind: &str, version: &str, to: &Path) -> Result<PathBuf, Unmet> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/package");
    fs::create_dir_all(&packed).expect("a directory");
    // Tests of several threads and programs come here at once.
    let lock = fs::File::create(packed.join("lock")).expect("a lock");
    lock.lock().expect("the lock");
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
    sh(&mut build).map_err(Unmet)?;
    let name = match kind {
        "deb" => format!("purge-agent_{version}-1_{}.deb", architecture("deb")),
        _ => format!("purge-agent-{version}-1.{}.rpm", architecture("rpm")),
    };
    let package = to.join(&name);
    fs::copy(packed.join(name), &package).expect("the package");
    Ok(package)
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
