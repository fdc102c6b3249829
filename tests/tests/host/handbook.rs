//! The handbook, tried: every command and configuration of it, from top to bottom, on a fresh Debian with systemd.

use std::fs;
use std::path::{Path, PathBuf};

use purge_tests::files::{regular_files, temp_dir};
use purge_tests::handbook::{Piece, chapters, pieces, with_lines};
use purge_tests::package::{VERSION, package};
use purge_tests::systemd::{FILES_AT, Machine};
use purge_tests::wait::{LONG, until};
use purge_tests::{Fs, Mount, need};
use serde_json::Value;

/// What lies on the volume before the agent starts. None of it was used for long.
const FILES: [&str; 6] = [
    "alice/x.dat",
    "alice/notes/a",
    "bob/old/a",
    "bob/old/b",
    "carol/paper",
    "projects/p/q",
];
const BIG: usize = 2 << 20;

/// The volume's place in the machine.
const PLACE: &str = "/export/scratch";

/// Files, and directories, whose times all lie far back.
fn old_volume() -> Result<Mount, purge_tests::skip::Unmet> {
    let mut mount = Mount::new(Fs::Ext4Relatime)?;
    let mut inside = Vec::new();
    for file in FILES {
        let path = mount.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![b'x'; BIG]).unwrap();
        let above = Path::new(file).ancestors().filter(|p| *p != Path::new(""));
        inside.extend(above.map(PathBuf::from));
    }
    inside.sort();
    inside.dedup();
    let set: Vec<String> = inside
        .iter()
        .flat_map(|path| {
            ["atime", "mtime", "ctime", "crtime"]
                .map(|time| format!("set_inode_field /{} {time} 20260101", path.display()))
        })
        .collect();
    mount.damage(&set.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(mount)
}

struct Reader {
    machine: Machine,
    tried: usize,
}

impl Reader {
    /// Runs a line as a person at a terminal would, with the words in capitals replaced.
    fn command(&mut self, line: &str) {
        let mut line = line.to_owned();
        for (word, list, id) in [
            ("PLAN", "plans", "plan_id"),
            ("RUN", "runs", "run_id"),
            ("HOLD", "hold list", "hold_id"),
        ] {
            if line.split(' ').any(|w| w == word) {
                let newest = self.newest(list, id);
                let words = line.split(' ').map(|w| if w == word { &newest } else { w });
                line = words.collect::<Vec<_>>().join(" ");
            }
        }
        let asks = line.starts_with("purgectl apply ") && !line.contains("--yes");
        let typed = match asks {
            true => format!("printf 'y\\n' | script -qec '{line}' /dev/null"),
            false if line.starts_with("apt ") => format!("printf 'y\\n' | {line}"),
            false => line.clone(),
        };
        let typed = format!("cd {FILES_AT}; export DEBIAN_FRONTEND=noninteractive; {typed}");
        match self.machine.run(&["sh", "-c", &typed]) {
            Ok(printed) => println!("# {line}\n{printed}"),
            Err(why) => panic!("# {line}\n{why}"),
        }
        self.tried += 1;
        if ["start purge-agent", "--now purge-agent"]
            .iter()
            .any(|w| line.contains(w))
        {
            self.wait();
        }
        if line.contains(" apply ") {
            until("the run has ended", LONG, || {
                let runs = self.json("runs");
                (runs.pointer("/0/state")? != "running").then_some(())
            });
        }
    }

    fn newest(&self, list: &str, id: &str) -> String {
        let all = self.json(list);
        let newest = all.pointer("/0").and_then(|row| row.get(id)?.as_str());
        newest.unwrap_or_else(|| panic!("no {id} in {all}")).to_owned()
    }

    fn json(&self, command: &str) -> Value {
        let words = command.split(' ').chain(["--output", "json"]);
        self.machine.ctl().run(words).ok().json()
    }

    fn wait(&self) {
        until("the agent is tracking", LONG, || {
            let status = self.machine.ctl().run(["status", "--output", "json"]);
            let status: Value = serde_json::from_slice(&status.stdout).ok()?;
            (status.pointer("/volumes/0/state")? == "tracking").then_some(())
        });
    }

    fn lines(&self, file: &str, below: Option<&str>, text: &str) {
        let before = fs::read_to_string(self.machine.path(file)).unwrap_or_default();
        self.machine.write(file, &with_lines(&before, below, text));
    }
}

#[test]
fn everything_in_the_handbook_works_from_top_to_bottom() {
    let mount = need!(old_volume());
    let packed = temp_dir();
    let package = need!(package("deb", VERSION, packed.path()));
    let bound = PathBuf::from(format!("{}:{PLACE}", mount.path().display()));
    let machine = need!(Machine::alone(&[&bound], &[&package]));
    machine.run(&["useradd", "--uid", "4001", "alice"]).unwrap();
    machine.write("/etc/hosts", "127.0.0.1 localhost\n");
    let mut reader = Reader { machine, tried: 0 };
    let there = |file: &str| mount.path().join(file).exists();
    for piece in pieces(&chapters()) {
        // The first `ignore_accessors` takes another kind of queue: one gap, which its text says to forgive.
        if matches!(&piece, Piece::Command(line) if line == "systemctl enable --now purge-agent") {
            let file = "/etc/purge-agent/agent.toml";
            let text = fs::read_to_string(reader.machine.path(file.trim_start_matches('/'))).unwrap();
            let text = text.replace("gap_tolerance = \"0s\"", "gap_tolerance = \"1h\"");
            reader.machine.write(file, &text);
        }
        match &piece {
            Piece::Command(line) => reader.command(line),
            Piece::Lines { file, below, text } => reader.lines(file, below.as_deref(), text),
        }
        // What the text around a command promises of it.
        match &piece {
            Piece::Command(line) if line == "purgectl apply PLAN" => {
                assert!(!there("bob/old") && !there("alice/notes") && there("alice/x.dat"));
            }
            Piece::Command(line) if line.starts_with("purgectl restore RUN /") => {
                assert!(there("bob/old/b") && !there("alice/notes"), "a part came back");
            }
            Piece::Command(line) if line.starts_with("purgectl restore RUN") => {
                assert!(there("alice/notes/a"), "all came back");
            }
            Piece::Command(line) if line.contains("--no-grace") => {
                assert!(!there("alice/x.dat") && !there("carol/paper"));
                assert!(there("bob/old/a"), "what came back is in use");
            }
            _ => {}
        }
    }
    assert!(reader.tried > 60, "{} commands", reader.tried);
    assert!(!reader.machine.path("var/lib/purge-agent").exists());
    assert!(!regular_files(&mount.path()).is_empty());
}
