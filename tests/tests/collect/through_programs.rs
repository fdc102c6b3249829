//! Programs that rely on what a file system promises, through a mount whose process is killed under them: none gets an error, and all that they
//! have written is there.
//!
//! With `PURGE_TESTS_LONG=1` each does more, for minutes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use purge_tests::skip::Unmet;
use purge_tests::through::{Point, Through};
use purge_tests::wait::{Ends, SOON, until};
use purge_tests::{Agent, Fs, Mount, need, sh};

/// What the kernel is taken to lack.
const WAYS: [&str; 2] = ["", "fuse_passthrough"];
/// The mount's parent rests for a second at most before it starts the next process.
const KILLED_EVERY: Duration = Duration::from_millis(700);

fn is_long() -> bool {
    std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1")
}

fn of(short: u32, long: u32) -> String {
    if is_long() { long } else { short }.to_string()
}

/// The program, if it is installed.
fn installed(program: &str) -> Result<Command, Unmet> {
    let missing = || Unmet(format!("{program} is not installed"));
    let path = std::env::var_os("PATH").ok_or_else(missing)?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(program));
    let found = found.into_iter().find(|path| path.is_file());
    found.map(Command::new).ok_or_else(missing)
}

/// Does something in a directory of the mount, given that and the same one behind, while the mount's process is killed again and again.
fn while_killed(act: impl Fn(&Path, &Path)) -> Result<(), Unmet> {
    while_killed_with(&WAYS, act)
}

fn while_killed_with(ways: &[&str], act: impl Fn(&Path, &Path)) -> Result<(), Unmet> {
    for without in ways {
        let mount = Mount::new(Fs::Ext4)?;
        let behind = mount.dir("volume");
        let point = Point::new()?;
        let agent = Agent::prepared(&point.config(&behind));
        let environment = [
            ("PURGE_AGENT_SINGLE_PROCESS", "0"),
            ("PURGE_AGENT_WITHOUT", without),
        ];
        let mut through = Through::of(&agent, &point, &environment);
        let at = through.path();
        let over = AtomicBool::new(false);
        let kills = std::thread::scope(|scope| {
            let killer = scope.spawn(|| kill_until(&through, &over));
            {
                let _ends = Ends(&over);
                act(&at, &behind);
            }
            killer.join().expect("who kills")
        });
        println!("without {without:?}: killed {kills} times");
        assert!(kills > 0, "it was not killed");
        through.terminate();
    }
    Ok(())
}

fn kill_until(through: &Through, over: &AtomicBool) -> u32 {
    let mut kills = 0;
    loop {
        let killed = through.kill_below_parent();
        kills += 1;
        until("another process serves", SOON, || {
            through.below_parent().filter(|pid| *pid != killed)
        });
        std::thread::sleep(KILLED_EVERY);
        if over.load(Relaxed) {
            return kills;
        }
    }
}

#[test]
fn fio_reads_what_it_wrote() {
    need!(installed("fio").map(drop));
    need!(while_killed(|at, _| {
        let size = format!("--size={}M", of(4, 64));
        let fio = |dir: &Path, engine: &str| {
            let mut fio = Command::new("fio");
            fio.current_dir("/")
                .arg(format!("--directory={}", dir.display()))
                .args(["--name=verified", "--rw=randrw", "--bs=4k-64k", "--numjobs=2"])
                .args([
                    "--verify=crc32c",
                    "--do_verify=1",
                    "--verify_fatal=1",
                    "--fallocate=none",
                ])
                .args([&size, &format!("--ioengine={engine}")]);
            sh(&mut fio).unwrap();
        };
        for engine in ["psync", "mmap"] {
            let dir = at.join(engine);
            fs::create_dir(&dir).unwrap();
            fio(&dir, engine);
        }
    }));
}

/// For these a file stays as long as it is open, also after it has lost its name. Only the kernel can keep such a file over the end of a process, so
/// these run where it has the files open by itself.
const NAMELESS: [&str; 5] = ["hdd", "seek", "fallocate", "utime", "lockf"];
const NAMED: [&str; 8] = [
    "dentry", "dir", "rename", "link", "symlink", "flock", "xattr", "open",
];

fn stress(at: &Path, stressors: &[&str]) {
    for some in stressors.chunks(4) {
        let mut stress = Command::new("stress-ng");
        stress
            .args(["--verify", "--hdd-bytes", "8m"])
            .args(["--fallocate-bytes", "8m", "--seek-size", "8m"])
            .args(["--timeout", &format!("{}s", of(3, 30))])
            .arg("--temp-path")
            .arg(at);
        for stressor in some {
            stress.args([&format!("--{stressor}"), "1"]);
        }
        let _ = sh(stress.current_dir("/")).unwrap();
    }
}

#[test]
fn stress_ng_finds_no_fault() {
    need!(installed("stress-ng").map(drop));
    need!(while_killed(|at, _| stress(at, &NAMED)));
    need!(while_killed_with(&[""], |at, _| stress(at, &NAMELESS)));
}

#[test]
fn git_finds_its_objects_whole() {
    need!(installed("git").map(drop));
    need!(while_killed(|at, behind| {
        let git = |dir: &Path, arguments: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(dir)
                .env("HOME", at)
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .args(["-c", "user.name=x", "-c", "user.email=x@example.org"])
                .args(["-c", "safe.directory=*", "-c", "gc.auto=0"])
                .args(arguments);
            sh(&mut git).unwrap()
        };
        let tree = at.join("tree");
        fs::create_dir(&tree).unwrap();
        git(&tree, &["init", "-q"]);
        let commits: u32 = of(8, 100).parse().unwrap();
        for commit in 0..commits {
            for n in 0..20 {
                fs::write(
                    tree.join(format!("f{n}")),
                    format!("{commit} {n}\n").repeat(50 + n),
                )
                .unwrap();
            }
            git(&tree, &["add", "-A"]);
            git(&tree, &["commit", "-qm", "one more"]);
        }
        git(&tree, &["gc", "-q"]);
        git(at, &["clone", "-q", "--no-hardlinks", "tree", "clone"]);
        for dir in ["tree", "clone"] {
            git(&at.join(dir), &["fsck", "--strict", "--full"]);
            assert_eq!(git(&at.join(dir), &["status", "--porcelain"]), "");
            let count = git(&behind.join(dir), &["rev-list", "--count", "HEAD"]);
            assert_eq!(count.trim(), commits.to_string(), "seen from behind");
        }
    }));
}

#[test]
fn sqlite_keeps_what_was_committed() {
    need!(installed("sqlite3").map(drop));
    need!(while_killed(|at, behind| {
        for journal in ["delete", "wal"] {
            let sqlite = |dir: &Path, words: &str| {
                let path = dir.join(format!("{journal}.db"));
                sh(Command::new("sqlite3").current_dir("/").arg(path).arg(words)).unwrap()
            };
            sqlite(
                at,
                &format!("pragma journal_mode = {journal}; create table t (n integer primary key, text)"),
            );
            let rounds: u32 = of(30, 600).parse().unwrap();
            for round in 0..rounds {
                sqlite(
                    at,
                    &format!(
                        "begin; with recursive c(x) as (select 1 union all select x + 1 from c where x < 100)
                         insert into t (text) select hex(randomblob(50)) from c; commit; update t set text = 'x' where n = {round}"
                    ),
                );
            }
            for dir in [at, behind] {
                let found = sqlite(dir, "pragma integrity_check; select count(*) from t");
                assert_eq!(found.trim(), format!("ok\n{}", rounds * 100));
            }
        }
    }));
}

/// Where Debian has the programs of PostgreSQL's server.
fn postgres() -> Result<PathBuf, Unmet> {
    let missing = || Unmet("PostgreSQL's server is not installed".into());
    let versions = fs::read_dir("/usr/lib/postgresql").map_err(|_| missing())?;
    let programs = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let whole = |dir: &PathBuf| {
        ["initdb", "pg_ctl", "pgbench", "psql"]
            .iter()
            .all(|program| dir.join(program).is_file())
    };
    programs.filter(whole).max().ok_or_else(missing)
}

#[test]
fn postgresql_keeps_what_was_committed() {
    let programs = need!(postgres());
    need!(while_killed(|at, _| {
        let data = at.join("data");
        fs::create_dir(&data).unwrap();
        let nobody = 65_534;
        rustix::fs::chown(&data, Some(rustix::fs::Uid::from_raw(nobody)), None).unwrap();
        fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().uid(), nobody);
        let run = |program: &str, arguments: &[&str]| {
            let mut run = Command::new("setpriv");
            run.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
                .arg(programs.join(program))
                .args(arguments)
                .current_dir("/")
                .env("PGHOST", &data)
                .env("PGUSER", "nobody")
                .env("PGDATABASE", "postgres")
                .env("PGDATA", &data);
            run
        };
        let _ = sh(&mut run(
            "initdb",
            &["-A", "trust", "--data-checksums", "--no-sync"],
        ))
        .unwrap();
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={}",
            data.display()
        );
        let log = data.join("log");
        let log = log.to_str().unwrap();
        let start = ["-w", "-l", log, "-o", &options, "start"];
        let begun = run("pg_ctl", &start).status().unwrap();
        assert!(begun.success(), "{}", fs::read_to_string(log).unwrap());
        let _ = sh(&mut run("pgbench", &["-q", "-i", "-s", &of(1, 5)])).unwrap();
        let out = sh(&mut run("pgbench", &["-c", "4", "-t", &of(100, 5000)])).unwrap();
        println!("{out}");
        let sums =
            "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
                    (select count(*) from pgbench_history)";
        let found = sh(&mut run("psql", &["-At", "-c", sums])).unwrap();
        let wanted = 4 * of(100, 5000).parse::<u32>().unwrap();
        assert_eq!(found.trim(), format!("t|{wanted}"));
        // As if its host had crashed, and once more after that.
        let _ = sh(&mut run("pg_ctl", &["-m", "immediate", "stop"])).unwrap();
        assert!(run("pg_ctl", &start).status().unwrap().success());
        let found = sh(&mut run("psql", &["-At", "-c", sums])).unwrap();
        assert_eq!(found.trim(), format!("t|{wanted}"));
        let _ = sh(&mut run("pg_ctl", &["-m", "fast", "stop"])).unwrap();
        let _ = sh(&mut run("pg_checksums", &["--check"])).unwrap();
    }));
}

#[test]
fn a_tree_that_is_unpacked_and_built_is_the_same_as_behind() {
    need!(installed("make").and_then(|_| installed("cc")).map(drop));
    need!(while_killed(|at, behind| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let packed = at.join("packed.tar");
        sh(Command::new("tar")
            .arg("-C")
            .arg(sources)
            .arg("-cf")
            .arg(&packed)
            .args(["crates", "agent", "ctl/src", "docs"]))
        .unwrap();
        for dir in [at.join("through"), behind.join("direct")] {
            fs::create_dir(&dir).unwrap();
            sh(Command::new("tar").arg("-C").arg(&dir).arg("-xf").arg(&packed)).unwrap();
            write_sources(&dir);
            sh(Command::new("make").args(["-s", "-j2", "-C"]).arg(&dir)).unwrap();
        }
        sh(Command::new("diff")
            .args(["-r", "--no-dereference"])
            .args([at.join("through"), behind.join("direct")]))
        .unwrap();
        let out = sh(&mut Command::new(at.join("through/program"))).unwrap();
        let count: u32 = of(20, 300).parse().unwrap();
        assert_eq!(out.trim(), (count * (count - 1) / 2).to_string());
    }));
}

/// A program of many files, which adds their numbers.
fn write_sources(dir: &Path) {
    let count: u32 = of(20, 300).parse().unwrap();
    let mut main = String::from("#include <stdio.h>\n");
    let mut sum = String::from("0");
    for n in 0..count {
        fs::write(
            dir.join(format!("f{n}.c")),
            format!("int f{n}(void) {{ return {n}; }}\n"),
        )
        .unwrap();
        main.push_str(&format!("int f{n}(void);\n"));
        sum.push_str(&format!(" + f{n}()"));
    }
    main.push_str(&format!(
        "int main(void) {{ printf(\"%d\\n\", {sum}); return 0; }}\n"
    ));
    fs::write(dir.join("main.c"), main).unwrap();
    let make =
        "program: $(patsubst %.c,%.o,$(sort $(wildcard *.c)))\n\tcc -o $@ $^\n%.o: %.c\n\tcc -c -o $@ $<\n";
    fs::write(dir.join("Makefile"), make).unwrap();
}
