//! The image of `package/Containerfile`, and containers of it (podman(1)), in a store of the test's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::package::{VERSION, are_static, package};
use crate::skip::Unmet;
use crate::wait::{LONG, until};
use crate::{files, sh};

const NAME: &str = "purge-agent";
/// Where an agent in a container listens: what `purgectl` asks by default.
pub const SOCKET_DIR: &str = "/run/purge-agent";

/// The image with the two static programs.
#[derive(Debug)]
pub struct Image {
    store: TempDir,
}

impl Image {
    /// Builds it of the programs that the packages have.
    ///
    /// # Errors
    /// Without podman or static programs: a reason to skip.
    ///
    /// # Panics
    /// When it cannot be built although both are there.
    pub fn build() -> Result<Self, Unmet> {
        for program in ["podman", "runc"] {
            sh(Command::new(program).arg("--version")).map_err(Unmet)?;
        }
        if !are_static() {
            return Err(Unmet(
                "PURGE_TESTS_STATIC is not set: package/build takes minutes".into(),
            ));
        }
        let image = Self {
            store: files::temp_dir(),
        };
        let packed = files::temp_dir();
        let deb = package("deb", VERSION, packed.path())?;
        let context = files::temp_dir();
        let unpacked = context.path().join("unpacked");
        sh(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked)).expect("the package");
        let to = context.path().join("target/package");
        fs::create_dir_all(&to).expect("a directory");
        for program in ["usr/sbin/purge-agent", "usr/bin/purgectl"] {
            let from = unpacked.join(program);
            let name = from.file_name().expect("a name");
            fs::rename(&from, to.join(name)).expect("the program");
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../package/Containerfile");
        let mut build = image.podman();
        build.args(["build", "--quiet", "--layers=false", "--file", file]);
        sh(build.args(["--tag", NAME]).arg(context.path())).expect("podman build");
        Ok(image)
    }

    /// podman, with this store and nothing of the host's.
    pub fn podman(&self) -> Command {
        let mut podman = Command::new("podman");
        let dir = self.store.path();
        podman.arg("--root").arg(dir.join("store"));
        podman.arg("--runroot").arg(dir.join("run"));
        podman.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        // It also runs where control groups of both versions are mounted.
        podman.args(["--runtime", "runc"]);
        podman
    }

    /// `podman run` without a network, with these options, up to the image's name.
    pub fn run(&self, options: &[String]) -> Command {
        let mut run = self.podman();
        run.args(["run", "--network=none", "--pull=never"]);
        // Less than podman gives: this host may have no right to give so much.
        run.args(["--ulimit", "nofile=8192:8192", "--ulimit", "nproc=4096:4096"]);
        run.args(options).arg(NAME);
        run
    }

    /// A container that goes on; `name` is its name, and `words` follow the image.
    ///
    /// # Panics
    /// When podman does not start it.
    pub fn start(&self, name: &str, options: &[String], words: &[&str]) -> Container<'_> {
        let mut all = vec!["--detach".to_owned(), "--name".into(), name.into()];
        all.extend_from_slice(options);
        sh(self.run(&all).args(words)).expect("podman run");
        Container {
            image: self,
            name: name.into(),
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // What podman mounts of its store stays mounted.
        for mounted in ["store/overlay", "store"] {
            let at = self.store.path().join(mounted);
            let _ = sh(Command::new("umount").arg("--lazy").arg(at));
        }
    }
}

/// A container that runs. Dropping it removes it.
#[derive(Debug)]
pub struct Container<'a> {
    image: &'a Image,
    name: String,
}

impl Container<'_> {
    /// What `purgectl` in it prints.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn ctl(&self, words: &[&str]) -> Result<Value, String> {
        let mut exec = self.image.podman();
        exec.args(["exec", &self.name, "/usr/bin/purgectl", "--output", "json"]);
        let said = sh(exec.args(words))?;
        serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))
    }

    /// The same, with any exit code: it says by that what is in the answer as well.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn answer(&self, words: &[&str]) -> Value {
        let mut exec = self.image.podman();
        exec.args(["exec", &self.name, "/usr/bin/purgectl", "--output", "json"]);
        let out = exec.args(words).output().expect("podman exec");
        let said = String::from_utf8_lossy(&out.stderr);
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}: {said}"))
    }

    /// Waits until its only volume is tracking, and returns what `status` says of it.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn tracking(&self) -> Value {
        until("the agent in the container is tracking", LONG, || {
            let status = self.ctl(&["status"]).ok()?;
            let volume = status.pointer("/volumes/0")?;
            (volume.get("state")? == "tracking").then(|| volume.clone())
        })
    }

    /// Its log.
    pub fn log(&self) -> String {
        let logs = self.image.podman().args(["logs", &self.name]).output();
        logs.map_or_else(
            |e| e.to_string(),
            |logs| String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).into_owned(),
        )
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the container {}: {}", self.name, self.log());
        }
        let mut remove = self.image.podman();
        let _ = sh(remove.args(["rm", "--force", "--time", "5", &self.name]));
    }
}

/// A directory of the host at a place in a container.
pub fn mounted(from: &Path, to: &str) -> [String; 2] {
    ["--volume".into(), format!("{}:{to}", from.display())]
}
