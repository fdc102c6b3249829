//! The mount by which users come to a volume: it is a file system like the one behind it, and the agent is told of uses before they happen.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::battery::{battery_at, compare_named};
use purge_tests::files::{age_tree, make_one, read, set_times};
use purge_tests::sys::Mapping;
use purge_tests::through::{Point, Through, hear};
use purge_tests::ways::Way;
use purge_tests::{Agent, Fs, Mount, need, sh};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, XattrFlags};

/// What the kernel is taken to lack: each test is run with and without.
const WAYS: [&str; 2] = ["", "fuse_passthrough"];

/// Does something on each file system, with and without passthrough: given where users see the volume, and what lies behind.
fn on_each(filesystems: &[Fs], act: impl Fn(&Path, &Path)) -> Result<(), purge_tests::skip::Unmet> {
    for filesystem in filesystems {
        for without in WAYS {
            let mount = Mount::new(*filesystem)?;
            let behind = mount.dir("volume");
            let point = Point::new()?;
            let agent = Agent::prepared(&point.config(&behind));
            let through = Through::of(&agent, &point, &[("PURGE_AGENT_WITHOUT", without)]);
            act(&through.path(), &behind);
        }
    }
    Ok(())
}

/// What was told so far: the numbers in the log.
fn told(agent: &Agent) -> Vec<u64> {
    let dir = agent.state_dir().join("volumes/v.d/told");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().parse::<u64>().is_ok() {
            let bytes = fs::read(path).unwrap();
            let (whole, _) = bytes.as_chunks::<8>();
            numbers.extend(whole.iter().map(|number| u64::from_le_bytes(*number)));
        }
    }
    numbers
}

#[test]
fn an_open_is_told_before_it_is_answered_also_while_no_agent_runs() {
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    let file = make_one(&behind.join("file"));
    let ino = fs::metadata(&file).unwrap().ino();
    let point = need!(Point::new());
    let agent = Agent::prepared(&point.config(&behind));
    let through = Through::of(&agent, &point, &[]);
    assert!(!told(&agent).contains(&ino));
    let opened = File::open(through.path().join("file")).unwrap();
    assert!(told(&agent).contains(&ino), "the open was answered");
    let made = File::create(through.path().join("made")).unwrap();
    let made_ino = made.metadata().unwrap().ino();
    assert!(told(&agent).contains(&made_ino));
    drop((opened, made));
}

#[test]
fn what_is_used_through_the_mount_stays_and_the_rest_goes() {
    for without in WAYS {
        let mount = need!(Mount::new(Fs::Ext4));
        let behind = mount.dir("volume");
        for name in ["read", "mapped", "executed", "left", "open"] {
            make_one(&behind.join(name));
        }
        fs::write(behind.join("executed"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(behind.join("executed"), PermissionsExt::from_mode(0o755)).unwrap();
        age_tree(&behind);
        let point = need!(Point::new());
        let mut agent = Agent::prepared(&point.config(&behind));
        let through = Through::of(&agent, &point, &[("PURGE_AGENT_WITHOUT", without)]);
        let at = through.path();
        let open = File::open(at.join("open")).unwrap();
        agent.launch();
        agent.wait_until_tracking();
        assert_eq!(agent.status()["collector"], "fuse");
        assert_eq!(agent.status()["collector_mode"], "filesystem");
        read(&at.join("read"));
        let mapping = Mapping::of(File::open(at.join("mapped")).unwrap());
        assert!(Command::new(at.join("executed")).status().unwrap().success());
        let plan = agent.ctl().plan();
        let run = agent.ctl().apply(&plan).ok().json();
        for name in ["read", "mapped", "executed", "open"] {
            assert!(
                behind.join(name).exists() && at.join(name).exists(),
                "{name}: {run}"
            );
        }
        assert!(!behind.join("left").exists(), "{run}");
        assert!(File::open(at.join("left")).is_err(), "no cached name leads to it");
        drop((mapping, open));
    }
}

#[test]
fn a_file_that_was_open_before_the_plan_and_is_still_open_stays() {
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    let names = ["open", "mapped"];
    names.iter().for_each(|name| drop(make_one(&behind.join(name))));
    make_one(&behind.join("left"));
    age_tree(&behind);
    let point = need!(Point::new());
    let mut agent = Agent::prepared(&point.config(&behind));
    let through = Through::of(&agent, &point, &[]);
    let open = File::open(through.path().join("open")).unwrap();
    let mapping = Mapping::of(File::open(through.path().join("mapped")).unwrap());
    let plan = {
        agent.launch();
        agent.wait_until_tracking();
        // As if the opens had been so long ago that they do not count any more.
        age_tree(&behind);
        let _ = agent.ctl().run(["rescan"]);
        agent.ctl().plan()
    };
    let run = agent.ctl().apply(&plan).ok().json();
    for name in names {
        assert!(behind.join(name).exists(), "{name}: {run}");
    }
    drop((open, mapping));
}

#[test]
fn names_links_and_renames_are_those_of_the_file_system_behind() {
    need!(on_each(
        &[Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs],
        |at, behind| {
            // Names of any bytes.
            let odd = std::ffi::OsStr::from_bytes(b"\xff\n\"' \x01");
            fs::write(at.join(odd), "odd").unwrap();
            assert_eq!(fs::read(behind.join(odd)).unwrap(), b"odd");
            let long = "n".repeat(255);
            fs::write(at.join(&long), "").unwrap();
            assert!(fs::write(at.join("n".repeat(256)), "").is_err());
            // Hard links are one file.
            fs::hard_link(at.join(odd), at.join("second")).unwrap();
            let (first, second) = (
                fs::metadata(at.join(odd)).unwrap(),
                fs::metadata(at.join("second")).unwrap(),
            );
            assert_eq!((first.ino(), first.nlink()), (second.ino(), 2));
            assert_eq!(first.ino(), fs::metadata(behind.join(odd)).unwrap().ino());
            // Symbolic links are not followed.
            symlink("/nowhere/at all", at.join("link")).unwrap();
            assert_eq!(
                fs::read_link(at.join("link")).unwrap(),
                Path::new("/nowhere/at all")
            );
            // Renames, and what they refuse.
            fs::write(at.join("a"), "a").unwrap();
            fs::write(at.join("b"), "b").unwrap();
            let rename = |from: &str, to: &str, flags| {
                rustix::fs::renameat_with(CWD, at.join(from), CWD, at.join(to), flags)
            };
            assert!(rename("a", "b", RenameFlags::NOREPLACE).is_err());
            rename("a", "b", RenameFlags::EXCHANGE).unwrap();
            assert_eq!(fs::read(at.join("a")).unwrap(), b"b");
            fs::create_dir(at.join("dir")).unwrap();
            fs::rename(at.join("a"), at.join("dir/a")).unwrap();
            assert!(fs::remove_dir(at.join("dir")).is_err());
            fs::remove_file(at.join("dir/a")).unwrap();
            fs::remove_dir(at.join("dir")).unwrap();
            assert!(!behind.join("dir").exists());
            // Special files.
            rustix::fs::mknodat(CWD, at.join("pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
            assert!(
                fs::symlink_metadata(behind.join("pipe"))
                    .unwrap()
                    .file_type()
                    .is_fifo()
            );
            let device = rustix::fs::makedev(7, 300);
            rustix::fs::mknodat(
                CWD,
                at.join("device"),
                rustix::fs::FileType::CharacterDevice,
                Mode::RWXU,
                device,
            )
            .unwrap();
            assert_eq!(
                fs::symlink_metadata(behind.join("device")).unwrap().rdev(),
                device
            );
            assert_eq!(fs::symlink_metadata(at.join("device")).unwrap().rdev(), device);
        }
    ));
}

#[test]
fn a_large_directory_is_listed_whole_and_each_name_once() {
    need!(on_each(&[Fs::Ext4, Fs::Tmpfs], |at, behind| {
        const COUNT: usize = 5000;
        let dir = behind.join("many");
        purge_tests::files::make(&dir, COUNT);
        fs::create_dir(behind.join(".purge-agent-trash")).unwrap();
        let names =
            |dir: &Path| -> Vec<PathBuf> { fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect() };
        let listed = names(&at.join("many"));
        let unique: BTreeSet<&PathBuf> = listed.iter().collect();
        assert_eq!((listed.len(), unique.len()), (COUNT, COUNT));
        // With what is said of each.
        let out = sh(Command::new("ls").arg("-l").arg(at.join("many"))).unwrap();
        assert_eq!(out.lines().count(), COUNT + 1);
        // The trash is not the users'.
        assert!(!names(at).iter().any(|path| path.ends_with(".purge-agent-trash")));
        assert!(!at.join(".purge-agent-trash").exists());
    }));
}

#[test]
fn files_are_read_written_mapped_and_cut_as_behind() {
    need!(on_each(
        &[Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs],
        |at, behind| {
            let (path, under) = (at.join("file"), behind.join("file"));
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .unwrap();
            let block: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
            file.write_all(&block).unwrap();
            file.sync_all().unwrap();
            assert!(fs::read(&under).unwrap() == block);
            // A hole, and where the data is.
            file.set_len(4 << 20).unwrap();
            file.write_all_at(b"end", (4 << 20) - 3).unwrap();
            let punched = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, punched, 0, 64 << 10).unwrap();
            let mut head = [1; 16];
            file.read_exact_at(&mut head, 0).unwrap();
            assert_eq!(head, [0; 16]);
            let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
            let behind_file = File::open(&under).unwrap();
            assert_eq!(
                data,
                rustix::fs::seek(&behind_file, rustix::fs::SeekFrom::Data(0)).unwrap()
            );
            // Appending, and cutting by name.
            let mut appended = OpenOptions::new().append(true).open(&path).unwrap();
            appended.write_all(b"more").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), (4 << 20) + 4);
            sh(Command::new("perl")
                .args(["-e", "truncate($ARGV[0], 10) or die"])
                .arg(&path))
            .unwrap();
            assert_eq!(fs::metadata(&under).unwrap().len(), 10);
            // O_TRUNC, and reading what another process wrote behind.
            drop(File::create(&path).unwrap());
            fs::write(&under, "written behind").unwrap();
            let mut text = String::new();
            File::open(&path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "written behind");
            // A copy within the kernel.
            let (from, to) = (File::open(&path).unwrap(), File::create(at.join("copy")).unwrap());
            let mut left = 14;
            while left > 0 {
                left -= rustix::fs::copy_file_range(&from, None, &to, None, left).unwrap();
            }
            assert_eq!(fs::read(behind.join("copy")).unwrap(), b"written behind");
            // Without page cache.
            let direct = OpenOptions::new()
                .read(true)
                .custom_flags(libc_direct())
                .open(&path);
            assert!(direct.is_ok());
            // Seen at once in both, through a mapping.
            let mapping = Mapping::of(OpenOptions::new().read(true).write(true).open(&path).unwrap());
            assert_eq!(mapping.first_byte(), b'w');
            OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .write_all_at(b"W", 0)
                .unwrap();
            assert_eq!(mapping.first_byte(), b'W');
            file.seek(SeekFrom::Start(0)).unwrap();
        }
    ));
}

fn libc_direct() -> i32 {
    i32::try_from(OFlags::DIRECT.bits()).unwrap()
}

#[test]
fn a_file_without_a_name_gets_one() {
    need!(on_each(&[Fs::Ext4, Fs::Xfs, Fs::Tmpfs], |at, behind| {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = match rustix::fs::open(at, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file,
            // Before Linux 6.1.
            Err(rustix::io::Errno::OPNOTSUPP) => return,
            Err(error) => panic!("{error}"),
        };
        rustix::io::write(&file, b"content").unwrap();
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        rustix::fs::linkat(CWD, link, CWD, at.join("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
        assert_eq!(fs::read(behind.join("named")).unwrap(), b"content");
    }));
}

#[test]
fn attributes_modes_and_times_are_kept() {
    need!(on_each(
        &[Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs],
        |at, behind| {
            let (path, under) = (at.join("file"), behind.join("file"));
            make_one(&path);
            rustix::fs::setxattr(&path, "user.colour", b"blue", XattrFlags::empty()).unwrap();
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(&under, "user.colour", &mut value[..]).unwrap();
            assert_eq!(&value[..length], b"blue");
            let length = rustix::fs::listxattr(&path, &mut value[..]).unwrap();
            assert!(length > 0);
            rustix::fs::removexattr(&path, "user.colour").unwrap();
            assert!(rustix::fs::getxattr(&under, "user.colour", &mut value[..]).is_err());
            fs::set_permissions(&path, PermissionsExt::from_mode(0o2751)).unwrap();
            assert_eq!(fs::metadata(&under).unwrap().mode() & 0o7777, 0o2751);
            for seconds in [0, -1, -86_401, 4_000_000_000] {
                set_times(&path, seconds);
                assert_eq!(
                    fs::metadata(&path).unwrap().mtime(),
                    fs::metadata(&under).unwrap().mtime()
                );
            }
            let (here, there) = (
                rustix::fs::statvfs(at).unwrap(),
                rustix::fs::statvfs(behind).unwrap(),
            );
            assert_eq!(
                (here.f_blocks, here.f_files, here.f_namemax),
                (there.f_blocks, there.f_files, there.f_namemax)
            );
        }
    ));
}

#[test]
fn each_user_may_what_the_modes_say_and_owns_what_was_made() {
    need!(on_each(&[Fs::Ext4, Fs::Tmpfs], |at, behind| {
        let as_user = |groups: &str, line: &str| {
            let mut sh = Command::new("setpriv");
            sh.args([
                "--reuid", "12345", "--regid", "12345", "--groups", groups, "sh", "-c", line,
            ]);
            sh.current_dir(at).output().unwrap()
        };
        fs::write(at.join("secret"), "secret").unwrap();
        fs::set_permissions(at.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::create_dir(at.join("theirs")).unwrap();
        rustix::fs::chown(at.join("theirs"), Some(rustix::fs::Uid::from_raw(12_345)), None).unwrap();
        fs::create_dir(at.join("team")).unwrap();
        rustix::fs::chown(at.join("team"), None, Some(rustix::fs::Gid::from_raw(777))).unwrap();
        fs::set_permissions(at.join("team"), PermissionsExt::from_mode(0o2770)).unwrap();
        assert!(!as_user("12345", "cat secret").status.success());
        assert!(!as_user("12345", "touch new").status.success());
        assert!(
            as_user(
                "12345",
                "umask 027; echo x > theirs/a; mkdir theirs/d; ln -s a theirs/l"
            )
            .status
            .success()
        );
        for (name, mode) in [("a", 0o640), ("d", 0o750)] {
            let made = fs::metadata(behind.join("theirs").join(name)).unwrap();
            assert_eq!(
                (made.uid(), made.gid(), made.mode() & 0o777),
                (12_345, 12_345, mode),
                "{name}"
            );
        }
        assert_eq!(
            fs::symlink_metadata(behind.join("theirs/l")).unwrap().uid(),
            12_345
        );
        // A directory whose group is a further one of the user.
        assert!(!as_user("12345", "touch team/no").status.success());
        assert!(
            as_user("12345,777", "mkdir team/sub; echo x > team/file")
                .status
                .success()
        );
        let made = fs::metadata(behind.join("team/file")).unwrap();
        assert_eq!((made.uid(), made.gid()), (12_345, 777));
        assert_eq!(
            fs::metadata(behind.join("team/sub")).unwrap().mode() & 0o2000,
            0o2000
        );
        // Who writes to a program that runs as its owner makes it an ordinary one.
        fs::write(at.join("theirs/program"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at.join("theirs/program"), PermissionsExt::from_mode(0o4777)).unwrap();
        assert!(as_user("12345", "echo >> theirs/program").status.success());
        assert_eq!(
            fs::metadata(behind.join("theirs/program")).unwrap().mode() & 0o4000,
            0
        );
    }));
}

/// The kernel knows for a second what had a name. What another user puts there behind the mount meanwhile is that user's.
#[test]
fn in_a_sticky_directory_no_user_takes_away_what_is_anothers_by_now() {
    need!(on_each(&[Fs::Ext4, Fs::Tmpfs], |at, behind| {
        let as_user = |line: &str| {
            let mut sh = Command::new("setpriv");
            sh.args([
                "--reuid",
                "12345",
                "--regid",
                "12345",
                "--clear-groups",
                "sh",
                "-c",
                line,
            ]);
            sh.current_dir(at).output().unwrap()
        };
        let shared = behind.join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(as_user("echo x > shared/own && rm shared/own").status.success());
        for line in [
            "rm -f shared/name",
            "mv -f shared/name shared/mine",
            "mv -f shared/other shared/name",
        ] {
            assert!(
                as_user("echo x > shared/name; echo x > shared/other")
                    .status
                    .success()
            );
            fs::remove_file(shared.join("name")).unwrap();
            fs::write(shared.join("name"), "root's").unwrap();
            as_user(line);
            assert_eq!(fs::read(shared.join("name")).unwrap(), b"root's", "{line}");
            fs::remove_file(shared.join("name")).unwrap();
        }
    }));
}

#[test]
fn access_control_lists_are_obeyed_and_inherited() {
    need!(sh(Command::new("setfacl").arg("--version")).map_err(purge_tests::skip::Unmet));
    need!(on_each(&[Fs::Ext4, Fs::Xfs], |at, behind| {
        fs::write(at.join("listed"), "x").unwrap();
        fs::set_permissions(at.join("listed"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::create_dir(at.join("dir")).unwrap();
        sh(Command::new("setfacl")
            .args(["-m", "u:12345:r"])
            .arg(at.join("listed")))
        .unwrap();
        sh(Command::new("setfacl")
            .args(["-d", "-m", "g:777:rw"])
            .arg(at.join("dir")))
        .unwrap();
        let mut cat = Command::new("setpriv");
        cat.args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "cat"])
            .arg(at.join("listed"));
        assert!(cat.status().unwrap().success());
        fs::write(at.join("dir/inherits"), "x").unwrap();
        let list = sh(Command::new("getfacl")
            .arg("-cp")
            .arg(behind.join("dir/inherits")))
        .unwrap();
        assert!(list.contains("group:777:rw"), "{list}");
    }));
}

#[test]
fn a_lock_is_seen_from_both_sides() {
    need!(on_each(&[Fs::Ext4, Fs::Tmpfs], |at, behind| {
        make_one(&at.join("file"));
        let (here, there) = (
            File::open(at.join("file")).unwrap(),
            File::open(behind.join("file")).unwrap(),
        );
        rustix::fs::flock(&here, FlockOperation::LockExclusive).unwrap();
        assert!(rustix::fs::flock(&there, FlockOperation::NonBlockingLockExclusive).is_err());
        rustix::fs::flock(&here, FlockOperation::Unlock).unwrap();
        rustix::fs::flock(&there, FlockOperation::LockExclusive).unwrap();
        assert!(rustix::fs::flock(&here, FlockOperation::NonBlockingLockShared).is_err());
        // One that waits gets it, and holds up no other request.
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| rustix::fs::flock(&here, FlockOperation::LockShared).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(200));
            assert!(!waits.is_finished());
            read(&at.join("file"));
            rustix::fs::flock(&there, FlockOperation::Unlock).unwrap();
            waits.join().unwrap();
        });
    }));
}

#[test]
fn after_sigterm_nothing_is_mounted_and_another_mount_is_refused_before() {
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    make_one(&behind.join("file"));
    let point = need!(Point::new());
    let agent = Agent::prepared(&point.config(&behind));
    let mut through = Through::of(&agent, &point, &[]);
    let mut second = Command::new(purge_tests::binary("purge-agent"));
    second
        .args(["mount", "--volume", "v", "--config"])
        .arg(agent.config_file());
    let second = second.env("PURGE_AGENT_SINGLE_PROCESS", "1").output().unwrap();
    assert!(!second.status.success(), "two mounts of one volume");
    read(&through.path().join("file"));
    through.terminate();
    assert!(!point.path().join("file").exists());
    // Killed, and started without anyone having kept anything: what is dead is taken away.
    through.launch();
    through.kill();
    assert!(fs::metadata(point.path().join("file")).is_err());
    let mut through = Through::of(&agent, &point, &[]);
    read(&through.path().join("file"));
    through.terminate();
}

#[test]
fn what_is_done_through_a_mount_of_the_agents_is_seen_as_its_table_says() {
    let heads = ["passthrough", "process", "places"];
    let mut columns = Vec::new();
    // What watches behind it, and what the kernel is taken to lack.
    for (behind, without) in [("", ""), ("", "fuse_passthrough"), (Way::Places.without(), "")] {
        let mount = need!(Mount::new(Fs::Ext4));
        let (volume, outside) = (mount.dir("volume"), mount.dir("outside"));
        let point = need!(Point::new());
        let mut agent = Agent::prepared(&point.config(&volume));
        agent.environment("PURGE_AGENT_WITHOUT", Path::new(behind));
        let through = Through::of(&agent, &point, &[("PURGE_AGENT_WITHOUT", without)]);
        let seen = through.path();
        columns.push(battery_at((&seen, &volume), &outside, || {
            hear(&agent);
            agent.launch();
            agent.wait_until_tracking();
            agent
        }));
    }
    compare_named("mount", &heads, &columns);
}
