//! The mount by which users come, and the agent, are killed: users notice nothing, and no use is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_tests::ctl::number;
use purge_tests::files::{age_tree, make, make_one, read};
use purge_tests::through::{Point, Through};
use purge_tests::wait::{Ends, SOON, until};
use purge_tests::{Agent, Fs, Mount, need};

/// How often the mount is killed under load. `PURGE_TESTS_KILLS` has another number.
const KILLS: usize = 5;
/// How long a request may wait for the next process, on a busy machine and with unoptimised programs.
const WAITS: Duration = Duration::from_secs(10);

fn kills() -> usize {
    let asked = std::env::var("PURGE_TESTS_KILLS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(KILLS)
}

#[test]
fn users_notice_nothing_when_the_mount_is_killed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    make(&behind.join("dir"), 200);
    let point = need!(Point::new());
    let agent = Agent::prepared(&point.config(&behind));
    for without in ["", "fuse_passthrough"] {
        let environment = [
            ("PURGE_AGENT_SINGLE_PROCESS", "0"),
            ("PURGE_AGENT_WITHOUT", without),
        ];
        let mut through = Through::of(&agent, &point, &environment);
        let at = through.path();
        // Open before, used after.
        let mut kept = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(at.join("kept"))
            .unwrap();
        kept.write_all(b"before").unwrap();
        let mut listing = fs::read_dir(at.join("dir")).unwrap();
        assert!(listing.next().is_some());
        let over = AtomicBool::new(false);
        let (done, longest) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let _ends = Ends(&over);
            for seed in 0..3usize {
                let (at, over, done, longest) = (at.clone(), &over, &done, &longest);
                scope.spawn(move || {
                    let mut n = seed;
                    while !over.load(Relaxed) {
                        let began = Instant::now();
                        work(&at, seed, n);
                        let took = u64::try_from(began.elapsed().as_millis()).unwrap();
                        longest.fetch_max(took, Relaxed);
                        done.fetch_add(1, Relaxed);
                        n += 7;
                    }
                });
            }
            for round in 0..kills() {
                let before = done.load(Relaxed);
                until("users work", SOON, || {
                    (done.load(Relaxed) > before + 20).then_some(())
                });
                let killed = through.kill_below_parent();
                until("another process serves", SOON, || {
                    through.below_parent().filter(|pid| *pid != killed)
                });
                kept.write_at(&[u8::try_from(round % 200).unwrap()], 6 + round as u64)
                    .unwrap();
            }
            let before = done.load(Relaxed);
            until("users work after the last", SOON, || {
                (done.load(Relaxed) > before + 20).then_some(())
            });
        });
        println!(
            "without {without:?}: {} pieces of work, the longest {} ms",
            done.load(Relaxed),
            longest.load(Relaxed)
        );
        assert!(Duration::from_millis(longest.load(Relaxed)) < WAITS);
        assert_eq!(fs::read(behind.join("kept")).unwrap().len(), 6 + kills());
        let mut again = [0; 6];
        kept.read_exact_at(&mut again, 0).unwrap();
        assert_eq!(&again, b"before");
        assert!(listing.by_ref().all(|entry| entry.is_ok()));
        // The same file once more while it is still open from before.
        let mut text = Vec::new();
        File::open(at.join("kept"))
            .unwrap()
            .read_to_end(&mut text)
            .unwrap();
        assert_eq!(text.len(), 6 + kills());
        drop((kept, listing));
        through.terminate();
    }
}

/// What users do. Each piece fails loudly.
fn work(at: &std::path::Path, seed: usize, n: usize) {
    let file = at.join(format!("dir/f{:06}", n % 200));
    read(&file);
    fs::metadata(&file).unwrap();
    let own = at.join(format!("own-{seed}-{}", n % 50));
    fs::write(&own, format!("{n}")).unwrap();
    assert_eq!(fs::read(&own).unwrap(), format!("{n}").as_bytes());
    let other = own.with_extension("renamed");
    fs::rename(&own, &other).unwrap();
    fs::remove_file(&other).unwrap();
    let dir = at.join(format!("dir-{seed}-{}", n % 50));
    fs::create_dir(&dir).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    fs::remove_dir(&dir).unwrap();
}

/// The kernel may be handing over what is written in the moment in which the process is killed.
#[test]
fn a_write_that_is_being_handed_over_when_the_mount_is_killed_is_no_error() {
    const WRITERS: u64 = 4;
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    let point = need!(Point::new());
    let agent = Agent::prepared(&point.config(&behind));
    let environment = [
        ("PURGE_AGENT_SINGLE_PROCESS", "0"),
        ("PURGE_AGENT_WITHOUT", "fuse_passthrough"),
    ];
    let mut through = Through::of(&agent, &point, &environment);
    let at = through.path();
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _ends = Ends(&over);
        for writer in 0..WRITERS {
            let (at, over, done) = (at.join(format!("of-{writer}")), &over, &done);
            scope.spawn(move || {
                let file = File::create(at).unwrap();
                let block = vec![7; 1 << 20];
                while !over.load(Relaxed) {
                    file.write_all_at(&block, 0).unwrap();
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        for _ in 0..4 * kills() {
            let before = done.load(Relaxed);
            until("each writes", SOON, || {
                (done.load(Relaxed) >= before + WRITERS).then_some(())
            });
            through.kill_below_parent();
        }
    });
    through.terminate();
}

/// Before Linux 6.9 the kernel does not ask again: who was being answered waits, all others go on.
#[test]
fn where_the_kernel_does_not_ask_again_who_was_not_being_answered_goes_on() {
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    make(&behind.join("dir"), 20);
    let point = need!(Point::new());
    let agent = Agent::prepared(&point.config(&behind));
    for without in ["fuse_resend", "fuse_resend,fuse_passthrough"] {
        let environment = [
            ("PURGE_AGENT_SINGLE_PROCESS", "0"),
            ("PURGE_AGENT_WITHOUT", without),
        ];
        let mut through = Through::of(&agent, &point, &environment);
        let at = through.path();
        let kept = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(at.join("kept"))
            .unwrap();
        for round in 0..3u8 {
            // The end of an open file is answered a moment after the close.
            std::thread::sleep(Duration::from_millis(300));
            through.kill_below_parent();
            kept.write_at(&[round], round.into()).unwrap();
            read(&at.join(format!("dir/f{:06}", usize::from(round) * 3)));
            work(&at, 7, usize::from(round));
        }
        assert_eq!(fs::read(behind.join("kept")).unwrap(), [0, 1, 2]);
        drop(kept);
        through.terminate();
    }
}

#[test]
fn uses_while_the_agent_is_killed_or_away_are_recorded_when_it_is_back() {
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    let names: Vec<PathBuf> = make(&behind, 30);
    age_tree(&behind);
    let point = need!(Point::new());
    let mut agent = Agent::prepared(&point.config(&behind));
    let through = Through::of(&agent, &point, &[]);
    let by_mount = |n: usize| through.path().join(names[n].file_name().unwrap());
    agent.launch();
    agent.wait_until_tracking();
    read(&by_mount(0));
    agent.kill();
    // Without systemd and without a parent nothing keeps the kernel's queue: what the mount tells is all there is.
    read(&by_mount(1));
    agent.launch();
    agent.wait_until_tracking();
    read(&by_mount(2));
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 27, "{}", plan.json);
    let run = agent.ctl().apply(&plan).ok().json();
    for (n, path) in names.iter().enumerate() {
        assert_eq!(path.exists(), n < 3, "{n}: {run}");
    }
}

#[test]
fn a_mount_that_ends_by_itself_is_not_started_again() {
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    make_one(&behind.join("file"));
    let point = need!(Point::new());
    let agent = Agent::prepared(&point.config(&behind));
    let mut through = Through::of(&agent, &point, &[("PURGE_AGENT_SINGLE_PROCESS", "0")]);
    read(&through.path().join("file"));
    purge_tests::sh(std::process::Command::new("umount").arg(point.path())).unwrap();
    until("it ends", SOON, || (!through.is_running()).then_some(()));
}
